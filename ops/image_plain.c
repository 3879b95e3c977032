/* Images that need no library: BMP, and the portable bit, grey and pixel maps. */
#include "ops/image.h"

#include <stdbool.h>
#include <string.h>

/* ---- BMP ---- */

struct bmp {
	const uint8_t *p;
	size_t n, pixels, palette; /* where they are */
	uint32_t bits, compression, ncolour, entry; /* a pixel's bits; colours, and bytes of one */
	uint32_t mask[3];
	int64_t height, width;
	bool down; /* the first row is the upper one */
};

enum { BMP_PLAIN, BMP_RLE8, BMP_RLE4, BMP_FIELDS, BMP_ALPHA_FIELDS = 6 };

static uint32_t little(const uint8_t *p, int bytes)
{
	uint32_t v = 0;

	for (int i = bytes - 1; i >= 0; i--)
		v = v << 8 | p[i];
	return v;
}

static enum linnet_code truncated(struct linnet_error *e, const char *format)
{
	return fail(e, LINNET_EVALUE, "%s: the file ends early", format);
}

static enum linnet_code read_bmp_head(struct bmp *b, struct linnet_error *e)
{
	static const uint32_t mask16[3] = { 0x7c00, 0x3e0, 0x1f }, mask32[3] = { 0xff0000, 0xff00, 0xff };
	uint32_t head;
	bool core;

	if (b->n < 26)
		return truncated(e, "BMP");
	b->pixels = little(b->p + 10, 4);
	head = little(b->p + 14, 4);
	core = head == 12;
	if ((!core && head < 40) || head > 256)
		return fail(e, LINNET_EVALUE, "BMP: head of %lu bytes", (unsigned long)head);
	if (b->n < 14 + (size_t)head)
		return truncated(e, "BMP");
	b->width = core ? (int64_t)little(b->p + 18, 2) : (int32_t)little(b->p + 18, 4);
	b->height = core ? (int64_t)little(b->p + 20, 2) : (int32_t)little(b->p + 22, 4);
	b->bits = little(b->p + (core ? 24 : 28), 2);
	b->compression = core ? BMP_PLAIN : little(b->p + 30, 4);
	b->ncolour = core ? 0 : little(b->p + 46, 4);
	b->entry = core ? 3 : 4;
	b->palette = 14 + head;
	b->down = b->height < 0;
	b->height = b->down ? -b->height : b->height;
	memcpy(b->mask, b->bits == 16 ? mask16 : mask32, sizeof b->mask);
	if (b->compression == BMP_FIELDS || b->compression == BMP_ALPHA_FIELDS) {
		if (b->n < 66)
			return truncated(e, "BMP");
		for (int i = 0; i < 3; i++)
			b->mask[i] = little(b->p + 54 + 4 * i, 4);
	}
	return LINNET_OK;
}

static enum linnet_code check_bmp(struct bmp *b, struct linnet_error *e)
{
	bool fields = b->compression == BMP_FIELDS || b->compression == BMP_ALPHA_FIELDS;
	uint32_t most = b->bits <= 8 ? 1u << b->bits : 0;

	if ((b->compression == BMP_PLAIN && (b->bits == 1 || b->bits == 4 || b->bits == 8 || b->bits == 24)) ||
	    ((b->compression == BMP_PLAIN || fields) && (b->bits == 16 || b->bits == 32)) || (b->compression == BMP_RLE8 && b->bits == 8) ||
	    (b->compression == BMP_RLE4 && b->bits == 4)) {
		b->ncolour = !most ? 0 : b->ncolour && b->ncolour < most ? b->ncolour : most;
		if (b->palette + (size_t)b->ncolour * b->entry > b->n || b->pixels > b->n)
			return truncated(e, "BMP");
		return LINNET_OK;
	}
	return fail(e, LINNET_EUNSUPPORTED, "BMP: compression %lu of pixels of %lu bits", (unsigned long)b->compression, (unsigned long)b->bits);
}

/* The bits of v under the mask as 0 to 255. */
static uint8_t field(uint32_t v, uint32_t mask)
{
	if (!mask)
		return 0;
	for (v &= mask; !(mask & 1); mask >>= 1)
		v >>= 1;
	return (uint8_t)(((uint64_t)v * 255 + mask / 2) / mask);
}

static void put_colour(const struct bmp *b, uint8_t *rgb, uint32_t v)
{
	const uint8_t *from = b->p + b->palette + (size_t)v * b->entry;

	for (int i = 0; i < 3; i++)
		rgb[i] = b->bits <= 8 ? (v < b->ncolour ? from[2 - i] : 0) : field(v, b->mask[i]);
}

static uint8_t *bmp_at(const struct bmp *b, const struct image *m, int64_t y, int64_t x)
{
	return image_at(m, b->down ? y : b->height - 1 - y, x);
}

static enum linnet_code read_bmp_rows(const struct bmp *b, const struct image *m, struct linnet_error *e)
{
	size_t row = ((size_t)b->width * b->bits + 31) / 32 * 4;

	if (row * (size_t)b->height > b->n - b->pixels)
		return truncated(e, "BMP");
	for (int64_t y = 0; y < b->height; y++) {
		const uint8_t *p = b->p + b->pixels + (size_t)y * row;

		for (int64_t x = 0; x < b->width; x++) {
			uint8_t *to = bmp_at(b, m, y, x);

			if (b->bits == 24)
				for (int i = 0; i < 3; i++)
					to[i] = p[3 * x + 2 - i];
			else if (b->bits > 8)
				put_colour(b, to, little(p + x * (b->bits / 8), (int)b->bits / 8));
			else
				put_colour(b, to, (uint32_t)p[(size_t)x * b->bits / 8] >> (8 - b->bits - (uint32_t)x * b->bits % 8) & ((1u << b->bits) - 1));
		}
	}
	return LINNET_OK;
}

