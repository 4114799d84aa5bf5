// What a handshake agreed on, copied out of OpenSSL into one allocation.
#include "net/tls_private.h"

#include "base/buf.h"

#include <arpa/inet.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

static enum tls_alpn alpn_of(const SSL *ssl)
{
    const unsigned char *name;
    unsigned n;
    SSL_get0_alpn_selected(ssl, &name, &n);
    struct str protocol = {(const char *)name, n};
    if (str_eq(protocol, STR("h2")))
        return TLS_ALPN_H2;
    return str_eq(protocol, STR("http/1.1")) ? TLS_ALPN_HTTP1 : TLS_ALPN_NONE;
}

// ---- the client's certificate ----

// Printable ASCII but for what would be taken for an escape, or end an element, here (,) or in the header
// that upstreams get (;).
static bool may_stand(unsigned char c)
{
    return c > ' ' && c < 0x7f && c != ',' && c != ';' && c != '%' && c != '"' && c != '\\';
}

static void print_escaped(struct buf *buf, const ASN1_STRING *value)
{
    const unsigned char *data = ASN1_STRING_get0_data(value);
    for (int i = 0; i < ASN1_STRING_length(value) && buf_len(buf) <= TLS_IDENTITY_BYTES; i++)
        if (may_stand(data[i]))
            buf_append(buf, (struct str){(const char *)&data[i], 1});
        else
            buf_printf(buf, "%%%02X", data[i]);
}

static void print_ip(struct buf *buf, const ASN1_STRING *value)
{
    char text[INET6_ADDRSTRLEN];
    int n = ASN1_STRING_length(value), family = n == 4 ? AF_INET : AF_INET6;
    if ((n == 4 || n == 16) && inet_ntop(family, ASN1_STRING_get0_data(value), text, sizeof text))
        buf_append(buf, str_of(text));
}

static void print_name(struct buf *buf, const GENERAL_NAME *name)
{
    static const struct {
        int kind;
        struct str label;
    } kinds[] = {
        {GEN_DNS, {"DNS=", 4}}, {GEN_URI, {"URI=", 4}}, {GEN_EMAIL, {"email=", 6}}, {GEN_IPADD, {"IP=", 3}}};
    int kind;
    const ASN1_STRING *value = GENERAL_NAME_get0_value((GENERAL_NAME *)(uintptr_t)name, &kind);
    for (size_t i = 0; i < countof(kinds); i++) {
        if (kinds[i].kind != kind)
            continue;
        if (buf_len(buf))
            buf_append(buf, STR(","));
        buf_append(buf, kinds[i].label);
        if (kind == GEN_IPADD)
            print_ip(buf, value);
        else
            print_escaped(buf, value);
    }
}

static void print_sans(struct buf *buf, const X509 *certificate)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(names) && buf_len(buf) <= TLS_IDENTITY_BYTES; i++)
        print_name(buf, sk_GENERAL_NAME_value(names, i));
    GENERAL_NAMES_free(names);
}

static bool print_subject(struct buf *buf, const X509 *certificate)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *text;
    bool good = bio && X509_NAME_print_ex(bio, X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253) >= 0;
    long n = good ? BIO_get_mem_data(bio, &text) : 0;
    if (n > 0)
        buf_append(buf, (struct str){text, (size_t)n});
    BIO_free(bio);
    return good;
}

struct identity {
    struct buf subject, sans;
    char fingerprint[2 * TLS_DIGEST + 1];
};

// False: memory is out, or it is too long to be told to anybody. Cut short it would be another's.
static bool read_identity(const X509 *certificate, const struct tls_slot *slot, struct identity *identity)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned n;
    if (!X509_digest(certificate, slot->sha256, digest, &n) || n != TLS_DIGEST)
        return false;
    for (size_t i = 0; i < n; i++)
        snprintf(identity->fingerprint + 2 * i, 3, "%02x", digest[i]);
    print_sans(&identity->sans, certificate);
    return print_subject(&identity->subject, certificate) &&
           buf_len(&identity->subject) + buf_len(&identity->sans) <= TLS_IDENTITY_BYTES;
}

// ---- all of it ----

static struct str put(char **at, struct str s)
{
    if (!s.n)
        return STR_NULL;
    memcpy(*at, s.p, s.n);
    struct str copy = {*at, s.n};
    *at += s.n;
    return copy;
}

static struct tls_facts *fill(SSL *ssl, struct str server_name, const struct identity *identity)
{
    struct str fingerprint = str_of(identity->fingerprint);
    size_t n = server_name.n + buf_len(&identity->subject) + buf_len(&identity->sans) + fingerprint.n;
    struct tls_facts *facts = malloc(sizeof *facts + n);
    if (!facts)
        return NULL;
    char *at = (char *)(facts + 1);
    *facts = (struct tls_facts){
        .alpn = alpn_of(ssl),
        .version = str_of(SSL_get_version(ssl)),
        .cipher = str_of(SSL_CIPHER_standard_name(SSL_get_current_cipher(ssl))),
        .resumed = SSL_session_reused(ssl),
        .server_name = put(&at, server_name),
        .client_subject = put(&at, buf_str(&identity->subject)),
        .client_fingerprint = put(&at, fingerprint),
        .client_sans = put(&at, buf_str(&identity->sans)),
    };
    return facts;
}

struct tls_facts *tls_facts_new(SSL *ssl, struct tls_slot *slot, bool is_server)
{
    char lower[TLS_NAME_ROOM];
    struct str server_name = STR_NULL;
    struct identity identity = {0};
    struct tls_facts *facts = NULL;
    bool good =
        tls_name_normalize(str_of(SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name)), lower, &server_name);
    X509 *certificate = is_server ? SSL_get0_peer_certificate(ssl) : NULL;
    if (good && certificate)
        good = SSL_get_verify_result(ssl) == X509_V_OK && read_identity(certificate, slot, &identity);
    if (good)
        facts = fill(ssl, server_name, &identity);
    buf_free(&identity.subject);
    buf_free(&identity.sans);
    ERR_clear_error();
    return facts;
}
