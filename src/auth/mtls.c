// Client certificates, which TLS has verified: by a consumer's SAN, subject or fingerprint. Whether one is
// wanted is said in the handshake (tls.client_auth of the listener).
#include "auth/consumer_identity.h"

// The fingerprint stands for all that is in a certificate.
static struct str find(const struct auth_provider *provider, struct auth_call *call)
{
    (void)provider;
    return call->tls ? call->tls->client_fingerprint : STR_NULL;
}

// Certificates of machines often have no subject; then the first SAN is what they are called.
static struct str subject_of(const struct tls_facts *tls)
{
    struct str sans = tls->client_sans, first = STR_NULL;
    if (tls->client_subject.n)
        return tls->client_subject;
    return str_next_token(&sans, &first) ? first : STR_NULL;
}

static enum auth_result ask(struct auth_worker *worker, const struct auth_provider *provider,
                            struct auth_call *call, struct str credentials)
{
    const struct tls_facts *tls = call->tls;
    if (consumer_identity_find(worker, provider, call, credentials))
        return AUTH_ALLOW;
    const struct consumer *consumer = consumers_by_certificate(provider->auth->consumers, tls->client_sans,
                                                               tls->client_subject, tls->client_fingerprint);
    if ((consumer || !provider->settings->mtls.require_consumer) &&
        consumer_identity_make(worker, provider, call, credentials, consumer, subject_of(tls)))
        return AUTH_ALLOW;
    return auth_deny(call, END_UNKNOWN_CERTIFICATE, STR_NULL, NULL);
}

// A 401 has to name a scheme (RFC 9110 15.5.2) and none is registered for certificates: `Mutual` is another
// one (RFC 8120). This is what draft-thomson-httpbis-catch called it; who does not know it passes over it.
static bool compile(struct auth_provider *provider, const struct auth_sources *sources, struct arena *arena,
                    struct err *err)
{
    (void)sources, (void)arena, (void)err;
    provider->challenge = STR("ClientCertificate realm=\"sallyport\"");
    return true;
}

const struct auth_kind_row auth_mtls = {
    .name = "mtls",
    .find = find,
    .ask = ask,
    .compile = compile,
};
