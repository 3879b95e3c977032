/* WebP by libwebp. */
#include "ops/image.h"

#include <webp/decode.h>

enum linnet_code image_webp(const uint8_t *p, size_t n, struct image *m, struct linnet_error *e)
{
	static const char *const why[] = {
		[VP8_STATUS_OUT_OF_MEMORY] = "out of memory",      [VP8_STATUS_INVALID_PARAM] = "invalid parameter",
		[VP8_STATUS_BITSTREAM_ERROR] = "bad bit stream",   [VP8_STATUS_UNSUPPORTED_FEATURE] = "a feature that is not supported",
		[VP8_STATUS_SUSPENDED] = "suspended",              [VP8_STATUS_USER_ABORT] = "aborted",
		[VP8_STATUS_NOT_ENOUGH_DATA] = "the file ends early",
	};
	WebPDecoderConfig c;
	VP8StatusCode s;

	if (!WebPInitDecoderConfig(&c))
		return fail(e, LINNET_EINTERNAL, "WebP: the library is of another version");
	s = WebPGetFeatures(p, n, &c.input);
	if (!s && c.input.has_animation)
		return fail(e, LINNET_EUNSUPPORTED, "WebP: an animation");
	if (!s) {
		TRY(image_size(m, c.input.height, c.input.width, e));
		if (!m->rgb)
			return LINNET_OK;
		c.output.colorspace = MODE_RGB;
		c.output.is_external_memory = 1;
		c.output.u.RGBA = (WebPRGBABuffer){ m->rgb, 3 * c.input.width, (size_t)(3 * m->width * m->height) };
		s = WebPDecode(p, n, &c);
		WebPFreeDecBuffer(&c.output);
	}
	if (s == VP8_STATUS_OUT_OF_MEMORY)
		return fail_mem(e);
	return s ? fail(e, LINNET_EVALUE, "WebP: %s", why[s]) : LINNET_OK;
}
