#include "cli/running.h"

#include "cli/file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define MAGIC "sallyport-running 1\n"

enum { HEAD_BYTES = 256 };

int running_write(struct str text, const struct gateway_files *files)
{
    struct buf out = {0};
    buf_printf(&out, MAGIC "text %zu\n", text.n);
    buf_append(&out, text);
    for (uint32_t i = 0; i < files->count; i++) {
        const struct gateway_file *file = &files->v[i];
        const struct file_stamp *stamp = &file->stamp;
        if (!file->content.p)
            continue;
        buf_printf(&out, "file %zu %zu %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRId64 " %" PRId64 "\n",
                   file->path.n, file->content.n, stamp->device, stamp->inode, stamp->size,
                   stamp->modified_ns, stamp->changed_ns);
        buf_append(&out, file->path);
        buf_append(&out, file->content);
    }
    int fd = file_in_memory(buf_str(&out));
    explicit_bzero(out.base, out.end);
    buf_free(&out);
    return fd;
}

// The line of numbers before a part, without its end.
static bool take_head(struct str *rest, char head[HEAD_BYTES])
{
    size_t n = str_find(*rest, '\n');
    if (n == rest->n || n >= HEAD_BYTES)
        return false;
    memcpy(head, rest->p, n);
    head[n] = '\0';
    *rest = str_skip(*rest, n + 1);
    return true;
}

static bool take(struct str *rest, size_t n, struct str *part)
{
    if (n > rest->n)
        return false;
    *part = (struct str){rest->p, n};
    *rest = str_skip(*rest, n);
    return true;
}

static bool take_file(struct str *rest, struct gateway_file *file)
{
    char head[HEAD_BYTES];
    size_t path, content;
    struct file_stamp *stamp = &file->stamp;
    return take_head(rest, head) &&
           sscanf(head, "file %zu %zu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNd64 " %" SCNd64, &path,
                  &content, &stamp->device, &stamp->inode, &stamp->size, &stamp->modified_ns,
                  &stamp->changed_ns) == 7 &&
           take(rest, path, &file->path) && take(rest, content, &file->content);
}

static bool take_all(struct str rest, struct running *running)
{
    char head[HEAD_BYTES];
    size_t n;
    rest = str_skip(rest, sizeof MAGIC - 1);
    if (!take_head(&rest, head) || sscanf(head, "text %zu", &n) != 1 || !take(&rest, n, &running->text))
        return false;
    for (uint32_t room = 0; rest.n; running->file_count++) {
        if (running->file_count == room) {
            room = room ? room * 2 : 16;
            running->files = realloc(running->files, room * sizeof *running->files);
            check(running->files);
        }
        running->files[running->file_count] = (struct gateway_file){0};
        if (!take_file(&rest, &running->files[running->file_count]))
            return false;
    }
    return true;
}

enum err_code running_read(int fd, const char *name, struct running *running, struct err *err)
{
    *running = (struct running){0};
    enum err_code code = file_read_fd(fd, name, &running->all, err);
    if (code != ERR_OK)
        return code;
    running->text = running->all;
    if (!str_starts(running->all, STR(MAGIC)) || take_all(running->all, running))
        return ERR_OK;
    running_fini(running);
    return err_set(err, ERR_INVALID, name, "what the last worker process ran cannot be read");
}

void running_fini(struct running *running)
{
    if (running->all.p)
        explicit_bzero((void *)(uintptr_t)running->all.p, running->all.n);
    free((void *)(uintptr_t)running->all.p);
    free(running->files);
    *running = (struct running){0};
}
