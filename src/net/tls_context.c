// Slots (a library context for each thread), the policy both sides share, and what is trusted.
#include "net/tls_private.h"

#include "base/rand.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

// Mozilla "intermediate" 5.7 without finite-field Diffie-Hellman: every client that knows TLS 1.2 with GCM
// knows elliptic curves. No CBC, no static RSA.
#define CIPHERS                                                  \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:" \
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:" \
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
#define SUITES "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256" // of TLS 1.3
#define GROUPS "X25519:P-256:P-384"

static pthread_mutex_t slots_lock = PTHREAD_MUTEX_INITIALIZER; // guards the table and each slot's `system`
static struct tls_slot *slots[TLS_SLOTS];

static uint8_t secret_bytes[TLS_SECRET_BYTES];
static bool secret_is_set;

void tls_set_secret(const uint8_t secret[TLS_SECRET_BYTES])
{
    pthread_mutex_lock(&slots_lock);
    memcpy(secret_bytes, secret, TLS_SECRET_BYTES);
    secret_is_set = true;
    pthread_mutex_unlock(&slots_lock);
}

void tls_secret_copy(uint8_t secret[TLS_SECRET_BYTES])
{
    pthread_mutex_lock(&slots_lock);
    if (!secret_is_set)
        rand_secret(secret_bytes, TLS_SECRET_BYTES);
    secret_is_set = true;
    memcpy(secret, secret_bytes, TLS_SECRET_BYTES);
    pthread_mutex_unlock(&slots_lock);
}

static void slot_free(struct tls_slot *slot)
{
    if (!slot)
        return;
    tls_records_teardown(slot);
    EVP_MD_free(slot->sha256);
    EVP_CIPHER_free(slot->ticket_cipher);
    OSSL_LIB_CTX_free(slot->library);
    free(slot);
}

static struct tls_slot *slot_new(void)
{
    struct tls_slot *slot = calloc(1, sizeof *slot);
    if (!slot)
        return NULL;
    slot->library = OSSL_LIB_CTX_new();
    slot->sha256 = slot->library ? EVP_MD_fetch(slot->library, "SHA256", NULL) : NULL;
    slot->ticket_cipher = slot->library ? EVP_CIPHER_fetch(slot->library, "AES-256-CBC", NULL) : NULL;
    if (slot->sha256 && slot->ticket_cipher && tls_records_setup(slot))
        return slot;
    slot_free(slot);
    return NULL;
}

struct tls_slot *tls_slot_get(unsigned slot)
{
    check(slot < TLS_SLOTS);
    pthread_mutex_lock(&slots_lock);
    if (!slots[slot])
        slots[slot] = slot_new();
    struct tls_slot *found = slots[slot];
    pthread_mutex_unlock(&slots_lock);
    return found;
}

void *tls_library(unsigned slot)
{
    struct tls_slot *found = tls_slot_get(slot);
    return found ? found->library : NULL;
}

const char *tls_words(void)
{
    unsigned long error = ERR_peek_error(); // the oldest: what the others followed from
    const char *words = error ? ERR_reason_error_string(error) : NULL;
    ERR_clear_error();
    return words ? words : "unknown reason";
}

SSL_CTX *tls_context_new(struct tls_slot *slot, const SSL_METHOD *method, struct err *err)
{
    ERR_clear_error();
    SSL_CTX *context = SSL_CTX_new_ex(slot->library, NULL, method);
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) ||
        !SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) ||
        !SSL_CTX_set_cipher_list(context, CIPHERS) || !SSL_CTX_set_ciphersuites(context, SUITES) ||
        !SSL_CTX_set1_groups_list(context, GROUPS)) {
        err_set(err, ERR_MEMORY, "tls", "%s", tls_words());
        SSL_CTX_free(context);
        return NULL;
    }
    // An end without close_notify is told apart in tls.c: OpenSSL would send an alert to nobody and strike
    // the session off (RFC 5246 7.2.1 does not ask for that any more).
    SSL_CTX_set_options(context,
                        SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    // No chain building for each handshake: what the file holds is what is sent.
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_max_early_data(context, 0);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_verify_depth(context, TLS_CHAIN_DEPTH);
    return context;
}

