// A few threads for what takes long: hashing a password, making a key. The queue is bounded; answers come
// back as tasks on the loop.
//
//   loop: pool_submit ─▶ queue ─▶ thread: job->work ─▶ loop_post ─▶ loop: job->done
#pragma once

#include "loop/loop.h"

#include <pthread.h>

enum { POOL_THREADS = 64, POOL_QUEUE = 64 /* waiting: a few seconds' work of two threads */ };

struct pool_job {
    struct loop_task task;
    struct pool *pool;
    struct pool_job *next;
    void (*work)(struct pool_job *job); // in a thread
    void (*done)(struct pool_job *job); // in the loop; frees the job
};

struct pool {
    struct loop *loop;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct pool_job *first, **last;
    unsigned waiting;   // in the queue
    unsigned under_way; // submitted and not done; the loop's
    bool stopping;
    pthread_t threads[POOL_THREADS];
    unsigned thread_count;
};

// False and *err when no thread can be had.
must_check bool pool_start(struct pool *pool, struct loop *loop, unsigned threads, struct err *err);
// False: the queue is full. The job is the caller's until done.
must_check bool pool_submit(struct pool *pool, struct pool_job *job);
// Waits for the threads to end what they do. Jobs that never began are done without their work.
void pool_stop(struct pool *pool);
