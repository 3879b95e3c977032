/* UTF-8 and what is known of characters. */
#ifndef LINNET_UTF8_H
#define LINNET_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One code point as UTF-8; bytes written, at most 4, 0 when it is none. */
size_t utf8_put(uint32_t c, char *p);

/* The code point at p, where n > 0 bytes are; bytes it takes, 0 when the bytes are not UTF-8. */
size_t utf8_get(const char *p, size_t n, uint32_t *c);

/* Unicode's property White_Space. */
bool unicode_space(uint32_t c);

/* The one character that is c in lower or upper case, c itself when it has none. */
uint32_t unicode_lower(uint32_t c);
uint32_t unicode_upper(uint32_t c);

#endif
