// Text → checked settings, with positions. This room knows YAML, types and errors; it knows no key. The rooms
// that own keys offer field tables; one table row feeds the strict decoder ("did you mean"), `sallyport
// schema`, `dump` and the reference page.
//
//   config_parse      YAML events → node tree (file:line:col kept, aliases and depth bounded, duplicate keys
//   refused,
//                     ${VAR} expanded inside scalars)
//   config_decode     node tree + table → settings struct; every mistake is reported, none stops the rest
//   config_encode     settings struct + table → node tree → YAML or JSON
//   config_schema     table → JSON Schema
//   config_reference  table → docs/CONFIGURATION.md
#pragma once

#include "base/arena.h"
#include "base/json.h"

// ---- mistakes ----

struct config_error {
    struct config_error *next;
    struct str file;
    unsigned line, column; // 1-based; 0: the whole file
    struct str path;       // "routes[2].match.path"; empty: the whole file
    struct str what;       // "unknown key"
    struct str hint;       // "did you mean \"match\"?", may be empty
};

// How many mistakes are kept; the rest is counted. Past CONFIG_SUGGESTIONS, hints no longer search long lists
// of names.
enum { CONFIG_ERRORS = 1000, CONFIG_SUGGESTIONS = 20 };

struct config_report {
    struct arena *arena;
    struct config_error *first, *last;
    unsigned count; // all of them, those past CONFIG_ERRORS too
};

// Adds one; everything is copied.
void config_report_add(struct config_report *report, const struct config_error *error);
// Puts the mistakes in the order of the file.
void config_report_sort(struct config_report *report);
// "file:line:col: path: what (hint)\n" for each. Control characters are escaped, so that each stays one line.
void config_report_print(const struct config_report *report, struct buf *out);
// An array of {file, line, column, path, what, hint}.
void config_report_json(const struct config_report *report, struct json *out);

// ---- the node tree ----

enum config_kind { CONFIG_NULL, CONFIG_SCALAR, CONFIG_LIST, CONFIG_MAP };

struct config_node {
    enum config_kind kind;
    bool quoted;           // a quoted scalar is always a string
    bool expanded;         // ${VAR} was in it: its type is the one that is expected
    bool bad;              // reported already: the decoder passes over it
    unsigned line, column; // 1-based
    unsigned key_line, key_column;
    unsigned count;                   // of children
    unsigned nodes, height;           // of the whole tree below and with this one
    struct str key;                   // in a map: the key
    struct str text;                  // SCALAR, expanded, no NUL inside and one behind it
    struct config_node *first, *next; // children / siblings
};

// Bounds of one file: how deep, how many nodes, of which how many by aliases (a "billion laughs" stops
// there), bytes.
enum { CONFIG_DEPTH = 32, CONFIG_NODES = 4000000, CONFIG_ALIAS_NODES = 100000, CONFIG_BYTES = 256 << 20 };

// Parses text; file is its name for messages; the tree lives in arena and may outlive text. NULL when there
// is no tree to speak of (reported); with lesser mistakes (a duplicate key, an unset variable) a tree is
// returned and they are reported.
struct config_node *config_parse(struct str file, struct str text, struct arena *arena,
                                 struct config_report *report);
// The child with this key, or NULL; a step for each child.
const struct config_node *config_get(const struct config_node *map, struct str key);

// ---- field tables ----

enum config_type {
    CONFIG_STRING,     // struct str, NUL-terminated
    CONFIG_BOOL,       // bool
    CONFIG_INT,        // int64_t
    CONFIG_NUMBER,     // double
    CONFIG_DURATION,   // uint64_t, microseconds ("250ms", "1m30s", "0s")
    CONFIG_SIZE,       // uint64_t, bytes ("512", "32KiB")
    CONFIG_ENUM,       // int; options names the values
    CONFIG_FLAGS,      // unsigned; a list of options, whose values are bits
    CONFIG_STRINGS,    // struct str_list
    CONFIG_SECRET,     // struct str; { env: NAME } or { file: PATH } (or null); printed as "***"
    CONFIG_OBJECT,     // a struct at offset; object names its table; is_set (below) tells null from present
    CONFIG_OBJECTS,    // struct config_list of object
    CONFIG_OBJECT_MAP, // map of NAME → object: struct config_list; name_offset says where the name goes
    CONFIG_STRING_MAP, // struct str_map: NAME → string
    CONFIG_CUSTOM,     // decode, encode and schema do it all
};

