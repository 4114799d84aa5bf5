// The masters of a Redis Cluster (redis.io/docs/reference/cluster-spec).
//
//   key ─▶ slot ─▶ owner ─▶ its connection ─▶ reply
//                    ▲            │
//                    │            ├─ MOVED: the owner is another one; asked, and the map read again soon
//                    └────────────┴─ ASK: another one is asked this once, behind ASKING
//
// The map (CLUSTER SLOTS) is read from one node after the other: at the start, when a command was MOVED, when
// a connection is lost, and again for as long as a slot's master is not there; at most once a second, or four
// times while one is missing. Every master with slots is kept connected; one without is let go after a
// minute's rest.
#include "redis/fleet_private.h"
#include "redis/slots.h"

#include <stdlib.h>

enum {
    REDIRECTIONS = 5, // of one command
    READ_MS = 1000,   // between two readings of the map
    HURRY_MS = 250,   // while a slot's master is missing
    REST_MS = 60000,  // a node without slots that nobody was sent to
    NO_PLACE = UINT16_MAX,
};

struct node {
    struct redis_fleet *fleet;
    struct redis *redis;
    struct addr addr;
    char name[SLOT_NAME_MAX + 1]; // "" when it goes by its address
    bool tried;                   // it was up, or could not be reached, since it is known
    unsigned slots;
    uint64_t used_us;
    struct list waiting; // calls, until it is tried
};

struct cluster {
    struct fleet_asker asker;
    struct loop_timer timer;      // the next reading of the map
    uint64_t read_us;             // when the last one began; 0: never
    unsigned covered;             // slots that have an owner
    uint16_t owners[REDIS_SLOTS]; // place in nodes + 1; 0: nobody
    struct node *nodes[SLOT_NODES];
    unsigned node_count, waiting;
};

struct call { // one command on its way
    struct list line;
    struct redis_fleet *fleet;
    struct addr asked; // the last node: it may be gone when its answer comes
    void *context;
    void (*on_reply)(void *context, enum redis_failure failure, const struct resp_value *reply);
    uint64_t due_us;
    struct loop_timer timer; // while it waits
    bool asking;
    unsigned slot, redirections, argc;
    struct str argv[]; // and the bytes
};

static void send_call(struct call *call, struct node *node, bool asking);

// ---- calls ----

static void stop_waiting(struct call *call)
{
    if (call->line.next == &call->line)
        return;
    list_remove(&call->line);
    loop_timer_stop(call->fleet->loop, &call->timer);
    call->fleet->cluster->waiting--;
}

static void fail(struct call *call, enum redis_failure failure)
{
    stop_waiting(call);
    fleet_fail(call->fleet, failure, call->context, call->on_reply);
    free(call);
}

static void on_wait_over(struct loop_timer *timer)
{
    fail(container_of(timer, struct call, timer), REDIS_DEADLINE);
}

static struct call *call_new(struct redis_fleet *fleet, const struct str *argv, unsigned argc)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < argc; i++)
        bytes += argv[i].n;
    struct call *call = malloc(sizeof *call + argc * sizeof *argv + bytes);
    check(call);
    *call = (struct call){.fleet = fleet, .argc = argc};
    list_init(&call->line);
    loop_timer_init(&call->timer, on_wait_over);
    char *to = (char *)(call->argv + argc);
    for (unsigned i = 0; i < argc; i++) {
        call->argv[i] = (struct str){to, argv[i].n};
        if (argv[i].n)
            memcpy(to, argv[i].p, argv[i].n);
        to += argv[i].n;
    }
    return call;
}

static void finish(struct call *call, enum redis_failure failure, const struct resp_value *reply)
{
    if (call->on_reply)
        call->on_reply(call->context, failure, reply);
    free(call);
}

// ---- the state as a whole ----

// Commands wait for a node that is being connected for the first time: that alone is no outage.
static bool is_there(const struct redis_fleet *fleet, const struct node *node)
{
    return redis_is_up(node->redis) || (!node->tried && fleet->up);
}

static bool is_complete(const struct redis_fleet *fleet)
{
    const struct cluster *cluster = fleet->cluster;
    for (unsigned i = 0; i < SLOT_NODES; i++)
        if (cluster->nodes[i] && cluster->nodes[i]->slots && !is_there(fleet, cluster->nodes[i]))
            return false;
    return cluster->covered == REDIS_SLOTS;
}

