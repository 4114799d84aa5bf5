// Certificates, keys and OCSP responses from files, with words for what is wrong with them.
#include "net/tls_private.h"

#include "base/clock.h"

#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <time.h>

static int64_t now_s(void)
{
    return (int64_t)(clock_wall_us() / 1000000);
}

static bool is_end_of_pem(void)
{
    unsigned long error = ERR_peek_last_error();
    return ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

STACK_OF(X509) * tls_certificates_parse(struct tls_slot *slot, const char *path, const void *data, size_t n,
                                        struct err *err)
{
    STACK_OF(X509) *certificates = sk_X509_new_null();
    BIO *bio = BIO_new_mem_buf(data, (int)n);
    bool good = certificates && bio;
    ERR_clear_error();
    while (good) {
        X509 *certificate = X509_new_ex(slot->library, NULL);
        if (!certificate || !PEM_read_bio_X509(bio, &certificate, NULL, NULL)) {
            X509_free(certificate);
            good = certificate && is_end_of_pem();
            break;
        }
        good = sk_X509_push(certificates, certificate) > 0;
    }
    BIO_free(bio);
    if (!good)
        err_set(err, ERR_INVALID, path, "a certificate in it is broken: %s", tls_words());
    else if (!sk_X509_num(certificates))
        err_set(err, ERR_INVALID, path, "there is no certificate in it (PEM is expected)");
    ERR_clear_error();
    if (good && sk_X509_num(certificates))
        return certificates;
    sk_X509_pop_free(certificates, X509_free);
    return NULL;
}

static int on_password(char *out, int size, int writing, void *asked)
{
    (void)out;
    (void)size;
    (void)writing;
    *(bool *)asked = true;
    return -1;
}

static EVP_PKEY *parse_key(struct tls_slot *slot, const char *path, const void *data, size_t n,
                           struct err *err)
{
    bool asked = false;
    BIO *bio = BIO_new_mem_buf(data, (int)n);
    ERR_clear_error();
    EVP_PKEY *key =
        bio ? PEM_read_bio_PrivateKey_ex(bio, NULL, on_password, &asked, slot->library, NULL) : NULL;
    BIO_free(bio);
    if (!key && asked)
        err_set(err, ERR_INVALID, path, "the key is encrypted: an unencrypted one is expected");
    else if (!key)
        err_set(err, ERR_INVALID, path, "there is no private key in it that can be read (PEM is expected)");
    ERR_clear_error();
    return key;
}

static const char *const algorithms[TLS_KEY_KINDS] = {[TLS_KEY_RSA] = "rsa",
                                                      [TLS_KEY_RSA_PSS] = "rsa-pss",
                                                      [TLS_KEY_ECDSA] = "ecdsa",
                                                      [TLS_KEY_EDDSA] = "eddsa"};

static bool kind_of(const EVP_PKEY *key, enum tls_key_kind *kind)
{
    switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_RSA: *kind = TLS_KEY_RSA; return true;
    case EVP_PKEY_RSA_PSS: *kind = TLS_KEY_RSA_PSS; return true;
    case EVP_PKEY_EC: *kind = TLS_KEY_ECDSA; return true;
    case EVP_PKEY_ED25519:
    case EVP_PKEY_ED448: *kind = TLS_KEY_EDDSA; return true;
    default: return false;
    }
}

static bool to_unix(const ASN1_TIME *time, int64_t *seconds)
{
    struct tm tm;
    if (!time || !ASN1_TIME_to_tm(time, &tm))
        return false;
    *seconds = timegm(&tm);
    return true;
}

static enum err_code check_times(const X509 *leaf, const char *path, struct err *err)
{
    int64_t until;
    if (!to_unix(X509_get0_notAfter(leaf), &until))
        return err_set(err, ERR_INVALID, path, "the certificate's dates mean nothing");
    if (until >= now_s())
        return ERR_OK;
    char day[16];
    struct tm tm;
    gmtime_r(&until, &tm);
    strftime(day, sizeof day, "%Y-%m-%d", &tm);
    return err_set(err, ERR_INVALID, path, "the certificate expired on %s", day);
}

// ---- OCSP (RFC 6960) ----

// Whether the response's entry is about this certificate: its serial number, its issuer's name and, when the
// chain has the issuer, its key.
static bool is_about(struct tls_slot *slot, const OCSP_SINGLERESP *single, const struct tls_certificate *of)
{
    ASN1_OCTET_STRING *name_hash;
    ASN1_OBJECT *algorithm;
    ASN1_INTEGER *serial;
    OCSP_CERTID *id = (OCSP_CERTID *)(uintptr_t)OCSP_SINGLERESP_get0_id(single);
    if (!OCSP_id_get0_info(&name_hash, &algorithm, NULL, &serial, id) ||
        ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(of->leaf)) != 0)
        return false;
    const char *digest_name = OBJ_nid2sn(OBJ_obj2nid(algorithm));
    EVP_MD *digest = digest_name ? EVP_MD_fetch(slot->library, digest_name, NULL) : NULL;
    uint8_t hash[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    bool about = digest && X509_NAME_digest(X509_get_issuer_name(of->leaf), digest, hash, &n) &&
                 (int)n == ASN1_STRING_length(name_hash) &&
                 memcmp(hash, ASN1_STRING_get0_data(name_hash), n) == 0;
    if (about && sk_X509_num(of->chain) > 0) {
        OCSP_CERTID *expected = OCSP_cert_to_id(digest, of->leaf, sk_X509_value(of->chain, 0));
        about = expected && OCSP_id_cmp(expected, id) == 0;
        OCSP_CERTID_free(expected);
    }
    EVP_MD_free(digest);
    return about;
}

