#include "base/base64.h"
#include "token/token.h"

// ---- splitting and decoding ----

static bool decode_part(struct str part, struct arena *arena, struct str *bytes)
{
    uint8_t *out = arena_alloc(arena, base64url_decoded_max(part.n));
    bytes->p = (const char *)out;
    return base64url_decode(part, out, &bytes->n);
}

// Exactly three parts (RFC 7515 7.1): a fourth would leave a dot in the signature, which no decoder takes.
static bool split(struct str text, struct str *header, struct str *payload, struct str *signature)
{
    size_t first = str_find(text, '.');
    if (first == text.n)
        return false;
    struct str rest = str_skip(text, first + 1);
    size_t second = str_find(rest, '.');
    if (second == rest.n)
        return false;
    *header = (struct str){text.p, first};
    *payload = (struct str){rest.p, second};
    *signature = str_skip(rest, second + 1);
    return true;
}

// Exactly as RFC 7518 3.1 spells it.
static bool find_algorithm(const struct json_value *name, enum token_algorithm *algorithm)
{
    for (unsigned i = 0; json_is_string(name) && i < ALGORITHM_COUNT; i++)
        if (str_eq(name->text, token_algorithm_name(i))) {
            *algorithm = i;
            return true;
        }
    return false;
}

// crit and b64 ask for what is not done here (RFC 7515 4.1.11, RFC 7797). jwk, jku, x5c and x5u say which key
// to believe: whoever wrote the token cannot be asked that (RFC 8725 3.10), so no honest use is lost.
static bool asks_too_much(const struct json_value *header)
{
    static const struct str refused[] = {{"crit", 4}, {"b64", 3}, {"jwk", 3},
                                         {"jku", 3},  {"x5c", 3}, {"x5u", 3}};
    for (const struct json_value *member = header->first; member; member = member->next)
        for (size_t i = 0; i < countof(refused); i++)
            if (str_eq(member->key, refused[i]))
                return true;
    return false;
}

static enum token_fault read_header(struct str text, struct arena *arena, struct token *token)
{
    const char *why;
    token->header = json_parse(text, arena, &why);
    if (!token->header || token->header->kind != JSON_OBJECT)
        return TOKEN_MALFORMED;
    if (!find_algorithm(json_get(token->header, STR("alg")), &token->algorithm))
        return TOKEN_BAD_ALGORITHM;
    if (asks_too_much(token->header))
        return TOKEN_BAD_HEADER;
    const struct json_value *kid = json_get(token->header, STR("kid"));
    if (!kid)
        return TOKEN_GOOD;
    if (!json_is_string(kid) || !kid->text.n || kid->text.n > TOKEN_KID_BYTES)
        return TOKEN_BAD_HEADER;
    token->kid = kid->text;
    return TOKEN_GOOD;
}

enum token_fault token_parse(struct str text, struct arena *arena, struct token *token)
{
    struct str header, payload, signature, decoded;
    const char *why;
    *token = (struct token){0};
    if (text.n > TOKEN_BYTES)
        return TOKEN_TOO_LONG;
    if (!split(text, &header, &payload, &signature) || !decode_part(header, arena, &decoded))
        return TOKEN_MALFORMED;
    enum token_fault fault = read_header(decoded, arena, token);
    if (fault != TOKEN_GOOD)
        return fault;
    if (!decode_part(payload, arena, &token->payload) || !decode_part(signature, arena, &token->signature))
        return TOKEN_MALFORMED;
    token->signing_input = str_range(text.p, payload.p + payload.n);
    token->claims = json_parse(token->payload, arena, &why);
    if (token->claims && token->claims->kind != JSON_OBJECT)
        token->claims = NULL;
    return TOKEN_GOOD;
}

// ---- claims ----

// Nothing said, or a JWT or an access token (RFC 7519 5.1, RFC 9068 2.1). Any other type is a token for
// another purpose, signed perhaps with the same key (RFC 8725 3.11).
static bool type_fits(const struct json_value *header)
{
    const struct json_value *type = json_get(header, STR("typ"));
    if (!type)
        return true;
    if (!json_is_string(type))
        return false;
    struct str name = type->text, prefix = STR("application/");
    if (name.n > prefix.n && str_eq_fold((struct str){name.p, prefix.n}, prefix))
        name = str_skip(name, prefix.n);
    return str_eq_fold(name, STR("JWT")) || str_eq_fold(name, STR("at+jwt"));
}

