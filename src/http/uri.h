// One canonical form of a path, used to match, to authorise and to forward (RFC 3986 6.2).
//
//   percent-encoded unreserved characters are decoded; other escapes are kept, their digits in upper case
//   dot segments are removed (5.2.4), after decoding %2e; a path may not climb above the root: URI_BAD
//   empty segments ("//") are kept: they are different resources to RFC 3986 (option merge_slashes merges
//   them) refused, URI_BAD: %00 and other encoded controls (00-1F, 7F), %2F and %5C (encoded slash and
//   backslash), a raw
//     backslash, %25 followed by two hex digits (double encoding), a bad escape, bytes outside pchar / "/"
//   ";" parameters are ordinary characters, but a segment that is "." or ".." followed by ";" is refused
//   ("..;/")
#pragma once

#include "base/str.h"

struct arena;

enum uri_result { URI_OK, URI_BAD };

// Normalises an absolute path (starting with "/"). Most paths are canonical already: then *out is path
// itself, no copy.
enum uri_result uri_normalise_path(struct str path, bool merge_slashes, struct arena *arena, struct str *out,
                                   const char **why);
// RFC 3986 3.4: pchar / "/" / "?" and valid escapes, and the []{}|^` that browsers do not escape; no
// controls, no space, no "#", no quotes, angle brackets or backslash.
// The parser looks at queries by blocks; this is the plain form that tests and fuzzers hold it against.
bool uri_query_valid(struct str query);
// A name or value of application/x-www-form-urlencoded, as queries have them: percent-decoded, + is a space.
// False: a bad escape, or NUL. *out has a NUL behind it.
bool uri_form_decode(struct str text, struct arena *arena, struct str *out);
// host[:port] of RFC 3986 3.2.2 and 3.2.3: reg-name without percent escapes, IPv4 or [IPv6]; no userinfo.
// Splits it.
bool uri_authority_split(struct str authority, struct str *host, struct str *port);
