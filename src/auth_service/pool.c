#include "auth_service/pool.h"

#include <string.h>

static void finish(struct loop_task *task)
{
    struct pool_job *job = container_of(task, struct pool_job, task);
    job->pool->under_way--;
    job->done(job);
}

static struct pool_job *take(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    while (!pool->first && !pool->stopping)
        pthread_cond_wait(&pool->wake, &pool->lock);
    struct pool_job *job = pool->stopping ? NULL : pool->first;
    if (job) {
        pool->first = job->next;
        if (!pool->first)
            pool->last = &pool->first;
        pool->waiting--;
    }
    pthread_mutex_unlock(&pool->lock);
    return job;
}

static void *run(void *context)
{
    struct pool *pool = context;
    for (struct pool_job *job; (job = take(pool));) {
        job->work(job);
        job->task.run = finish;
        loop_post(pool->loop, &job->task);
    }
    return NULL;
}

bool pool_start(struct pool *pool, struct loop *loop, unsigned threads, struct err *err)
{
    *pool = (struct pool){.loop = loop};
    pool->last = &pool->first;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    for (unsigned i = 0; i < threads && i < POOL_THREADS; i++) {
        int error = pthread_create(&pool->threads[i], NULL, run, pool);
        if (error) {
            err_set(err, ERR_SYSTEM, "threads", "%s", strerror(error));
            pool_stop(pool);
            return false;
        }
        pool->thread_count++;
    }
    return true;
}

bool pool_submit(struct pool *pool, struct pool_job *job)
{
    pthread_mutex_lock(&pool->lock);
    bool has_room = pool->waiting < POOL_QUEUE;
    if (has_room) {
        job->pool = pool;
        job->next = NULL;
        *pool->last = job;
        pool->last = &job->next;
        pool->waiting++;
        pthread_cond_signal(&pool->wake);
    }
    pthread_mutex_unlock(&pool->lock);
    pool->under_way += has_room;
    return has_room;
}

void pool_stop(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->thread_count; i++)
        pthread_join(pool->threads[i], NULL);
    pool->thread_count = 0;
    for (struct pool_job *job; (job = pool->first);) { // never begun: they are freed all the same
        pool->first = job->next;
        job->done(job);
    }
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
}
