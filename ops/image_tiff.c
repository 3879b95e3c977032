/* The first image of a TIFF file by libtiff. */
#include "ops/image.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <tiffio.h>

#include "ops/base/arena.h"

struct source {
	const uint8_t *p;
	uint64_t n, at;
	char why[300]; /* the first error */
};

static tmsize_t give(thandle_t h, void *to, tmsize_t n)
{
	struct source *s = h;
	uint64_t left = s->at < s->n ? s->n - s->at : 0;

	n = n < 0 ? 0 : (uint64_t)n > left ? (tmsize_t)left : n;
	memcpy(to, s->p + s->at * (n > 0), (size_t)n);
	s->at += (uint64_t)n;
	return n;
}

static tmsize_t refuse(thandle_t h, void *from, tmsize_t n)
{
	(void)h;
	(void)from;
	(void)n;
	return -1;
}

static toff_t seek(thandle_t h, toff_t to, int whence)
{
	struct source *s = h;

	s->at = whence == SEEK_SET ? to : whence == SEEK_CUR ? s->at + to : s->n + to;
	return s->at;
}

static int done(thandle_t h)
{
	(void)h;
	return 0;
}

static toff_t size(thandle_t h) { return ((struct source *)h)->n; }

static int say(TIFF *t, void *ctx, const char *module, const char *format, va_list ap)
{
	struct source *s = ctx;

	(void)t;
	(void)module;
	if (!s->why[0])
		vsnprintf(s->why, sizeof s->why, format, ap);
	return 1;
}

static int hush(TIFF *t, void *ctx, const char *module, const char *format, va_list ap)
{
	(void)t;
	(void)ctx;
	(void)module;
	(void)format;
	(void)ap;
	return 1;
}

static enum linnet_code read_tiff(TIFF *t, struct source *s, struct image *m, struct linnet_error *e)
{
	uint32_t width = 0, height = 0;
	int64_t n;
	uint32_t *abgr;
	bool good;

	if (!TIFFGetField(t, TIFFTAG_IMAGEWIDTH, &width) || !TIFFGetField(t, TIFFTAG_IMAGELENGTH, &height))
		return fail(e, LINNET_EVALUE, "TIFF: no width and height");
	TRY(image_size(m, height, width, e));
	if (!m->rgb)
		return LINNET_OK;
	n = m->width * m->height;
	abgr = mem_get((size_t)n * sizeof *abgr);
	if (!abgr)
		return fail_mem(e);
	good = TIFFReadRGBAImageOriented(t, width, height, abgr, ORIENTATION_TOPLEFT, 1) && !s->why[0];
	for (int64_t i = 0; i < n && good; i++) {
		m->rgb[3 * i] = (uint8_t)TIFFGetR(abgr[i]);
		m->rgb[3 * i + 1] = (uint8_t)TIFFGetG(abgr[i]);
		m->rgb[3 * i + 2] = (uint8_t)TIFFGetB(abgr[i]);
	}
	mem_put(abgr);
	return good ? LINNET_OK : fail(e, LINNET_EVALUE, "TIFF: %s", s->why[0] ? s->why : "the image cannot be read");
}

enum linnet_code image_tiff(const uint8_t *p, size_t n, struct image *m, struct linnet_error *e)
{
	struct source s = { .p = p, .n = n };
	TIFFOpenOptions *o = TIFFOpenOptionsAlloc();
	enum linnet_code code;
	TIFF *t;

	if (!o)
		return fail_mem(e);
	TIFFOpenOptionsSetErrorHandlerExtR(o, say, &s);
	TIFFOpenOptionsSetWarningHandlerExtR(o, hush, NULL);
	TIFFOpenOptionsSetMaxSingleMemAlloc(o, (tmsize_t)1 << 30);
	t = TIFFClientOpenExt("image", "rm", &s, give, refuse, seek, done, size, NULL, NULL, o);
	TIFFOpenOptionsFree(o);
	if (!t)
		return fail(e, LINNET_EVALUE, "TIFF: %s", s.why[0] ? s.why : "the file cannot be read");
	code = read_tiff(t, &s, m, e);
	TIFFClose(t);
	return code;
}
