// A listener's side: which certificates a name gets, and what clients must show.
//
//   names   "a.example"  ──► set ──► SSL_CTX with one certificate of each kind of key; OpenSSL picks by what
//   the
//           "*.example"  ──►         client can verify
//           others       ──► the first set
#include "net/tls_private.h"

#include "base/clock.h"

#include <openssl/pem.h>
#include <stdlib.h>

// No SHA-1, no SHA-224, no DSA.
#define SIGNATURES                                                                                 \
    "ECDSA+SHA256:ed25519:RSA-PSS+SHA256:RSA+SHA256:ECDSA+SHA384:RSA-PSS+SHA384:RSA+SHA384:ECDSA+" \
    "SHA512:ed448:RSA-PSS+SHA512:RSA+SHA512:rsa_pss_pss_sha256:rsa_pss_pss_sha384:rsa_pss_pss_sha512"

// The certificates of a name, the first of each kind of key.
struct tls_set {
    const struct tls_certificate *of_kind[TLS_KEY_KINDS];
    SSL_CTX *context;
};

// While a server is made: by name, and the sets that differ.
struct building {
    struct tls_server *server;
    struct map sets;                       // of_kind's bytes → struct tls_set
    const struct tls_certificate *current; // whose names are being read
    struct str first_name;                 // of the first certificate
    const struct tls_server_options *options;
    X509_STORE *client_ca;
    STACK_OF(X509_NAME) * client_ca_names;
    uint8_t policy[TLS_DIGEST]; // bounds where a session can be resumed
};

// ---- choosing ----

static struct tls_set *find_set(const struct tls_server *server, struct str name)
{
    char lower[TLS_NAME_ROOM + 1];
    struct str normal;
    if (!tls_name_normalize(name, lower + 1, &normal) || !normal.n)
        return NULL;
    struct tls_set *set = map_get(&server->names, normal);
    size_t dot = str_find(normal, '.');
    if (set || dot == 0 || dot == normal.n)
        return set;
    lower[dot] = '*'; // "a.b" → "*.b", in place
    return map_get(&server->names, (struct str){lower + dot, normal.n + 1 - dot});
}

static struct tls_set *set_for(const struct tls_server *server, struct str name)
{
    struct tls_set *set = find_set(server, name);
    return set || server->strict_sni ? set : server->sets;
}

bool tls_server_same_site(const struct tls_server *server, struct str sni, struct str host)
{
    if (server->set_count == 1 || !sni.n)
        return true;
    return set_for(server, sni) == set_for(server, host);
}

static int on_server_name(SSL *ssl, int *alert, void *arg)
{
    const struct tls_server *server = arg;
    struct str name = str_of(SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));
    struct tls_set *set = name.n || server->strict_sni ? set_for(server, name) : server->sets;
    if (!set) {
        *alert = SSL_AD_UNRECOGNIZED_NAME;
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    if (!SSL_set_SSL_CTX(ssl, set->context)) {
        *alert = SSL_AD_INTERNAL_ERROR;
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    return SSL_TLSEXT_ERR_OK;
}

static bool offers(struct str offered, struct str protocol)
{
    while (offered.n) {
        size_t n = (uint8_t)offered.p[0];
        if (n + 1 > offered.n)
            return false;
        if (str_eq((struct str){offered.p + 1, n}, protocol))
            return true;
        offered = str_skip(offered, n + 1);
    }
    return false;
}

static int on_alpn(SSL *ssl, const unsigned char **chosen, unsigned char *chosen_n, const unsigned char *in,
                   unsigned n, void *arg)
{
    static const struct {
        enum tls_alpn bit;
        struct str name;
    } ours[] = {{TLS_ALPN_H2, {"h2", 2}}, {TLS_ALPN_HTTP1, {"http/1.1", 8}}};
    const struct tls_server *server = arg;
    (void)ssl;
    for (size_t i = 0; i < countof(ours); i++)
        if ((server->alpn & ours[i].bit) && offers((struct str){(const char *)in, n}, ours[i].name)) {
            *chosen = (const unsigned char *)ours[i].name.p;
            *chosen_n = (unsigned char)ours[i].name.n;
            return SSL_TLSEXT_ERR_OK;
        }
    return SSL_TLSEXT_ERR_ALERT_FATAL; // no_application_protocol (RFC 7301 3.2)
}

// The response that is about the certificate OpenSSL picked, while it is valid.
static int on_status_request(SSL *ssl, void *arg)
{
    const struct tls_set *set = arg;
    const X509 *picked = SSL_get_certificate(ssl);
    int64_t now = (int64_t)(clock_wall_us() / 1000000);
    for (size_t i = 0; i < TLS_KEY_KINDS; i++) {
        const struct tls_certificate *certificate = set->of_kind[i];
        if (!certificate || certificate->leaf != picked || !certificate->ocsp ||
            now < certificate->ocsp_from || now >= certificate->ocsp_until)
            continue;
        unsigned char *copy = OPENSSL_memdup(certificate->ocsp, certificate->ocsp_n);
        if (!copy)
            return SSL_TLSEXT_ERR_NOACK;
        SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)certificate->ocsp_n);
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_NOACK;
}

