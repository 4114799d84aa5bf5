// What a client or a fleet of Redis is told, and what its commands are answered: for the tests of both.
#pragma once

#include "redis/fleet.h"
#include "unit.h"

enum { HEARD = 64 };

struct heard {
    enum redis_failure failure;
    char text[64]; // of the reply
};

struct ear { // the context of events and of commands
    unsigned ups, downs, subscribed, messages, replies;
    char why[256], message[64];
    struct heard heard[HEARD];
};

static inline void on_up(void *context)
{
    ((struct ear *)context)->ups++;
}

static inline void on_down(void *context, const char *why)
{
    struct ear *ear = context;
    ear->downs++;
    snprintf(ear->why, sizeof ear->why, "%s", why);
}

static inline void on_subscribed(void *context)
{
    ((struct ear *)context)->subscribed++;
}

static inline void on_message(void *context, struct str channel, struct str payload)
{
    struct ear *ear = context;
    ear->messages++;
    snprintf(ear->message, sizeof ear->message, "%.*s=%.*s", STR_ARG(channel), STR_ARG(payload));
}

static inline void on_reply(void *context, enum redis_failure failure, const struct resp_value *reply)
{
    struct ear *ear = context;
    struct heard *heard = &ear->heard[ear->replies++ % HEARD];
    assert_int_equal(reply != NULL, failure == REDIS_OK);
    *heard = (struct heard){.failure = failure};
    if (reply && reply->text.n)
        snprintf(heard->text, sizeof heard->text, "%.*s", STR_ARG(reply->text));
    else if (reply)
        snprintf(heard->text, sizeof heard->text, "%lld", (long long)reply->integer);
}
