// libyaml's events → node tree.
//
//   level[0]  the root          a stack, no recursion: what is open, its last child, the key that waits for a
//   value level[1]  upstreams level[2]  upstreams.orders  ← events arrive here
//
// An anchored node is kept by name when it is complete; an alias hangs a copy of its top into the tree and
// shares the children, which nobody changes. Every alias counts for all the nodes below it, so a file cannot
// unfold into more than CONFIG_ALIAS_NODES.
#include "config/decoder.h"

#include "base/map.h"

#include <yaml.h>

struct level {
    struct config_node *node, *last;
    bool has_key;
    struct str key;
    unsigned key_line, key_column;
    struct str anchor;
    struct map seen; // keys, once there are more than a few
};

struct parse {
    yaml_parser_t yaml;
    struct str file, text;
    struct arena *arena;
    struct config_report *report;
    struct level level[CONFIG_DEPTH];
    unsigned depth; // open levels
    struct config_node *root;
    struct map anchors;
    unsigned nodes, alias_nodes;
    bool failed; // no tree
};

// A key is a name, at most a header's; YAML itself stops at 1024 characters.
enum { LINEAR_KEYS = 16, KEY_BYTES = 256 };

// ---- reporting ----

static void append_path(struct buf *path, const struct level *level, bool is_last)
{
    if (level->node->kind == CONFIG_LIST)
        buf_printf(path, "[%u]", level->node->count);
    else if (level->has_key || !is_last)
        buf_printf(path, "%s%.*s", buf_len(path) ? "." : "", STR_ARG(level->key));
}

static void fail_at(struct parse *parse, unsigned line, unsigned column, struct str what, const char *hint)
{
    struct buf path = {0};
    for (unsigned i = 0; i < parse->depth; i++)
        append_path(&path, &parse->level[i], i + 1 == parse->depth);
    config_report_add(parse->report, &(struct config_error){.file = parse->file,
                                                            .line = line,
                                                            .column = column,
                                                            .path = config_text_of(&path),
                                                            .what = what,
                                                            .hint = str_of(hint)});
    buf_free(&path);
}

static void fail(struct parse *parse, const yaml_mark_t *mark, struct str what, const char *hint)
{
    fail_at(parse, (unsigned)mark->line + 1, (unsigned)mark->column + 1, what, hint);
}

static bool fail_for_good(struct parse *parse, const yaml_mark_t *mark, struct str what, const char *hint)
{
    fail(parse, mark, what, hint);
    parse->failed = true;
    return false;
}

// The reader reports a byte offset instead of a mark.
static yaml_mark_t mark_of_offset(struct str text, size_t offset)
{
    yaml_mark_t mark = {0};
    for (size_t i = 0; i < offset && i < text.n; i++) {
        mark.column++;
        if (text.p[i] == '\n') {
            mark.line++;
            mark.column = 0;
        }
    }
    return mark;
}

static bool has_tab_at(struct str text, size_t index)
{
    for (size_t i = index; i < text.n && (text.p[i] == ' ' || text.p[i] == '\t'); i++)
        if (text.p[i] == '\t')
            return true;
    return false;
}

static void fail_syntax(struct parse *parse)
{
    const yaml_parser_t *yaml = &parse->yaml;
    const char *problem = yaml->problem ? yaml->problem : "malformed";
    if (yaml->error == YAML_READER_ERROR) {
        yaml_mark_t mark = mark_of_offset(parse->text, yaml->problem_offset);
        fail_for_good(parse, &mark, arena_printf(parse->arena, "not YAML: %s", problem),
                      "the file must be UTF-8 text without control characters");
        return;
    }
    struct str what = yaml->context ? arena_printf(parse->arena, "not YAML: %s %s", problem, yaml->context)
                                    : arena_printf(parse->arena, "not YAML: %s", problem);
    const char *hint = has_tab_at(parse->text, yaml->problem_mark.index) ? "indent with spaces, not tabs"
                       : yaml->context && strstr(yaml->context, "flow")
                           ? "in { } and [ ], write ${VAR}, and text with , : { } [ ], in quotes"
                           : "look at the indentation and the quotes here and on the line before";
    fail_for_good(parse, &yaml->problem_mark, what, hint);
}

// ---- building ----

static struct config_node *new_node(struct parse *parse, enum config_kind kind, const yaml_mark_t *mark)
{
    if (++parse->nodes > CONFIG_NODES) {
        fail_for_good(parse, mark, STR("too many values"), "a file holds at most 4,000,000");
        return NULL;
    }
    struct config_node *node = arena_new(parse->arena, struct config_node);
    node->kind = kind;
    node->line = (unsigned)mark->line + 1;
    node->column = (unsigned)mark->column + 1;
    node->nodes = 1;
    return node;
}

static void remember_anchor(struct parse *parse, struct str anchor, struct config_node *node)
{
    if (anchor.n)
        map_put(&parse->anchors, anchor, node);
}

