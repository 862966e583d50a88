-- SIGNED=target/load/signed wrk -t1 -c32 -d10s --latency -s benches/load/dpop.lua http://127.0.0.1:8080/connect/token
-- Tokens for the demo client that are bound to a key: a DPoP proof of its own for each request. A line
-- each, as `cargo run --release --example signed -- dpop` writes them; the last one is left out.

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
        -- Each is good for one use.
        wrk.thread:stop()
        sent = #proofs - 1
    end
    wrk.headers["DPoP"] = proofs[sent]
    return wrk.format()
end