/*
 * Pairs of bytes: a count and a colour (of 4 bits: two that alternate), or 0 and 0: next row, 1: end, 2: skip by the next two bytes,
 * else so many colours. Pixels that are left out have colour 0.
 */
static enum linnet_code read_bmp_runs(const struct bmp *b, const struct image *m, struct linnet_error *e)
{
	size_t at = b->pixels, per = 8 / b->bits;
	int64_t x = 0, y = 0;

	for (int64_t i = 0; i < b->height * b->width; i++)
		put_colour(b, m->rgb + 3 * i, 0);
	for (;;) {
		const uint8_t *p = b->p + at;
		size_t n, bytes = 0;
		bool run;

		if (b->n - at < 2)
			return truncated(e, "BMP");
		at += 2;
		run = p[0] != 0;
		if (!run && p[1] == 1)
			return LINNET_OK;
		if (!run && p[1] == 0) {
			x = 0;
			y++;
			continue;
		}
		if (!run && p[1] == 2) {
			if (b->n - at < 2)
				return truncated(e, "BMP");
			x += p[2];
			y += p[3];
			at += 2;
			continue;
		}
		n = run ? p[0] : p[1];
		if (!run)
			bytes = (n + per - 1) / per;
		if (b->n - at < bytes)
			return truncated(e, "BMP");
		if (y >= b->height || x + (int64_t)n > b->width)
			return fail(e, LINNET_EVALUE, "BMP: pixels beyond the image");
		for (size_t i = 0; i < n; i++, x++) {
			uint8_t v = run ? p[1] : p[2 + i / per];

			put_colour(b, bmp_at(b, m, y, x), b->bits == 8 ? v : i % 2 ? v & 15u : v >> 4);
		}
		at += (bytes + 1) / 2 * 2;
		if (at > b->n)
			return truncated(e, "BMP");
	}
}

enum linnet_code image_bmp(const uint8_t *p, size_t n, struct image *m, struct linnet_error *e)
{
	struct bmp b = { .p = p, .n = n };

	TRY(read_bmp_head(&b, e));
	TRY(check_bmp(&b, e));
	TRY(image_size(m, b.height, b.width, e));
	if (!m->rgb)
		return LINNET_OK;
	return b.compression == BMP_RLE8 || b.compression == BMP_RLE4 ? read_bmp_runs(&b, m, e) : read_bmp_rows(&b, m, e);
}

/* ---- PBM, PGM, PPM ---- */

struct pnm {
	const uint8_t *p;
	size_t n, at;
};

static bool is_space(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* The next number, behind white space and comments; digits: at most so many digits of it. */
static enum linnet_code next_number(struct pnm *s, int digits, uint32_t *v, struct linnet_error *e)
{
	int n = 0;

	while (s->at < s->n && (is_space(s->p[s->at]) || s->p[s->at] == '#'))
		if (s->p[s->at++] == '#')
			while (s->at < s->n && s->p[s->at] != '\n')
				s->at++;
	for (*v = 0; s->at < s->n && n < digits && s->p[s->at] >= '0' && s->p[s->at] <= '9'; n++)
		*v = 10 * *v + (uint32_t)(s->p[s->at++] - '0');
	if (n)
		return LINNET_OK;
	return s->at < s->n ? fail(e, LINNET_EVALUE, "PNM: byte %zu is no digit", s->at) : truncated(e, "PNM");
}

enum linnet_code image_pnm(const uint8_t *p, size_t n, struct image *m, struct linnet_error *e)
{
	char kind = (char)p[1];
	bool bits = kind == '1' || kind == '4', text = kind <= '3';
	int channels = kind == '3' || kind == '6' ? 3 : 1;
	struct pnm s = { p, n, 2 };
	uint32_t width, height, most = 1, v = 0;
	size_t bytes, row;

	TRY(next_number(&s, 9, &width, e));
	TRY(next_number(&s, 9, &height, e));
	if (!bits)
		TRY(next_number(&s, 9, &most, e));
	if (most < 1 || most > 65535)
		return fail(e, LINNET_EVALUE, "PNM: largest value %lu; expected 1 to 65535", (unsigned long)most);
	TRY(image_size(m, height, width, e));
	if (!m->rgb)
		return LINNET_OK;
	if (!text && (s.at >= n || !is_space(p[s.at++])))
		return fail(e, LINNET_EVALUE, "PNM: no white space behind the head");
	bytes = most > 255 ? 2 : 1;
	row = bits ? ((size_t)width + 7) / 8 : (size_t)width * (size_t)channels * bytes;
	if (!text && n - s.at < row * height)
		return truncated(e, "PNM");
	for (int64_t y = 0; y < m->height; y++) {
		const uint8_t *from = p + s.at + (text ? 0 : (size_t)y * row);

		for (int64_t x = 0; x < m->width; x++)
			for (int k = 0; k < 3; k++) {
				size_t i = (size_t)x * (size_t)channels + (size_t)k % (size_t)channels;

				if (text && k < channels)
					TRY(next_number(&s, bits ? 1 : 9, &v, e));
				else if (!text)
					v = bits ? (uint32_t)from[i / 8] >> (7 - i % 8) & 1u
						: bytes == 2 ? (uint32_t)from[2 * i] << 8 | from[2 * i + 1] : from[i];
				if (v > most)
					return fail(e, LINNET_EVALUE, "PNM: value %lu; the largest is %lu", (unsigned long)v, (unsigned long)most);
				image_at(m, y, x)[k] = (uint8_t)(bits ? 255 * !v : (v * 255 + most / 2) / most);
			}
	}
	return LINNET_OK;
}
