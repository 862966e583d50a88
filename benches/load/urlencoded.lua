-- wrk -t1 -c32 -d10s --latency -s benches/load/urlencoded.lua http://127.0.0.1:8080/connect/token
-- Tokens for the demo client, as RFC 6749 asks for them.

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
wrk.body = "client_id=demo-client"
  .. "&client_secret=demo-secret-for-local-use-only-0001"
  .. "&grant_type=client_credentials"
  .. "&scope=external-api"
