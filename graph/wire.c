/* Protobuf's wire format, driven by descriptors: reading in two passes (count, then fill), writing in two (measure, then put). */
#include "graph/wire.h"

#include <assert.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "arrays are borrowed as they lie in the file");

enum { VARINT = 0, FIXED64 = 1, LENGTH = 2, FIXED32 = 5 };

/* Field types ONNX uses: wire type of one value, bytes of it in a struct. */
static const struct kind {
	uint8_t wire, size;
} kinds[] = {
	[PROTOBUF_C_TYPE_INT32] = { VARINT, sizeof(int32_t) },
	[PROTOBUF_C_TYPE_ENUM] = { VARINT, sizeof(int32_t) },
	[PROTOBUF_C_TYPE_INT64] = { VARINT, sizeof(int64_t) },
	[PROTOBUF_C_TYPE_UINT64] = { VARINT, sizeof(uint64_t) },
	[PROTOBUF_C_TYPE_FLOAT] = { FIXED32, sizeof(float) },
	[PROTOBUF_C_TYPE_DOUBLE] = { FIXED64, sizeof(double) },
	[PROTOBUF_C_TYPE_STRING] = { LENGTH, sizeof(char *) },
	[PROTOBUF_C_TYPE_BYTES] = { LENGTH, sizeof(ProtobufCBinaryData) },
	[PROTOBUF_C_TYPE_MESSAGE] = { LENGTH, sizeof(ProtobufCMessage *) },
};

static const struct kind *kind_of(const ProtobufCFieldDescriptor *f)
{
	assert(f->type < sizeof kinds / sizeof *kinds && kinds[f->type].size);
	return &kinds[f->type];
}

static bool is_repeated(const ProtobufCFieldDescriptor *f)
{
	return f->label == PROTOBUF_C_LABEL_REPEATED;
}

static bool is_oneof(const ProtobufCFieldDescriptor *f)
{
	return f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF;
}

static void *pointer_at(const void *member)
{
	void *p;

	memcpy(&p, member, sizeof p);
	return p;
}

/* ---- Reading ---- */

enum { MAX_FIELDS = 24 };

struct span {
	const uint8_t *p;
	size_t n;
};

/* Where a message is: element i of field f of the message at `up`; NULL is the root. */
struct place {
	const struct place *up;
	const ProtobufCFieldDescriptor *f;
	size_t i;
};

struct reader {
	struct arena *a;
	const uint8_t *start;
	const struct wire_limits *l;
	int64_t counted;
	struct linnet_error *e;
};

/* One field as it lies in the file. */
struct token {
	const uint8_t *at;                 /* its tag */
	uint32_t id;
	int wire;
	const ProtobufCFieldDescriptor *f; /* NULL: unknown */
	struct span whole;                 /* behind the tag */
	struct span body;                  /* LENGTH: behind the length as well */
	uint64_t v;                        /* VARINT */
};

/* What the first pass learns of a field, and how far the second is. */
struct tally {
	size_t n;           /* elements */
	size_t pieces, at;  /* occurrences; elements filled */
	struct span one, *piece; /* a single message: all its occurrences, which are read as one */
};

/* "graph.node[2].attribute[0]": the last few steps. */
static void place_text(const struct place *w, const ProtobufCFieldDescriptor *f, uint32_t id, char *buf, size_t n)
{
	enum { STEPS = 10 };
	const struct place *step[STEPS];
	int have = 0;
	size_t at = 0;

	for (; w && have < STEPS; w = w->up)
		step[have++] = w;
	buf[0] = '\0';
#define ADD(...)                                                                                   \
	do {                                                                                       \
		if (at < n)                                                                        \
			at += (size_t)snprintf(buf + at, n - at, __VA_ARGS__);                     \
	} while (0)
	if (w)
		ADD("...");
	while (have--) {
		ADD("%s%s", at ? "." : "", step[have]->f->name);
		if (is_repeated(step[have]->f))
			ADD("[%zu]", step[have]->i);
	}
	if (f)
		ADD("%s%s", at ? "." : "", f->name);
	else if (id)
		ADD("%sfield %u", at ? "." : "", id);
	if (at)
		ADD(" ");
#undef ADD
}

