// A fleet (src/redis/fleet.h) under load, and an account of every command:
// tests/wire/test_36_redis_fleets.py.
//
// usage: fleet_load MODE NODE,NODE… MASTER KEYS EVERY_MS DEADLINE_MS CHANNEL
//
// INCR on load:0 to load:KEYS-1 in turn, one every EVERY_MS. Prints a line of JSON for what happens ("event":
// up, down, subscribed, message) and, when its input ends or says "end", the account. Times are those of
// CLOCK_MONOTONIC in seconds.
#include "redis/fleet.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { KEYS_MAX = 4096, NODES_MAX = 16 };

struct load {
    struct loop loop;
    struct loop_source input;
    struct loop_timer timer;
    struct redis_fleet *fleet;
    unsigned keys, next;
    uint64_t every_ms, deadline_us;
    struct command *commands; // all of them, to the end: whoever is answered twice is found out
    bool ended;
    uint64_t asked, open, results[4], errors, twice, worst_us; // worst_us: beyond the deadline
    uint64_t last_ok_us, gap_us;                               // the longest time without a good answer
    char error[128];
    struct {
        uint64_t ok, unknown; // carried out; perhaps
    } key[KEYS_MAX];
};

struct command {
    struct command *next;
    struct load *load;
    unsigned key;
    uint64_t asked_us;
    bool answered;
};

static void say(const char *event, const char *what)
{
    printf("{\"event\": \"%s\", \"at\": %.6f, \"what\": \"%s\"}\n", event, (double)clock_monotonic_us() / 1e6,
           what);
    fflush(stdout);
}

static void on_reply(void *context, enum redis_failure failure, const struct resp_value *reply)
{
    struct command *command = context;
    struct load *load = command->load;
    uint64_t now_us = clock_monotonic_us(), took_us = now_us - command->asked_us;
    if (command->answered) {
        load->twice++;
        return;
    }
    command->answered = true;
    load->open--;
    load->results[failure]++;
    if (took_us > load->deadline_us && took_us - load->deadline_us > load->worst_us)
        load->worst_us = took_us - load->deadline_us;
    if (failure == REDIS_OK && reply->kind == RESP_INTEGER) {
        load->key[command->key].ok++;
        if (load->last_ok_us && now_us - load->last_ok_us > load->gap_us)
            load->gap_us = now_us - load->last_ok_us;
        load->last_ok_us = now_us;
    } else if (failure == REDIS_OK) {
        load->errors++;
        snprintf(load->error, sizeof load->error, "%.*s", STR_ARG(reply->text));
    } else {
        load->key[command->key].unknown++;
    }
}

static void on_up(void *context)
{
    (void)context;
    say("up", "");
}

static void on_down(void *context, const char *why)
{
    (void)context;
    say("down", why);
}

static void on_subscribed(void *context)
{
    (void)context;
    say("subscribed", "");
}

static void on_message(void *context, struct str channel, struct str payload)
{
    char text[128];
    (void)context;
    (void)channel;
    snprintf(text, sizeof text, "%.*s", STR_ARG(payload));
    say("message", text);
}

static void ask(struct load *load)
{
    char key[32];
    struct command *command = calloc(1, sizeof *command);
    check(command);
    *command = (struct command){
        .next = load->commands, .load = load, .key = load->next, .asked_us = clock_monotonic_us()};
    load->commands = command;
    struct str argv[] = {STR("INCR"), {key, (size_t)snprintf(key, sizeof key, "load:%u", load->next)}};
    load->next = (load->next + 1) % load->keys;
    load->asked++;
    load->open++;
    redis_fleet_command(load->fleet, argv[1], argv, 2, load->deadline_us, command, on_reply);
}

static void on_timer(struct loop_timer *timer)
{
    struct load *load = container_of(timer, struct load, timer);
    if (load->ended) {
        loop_stop(&load->loop);
        return;
    }
    ask(load);
    loop_timer_set(&load->loop, timer, load->every_ms);
}

