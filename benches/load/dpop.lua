-- SIGNED=target/load/signed wrk -t1 -c32 -d10s --latency -s benches/load/dpop.lua http://127.0.0.1:8080/connect/token
-- Bound tokens for the demo client: each request has its own DPoP proof. The file has one proof a
-- line, as written by `cargo run --release --example signed -- dpop`; the last line is not used.

local directory = debug.getinfo(1, "S").source:match("^@(.*/)") or ""
local body = assert(io.open(directory .. "urlencoded.body", "rb"))
local file = assert(os.getenv("SIGNED"), "SIGNED is not set") .. "/dpop"
local proofs = {}
for line in io.lines(file) do
    proofs[#proofs + 1] = line
end

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
wrk.body = body:read("*a")
body:close()

local sent = 0
function request()
    sent = sent + 1
    if sent >= #proofs then
        -- Each line is valid for one use.
        wrk.thread:stop()
        sent = #proofs - 1
    end
    wrk.headers["DPoP"] = proofs[sent]
    return wrk.format()
end