// Soon, and not more often than once in a while.
static void read_map_soon(struct redis_fleet *fleet)
{
    struct cluster *cluster = fleet->cluster;
    uint64_t now_us = fleet->loop->now_us;
    uint64_t next_us = cluster->read_us + (fleet->up ? READ_MS : HURRY_MS) * UINT64_C(1000);
    if (cluster->asker.wanted || cluster->timer.due_ms)
        return;
    loop_timer_set(fleet->loop, &cluster->timer,
                   cluster->read_us && next_us > now_us ? (next_us - now_us + 999) / 1000 : 0);
}

static void assess(struct redis_fleet *fleet, const char *why)
{
    bool complete = is_complete(fleet);
    fleet_set_up(fleet, complete, why);
    if (!complete)
        read_map_soon(fleet);
}

// ---- nodes ----

static unsigned find_node(const struct cluster *cluster, const struct addr *addr)
{
    for (unsigned i = 0; i < SLOT_NODES; i++)
        if (cluster->nodes[i] && addr_eq(&cluster->nodes[i]->addr, addr))
            return i;
    return NO_PLACE;
}

static void on_node_up(void *context)
{
    struct node *node = context;
    node->tried = true;
    while (!list_empty(&node->waiting)) {
        struct call *call = container_of(node->waiting.next, struct call, line);
        stop_waiting(call);
        send_call(call, node, call->asking);
    }
    assess(node->fleet, NULL);
    fleet_resubscribe(node->fleet);
}

static void fail_waiting(struct node *node)
{
    while (!list_empty(&node->waiting))
        fail(container_of(node->waiting.next, struct call, line), REDIS_DOWN);
}

static void drop_node(struct cluster *cluster, unsigned place)
{
    struct node *node = cluster->nodes[place];
    cluster->nodes[place] = NULL;
    cluster->node_count--;
    fail_waiting(node);
    fleet_bury(node->fleet, node->redis);
    free(node);
}

static bool is_resting(const struct node *node, uint64_t rest_us)
{
    return !node->slots && node->fleet->loop->now_us - node->used_us > rest_us;
}

static void on_node_down(void *context, const char *why)
{
    struct node *node = context;
    struct redis_fleet *fleet = node->fleet;
    node->tried = true;
    fail_waiting(node);
    if (node->slots)
        assess(fleet, why);
    else if (is_resting(node, REST_MS * 1000)) // a master of former times, gone for good
        drop_node(fleet->cluster, find_node(fleet->cluster, &node->addr));
    fleet_resubscribe(fleet);
}

static const struct redis_events node_events = {.on_up = on_node_up, .on_down = on_node_down};

// Those that have no slots and rest for so long.
static void drop_resting(struct redis_fleet *fleet, uint64_t rest_us)
{
    struct cluster *cluster = fleet->cluster;
    for (unsigned i = 0; i < SLOT_NODES; i++)
        if (cluster->nodes[i] && is_resting(cluster->nodes[i], rest_us))
            drop_node(cluster, i);
}

static unsigned free_place(struct redis_fleet *fleet)
{
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < SLOT_NODES; i++)
            if (!fleet->cluster->nodes[i])
                return i;
        drop_resting(fleet, 0);
    }
    return NO_PLACE;
}

// The node of the address, made when there is none; NO_PLACE: there are too many.
static unsigned take_node(struct redis_fleet *fleet, const struct addr *addr)
{
    unsigned place = find_node(fleet->cluster, addr);
    if (place == NO_PLACE && (place = free_place(fleet)) != NO_PLACE) {
        struct node *node = calloc(1, sizeof *node);
        check(node);
        node->fleet = fleet;
        node->addr = *addr;
        list_init(&node->waiting);
        node->redis = fleet_connect(
            fleet, &(struct fleet_peer){
                       .addr = addr, .purpose = fleet->purpose, .events = &node_events, .context = node});
        fleet->cluster->nodes[place] = node;
        fleet->cluster->node_count++;
    }
    if (place != NO_PLACE)
        fleet->cluster->nodes[place]->used_us = fleet->loop->now_us;
    return place;
}

static void set_owner(struct cluster *cluster, unsigned slot, unsigned place)
{
    if (cluster->owners[slot])
        cluster->nodes[cluster->owners[slot] - 1]->slots--;
    else
        cluster->covered++;
    cluster->owners[slot] = (uint16_t)(place + 1);
    cluster->nodes[place]->slots++;
}