static enum err_code find_status(struct tls_slot *slot, OCSP_BASICRESP *basic, const char *path,
                                 struct tls_certificate *certificate, struct err *err)
{
    for (int i = 0; i < OCSP_resp_count(basic); i++) {
        ASN1_GENERALIZEDTIME *from, *until;
        int reason;
        OCSP_SINGLERESP *single = OCSP_resp_get0(basic, i);
        if (!is_about(slot, single, certificate))
            continue;
        int status = OCSP_single_get0_status(single, &reason, NULL, &from, &until);
        if (status == V_OCSP_CERTSTATUS_REVOKED)
            return err_set(err, ERR_INVALID, path, "it says that the certificate is revoked");
        if (status != V_OCSP_CERTSTATUS_GOOD)
            return err_set(err, ERR_INVALID, path, "it does not say that the certificate is good");
        if (!to_unix(from, &certificate->ocsp_from))
            return err_set(err, ERR_INVALID, path, "its dates mean nothing");
        // Without an end there is always newer information (RFC 6960 4.2.2.1): good for a day.
        if (!to_unix(until, &certificate->ocsp_until))
            certificate->ocsp_until = certificate->ocsp_from + 86400;
        return ERR_OK;
    }
    return err_set(err, ERR_INVALID, path, "it is about another certificate");
}

static enum err_code parse_ocsp(struct tls_slot *slot, const char *path, struct tls_certificate *certificate,
                                struct err *err)
{
    const unsigned char *at = certificate->ocsp;
    OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &at, (long)certificate->ocsp_n);
    bool whole = response && at == certificate->ocsp + certificate->ocsp_n;
    bool successful = whole && OCSP_response_status(response) == OCSP_RESPONSE_STATUS_SUCCESSFUL;
    OCSP_BASICRESP *basic = successful ? OCSP_response_get1_basic(response) : NULL;
    enum err_code code =
        !whole        ? err_set(err, ERR_INVALID, path, "it is no OCSP response (DER is expected)")
        : !successful ? err_set(err, ERR_INVALID, path, "the OCSP responder refused to answer")
        : !basic      ? err_set(err, ERR_INVALID, path, "it is an OCSP response of an unknown kind")
                      : find_status(slot, basic, path, certificate, err);
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    ERR_clear_error();
    return code;
}

static enum err_code load_ocsp(struct tls_slot *slot, struct str file, struct tls_certificate *certificate,
                               struct err *err)
{
    enum err_code code = tls_file_read(file, &certificate->ocsp, &certificate->ocsp_n, err);
    if (code != ERR_OK)
        return code;
    char *path = str_dup(file);
    code = parse_ocsp(slot, path, certificate, err);
    free(path);
    return code;
}

// ---- loading ----

static enum err_code load_leaf(struct tls_slot *slot, struct str file, bool allow_expired,
                               struct tls_certificate *certificate, struct err *err)
{
    uint8_t *data;
    size_t n;
    enum err_code code = tls_file_read(file, &data, &n, err);
    if (code != ERR_OK)
        return code;
    char *path = str_dup(file);
    certificate->chain = tls_certificates_parse(slot, path, data, n, err);
    if (!certificate->chain) {
        code = ERR_INVALID;
    } else {
        certificate->leaf = sk_X509_shift(certificate->chain);
        code = allow_expired ? ERR_OK : check_times(certificate->leaf, path, err);
    }
    free(path);
    free(data);
    return code;
}

static enum err_code load_key(struct tls_slot *slot, struct str file, struct tls_certificate *certificate,
                              struct err *err)
{
    uint8_t *data;
    size_t n;
    enum err_code code = tls_file_read(file, &data, &n, err);
    if (code != ERR_OK)
        return code;
    char *path = str_dup(file);
    certificate->key = parse_key(slot, path, data, n, err);
    OPENSSL_cleanse(data, n);
    free(data);
    if (!certificate->key)
        code = ERR_INVALID;
    else if (!kind_of(certificate->key, &certificate->kind))
        code = err_set(err, ERR_INVALID, path,
                       "its kind of key is not supported (RSA, ECDSA, Ed25519, Ed448 are)");
    else if (!X509_check_private_key(certificate->leaf, certificate->key))
        code = err_set(err, ERR_INVALID, path, "the key does not fit the certificate");
    ERR_clear_error();
    free(path);
    return code;
}

