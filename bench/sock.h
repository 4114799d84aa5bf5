#ifndef BENCH_SOCK_H
#define BENCH_SOCK_H

/*
 * What the bench programs share: an address, a listening or connecting socket, a clock, a way to give up.
 * IPv4 and numeric addresses only; every socket is non-blocking, close-on-exec and without Nagle's delay.
 * Nothing here comes from src/: a measuring tool that shared code with what it measures would share its
 * faults.
 */

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NS_PER_S  1000000000ULL
#define NS_PER_MS 1000000ULL
#define NS_PER_US 1000ULL

/* Prints the message (with errno's words when errno is set) and exits with status 1. */
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);

/* CLOCK_MONOTONIC in nanoseconds; no system call (vDSO). */
uint64_t clock_ns(void);

/* "127.0.0.1:8080" to an address; dies on anything else. */
struct sockaddr_in sock_address(const char *text);

/* A listening socket; dies when it cannot. */
int sock_listen(const struct sockaddr_in *address);

/* The next accepted connection, or -1 when there is none. */
int sock_accept(int listener);

/* A socket on its way to being connected (wait for it to become writable), or -1 with errno. */
int sock_connect(const struct sockaddr_in *address);

/* Raises the soft limit on open files to the hard one, and returns it. */
size_t sock_raise_limit(void);

/* A whole non-negative number not above max; dies, naming the option, on anything else. */
uint64_t parse_number(const char *option, const char *text, uint64_t max);

#endif
