/* Images in files' formats to pixels. */
#ifndef LINNET_IMAGE_H
#define LINNET_IMAGE_H

#include "ops/base/err.h"

#include <stdint.h>
#include <stddef.h>

enum { MAX_IMAGE_SIDE = 1 << 17, MAX_IMAGE_PIXELS = 1 << 28 };

struct image {
	int64_t height, width;
	uint8_t *rgb; /* [height, width, 3], or NULL */
};

/*
 * Reads an image of one format from n bytes. Without m->rgb, height and width are found in its head, and checked by image_size();
 * with it they are what was found so, and the pixels are read. Corrupt images are LINNET_EVALUE with the library's words.
 */
typedef enum linnet_code image_fn(const uint8_t *p, size_t n, struct image *m, struct linnet_error *e);

image_fn image_bmp, image_pnm;                                       /* image_plain.c */
image_fn image_jpeg, image_png, image_tiff, image_webp, image_jp2;   /* where the build has the library */

/* Sets height and width; LINNET_ELIMIT when they are beyond what is admitted. When the pixels are read, they must be those of before. */
enum linnet_code image_size(struct image *m, int64_t height, int64_t width, struct linnet_error *e);

/* The pixel at row y, column x. */
static inline uint8_t *image_at(const struct image *m, int64_t y, int64_t x) { return m->rgb + 3 * (y * m->width + x); }

#endif