// Hangs a complete node into the open level (or makes it the root).
static void attach(struct parse *parse, struct config_node *node)
{
    if (parse->depth == 0) {
        parse->root = node;
        return;
    }
    struct level *level = &parse->level[parse->depth - 1];
    struct config_node *parent = level->node;
    if (parent->kind == CONFIG_MAP) {
        node->key = level->key;
        node->key_line = level->key_line;
        node->key_column = level->key_column;
        level->has_key = false;
        if (!node->key.p) // refused: the value goes nowhere
            return;
    }
    config_append(parent, &level->last, node->key, node);
}

static struct str anchor_of(struct parse *parse, const yaml_char_t *anchor)
{
    return anchor ? arena_copy(parse->arena, str_of((const char *)anchor)) : STR_NULL;
}

static bool open_level(struct parse *parse, enum config_kind kind, const yaml_event_t *event,
                       const yaml_char_t *anchor)
{
    struct config_node *node = new_node(parse, kind, &event->start_mark);
    if (!node)
        return false;
    if (parse->depth == CONFIG_DEPTH)
        return fail_for_good(parse, &event->start_mark, STR("nested too deeply"), "at most 32 levels");
    parse->level[parse->depth++] = (struct level){.node = node, .anchor = anchor_of(parse, anchor)};
    return true;
}

static bool close_level(struct parse *parse)
{
    struct level *level = &parse->level[--parse->depth];
    map_fini(&level->seen);
    remember_anchor(parse, level->anchor, level->node);
    attach(parse, level->node);
    return true;
}

// ---- keys ----

static const struct config_node *seen_before(struct level *level, struct str key)
{
    struct config_node *map = level->node;
    if (map->count < LINEAR_KEYS)
        return config_get(map, key);
    if (!level->seen.count)
        for (struct config_node *child = map->first; child; child = child->next)
            map_put(&level->seen, child->key, child);
    return map_get(&level->seen, key);
}

static bool take_key(struct parse *parse, struct level *level, const yaml_event_t *event)
{
    struct str key = {(const char *)event->data.scalar.value, event->data.scalar.length};
    const yaml_mark_t *mark = &event->start_mark;
    level->key = arena_copy(parse->arena, key);
    level->key_line = (unsigned)mark->line + 1;
    level->key_column = (unsigned)mark->column + 1;
    level->has_key = true;
    const struct config_node *before = seen_before(level, key);
    if (memchr(key.p, 0, key.n)) {
        fail(parse, mark, STR("a key with a NUL character"), "remove \\0");
        level->key = STR_NULL;
    } else if (key.n > KEY_BYTES) {
        level->key.n = KEY_BYTES; // as much of it as a message bears
        fail(parse, mark, STR("the key is too long"), "at most 256 bytes");
        level->key = STR_NULL;
    } else if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && str_eq(key, STR("<<"))) {
        fail(parse, mark, STR("merge keys (<<) are not supported"),
             "repeat the keys, or let an alias stand for the whole value");
        level->key = STR_NULL;
    } else if (before) {
        fail(parse, mark, arena_printf(parse->arena, "duplicate key, first on line %u", before->key_line),
             "remove one of the two");
        level->key = STR_NULL;
    }
    return true;
}

// True when the next event is a key of the open level.
static bool wants_key(const struct parse *parse)
{
    const struct level *level = parse->depth ? &parse->level[parse->depth - 1] : NULL;
    return level && level->node->kind == CONFIG_MAP && !level->has_key;
}

// A key's node is registered in seen when its value is attached; keys past the linear ones as they come.
static void note_key(struct parse *parse, struct config_node *node)
{
    struct level *level = parse->depth ? &parse->level[parse->depth - 1] : NULL;
    if (level && level->seen.count && node->key.p)
        map_put(&level->seen, node->key, node);
}

// ---- values ----

static bool tag_refused(struct parse *parse, const yaml_event_t *event, const yaml_char_t *tag)
{
    if (!tag)
        return false;
    fail(parse, &event->start_mark,
         arena_printf(parse->arena, "tags (%s) are not supported", (const char *)tag),
         "remove it; a value in quotes is a string");
    return true;
}

static void expand(struct parse *parse, const yaml_event_t *event, struct config_node *node)
{
    struct str text = {(const char *)event->data.scalar.value, event->data.scalar.length}, why = STR_NULL;
    const char *hint = "";
    if (memchr(text.p, 0, text.n)) {
        node->bad = true;
        fail(parse, &event->start_mark, STR("a NUL character"), "remove \\0");
    } else if (!config_expand(text, parse->arena, &node->text, &node->expanded, &why, &hint)) {
        node->bad = true;
        fail(parse, &event->start_mark, why, hint);
    }
}

