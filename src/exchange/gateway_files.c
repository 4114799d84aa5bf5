#include "exchange/gateway_files.h"

#include "auth/auth.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    DAY_SECONDS = 24 * 3600,
    FILE_BYTES = CONFIG_BYTES, // of one file: consumers; the net room refuses what is too large for it
};

// ---- contents ----

// p NULL: the net room will try by itself, and say what is wrong with it.
static struct str read_content(struct str path)
{
    struct stat stat_now;
    struct str content = STR_NULL;
    int fd = open(path.p, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return content;
    if (fstat(fd, &stat_now) == 0 && S_ISREG(stat_now.st_mode) && stat_now.st_size <= FILE_BYTES) {
        size_t size = (size_t)stat_now.st_size, n = 0;
        char *data = malloc(size + 1);
        check(data);
        for (ssize_t got = 1; got > 0 && n < size;) {
            got = read(fd, data + n, size - n);
            if (got > 0)
                n += (size_t)got;
            else if (got < 0 && errno == EINTR)
                got = 1;
        }
        content = (struct str){data, n};
    }
    close(fd);
    return content;
}

bool gateway_files_content(const void *context, struct str path, struct str *content)
{
    const struct gateway_files *files = context;
    size_t place = (size_t)(uintptr_t)map_get(&files->places, path);
    if (!place || !files->v[place - 1].content.p)
        return false;
    *content = files->v[place - 1].content;
    return true;
}

void gateway_files_read_from(const struct gateway_files *files)
{
    tls_read_from(files ? gateway_files_content : NULL, files);
}

void gateway_files_fini(struct gateway_files *files)
{
    for (uint32_t i = 0; i < files->count; i++) {
        struct str content = files->v[i].content;
        if (content.p)
            explicit_bzero((void *)(uintptr_t)content.p, content.n); // keys are among them
        free((void *)(uintptr_t)content.p);
    }
    map_fini(&files->places);
    *files = (struct gateway_files){0};
}

// ---- checking ----

struct checking {
    struct str file; // the configuration's
    const struct gateway_use *use;
    struct arena *arena;
    struct gateway_files *files;
    uint32_t certificate_room, file_room;
    uint32_t found; // behind the last file of use that was
    struct config_report *report;
};

static void *grow(struct arena *arena, const void *v, uint32_t count, uint32_t *room, size_t size)
{
    *room = *room ? *room * 2 : 8;
    void *larger = arena_zalloc(arena, *room * size);
    if (count)
        memcpy(larger, v, count * size);
    return larger;
}

// As it was accepted, else as it is on disk. The search begins where the last one ended: the same text names
// the same files in the same order.
static struct gateway_file take_file(struct checking *checking, struct str path)
{
    const struct gateway_use *use = checking->use;
    for (uint32_t i = 0; use && i < use->file_count; i++) {
        const struct gateway_file *file = &use->files[(checking->found + i) % use->file_count];
        if (!str_eq(file->path, path))
            continue;
        checking->found += i + 1;
        return (struct gateway_file){path, {str_dup(file->content), file->content.n}, file->stamp};
    }
    struct file_stamp stamp = file_stamp_of(path);
    return (struct gateway_file){path, read_content(path), stamp};
}

static void note_file(struct checking *checking, struct str path)
{
    struct gateway_files *files = checking->files;
    if (!path.n || map_get(&files->places, path))
        return;
    if (files->count == checking->file_room)
        files->v = grow(checking->arena, files->v, files->count, &checking->file_room, sizeof *files->v);
    files->v[files->count++] = take_file(checking, path);
    map_put(&files->places, path, (void *)(uintptr_t)files->count);
}

struct place {
    unsigned line, column;
    struct str path;
};

static void refuse(struct checking *checking, const struct place *place, const char *key, struct str path,
                   const char *why)
{
    struct arena *arena = checking->report->arena;
    config_report_add(checking->report, &(struct config_error){
                                            .file = checking->file,
                                            .line = place->line,
                                            .column = place->column,
                                            .path = arena_printf(arena, "%.*s.%s", STR_ARG(place->path), key),
                                            .what = arena_printf(arena, "%.*s: %s", STR_ARG(path), why),
                                        });
}

// err->where may be cut.
static bool is_at(const struct err *err, struct str path)
{
    size_t n = strlen(err->where);
    return path.n && (n == path.n || (n < path.n && n == sizeof err->where - 1)) &&
           memcmp(path.p, err->where, n) == 0;
}

static void refuse_certificate(struct checking *checking, const struct gateway_certificate *certificate,
                               const struct err *err)
{
    const struct tls_certificate_files *files = &certificate->files;
    struct place place = {certificate->line, certificate->column, certificate->path};
    if (is_at(err, files->key) && !str_eq(files->key, files->cert))
        refuse(checking, &place, "key", files->key, err->what);
    else if (is_at(err, files->ocsp))
        refuse(checking, &place, "ocsp", files->ocsp, err->what);
    else
        refuse(checking, &place, "cert", files->cert, err->what);
}

static void check_certificate(struct checking *checking, struct gateway_certificate certificate)
{
    struct gateway_files *files = checking->files;
    struct err err = {0};
    note_file(checking, certificate.files.cert);
    note_file(checking, certificate.files.key);
    note_file(checking, certificate.files.ocsp);
    struct tls_certificate_info *info = &certificate.info;
    if (tls_certificate_check(&certificate.files, checking->arena, info, &err) != ERR_OK) {
        bool has_expired = info->not_after && info->not_after <= time(NULL);
        if (!has_expired || !checking->use || !checking->use->accepted) {
            refuse_certificate(checking, &certificate, &err);
            return;
        }
    }
    if (files->certificate_count == checking->certificate_room)
        files->certificates = grow(checking->arena, files->certificates, files->certificate_count,
                                   &checking->certificate_room, sizeof *files->certificates);
    files->certificates[files->certificate_count++] = certificate;
}

static void check_authorities(struct checking *checking, const struct place *place, const char *key,
                              struct str path)
{
    struct err err = {0};
    bool is_system = str_eq(path, STR("system"));
    if (!path.n)
        return;
    if (!is_system)
        note_file(checking, path);
    if (tls_ca_check(path, &err) != ERR_OK)
        refuse(checking, place, key, path, err.what);
}

static void check_listener(struct checking *checking, const struct listener_settings *listener,
                           uint32_t index)
{
    const struct listener_certificate *certificates = listener->tls.certificates.v;
    struct place place = {listener->tls.line, listener->tls.column,
                          arena_printf(checking->arena, "listeners[%u].tls", index)};
    for (uint32_t i = 0; i < listener->tls.certificates.count; i++)
        check_certificate(checking, (struct gateway_certificate){
                                        .listener = listener->name,
                                        .path = arena_printf(checking->arena, "%.*s.certificates[%u]",
                                                             STR_ARG(place.path), i),
                                        .line = certificates[i].line,
                                        .column = certificates[i].column,
                                        .files = certificates[i].files,
                                    });
    check_authorities(checking, &place, "client_ca", listener->tls.client_ca);
}

static void check_upstream(struct checking *checking, const struct upstream_settings *upstream)
{
    const struct upstream_tls_settings *tls = &upstream->tls;
    struct place place = {tls->line, tls->column,
                          arena_printf(checking->arena, "upstreams.%.*s.tls", STR_ARG(upstream->name))};
    if (tls->verify)
        check_authorities(checking, &place, "ca", tls->ca);
    if (tls->cert.n)
        check_certificate(checking, (struct gateway_certificate){
                                        .upstream = upstream->name,
                                        .path = place.path,
                                        .line = tls->line,
                                        .column = tls->column,
                                        .files = {.cert = tls->cert, .key = tls->key},
                                    });
}

static void check_redis(struct checking *checking, const struct redis_settings *redis)
{
    struct place place = {redis->line, redis->column, STR("redis")};
    check_authorities(checking, &place, "ca", redis->ca);
}

// Consumers, and the key of identity_token.
static void check_identities(struct checking *checking, const struct gateway_settings *settings)
{
    const struct auth_sources sources = {
        .consumers = &settings->consumers,
        .consumers_file = settings->consumers_file,
        .identity_token = settings->has_identity_token ? &settings->identity_token : NULL,
        .read_file = gateway_files_content,
        .read_context = checking->files,
    };
    struct auth_mistake mistake = {0};
    note_file(checking, settings->consumers_file);
    if (settings->has_identity_token)
        note_file(checking, settings->identity_token.key);
    if (auth_check_files(&sources, &mistake))
        return;
    const struct err *err = &mistake.err;
    struct arena *arena = checking->report->arena;
    config_report_add(checking->report, &(struct config_error){
                                            .file = checking->file,
                                            .path = mistake.path,
                                            .what = arena_printf(arena, err->where[0] ? "%s: %s" : "%s%s",
                                                                 err->where, err->what),
                                        });
}

static void check_auth(struct checking *checking, const struct gateway_settings *settings)
{
    const struct auth_settings *auth = settings->auth.v;
    check_identities(checking, settings);
    for (uint32_t i = 0; i < settings->auth.count; i++) {
        struct place place = {auth[i].line, auth[i].column,
                              arena_printf(checking->arena, "auth.%.*s", STR_ARG(auth[i].name))};
        switch (auth[i].kind) {
        case AUTH_JWT: check_authorities(checking, &place, "jwt.jwks.ca", auth[i].jwt.jwks.ca); break;
        case AUTH_INTROSPECTION:
            check_authorities(checking, &place, "introspection.ca", auth[i].introspection.ca);
            break;
        case AUTH_FORWARD: check_authorities(checking, &place, "forward.ca", auth[i].forward.ca); break;
        default: break;
        }
    }
}

bool gateway_files_check(const struct gateway_settings *settings, struct str file,
                         const struct gateway_use *use, struct arena *arena, struct gateway_files *files,
                         struct config_report *report)
{
    struct checking checking = {.file = file, .use = use, .arena = arena, .files = files, .report = report};
    const struct listener_settings *listeners = settings->listeners.v;
    const struct upstream_settings *upstreams = settings->upstreams.v;
    unsigned before = report->count;
    *files = (struct gateway_files){0};
    gateway_files_read_from(files);
    for (uint32_t i = 0; i < settings->listeners.count; i++)
        if (listeners[i].has_tls)
            check_listener(&checking, &listeners[i], i);
    for (uint32_t i = 0; i < settings->upstreams.count; i++)
        if (upstreams[i].has_tls)
            check_upstream(&checking, &upstreams[i]);
    if (settings->has_redis)
        check_redis(&checking, &settings->redis);
    check_auth(&checking, settings);
    gateway_files_read_from(NULL);
    return report->count == before;
}

// ---- warnings ----

static struct str date_of(int64_t when_s, struct arena *arena)
{
    struct tm utc;
    time_t when = when_s;
    char text[32] = "?";
    if (gmtime_r(&when, &utc))
        strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &utc);
    return arena_copy(arena, str_of(text));
}

