#include "auth/identity.h"

#include <stdlib.h>

struct identity *identity_ref(struct identity *identity)
{
    identity->references++;
    return identity;
}

void identity_unref(struct identity *identity)
{
    if (identity && --identity->references == 0)
        free(identity);
}
