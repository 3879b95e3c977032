/* SHA-1 of a byte string: the checksum ONNX puts on external data. Not for security. */
#ifndef LINNET_SHA1_H
#define LINNET_SHA1_H

#include <stddef.h>

/* hex receives 40 lower-case digits and a zero. */
void sha1_hex(const void *p, size_t n, char hex[41]);

#endif
