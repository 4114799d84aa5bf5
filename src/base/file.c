#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int64_t nanoseconds(const struct timespec *time)
{
    return (int64_t)time->tv_sec * 1000000000 + time->tv_nsec;
}

struct file_stamp file_stamp_of(struct str path)
{
    struct stat stat_now;
    if (stat(path.p, &stat_now) != 0)
        return (struct file_stamp){0};
    return (struct file_stamp){
        .device = stat_now.st_dev,
        .inode = stat_now.st_ino,
        .size = (uint64_t)stat_now.st_size,
        .modified_ns = nanoseconds(&stat_now.st_mtim),
        .changed_ns = nanoseconds(&stat_now.st_ctim),
    };
}

bool file_stamp_same(const struct file_stamp *a, const struct file_stamp *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->modified_ns == b->modified_ns && a->changed_ns == b->changed_ns;
}

static struct str load(int fd, size_t max, struct arena *arena, const char **what)
{
    struct stat stat_now;
    if (fstat(fd, &stat_now) < 0) {
        *what = strerrordesc_np(errno);
    } else if (!S_ISREG(stat_now.st_mode)) {
        *what = "not a regular file";
    } else if ((size_t)stat_now.st_size > max) {
        *what = "too large";
    } else {
        size_t size = (size_t)stat_now.st_size, n = 0;
        char *bytes = arena_zalloc(arena, size + 1);
        ssize_t got;
        do {
            got = read(fd, bytes + n, size - n);
            n += got > 0 ? (size_t)got : 0;
        } while ((got > 0 && n < size) || (got < 0 && errno == EINTR));
        if (got >= 0)
            return (struct str){bytes, n};
        *what = strerrordesc_np(errno);
    }
    return STR_NULL;
}

// Not blocking: a pipe or a terminal would keep us waiting.
struct str file_load(struct str path, size_t max, struct arena *arena, const char **what)
{
    int fd = open(path.p, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        *what = strerrordesc_np(errno);
        return STR_NULL;
    }
    struct str content = load(fd, max, arena, what);
    close(fd);
    return content;
}
