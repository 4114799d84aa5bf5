// Making tokens: for the Auth Service and for identity_token. One thread at a time for each signer.
#pragma once

#include "base/json.h"
#include "token/token.h"

struct token_signer;

// From a PEM private key (RSA of 2048 bits or more: RS256; P-256: ES256; P-384: ES384; P-521: ES512; Ed25519:
// EdDSA). The kid is the key's JWK thumbprint (RFC 7638). library as in token_verifier_new. NULL and *err.
struct token_signer *token_signer_new(struct str pem, void *library, struct err *err);
void token_signer_free(struct token_signer *signer);
// A fresh private key as PEM on the heap (free with buf_free; wipe it): ALGORITHM_RS256 (2048 bits), ES256,
// EDDSA.
must_check bool token_key_generate(enum token_algorithm algorithm, void *library, struct buf *pem);
enum token_algorithm token_signer_algorithm(const struct token_signer *signer);
struct str token_signer_kid(const struct token_signer *signer); // lives as long as the signer
// Appends the public key as one JWK object with kid, alg, use.
void token_signer_jwk(const struct token_signer *signer, struct json *out);
// claims: a JSON object. type: "JWT", "at+jwt" (RFC 9068). The token is in arena; n == 0: OpenSSL failed.
struct str token_sign(struct token_signer *signer, struct str type, struct str claims, struct arena *arena);