// ---- what tls_records.c needs ----

static uint8_t parse_hex(const char *hex, uint8_t out[TLS_SECRET_MAX])
{
    uint8_t n = 0;
    for (unsigned byte; n < TLS_SECRET_MAX && hex[0] && hex[1]; hex += 2) {
        char digits[3] = {hex[0], hex[1], 0};
        byte = (unsigned)strtoul(digits, NULL, 16);
        out[n++] = (uint8_t)byte;
    }
    return n;
}

// "LABEL client-random secret", in hex: SSL_CTX_set_keylog_callback(3), which is how OpenSSL tells the
// traffic secrets. Nothing is logged.
static void on_secret(const SSL *ssl, const char *line)
{
    static const char client[] = "CLIENT_TRAFFIC_SECRET_0 ", server[] = "SERVER_TRAFFIC_SECRET_0 ";
    struct tls_handshake *handshake = tls_conn_of(ssl)->tls->handshake;
    const char *secret = strrchr(line, ' ');
    if (!handshake || !secret)
        return;
    struct tls_secrets *secrets = &handshake->secrets;
    if (strncmp(line, client, sizeof client - 1) == 0)
        secrets->client_n = parse_hex(secret + 1, secrets->client);
    else if (strncmp(line, server, sizeof server - 1) == 0)
        secrets->server_n = parse_hex(secret + 1, secrets->server);
}

// Counts what OpenSSL seals with the server's traffic secret.
static void on_message(int is_written, int version, int type, const void *data, size_t n, SSL *ssl, void *arg)
{
    struct tls_handshake *handshake = tls_conn_of(ssl)->tls->handshake;
    (void)version;
    (void)data;
    (void)n;
    (void)arg;
    if (is_written && type == SSL3_RT_HEADER && handshake && handshake->secrets.server_n)
        handshake->secrets.sealed++;
}

// ---- contexts ----

static int verify_mode(enum tls_client_auth auth)
{
    switch (auth) {
    case TLS_CLIENT_AUTH_NONE: break;
    case TLS_CLIENT_AUTH_OPTIONAL: return SSL_VERIFY_PEER;
    case TLS_CLIENT_AUTH_REQUIRE: return SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    }
    return SSL_VERIFY_NONE;
}

static bool ask_for_certificates(SSL_CTX *context, const struct building *building)
{
    if (!building->client_ca)
        return true;
    STACK_OF(X509_NAME) *names =
        sk_X509_NAME_deep_copy(building->client_ca_names, X509_NAME_dup, X509_NAME_free);
    if (!names)
        return false;
    SSL_CTX_set_client_CA_list(context, names);
    SSL_CTX_set1_cert_store(context, building->client_ca);
    SSL_CTX_set_verify(context, verify_mode(building->options->client_auth), NULL);
    return true;
}

static bool add_certificates(SSL_CTX *context, const struct tls_set *set)
{
    for (size_t i = 0; i < TLS_KEY_KINDS; i++) {
        const struct tls_certificate *certificate = set->of_kind[i];
        if (certificate &&
            !SSL_CTX_use_cert_and_key(context, certificate->leaf, certificate->key, certificate->chain, 1))
            return false;
    }
    return true;
}

