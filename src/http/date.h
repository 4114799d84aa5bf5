// HTTP-date (RFC 9110 5.6.7).
#pragma once

#include "base/check.h"
#include "base/str.h"

enum { HTTP_DATE_BYTES = sizeof "Sun, 06 Nov 1994 08:49:37 GMT" }; // with the terminator

// The form that is sent. Returns text, without the terminator.
struct str http_date_print(int64_t unix_s, char text[static HTTP_DATE_BYTES]);

// All three forms, in any case (RFC 9111 4.2), in GMT only. now_s: what years of two digits are near to. The
// name of the day counts for nothing. False: it is none.
must_check bool http_date_read(struct str text, int64_t now_s, int64_t *unix_s);