static enum linnet_code wrong(struct reader *r, const struct place *here, const struct token *t, const uint8_t *at,
                              enum linnet_code code, const char *fmt, ...) __attribute__((format(printf, 6, 7)));

static enum linnet_code wrong(struct reader *r, const struct place *here, const struct token *t, const uint8_t *at,
                              enum linnet_code code, const char *fmt, ...)
{
	char path[300], text[160];
	va_list ap;

	place_text(here, t ? t->f : NULL, t ? t->id : 0, path, sizeof path);
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return fail(r->e, code, "%sat byte %zu: %s", path, (size_t)(at - r->start), text);
}

/* Fields are sorted by number. */
static const ProtobufCFieldDescriptor *field_find(const ProtobufCMessageDescriptor *d, uint32_t id)
{
	unsigned lo = 0, hi = d->n_fields;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (d->fields[mid].id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < d->n_fields && d->fields[lo].id == id ? &d->fields[lo] : NULL;
}

static enum linnet_code read_varint(struct reader *r, const struct place *here, const struct token *t, const uint8_t **at,
                                    const uint8_t *end, uint64_t *v)
{
	const uint8_t *p = *at;

	*v = 0;
	for (int shift = 0; shift < 70; shift += 7) {
		uint64_t bits;

		if (p == end)
			return wrong(r, here, t, *at, LINNET_EFORMAT, "a varint is cut off");
		bits = *p & 0x7f;
		if (shift == 63 && bits > 1)
			break;
		*v |= bits << shift;
		if (!(*p++ & 0x80)) {
			*at = p;
			return LINNET_OK;
		}
	}
	return wrong(r, here, t, *at, LINNET_EFORMAT, "a varint has more than 64 bits");
}

/* The field at *at, which is before end; its value is inside the message. */
static enum linnet_code read_token(struct reader *r, const struct place *here, const ProtobufCMessageDescriptor *d,
                                   const uint8_t **at, const uint8_t *end, struct token *t)
{
	uint64_t tag, n;

	*t = (struct token){ .at = *at };
	TRY(read_varint(r, here, NULL, at, end, &tag));
	if (tag > UINT32_MAX || tag >> 3 == 0)
		return wrong(r, here, NULL, t->at, LINNET_EFORMAT, "field number %llu is not in [1, 2^29)",
		             (unsigned long long)tag >> 3);
	t->id = (uint32_t)tag >> 3;
	t->wire = tag & 7;
	t->f = field_find(d, t->id);
	if (t->f && t->wire != kind_of(t->f)->wire &&
	    !(t->wire == LENGTH && is_repeated(t->f) && kind_of(t->f)->wire != LENGTH))
		return wrong(r, here, t, t->at, LINNET_EFORMAT, "wire type %d, expected %d", t->wire, kind_of(t->f)->wire);
	t->whole.p = *at;
	switch (t->wire) {
	case VARINT:
		TRY(read_varint(r, here, t, at, end, &t->v));
		t->whole.n = (size_t)(*at - t->whole.p);
		return LINNET_OK;
	case FIXED64: n = 8; break;
	case FIXED32: n = 4; break;
	case LENGTH: TRY(read_varint(r, here, t, at, end, &n)); break;
	default: return wrong(r, here, t, t->at, LINNET_EFORMAT, "wire type %d is not in use", t->wire);
	}
	if (n > (size_t)(end - *at))
		return wrong(r, here, t, t->at, LINNET_EFORMAT, "%llu bytes announced, %zu left", (unsigned long long)n,
		             (size_t)(end - *at));
	t->body = (struct span){ *at, (size_t)n };
	*at += n;
	t->whole.n = (size_t)(*at - t->whole.p);
	return LINNET_OK;
}

/* A field of numbers written as one array. */
static bool is_packed(const struct token *t)
{
	return t->wire == LENGTH && kind_of(t->f)->wire != LENGTH;
}

/* First pass: how many elements the field holds, and whether its value is well-formed. */
static enum linnet_code count_token(struct reader *r, const struct place *here, const struct token *t, struct tally *c)
{
	const struct kind *k = kind_of(t->f);

	c->pieces++;
	if (t->f->type == PROTOBUF_C_TYPE_STRING) {
		const uint8_t *zero = t->body.n ? memchr(t->body.p, 0, t->body.n) : NULL;

		if (zero)
			return wrong(r, here, t, zero, LINNET_EFORMAT, "a string holds a zero byte");
	}
	if (!is_packed(t)) {
		c->n++;
	} else if (k->wire == VARINT) {
		const uint8_t *end = t->body.p + t->body.n;
		uint64_t v;

		for (const uint8_t *p = t->body.p; p < end; c->n++)
			TRY(read_varint(r, here, t, &p, end, &v));
	} else {
		if (t->body.n % k->size)
			return wrong(r, here, t, t->at, LINNET_EFORMAT, "an array of %u-byte numbers has %zu bytes", k->size,
			             t->body.n);
		c->n += t->body.n / k->size;
	}
	return LINNET_OK;
}

static enum linnet_code read_message(struct reader *r, const struct place *here, const ProtobufCMessageDescriptor *d,
                                     const struct span *in, size_t nin, int depth, ProtobufCMessage **out);

static void put_number(const ProtobufCFieldDescriptor *f, void *to, uint64_t v)
{
	uint32_t low = (uint32_t)v; /* protobuf, too, takes the low half for a 32-bit field */

	if (kind_of(f)->size == sizeof low)
		memcpy(to, &low, sizeof low);
	else
		memcpy(to, &v, sizeof v);
}

/* Second pass, one value that is no array: element i of the field, stored at `to`. */
static enum linnet_code fill_one(struct reader *r, const struct place *here, const struct token *t, size_t i, int depth,
                                 void *to)
{
	switch (t->f->type) {
	case PROTOBUF_C_TYPE_STRING: {
		char *s = arena_strn(r->a, (const char *)t->body.p, t->body.n);

		if (!s)
			return fail_mem(r->e);
		memcpy(to, &s, sizeof s);
		return LINNET_OK;
	}
	case PROTOBUF_C_TYPE_BYTES: {
		ProtobufCBinaryData b = { t->body.n, (uint8_t *)(uintptr_t)t->body.p };

		memcpy(to, &b, sizeof b);
		return LINNET_OK;
	}
	case PROTOBUF_C_TYPE_MESSAGE: {
		struct place w = { here, t->f, i };
		ProtobufCMessage *m;

		TRY(read_message(r, &w, t->f->descriptor, &t->body, 1, depth + 1, &m));
		memcpy(to, &m, sizeof m);
		return LINNET_OK;
	}
	default:
		if (t->wire == VARINT)
			put_number(t->f, to, t->v);
		else
			memcpy(to, t->body.p, t->body.n);
		return LINNET_OK;
	}
}

static enum linnet_code fill_repeated(struct reader *r, const struct place *here, const struct token *t, struct tally *c,
                                      int depth, char *msg)
{
	const struct kind *k = kind_of(t->f);
	void *member = msg + t->f->offset;
	char *array = pointer_at(member);

	if (!c->n)
		return LINNET_OK;
	if (!array) {
		if (is_packed(t) && k->wire != VARINT && c->pieces == 1 && (uintptr_t)t->body.p % k->size == 0)
			array = (char *)(uintptr_t)t->body.p;
		else
			array = arena_get(r->a, c->n, k->size);
		if (!array)
			return fail_mem(r->e);
		memcpy(member, &array, sizeof array);
		memcpy(msg + t->f->quantifier_offset, &c->n, sizeof c->n);
	}
	if (!is_packed(t)) {
		size_t i = c->at++;

		return fill_one(r, here, t, i, depth, array + i * k->size);
	}
	if (k->wire == VARINT) {
		const uint8_t *end = t->body.p + t->body.n;
		uint64_t v;

		for (const uint8_t *p = t->body.p; p < end; c->at++) {
			TRY(read_varint(r, here, t, &p, end, &v));
			put_number(t->f, array + c->at * k->size, v);
		}
	} else {
		char *to = array + c->at * k->size;

		if (t->body.n && to != (const char *)t->body.p)
			memcpy(to, t->body.p, t->body.n);
		c->at += t->body.n / k->size;
	}
	return LINNET_OK;
}

/* The last of several values counts, except that the pieces of a message are one message. */
static enum linnet_code fill_single(struct reader *r, const struct place *here, const struct token *t, struct tally *c,
                                    int depth, char *msg)
{
	const ProtobufCFieldDescriptor *f = t->f;

	if (is_oneof(f)) {
		uint32_t now;

		memcpy(&now, msg + f->quantifier_offset, sizeof now);
		if (now != f->id) {
			c->at = 0;
			memcpy(msg + f->quantifier_offset, &f->id, sizeof f->id);
		}
	} else if (f->type != PROTOBUF_C_TYPE_STRING && f->type != PROTOBUF_C_TYPE_MESSAGE) {
		protobuf_c_boolean yes = 1;

		memcpy(msg + f->quantifier_offset, &yes, sizeof yes);
	}
	if (f->type != PROTOBUF_C_TYPE_MESSAGE)
		return fill_one(r, here, t, 0, depth, msg + f->offset);
	if (!c->piece) {
		c->piece = c->pieces == 1 ? &c->one : NEW(r->a, c->pieces, struct span);
		if (!c->piece)
			return fail_mem(r->e);
	}
	c->piece[c->at++] = t->body;
	return LINNET_OK;
}

/* Read the single messages whose pieces have been gathered. */
static enum linnet_code read_pieces(struct reader *r, const struct place *here, const ProtobufCMessageDescriptor *d,
                                    const struct tally *c, int depth, char *msg)
{
	for (unsigned i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &d->fields[i];
		struct place w = { here, f, 0 };
		ProtobufCMessage *m;

		if (!c[i].piece)
			continue;
		if (is_oneof(f)) {
			uint32_t now;

			memcpy(&now, msg + f->quantifier_offset, sizeof now);
			if (now != f->id)
				continue;
		}
		TRY(read_message(r, &w, f->descriptor, c[i].piece, c[i].at, depth + 1, &m));
		memcpy(msg + f->offset, &m, sizeof m);
	}
	return LINNET_OK;
}

/* A message that lies in nin pieces, as protobuf allows for a field that occurs more than once. */
static enum linnet_code read_message(struct reader *r, const struct place *here, const ProtobufCMessageDescriptor *d,
                                     const struct span *in, size_t nin, int depth, ProtobufCMessage **out)
{
	struct tally c[MAX_FIELDS];
	ProtobufCMessageUnknownField *unknown = NULL;
	size_t nunknown = 0;
	ProtobufCMessage *m;
	struct token t;

	assert(d->n_fields <= MAX_FIELDS);
	memset(c, 0, d->n_fields * sizeof *c);
	if (depth > r->l->depth)
		return wrong(r, here, NULL, in->p, LINNET_ELIMIT, "more than %d messages inside each other", r->l->depth);
	if (d == r->l->counted && ++r->counted > r->l->count)
		return wrong(r, here, NULL, in->p, LINNET_ELIMIT, "more than %lld messages %s", (long long)r->l->count,
		             d->short_name);
	for (size_t i = 0; i < nin; i++) {
		for (const uint8_t *at = in[i].p, *end = at + in[i].n; at < end;) {
			TRY(read_token(r, here, d, &at, end, &t));
			if (t.f)
				TRY(count_token(r, here, &t, &c[t.f - d->fields]));
			else
				nunknown++;
		}
	}
	m = arena_get(r->a, 1, d->sizeof_message);
	if (!m)
		return fail_mem(r->e);
	protobuf_c_message_init(d, m);
	if (nunknown) {
		unknown = NEW(r->a, nunknown, ProtobufCMessageUnknownField);
		if (!unknown)
			return fail_mem(r->e);
		m->unknown_fields = unknown;
	}
	for (size_t i = 0; i < nin; i++) {
		for (const uint8_t *at = in[i].p, *end = at + in[i].n; at < end;) {
			TRY(read_token(r, here, d, &at, end, &t));
			if (!t.f)
				unknown[m->n_unknown_fields++] = (ProtobufCMessageUnknownField){
					t.id, (ProtobufCWireType)t.wire, t.whole.n, (uint8_t *)(uintptr_t)t.whole.p
				};
			else if (is_repeated(t.f))
				TRY(fill_repeated(r, here, &t, &c[t.f - d->fields], depth, (char *)m));
			else
				TRY(fill_single(r, here, &t, &c[t.f - d->fields], depth, (char *)m));
		}
	}
	TRY(read_pieces(r, here, d, c, depth, (char *)m));
	*out = m;
	return LINNET_OK;
}

enum linnet_code wire_read(struct arena *a, const ProtobufCMessageDescriptor *d, const void *data, size_t n,
                           const struct wire_limits *l, ProtobufCMessage **out, struct linnet_error *e)
{
	struct span all = { n ? data : (const void *)"", n }; /* nothing may be NULL, which has no end */
	struct reader r = { .a = a, .start = all.p, .l = l, .e = e };

	return read_message(&r, NULL, d, &all, 1, 1, out);
}

/* ---- Writing ---- */

/* The elements a field holds: how many, and where the first is. */
static size_t elements(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const char **p)
{
	const char *member = (const char *)m + f->offset, *quantifier = (const char *)m + f->quantifier_offset;
	bool pointer = f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_MESSAGE;

	*p = member;
	if (is_repeated(f)) {
		size_t n;

		memcpy(&n, quantifier, sizeof n);
		*p = pointer_at(member);
		return n;
	}
	if (is_oneof(f)) {
		uint32_t now;

		memcpy(&now, quantifier, sizeof now);
		return now == f->id && (!pointer || pointer_at(member));
	}
	if (pointer)
		return pointer_at(member) != NULL;
	return *(const protobuf_c_boolean *)quantifier != 0;
}

static uint64_t varint_size(uint64_t v)
{
	uint64_t n = 1;

	while (v >>= 7)
		n++;
	return n;
}

/* A number as it is written; 32-bit ones are signed, and negative ones take the full ten bytes. */
static uint64_t number_at(const ProtobufCFieldDescriptor *f, const char *p)
{
	uint64_t v;
	int32_t low;

	if (kind_of(f)->size == sizeof v) {
		memcpy(&v, p, sizeof v);
		return v;
	}
	memcpy(&low, p, sizeof low);
	return (uint64_t)(int64_t)low;
}

/* Byte string or string. */
static struct span bytes_at(const ProtobufCFieldDescriptor *f, const char *p)
{
	ProtobufCBinaryData b;

	if (f->type == PROTOBUF_C_TYPE_STRING) {
		const char *s = pointer_at(p);

		return (struct span){ (const uint8_t *)s, strlen(s) };
	}
	memcpy(&b, p, sizeof b);
	return (struct span){ b.data, b.len };
}

/* Bytes of n numbers in one array, without tag and length. */
static uint64_t packed_size(const ProtobufCFieldDescriptor *f, const char *p, size_t n)
{
	const struct kind *k = kind_of(f);
	uint64_t size = 0;

	if (k->wire != VARINT)
		return (uint64_t)n * k->size;
	for (size_t i = 0; i < n; i++)
		size += varint_size(number_at(f, p + i * k->size));
	return size;
}

struct measurer {
	struct arena *a;
	wire_swap *swap;
	void *ctx;
	struct wire_plan *plan;
	struct linnet_error *e;
};

static enum linnet_code measure(struct measurer *s, const ProtobufCMessage *m, uint64_t *out)
{
	struct wire_plan *plan = s->plan;
	size_t mine = plan->n;
	uint64_t size = 0;

	if (s->swap)
		TRY(s->swap(s->ctx, &m, s->e));
	if (plan->n == plan->cap) {
		size_t more = plan->cap ? plan->cap * 2 : 64;
		struct wire_item *item = NEW(s->a, more, struct wire_item);

		if (!item)
			return fail_mem(s->e);
		if (plan->n)
			memcpy(item, plan->item, plan->n * sizeof *item);
		plan->item = item;
		plan->cap = more;
	}
	plan->n++;
	for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
		uint64_t tag = varint_size((uint64_t)f->id << 3), one;
		const char *p;
		size_t n = elements(m, f, &p);

		if (n && f->flags & PROTOBUF_C_FIELD_FLAG_PACKED) {
			one = packed_size(f, p, n);
			size += tag + varint_size(one) + one;
			continue;
		}
		for (size_t j = 0; j < n; j++, p += kind_of(f)->size) {
			switch (f->type) {
			case PROTOBUF_C_TYPE_MESSAGE: TRY(measure(s, pointer_at(p), &one)); break;
			case PROTOBUF_C_TYPE_STRING:
			case PROTOBUF_C_TYPE_BYTES: one = bytes_at(f, p).n; break;
			default: one = packed_size(f, p, 1); break;
			}
			size += tag + one + (kind_of(f)->wire == LENGTH ? varint_size(one) : 0);
		}
	}
	for (unsigned i = 0; i < m->n_unknown_fields; i++)
		size += varint_size((uint64_t)m->unknown_fields[i].tag << 3) + m->unknown_fields[i].len;
	plan->item[mine] = (struct wire_item){ m, size };
	*out = size;
	return LINNET_OK;
}