static void on_input(struct loop_source *source, uint32_t events)
{
    struct load *load = container_of(source, struct load, input);
    char text[16];
    (void)events;
    if (read(STDIN_FILENO, text, sizeof text) < 0)
        return;
    load->ended = true;
    loop_remove(&load->loop, source);
    loop_timer_set(&load->loop, &load->timer, load->deadline_us / 1000 + 200);
}

static void print_account(const struct load *load)
{
    printf(
        "{\"asked\": %llu, \"open\": %llu, \"ok\": %llu, \"down\": %llu, \"deadline\": %llu, \"full\": %llu, "
        "\"errors\": %llu, \"error\": \"%s\", \"twice\": %llu, \"late_s\": %.6f, \"gap_s\": %.6f, \"keys\": "
        "[",
        (unsigned long long)load->asked, (unsigned long long)load->open,
        (unsigned long long)load->results[REDIS_OK], (unsigned long long)load->results[REDIS_DOWN],
        (unsigned long long)load->results[REDIS_DEADLINE], (unsigned long long)load->results[REDIS_FULL],
        (unsigned long long)load->errors, load->error, (unsigned long long)load->twice,
        (double)load->worst_us / 1e6, (double)load->gap_us / 1e6);
    for (unsigned i = 0; i < load->keys; i++)
        printf("%s[%llu, %llu]", i ? ", " : "", (unsigned long long)load->key[i].ok,
               (unsigned long long)load->key[i].unknown);
    printf("]}\n");
}

static void read_nodes(struct redis_settings *settings, char *text)
{
    static struct str nodes[NODES_MAX];
    struct str rest = str_of(text), node;
    settings->nodes.v = nodes;
    while (settings->nodes.count < NODES_MAX && str_next_token(&rest, &node))
        nodes[settings->nodes.count++] = node;
    settings->url.address = nodes[0];
    settings->url.host = STR("127.0.0.1");
}

static uint64_t number(const char *text)
{
    uint64_t value;
    check(str_to_u64(str_of(text), 1000000, &value));
    return value;
}

int main(int argc, char **argv)
{
    static const struct redis_fleet_events events = {
        .on_up = on_up, .on_down = on_down, .on_subscribed = on_subscribed, .on_message = on_message};
    struct load *load = calloc(1, sizeof *load);
    struct redis_settings settings = {0};
    struct err err;
    check(load && argc == 8);
    settings.mode = strcmp(argv[1], "cluster") == 0    ? REDIS_CLUSTER
                    : strcmp(argv[1], "sentinel") == 0 ? REDIS_SENTINEL
                                                       : REDIS_STANDALONE;
    read_nodes(&settings, argv[2]);
    settings.master = str_of(argv[3]);
    load->keys = (unsigned)number(argv[4]);
    load->every_ms = number(argv[5]);
    load->deadline_us = number(argv[6]) * 1000;
    settings.deadline_us = load->deadline_us;
    check(load->keys && load->keys <= KEYS_MAX && loop_init(&load->loop, &err) == ERR_OK);
    load->fleet = redis_fleet_new(
        &(struct redis_fleet_options){
            .access = {.loop = &load->loop, .settings = &settings}, .events = &events, .context = load},
        &err);
    check(load->fleet);
    redis_fleet_subscribe(load->fleet, str_of(argv[7]));
    load->input.fd = STDIN_FILENO;
    load->input.on_event = on_input;
    check(loop_add(&load->loop, &load->input, EPOLLIN) == ERR_OK);
    loop_timer_init(&load->timer, on_timer);
    loop_timer_set(&load->loop, &load->timer, load->every_ms);
    loop_run(&load->loop);
    print_account(load);
    redis_fleet_free(load->fleet);
    loop_turn(&load->loop, 0);
    loop_fini(&load->loop);
    for (struct command *command = load->commands, *next; command; command = next) {
        next = command->next;
        free(command);
    }
    free(load);
    return 0;
}