// All contexts of a server are alike but for the certificates, since a connection moves from one to another.
static bool make_context(const struct building *building, struct tls_set *set, struct err *err)
{
    struct tls_server *server = building->server;
    SSL_CTX *context = set->context = tls_context_new(server->slot, TLS_server_method(), err);
    if (!context)
        return false;
    if (building->options->min_version == TLS_1_3 && !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION))
        goto fail;
    if (!SSL_CTX_set1_sigalgs_list(context, SIGNATURES) || !ask_for_certificates(context, building) ||
        !add_certificates(context, set) ||
        !SSL_CTX_set_session_id_context(context, building->policy, sizeof building->policy))
        goto fail;
    // Our order, so that whoever can gets AES-128, which costs least; but who puts ChaCha20 first has no AES
    // in hardware, and gets that.
    SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    tls_tickets_setup(context);
    SSL_CTX_set_keylog_callback(context, on_secret);
    SSL_CTX_set_msg_callback(context, on_message);
    SSL_CTX_set_tlsext_servername_callback(context, on_server_name);
    SSL_CTX_set_tlsext_servername_arg(context, server);
    SSL_CTX_set_tlsext_status_cb(context, on_status_request);
    SSL_CTX_set_tlsext_status_arg(context, set);
    if (server->alpn)
        SSL_CTX_set_alpn_select_cb(context, on_alpn, server);
    return true;
fail:
    err_set(err, ERR_INVALID, "", "%s", tls_words());
    return false;
}

// ---- sets ----

static struct str kinds_key(const struct tls_set *set)
{
    return (struct str){(const char *)set->of_kind, sizeof set->of_kind};
}

static void on_name(void *arg, struct str name)
{
    struct building *building = arg;
    struct tls_server *server = building->server;
    struct tls_set *of_name = map_get(&server->names, name);
    if (!of_name) {
        of_name = arena_new(&server->arena, struct tls_set);
        name = arena_copy(&server->arena, name);
        map_put(&server->names, name, of_name);
        if (!building->first_name.n && building->current == server->certificates)
            building->first_name = name;
    }
    const struct tls_certificate **place = &of_name->of_kind[building->current->kind];
    if (!*place)
        *place = building->current;
}

// A name's own certificates first; where they lack a kind of key, its wildcard's.
static void fill_from_wildcard(struct tls_server *server, struct str name, struct tls_set *set)
{
    char wildcard[TLS_NAME + 1];
    size_t dot = str_find(name, '.');
    if (dot == name.n || name.p[0] == '*')
        return;
    wildcard[0] = '*';
    memcpy(wildcard + 1, name.p + dot, name.n - dot);
    const struct tls_set *parent = map_get(&server->names, (struct str){wildcard, name.n - dot + 1});
    for (size_t i = 0; parent && i < TLS_KEY_KINDS; i++)
        if (!set->of_kind[i])
            set->of_kind[i] = parent->of_kind[i];
}

static struct tls_set *unique_set(struct building *building, const struct tls_set *like)
{
    struct tls_server *server = building->server;
    struct tls_set *set = map_get(&building->sets, kinds_key(like));
    if (set)
        return set;
    set = &server->sets[server->set_count++];
    *set = *like;
    map_put(&building->sets, kinds_key(set), set);
    return set;
}

static void collect_sets(struct building *building)
{
    struct tls_server *server = building->server;
    struct map_entry *entry;
    for (uint32_t i = 0; i < server->certificate_count; i++) {
        building->current = &server->certificates[i];
        tls_certificate_names(building->current->leaf, on_name, building);
    }
    for (size_t i = 0; map_next(&server->names, &i, &entry);)
        fill_from_wildcard(server, entry->key, entry->value);
    server->sets = arena_array(&server->arena, struct tls_set, server->names.count + 1);
    struct tls_set first = {0};
    first.of_kind[server->certificates->kind] = server->certificates;
    struct tls_set *of_first = map_get(&server->names, building->first_name);
    unique_set(building, of_first ? of_first : &first);
    for (size_t i = 0; map_next(&server->names, &i, &entry);)
        entry->value = unique_set(building, entry->value);
}

// ---- making ----

static bool load_certificates(struct building *building, struct err *err)
{
    struct tls_server *server = building->server;
    const struct tls_server_options *options = building->options;
    server->certificates = arena_array(&server->arena, struct tls_certificate, options->certificate_count);
    for (uint32_t i = 0; i < options->certificate_count; i++) {
        if (tls_certificate_load(server->slot, &options->certificates[i], options->allow_expired,
                                 &server->certificates[i], err) != ERR_OK)
            return false;
        server->certificate_count++;
    }
    return true;
}