enum linnet_code wire_measure(struct arena *scratch, const ProtobufCMessage *m, wire_swap *swap, void *ctx,
                              struct wire_plan *out, struct linnet_error *e)
{
	struct measurer s = { scratch, swap, ctx, out, e };
	uint64_t size;

	*out = (struct wire_plan){ 0 };
	return measure(&s, m, &size);
}

struct writer {
	const struct wire_plan *plan;
	size_t next; /* message to be written */
	wire_sink *sink;
	void *ctx;
	struct linnet_error *e;
};

static enum linnet_code put_varint(struct writer *w, uint64_t v)
{
	uint8_t b[10];
	size_t n = 0;

	for (; v >= 0x80; v >>= 7)
		b[n++] = (uint8_t)(v | 0x80);
	b[n++] = (uint8_t)v;
	return w->sink(w->ctx, b, n, w->e);
}

static enum linnet_code put_numbers(struct writer *w, const ProtobufCFieldDescriptor *f, const char *p, size_t n)
{
	const struct kind *k = kind_of(f);

	if (k->wire != VARINT)
		return w->sink(w->ctx, p, n * k->size, w->e);
	for (size_t i = 0; i < n; i++)
		TRY(put_varint(w, number_at(f, p + i * k->size)));
	return LINNET_OK;
}