// ---- files ----

static enum err_code refuse_file(struct err *err, const char *path, int error)
{
    switch (error) {
    case ENOENT: return err_set(err, ERR_NOT_FOUND, path, "no such file");
    case EACCES: return err_set(err, ERR_INVALID, path, "permission denied");
    case EISDIR: return err_set(err, ERR_INVALID, path, "is a directory");
    default: return err_set(err, ERR_INVALID, path, "cannot be read: %s", strerrordesc_np(error));
    }
}

static enum err_code read_descriptor(int fd, const char *path, uint8_t **data, size_t *n, struct err *err)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return refuse_file(err, path, errno);
    if (S_ISDIR(status.st_mode))
        return refuse_file(err, path, EISDIR);
    size_t capacity = 8192, filled = 0;
    uint8_t *bytes = NULL;
    for (;;) {
        uint8_t *bigger = realloc(bytes, capacity);
        if (!bigger) {
            free(bytes);
            return err_set(err, ERR_MEMORY, path, "no memory");
        }
        bytes = bigger;
        ssize_t got = read(fd, bytes + filled, capacity - filled);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 || filled > TLS_FILE_BYTES) {
            int error = errno;
            free(bytes);
            return got < 0 ? refuse_file(err, path, error) : err_set(err, ERR_INVALID, path, "is too large");
        }
        if (got == 0)
            break;
        filled += (size_t)got;
        if (filled == capacity)
            capacity *= 2;
    }
    *data = bytes;
    *n = filled;
    return ERR_OK;
}

static _Thread_local struct {
    bool (*get)(const void *context, struct str path, struct str *content);
    const void *context;
} source;

void tls_read_from(bool (*get)(const void *context, struct str path, struct str *content),
                   const void *context)
{
    source.get = get;
    source.context = context;
}

enum err_code tls_file_read(struct str path, uint8_t **data, size_t *n, struct err *err)
{
    struct str content;
    if (source.get && source.get(source.context, path, &content)) {
        *data = (uint8_t *)str_dup(content);
        *n = content.n;
        return ERR_OK;
    }
    char *name = str_dup(path);
    // A FIFO without a writer must not hold the control thread.
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    enum err_code code = fd < 0 ? refuse_file(err, name, errno) : read_descriptor(fd, name, data, n, err);
    if (fd >= 0)
        close(fd);
    free(name);
    return code;
}

// ---- what is trusted ----

static bool is_usable_directory(const char *path)
{
    DIR *directory = path ? opendir(path) : NULL;
    if (!directory)
        return false;
    bool usable = false;
    for (struct dirent *entry; !usable && (entry = readdir(directory));)
        usable = entry->d_name[0] != '.';
    closedir(directory);
    return usable;
}

static int count_of(X509_STORE *store)
{
    return sk_X509_OBJECT_num(X509_STORE_get0_objects(store));
}

static const char *environment_or(const char *variable, const char *otherwise)
{
    const char *value = getenv(variable);
    return value && *value ? value : otherwise;
}

// OpenSSL's own places (SSL_CERT_FILE and SSL_CERT_DIR move them), else the bundle where distributions put
// it: a directory alone would be read during handshakes.
static bool load_system(X509_STORE *store, OSSL_LIB_CTX *library)
{
    static const char *const bundles[] = {
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    };
    const char *directory = environment_or(X509_get_default_cert_dir_env(), X509_get_default_cert_dir());
    bool moved = getenv(X509_get_default_cert_file_env()) || getenv(X509_get_default_cert_dir_env());
    X509_STORE_set_default_paths_ex(store, library, NULL);
    for (size_t i = 0; i < countof(bundles) && !moved && count_of(store) == 0; i++)
        X509_STORE_load_file_ex(store, bundles[i], library, NULL);
    ERR_clear_error();
    return count_of(store) > 0 || is_usable_directory(directory);
}

