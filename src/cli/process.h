// The worker process. Its first thread is the control thread: configuration, health checks, admin and status
// listeners, the supervisor's messages; nothing it does stops the worker threads (crew.h), which carry the
// requests.
//
//   process_main   START → gateway_new → LISTEN → crew_start → front_listen in each thread → keys → READY →
//                  loop_run; while another process serves: keys → front_listen → READY
//   process_reload file → gateway_new → LISTEN for new addresses
//                  → one order: worker_update, front_update, front_listen
//                  → done: what nobody uses any more is closed, RETIRE
//   process_drain  delay → one order: front_drain, worker_drain → done: sockets closed, RETIRE
//                  → empty, or drain.timeout
#pragma once

#include "admin/admin.h"
#include "auth/jwks.h"
#include "cli/control.h"
#include "cli/crew.h"
#include "upstream/health.h"
#include "upstream/outlier.h"
#include "upstream/upstream.h"

// An address this process serves, with its own copies of the supervisor's descriptors.
struct place {
    struct addr addr;
    int *fds;
    unsigned count;
    bool wanted; // by the configuration in force
};

struct place_list {
    struct place *v;
    unsigned count;
};

// An access log that is or was in force. Freed once no order under way can still name it.
struct log_output {
    struct log_output *next;
    struct str name;
    struct access_writer *writer; // NULL: off
};

enum process_leaving { LEAVING_NOT, LEAVING_DELAY, LEAVING_DRAIN, LEAVING_ABORT };

// Files of certificates and keys, looked at while they are in force.
struct certificate_watch {
    struct loop_timer timer;
    uint64_t generation;      // of the snapshot whose files these are
    struct file_stamp *seen;  // when we last looked
    struct file_stamp *tried; // when they were last put in force, or refused
    uint32_t count;
    uint64_t retry_us; // when what was refused is tried again; 0: nothing was
};

struct process;

// Keys of Auth Services: what fetches them, and who waits for the first ones.
struct key_watch {
    struct upstream_worker *upstreams; // the control thread's side; NULL: not started
    struct buf_pool buffers;
    struct rand rand;
    struct jwks_listener listener;
    struct loop_timer timer;
    void (*done)(struct process *process); // NULL: nobody waits
};

// A start that waits for what rate limits in Redis need.
struct limit_watch {
    struct loop_timer timer;
    uint64_t until_ms;
    void (*done)(struct process *process);
};

// What is in use of what all workers share.
struct overload_watch {
    struct overload_use use;
    uint64_t next_us, count_us, limit_us; // when to look again: at all, at descriptors, at the limit
};

struct process {
    const char *file;
    bool is_alone; // no other process served when this one was started
    int control_fd;
    int running; // a memory file of what is in force (running.h); -1: none
    struct loop loop;
    struct loop_source control;
    struct loop_hook turn_end;
    struct crew crew;
    struct place_list places;
    struct log_output *output, *outputs_before;
    struct health *health;
    struct outliers *outliers;
    struct redis_deny *deny; // NULL: the configuration has no redis
    struct loop_timer sweep_timer;
    struct admin *admin;
    struct admin_host host;
    enum process_leaving leaving;
    struct loop_timer leave_timer;
    struct certificate_watch certificates;
    struct key_watch keys;
    struct limit_watch limits;
    struct overload_watch overload;
    // Messages that came while the answer to a LISTEN was waited for.
    struct process_message {
        struct process_message *next;
        enum control_type type;
    } * early;
    struct loop_task early_task;
    struct loop_task release_task; // of the admin and status listeners
};

// Until the process ends; its exit status.
int process_main(int control_fd, const char *file);

void process_tell(struct process *process, enum control_type type, uint32_t value, struct str text, int fd);
void process_hear(struct process *process, enum control_type type);
// What a host's hooks find themselves with.
struct process *process_of(struct admin_host *host);
// Notes a mistake that only shows when the configuration is put in force. line 0: the whole file. Returns
// false.
bool process_refuse(struct config_report *report, const char *file, unsigned line, unsigned column,
                    struct str path, const char *format, ...) __attribute__((format(printf, 6, 7)));

