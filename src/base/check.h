// A bug is not an error: check() aborts, in production too, so that the supervisor can start afresh.
#pragma once

// Called once before abort() with whatever the program can say about its state; set by main.
extern void (*check_on_failure)(void);

_Noreturn void check_failed(const char *expression, const char *file, int line);

#define check(c) (__builtin_expect(!(c), 0) ? check_failed(#c, __FILE__, __LINE__) : (void)0)

#define must_check                      __attribute__((warn_unused_result))
#define countof(a)                      (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define likely(c)                       __builtin_expect(!!(c), 1)
#define unlikely(c)                     __builtin_expect(!!(c), 0)
#define seldom                          __attribute__((cold, noinline)) // so that its callers need no stack for it
#define CACHE_LINE                      64
