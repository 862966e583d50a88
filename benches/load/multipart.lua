-- wrk -t1 -c32 -d10s --latency -s benches/load/multipart.lua http://127.0.0.1:8080/connect/token
-- Tokens for the demo client, requested as in the connect documentation.

local directory = debug.getinfo(1, "S").source:match("^@(.*/)") or ""
local body = assert(io.open(directory .. "multipart.body", "rb"))

wrk.method = "POST"
wrk.headers["Content-Type"] = "multipart/form-data; boundary=------------------------d74496d66958873e"
wrk.body = body:read("*a")
body:close()
