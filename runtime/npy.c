/*
 * NumPy's array files. Source: numpy/lib/format.py, format versions 1.0, 2.0 and 3.0.
 */
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "ops/base/str.h"
#include "ops/base/utf8.h"
#include "runtime/data.h"

/* What a header says. Our own byte order is little-endian. */
struct layout {
	enum dtype dt;
	char kind;    /* NumPy's; 'm' for ml_dtypes' names */
	size_t item;  /* bytes an element takes in the file */
	bool swap;    /* big-endian */
	bool fortran; /* the first index runs fastest */
	int rank;
	int64_t d[MAX_RANK];
};

static const struct {
	char kind;
	size_t item;
	enum dtype dt;
} plain[] = {
	{ 'f', 2, DT_FLOAT16 }, { 'f', 4, DT_FLOAT }, { 'f', 8, DT_DOUBLE }, { 'f', 1, DT_FLOAT8E5M2 },
	{ 'i', 1, DT_INT8 }, { 'i', 2, DT_INT16 }, { 'i', 4, DT_INT32 }, { 'i', 8, DT_INT64 },
	{ 'u', 1, DT_UINT8 }, { 'u', 2, DT_UINT16 }, { 'u', 4, DT_UINT32 }, { 'u', 8, DT_UINT64 },
	{ 'b', 1, DT_BOOL }, { 'c', 8, DT_COMPLEX64 }, { 'c', 16, DT_COMPLEX128 },
};

static const struct {
	const char *name;
	enum dtype dt;
} named[] = {
	{ "bfloat16", DT_BFLOAT16 }, { "float8_e4m3fn", DT_FLOAT8E4M3FN }, { "float8_e4m3fnuz", DT_FLOAT8E4M3FNUZ },
	{ "float8_e5m2", DT_FLOAT8E5M2 }, { "float8_e5m2fnuz", DT_FLOAT8E5M2FNUZ }, { "float8_e8m0fnu", DT_FLOAT8E8M0 },
	{ "float4_e2m1fn", DT_FLOAT4E2M1 }, { "float6_e2m3fn", DT_FLOAT6E2M3 }, { "float6_e3m2fn", DT_FLOAT6E3M2 },
	{ "int4", DT_INT4 }, { "uint4", DT_UINT4 }, { "int2", DT_INT2 }, { "uint2", DT_UINT2 },
};

static const char *name_of(enum dtype dt)
{
	for (size_t i = 0; i < sizeof named / sizeof *named; i++)
		if (named[i].dt == dt)
			return named[i].name;
	return NULL;
}

/* Bytes of an element of one of the named types in a file. */
static size_t named_item(enum dtype dt)
{
	return dtype_bits(dt) > 8 ? dtype_bits(dt) / 8 : 1;
}

/* ---- The header: a Python dict of three entries ---- */

struct cursor {
	const char *p, *end;
};

static void space(struct cursor *c)
{
	while (c->p < c->end && (*c->p == ' ' || *c->p == '\t' || *c->p == '\n' || *c->p == '\r'))
		c->p++;
}

static bool accept(struct cursor *c, const char *word)
{
	size_t n = strlen(word);

	space(c);
	if ((size_t)(c->end - c->p) < n || memcmp(c->p, word, n))
		return false;
	c->p += n;
	return true;
}

static bool quoted(struct cursor *c, struct text *out)
{
	char q;

	space(c);
	if (c->p == c->end || (*c->p != '\'' && *c->p != '"'))
		return false;
	q = *c->p++;
	out->p = c->p;
	while (c->p < c->end && *c->p != q)
		c->p++;
	out->n = (size_t)(c->p - out->p);
	return c->p < c->end && *c->p++ == q;
}

