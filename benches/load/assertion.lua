-- SIGNED=target/load/signed wrk -t1 -c32 -d10s --latency -s benches/load/assertion.lua http://127.0.0.1:8080/connect/token
-- Tokens by private_key_jwt: each request has its own assertion. The file has one form a line, as
-- written by `cargo run --release --example signed -- assertion`; the last line is not used.

local file = assert(os.getenv("SIGNED"), "SIGNED is not set") .. "/assertion"
local forms = {}
for line in io.lines(file) do
    forms[#forms + 1] = line
end

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"

local sent = 0
function request()
    sent = sent + 1
    if sent >= #forms then
        -- Each line is valid for one use.
        wrk.thread:stop()
        sent = #forms - 1
    end
    return wrk.format(nil, nil, nil, forms[sent])
end
