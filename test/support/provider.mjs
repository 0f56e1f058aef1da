// A real OpenID provider for the flow tests: node provider.mjs '{"port", "issuer", "key", "cert", "redirect",
// "logout", "secret", "alg", "ttl": {"AccessToken": seconds, ..},
// "refresh_delay_ms", "accounts": {"login": {claims}}}'. Its own development pages ask
// for login and consent. Refresh tokens are good for once. Says a line of JSON for each grant.
import fs from 'node:fs';
import https from 'node:https';
import crypto from 'node:crypto';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const settings = JSON.parse(process.argv[2]);
const require = createRequire(settings.modules + '/');
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')).href);

function signingKey(alg) {
    const pair = alg.startsWith('ES')
        ? crypto.generateKeyPairSync('ec', { namedCurve: { ES256: 'P-256', ES384: 'P-384', ES512: 'P-521' }[alg] })
        : crypto.generateKeyPairSync('rsa', { modulusLength: 2048 });
    return { ...pair.privateKey.export({ format: 'jwk' }), use: 'sig', alg };
}

const provider = new Provider(settings.issuer, {
    clients: [{
        client_id: 'postern',
        client_secret: settings.secret,
        grant_types: ['authorization_code', 'refresh_token'],
        redirect_uris: [settings.redirect],
        post_logout_redirect_uris: [settings.logout],
        id_token_signed_response_alg: settings.alg,
    }],
    jwks: { keys: [signingKey(settings.alg)] },
    enabledJWA: { idTokenSigningAlgValues: [settings.alg] },
    cookies: { keys: [crypto.randomBytes(32).toString('hex')] },
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'], groups: ['groups', '_claim_names', '_claim_sources'] },
    scopes: ['openid', 'offline_access', 'email', 'profile', 'groups'],
    pkce: { required: () => true, methods: ['S256'] },
    features: { introspection: { enabled: true }, revocation: { enabled: true } },
    conformIdTokenClaims: false,
    rotateRefreshToken: true,
    ttl: settings.ttl ?? {},
    async findAccount(ctx, id) {
        const claims = settings.accounts[id];
        return claims && { accountId: id, claims: async () => ({ sub: id, ...claims }) };
    },
});
const tell = (result) => (ctx) =>
    console.log(JSON.stringify({ grant: ctx.oidc.params?.grant_type, result, at: Date.now() / 1000 }));
provider.on('grant.success', tell('ok'));
provider.on('grant.error', tell('error'));
if (settings.refresh_delay_ms) { // between what the provider notes and what its client hears of it
    provider.use(async (ctx, next) => {
        await next();
        if (ctx.oidc?.params?.grant_type === 'refresh_token') {
            await new Promise((resolve) => { setTimeout(resolve, settings.refresh_delay_ms); });
        }
    });
}
https.createServer({ key: fs.readFileSync(settings.key), cert: fs.readFileSync(settings.cert) }, provider.callback())
    .listen(settings.port, '127.0.0.1');