static X509_STORE *system_store(struct tls_slot *slot, struct err *err)
{
    pthread_mutex_lock(&slots_lock);
    if (!slot->system) {
        X509_STORE *store = X509_STORE_new();
        if (store && load_system(store, slot->library))
            slot->system = store;
        else
            X509_STORE_free(store);
    }
    X509_STORE *store = slot->system;
    if (store)
        X509_STORE_up_ref(store);
    else
        err_set(err, ERR_NOT_FOUND, "system", "this system has no store of CA certificates");
    pthread_mutex_unlock(&slots_lock);
    return store;
}

static bool digest_certificates(struct tls_slot *slot, STACK_OF(X509) * certificates, uint8_t *digest)
{
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    bool good = hash && EVP_DigestInit_ex(hash, slot->sha256, NULL);
    for (int i = 0; good && i < sk_X509_num(certificates); i++) {
        uint8_t one[EVP_MAX_MD_SIZE];
        unsigned n;
        good = X509_digest(sk_X509_value(certificates, i), slot->sha256, one, &n) &&
               EVP_DigestUpdate(hash, one, n);
    }
    good = good && EVP_DigestFinal_ex(hash, digest, NULL);
    EVP_MD_CTX_free(hash);
    return good;
}

static X509_STORE *store_of(STACK_OF(X509) * certificates)
{
    X509_STORE *store = X509_STORE_new();
    for (int i = 0; store && i < sk_X509_num(certificates); i++)
        if (!X509_STORE_add_cert(store, sk_X509_value(certificates, i))) {
            X509_STORE_free(store);
            store = NULL;
        }
    // What the file names is trusted, be it an intermediate authority or one certificate alone.
    if (store)
        X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
    return store;
}

static X509_STORE *file_store(struct tls_slot *slot, const char *path, const uint8_t *data, size_t n,
                              uint8_t *digest, struct err *err)
{
    STACK_OF(X509) *certificates = tls_certificates_parse(slot, path, data, n, err);
    if (!certificates)
        return NULL;
    X509_STORE *store = store_of(certificates);
    if (store && digest && !digest_certificates(slot, certificates, digest)) {
        X509_STORE_free(store);
        store = NULL;
    }
    if (!store)
        err_set(err, ERR_MEMORY, path, "%s", tls_words());
    sk_X509_pop_free(certificates, X509_free);
    return store;
}

X509_STORE *tls_store_new(struct tls_slot *slot, struct str path, uint8_t digest[TLS_DIGEST], struct err *err)
{
    uint8_t *data;
    size_t n;
    if (digest)
        memset(digest, 0, TLS_DIGEST);
    if (str_eq(path, STR("system")))
        return system_store(slot, err);
    if (tls_file_read(path, &data, &n, err) != ERR_OK)
        return NULL;
    char *name = str_dup(path);
    X509_STORE *store = file_store(slot, name, data, n, digest, err);
    free(name);
    free(data);
    return store;
}

STACK_OF(X509_NAME) * tls_store_subjects(X509_STORE *store)
{
    STACK_OF(X509_NAME) *names = sk_X509_NAME_new_null();
    const STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(store);
    for (int i = 0; names && i < sk_X509_OBJECT_num(objects); i++) {
        X509 *certificate = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i));
        X509_NAME *name = certificate ? X509_NAME_dup(X509_get_subject_name(certificate)) : NULL;
        if (certificate && (!name || !sk_X509_NAME_push(names, name))) {
            X509_NAME_free(name);
            sk_X509_NAME_pop_free(names, X509_NAME_free);
            return NULL;
        }
    }
    return names;
}

enum err_code tls_ca_check(struct str path, struct err *err)
{
    struct tls_slot *slot = tls_slot_get(TLS_SLOT_CONTROL);
    if (!slot)
        return err_set(err, ERR_MEMORY, "tls", "no memory");
    struct err local;
    X509_STORE *store = tls_store_new(slot, path, NULL, err ? err : &local);
    if (!store)
        return err ? err->code : local.code;
    X509_STORE_free(store);
    return ERR_OK;
}
