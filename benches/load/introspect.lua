-- TOKEN=eyJ… wrk -t1 -c32 -d10s --latency -s benches/load/introspect.lua http://127.0.0.1:8080/connect/introspect
-- Introspection of one token by its own client (RFC 7662).

local directory = debug.getinfo(1, "S").source:match("^@(.*/)") or ""
local body = assert(io.open(directory .. "urlencoded.body", "rb"))

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
wrk.body = body:read("*a") .. "&token=" .. assert(os.getenv("TOKEN"), "TOKEN is not set")
body:close()