struct str_list {
    struct str *v;
    uint32_t count;
};

bool str_list_has(const struct str_list *list, struct str text);
struct str str_list_join(const struct str_list *list, struct str separator, struct arena *arena);

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
struct config_decoder; // where we are: path, report, arena

struct config_field {
    const char *name;
    enum config_type type;
    size_t offset;
    const char *fallback; // the default as YAML text; NULL: none (null, empty, zero); shown in the reference
    const char *doc;      // a sentence for the reference page and the schema
    const char *example;  // a value as YAML text, for hints and for the reference page
    bool required;
    bool nullable; // null is allowed and means the same as leaving the key out
    bool masked; // STRING_MAP: values that carry credentials are printed as "***" (Authorization, Cookie …)
    size_t is_set_offset;                // OBJECT: a bool that says whether it was given (0: none)
    uint64_t null_value;                 // INT, DURATION, SIZE and nullable: what null is stored as
    double min, max;                     // INT, NUMBER, DURATION (µs), SIZE: bounds; both 0: unchecked
    unsigned min_count;                  // lists and maps: how many at least
    const struct config_option *options; // ENUM, FLAGS; ended by name NULL
    const struct config_object *object;  // OBJECT…
    const char *pattern;   // STRING, STRINGS: what accept accepts, as a regular expression, for the schema
    const char *type_name; // for messages and the reference; NULL: by the type
    // STRING, STRINGS, STRING_MAP: a further check of each value (of a map: node->key as well). May replace
    // *value by its normal form. Reports what is wrong by config_fail and returns false.
    bool (*accept)(struct config_decoder *decoder, const struct config_node *node, struct str *value);
    // CUSTOM: node is neither NULL nor null. target is the place at offset, with the default in it.
    void (*decode)(struct config_decoder *decoder, const struct config_node *node, void *target);
    // CUSTOM: target as a tree; NULL: leave the key out.
    struct config_node *(*encode)(struct arena *arena, const void *target);
    // CUSTOM: the value's JSON Schema, as a map in YAML.
    const char *schema;
};

struct config_object {
    const char *name; // "listener_limits", for $defs and headings
    const char *doc;
    const char *example; // YAML, decodable by this table
    size_t size;
    const struct config_field *fields; // ended by name NULL; at most 64
    bool has_position;                 // the struct begins with CONFIG_POSITION_FIELDS
    bool is_hidden;                    // what stands in its place by mistake may be a secret: not shown
    size_t name_offset;                // OBJECT_MAP: a struct str for the key
    const char *const *one_of;         // keys of which exactly one must be there, ended by NULL; may be NULL
    // Cross-field rules, after all fields; may report. Fields with mistakes hold their defaults. May be NULL.
    void (*check_rules)(struct config_decoder *decoder, const struct config_node *node, void *target);
};

#define CONFIG_POSITION_FIELDS \
    unsigned line, column /* where this object stands in the file, for later errors */

// Fills target (object->size bytes) from node; NULL node: all defaults. Everything it points to is in arena,
// nothing points into the tree.
void config_decode(const struct config_object *object, const struct config_node *node, void *target,
                   struct str file, struct arena *arena, struct config_report *report);

// For accept, decode and check hooks.
struct arena *config_arena(struct config_decoder *decoder);
// One step of the path further down, and back.
void config_enter(struct config_decoder *decoder, struct str key);
void config_enter_index(struct config_decoder *decoder, uint32_t index);
void config_leave(struct config_decoder *decoder);
// Reports at the node's value, with the path as entered. hint may be "" or NULL.
void config_fail(struct config_decoder *decoder, const struct config_node *node, const char *hint,
                 const char *format, ...) __attribute__((format(printf, 4, 5)));
