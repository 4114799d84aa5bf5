// Overload of the gateway itself. Three things can run short: descriptors and memory, which all workers
// share, and the time of a worker's loop. Each has a pressure between 0 and 3, linear between its soft and
// its hard bound.
//
//   control thread   descriptors, memory ──▶ overload_sample ──┐ (atomics)
//   worker           its loop's lag ──▶ overload_turn ─────────┴─▶ pressure: the worst of the three
//
//   pressure    0 ........... 1 ........... 2 ........... 3
//   turned away   low, more     normal, more  high, more      (never critical)
//                 and more      and more      and more
//
// New requests are turned away, in step_route, since those under way have cost something already. While
// descriptors or memory are short, clients that hold them for nothing (idle connections, answers that nobody
// reads) are waited for a second only, instead of timeouts.idle and timeouts.write.
#pragma once

#include "base/priority.h"
#include "config/config.h"
#include "loop/loop.h"
#include "observe/metrics.h"

enum {
    OVERLOAD_SAMPLE_US = 100000, // between two looks at a gauge
    OVERLOAD_FALL_US = 1000000,  // pressure rises at once, and takes so long to fall by one: no to and fro
    OVERLOAD_LAG_WINDOWS = 5,    // a lag counts when it has stood for so many looks: no single long turn does
    OVERLOAD_PATIENCE_US = 1000000, // with clients that hold what is short
    OVERLOAD_RELIEF_US = 250000,    // between two looks for such clients
    OVERLOAD_WORKERS = 256,
};

struct overload_bounds {
    double soft, hard; // shares of what there is
};

struct overload_settings {
    bool enabled;
    uint64_t memory_limit; // bytes; 0: the control group's, or the machine's
    struct overload_bounds descriptors, memory;
    struct {
        uint64_t soft_us, hard_us;
    } loop_lag;
};
extern const struct config_object overload_object;

// ---- decisions, pure ----

// 0 up to the soft bound, 3 at the hard one and beyond.
double overload_pressure_of(double use, double soft, double hard);

struct overload_gauge { // zero it
    double pressure;
    unsigned level; // 1: low is turned away, 2: normal, too, 3: high, too; 0: nobody
    uint64_t at_us;
};
// What was measured now. True when the level has changed: it falls only when it would not be back at once.
bool overload_follow(struct overload_gauge *gauge, double pressure, uint64_t now_us);

struct overload_meter { // zero it
    double owed[PRIORITIES];
};
// Whether the next request of this priority is turned away: of low ones the share that pressure is above 0,
// of normal ones that above 1, of high ones that above 2, evenly.
bool overload_sheds(struct overload_meter *meter, double pressure, enum priority priority);

struct overload_lag { // zero it
    uint64_t worst_us, since_us;
    uint64_t windows[OVERLOAD_LAG_WINDOWS];
    unsigned next;
};
// The loop's lag in this turn. True once a window, with the lag that has stood through the last ones: the
// least of their worst, as CoDel (RFC 8289) tells a standing queue from a burst.
bool overload_note_lag(struct overload_lag *lag, uint64_t lag_us, uint64_t now_us, uint64_t *standing_us);

// ---- the process ----

struct overload_use {
    uint64_t descriptors, max_descriptors;
    uint64_t memory, max_memory; // bytes
};
// Control thread: what is in use. Logs when a level changes.
void overload_sample(const struct overload_settings *settings, const struct overload_use *use,
                     uint64_t now_us);
// Client connections have lower descriptors than this, so that some are left for upstreams, files and the
// admin API.
int overload_client_descriptors(void);
// The pressure of each resource now, that of loops the worst worker's. Any thread.
void overload_read(double pressure[OVERLOAD_RESOURCES]);

// ---- a worker ----

struct overload {
    const struct overload_settings *settings; // of the snapshot in force
    unsigned slot;
    double pressure, memory_pressure;
    bool is_pressed[OVERLOAD_RESOURCES];
    uint64_t looked_us;
    struct overload_gauge loop;
    struct overload_lag lag;
    struct overload_meter meter;
};

// Memory is so short that no new request of this priority is served: nor is more taken of those that have
// brought a part of a body which must be whole first.
bool overload_lacks_memory(const struct overload *overload, enum priority priority);
// At the end of each turn.
void overload_turn(struct overload *overload, const struct loop *loop);
