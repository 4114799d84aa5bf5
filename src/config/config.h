// Text → checked settings, with positions. This room knows YAML, types and errors; it knows no key. The rooms that own
// keys offer field tables; one table row feeds the strict decoder ("did you mean"), `sallyport schema`, `dump` and the
// reference page.
//
//   config_parse   YAML events → node tree (file:line:col kept, aliases and depth bounded, duplicate keys refused,
//                  ${VAR} expanded inside scalars)
//   config_decode  node tree + table → settings struct; every mistake is reported, none stops the rest
#pragma once

#include "base/arena.h"
#include "base/json.h"

// ---- mistakes ----

struct config_error {
    struct config_error *next;
    struct str file;
    unsigned line, column; // 1-based; 0: the whole file
    struct str path;       // "routes[2].match.path"
    struct str what;       // "unknown key \"mach\""
    struct str hint;       // "did you mean \"match\"?", may be empty
};

struct config_report {
    struct arena *arena;
    struct config_error *first, *last; // in order of position
    unsigned count;
};

// "file:line:col: path: what (hint)\n" for each.
void config_report_print(const struct config_report *report, struct buf *out);
void config_report_json(const struct config_report *report, struct json *out);

// ---- the node tree ----

enum config_kind { CONFIG_NULL, CONFIG_SCALAR, CONFIG_LIST, CONFIG_MAP };

struct config_node {
    enum config_kind kind;
    unsigned line, column;
    struct str key;       // in a map: the key
    unsigned key_line, key_column;
    struct str text;      // SCALAR, expanded
    bool quoted;          // a quoted scalar is always a string
    struct config_node *first, *next; // children / siblings
    unsigned count;
};

enum { CONFIG_DEPTH = 32, CONFIG_NODES = 4000000, CONFIG_BYTES = 256 << 20 };

// Parses text; file is its name for messages. NULL when the text is no YAML at all (reported).
struct config_node *config_parse(struct str file, struct str text, struct config_report *report);
const struct config_node *config_get(const struct config_node *map, struct str key);

// ---- field tables ----

enum config_type {
    CONFIG_STRING,   // struct str
    CONFIG_BOOL,     // bool
    CONFIG_INT,      // int64_t
    CONFIG_NUMBER,   // double
    CONFIG_DURATION, // uint64_t, microseconds ("250ms", "1m30s", "0s")
    CONFIG_SIZE,     // uint64_t, bytes ("512", "32KiB")
    CONFIG_ENUM,     // int; options names the values
    CONFIG_STRINGS,  // struct str_list
    CONFIG_SECRET,   // struct str; { env: NAME } or { file: PATH } (or null); printed as "***"
    CONFIG_OBJECT,   // a struct at offset; object names its table; is_set (below) tells null from present
    CONFIG_OBJECTS,  // struct config_list of object
    CONFIG_OBJECT_MAP, // map of NAME → object: struct config_list; the object's `name` field gets the key
    CONFIG_STRING_MAP, // struct str_map: NAME → string
    CONFIG_CUSTOM,   // decode() does it all; schema() describes it
};

struct str_list {
    struct str *v;
    uint32_t count;
};

struct str_pair {
    struct str name, value;
};

struct str_map {
    struct str_pair *v;
    uint32_t count;
};

struct config_list {
    void *v; // count structs of the object's size
    uint32_t count;
};

struct config_option {
    const char *name;
    int value;
};

struct config_object;
struct config_decoder; // where we are: node, path, report, arena

struct config_field {
    const char *name;
    enum config_type type;
    size_t offset;
    const char *fallback; // the default as YAML text, NULL: "null"/zero; shown in the reference
    const char *doc;      // one sentence for the reference page and the schema
    bool required;
    bool nullable;        // null is allowed and means absent
    size_t is_set_offset; // OBJECT: a bool that says whether it was given (0: none)
    double min, max;      // INT, NUMBER, DURATION (µs), SIZE; both 0: unchecked
    const struct config_option *options;  // ENUM, ended by name NULL
    const struct config_object *object;   // OBJECT…
    // STRING, STRINGS (each): a further check; returns NULL or what is wrong. CUSTOM: see decode.
    const char *(*validate)(struct str value);
    void (*decode)(struct config_decoder *decoder, const struct config_node *node, void *target);
    void (*schema)(struct json *out);
    const char *example; // for the reference page
};

struct config_object {
    const char *name; // "upstream", for $defs and headings
    const char *doc;
    size_t size;
    const struct config_field *fields; // ended by name NULL
    // Cross-field rules, after all fields; may report. May be NULL.
    void (*check)(struct config_decoder *decoder, const struct config_node *node, void *target);
};

#define CONFIG_POSITION_FIELDS unsigned line, column /* where this object stands in the file, for later errors */

// Fills target (object->size bytes, zeroed here) from node; NULL node: all defaults. Strings point into the arena.
void config_decode(const struct config_object *object, const struct config_node *node, void *target, struct str file,
                   struct config_report *report);

// For CUSTOM decoders and check hooks.
struct arena *config_arena(struct config_decoder *decoder);
void config_fail(struct config_decoder *decoder, const struct config_node *node, const char *hint, const char *format,
                 ...) __attribute__((format(printf, 4, 5)));
// Decodes node into target by a table, one path step ("name" or "[3]") further down.
void config_decode_child(struct config_decoder *decoder, const struct config_object *object,
                         const struct config_node *node, struct str step, void *target);
// Reports at a node's child path when it is there, else at node.
void config_fail_at(struct config_decoder *decoder, const struct config_node *node, struct str step,
                    const char *hint, const char *format, ...) __attribute__((format(printf, 5, 6)));
// "did you mean "x"?" for the nearest of names, or "" when none is near.
struct str config_suggest(struct arena *arena, struct str word, const struct str *names, size_t count);

// Scalars by themselves, for custom decoders. False: malformed.
bool config_duration(struct str text, uint64_t *us);
bool config_size(struct str text, uint64_t *bytes);

// ---- the other uses of the tables ----

// The effective settings, defaults filled in, secrets as "***"; YAML or JSON, readable by config_parse again.
void config_dump(const struct config_object *object, const void *target, bool as_json, struct buf *out);
// JSON Schema 2020-12 of the object.
void config_schema(const struct config_object *object, struct buf *out);
// docs/CONFIGURATION.md.
void config_reference(const struct config_object *object, struct buf *out);
