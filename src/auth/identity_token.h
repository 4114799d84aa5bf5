// What upstreams can verify instead of believing a header: a short-lived JWT about who calls, signed with
// identity_token.key (auth_identity_token in auth.h makes it).
//
//   iss, sub, iat, exp, consumer, roles, scope (RFC 8693 4.2), provider; no aud; without what is not known
//
// One token serves an identity's exchanges for half of its ttl, so that each has at least the other half
// left.
#pragma once

// A worker's signer, made of the key that is in force when it is first needed.
struct identity_signer;
void identity_signer_free(struct identity_signer *signer); // NULL is harmless