static bool number(struct cursor *c, int64_t *out)
{
	const char *start;

	space(c);
	start = c->p;
	*out = 0;
	while (c->p < c->end && *c->p >= '0' && *c->p <= '9') {
		if (*out > (INT64_MAX - 9) / 10)
			return false;
		*out = *out * 10 + (*c->p++ - '0');
	}
	if (c->p == start)
		return false;
	accept(c, "L");
	return true;
}

static enum linnet_code bad_header(struct linnet_error *e)
{
	return fail(e, LINNET_EFORMAT, "the array's header is not a dict of descr, fortran_order and shape");
}

static enum linnet_code parse_descr(struct text s, enum dtype want, struct layout *h, struct linnet_error *e)
{
	struct cursor c = { s.p, s.p + s.n };
	bool big = false;
	int64_t item;

	for (size_t i = 0; i < sizeof named / sizeof *named; i++)
		if (strlen(named[i].name) == s.n && !memcmp(named[i].name, s.p, s.n)) {
			h->kind = 'm';
			h->dt = named[i].dt;
			h->item = named_item(h->dt);
			return LINNET_OK;
		}
	if (c.p < c.end && strchr("<>|=", *c.p))
		big = *c.p++ == '>';
	if (c.p == c.end)
		return bad_header(e);
	h->kind = *c.p++;
	if (h->kind == 'O')
		return fail(e, LINNET_EUNSUPPORTED, "the array holds pickled Python objects");
	if (!number(&c, &item) || c.p != c.end)
		return fail(e, LINNET_EUNSUPPORTED, "elements of type \"%.*s\" are not supported", (int)(s.n < 60 ? s.n : 60), s.p);
	h->item = (size_t)item;
	h->swap = big;
	for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
		if (plain[i].kind == h->kind && plain[i].item == h->item)
			h->dt = plain[i].dt;
	if (h->kind == 'S' || h->kind == 'U') {
		h->dt = DT_STRING;
		if (h->kind == 'U' && item > INT32_MAX)
			return fail(e, LINNET_EFORMAT, "strings of %lld characters", (long long)item);
		h->item *= h->kind == 'U' ? 4 : 1;
	}
	if (h->kind == 'V') {
		h->kind = 'm';
		h->dt = want == DT_UNDEFINED && h->item == 2 ? DT_BFLOAT16 : want;
		if (name_of(h->dt) && named_item(h->dt) != h->item)
			h->dt = DT_UNDEFINED;
	}
	if (h->dt == DT_UNDEFINED || (h->kind == 'm' && !name_of(h->dt)))
		return fail(e, LINNET_EUNSUPPORTED, "elements of type \"%.*s\" are not supported", (int)(s.n < 60 ? s.n : 60), s.p);
	return LINNET_OK;
}

static enum linnet_code parse_shape(struct cursor *c, struct layout *h, struct linnet_error *e)
{
	if (!accept(c, "("))
		return bad_header(e);
	for (h->rank = 0; !accept(c, ")"); h->rank++) {
		int64_t n;

		if (!number(c, &n))
			return bad_header(e);
		if (h->rank == MAX_RANK)
			return fail(e, LINNET_EUNSUPPORTED, "the array has more than %d dimensions", MAX_RANK);
		h->d[h->rank] = n;
		if (!accept(c, ",") && (c->p == c->end || *c->p != ')'))
			return bad_header(e);
	}
	return LINNET_OK;
}

static enum linnet_code parse_header(struct cursor *c, enum dtype want, struct layout *h, struct linnet_error *e)
{
	bool descr = false, order = false, shape = false;