// "in 3 days", "in 1 day", "in 5 hours".
static struct str remaining(int64_t seconds, struct arena *arena)
{
    bool in_days = seconds >= DAY_SECONDS;
    int64_t count = in_days ? seconds / DAY_SECONDS : seconds / 3600;
    return arena_printf(arena, "in %lld %s%s", (long long)count, in_days ? "day" : "hour",
                        count == 1 ? "" : "s");
}

static void warn_certificate(const struct gateway_certificate *certificate, struct str file, int64_t now_s,
                             struct config_report *warnings)
{
    const struct tls_certificate_info *info = &certificate->info;
    struct arena *arena = warnings->arena;
    struct config_error warning = {
        .file = file, .line = certificate->line, .column = certificate->column, .hint = STR("renew it")};
    struct str name = info->name.n ? info->name : STR("no name");
    if (info->not_after - now_s < (int64_t)CERTIFICATE_WARN_DAYS * DAY_SECONDS) {
        struct str when = info->not_after > now_s ? remaining(info->not_after - now_s, arena) : STR("");
        warning.path = arena_printf(arena, "%.*s.cert", STR_ARG(certificate->path));
        warning.what = arena_printf(arena, "%.*s (%.*s) %s%.*s, on %.*s", STR_ARG(certificate->files.cert),
                                    STR_ARG(name), when.n ? "expires " : "has expired", STR_ARG(when),
                                    STR_ARG(date_of(info->not_after, arena)));
        config_report_add(warnings, &warning);
    }
    if (info->ocsp_until && info->ocsp_until <= now_s) {
        warning.path = arena_printf(arena, "%.*s.ocsp", STR_ARG(certificate->path));
        warning.what = arena_printf(arena, "%.*s (%.*s) was valid until %.*s: it is not stapled",
                                    STR_ARG(certificate->files.ocsp), STR_ARG(name),
                                    STR_ARG(date_of(info->ocsp_until, arena)));
        config_report_add(warnings, &warning);
    }
}

void gateway_files_warn(const struct gateway_files *files, struct str file, int64_t now_s,
                        struct config_report *warnings)
{
    for (uint32_t i = 0; i < files->certificate_count; i++)
        warn_certificate(&files->certificates[i], file, now_s, warnings);
    config_report_sort(warnings);
}
