// The worker threads of a worker process, and giving them orders. Everything that belongs to a worker happens
// in its own thread: an order is a task posted to each thread's loop, and its `done` runs in the control
// thread when all have carried it out.
//
//   control thread   crew_order ──▶ one task a thread … last one ──▶ done
//   worker threads              run(member, order)
#pragma once

#include "front/front.h"

#include <pthread.h>
#include <semaphore.h>

struct crew;

enum { CREW_MAX = 256, CREW_STOP_MS = 5000 /* what a thread gets to end */ };

struct crew_member {
    struct crew *crew;
    unsigned slot;
    pthread_t thread;
    bool started;
    struct worker *worker; // made and freed in its thread, so that its memory is near it
    struct front *front;
    struct err err;
    struct loop_hook hook;
    bool leaving, empty; // the thread's: told to finish; has said that nothing is left
    struct loop_task empty_task;
};

struct crew {
    struct loop *control;
    struct gateway *gateway; // to start with
    struct access_writer *writer;
    struct crew_member *members;
    unsigned count;
    sem_t ready; // one post for each thread that is set up, or has failed
    sem_t go;    // one post for each thread that may run its loop, or end
    bool failed;
    unsigned empty_count;
    unsigned orders;                     // under way
    void (*on_empty)(struct crew *crew); // every member is leaving and has no connection left
    void *context;
};

struct crew_order {
    void (*run)(struct crew_member *member, struct crew_order *order); // in each worker's thread
    void (*done)(struct crew_order *order); // in the control thread; frees the order
    // The crew's:
    struct crew *crew;
    atomic_uint remaining;
    struct crew_errand *errands;
    struct loop_task done_task;
};

// Starts crew->count threads that serve nothing yet. *err when the machine refuses; then none runs.
must_check enum err_code crew_start(struct crew *crew, struct err *err);
void crew_order(struct crew *crew, struct crew_order *order);
// In a worker's thread: from now on on_empty is waited for.
void crew_member_leave(struct crew_member *member);
// Ends the threads, whatever they have. False: one of them did not end in time.
bool crew_stop(struct crew *crew);
// For a bug's last words: the worker whose thread this is, or NULL.
struct worker *crew_current_worker(void);
