// An OAuth 2.0 server of other people for the wire tests (npm oidc-provider): client credentials, JWT access tokens for
// the resource "orders-api", opaque ones without it, introspection, revocation. Says "ready" when it listens.
//
// usage: node server.js PORT SECRET
import { generateKeyPairSync } from 'node:crypto';
import Provider from 'oidc-provider';

const [port, secret] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const ALGORITHMS = {
  ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  EdDSA: () => generateKeyPairSync('ed25519'),
};

const keys = Object.entries(ALGORITHMS).map(([alg, make]) => (
  { ...make().privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: `of-${alg}` }));
const client = (id, scope) => ({
  client_id: id,
  client_secret: secret,
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
  scope,
});

// A resource for each algorithm: urn:orders:ES256, and so on.
function resource(ctx, indicator) {
  const alg = indicator.split(':').pop();
  return {
    scope: 'orders:read orders:write',
    audience: 'orders-api',
    accessTokenTTL: 600,
    accessTokenFormat: 'jwt',
    jwt: { sign: { alg: alg in ALGORITHMS ? alg : 'ES256' } },
  };
}

const provider = new Provider(issuer, {
  clients: [client('shop', 'orders:read orders:write'), client('other', 'orders:read'), client('gateway')],
  scopes: ['orders:read', 'orders:write'],
  jwks: { keys },
  ttl: { ClientCredentials: 600 },
  extraTokenClaims: () => ({ roles: ['gold', 'eu'], tenant: 'acme' }),
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true, allowedPolicy: () => true },
    resourceIndicators: { enabled: true, defaultResource: () => undefined, getResourceServerInfo: resource },
  },
});

provider.listen(Number(port), '127.0.0.1', () => process.stdout.write('ready\n'));
