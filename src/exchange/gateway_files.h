// What a configuration reads from disk: certificates and keys of TLS, consumers, the key of identity_token:
// checked before anything is made of it, and looked at again while it is in force.
#pragma once

#include "base/file.h"
#include "base/map.h"
#include "exchange/gateway_config.h"

enum { CERTIFICATE_WARN_DAYS = 14 }; // renewals happen a month ahead: by then something has gone wrong

struct gateway_file {
    struct str path;
    struct str content;      // p NULL: it could not be read
    struct file_stamp stamp; // taken before it was read: what was written since shows
};

// One that is shown to clients, or our own for an upstream.
struct gateway_certificate {
    struct str listener, upstream; // whose; the other one is empty
    struct str path;               // "listeners[0].tls.certificates[1]"
    unsigned line, column;
    struct tls_certificate_files files;
    struct tls_certificate_info info;
};

struct gateway_files {
    struct gateway_certificate *certificates;
    uint32_t certificate_count;
    struct gateway_file *v; // each once
    uint32_t count;
    struct map places; // path → place in v, from 1
};

// Who will serve a snapshot: TLS contexts are made for each of them.
struct gateway_use {
    unsigned workers;      // 0: as many as `workers` says
    unsigned auto_workers; // what workers: auto means
    // What was accepted once, by a process that is no more: files are taken from here rather than from disk,
    // and certificates may have expired since.
    bool accepted;
    const struct gateway_file *files;
    uint32_t file_count;
};

// Reads and checks every file; each mistake is reported at the place in `file` that names it. The contents
// are kept, so that all contexts are made of the same; the rest of *files is in arena. use NULL: as at a
// first start. False: there were mistakes. gateway_files_fini in any case.
bool gateway_files_check(const struct gateway_settings *settings, struct str file,
                         const struct gateway_use *use, struct arena *arena, struct gateway_files *files,
                         struct config_report *report);
void gateway_files_fini(struct gateway_files *files);
// The content of one of its files (context: the struct gateway_files). False: it is none, or could not be
// read.
bool gateway_files_content(const void *context, struct str path, struct str *content);
// Until the next call, the net room reads files from here; NULL: from disk.
void gateway_files_read_from(const struct gateway_files *files);
// What runs out within CERTIFICATE_WARN_DAYS. now_s: Unix time.
void gateway_files_warn(const struct gateway_files *files, struct str file, int64_t now_s,
                        struct config_report *warnings);
