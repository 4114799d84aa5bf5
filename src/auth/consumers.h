// Who holds which API key or certificate. Only SHA-256 hashes of keys are kept; a million consumers load in
// under two seconds and are found in O(1): one probe by the first bytes of the hash, then a comparison in
// constant time.
#pragma once

#include "auth/auth_config.h"
#include "base/err.h"

enum { API_KEY_BYTES = 1024 }; // a longer key is nobody's

struct consumers; // immutable, reference-counted, any thread

struct consumer {
    struct str name;
    struct str_list roles, scopes;
};

struct consumers_source {
    const struct config_list *settings; // of consumer_settings
    struct str file;                    // its name; n == 0: none
    struct str text;                    // its content
};

// The file is YAML, the same as what stands behind the key `consumers`, or, when it begins with "{", JSON
// Lines for many of them, one consumer a line: {"name":"acme","api_keys":["<sha256>"],"roles":["gold"]}. NULL
// and *err: the first mistake with its line, or a name, a key or a certificate that two consumers have, be it
// here or in the settings.
struct consumers *consumers_new(const struct consumers_source *source, struct err *err);
struct consumers *consumers_ref(struct consumers *consumers);
void consumers_unref(struct consumers *consumers); // NULL is harmless
uint32_t consumers_count(const struct consumers *consumers);

// NULL: nobody's.
const struct consumer *consumers_by_key(const struct consumers *consumers, struct str api_key);
// By any of the SANs ("DNS=a.example,URI=…", as struct tls_facts has them), then by subject, then by
// fingerprint.
const struct consumer *consumers_by_certificate(const struct consumers *consumers, struct str sans,
                                                struct str subject, struct str fingerprint);
// The SHA-256 of a key as 64 hex digits: `sallyport hash-key`.
void consumers_hash_key(struct str api_key, char hex[64]);