static bool take_scalar(struct parse *parse, const yaml_event_t *event)
{
    if (wants_key(parse))
        return take_key(parse, &parse->level[parse->depth - 1], event);
    struct config_node *node = new_node(parse, CONFIG_SCALAR, &event->start_mark);
    if (!node)
        return false;
    node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    node->bad = tag_refused(parse, event, event->data.scalar.tag);
    if (!node->bad)
        expand(parse, event, node);
    if (!node->quoted && !node->expanded && !node->bad && config_plain_of(node->text) == CONFIG_PLAIN_NULL)
        node->kind = CONFIG_NULL;
    remember_anchor(parse, anchor_of(parse, event->data.scalar.anchor), node);
    attach(parse, node);
    note_key(parse, node);
    return true;
}

static bool take_collection(struct parse *parse, const yaml_event_t *event, enum config_kind kind,
                            const yaml_char_t *tag, const yaml_char_t *anchor)
{
    if (wants_key(parse))
        return fail_for_good(parse, &event->start_mark, STR("a key must be a single word"),
                             "lists and maps cannot be keys; put a key that begins with { or [ in quotes");
    if (!open_level(parse, kind, event, anchor))
        return false;
    parse->level[parse->depth - 1].node->bad = tag_refused(parse, event, tag);
    return true;
}

static bool take_alias(struct parse *parse, const yaml_event_t *event)
{
    struct str name = str_of((const char *)event->data.alias.anchor);
    if (wants_key(parse))
        return fail_for_good(parse, &event->start_mark, STR("an alias cannot be a key"), "write the key out");
    struct config_node *node = new_node(parse, CONFIG_NULL, &event->start_mark);
    if (!node)
        return false;
    const struct config_node *anchored = map_get(&parse->anchors, name);
    if (!anchored) {
        fail(parse, &event->start_mark,
             arena_printf(parse->arena, "no anchor &%.*s before this alias", STR_ARG(name)),
             "an alias names a complete value further up; text that begins with * goes in quotes");
        node->bad = true;
    } else {
        parse->alias_nodes += anchored->nodes;
        if (parse->alias_nodes > CONFIG_ALIAS_NODES)
            return fail_for_good(parse, &event->start_mark, STR("aliases unfold into too many values"),
                                 "at most 100,000; write some of them out");
        if (parse->depth + anchored->height > CONFIG_DEPTH)
            return fail_for_good(parse, &event->start_mark, STR("nested too deeply"), "at most 32 levels");
        struct config_node mark = *node;
        *node = *anchored;
        node->line = mark.line;
        node->column = mark.column;
        node->next = NULL;
    }
    attach(parse, node);
    note_key(parse, node);
    return true;
}

static bool take_event(struct parse *parse, const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_SCALAR_EVENT: return take_scalar(parse, event);
    case YAML_ALIAS_EVENT: return take_alias(parse, event);
    case YAML_SEQUENCE_START_EVENT:
        return take_collection(parse, event, CONFIG_LIST, event->data.sequence_start.tag,
                               event->data.sequence_start.anchor);
    case YAML_MAPPING_START_EVENT:
        return take_collection(parse, event, CONFIG_MAP, event->data.mapping_start.tag,
                               event->data.mapping_start.anchor);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT: {
        struct config_node *node = parse->level[parse->depth - 1].node;
        close_level(parse);
        note_key(parse, node);
        return true;
    }
    case YAML_DOCUMENT_START_EVENT:
        if (parse->root)
            return fail_for_good(parse, &event->start_mark, STR("a second document"),
                                 "a file holds one: remove the line ---");
        return true;
    default: return true;
    }
}

static void run(struct parse *parse)
{
    for (bool more = true; more;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parse->yaml, &event)) {
            fail_syntax(parse);
            return;
        }
        more = event.type != YAML_STREAM_END_EVENT && take_event(parse, &event);
        yaml_event_delete(&event);
    }
    if (!parse->failed && !parse->root)
        fail_at(parse, 1, 1, STR("the file is empty"), "at least version and listeners are needed");
}

struct config_node *config_parse(struct str file, struct str text, struct arena *arena,
                                 struct config_report *report)
{
    struct parse parse = {.file = file, .text = text, .arena = arena, .report = report};
    if (text.n > CONFIG_BYTES) {
        fail_at(&parse, 0, 0, STR("the file is too large"), "at most 256 MiB");
        return NULL;
    }
    check(yaml_parser_initialize(&parse.yaml));
    yaml_parser_set_input_string(&parse.yaml, (const unsigned char *)(text.p ? text.p : ""), text.n);
    yaml_parser_set_encoding(&parse.yaml, YAML_UTF8_ENCODING);
    run(&parse);
    yaml_parser_delete(&parse.yaml);
    while (parse.depth)
        map_fini(&parse.level[--parse.depth].seen);
    map_fini(&parse.anchors);
    return parse.failed ? NULL : parse.root;
}