	if (!accept(c, "{"))
		return bad_header(e);
	while (!accept(c, "}")) {
		struct text key, value;

		if (!quoted(c, &key) || !accept(c, ":"))
			return bad_header(e);
		if (key.n == 5 && !memcmp(key.p, "descr", 5) && !descr) {
			descr = true;
			if (accept(c, "["))
				return fail(e, LINNET_EUNSUPPORTED, "the array holds records");
			if (!quoted(c, &value))
				return bad_header(e);
			TRY(parse_descr(value, want, h, e));
		} else if (key.n == 13 && !memcmp(key.p, "fortran_order", 13) && !order) {
			order = true;
			h->fortran = accept(c, "True");
			if (!h->fortran && !accept(c, "False"))
				return bad_header(e);
		} else if (key.n == 5 && !memcmp(key.p, "shape", 5) && !shape) {
			shape = true;
			TRY(parse_shape(c, h, e));
		} else {
			return bad_header(e);
		}
		if (!accept(c, ",") && (c->p == c->end || *c->p != '}'))
			return bad_header(e);
	}
	space(c);
	return descr && order && shape && c->p == c->end ? LINNET_OK : bad_header(e);
}

/* ---- Elements ---- */

/* Index in the file of each element in row-major order, one after the other. */
struct walk {
	int64_t at, index[MAX_RANK], stride[MAX_RANK];
};

static void walk_start(struct walk *w, const struct layout *h)
{
	int64_t s = 1;

	*w = (struct walk){ .at = 0 };
	for (int i = 0; i < h->rank; i++) {
		int k = h->fortran ? i : h->rank - 1 - i;

		w->stride[k] = s;
		s *= h->d[k];
	}
}

static void walk_next(struct walk *w, const struct layout *h)
{
	for (int k = h->rank - 1; k >= 0; k--) {
		w->at += w->stride[k];
		if (++w->index[k] < h->d[k])
			return;
		w->at -= w->stride[k] * h->d[k];
		w->index[k] = 0;
	}
}

