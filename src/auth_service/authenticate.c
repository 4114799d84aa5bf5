// Who asks. Every wrong answer costs the same, for names that nobody has too; equal questions are asked once.
#include "auth_service/service.h"

#include "base/log.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>

struct login {
    struct list node; // among the question's
    struct question *question;
    struct serve_client *c;
    struct form *form;
    struct str name;
    const struct client_settings *client; // that asks for a user
    void (*next_client)(struct serve_client *c, const struct client_settings *client,
                        const struct form *form);
    void (*next_user)(struct serve_client *c, const struct client_settings *client,
                      const struct user_settings *user, const struct form *form);
};

// One secret for a thread to look at.
struct question {
    struct pool_job job;
    struct service *service;
    struct list node, logins;
    struct scrypt_hash hash;
    uint8_t mac[MAC_BYTES];
    struct login_charge charge;
    uint64_t generation; // of the configuration; another by now: the answer is of no use
    bool good;
    size_t secret_bytes;
    char secret[SCRYPT_SECRET_BYTES];
};

static bool mac_of(const struct service *service, bool is_user, struct str name, struct str secret,
                   uint8_t out[MAC_BYTES])
{
    uint8_t text[1 + 128 + 1 + SCRYPT_SECRET_BYTES];
    size_t n = 0;
    if (name.n > 128 || secret.n > SCRYPT_SECRET_BYTES)
        return false;
    text[n++] = is_user ? 'u' : 'c';
    memcpy(text + n, name.p, name.n);
    n += name.n;
    text[n++] = 0; // no name has one
    memcpy(text + n, secret.p, secret.n);
    n += secret.n;
    bool good = HMAC(EVP_sha256(), service->mac_key, MAC_BYTES, text, n, out, NULL) != NULL;
    OPENSSL_cleanse(text, sizeof text);
    return good;
}

struct ip service_address_of(const struct serve_client *c)
{
    const struct cidr_set *trusted = &service_of(c)->config->settings.trusted_proxies;
    struct ip ip = ip_of(&c->peer);
    struct str list = headers_value(&c->request.headers, HEADER_X_FORWARDED_FOR);
    while (list.n && trusted->count && cidr_set_has(trusted, &ip)) {
        size_t at = list.n;
        while (at && list.p[at - 1] != ',')
            at--;
        struct ip other;
        if (!ip_parse(str_trim(str_skip(list, at)), &other))
            break;
        ip = other;
        list.n = at ? at - 1 : 0;
    }
    return ip;
}

static void refuse(struct login *login)
{
    service_of(login->c)->counts[COUNT_LOGIN_BAD]++;
    if (login->client)
        reply_oauth_error(login->c, 400, STR("invalid_grant"), STR("wrong user name or password"));
    else
        reply_oauth_error(login->c, 401, STR("invalid_client"), STR("unknown client or wrong secret"));
}

static void accept_login(struct login *login)
{
    struct service *service = service_of(login->c);
    service->counts[COUNT_LOGIN_GOOD]++;
    *(login->client ? &login->c->subject : &login->c->consumer) = login->name;
    if (login->client)
        login->next_user(login->c, login->client, map_get(&service->config->users, login->name), login->form);
    else
        login->next_client(login->c, map_get(&service->config->clients, login->name), login->form);
}

static void work(struct pool_job *job)
{
    struct question *question = container_of(job, struct question, job);
    question->good = scrypt_matches(&question->hash, (struct str){question->secret, question->secret_bytes});
}

static void remember(struct service *service, const struct login *login, const uint8_t mac[MAC_BYTES])
{
    const struct client_settings *client = map_get(&service->config->clients, login->name);
    if (login->client || !client)
        return;
    struct client_state *state = &service->config->states[client - auth_clients(&service->config->settings)];
    memcpy(state->mac, mac, MAC_BYTES);
    state->until_us = service->loop.now_us + SECRET_CACHE_US;
}

static void done(struct pool_job *job)
{
    struct question *question = container_of(job, struct question, job);
    struct service *service = question->service;
    list_remove(&question->node);
    if (question->good)
        login_limit_give(&service->limit, &question->charge);
    for (struct list *node; (node = list_pop_front(&question->logins));) {
        struct login *login = container_of(node, struct login, node);
        serve_resume(login->c);
        if (question->generation !=
            service->config->generation) { // HUP meanwhile: what login points to is gone
            reply_retry(login->c, 503, STR("temporarily_unavailable"), 1);
        } else if (question->good) {
            remember(service, login, question->mac);
            accept_login(login);
        } else {
            refuse(login);
        }
    }
    OPENSSL_cleanse(question, sizeof *question);
    free(question);
}

static void on_gone(void *pending)
{
    struct login *login = pending;
    list_remove(&login->node);
}

static void join(struct question *question, struct login *login)
{
    login->question = question;
    list_push_back(&question->logins, &login->node);
    serve_wait(login->c, login, on_gone);
}

