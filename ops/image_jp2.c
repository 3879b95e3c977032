/* JPEG 2000, in its file format or bare, by OpenJPEG. */
#include "ops/image.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <openjpeg.h>

struct source {
	const uint8_t *p;
	size_t n, at;
	char why[300]; /* the first error */
};

static OPJ_SIZE_T give(void *to, OPJ_SIZE_T n, void *ctx)
{
	struct source *s = ctx;

	n = n < s->n - s->at ? n : s->n - s->at;
	if (!n)
		return (OPJ_SIZE_T)-1;
	memcpy(to, s->p + s->at, n);
	s->at += n;
	return n;
}

static OPJ_BOOL seek(OPJ_OFF_T to, void *ctx)
{
	struct source *s = ctx;

	if (to < 0 || (uint64_t)to > s->n)
		return OPJ_FALSE;
	s->at = (size_t)to;
	return OPJ_TRUE;
}

static OPJ_OFF_T skip(OPJ_OFF_T n, void *ctx)
{
	struct source *s = ctx;

	if (n < 0 || (uint64_t)n > s->n - s->at)
		return -1;
	s->at += (size_t)n;
	return n;
}

static void say(const char *text, void *ctx)
{
	struct source *s = ctx;

	if (s->why[0])
		return;
	snprintf(s->why, sizeof s->why, "%s", text);
	s->why[strcspn(s->why, "\n")] = '\0';
}

/* The sample of a component over column x and row y, as 0 to 255. */
static int sample(const opj_image_comp_t *c, int64_t x, int64_t y)
{
	int64_t v = c->data[(y / c->dy < c->h ? y / c->dy : c->h - 1) * c->w + (x / c->dx < c->w ? x / c->dx : c->w - 1)];

	v += c->sgnd ? (int64_t)1 << (c->prec - 1) : 0;
	v = c->prec > 8 ? v >> (c->prec - 8) : v * 255 / (((int64_t)1 << c->prec) - 1);
	return v < 0 ? 0 : v > 255 ? 255 : (int)v;
}

static uint8_t clamped(double v) { return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v + 0.5); }

/* Grey, RGB or YCbCr; a component behind those is transparency. */
static void put_pixels(const opj_image_t *from, const struct image *m)
{
	bool grey = from->numcomps < 3, ycc = !grey && (from->color_space == OPJ_CLRSPC_SYCC || from->color_space == OPJ_CLRSPC_EYCC);

	for (int64_t y = 0; y < m->height; y++)
		for (int64_t x = 0; x < m->width; x++) {
			uint8_t *to = image_at(m, y, x);
			int v[3];

			for (int k = 0; k < 3; k++)
				v[k] = sample(&from->comps[grey ? 0 : k], x, y);
			for (int k = 0; k < 3; k++)
				to[k] = (uint8_t)v[k];
			if (!ycc)
				continue;
			to[0] = clamped(v[0] + 1.402 * (v[2] - 128));
			to[1] = clamped(v[0] - 0.344136 * (v[1] - 128) - 0.714136 * (v[2] - 128));
			to[2] = clamped(v[0] + 1.772 * (v[1] - 128));
		}
}

static enum linnet_code read_jp2(opj_codec_t *codec, opj_stream_t *stream, opj_image_t **from, struct source *s, struct image *m,
                                 struct linnet_error *e)
{
	opj_dparameters_t parameters;

	opj_set_error_handler(codec, say, s);
	opj_set_default_decoder_parameters(&parameters);
	if (!opj_setup_decoder(codec, &parameters) || !opj_read_header(stream, codec, from))
		return fail(e, LINNET_EVALUE, "JPEG 2000: %s", s->why[0] ? s->why : "the head cannot be read");
	TRY(image_size(m, (int64_t)(*from)->y1 - (*from)->y0, (int64_t)(*from)->x1 - (*from)->x0, e));
	if (!m->rgb)
		return LINNET_OK;
	if (!opj_decode(codec, stream, *from) || !opj_end_decompress(codec, stream))
		return fail(e, LINNET_EVALUE, "JPEG 2000: %s", s->why[0] ? s->why : "the image cannot be read");
	for (uint32_t k = 0; k < (*from)->numcomps && k < 3; k++) {
		const opj_image_comp_t *c = &(*from)->comps[k];

		if (!c->data || !c->w || !c->h || !c->dx || !c->dy || c->prec < 1 || c->prec > 31)
			return fail(e, LINNET_EVALUE, "JPEG 2000: component %lu has no samples", (unsigned long)k);
	}
	if (!(*from)->numcomps)
		return fail(e, LINNET_EVALUE, "JPEG 2000: no components");
	put_pixels(*from, m);
	return LINNET_OK;
}

enum linnet_code image_jp2(const uint8_t *p, size_t n, struct image *m, struct linnet_error *e)
{
	opj_codec_t *codec = opj_create_decompress(p[0] ? OPJ_CODEC_J2K : OPJ_CODEC_JP2);
	opj_stream_t *stream = opj_stream_default_create(OPJ_TRUE);
	struct source s = { .p = p, .n = n };
	enum linnet_code code = LINNET_EMEM;
	opj_image_t *from = NULL;

	if (codec && stream) {
		opj_stream_set_user_data(stream, &s, NULL);
		opj_stream_set_user_data_length(stream, n);
		opj_stream_set_read_function(stream, give);
		opj_stream_set_seek_function(stream, seek);
		opj_stream_set_skip_function(stream, skip);
		code = read_jp2(codec, stream, &from, &s, m, e);
	}
	opj_image_destroy(from);
	opj_stream_destroy(stream);
	opj_destroy_codec(codec);
	return code == LINNET_EMEM ? fail_mem(e) : code;
}
