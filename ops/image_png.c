/* PNG by libpng. */
#include "ops/image.h"

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <png.h>

struct source {
	const uint8_t *p;
	size_t n, at;
	jmp_buf jump;
	char why[200];
	png_structp png;
	png_infop info;
};

static void stop(png_structp png, png_const_charp why)
{
	struct source *s = png_get_error_ptr(png);

	snprintf(s->why, sizeof s->why, "%s", why);
	longjmp(s->jump, 1);
}

static void warn(png_structp png, png_const_charp why)
{
	(void)png;
	(void)why;
}

static void give(png_structp png, png_bytep to, size_t n)
{
	struct source *s = png_get_io_ptr(png);

	if (n > s->n - s->at)
		png_error(png, "the file ends early");
	memcpy(to, s->p + s->at, n);
	s->at += n;
}

/* 8 bits of red, green and blue, whatever it is. */
static void read_rows(struct source *s, const struct image *m)
{
	int passes;

	png_set_palette_to_rgb(s->png);
	png_set_expand_gray_1_2_4_to_8(s->png);
	png_set_scale_16(s->png);
	png_set_strip_alpha(s->png);
	png_set_gray_to_rgb(s->png);
	passes = png_set_interlace_handling(s->png);
	png_read_update_info(s->png, s->info);
	if (png_get_rowbytes(s->png, s->info) != 3 * (size_t)m->width)
		png_error(s->png, "rows are not of 24 bits a pixel");
	for (int k = 0; k < passes; k++)
		for (int64_t y = 0; y < m->height; y++)
			png_read_row(s->png, image_at(m, y, 0), NULL);
	png_read_end(s->png, NULL);
}

static enum linnet_code read_png(struct source *s, struct image *m, struct linnet_error *e)
{
	if (setjmp(s->jump))
		return LINNET_EVALUE;
	s->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, s, stop, warn);
	s->info = s->png ? png_create_info_struct(s->png) : NULL;
	if (!s->info)
		return s->png || !s->why[0] ? fail_mem(e) : LINNET_EVALUE;
	png_set_read_fn(s->png, s, give);
	png_read_info(s->png, s->info);
	TRY(image_size(m, png_get_image_height(s->png, s->info), png_get_image_width(s->png, s->info), e));
	if (m->rgb)
		read_rows(s, m);
	return LINNET_OK;
}

enum linnet_code image_png(const uint8_t *p, size_t n, struct image *m, struct linnet_error *e)
{
	struct source s = { .p = p, .n = n };
	enum linnet_code code = read_png(&s, m, e);

	if (s.png)
		png_destroy_read_struct(&s.png, &s.info, NULL);
	return code && s.why[0] ? fail(e, code, "PNG: %s", s.why) : code;
}