static void disown(struct cluster *cluster)
{
    for (unsigned slot = 0; slot < REDIS_SLOTS; slot++) {
        if (cluster->owners[slot])
            cluster->nodes[cluster->owners[slot] - 1]->slots--;
        cluster->owners[slot] = 0;
    }
    cluster->covered = 0;
}

// ---- the map ----

static void use_map(struct redis_fleet *fleet, const struct slot_map *map)
{
    struct cluster *cluster = fleet->cluster;
    uint16_t places[SLOT_NODES];
    disown(cluster);
    for (unsigned i = 0; i < map->count; i++) {
        const struct slot_node *from = &map->nodes[i];
        places[i] = (uint16_t)take_node(fleet, &from->addr);
        if (places[i] == NO_PLACE)
            continue;
        char *name = cluster->nodes[places[i]]->name;
        if (from->name.n)
            memcpy(name, from->name.p, from->name.n);
        name[from->name.n] = 0;
    }
    for (unsigned slot = 0; slot < REDIS_SLOTS; slot++) {
        unsigned owner = map->owners[slot];
        if (owner && places[owner - 1] != NO_PLACE)
            set_owner(cluster, slot, places[owner - 1]);
    }
}

static bool take_map(struct redis_fleet *fleet, const struct addr *from, const struct resp_value *reply,
                     const char **why)
{
    struct slot_map *map = malloc(sizeof *map);
    check(map);
    bool good = slot_map_read(map, reply, from, why);
    if (good)
        use_map(fleet, map);
    free(map);
    if (!good)
        return false;
    drop_resting(fleet, REST_MS * 1000);
    asker_settle(&fleet->cluster->asker);
    fleet_resubscribe(fleet);
    assess(fleet, "not every slot's master is connected");
    return true;
}

static void on_read(struct loop_timer *timer)
{
    struct cluster *cluster = container_of(timer, struct cluster, timer);
    cluster->read_us = cluster->asker.fleet->loop->now_us;
    asker_ask(&cluster->asker);
}

static unsigned count_sources(const struct redis_fleet *fleet)
{
    return fleet->addr_count + fleet->cluster->node_count;
}

// The configured ones and those that the cluster has told of.
static struct addr source_at(const struct redis_fleet *fleet, unsigned at)
{
    const struct cluster *cluster = fleet->cluster;
    if (at < fleet->addr_count)
        return fleet->addrs[at];
    at -= fleet->addr_count;
    unsigned place = 0;
    while (!cluster->nodes[place] || at--)
        place++;
    return cluster->nodes[place]->addr;
}

static bool is_lost(const struct cluster *cluster, const struct addr *addr)
{
    unsigned place = find_node(cluster, addr);
    return place != NO_PLACE && cluster->nodes[place]->tried && !redis_is_up(cluster->nodes[place]->redis);
}

// In turn; one that is known not to answer only when all are: to find that out again takes a second.
static struct addr nth_source(const struct redis_fleet *fleet, unsigned i)
{
    unsigned count = count_sources(fleet), tries = 0;
    struct addr addr = source_at(fleet, i % count);
    while (++tries < count && is_lost(fleet->cluster, &addr))
        addr = source_at(fleet, (i + tries) % count);
    return addr;
}

// ---- commands ----

static unsigned find_by_name(const struct cluster *cluster, const struct slot_hint *hint)
{
    for (unsigned i = 0; i < SLOT_NODES; i++) {
        const struct node *node = cluster->nodes[i];
        if (node && node->name[0] && str_eq(str_of(node->name), hint->name) &&
            ip_of(&node->addr).port == hint->port)
            return i;
    }
    return NO_PLACE;
}

static void follow(struct call *call, const struct slot_hint *hint, bool asking)
{
    struct redis_fleet *fleet = call->fleet;
    struct cluster *cluster = fleet->cluster;
    unsigned place = hint->addr.length ? take_node(fleet, &hint->addr) : find_by_name(cluster, hint);
    if (!asking)
        read_map_soon(fleet);
    if (place == NO_PLACE || ++call->redirections > REDIRECTIONS) {
        fail(call, REDIS_DOWN);
        return;
    }
    if (!asking && hint->slot == call->slot)
        set_owner(cluster, call->slot, place);
    send_call(call, cluster->nodes[place], asking);
}

