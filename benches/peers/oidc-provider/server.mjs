// node server.mjs PORT: oidc-provider on that port of the loopback, with one client, one resource
// and a new RSA-2048 key, at grantd's paths.

import { generateKeyPairSync } from 'node:crypto';
import Provider from 'oidc-provider';

// It warns about its in-memory store, which is intended: nothing needs to be stored.
console.info = () => {};
console.warn = () => {};

const port = Number(process.argv[2]);
const issuer = `http://127.0.0.1:${port}`;
const key = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
const scope = 'external-api';

const provider = new Provider(issuer, {
  clients: [{
    client_id: 'demo-client',
    client_secret: 'demo-secret-for-local-use-only-0001',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    scope,
    token_endpoint_auth_method: 'client_secret_post',
  }],
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    // Its tokens are JWTs only for a resource; without one they are opaque.
    resourceIndicators: {
      enabled: true,
      defaultResource: () => issuer,
      getResourceServerInfo: () => ({
        accessTokenFormat: 'jwt',
        accessTokenTTL: 3600,
        audience: issuer,
        jwt: { sign: { alg: 'RS256' } },
        scope,
      }),
    },
  },
  jwks: { keys: [{ ...key.export({ format: 'jwk' }), alg: 'RS256', use: 'sig' }] },
  routes: { jwks: '/.well-known/openid-configuration/jwks', token: '/connect/token' },
  scopes: [scope],
});

provider.listen(port, '127.0.0.1');
