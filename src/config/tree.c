// The node tree: looking into it, making one, printing one.
#include "config/config.h"

const struct config_node *config_get(const struct config_node *map, struct str key)
{
    if (!map || map->kind != CONFIG_MAP)
        return NULL;
    for (const struct config_node *child = map->first; child; child = child->next)
        if (str_eq(child->key, key))
            return child;
    return NULL;
}

static struct config_node *new_node(struct arena *arena, enum config_kind kind)
{
    struct config_node *node = arena_new(arena, struct config_node);
    node->kind = kind;
    node->nodes = 1;
    node->height = kind == CONFIG_LIST || kind == CONFIG_MAP;
    return node;
}

struct config_node *config_new_string(struct arena *arena, struct str text)
{
    struct config_node *node = new_node(arena, CONFIG_SCALAR);
    node->text = arena_copy(arena, text);
    node->quoted = true;
    return node;
}

struct config_node *config_new_plain(struct arena *arena, struct str text)
{
    struct config_node *node = new_node(arena, str_eq(text, STR("null")) ? CONFIG_NULL : CONFIG_SCALAR);
    node->text = arena_copy(arena, text);
    return node;
}

struct config_node *config_new_list(struct arena *arena)
{
    return new_node(arena, CONFIG_LIST);
}

struct config_node *config_new_map(struct arena *arena)
{
    return new_node(arena, CONFIG_MAP);
}

void config_append(struct config_node *parent, struct config_node **last, struct str key,
                   struct config_node *child)
{
    if (parent->kind == CONFIG_MAP)
        child->key = key;
    if (*last)
        (*last)->next = child;
    else
        parent->first = child;
    *last = child;
    parent->count++;
    parent->nodes += child->nodes;
    if (parent->height < child->height + 1)
        parent->height = child->height + 1;
}

// ---- printing ----

// A string that means itself without quotes, to YAML 1.1 readers as well: a letter or / first, then a few
// harmless characters, and no word that some reader takes for something else.
static bool is_plain_safe(struct str s)
{
    static const char *const words[] = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"};
    for (size_t i = 0; i < s.n; i++) {
        char c = ascii_lower(s.p[i]);
        bool is_letter = (c >= 'a' && c <= 'z') || c == '/' || c == '_';
        bool is_inner = (c >= '0' && c <= '9') || c == '.' || c == '-';
        if (!is_letter && (!is_inner || i == 0))
            return false;
    }
    for (size_t i = 0; i < countof(words); i++)
        if (str_eq_fold(s, str_of(words[i])))
            return false;
    return s.n > 0;
}

// The length of a character that JSON takes raw in a string and YAML does not, or folds: U+0080-009F, U+2028,
// U+2029, U+FEFF, U+FFFE and U+FFFF, in UTF-8. 0: another one.
static size_t odd_character(struct str s, unsigned *code)
{
    const unsigned char *u = (const unsigned char *)s.p;
    if (s.n >= 2 && u[0] == 0xc2 && u[1] >= 0x80 && u[1] < 0xa0) {
        *code = u[1];
        return 2;
    }
    if (s.n < 3)
        return 0;
    *code = (u[0] & 15u) << 12 | (u[1] & 63u) << 6 | (u[2] & 63u);
    bool is_break = u[0] == 0xe2 && u[1] == 0x80 && (u[2] == 0xa8 || u[2] == 0xa9);
    bool is_mark = u[0] == 0xef && ((u[1] == 0xbb && u[2] == 0xbf) || (u[1] == 0xbf && (u[2] | 1) == 0xbf));
    return is_break || is_mark ? 3 : 0;
}

bool config_is_printable(struct str text)
{
    unsigned code;
    for (; text.n; text = str_skip(text, 1)) {
        unsigned char c = (unsigned char)text.p[0];
        if (c < 0x20 || c == 0x7f || odd_character(text, &code))
            return false;
    }
    return true;
}

static bool is_ordinary(struct str s)
{
    unsigned code;
    return s.p[0] != '$' && !odd_character(s, &code);
}

