/*
 * allocs.so, for LD_PRELOAD: counts every call of the heap's doors in a file that can be read while they
 * happen.
 *
 * ALLOCS_FILE names a file of 5 numbers of 64 bits (made and zeroed by whoever wants to know): malloc,
 * calloc, realloc, aligned (posix_memalign, aligned_alloc, memalign) and free. It is mapped shared, so a
 * process and all its children count together, and the counts of two moments subtract to what happened
 * between them. Calls go on to glibc's own allocator.
 */

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { COUNT_MALLOC, COUNT_CALLOC, COUNT_REALLOC, COUNT_ALIGNED, COUNT_FREE, COUNTS };

/* glibc's allocator under the names that cannot be interposed. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *p);

static uint64_t unseen[COUNTS]; /* before the file is mapped, or without one */
static uint64_t *counts = unseen;

static void count(int which)
{
    __atomic_fetch_add(&counts[which], 1, __ATOMIC_RELAXED);
}

__attribute__((constructor)) static void counts_map(void)
{
    const char *name = getenv("ALLOCS_FILE");
    int fd = name != NULL ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *shared = mmap(NULL, sizeof unseen, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared != MAP_FAILED)
        counts = shared;
}

void *malloc(size_t size)
{
    count(COUNT_MALLOC);
    return __libc_malloc(size);
}

void *calloc(size_t number, size_t size)
{
    count(COUNT_CALLOC);
    return __libc_calloc(number, size);
}

void *realloc(void *old, size_t size)
{
    count(COUNT_REALLOC);
    return __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size)
{
    count(COUNT_ALIGNED);
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    count(COUNT_ALIGNED);
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    count(COUNT_ALIGNED);
    void *p = __libc_memalign(alignment, size);
    if (p == NULL)
        return ENOMEM;
    *out = p;
    return 0;
}

void free(void *p)
{
    if (p != NULL)
        count(COUNT_FREE);
    __libc_free(p);
}