// What OpenSSL would refuse to use for being weak is refused here, with its words.
static enum err_code check_strength(struct tls_slot *slot, struct str file,
                                    const struct tls_certificate *certificate, struct err *err)
{
    SSL_CTX *context = tls_context_new(slot, TLS_method(), err);
    if (!context)
        return ERR_MEMORY;
    enum err_code code = ERR_OK;
    if (!SSL_CTX_use_cert_and_key(context, certificate->leaf, certificate->key, certificate->chain, 1)) {
        char *path = str_dup(file);
        code = err_set(err, ERR_INVALID, path, "the certificate cannot be used: %s", tls_words());
        free(path);
    }
    SSL_CTX_free(context);
    return code;
}

enum err_code tls_certificate_load(struct tls_slot *slot, const struct tls_certificate_files *files,
                                   bool allow_expired, struct tls_certificate *certificate, struct err *err)
{
    *certificate = (struct tls_certificate){0};
    enum err_code code = load_leaf(slot, files->cert, allow_expired, certificate, err);
    if (code == ERR_OK)
        code = load_key(slot, files->key, certificate, err);
    if (code == ERR_OK && files->ocsp.n)
        code = load_ocsp(slot, files->ocsp, certificate, err);
    if (code != ERR_OK)
        tls_certificate_fini(certificate);
    return code;
}

void tls_certificate_fini(struct tls_certificate *certificate)
{
    X509_free(certificate->leaf);
    sk_X509_pop_free(certificate->chain, X509_free);
    EVP_PKEY_free(certificate->key);
    free(certificate->ocsp);
    *certificate = (struct tls_certificate){0};
}

// ---- names ----

bool tls_name_normalize(struct str name, char out[TLS_NAME_ROOM], struct str *normal)
{
    if (name.n && name.p[name.n - 1] == '.')
        name.n--;
    if (name.n > TLS_NAME)
        return false;
    for (size_t i = 0; i < name.n; i++) {
        char c = ascii_lower(name.p[i]);
        out[i] = c > ' ' && c < 0x7f ? c : '?'; // hostile bytes match nothing and forge no line of a log
    }
    *normal = (struct str){out, name.n};
    return true;
}

static void give_name(const ASN1_STRING *string, void (*on_name)(void *arg, struct str name), void *arg)
{
    char out[TLS_NAME_ROOM];
    struct str name = {(const char *)ASN1_STRING_get0_data(string), (size_t)ASN1_STRING_length(string)},
               normal;
    if (tls_name_normalize(name, out, &normal) && normal.n)
        on_name(arg, normal);
}

static void give_common_name(X509 *leaf, void (*on_name)(void *arg, struct str name), void *arg)
{
    const X509_NAME *subject = X509_get_subject_name(leaf);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    unsigned char *utf8 = NULL;
    int n =
        at < 0 ? -1 : ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    char out[TLS_NAME_ROOM];
    struct str normal;
    if (n > 0 && tls_name_normalize((struct str){(const char *)utf8, (size_t)n}, out, &normal) && normal.n)
        on_name(arg, normal);
    OPENSSL_free(utf8);
}

void tls_certificate_names(X509 *leaf, void (*on_name)(void *arg, struct str name), void *arg)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    if (!names) // the common name counts when there are no alternative names at all (RFC 6125 6.4.4)
        give_common_name(leaf, on_name, arg);
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        int kind;
        const ASN1_STRING *value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &kind);
        if (kind == GEN_DNS)
            give_name(value, on_name, arg);
    }
    GENERAL_NAMES_free(names);
    ERR_clear_error();
}

struct first_name {
    struct arena *arena;
    struct str name;
};

static void take_first(void *arg, struct str name)
{
    struct first_name *first = arg;
    if (!first->name.n)
        first->name = arena_copy(first->arena, name);
}

static void take_common_name(X509 *leaf, struct first_name *first)
{
    if (!first->name.n)
        give_common_name(leaf, take_first, first);
}

enum err_code tls_certificate_check(const struct tls_certificate_files *files, struct arena *arena,
                                    struct tls_certificate_info *info, struct err *err)
{
    struct tls_slot *slot = tls_slot_get(TLS_SLOT_CONTROL);
    struct tls_certificate certificate;
    *info = (struct tls_certificate_info){0};
    if (!slot)
        return err_set(err, ERR_MEMORY, "tls", "no memory");
    enum err_code code = tls_certificate_load(slot, files, true, &certificate, err);
    if (code != ERR_OK)
        return code;
    code = check_strength(slot, files->cert, &certificate, err);
    if (code == ERR_OK) {
        struct first_name first = {.arena = arena};
        tls_certificate_names(certificate.leaf, take_first, &first);
        take_common_name(certificate.leaf, &first);
        info->name = first.name;
        info->algorithm = algorithms[certificate.kind];
        info->ocsp_until = certificate.ocsp_until;
        if (!to_unix(X509_get0_notBefore(certificate.leaf), &info->not_before) ||
            !to_unix(X509_get0_notAfter(certificate.leaf), &info->not_after))
            code = err_set(err, ERR_INVALID, "", "the certificate's dates mean nothing");
    }
    if (code == ERR_OK) { // last: of one that has no other mistake *info is told
        char *path = str_dup(files->cert);
        code = check_times(certificate.leaf, path, err);
        free(path);
    }
    tls_certificate_fini(&certificate);
    return code;
}
