#include "cli/file.h"

#include "cli/cli.h"
#include "config/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FIRST_BYTES = 16 * 1024 };

// Not by its size: a pipe or /dev/stdin has none.
enum err_code file_read_fd(int fd, const char *name, struct str *out, struct err *err)
{
    size_t n = 0, capacity = FIRST_BYTES;
    char *data = malloc(capacity);
    enum err_code code = ERR_OK;
    lseek(fd, 0, SEEK_SET); // a memory file's offset is shared with those who read it before
    while (data) {
        ssize_t got = read(fd, data + n, capacity - n - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            code = err_system(err, name, "cannot read it");
        if (got <= 0)
            break;
        n += (size_t)got;
        if (n > CONFIG_BYTES) {
            code = err_set(err, ERR_LIMIT, name, "larger than %d MiB", CONFIG_BYTES >> 20);
            break;
        }
        if (capacity - n > 1)
            continue;
        capacity *= 2;
        char *larger = realloc(data, capacity);
        if (!larger)
            free(data);
        data = larger;
    }
    if (!data)
        return err_set(err, ERR_MEMORY, name, "out of memory");
    if (code != ERR_OK) {
        free(data);
        return code;
    }
    data[n] = '\0';
    *out = (struct str){data, n};
    return ERR_OK;
}

enum err_code file_read(const char *path, struct str *out, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_system(err, path, "cannot open it");
    enum err_code code = file_read_fd(fd, path, out, err);
    close(fd);
    return code;
}

int file_finish_stdout(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    perror("sallyport: cannot write");
    return CLI_FAILED;
}

int file_in_memory(struct str text)
{
    int fd = memfd_create("sallyport-config", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    for (size_t at = 0; fd >= 0 && at < text.n;) {
        ssize_t n = write(fd, text.p + at, text.n - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            close(fd);
            return -1;
        }
        at += (size_t)n;
    }
    if (fd >= 0)
        fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    return fd;
}