static enum linnet_code put_message(struct writer *w)
{
	const ProtobufCMessage *m = w->plan->item[w->next++].m;

	for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
		const char *p;
		size_t n = elements(m, f, &p);

		if (n && f->flags & PROTOBUF_C_FIELD_FLAG_PACKED) {
			TRY(put_varint(w, (uint64_t)f->id << 3 | LENGTH));
			TRY(put_varint(w, packed_size(f, p, n)));
			TRY(put_numbers(w, f, p, n));
			continue;
		}
		for (size_t j = 0; j < n; j++, p += kind_of(f)->size) {
			TRY(put_varint(w, (uint64_t)f->id << 3 | kind_of(f)->wire));
			if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
				TRY(put_varint(w, w->plan->item[w->next].size));
				TRY(put_message(w));
			} else if (kind_of(f)->wire == LENGTH) {
				struct span s = bytes_at(f, p);

				TRY(put_varint(w, s.n));
				TRY(w->sink(w->ctx, s.p, s.n, w->e));
			} else {
				TRY(put_numbers(w, f, p, 1));
			}
		}
	}
	for (unsigned i = 0; i < m->n_unknown_fields; i++) {
		const ProtobufCMessageUnknownField *u = &m->unknown_fields[i];

		TRY(put_varint(w, (uint64_t)u->tag << 3 | u->wire_type));
		TRY(w->sink(w->ctx, u->data, u->len, w->e));
	}
	return LINNET_OK;
}

enum linnet_code wire_write(const struct wire_plan *p, wire_sink *sink, void *ctx, struct linnet_error *e)
{
	struct writer w = { .plan = p, .sink = sink, .ctx = ctx, .e = e };

	return put_message(&w);
}