static void on_answer(void *context, enum redis_failure failure, const struct resp_value *reply)
{
    struct call *call = context;
    struct slot_hint hint;
    if (failure != REDIS_OK || reply->kind != RESP_ERROR) {
        finish(call, failure, reply);
        return;
    }
    switch (slot_verdict_of(reply->text, &call->asked, &hint)) {
    case SLOT_MOVED: follow(call, &hint, false); break;
    case SLOT_ASK: follow(call, &hint, true); break;
    case SLOT_DOWN:
        read_map_soon(call->fleet);
        fail(call, REDIS_DOWN);
        break;
    case SLOT_TRY_AGAIN:
    case SLOT_OTHER: finish(call, failure, reply); break;
    }
}

static void send_call(struct call *call, struct node *node, bool asking)
{
    struct cluster *cluster = call->fleet->cluster;
    uint64_t now_us = call->fleet->loop->now_us;
    const struct str argv[] = {STR("ASKING")};
    call->asked = node->addr;
    call->asking = asking;
    node->used_us = now_us;
    if (call->due_us <= now_us) {
        fail(call, REDIS_DEADLINE);
    } else if (redis_is_up(node->redis)) {
        if (asking)
            redis_command(node->redis, argv, 1, call->due_us - now_us, NULL, NULL);
        redis_command(node->redis, call->argv, call->argc, call->due_us - now_us, call, on_answer);
    } else if (node->tried) {
        fail(call, REDIS_DOWN);
    } else if (cluster->waiting == REDIS_PENDING) {
        fail(call, REDIS_FULL);
    } else {
        cluster->waiting++;
        list_push_back(&node->waiting, &call->line);
        loop_timer_set(call->fleet->loop, &call->timer, (call->due_us - now_us + 999) / 1000);
    }
}

static void cluster_command(struct redis_fleet *fleet, struct str key, const struct str *argv, unsigned argc,
                            uint64_t deadline_us, void *context,
                            void (*on_reply)(void *context, enum redis_failure failure,
                                             const struct resp_value *reply))
{
    struct cluster *cluster = fleet->cluster;
    unsigned slot = redis_slot_of(key), owner = cluster->owners[slot];
    if (!owner) {
        read_map_soon(fleet);
        fleet_fail(fleet, REDIS_DOWN, context, on_reply);
        return;
    }
    struct call *call = call_new(fleet, argv, argc);
    call->context = context;
    call->on_reply = on_reply;
    call->slot = slot;
    call->due_us = fleet->loop->now_us + (deadline_us ? deadline_us : fleet->settings.deadline_us);
    send_call(call, cluster->nodes[owner - 1], false);
}

// ---- the mode ----

static bool is_up_at(const struct cluster *cluster, unsigned place)
{
    return place != NO_PLACE && cluster->nodes[place] && redis_is_up(cluster->nodes[place]->redis);
}

// Any node that is connected; the one it has, for as long as that is.
static bool cluster_where(struct redis_fleet *fleet, struct addr *addr)
{
    const struct cluster *cluster = fleet->cluster;
    unsigned place = fleet->subscriber ? find_node(cluster, &fleet->subscribed_at) : NO_PLACE;
    unsigned from = rand_below(&fleet->rand, SLOT_NODES);
    for (unsigned i = 0; i < SLOT_NODES && !is_up_at(cluster, place); i++)
        place = (from + i) % SLOT_NODES;
    if (!is_up_at(cluster, place))
        return false;
    *addr = cluster->nodes[place]->addr;
    return true;
}

static void cluster_start(struct redis_fleet *fleet)
{
    static const struct str argv[] = {{"CLUSTER", 7}, {"SLOTS", 5}};
    static const struct fleet_question question = {
        .argv = argv, .argc = 2, .source = nth_source, .count = count_sources, .take = take_map};
    struct cluster *cluster = calloc(1, sizeof *cluster);
    check(cluster);
    fleet->cluster = cluster;
    loop_timer_init(&cluster->timer, on_read);
    asker_init(&cluster->asker, fleet, &question);
    read_map_soon(fleet);
}

static void cluster_stop(struct redis_fleet *fleet)
{
    struct cluster *cluster = fleet->cluster;
    loop_timer_stop(fleet->loop, &cluster->timer);
    asker_fini(&cluster->asker);
    for (unsigned i = 0; i < SLOT_NODES; i++) {
        if (!cluster->nodes[i])
            continue;
        fail_waiting(cluster->nodes[i]);
        redis_free(cluster->nodes[i]->redis);
        free(cluster->nodes[i]);
    }
    free(cluster);
    fleet->cluster = NULL;
}

const struct fleet_verbs cluster_mode = {
    .start = cluster_start, .stop = cluster_stop, .command = cluster_command, .where = cluster_where};