// hash NULL: whatever the secret is, it is wrong.
static void ask(struct login *login, const struct scrypt_hash *hash, struct str secret,
                const uint8_t mac[MAC_BYTES], const struct login_charge *charge)
{
    struct service *service = service_of(login->c);
    struct question *question = calloc(1, sizeof *question);
    check(question);
    question->job = (struct pool_job){.work = work, .done = done};
    question->service = service;
    question->generation = service->config->generation;
    question->hash = *(hash ? hash : scrypt_nobody());
    question->charge = *charge;
    memcpy(question->mac, mac, MAC_BYTES);
    memcpy(question->secret, secret.p, secret.n);
    question->secret_bytes = secret.n;
    list_init(&question->logins);
    if (!pool_submit(&service->pool, &question->job)) {
        login_limit_give(&service->limit, charge);
        service->counts[COUNT_POOL_FULL]++;
        OPENSSL_cleanse(question, sizeof *question);
        free(question);
        reply_retry(login->c, 503, STR("temporarily_unavailable"), 1);
        return;
    }
    list_push_back(&service->questions, &question->node);
    join(question, login);
}

static struct question *find_equal(struct service *service, const uint8_t mac[MAC_BYTES])
{
    list_each (&service->questions, node) {
        struct question *question = container_of(node, struct question, node);
        if (question->generation == service->config->generation &&
            CRYPTO_memcmp(question->mac, mac, MAC_BYTES) == 0)
            return question;
    }
    return NULL;
}

// Whether a client's secret is known without a thread. It stays known as long as the client calls: strangers
// who say its name with other secrets cannot lock it out.
static bool is_known(struct service *service, const struct client_settings *client,
                     const uint8_t mac[MAC_BYTES])
{
    struct client_state *state = &service->config->states[client - auth_clients(&service->config->settings)];
    uint8_t want[MAC_BYTES];
    if (client->secret.n)
        return mac_of(service, false, client->id, client->secret, want) &&
               CRYPTO_memcmp(want, mac, MAC_BYTES) == 0;
    if (state->until_us <= service->loop.now_us || CRYPTO_memcmp(state->mac, mac, MAC_BYTES) != 0)
        return false;
    state->until_us = service->loop.now_us + SECRET_CACHE_US;
    return true;
}

static void look_at(struct login *login, struct str secret)
{
    struct service *service = service_of(login->c);
    struct login_charge charge;
    struct ip address = service_address_of(login->c);
    uint8_t mac[MAC_BYTES];
    uint64_t retry_us, now_us = service->loop.now_us;
    list_init(&login->node);
    if (!mac_of(service, login->client != NULL, login->name, secret, mac)) {
        refuse(login);
        return;
    }
    struct question *equal = find_equal(service, mac);
    if (equal) {
        join(equal, login);
        return;
    }
    const struct client_settings *client =
        login->client ? NULL : map_get(&service->config->clients, login->name);
    const struct user_settings *user = login->client ? map_get(&service->config->users, login->name) : NULL;
    bool may_fail = login_limit_take(&service->limit, login->name, &address, now_us, &charge, &retry_us);
    if ((may_fail || !login_limit_is_own(&service->limit, &charge, now_us)) && client &&
        is_known(service, client, mac)) {
        if (may_fail)
            login_limit_give(&service->limit, &charge);
        service->counts[COUNT_LOGIN_CACHED]++;
        accept_login(login);
        return;
    }
    if (!may_fail) {
        service->counts[COUNT_LOGIN_LIMITED]++;
        reply_retry(login->c, 429, STR("slow_down"), retry_us / 1000000 + 1);
        return;
    }
    const struct scrypt_hash *hash = client && client->secret_hash.n ? &client->hash : NULL;
    ask(login, user ? &user->hash : hash, secret, mac, &charge);
}

static bool is_form(const struct serve_client *c)
{
    struct str type = headers_value(&c->request.headers, HEADER_CONTENT_TYPE);
    type.n = str_find(type, ';');
    return str_eq_fold(str_trim(type), STR("application/x-www-form-urlencoded"));
}

void authenticate_client(struct serve_client *c,
                         void (*next)(struct serve_client *c, const struct client_settings *client,
                                      const struct form *form))
{
    struct login *login = arena_new(&c->arena, struct login);
    struct str authorization = headers_value(&c->request.headers, HEADER_AUTHORIZATION), secret = STR_NULL;
    const char *why = "the body is not a form (application/x-www-form-urlencoded)";
    login->c = c;
    login->form = arena_new(&c->arena, struct form);
    login->next_client = next;
    if (!is_form(c) || !form_parse(serve_body(c), &c->arena, login->form, &why)) {
        reply_oauth_error(c, 400, STR("invalid_request"), str_of(why));
        return;
    }
    struct str id = form_get(login->form, STR("client_id"));
    struct str in_body = form_get(login->form, STR("client_secret"));
    if (authorization.n && in_body.n) {
        reply_oauth_error(c, 400, STR("invalid_request"), STR("two ways to authenticate at once"));
        return;
    }
    bool has =
        authorization.n ? form_basic(authorization, &c->arena, &login->name, &secret) : id.n && in_body.n;
    if (!authorization.n) {
        login->name = id;
        secret = in_body;
    }
    if (!has || (authorization.n && id.n && !str_eq(id, login->name)))
        reply_oauth_error(c, 401, STR("invalid_client"), STR("the client must say who it is"));
    else
        look_at(login, secret);
}

void authenticate_user(struct serve_client *c, const struct client_settings *client, const struct form *form,
                       void (*next)(struct serve_client *c, const struct client_settings *client,
                                    const struct user_settings *user, const struct form *form))
{
    struct login *login = arena_new(&c->arena, struct login);
    login->c = c;
    login->form = (struct form *)(uintptr_t)form;
    login->client = client;
    login->next_user = next;
    login->name = form_get(form, STR("username"));
    look_at(login, form_get(form, STR("password")));
}
