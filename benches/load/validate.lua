-- TOKEN=eyJ… wrk -t1 -c32 -d10s --latency -s benches/load/validate.lua http://127.0.0.1:8080/connect/validate
-- Validation of one token, as a proxy asks for each request to the API behind it.

wrk.headers["Authorization"] = "Bearer " .. assert(os.getenv("TOKEN"), "TOKEN is not set")
