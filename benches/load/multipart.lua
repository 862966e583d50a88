-- wrk -t1 -c32 -d10s --latency -s benches/load/multipart.lua http://127.0.0.1:8080/connect/token
-- Tokens for the demo client, as the connect documentation asks for them.

local boundary = "------------------------d74496d66958873e"

local function part(name, value)
  return "--" .. boundary .. "\r\n"
    .. 'Content-Disposition: form-data; name="' .. name .. '"\r\n\r\n'
    .. value .. "\r\n"
end

wrk.method = "POST"
wrk.headers["Content-Type"] = "multipart/form-data; boundary=" .. boundary
wrk.body = part("client_id", "demo-client")
  .. part("client_secret", "demo-secret-for-local-use-only-0001")
  .. part("grant_type", "client_credentials")
  .. part("scope", "external-api")
  .. "--" .. boundary .. "--\r\n"
