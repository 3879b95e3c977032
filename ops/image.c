/* ImageDecoder: which format it is, and from RGB to what is asked for; then the row. */
#include <string.h>

#include "ops/image.h"
#include "ops/op.h"

enum linnet_code image_size(struct image *m, int64_t height, int64_t width, struct linnet_error *e)
{
	if (height < 1 || width < 1)
		return fail(e, LINNET_EVALUE, "image of %lld x %lld pixels has none", (long long)width, (long long)height);
	if (height > MAX_IMAGE_SIDE || width > MAX_IMAGE_SIDE || height * width > MAX_IMAGE_PIXELS)
		return fail(e, LINNET_ELIMIT, "image of %lld x %lld pixels; at most %d in all and %d a side are admitted", (long long)width,
		            (long long)height, MAX_IMAGE_PIXELS, MAX_IMAGE_SIDE);
	if (m->rgb && (m->height != height || m->width != width))
		return fail(e, LINNET_EINTERNAL, "image has another size when it is read again");
	m->height = height;
	m->width = width;
	return LINNET_OK;
}

/* ---- Formats ---- */

#ifdef LINNET_HAVE_JPEG
#define JPEG image_jpeg
#else
#define JPEG NULL
#endif
#ifdef LINNET_HAVE_PNG
#define PNG image_png
#else
#define PNG NULL
#endif
#ifdef LINNET_HAVE_TIFF
#define TIFF image_tiff
#else
#define TIFF NULL
#endif
#ifdef LINNET_HAVE_WEBP
#define WEBP image_webp
#else
#define WEBP NULL
#endif
#ifdef LINNET_HAVE_JP2
#define JP2 image_jp2
#else
#define JP2 NULL
#endif

static const struct format {
	const char *name;
	const char *magic; /* how it begins; '?' is any byte */
	size_t n;
	image_fn *read; /* NULL: this build has no library for it */
} formats[] = {
	{ "BMP", "BM", 2, image_bmp },
	{ "JPEG", "\xff\xd8\xff", 3, JPEG },
	{ "PNG", "\x89PNG\r\n\x1a\n", 8, PNG },
	{ "WebP", "RIFF????WEBP", 12, WEBP },
	{ "TIFF", "II*\0", 4, TIFF },
	{ "TIFF", "MM\0*", 4, TIFF },
	{ "TIFF", "II+\0", 4, TIFF },
	{ "TIFF", "MM\0+", 4, TIFF },
	{ "JPEG 2000", "\0\0\0\x0cjP  \r\n\x87\n", 12, JP2 },
	{ "JPEG 2000", "\xff\x4f\xff\x51", 4, JP2 },
	{ "PNM", "P1", 2, image_pnm },
	{ "PNM", "P2", 2, image_pnm },
	{ "PNM", "P3", 2, image_pnm },
	{ "PNM", "P4", 2, image_pnm },
	{ "PNM", "P5", 2, image_pnm },
	{ "PNM", "P6", 2, image_pnm },
};

static bool begins(const struct format *f, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < f->n && i < n; i++)
		if (f->magic[i] != '?' && (uint8_t)f->magic[i] != p[i])
			return false;
	return n >= f->n;
}

static enum linnet_code read_image(const struct tensor *t, struct image *m, struct linnet_error *e)
{
	for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
		const struct format *f = &formats[i];

		if (!begins(f, t->data, (size_t)t->n))
			continue;
		if (!f->read)
			return fail(e, LINNET_EUNSUPPORTED, "this build has no library for %s images", f->name);
		return f->read(t->data, (size_t)t->n, m, e);
	}
	return fail(e, LINNET_EVALUE, "%lld bytes that begin as no image of a known format", (long long)t->n);
}

/* ---- ImageDecoder ---- */

static enum linnet_code decoder_shape(struct shape_call *c)
{
	struct image m = { DIM_NONE, DIM_NONE, NULL };
	bool grey = attr_get(c->op, c->attr, "pixel_format")->s.p[0] == 'G';

	TRY(rank_check(c, 0, 1, 1));
	if (c->in[0]->value)
		TRY(read_image(c->in[0]->value, &m, c->e));
	c->out[0].shape = (struct shape){ .rank = 3, .d = { m.height, m.width, grey ? 1 : 3 } };
	return LINNET_OK;
}

/* Luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B, in 16 bits. */
static uint8_t luma(const uint8_t *rgb)
{
	return (uint8_t)((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 0x8000u) >> 16);
}

static enum linnet_code decoder(struct kernel_call *c)
{
	char to = attr_get(c->op, c->attr, "pixel_format")->s.p[0];
	struct tensor *y = c->out[0];
	struct image m = { y->d[0], y->d[1], y->data };
	struct linnet_error *e = c->e;
	int64_t n = m.height * m.width;

	if (to == 'G')
		TRY_NEW(m.rgb, c->scratch, 3 * n);
	TRY(read_image(c->in[0], &m, e));
	for (int64_t i = 0; i < n && to != 'R'; i++) {
		uint8_t *p = m.rgb + 3 * i, red = p[0];

		if (to == 'G') {
			((uint8_t *)y->data)[i] = luma(p);
		} else {
			p[0] = p[2];
			p[2] = red;
		}
	}
	return LINNET_OK;
}

static const struct op rows[] = {
	{
		.name = "ImageDecoder", .since = 20,
		.doc = "The pixels, [height, width, channels], of an image in BMP, PBM, PGM or PPM, and in JPEG, JPEG 2000, PNG, TIFF or "
		       "WebP where the build has their libraries. Transparency is dropped. What cannot be decoded is an error.",
		.in = IN({ "encoded_stream", T1 }),
		.out = OUT({ "image", T2 }),
		.attr = ATTRS({ .name = "pixel_format", .kind = ATTR_STRING, .s = "RGB", .oneof = "RGB|BGR|Grayscale" }),
		.types = { [T1] = SET(UINT8), [T2] = SET(UINT8) },
		.agree = AGREE_BITS,
		.shape = decoder_shape, .kernel = decoder,
	},
};

const struct op_family image_ops = FAMILY("image", rows);