static bool load_client_ca(struct building *building, uint8_t digest[TLS_DIGEST], struct err *err)
{
    const struct tls_server_options *options = building->options;
    if (options->client_auth == TLS_CLIENT_AUTH_NONE)
        return true;
    if (!options->client_ca.n) {
        err_set(err, ERR_INVALID, "", "client certificates are asked for, but there is no client_ca");
        return false;
    }
    building->client_ca = tls_store_new(building->server->slot, options->client_ca, digest, err);
    if (!building->client_ca)
        return false;
    building->client_ca_names = tls_store_subjects(building->client_ca);
    if (!building->client_ca_names)
        err_set(err, ERR_MEMORY, "", "no memory");
    return building->client_ca_names;
}

static bool set_policy(struct building *building, struct err *err)
{
    struct tls_server *server = building->server;
    uint8_t text[TLS_DIGEST + 1] = {0}, digest[EVP_MAX_MD_SIZE];
    if (!load_client_ca(building, text, err))
        return false;
    text[TLS_DIGEST] = (uint8_t)building->options->client_auth;
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    bool good = hash && EVP_DigestInit_ex(hash, server->slot->sha256, NULL) &&
                EVP_DigestUpdate(hash, text, sizeof text) &&
                EVP_DigestUpdate(hash, building->options->name.p, building->options->name.n) &&
                EVP_DigestFinal_ex(hash, digest, NULL);
    EVP_MD_CTX_free(hash);
    memcpy(building->policy, digest, sizeof building->policy);
    if (!good)
        err_set(err, ERR_MEMORY, "", "no memory");
    return good;
}

// Which file a set's failure is about: the certificates were good by themselves.
static void name_file(const struct building *building, const struct tls_set *set, struct err *err)
{
    for (size_t i = 0; err && !*err->where && i < TLS_KEY_KINDS; i++)
        if (set->of_kind[i]) {
            size_t at = (size_t)(set->of_kind[i] - building->server->certificates);
            snprintf(err->where, sizeof err->where, "%.*s",
                     STR_ARG(building->options->certificates[at].cert));
        }
}

static bool build(struct building *building, struct err *err)
{
    struct tls_server *server = building->server;
    if (!load_certificates(building, err) || !set_policy(building, err))
        return false;
    collect_sets(building);
    for (uint32_t i = 0; i < server->set_count; i++)
        if (!make_context(building, &server->sets[i], err)) {
            name_file(building, &server->sets[i], err);
            return false;
        }
    return true;
}

struct tls_server *tls_server_new(unsigned slot, const struct tls_server_options *options, struct err *err)
{
    struct tls_server *server = calloc(1, sizeof *server);
    struct building building = {.server = server, .options = options};
    check(options->certificate_count > 0);
    if (!server || !(server->slot = tls_slot_get(slot))) {
        err_set(err, ERR_MEMORY, "tls", "no memory");
        free(server);
        return NULL;
    }
    arena_init(&server->arena, NULL);
    atomic_init(&server->refs, 1);
    server->alpn = options->alpn;
    server->strict_sni = options->strict_sni;
    bool good = build(&building, err);
    map_fini(&building.sets);
    X509_STORE_free(building.client_ca);
    sk_X509_NAME_pop_free(building.client_ca_names, X509_NAME_free);
    if (good)
        return server;
    tls_server_unref(server);
    return NULL;
}

struct tls_server *tls_server_ref(struct tls_server *server)
{
    atomic_fetch_add_explicit(&server->refs, 1, memory_order_relaxed);
    return server;
}

void tls_server_unref(struct tls_server *server)
{
    if (!server || atomic_fetch_sub_explicit(&server->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < server->set_count; i++)
        SSL_CTX_free(server->sets[i].context);
    for (uint32_t i = 0; i < server->certificate_count; i++)
        tls_certificate_fini(&server->certificates[i]);
    map_fini(&server->names);
    arena_reset(&server->arena);
    free(server);
}

SSL *tls_server_ssl(struct tls_server *server)
{
    return SSL_new(server->sets->context);
}
