// What the kinds that know their callers by `consumers` share: an identity for a consumer, made once and then
// found in the worker's cache by what was shown. Private to the room.
#pragma once

#include "auth/consumers.h"
#include "auth/provider.h"

// The identity that was made for the same credentials before, in call->identity. False: none.
bool consumer_identity_find(struct auth_worker *worker, const struct auth_provider *provider,
                            struct auth_call *call, struct str credentials);
// AUTH_ALLOW with an identity of the consumer (NULL: none, but a subject); it is kept for the next time.
// False: it is too large.
bool consumer_identity_make(struct auth_worker *worker, const struct auth_provider *provider,
                            struct auth_call *call, struct str credentials, const struct consumer *consumer,
                            struct str subject);
