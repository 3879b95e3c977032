/* JPEG by libjpeg-turbo. */
#include "ops/image.h"

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

enum { MAX_SCANS = 500 }; /* a progressive file of few bytes can ask for many passes over many pixels */

struct jpeg {
	struct jpeg_decompress_struct d;
	struct jpeg_error_mgr errors;
	struct jpeg_progress_mgr progress;
	jmp_buf jump;
	char why[JMSG_LENGTH_MAX];
	enum linnet_code code;
};

static void stop(j_common_ptr d)
{
	struct jpeg *j = d->client_data;

	if (!j->why[0])
		d->err->format_message(d, j->why);
	j->code = d->err->msg_code == JERR_OUT_OF_MEMORY ? LINNET_EMEM : LINNET_EVALUE;
	longjmp(j->jump, 1);
}

/* Damage is a warning to libjpeg, which goes on with something grey. */
static void warn(j_common_ptr d, int level)
{
	int code = d->err->msg_code;

	if (level < 0 && code != JWRN_EXTRANEOUS_DATA && code != JWRN_ADOBE_XFORM && code != JWRN_JFIF_MAJOR)
		stop(d);
}

static void watch_scans(j_common_ptr d)
{
	struct jpeg *j = d->client_data;

	if (j->d.input_scan_number <= MAX_SCANS)
		return;
	snprintf(j->why, sizeof j->why, "more than %d scans", MAX_SCANS);
	stop(d);
}

/* Adobe's files hold C, M, Y, K the other way round. */
static void from_cmyk(const struct jpeg *j, uint8_t *rgb, const uint8_t *cmyk)
{
	for (int k = 0; k < 3; k++) {
		unsigned a = cmyk[k], b = cmyk[3];

		if (!j->d.saw_Adobe_marker) {
			a = 255 - a;
			b = 255 - b;
		}
		rgb[k] = (uint8_t)((a * b + 127) / 255);
	}
}

static void read_rows(struct jpeg *j, const struct image *m)
{
	bool cmyk = j->d.num_components == 4;
	JSAMPARRAY line = NULL;

	j->d.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
	j->d.progress = &j->progress;
	jpeg_start_decompress(&j->d);
	if (cmyk)
		line = j->d.mem->alloc_sarray((j_common_ptr)&j->d, JPOOL_IMAGE, 4 * j->d.output_width, 1);
	while (j->d.output_scanline < j->d.output_height) {
		JSAMPROW row = image_at(m, j->d.output_scanline, 0);

		jpeg_read_scanlines(&j->d, cmyk ? line : &row, 1);
		for (int64_t x = 0; x < m->width && cmyk; x++)
			from_cmyk(j, row + 3 * x, line[0] + 4 * x);
	}
	jpeg_finish_decompress(&j->d);
}

static enum linnet_code read_jpeg(struct jpeg *j, const uint8_t *p, size_t n, struct image *m, struct linnet_error *e)
{
	if (setjmp(j->jump))
		return j->code;
	jpeg_create_decompress(&j->d);
	jpeg_mem_src(&j->d, p, (unsigned long)n);
	jpeg_read_header(&j->d, TRUE);
	TRY(image_size(m, j->d.image_height, j->d.image_width, e));
	if (m->rgb)
		read_rows(j, m);
	return LINNET_OK;
}

enum linnet_code image_jpeg(const uint8_t *p, size_t n, struct image *m, struct linnet_error *e)
{
	struct jpeg j = { .progress.progress_monitor = watch_scans };
	enum linnet_code code;

	j.d.err = jpeg_std_error(&j.errors);
	j.d.client_data = &j;
	j.errors.error_exit = stop;
	j.errors.emit_message = warn;
	code = read_jpeg(&j, p, n, m, e);
	jpeg_destroy_decompress(&j.d);
	if (code && j.why[0])
		return code == LINNET_EMEM ? fail_mem(e) : fail(e, code, "JPEG: %s", j.why);
	return code;
}
