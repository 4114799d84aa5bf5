#include "auth_service/disk.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DISK_BYTES = 1 << 30, PATH_BYTES = 4096 };

static bool make_directory(const char *path, struct err *err)
{
    if (mkdir(path, 0700) == 0 || errno == EEXIST)
        return true;
    err_system(err, path, "cannot make it");
    return false;
}

bool disk_directory(const char *path, struct err *err)
{
    char parent[PATH_BYTES];
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash && slash > parent) {
        *slash = '\0';
        if (!make_directory(parent, err))
            return false;
    }
    return make_directory(path, err);
}

static bool fill(int fd, const char *path, struct buf *out, struct err *err)
{
    char block[16384];
    for (;;) {
        ssize_t n = read(fd, block, sizeof block);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            err_system(err, path, "cannot read it");
        if (n <= 0)
            return n == 0;
        if (buf_len(out) > DISK_BYTES) {
            err_set(err, ERR_LIMIT, path, "larger than 1 GiB");
            return false;
        }
        buf_append(out, (struct str){block, (size_t)n});
        explicit_bzero(block, (size_t)n);
    }
}

bool disk_read(const char *path, struct buf *out, struct err *err)
{
    struct stat stat;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    *out = (struct buf){0};
    if (fd < 0) {
        enum err_code code = errno == ENOENT ? ERR_NOT_FOUND : ERR_SYSTEM;
        err_system(err, path, "cannot open it");
        err->code = code;
        return false;
    }
    if (fstat(fd, &stat) == 0 && stat.st_mode & 077)
        log_warn("state", "%s can be read by others: chmod 600", path);
    bool good = fill(fd, path, out, err);
    close(fd);
    if (!good)
        buf_free(out);
    return good;
}

static bool write_all(int fd, struct str text)
{
    while (text.n) {
        ssize_t n = write(fd, text.p, text.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        text = str_skip(text, (size_t)n);
    }
    return fsync(fd) == 0;
}

// Without it the new name may be gone after a power cut.
static void sync_parent(const char *path)
{
    char parent[PATH_BYTES];
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash)
        slash[slash == parent] = '\0';
    int fd = open(slash ? parent : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    fsync(fd);
    close(fd);
}

bool disk_write(const char *path, struct str text, struct err *err)
{
    char beside[PATH_BYTES];
    snprintf(beside, sizeof beside, "%s.new", path);
    int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool good = fd >= 0 && fchmod(fd, 0600) == 0 && write_all(fd, text);
    if (!good)
        err_system(err, beside, "cannot write it");
    if (fd >= 0)
        close(fd);
    if (good && rename(beside, path) != 0) {
        err_system(err, path, "cannot rename it");
        good = false;
    }
    if (good)
        sync_parent(path);
    else
        unlink(beside);
    return good;
}

void disk_remove(const char *path)
{
    if (unlink(path) != 0 && errno != ENOENT)
        log_warn("state", "%s: cannot remove it: %s", path, strerror(errno));
}

int disk_lock(const char *directory, struct err *err)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/lock", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        err_system(err, path, "cannot open it");
        return -1;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        err_set(err, ERR_BUSY, directory, "another sallyport-auth uses it");
        close(fd);
        return -1;
    }
    return fd;
}
