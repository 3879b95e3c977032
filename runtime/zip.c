/*
 * Reading zip archives as NumPy writes them: stored or deflated members, with or without the 64-bit fields.
 * Source: PKWARE APPNOTE 6.3.10, sections 4.3 and 4.5.3.
 */
#include <string.h>
#include <zlib.h>

#include "runtime/data.h"

enum { LOCAL = 30, CENTRAL = 46, END = 22, END64 = 56, LOCATOR64 = 20, ENCRYPTED = 1, ZIP64 = 1 };

static uint64_t little(const unsigned char *p, int n)
{
	uint64_t v = 0;

	while (n-- > 0)
		v = v << 8 | p[n];
	return v;
}

static bool is(const unsigned char *p, const char *mark)
{
	return !memcmp(p, mark, 4);
}

static bool inside(struct bytes b, uint64_t at, uint64_t n)
{
	return at <= b.n && n <= b.n - at;
}

/* Where the directory is and how many members it lists. */
static enum linnet_code find_directory(struct bytes b, uint64_t *at, uint64_t *n, struct linnet_error *e)
{
	const unsigned char *end = NULL, *locator, *end64;

	for (size_t back = END; back <= b.n && back <= END + 0xffff && !end; back++)
		if (is(b.p + b.n - back, "PK\5\6") && END + little(b.p + b.n - back + 20, 2) == back)
			end = b.p + b.n - back;
	if (!end)
		return fail(e, LINNET_EFORMAT, "the archive's directory is missing: cut off?");
	*n = little(end + 10, 2);
	*at = little(end + 16, 4);
	if (*n != 0xffff && *at != 0xffffffff)
		return LINNET_OK;
	locator = end - b.p >= LOCATOR64 ? end - LOCATOR64 : NULL;
	if (!locator || !is(locator, "PK\6\7"))
		return LINNET_OK;
	if (!inside(b, little(locator + 8, 8), END64))
		return fail(e, LINNET_EFORMAT, "the archive's directory is beyond its end");
	end64 = b.p + little(locator + 8, 8);
	if (!is(end64, "PK\6\6"))
		return fail(e, LINNET_EFORMAT, "the archive's 64-bit directory record is damaged");
	*n = little(end64 + 32, 8);
	*at = little(end64 + 48, 8);
	return LINNET_OK;
}

/* The 64-bit values of the extra field, in order, for those that are all ones. */
static void wide_fields(const unsigned char *extra, size_t n, struct zip_member *m)
{
	uint64_t *field[] = { &m->size, &m->packed, &m->at };

	while (n >= 4) {
		size_t id = little(extra, 2), size = little(extra + 2, 2);
		const unsigned char *p = extra + 4;

		if (size > n - 4)
			return;
		for (int i = 0; id == ZIP64 && i < 3; i++)
			if (*field[i] == 0xffffffff && size >= (size_t)(p - extra - 4) + 8) {
				*field[i] = little(p, 8);
				p += 8;
			}
		extra += 4 + size;
		n -= 4 + size;
	}
}

enum linnet_code zip_list(struct bytes b, struct arena *a, struct zip_member **list, int *n, struct linnet_error *e)
{
	uint64_t at = 0, count = 0, total = 0;

	TRY(find_directory(b, &at, &count, e));
	if (count > b.n / CENTRAL)
		return fail(e, LINNET_EFORMAT, "the archive is too short for %llu members", (unsigned long long)count);
	TRY_NEW(*list, a, count);
	for (uint64_t i = 0; i < count; i++) {
		struct zip_member *m = &(*list)[i];
		const unsigned char *p = b.p + at;
		size_t name, extra, comment;

		if (!inside(b, at, CENTRAL) || !is(p, "PK\1\2"))
			return fail(e, LINNET_EFORMAT, "the archive's directory is damaged");
		name = little(p + 28, 2);
		extra = little(p + 30, 2);
		comment = little(p + 32, 2);
		if (!inside(b, at, CENTRAL + name + extra + comment))
			return fail(e, LINNET_EFORMAT, "the archive's directory is cut off");
		m->name = arena_strn(a, (const char *)p + CENTRAL, name);
		if (!m->name)
			return fail_mem(e);
		m->method = (int)little(p + 10, 2);
		m->crc = (uint32_t)little(p + 16, 4);
		m->packed = little(p + 20, 4);
		m->size = little(p + 24, 4);
		m->at = little(p + 42, 4);
		wide_fields(p + CENTRAL + name, extra, m);
		if (m->packed > b.n - total)
			return fail(e, LINNET_EFORMAT, "the archive's members have more bytes than the archive");
		total += m->packed;
		if (little(p + 8, 2) & ENCRYPTED)
			return fail(e, LINNET_EUNSUPPORTED, "member \"%s\" is encrypted", m->name);
		at += CENTRAL + name + extra + comment;
	}
	*n = (int)count;
	return LINNET_OK;
}