static uint32_t code_point(const unsigned char *p, bool big)
{
	return big ? (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]
		: (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

static enum linnet_code read_string(const struct layout *h, const unsigned char *p, struct arena *a, struct text *out,
                                    struct linnet_error *e)
{
	size_t n = h->item;
	char *to;

	if (h->kind == 'S') {
		while (n && !p[n - 1])
			n--;
		*out = (struct text){ (const char *)p, n }; /* borrowed like other data */
		return LINNET_OK;
	}
	while (n && !code_point(p + n - 4, h->swap))
		n -= 4;
	to = arena_get(a, n, 1);
	if (!to)
		return fail_mem(e);
	*out = (struct text){ to, 0 };
	for (size_t i = 0; i < n; i += 4) {
		size_t k = utf8_put(code_point(p + i, h->swap), to + out->n);

		if (!k)
			return fail(e, LINNET_EFORMAT, "a string holds %08lx, which is no character", (unsigned long)code_point(p + i, h->swap));
		out->n += k;
	}
	return LINNET_OK;
}

/* An element that shares its byte in memory but has one for itself in a file. */
static void put_narrow(struct tensor *t, int64_t i, uint8_t byte)
{
	if (t->dt == DT_FLOAT4E2M1)
		tensor_put(t, i, narrow_to_double(t->dt, byte));
	else
		tensor_put_int(t, i, byte);
}

static uint8_t get_narrow(const struct tensor *t, int64_t i)
{
	return t->dt == DT_FLOAT4E2M1 ? narrow_from_double(t->dt, tensor_get(t, i), true) : (uint8_t)tensor_get_int(t, i);
}

/* The bytes of one element, reversed in parts of `part` bytes. */
static void copy_element(unsigned char *to, const unsigned char *from, size_t item, size_t part, bool swap)
{
	if (!swap) {
		memcpy(to, from, item);
		return;
	}
	for (size_t i = 0; i < item; i++)
		to[i] = from[i / part * part + (part - 1 - i % part)];
}

static enum linnet_code copy_elements(const struct layout *h, const unsigned char *p, struct tensor *t, struct arena *a,
                                      struct linnet_error *e)
{
	size_t part = h->kind == 'c' ? h->item / 2 : h->item;
	unsigned char *to = t->data;
	struct walk w;

	walk_start(&w, h);
	for (int64_t i = 0; i < t->n; i++, walk_next(&w, h)) {
		const unsigned char *from = p + (size_t)w.at * h->item;

		if (t->dt == DT_STRING)
			TRY(read_string(h, from, a, (struct text *)t->data + i, e));
		else if (dtype_bits(t->dt) < 6)
			put_narrow(t, i, *from);
		else
			copy_element(to + (size_t)i * h->item, from, h->item, part, h->swap);
	}
	return LINNET_OK;
}

static enum linnet_code check_bools(const struct tensor *t, struct linnet_error *e)
{
	const uint8_t *p = t->data;

	for (int64_t i = 0; t->dt == DT_BOOL && i < t->n; i++)
		if (p[i] > 1)
			return fail(e, LINNET_EFORMAT, "element %lld is %d, which is no bool", (long long)i, p[i]);
	return LINNET_OK;
}

enum linnet_code npy_parse(struct bytes b, enum dtype want, const struct linnet_limits *l, struct arena *a, struct tensor **t,
                           struct linnet_error *e)
{
	struct layout h = { .dt = DT_UNDEFINED };
	struct linnet_limits limits;
	struct cursor c;
	size_t head, at, align;
	int64_t n;
	size_t bytes;

	limits_fill(&limits, l);
	if (b.n < 12 || memcmp(b.p, "\x93NUMPY", 6))
		return fail(e, LINNET_EFORMAT, "not an array file of NumPy");
	if (b.p[6] < 1 || b.p[6] > 3)
		return fail(e, LINNET_EUNSUPPORTED, "version %d of the format; 1 to 3 are supported", b.p[6]);
	head = b.p[6] == 1 ? 10 : 12;
	at = (size_t)b.p[8] | (size_t)b.p[9] << 8;
	if (head == 12)
		at |= (size_t)b.p[10] << 16 | (size_t)b.p[11] << 24;
	if (at > b.n - head)
		return fail(e, LINNET_EFORMAT, "the array's header is cut off");
	c = (struct cursor){ (const char *)b.p + head, (const char *)b.p + head + at };
	TRY(parse_header(&c, want, &h, e));
	at += head;
	TRY(tensor_size(h.dt, h.rank, h.d, limits.max_elements, &n, &bytes, e));
	if (n && (h.item > (b.n - at) / (size_t)n || h.item * (size_t)n != b.n - at))
		return fail(e, LINNET_EFORMAT, "the array has %lld elements of %zu bytes; the file has %zu bytes of data", (long long)n,
		            h.item, b.n - at);
	if (h.item == 0 && n > 1 << 20)
		return fail(e, LINNET_ELIMIT, "%lld elements of no size", (long long)n);
	align = h.kind == 'c' ? h.item / 2 : h.item;
	if (h.dt != DT_STRING && dtype_bits(h.dt) >= 6 && !h.swap && (!h.fortran || h.rank < 2) &&
	    (uintptr_t)(b.p + at) % align == 0) {
		TRY(tensor_wrap(a, h.dt, h.rank, h.d, b.p + at, t, e));
	} else {
		TRY(tensor_new(a, h.dt, h.rank, h.d, t, e));
		TRY(copy_elements(&h, b.p + at, *t, a, e));
	}
	return check_bools(*t, e);
}

/* ---- Writing ---- */

/* How strings are kept: the longest one's bytes, or characters when all are UTF-8 without a zero at the end. */
static void string_layout(const struct tensor *t, struct layout *h)
{
	const struct text *s = t->data;
	size_t most_bytes = 1, most_chars = 1;

	h->kind = 'U';
	for (int64_t i = 0; i < t->n; i++) {
		size_t chars = 0;
		uint32_t c;

		for (size_t at = 0, k; at < s[i].n; at += k, chars++) {
			k = utf8_get(s[i].p + at, s[i].n - at, &c);
			if (!k) {
				h->kind = 'S';
				k = 1;
			}
		}
		if (s[i].n > most_bytes)
			most_bytes = s[i].n;
		if (chars > most_chars)
			most_chars = chars;
	}
	h->item = h->kind == 'U' ? 4 * most_chars : most_bytes;
}

static char *header(const struct tensor *t, struct layout *h, struct arena *a)
{
	struct str s;
	size_t end;

	str_init(&s, a);
	str_add(&s, "{'descr': '");
	if (t->dt == DT_STRING) {
		string_layout(t, h);
		str_addf(&s, "%s%c%zu", h->kind == 'U' ? "<" : "|", h->kind, h->kind == 'U' ? h->item / 4 : h->item);
	} else if (name_of(t->dt)) {
		h->kind = 'm';
		h->item = named_item(t->dt);
		str_add(&s, name_of(t->dt));
	} else {
		for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
			if (plain[i].dt == t->dt) {
				h->kind = plain[i].kind;
				h->item = plain[i].item;
			}
		str_addf(&s, "%s%c%zu", h->item > 1 ? "<" : "|", h->kind, h->item);
	}
	str_add(&s, "', 'fortran_order': False, 'shape': (");
	for (int i = 0; i < t->rank; i++)
		str_addf(&s, "%lld%s", (long long)t->d[i], i + 1 < t->rank ? ", " : t->rank == 1 ? "," : "");
	str_add(&s, "), }");
	for (end = s.n; (10 + end + 1) % 64; end++)
		str_add(&s, " ");
	str_add(&s, "\n");
	return str_done(&s);
}

static enum linnet_code write_strings(struct file_out *f, const struct tensor *t, const struct layout *h, struct arena *a,
                                      struct linnet_error *e)
{
	const struct text *s = t->data;
	unsigned char *item;

	TRY_NEW(item, a, h->item);
	for (int64_t i = 0; i < t->n; i++) {
		size_t to = 0;
		uint32_t c = 0;

		memset(item, 0, h->item);
		if (h->kind == 'S' && s[i].n)
			memcpy(item, s[i].p, s[i].n);
		for (size_t at = 0; h->kind == 'U' && at < s[i].n; to += 4) {
			at += utf8_get(s[i].p + at, s[i].n - at, &c);
			for (int k = 0; k < 4; k++)
				item[to + (size_t)k] = (unsigned char)(c >> 8 * k);
		}
		TRY(file_write(f, item, h->item, e));
	}
	return LINNET_OK;
}

static enum linnet_code write_array(struct file_out *f, const void *ctx, struct arena *a, struct linnet_error *e)
{
	const struct tensor *t = ctx;
	struct layout h = { .dt = t->dt };
	const char *head = header(t, &h, a);
	size_t n = head ? strlen(head) : 0;

	if (!head)
		return fail_mem(e);
	TRY(file_write(f, "\x93NUMPY\1\0", 8, e));
	TRY(file_write(f, (const unsigned char[]){ (unsigned char)n, (unsigned char)(n >> 8) }, 2, e));
	TRY(file_write(f, head, n, e));
	if (t->dt == DT_STRING)
		return write_strings(f, t, &h, a, e);
	if (dtype_bits(t->dt) >= 6)
		return file_write(f, t->data, t->bytes, e);
	for (int64_t i = 0; i < t->n; i++) {
		uint8_t byte = get_narrow(t, i);

		TRY(file_write(f, &byte, 1, e));
	}
	return LINNET_OK;
}

enum linnet_code npy_save(const char *path, const struct tensor *t, struct linnet_error *e)
{
	return file_save(path, write_array, t, e);
}

/* ---- Archives ---- */

static void little(unsigned char *p, uint64_t v, int n)
{
	for (int i = 0; i < n; i++)
		p[i] = (unsigned char)(v >> 8 * i);
}

/* One member's record, before its bytes (30 bytes) or in the directory (46 bytes), without its name. */
static void member_record(unsigned char *p, bool directory, uint32_t crc, uint64_t size, size_t name, uint64_t at)
{
	unsigned char *q = p + (directory ? 6 : 4);

	memset(p, 0, directory ? 46 : 30);
	little(p, directory ? 0x02014b50 : 0x04034b50, 4);
	little(p + 4, 20, 2);
	little(q, 20, 2);
	little(q + 8, 0x21, 2); /* the first day that the format knows */
	little(q + 10, crc, 4);
	little(q + 14, size, 4);
	little(q + 18, size, 4);
	little(q + 22, name, 2);
	if (directory)
		little(p + 42, at, 4);
}

/* The bytes before a tensor's data in an .npy file. */
static enum linnet_code array_head(const struct tensor *t, struct arena *a, unsigned char **head, size_t *n, struct linnet_error *e)
{
	struct layout h = { .dt = t->dt };
	const char *text = header(t, &h, a);
	size_t length = text ? strlen(text) : 0;

	if (!text)
		return fail_mem(e);
	TRY_NEW(*head, a, 10 + length);
	memcpy(*head, "\x93NUMPY\1\0", 8);
	little(*head + 8, length, 2);
	memcpy(*head + 10, text, length);
	*n = 10 + length;
	return LINNET_OK;
}

static uint32_t crc_of(uint32_t crc, const unsigned char *p, size_t n)
{
	for (size_t step; n; p += step, n -= step) {
		step = n < 1u << 30 ? n : 1u << 30;
		crc = (uint32_t)crc32(crc, p, (uInt)step);
	}
	return crc;
}

struct archive {
	const struct named_tensor *list;
	int n;
};

static enum linnet_code write_archive(struct file_out *f, const void *ctx, struct arena *a, struct linnet_error *e)
{
	const struct archive *archive = ctx;
	const struct named_tensor *list = archive->list;
	int n = archive->n;
	unsigned char *directory, *at, end[22] = { 'P', 'K', 5, 6 };
	size_t room = 0;
	uint64_t from;

	for (int i = 0; i < n; i++)
		room += 46 + strlen(list[i].name) + 4;
	TRY_NEW(directory, a, room);
	at = directory;
	for (int i = 0; i < n; i++) {
		const struct tensor *t = list[i].t;
		const char *name = arena_fmt(a, "%s.npy", list[i].name);
		unsigned char record[30], *head;
		uint64_t start = f->size;
		size_t length, chars = name ? strlen(name) : 0;
		uint32_t crc;

		if (!name)
			return fail_mem(e);
		TRY(array_head(t, a, &head, &length, e));
		crc = crc_of(crc_of(0, head, length), t->data, t->bytes);
		if (start + length + t->bytes + room > UINT32_MAX)
			return fail(e, LINNET_ELIMIT, "the archive would be over 4 GiB");
		member_record(record, false, crc, length + t->bytes, chars, 0);
		TRY(file_write(f, record, sizeof record, e));
		TRY(file_write(f, name, chars, e));
		TRY(file_write(f, head, length, e));
		TRY(file_write(f, t->data, t->bytes, e));
		member_record(at, true, crc, length + t->bytes, chars, start);
		for (size_t k = 0; k < chars; k++) /* no zero behind it */
			at[46 + k] = (unsigned char)name[k];
		at += 46 + chars;
	}
	from = f->size;
	TRY(file_write(f, directory, room, e));
	little(end + 8, (uint64_t)n, 2);
	little(end + 10, (uint64_t)n, 2);
	little(end + 12, room, 4);
	little(end + 16, from, 4);
	if (n > 0xfffe)
		return fail(e, LINNET_ELIMIT, "the archive would have over 65534 members");
	return file_write(f, end, sizeof end, e);
}

enum linnet_code npz_save(const char *path, const struct named_tensor *list, int n, struct linnet_error *e)
{
	return file_save(path, write_archive, &(struct archive){ list, n }, e);
}
