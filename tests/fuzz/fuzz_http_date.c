// HTTP-dates: whatever is read is within the years of four digits, and reads the same when it is written
// again.
#include "exact_copy.h"

#include "base/check.h"
#include "http/date.h"

enum { NOW_S = 1795910400 }; // 2026-11-29

static const int64_t year_0 = -62167219200, year_1000 = -30610224000, year_10000 = 253402300800;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char *text = exact_copy((const char *)data, n), printed[HTTP_DATE_BYTES];
    int64_t read_s, again_s;
    if (http_date_read((struct str){text, n}, NOW_S, &read_s)) {
        check(read_s >= year_0 && read_s <= year_10000);
        if (read_s >= year_1000 && read_s < year_10000) {
            check(http_date_read(http_date_print(read_s, printed), NOW_S, &again_s));
            check(again_s == read_s);
        }
    }
    free(text);
    return 0;
}