/* Raw deflate; zlib counts in 32 bits, so in pieces. */
static enum linnet_code inflate_all(struct bytes in, unsigned char *out, uint64_t size, struct linnet_error *e)
{
	enum { PIECE = 1 << 30 };
	z_stream z = { .next_in = (unsigned char *)(uintptr_t)in.p, .next_out = out };
	uint64_t left_in = in.n, left_out = size;
	int state = Z_OK;

	if (inflateInit2(&z, -MAX_WBITS) != Z_OK)
		return fail_mem(e);
	while (state == Z_OK) {
		unsigned give = left_in < PIECE ? (unsigned)left_in : PIECE, take = left_out < PIECE ? (unsigned)left_out : PIECE;

		z.avail_in = give;
		z.avail_out = take;
		state = inflate(&z, Z_NO_FLUSH);
		left_in -= give - z.avail_in;
		left_out -= take - z.avail_out;
		if (state == Z_OK && give == z.avail_in && take == z.avail_out)
			state = Z_BUF_ERROR;
	}
	inflateEnd(&z);
	if (state == Z_MEM_ERROR)
		return fail_mem(e);
	return state == Z_STREAM_END && !left_out ? LINNET_OK : LINNET_EFORMAT;
}

static uint32_t checksum(struct bytes b)
{
	enum { PIECE = 1 << 30 };
	uLong crc = crc32(0, NULL, 0);

	for (size_t at = 0; at < b.n; at += PIECE)
		crc = crc32(crc, b.p + at, (uInt)(b.n - at < PIECE ? b.n - at : PIECE));
	return (uint32_t)crc;
}

enum linnet_code zip_read(struct bytes b, const struct zip_member *m, int64_t max_bytes, struct arena *a, struct bytes *out,
                          struct linnet_error *e)
{
	enum { MOST = 1032 }; /* deflate cannot shrink more */
	uint64_t at = m->at;
	struct bytes in = { .n = m->packed };
	unsigned char *data;
	enum linnet_code code;

	if (m->method != 0 && m->method != 8)
		return fail(e, LINNET_EUNSUPPORTED, "member \"%s\" is compressed by method %d; stored and deflated are supported",
		            m->name, m->method);
	if (max_bytes > 0 && m->size > (uint64_t)max_bytes)
		return fail(e, LINNET_ELIMIT, "member \"%s\" has %llu bytes; at most %lld are allowed", m->name,
		            (unsigned long long)m->size, (long long)max_bytes);
	if (!inside(b, at, LOCAL) || !is(b.p + at, "PK\3\4"))
		return fail(e, LINNET_EFORMAT, "member \"%s\" is not where the directory says", m->name);
	at += LOCAL + little(b.p + at + 26, 2) + little(b.p + at + 28, 2);
	if (!inside(b, at, m->packed) || (m->method == 0 && m->packed != m->size) || m->packed > SIZE_MAX / MOST ||
	    m->size > m->packed * MOST + MOST)
		return fail(e, LINNET_EFORMAT, "member \"%s\" has impossible sizes", m->name);
	in.p = b.p + at;
	*out = in;
	if (m->method == 8) {
		data = arena_get(a, m->size, 1);
		if (!data)
			return fail_mem(e);
		code = inflate_all(in, data, m->size, e);
		if (code)
			return fail(e, code, "member \"%s\" cannot be inflated", m->name);
		*out = (struct bytes){ data, m->size };
	}
	if (checksum(*out) != m->crc)
		return fail(e, LINNET_EFORMAT, "member \"%s\" does not have its checksum", m->name);
	return LINNET_OK;
}