// The same at the key of this node.
void config_fail_key(struct config_decoder *decoder, const struct config_node *node, const char *hint,
                     const char *format, ...) __attribute__((format(printf, 4, 5)));
// Reports at the value of key in map when it is there, else at map, with key as a further step of the path.
void config_fail_at(struct config_decoder *decoder, const struct config_node *map, struct str key,
                    const char *hint, const char *format, ...) __attribute__((format(printf, 5, 6)));
// "expected X, got Y", for a node that is not what type_name says.
void config_fail_type(struct config_decoder *decoder, const struct config_node *node, const char *hint,
                      const char *expected);
// Decodes node (a map, else reported) into target by a table; the path is as entered.
void config_decode_child(struct config_decoder *decoder, const struct config_object *object,
                         const struct config_node *node, void *target);
// A string from node, copied into the arena. False and reported when node is no string (a plain number, true,
// a list).
bool config_decode_string(struct config_decoder *decoder, const struct config_node *node, struct str *value);
// A whole number from node, as config_decode_string.
bool config_decode_int(struct config_decoder *decoder, const struct config_node *node, int64_t *value);
// `did you mean "x"?` for the nearest of names, or "" when none is near (or too many were asked for).
const char *config_suggest(struct config_decoder *decoder, struct str word, const struct str *names,
                           size_t count);
// The same among the keys of a map.
const char *config_suggest_key(struct config_decoder *decoder, struct str word,
                               const struct config_node *map);
// A sentence for a hint, in the arena.
const char *config_hint(struct config_decoder *decoder, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

// ---- scalars by themselves ----

// What a plain scalar is in YAML 1.2 (core schema, true and false in lower case only).
enum config_plain {
    CONFIG_PLAIN_STRING,
    CONFIG_PLAIN_NULL,
    CONFIG_PLAIN_BOOL,
    CONFIG_PLAIN_INT,
    CONFIG_PLAIN_FLOAT
};
enum config_plain config_plain_of(struct str text);
// False: malformed, or more than ten years.
bool config_duration(struct str text, uint64_t *us);
bool config_size(struct str text, uint64_t *bytes);
// No control characters, line and paragraph separators or byte order marks.
bool config_is_printable(struct str text);
// Expands ${VAR}, ${VAR:-default}, ${VAR:?message} and $$. False, *why and *hint when it cannot be; *changed
// tells whether a variable was expanded. *out is in the arena, with a NUL behind it.
bool config_expand(struct str text, struct arena *arena, struct str *out, bool *changed, struct str *why,
                   const char **hint);

// ---- trees made by programs ----

struct config_node *config_new_string(struct arena *arena, struct str text);
// Not quoted: numbers, true, null, durations and the words of an enum.
struct config_node *config_new_plain(struct arena *arena, struct str text);
struct config_node *config_new_duration(struct arena *arena, uint64_t us);
struct config_node *config_new_size(struct arena *arena, uint64_t bytes);
struct config_node *config_new_list(struct arena *arena);
struct config_node *config_new_map(struct arena *arena);
// Appends; *last is the list's or map's last child, NULL at first. key is ignored by a list.
void config_append(struct config_node *parent, struct config_node **last, struct str key,
                   struct config_node *child);
// The effective settings, defaults filled in, secrets as "***".
struct config_node *config_encode(const struct config_object *object, const void *target,
                                  struct arena *arena);
// Block style; config_parse reads it again, to the same tree.
void config_print_yaml(const struct config_node *node, struct buf *out);
void config_print_json(const struct config_node *node, struct json *out);

// ---- the other uses of the tables ----

// config_encode, printed as YAML or as pretty JSON.
void config_dump(const struct config_object *object, const void *target, bool as_json, struct buf *out);
// JSON Schema 2020-12 of the object.
void config_schema(const struct config_object *object, const char *title, struct buf *out);
// The reference page: an introduction to the syntax, then each object.
void config_reference(const struct config_object *object, const char *title, struct buf *out);