// ---- process_sockets.c ----

// Descriptors for every address of the configuration; those that are already held are marked wanted, all
// others are not. False and a mistake in *report when one cannot be had: nothing has changed but what
// process_sweep undoes.
bool process_listen(struct process *process, const struct gateway *gateway, struct config_report *report);
struct place *process_place(struct process *process, const struct addr *addr);
// Closes the descriptors of unwanted addresses and lets the supervisor know, unless an order under way may
// name them.
void process_sweep(struct process *process);
// No address is wanted any more but, while they are there, those of the admin and status listeners.
void process_unlisten(struct process *process);
// Opens the admin and status listeners of the configuration in force.
bool process_listen_admin(struct process *process);

// ---- process_reload.c ----

// The file again, into force. False: it is bad, *report says why, nothing has changed.
bool process_reload(struct process *process, struct config_report *report);
// An order for every worker thread to serve what `gateway` says; then `done`.
void process_apply(struct process *process, struct gateway *gateway, void (*done)(struct process *process));
// The access log's output of that name; opened when it is not the one in force.
bool process_open_log(struct process *process, struct str name, struct config_report *report);
// Keeps what is in force, and hands it to the supervisor for a restart after a crash. text: that it was
// compiled from.
void process_keep_running(struct process *process, struct str text);
// One log line a mistake.
void process_log_mistakes(const struct config_report *report);

// Puts a snapshot that is good into force; takes over the reference unless it fails, with a mistake in
// *report.
bool process_put_in_force(struct process *process, struct gateway *gateway, struct config_report *report);

// ---- process_files.c ----

// From now on certificates that change on disk are put in force.
void process_watch_certificates(struct process *process);
void process_on_certificates_timer(struct loop_timer *timer);
void process_forget_certificates(struct process *process);
// Logs what runs out soon.
void process_warn_of_expiry(const struct process *process);

// ---- process_jwks.c ----

// Before any worker thread runs; and when none runs any more.
void process_start_keys(struct process *process);
void process_end_keys(struct process *process);
// Fetches what the snapshot in force needs, and nothing else from now on. Before the one before is given up.
void process_use_keys(struct process *process);
// When every key set of the snapshot in force is there, or was waited for long enough (jwks_is_ready):
// `done`, from within when that is now.
void process_await_keys(struct process *process, void (*done)(struct process *process));

// ---- process_redis.c ----

void process_start_revocation(struct process *process);
void process_end_revocation(struct process *process);
struct redis_access process_redis_access(struct process *process, const struct gateway *gateway);
bool process_refuse_redis(const struct process *process, const struct gateway *gateway, const struct err *err,
                          struct config_report *report); // false
// Talks to the Redis of the configuration; what is as it was stays connected. False, and a mistake in
// *report: nothing has changed.
bool process_use_redis(struct process *process, const struct gateway *gateway, struct config_report *report);

// ---- process_limits.c ----

// As process_use_redis, for rate limits that are in Redis.
bool process_use_limits(struct process *process, const struct gateway *gateway, struct config_report *report);
void process_end_limits(struct process *process);
// When Redis has told what keys are hashed with, or was waited for long enough: `done`, from within when that
// is now, or when no limit is in Redis.
void process_await_limits(struct process *process, void (*done)(struct process *process));

// ---- process_overload.c ----

// At the end of each turn; looks ten times a second.
void process_watch_overload(struct process *process);

// ---- process_drain.c ----

// at_once: a successor accepts already, or nobody will listen to us any more.
void process_drain(struct process *process, bool at_once);
void process_quit(struct process *process);
void process_on_empty(struct crew *crew);
void process_on_leave_timer(struct loop_timer *timer);