// In double quotes, which JSON and YAML share with their escapes; $ so that config_expand turns it back.
static void print_quoted(struct buf *out, struct str s)
{
    char piece[JSON_ESCAPE_MAX * 64];
    buf_append(out, STR("\""));
    while (s.n) {
        size_t n = 0;
        unsigned code;
        while (n < s.n && n < 60 && is_ordinary(str_skip(s, n)))
            n++;
        while (n < s.n && ((unsigned char)s.p[n] & 0xc0) == 0x80 && n < 64)
            n++; // to the end of the character
        buf_append(out, (struct str){piece, json_escape((struct str){s.p, n}, piece)});
        s = str_skip(s, n);
        if (s.n && s.p[0] == '$') {
            bool is_doubled = s.n > 1 && (s.p[1] == '$' || s.p[1] == '{');
            buf_append(out, is_doubled ? STR("$$") : STR("$"));
            s = str_skip(s, 1);
        } else if (s.n && (n = odd_character(s, &code))) {
            buf_printf(out, "\\u%04x", code);
            s = str_skip(s, n);
        }
    }
    buf_append(out, STR("\""));
}

static void json_quoted(struct json *out, struct str s)
{
    struct buf text = {0};
    print_quoted(&text, s);
    json_raw(out, buf_str(&text));
    buf_free(&text);
}

static void print_scalar(const struct config_node *node, struct buf *out)
{
    if (node->kind == CONFIG_NULL)
        buf_append(out, STR("null"));
    else if (is_plain_safe(node->text) || (!node->quoted && !node->expanded))
        buf_append(out, node->text);
    else
        print_quoted(out, node->text);
}

static bool is_empty(const struct config_node *node)
{
    return node->kind <= CONFIG_SCALAR || !node->first;
}

static void print_inline(const struct config_node *node, struct buf *out)
{
    if (node->kind <= CONFIG_SCALAR)
        print_scalar(node, out);
    else
        buf_append(out, node->kind == CONFIG_LIST ? STR("[]") : STR("{}"));
}

static void print_key(struct str key, struct buf *out)
{
    if (is_plain_safe(key))
        buf_append(out, key);
    else { // keys are not expanded
        struct json json;
        json_init(&json, out, false);
        json_string(&json, key);
    }
    buf_append(out, STR(":"));
}

// The cursor stands where the first child goes; the others start lines of their own at this indent.
static void print_block(const struct config_node *node, unsigned indent, struct buf *out)
{
    for (const struct config_node *child = node->first; child; child = child->next) {
        if (child != node->first)
            buf_printf(out, "%*s", (int)indent, "");
        if (node->kind == CONFIG_MAP)
            print_key(child->key, out);
        else
            buf_append(out, STR("-"));
        if (is_empty(child)) {
            buf_append(out, STR(" "));
            print_inline(child, out);
            buf_append(out, STR("\n"));
            continue;
        }
        if (node->kind == CONFIG_MAP)
            buf_printf(out, "\n%*s", (int)indent + 2, "");
        else
            buf_append(out, STR(" "));
        print_block(child, indent + 2, out);
    }
}

void config_print_yaml(const struct config_node *node, struct buf *out)
{
    if (!is_empty(node)) {
        print_block(node, 0, out);
        return;
    }
    print_inline(node, out);
    buf_append(out, STR("\n"));
}

static void print_json_scalar(const struct config_node *node, struct json *out)
{
    enum config_plain plain =
        node->quoted || node->expanded ? CONFIG_PLAIN_STRING : config_plain_of(node->text);
    bool is_json = plain == CONFIG_PLAIN_BOOL || plain == CONFIG_PLAIN_INT || plain == CONFIG_PLAIN_FLOAT;
    if (node->kind == CONFIG_NULL)
        json_null(out);
    else if (is_json)
        json_raw(out, node->text);
    else
        json_quoted(out, node->text);
}

void config_print_json(const struct config_node *node, struct json *out)
{
    if (node->kind <= CONFIG_SCALAR) {
        print_json_scalar(node, out);
        return;
    }
    if (node->kind == CONFIG_LIST)
        json_array(out);
    else
        json_object(out);
    for (const struct config_node *child = node->first; child; child = child->next) {
        if (node->kind == CONFIG_MAP)
            json_key(out, child->key);
        config_print_json(child, out);
    }
    if (node->kind == CONFIG_LIST)
        json_array_end(out);
    else
        json_object_end(out);
}
