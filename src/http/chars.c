#include "http/chars.h"

#define CLASSES(c)                                                                 \
    ((IS_TOKEN(c) ? CHAR_TOKEN : 0) | (IS_UNRESERVED(c) ? CHAR_UNRESERVED : 0) |   \
     (IS_REG_NAME(c) ? CHAR_REG_NAME : 0) | (IS_PATH(c) ? CHAR_PATH : 0) |         \
     (IS_PLAIN_PATH(c) ? CHAR_PLAIN_PATH : 0) | (IS_QUERY(c) ? CHAR_QUERY : 0) |   \
     (IS_VALUE(c) ? CHAR_VALUE : 0) | (IS_QUOTED_TEXT(c) ? CHAR_QUOTED_TEXT : 0) | \
     (IS_HEX(c) ? CHAR_HEX : 0) | (((c) >= 'A' && (c) <= 'Z') ? CHAR_UPPER : 0))
#define FOUR(c)       CLASSES(c), CLASSES((c) + 1), CLASSES((c) + 2), CLASSES((c) + 3)
#define SIXTEEN(c)    FOUR(c), FOUR((c) + 4), FOUR((c) + 8), FOUR((c) + 12)
#define SIXTY_FOUR(c) SIXTEEN(c), SIXTEEN((c) + 16), SIXTEEN((c) + 32), SIXTEEN((c) + 48)

const uint16_t char_classes[256] = {SIXTY_FOUR(0), SIXTY_FOUR(64), SIXTY_FOUR(128), SIXTY_FOUR(192)};
