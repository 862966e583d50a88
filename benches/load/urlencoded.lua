-- wrk -t1 -c32 -d10s --latency -s benches/load/urlencoded.lua http://127.0.0.1:8080/connect/token
-- Tokens for the demo client, requested as in RFC 6749.

local directory = debug.getinfo(1, "S").source:match("^@(.*/)") or ""
local body = assert(io.open(directory .. "urlencoded.body", "rb"))

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
wrk.body = body:read("*a")
body:close()