static bool get_string(const struct json_value *claims, struct str name, struct str *text)
{
    const struct json_value *value = json_get(claims, name);
    if (!value)
        return true;
    *text = value->text;
    return value->kind == JSON_STRING;
}

static bool get_date(const struct json_value *claims, struct str name, int64_t *date)
{
    const struct json_value *value = json_get(claims, name);
    return !value || json_integer(value, date);
}

static bool audience_typed(const struct json_value *audience)
{
    if (!audience || audience->kind == JSON_STRING)
        return true;
    for (const struct json_value *item = audience->first; item; item = item->next)
        if (item->kind != JSON_STRING)
            return false;
    return audience->kind == JSON_ARRAY;
}

static bool is_audience(const struct token_rules *rules, const struct json_value *name)
{
    for (uint32_t i = 0; i < rules->audience_count; i++)
        if (str_eq(rules->audiences[i], name->text))
            return true;
    return false;
}

static bool audience_fits(const struct token_rules *rules, const struct json_value *audience)
{
    if (audience->kind == JSON_STRING)
        return is_audience(rules, audience);
    for (const struct json_value *item = audience->first; item; item = item->next)
        if (is_audience(rules, item))
            return true;
    return false;
}

static enum token_fault judge_parties(const struct json_value *claims, const struct token_rules *rules,
                                      const struct token_facts *facts, struct str *missing)
{
    if (rules->issuer.n) {
        *missing = STR("iss");
        if (!json_get(claims, *missing))
            return TOKEN_MISSING_CLAIM;
        if (!str_eq(facts->issuer, rules->issuer))
            return TOKEN_BAD_ISSUER;
    }
    if (rules->audience_count) {
        *missing = STR("aud");
        const struct json_value *audience = json_get(claims, *missing);
        if (!audience)
            return TOKEN_MISSING_CLAIM;
        if (!audience_fits(rules, audience))
            return TOKEN_BAD_AUDIENCE;
    }
    for (uint32_t i = 0; i < rules->required_count; i++) {
        *missing = rules->required[i];
        const struct json_value *value = json_get_path(claims, *missing);
        if (!value || value->kind == JSON_NULL)
            return TOKEN_MISSING_CLAIM;
    }
    return TOKEN_GOOD;
}

enum token_fault token_judge(const struct token *token, const struct token_rules *rules, int64_t now_s,
                             struct token_facts *facts, struct str *missing)
{
    enum { LEEWAY_MAX_S = 1 << 30 }; // no sum below overflows
    const struct json_value *claims = token->claims;
    int64_t not_before = INT64_MIN;
    *facts = (struct token_facts){.expires = INT64_MAX, .issued_at = INT64_MIN};
    *missing = STR_NULL;
    if (!claims)
        return TOKEN_MALFORMED;
    if (!type_fits(token->header))
        return TOKEN_BAD_HEADER;
    if (!get_date(claims, STR("exp"), &facts->expires) || !get_date(claims, STR("nbf"), &not_before) ||
        !get_date(claims, STR("iat"), &facts->issued_at) || !get_string(claims, STR("iss"), &facts->issuer) ||
        !get_string(claims, STR("sub"), &facts->subject) || !get_string(claims, STR("jti"), &facts->jti) ||
        !audience_typed(json_get(claims, STR("aud"))))
        return TOKEN_BAD_CLAIM;
    enum token_fault fault = judge_parties(claims, rules, facts, missing);
    if (fault != TOKEN_GOOD)
        return fault;
    *missing = STR_NULL;
    int64_t leeway_s = rules->leeway_s < LEEWAY_MAX_S ? (int64_t)rules->leeway_s : LEEWAY_MAX_S;
    if (now_s - leeway_s >= facts->expires)
        return TOKEN_EXPIRED;
    return now_s + leeway_s < not_before ? TOKEN_NOT_YET : TOKEN_GOOD;
}
