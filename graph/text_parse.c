/*
 * The text form to the protobuf tree: a recursive descent over the grammar of docs/text.md. Fields the grammar has no words
 * for are written as `field: value` and stored through the descriptors that protobuf-c generates.
 */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "graph/text_syntax.h"
#include "ops/base/str.h"

struct parser {
	struct arena *a;              /* of the result */
	const char *text, *p, *end;   /* there is a zero at end */
	struct linnet_error *e;
	int depth, max_depth;
	bool values; /* integers in tensors of narrow floats are numbers, not bits */
};

/* ---- Errors ---- */

static enum linnet_code __attribute__((format(printf, 3, 4))) bad(struct parser *s, const char *at, const char *fmt, ...)
{
	unsigned line = 1, column = 1;
	char what[384];
	va_list ap;

	for (const char *p = s->text; p < at; p++) {
		column++;
		if (*p == '\n') {
			line++;
			column = 1;
		}
	}
	va_start(ap, fmt);
	vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	return fail(s->e, LINNET_EFORMAT, "line %u, column %u: %s", line, column, what);
}

static void skip(struct parser *s)
{
	while (s->p < s->end) {
		if (*s->p == '#')
			while (s->p < s->end && *s->p != '\n')
				s->p++;
		else if (*s->p && strchr(" \t\n\v\f\r", *s->p))
			s->p++;
		else
			return;
	}
}

/* Where the next token starts. */
static const char *here(struct parser *s)
{
	skip(s);
	return s->p;
}

static enum linnet_code expected(struct parser *s, const char *what)
{
	size_t n;

	skip(s);
	if (s->p == s->end)
		return bad(s, s->p, "expected %s, found the end", what);
	n = text_word(s->p, s->end);
	if (n)
		return bad(s, s->p, "expected %s, found \"%.*s\"", what, (int)(n < 60 ? n : 60), s->p);
	if (*s->p < ' ' || *s->p > '~')
		return bad(s, s->p, "expected %s, found byte 0x%02x", what, (unsigned char)*s->p);
	return bad(s, s->p, "expected %s, found '%c'", what, *s->p);
}

/* ---- Tokens ---- */

static int peek(struct parser *s)
{
	skip(s);
	return s->p < s->end ? (unsigned char)*s->p : 0;
}

static bool take(struct parser *s, char c)
{
	if (peek(s) != (unsigned char)c || s->p == s->end)
		return false;
	s->p++;
	return true;
}

static enum linnet_code need(struct parser *s, char c, const char *where)
{
	char what[80];

	if (take(s, c))
		return LINNET_OK;
	snprintf(what, sizeof what, "'%c' %s", c, where);
	return expected(s, what);
}

/* The identifier that comes next, without taking it. */
static struct text peek_word(struct parser *s)
{
	skip(s);
	return (struct text){ s->p, text_word(s->p, s->end) };
}

static int hex(int c)
{
	return text_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* "..." with \xHH for a byte and any other \c for c; zero-terminated. */
static enum linnet_code quoted(struct parser *s, struct text *out)
{
	const char *start, *p;
	size_t n = 0;
	char *t;

	if (peek(s) != '"')
		return expected(s, "a quoted string");
	start = s->p++;
	for (p = s->p; p < s->end && *p != '"'; p++)
		if (*p == '\\' && p + 1 < s->end)
			p++;
	if (p == s->end)
		return bad(s, start, "the string that starts here has no closing '\"'");
	t = arena_get(s->a, (size_t)(p - s->p + 1), sizeof *t);
	if (!t)
		return fail_mem(s->e);
	while (*s->p != '"') {
		if (*s->p != '\\') {
			t[n++] = *s->p++;
		} else if (s->p[1] == 'x' && hex(s->p[2]) >= 0 && hex(s->p[3]) >= 0) {
			t[n++] = (char)(hex(s->p[2]) << 4 | hex(s->p[3]));
			s->p += 4;
		} else {
			t[n++] = s->p[1];
			s->p += 2;
		}
	}
	s->p++;
	*out = (struct text){ t, n };
	return LINNET_OK;
}

/* A quoted string for a field that ends at its first zero. */
static enum linnet_code quoted_string(struct parser *s, char **out)
{
	const char *at = here(s);
	struct text t;

	TRY(quoted(s, &t));
	if (strlen(t.p) != t.n)
		return bad(s, at, "a zero byte cannot be part of this string");
	*out = (char *)(uintptr_t)t.p;
	return LINNET_OK;
}

/* An identifier or a quoted string; *out stays NULL when there is neither. */
static enum linnet_code maybe_name(struct parser *s, char **out)
{
	struct text w = peek_word(s);

	*out = NULL;
	if (peek(s) == '"')
		return quoted_string(s, out);
	if (!w.n)
		return LINNET_OK;
	s->p += w.n;
	*out = arena_strn(s->a, w.p, w.n);
	return *out ? LINNET_OK : fail_mem(s->e);
}

static enum linnet_code name(struct parser *s, const char *what, char **out)
{
	TRY(maybe_name(s, out));
	return *out ? LINNET_OK : expected(s, what);
}

/* An empty string where none stands for the same: the tree has one way to say it. */
static char *unless_empty(char *text)
{
	return text && *text ? text : NULL;
}

static enum linnet_code enter(struct parser *s)
{
	if (s->depth == s->max_depth)
		return fail(s->e, LINNET_ELIMIT, "nested more than %d deep", s->max_depth);
	s->depth++;
	return LINNET_OK;
}

static void leave(struct parser *s)
{
	s->depth--;
}

/* Room for one more element: the lists of the tree keep no capacity, so they grow when their length is a power of two. */
static void *grown(struct parser *s, void *list, size_t n, size_t size)
{
	void *p;

	if (n & (n - 1))
		return list;
	p = arena_get(s->a, n ? 2 * n : 1, size);
	if (p && n)
		memcpy(p, list, n * size);
	return p;
}

#define PUSH(s, list, n, element)                                                                  \
	do {                                                                                       \
		(list) = grown(s, list, n, sizeof *(list));                                        \
		if (!(list))                                                                       \
			return fail_mem((s)->e);                                                   \
		(list)[(n)++] = (element);                                                         \
	} while (0)

static void *message(struct parser *s, const ProtobufCMessageDescriptor *d)
{
	void *m = arena_get(s->a, 1, d->sizeof_message);

	if (m)
		protobuf_c_message_init(d, m);
	return m;
}

#define TRY_MESSAGE(s, m, type)                                                                    \
	do {                                                                                       \
		(m) = message(s, &onnx__##type##__descriptor);                                     \
		if (!(m))                                                                          \
			return fail_mem((s)->e);                                                   \
	} while (0)

/* ---- Numbers ---- */

struct literal {
	const char *p;
	bool real; /* has a point or an exponent, or is no finite number */
};

/* [-] digits [. digits] [e [+-] digits], [-] inf, [-] nan, nan(0x bits). */
static enum linnet_code literal(struct parser *s, const char *what, struct literal *out)
{
	const char *p = here(s);
	size_t n;

	*out = (struct literal){ p, false };
	if (*p == '-')
		p++;
	n = text_word(p, s->end);
	if (n) {
		if (!text_number_word(p, n))
			return expected(s, what);
		out->real = true;
		p += n;
		if (*out->p != '-' && !strncmp(p - n, "nan(0x", 6) && hex(p[3]) >= 0) {
			for (p += 3; hex(*p) >= 0;)
				p++;
			if (*p++ != ')')
				return expected(s, what);
		}
		s->p = p;
		return LINNET_OK;
	}
	if (!text_digit(*p))
		return expected(s, what);
	while (text_digit(*p))
		p++;
	if (*p == '.') {
		out->real = true;
		for (p++; text_digit(*p);)
			p++;
	}
	if (*p == 'e' || *p == 'E') {
		out->real = true;
		p += p[1] == '+' || p[1] == '-' ? 2 : 1;
		if (!text_digit(*p))
			return bad(s, p, "expected the digits of an exponent");
		while (text_digit(*p))
			p++;
	}
	s->p = p;
	return LINNET_OK;
}

static enum linnet_code integer(struct parser *s, const char *what, int64_t lo, int64_t hi, int64_t *out)
{
	const char *at = here(s);
	struct literal l;
	long long v;

	TRY(literal(s, what, &l));
	if (l.real) {
		s->p = at;
		return expected(s, what);
	}
	errno = 0;
	v = strtoll(l.p, NULL, 10);
	if (errno || v < lo || v > hi)
		return bad(s, at, "%.*s is not in [%lld, %lld]", (int)(s->p - at < 40 ? s->p - at : 40), at, (long long)lo, (long long)hi);
	*out = v;
	return LINNET_OK;
}

static enum linnet_code natural(struct parser *s, const char *what, uint64_t hi, uint64_t *out)
{
	const char *at = here(s);
	struct literal l;
	unsigned long long v;

	TRY(literal(s, what, &l));
	if (l.real) {
		s->p = at;
		return expected(s, what);
	}
	errno = 0;
	v = strtoull(l.p, NULL, 10);
	if (errno || v > hi || (*l.p == '-' && v))
		return bad(s, at, "%.*s is not in [0, %llu]", (int)(s->p - at < 40 ? s->p - at : 40), at, (unsigned long long)hi);
	*out = v;
	return LINNET_OK;
}

static void put_bits(enum dtype dt, void *out, uint64_t bits)
{
	switch (dtype_bits(dt)) {
	case 64: *(uint64_t *)out = bits; return;
	case 32: *(uint32_t *)out = (uint32_t)bits; return;
	case 16: *(uint16_t *)out = (uint16_t)bits; return;
	default: *(uint8_t *)out = (uint8_t)bits; return;
	}
}

void text_real(const char *digits, enum dtype dt, void *bits)
{
	const char *open = strchr(digits, 'n');

	if (open && !strncmp(open, "nan(0x", 6))
		put_bits(dt, bits, strtoull(open + 6, NULL, 16));
	else if (dt == DT_FLOAT)
		*(float *)bits = strtof(digits, NULL);
	else if (dt == DT_FLOAT8E5M2) /* has infinities, which storing a number would avoid */
		*(uint8_t *)bits = narrow_from_double(dt, strtod(digits, NULL), false);
	else
		dtype_put(dt, bits, 0, strtod(digits, NULL));
}

/* A literal as one element of a float type, at bits. */
static enum linnet_code real(struct parser *s, const char *what, enum dtype dt, void *bits)
{
	const char *at = here(s);
	char digits[64], *copy = digits;
	struct literal l;
	size_t n;

	TRY(literal(s, what, &l));
	n = (size_t)(s->p - at);
	if (n >= sizeof digits)
		copy = arena_get(s->a, n + 1, 1);
	if (!copy)
		return fail_mem(s->e);
	memcpy(copy, at, n);
	copy[n] = '\0';
	text_real(copy, dt, bits);
	if (isinf(dtype_get(dt, bits, 0)) && text_digit(at[*at == '-']))
		return bad(s, at, "%.*s is too large for %s", (int)(n < 40 ? n : 40), at, dtype_name(dt));
	return LINNET_OK;
}

/* ---- Fields without words of their own ---- */

static enum linnet_code fields(struct parser *s, ProtobufCMessage *m, char close);
static enum linnet_code type(struct parser *s, Onnx__TypeProto **out);
static enum linnet_code tensor(struct parser *s, Onnx__TensorProto **out);
static enum linnet_code graph(struct parser *s, char *graph_name, Onnx__GraphProto **out);

/* &{field: value, ...}: the note of m, if there is one. */
static enum linnet_code note(struct parser *s, void *m)
{
	if (!take(s, '&'))
		return LINNET_OK;
	TRY(need(s, '{', "to open a note"));
	return fields(s, m, '}');
}

static enum linnet_code string_pair(struct parser *s, Onnx__StringStringEntryProto **out)
{
	TRY_MESSAGE(s, *out, string_string_entry_proto);
	TRY(quoted_string(s, &(*out)->key));
	TRY(need(s, ':', "between key and value"));
	return quoted_string(s, &(*out)->value);
}

static enum linnet_code opset(struct parser *s, Onnx__OperatorSetIdProto **out)
{
	TRY_MESSAGE(s, *out, operator_set_id_proto);
	TRY(quoted_string(s, &(*out)->domain));
	TRY(need(s, ':', "between domain and version"));
	(*out)->has_version = 1;
	return integer(s, "a version", INT64_MIN, INT64_MAX, &(*out)->version);
}

/* One message as the value of a field: in its own syntax if it has one, else { field: value, ... }. */
static enum linnet_code message_value(struct parser *s, const ProtobufCMessageDescriptor *d, void **out)
{
	enum linnet_code code;
	char *graph_name;

	if (d == &onnx__string_string_entry_proto__descriptor)
		return string_pair(s, (Onnx__StringStringEntryProto **)out);
	if (d == &onnx__operator_set_id_proto__descriptor)
		return opset(s, (Onnx__OperatorSetIdProto **)out);
	if (d == &onnx__tensor_proto__descriptor)
		return tensor(s, (Onnx__TensorProto **)out);
	if (d == &onnx__type_proto__descriptor)
		return type(s, (Onnx__TypeProto **)out);
	if (d == &onnx__graph_proto__descriptor) {
		TRY(name(s, "the name of a graph", &graph_name));
		return graph(s, graph_name, (Onnx__GraphProto **)out);
	}
	TRY(need(s, '{', "to open the fields of a message"));
	*out = message(s, d);
	if (!*out)
		return fail_mem(s->e);
	TRY(enter(s));
	code = fields(s, *out, '}');
	leave(s);
	return code;
}

static enum linnet_code enum_value(struct parser *s, const ProtobufCEnumDescriptor *d, int *out)
{
	struct text w = peek_word(s);
	int64_t v;

	if (!w.n) {
		TRY(integer(s, "a number or the name of an enumerator", INT32_MIN, INT32_MAX, &v));
		*out = (int)v;
		return LINNET_OK;
	}
	for (unsigned i = 0; i < d->n_values; i++)
		if (text_is(w.p, w.n, d->values[i].name)) {
			*out = d->values[i].value;
			s->p += w.n;
			return LINNET_OK;
		}
	return expected(s, "the name of an enumerator");
}

/* One value of a field, stored at `at`. */
static enum linnet_code field_value(struct parser *s, const ProtobufCFieldDescriptor *f, void *at)
{
	struct text t;
	int64_t i;
	uint64_t u;

	switch (f->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		TRY(integer(s, "an integer", INT32_MIN, INT32_MAX, &i));
		*(int32_t *)at = (int32_t)i;
		return LINNET_OK;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64: return integer(s, "an integer", INT64_MIN, INT64_MAX, at);
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		TRY(natural(s, "an integer", UINT32_MAX, &u));
		*(uint32_t *)at = (uint32_t)u;
		return LINNET_OK;
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64: return natural(s, "an integer", UINT64_MAX, at);
	case PROTOBUF_C_TYPE_BOOL:
		TRY(natural(s, "0 or 1", 1, &u));
		*(protobuf_c_boolean *)at = (protobuf_c_boolean)u;
		return LINNET_OK;
	case PROTOBUF_C_TYPE_FLOAT: return real(s, "a number", DT_FLOAT, at);
	case PROTOBUF_C_TYPE_DOUBLE: return real(s, "a number", DT_DOUBLE, at);
	case PROTOBUF_C_TYPE_ENUM: return enum_value(s, f->descriptor, at);
	case PROTOBUF_C_TYPE_STRING: return quoted_string(s, at);
	case PROTOBUF_C_TYPE_BYTES:
		TRY(quoted(s, &t));
		*(ProtobufCBinaryData *)at = (ProtobufCBinaryData){ t.n, (uint8_t *)(uintptr_t)t.p };
		return LINNET_OK;
	case PROTOBUF_C_TYPE_MESSAGE: return message_value(s, f->descriptor, at);
	}
	return fail(s->e, LINNET_EINTERNAL, "field \"%s\" has an unknown type", f->name);
}

static size_t field_size(const ProtobufCFieldDescriptor *f)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_FLOAT: return 4;
	case PROTOBUF_C_TYPE_ENUM: return sizeof(int);
	case PROTOBUF_C_TYPE_BOOL: return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_BYTES: return sizeof(ProtobufCBinaryData);
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE: return sizeof(void *);
	default: return 8;
	}
}

static enum linnet_code field_list(struct parser *s, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
	char **list = (char **)((char *)m + f->offset);
	size_t *n = (size_t *)((char *)m + f->quantifier_offset), size = field_size(f);

	TRY(need(s, '[', "to open a list"));
	if (take(s, ']'))
		return LINNET_OK;
	do {
		*list = grown(s, *list, *n, size);
		if (!*list)
			return fail_mem(s->e);
		TRY(field_value(s, f, *list + *n * size));
		++*n;
	} while (take(s, ','));
	return need(s, ']', "to close the list");
}

/* Whether the bytes are one field of that wire type, so that a file they are written to can be read. */
static bool wire_ok(unsigned wire, struct text t)
{
	uint64_t n = 0;
	size_t i = 0;

	switch (wire) {
	case PROTOBUF_C_WIRE_TYPE_32BIT: return t.n == 4;
	case PROTOBUF_C_WIRE_TYPE_64BIT: return t.n == 8;
	case PROTOBUF_C_WIRE_TYPE_VARINT:
	case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
		do {
			if (i == t.n || i == 10)
				return false;
			n |= (uint64_t)(t.p[i] & 0x7f) << (7 * i);
		} while (t.p[i++] & 0x80);
		return t.n - i == (wire == PROTOBUF_C_WIRE_TYPE_VARINT ? 0 : n);
	default: return false;
	}
}

/* number/wire: "bytes", a field the schema does not know. */
static enum linnet_code unknown_field(struct parser *s, ProtobufCMessage *m)
{
	const char *at = s->p;
	uint64_t tag, wire;
	struct text t;

	TRY(natural(s, "the number of a field", (1u << 29) - 1, &tag));
	TRY(need(s, '/', "after the number of an unknown field"));
	TRY(natural(s, "a wire type", 5, &wire));
	TRY(need(s, ':', "after the wire type"));
	TRY(quoted(s, &t));
	if (!tag || !wire_ok((unsigned)wire, t) || protobuf_c_message_descriptor_get_field(m->descriptor, (unsigned)tag))
		return bad(s, at, "not a field unknown to the schema, as number/wire type: \"encoded bytes\"");
	PUSH(s, m->unknown_fields, m->n_unknown_fields,
	     ((ProtobufCMessageUnknownField){ .tag = (uint32_t)tag, .wire_type = (ProtobufCWireType)wire, .len = t.n,
	                                      .data = (uint8_t *)(uintptr_t)t.p }));
	return LINNET_OK;
}

static enum linnet_code known_field(struct parser *s, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
	char *at = (char *)m + f->offset, *has = (char *)m + f->quantifier_offset;

	if (f->label == PROTOBUF_C_LABEL_REPEATED)
		return field_list(s, m, f);
	if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
		*(uint32_t *)has = f->id;
	else if (f->quantifier_offset)
		*(protobuf_c_boolean *)has = 1;
	TRY(field_value(s, f, at));
	if (f->type == PROTOBUF_C_TYPE_STRING && !(f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF))
		*(char **)at = unless_empty(*(char **)at);
	return LINNET_OK;
}

/* field: value, ... close */
static enum linnet_code fields(struct parser *s, ProtobufCMessage *m, char close)
{
	if (take(s, close))
		return LINNET_OK;
	do {
		const ProtobufCFieldDescriptor *f = NULL;
		struct text w = peek_word(s);
		char field[40];

		if (text_digit(peek(s))) {
			TRY(unknown_field(s, m));
			continue;
		}
		if (!w.n)
			return expected(s, "the name of a field");
		if (w.n < sizeof field) {
			snprintf(field, sizeof field, "%.*s", (int)w.n, w.p);
			f = protobuf_c_message_descriptor_get_field_by_name(m->descriptor, field);
		}
		if (!f || text_listed(text_said(m->descriptor), f->name))
			return bad(s, w.p, "\"%.*s\" is not a field of %s that is written here", (int)(w.n < 60 ? w.n : 60), w.p,
			           m->descriptor->short_name);
		s->p += w.n;
		TRY(need(s, ':', "after the name of the field"));
		TRY(known_field(s, m, f));
	} while (take(s, ','));
	return close == '>' ? need(s, '>', "after the fields") : need(s, '}', "after the fields");
}

/* ---- Types ---- */

static enum linnet_code dimension(struct parser *s, Onnx__TensorShapeProto__Dimension **out)
{
	TRY_MESSAGE(s, *out, tensor_shape_proto__dimension);
	if (!take(s, '?')) {
		char *param;

		TRY(maybe_name(s, &param));
		if (param) {
			(*out)->dim_param = param;
			(*out)->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
		} else {
			TRY(integer(s, "a length: an integer, a name or '?'", INT64_MIN, INT64_MAX, &(*out)->dim_value));
			(*out)->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
		}
	}
	return note(s, *out);
}

/* Nothing: rank 0. []: unknown. [a, b]: these. */
static enum linnet_code shape(struct parser *s, Onnx__TensorShapeProto **out)
{
	*out = NULL;
	if (take(s, '[')) {
		if (take(s, ']'))
			return LINNET_OK;
		TRY_MESSAGE(s, *out, tensor_shape_proto);
		do {
			Onnx__TensorShapeProto__Dimension *d;

			TRY(dimension(s, &d));
			PUSH(s, (*out)->dim, (*out)->n_dim, d);
		} while (take(s, ','));
		return need(s, ']', "after the lengths");
	}
	TRY_MESSAGE(s, *out, tensor_shape_proto);
	return LINNET_OK;
}

/* float, undefined, undefined(99) */
static enum linnet_code element_type(struct parser *s, int32_t *out)
{
	struct text w = peek_word(s);
	int64_t number = 0;

	*out = (int32_t)dtype_parse(w.p, w.n);
	if (!*out && !text_is(w.p, w.n, "undefined"))
		return expected(s, "an element type");
	s->p += w.n;
	if (!*out && take(s, '(')) {
		TRY(integer(s, "the number of an element type", INT32_MIN, INT32_MAX, &number));
		TRY(need(s, ')', "after the number"));
		*out = (int32_t)number;
	}
	return LINNET_OK;
}

/* opaque(), opaque(name), opaque(domain, name) */
static enum linnet_code opaque(struct parser *s, Onnx__TypeProto__Opaque **out)
{
	struct str b;
	char *part;

	TRY_MESSAGE(s, *out, type_proto__opaque);
	TRY(need(s, '(', "after opaque"));
	if (take(s, ')'))
		return LINNET_OK;
	str_init(&b, s->a);
	TRY(name(s, "a name", &part));
	str_add(&b, part);
	while (take(s, '.')) {
		TRY(name(s, "a name", &part));
		str_add(&b, ".");
		str_add(&b, part);
	}
	(*out)->name = str_done(&b);
	if (!(*out)->name)
		return fail_mem(s->e);
	if (take(s, ',')) {
		(*out)->domain = unless_empty((*out)->name);
		TRY(name(s, "a name", &(*out)->name));
	}
	(*out)->name = unless_empty((*out)->name);
	return need(s, ')', "after the name");
}

static enum linnet_code type_body(struct parser *s, Onnx__TypeProto *t)
{
	struct text w = peek_word(s);

	if (text_is(w.p, w.n, "seq")) {
		s->p += w.n;
		TRY(need(s, '(', "after seq"));
		TRY_MESSAGE(s, t->sequence_type, type_proto__sequence);
		t->value_case = ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE;
		TRY(type(s, &t->sequence_type->elem_type));
		return need(s, ')', "after the element type");
	}
	if (text_is(w.p, w.n, "optional")) {
		s->p += w.n;
		TRY(need(s, '(', "after optional"));
		TRY_MESSAGE(s, t->optional_type, type_proto__optional);
		t->value_case = ONNX__TYPE_PROTO__VALUE_OPTIONAL_TYPE;
		TRY(type(s, &t->optional_type->elem_type));
		return need(s, ')', "after the element type");
	}
	if (text_is(w.p, w.n, "map")) {
		s->p += w.n;
		TRY(need(s, '(', "after map"));
		TRY_MESSAGE(s, t->map_type, type_proto__map);
		t->value_case = ONNX__TYPE_PROTO__VALUE_MAP_TYPE;
		TRY(element_type(s, &t->map_type->key_type));
		t->map_type->has_key_type = 1;
		TRY(need(s, ',', "after the key type"));
		TRY(type(s, &t->map_type->value_type));
		return need(s, ')', "after the value type");
	}
	if (text_is(w.p, w.n, "sparse_tensor")) {
		s->p += w.n;
		TRY(need(s, '(', "after sparse_tensor"));
		TRY_MESSAGE(s, t->sparse_tensor_type, type_proto__sparse_tensor);
		t->value_case = ONNX__TYPE_PROTO__VALUE_SPARSE_TENSOR_TYPE;
		TRY(element_type(s, &t->sparse_tensor_type->elem_type));
		t->sparse_tensor_type->has_elem_type = 1;
		TRY(shape(s, &t->sparse_tensor_type->shape));
		return need(s, ')', "after the element type");
	}
	if (text_is(w.p, w.n, "opaque")) {
		s->p += w.n;
		t->value_case = ONNX__TYPE_PROTO__VALUE_OPAQUE_TYPE;
		return opaque(s, &t->opaque_type);
	}
	if (text_is(w.p, w.n, "untyped")) {
		s->p += w.n;
		return LINNET_OK;
	}
	if (!text_type_word(w.p, w.n))
		return expected(s, "a type");
	TRY_MESSAGE(s, t->tensor_type, type_proto__tensor);
	t->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
	TRY(element_type(s, &t->tensor_type->elem_type));
	t->tensor_type->has_elem_type = 1;
	return shape(s, &t->tensor_type->shape);
}

static enum linnet_code type(struct parser *s, Onnx__TypeProto **out)
{
	TRY_MESSAGE(s, *out, type_proto);
	TRY(enter(s));
	TRY(type_body(s, *out));
	leave(s);
	return note(s, *out);
}

static bool next_is_type(struct parser *s)
{
	struct text w = peek_word(s);

	return text_type_word(w.p, w.n);
}

/* type? name, without the note */
static enum linnet_code value_info(struct parser *s, Onnx__ValueInfoProto **out)
{
	TRY_MESSAGE(s, *out, value_info_proto);
	if (next_is_type(s))
		TRY(type(s, &(*out)->type));
	return name(s, "the name of a value", &(*out)->name);
}

/* ---- Tensors ---- */

static enum linnet_code element(struct parser *s, enum dtype dt, uint8_t *data, size_t i)
{
	unsigned bits = dtype_bits(dt);
	uint8_t one[16] = { 0 };
	uint64_t u;
	int64_t v;
	struct literal l;
	const char *at;

	switch (dtype_class(dt)) {
	case CLASS_COMPLEX: /* i counts halves */
		return dt == DT_COMPLEX64 ? real(s, "a number", DT_FLOAT, (float *)data + i)
		                          : real(s, "a number", DT_DOUBLE, (double *)data + i);
	case CLASS_INT:
		TRY(integer(s, "an integer", bits == 64 ? INT64_MIN : -((int64_t)1 << (bits - 1)),
		            bits == 64 ? INT64_MAX : ((int64_t)1 << (bits - 1)) - 1, &v));
		dtype_put_int(dt, data, i, v);
		return LINNET_OK;
	case CLASS_UINT:
		TRY(natural(s, "an integer", bits == 64 ? UINT64_MAX : ((uint64_t)1 << bits) - 1, &u));
		dtype_put_int(dt, data, i, (int64_t)u);
		return LINNET_OK;
	case CLASS_BOOL: {
		struct text w = peek_word(s);

		if (text_is(w.p, w.n, "true") || text_is(w.p, w.n, "false")) {
			data[i] = *w.p == 't';
			s->p += w.n;
			return LINNET_OK;
		}
		TRY(natural(s, "0, 1, true or false", 1, &u));
		data[i] = (uint8_t)u;
		return LINNET_OK;
	}
	case CLASS_FLOAT:
		at = here(s);
		TRY(literal(s, "a number", &l));
		s->p = at;
		if (!l.real && bits <= 16 && !s->values) {
			TRY(natural(s, "the bits of an element", ((uint64_t)1 << bits) - 1, &u));
			put_bits(dt, one, u);
		} else {
			TRY(real(s, "a number", dt, one));
		}
		if (bits >= 8) {
			memcpy(data + i * dtype_bytes(dt, 1), one, dtype_bytes(dt, 1));
			return LINNET_OK;
		}
		one[0] = (uint8_t)(one[0] & ((1u << bits) - 1));
		/* elements under a byte lie close, from the low bits on; one of six bits may go over into the next byte */
		data[i * bits / 8] = (uint8_t)(data[i * bits / 8] | one[0] << (i * bits % 8));
		if (i * bits % 8 + bits > 8)
			data[i * bits / 8 + 1] = (uint8_t)(one[0] >> (8 - i * bits % 8));
		return LINNET_OK;
	default: return fail(s->e, LINNET_EINTERNAL, "elements of %s have no text form", dtype_name(dt));
	}
}

/* Product of the lengths; false when one is negative or it overflows. */
static bool count(const Onnx__TensorProto *t, uint64_t *out)
{
	uint64_t n = 1;

	for (size_t i = 0; i < t->n_dims; i++) {
		if (t->dims[i] < 0)
			return false;
		if (t->dims[i] && n > (uint64_t)INT64_MAX / (uint64_t)t->dims[i])
			return false;
		n *= (uint64_t)t->dims[i];
	}
	*out = n;
	return true;
}

/* { elements }: raw data, or string_data. {...}: no data. */
static enum linnet_code elements(struct parser *s, Onnx__TensorProto *t)
{
	enum dtype dt = t->data_type > 0 && t->data_type < DT_COUNT ? (enum dtype)t->data_type : DT_UNDEFINED;
	uint64_t want, room, n = 0;
	size_t bytes;
	const char *at = s->p;
	uint8_t *data;

	TRY(need(s, '{', "before the elements"));
	if (peek(s) == '.' && s->end - s->p >= 3 && !strncmp(s->p, "...", 3)) {
		s->p += 3;
		return need(s, '}', "after ...");
	}
	if (dt == DT_UNDEFINED)
		return bad(s, at, "a tensor without a known element type cannot have elements");
	if (!count(t, &want))
		return bad(s, at, "the tensor's lengths are negative or too large");
	if (dtype_class(dt) == CLASS_COMPLEX)
		want *= 2;
	/* An element takes two characters at least, so the text bounds the memory whatever the lengths say. */
	room = (uint64_t)(s->end - s->p) / 2 + 1;
	if (want < room)
		room = want;
	bytes = dt == DT_STRING ? (size_t)room * sizeof(ProtobufCBinaryData)
	                        : dtype_bytes(dt, dtype_class(dt) == CLASS_COMPLEX ? (room + 1) / 2 : room);
	data = arena_get(s->a, bytes, 1);
	if (!data)
		return fail_mem(s->e);
	if (peek(s) != '}')
		do {
			if (n == room)
				return bad(s, here(s), "more elements than the tensor's lengths say, %llu", (unsigned long long)want);
			if (dt == DT_STRING) {
				struct text b;

				TRY(quoted(s, &b));
				((ProtobufCBinaryData *)(void *)data)[n] = (ProtobufCBinaryData){ b.n, (uint8_t *)(uintptr_t)b.p };
			} else {
				TRY(element(s, dt, data, (size_t)n));
			}
			n++;
		} while (take(s, ','));
	TRY(need(s, '}', "after the elements"));
	if (n != want)
		return bad(s, at, "%llu elements; the tensor's lengths say %llu", (unsigned long long)n, (unsigned long long)want);
	if (!n) /* no data is all the data there is, as in {...} */
		return LINNET_OK;
	if (dt == DT_STRING) {
		t->n_string_data = (size_t)n;
		t->string_data = (ProtobufCBinaryData *)(void *)data;
	} else {
		t->has_raw_data = 1;
		t->raw_data = (ProtobufCBinaryData){ dtype_bits(dt) == 6 ? (bytes * 6 + 7) / 8 : bytes, data };
	}
	return LINNET_OK;
}

/* ["location": "file", ...] */
static enum linnet_code external(struct parser *s, Onnx__TensorProto *t)
{
	TRY(need(s, '[', "before the place of external data"));
	t->has_data_location = 1;
	t->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
	if (take(s, ']'))
		return LINNET_OK;
	do {
		Onnx__StringStringEntryProto *pair;

		TRY(string_pair(s, &pair));
		PUSH(s, t->external_data, t->n_external_data, pair);
	} while (take(s, ','));
	return need(s, ']', "after the place of external data");
}

/* The data of a tensor whose type and name were read, and the note behind it. */
static enum linnet_code tensor_data(struct parser *s, const char *at, const Onnx__TypeProto *type_, char *tensor_name,
                                    Onnx__TensorProto **out)
{
	Onnx__TensorProto *t;
	const Onnx__TypeProto__Tensor *y;

	if (!type_ || type_->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE || !type_->tensor_type->shape)
		return bad(s, at, "a constant is a tensor with known lengths");
	y = type_->tensor_type;
	TRY_MESSAGE(s, t, tensor_proto);
	t->name = unless_empty(tensor_name);
	t->has_data_type = 1;
	t->data_type = y->elem_type;
	t->n_dims = y->shape->n_dim;
	t->dims = arena_get(s->a, t->n_dims, sizeof *t->dims);
	if (!t->dims)
		return fail_mem(s->e);
	for (size_t i = 0; i < t->n_dims; i++) {
		if (y->shape->dim[i]->value_case != ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE)
			return bad(s, at, "a constant is a tensor with known lengths");
		t->dims[i] = y->shape->dim[i]->dim_value;
	}
	if (peek(s) == '{')
		TRY(elements(s, t));
	else if (peek(s) == '[')
		TRY(external(s, t));
	*out = t;
	return note(s, t);
}

/* type name? =? data */
static enum linnet_code tensor(struct parser *s, Onnx__TensorProto **out)
{
	const char *at = here(s);
	Onnx__TypeProto *t;
	char *tensor_name;

	TRY(type(s, &t));
	TRY(maybe_name(s, &tensor_name));
	take(s, '=');
	return tensor_data(s, at, t, tensor_name, out);
}

/* ---- Attributes ---- */

static int attr_type(struct text w)
{
#define X(word, number, field, one)                                                                \
	if (text_is(w.p, w.n, #word))                                                              \
		return number;
	TEXT_ATTRS(X)
#undef X
	return ATTR_TYPE(UNDEFINED);
}

/* The kind of one element of a list of that kind; UNDEFINED when it is no list. */
static int attr_one(int attr_kind)
{
	switch (attr_kind) {
#define X(word, number, field, one)                                                                \
	case number: return attr_type((struct text){ one, strlen(one) });
		TEXT_ATTRS(X)
#undef X
	default: return ATTR_TYPE(UNDEFINED);
	}
}

static int attr_list(int one)
{
	switch (one) {
	case ATTR_TYPE(FLOAT): return ATTR_TYPE(FLOATS);
	case ATTR_TYPE(INT): return ATTR_TYPE(INTS);
	case ATTR_TYPE(STRING): return ATTR_TYPE(STRINGS);
	case ATTR_TYPE(TENSOR): return ATTR_TYPE(TENSORS);
	case ATTR_TYPE(GRAPH): return ATTR_TYPE(GRAPHS);
	case ATTR_TYPE(SPARSE_TENSOR): return ATTR_TYPE(SPARSE_TENSORS);
	case ATTR_TYPE(TYPE_PROTO): return ATTR_TYPE(TYPE_PROTOS);
	default: return ATTR_TYPE(UNDEFINED);
	}
}

/* One value; `a` receives it as if it were a whole attribute. want: the kind it must have, or UNDEFINED. */
static enum linnet_code attr_value(struct parser *s, int want, Onnx__AttributeProto *a)
{
	const char *at = here(s);
	struct text w = peek_word(s), t;
	struct literal l;
	char *id;

	if (peek(s) == '"') {
		TRY(quoted(s, &t));
		if (peek(s) == '(' && want != ATTR_TYPE(STRING)) {
			s->p = at;
			TRY(quoted_string(s, &id));
			a->type = ATTR_TYPE(GRAPH);
			TRY(graph(s, id, &a->g));
		} else {
			a->type = ATTR_TYPE(STRING);
			a->has_s = 1;
			a->s = (ProtobufCBinaryData){ t.n, (uint8_t *)(uintptr_t)t.p };
		}
	} else if (peek(s) == '{' && (want == ATTR_TYPE(SPARSE_TENSOR))) {
		a->type = ATTR_TYPE(SPARSE_TENSOR);
		TRY(message_value(s, &onnx__sparse_tensor_proto__descriptor, (void **)&a->sparse_tensor));
	} else if (text_type_word(w.p, w.n)) {
		Onnx__TypeProto *y;
		int next;

		TRY(type(s, &y));
		next = peek(s);
		if (next == '{' || next == '=' || next == '"' || peek_word(s).n) {
			TRY(maybe_name(s, &id));
			take(s, '=');
			a->type = ATTR_TYPE(TENSOR);
			TRY(tensor_data(s, at, y, id, &a->t));
		} else {
			a->type = ATTR_TYPE(TYPE_PROTO);
			a->tp = y;
		}
	} else if (w.n && !text_number_word(w.p, w.n)) {
		TRY(name(s, "the name of a graph", &id));
		a->type = ATTR_TYPE(GRAPH);
		TRY(graph(s, id, &a->g));
	} else {
		TRY(literal(s, "the value of an attribute", &l));
		s->p = at;
		if (l.real || want == ATTR_TYPE(FLOAT)) {
			a->type = ATTR_TYPE(FLOAT);
			a->has_f = 1;
			TRY(real(s, "a number", DT_FLOAT, &a->f));
		} else {
			a->type = ATTR_TYPE(INT);
			a->has_i = 1;
			TRY(integer(s, "an integer", INT64_MIN, INT64_MAX, &a->i));
			a->f = (float)a->i; /* for a list that turns out to be one of floats */
		}
	}
	if (want != ATTR_TYPE(UNDEFINED) && (int)a->type != want)
		return bad(s, at, "the value is not of the kind the attribute is declared to have");
	return LINNET_OK;
}

static enum linnet_code attr_push(struct parser *s, Onnx__AttributeProto *a, const Onnx__AttributeProto *v)
{
	switch ((int)v->type) {
	case ATTR_TYPE(INT): { /* floats too, in case a later element is one */
		size_t n = a->n_ints;

		PUSH(s, a->ints, a->n_ints, v->i);
		PUSH(s, a->floats, n, v->f);
		return LINNET_OK;
	}
	case ATTR_TYPE(FLOAT): PUSH(s, a->floats, a->n_floats, v->f); return LINNET_OK;
	case ATTR_TYPE(STRING): PUSH(s, a->strings, a->n_strings, v->s); return LINNET_OK;
	case ATTR_TYPE(TENSOR): PUSH(s, a->tensors, a->n_tensors, v->t); return LINNET_OK;
	case ATTR_TYPE(GRAPH): PUSH(s, a->graphs, a->n_graphs, v->g); return LINNET_OK;
	case ATTR_TYPE(SPARSE_TENSOR): PUSH(s, a->sparse_tensors, a->n_sparse_tensors, v->sparse_tensor); return LINNET_OK;
	default: PUSH(s, a->type_protos, a->n_type_protos, v->tp); return LINNET_OK;
	}
}

static enum linnet_code attr_values(struct parser *s, Onnx__AttributeProto *a)
{
	int one = attr_one((int)a->type);

	if (a->type != ATTR_TYPE(UNDEFINED) && one == ATTR_TYPE(UNDEFINED))
		return expected(s, "one value, not a list");
	TRY(need(s, '[', "before the values"));
	if (take(s, ']')) {
		if (a->type == ATTR_TYPE(UNDEFINED))
			return bad(s, s->p, "an empty list needs its kind, as in `axes: ints = []`");
		return LINNET_OK;
	}
	do {
		const char *at = here(s);
		Onnx__AttributeProto v = ONNX__ATTRIBUTE_PROTO__INIT;

		TRY(attr_value(s, one, &v));
		if (a->type == ATTR_TYPE(INTS) && v.type == ATTR_TYPE(FLOAT) && one == ATTR_TYPE(UNDEFINED)) {
			a->n_floats = a->n_ints; /* 1, 2.5: a list of floats after all */
			a->n_ints = 0;
			a->ints = NULL;
			a->type = ATTR_TYPE(FLOATS);
		}
		if (a->type == ATTR_TYPE(FLOATS) && v.type == ATTR_TYPE(INT))
			v.type = ATTR_TYPE(FLOAT);
		if (a->type != ATTR_TYPE(UNDEFINED) && (int)a->type != attr_list((int)v.type))
			return bad(s, at, "the values of a list are of one kind");
		a->type = (Onnx__AttributeProto__AttributeType)attr_list((int)v.type);
		TRY(attr_push(s, a, &v));
	} while (take(s, ','));
	if (a->type == ATTR_TYPE(INTS))
		a->floats = NULL;
	return need(s, ']', "after the values");
}

/* name (: kind)? = value, the name having been read */
static enum linnet_code attribute(struct parser *s, char *attr_name, Onnx__AttributeProto **out)
{
	Onnx__AttributeProto *a;

	TRY_MESSAGE(s, a, attribute_proto);
	*out = a;
	a->name = attr_name;
	if (take(s, ':')) {
		struct text w = peek_word(s);

		a->type = (Onnx__AttributeProto__AttributeType)attr_type(w);
		if (a->type == ATTR_TYPE(UNDEFINED))
			return expected(s, "the kind of an attribute");
		s->p += w.n;
	}
	TRY(need(s, '=', "after the name of an attribute"));
	if (take(s, '@')) {
		TRY(name(s, "the name of an attribute", &a->ref_attr_name));
	} else if (peek(s) == '[') {
		TRY(attr_values(s, a));
	} else if (peek(s) != '&') {
		if (attr_one((int)a->type) != ATTR_TYPE(UNDEFINED))
			return expected(s, "a list of values");
		TRY(attr_value(s, (int)a->type, a));
		if (a->type == ATTR_TYPE(INT))
			a->f = 0;
	}
	a->has_type = a->type != ATTR_TYPE(UNDEFINED);
	return note(s, a);
}

/* < attr, ... > if there */
static enum linnet_code attributes(struct parser *s, Onnx__NodeProto *n)
{
	if (!take(s, '<') || take(s, '>'))
		return LINNET_OK;
	do {
		Onnx__AttributeProto *a;
		char *id;

		TRY(name(s, "the name of an attribute", &id));
		TRY(attribute(s, id, &a));
		PUSH(s, n->attribute, n->n_attribute, a);
	} while (take(s, ','));
	return need(s, '>', "after the attributes");
}

/* ---- Nodes, graphs, functions ---- */

/* a, , "b": nothing between two commas, or before the first, is a name left out. */
static enum linnet_code ids(struct parser *s, char ***list, size_t *n)
{
	do {
		char *id;

		TRY(maybe_name(s, &id));
		if (!id) {
			if (peek(s) != ',')
				return LINNET_OK;
			id = arena_strn(s->a, "", 0);
			if (!id)
				return fail_mem(s->e);
		}
		PUSH(s, *list, *n, id);
	} while (take(s, ','));
	return LINNET_OK;
}

/* domain.domain.Op:overload */
static enum linnet_code operator_name(struct parser *s, Onnx__NodeProto *n)
{
	struct str domain;
	char *id;
	bool some = false;

	str_init(&domain, s->a);
	TRY(name(s, "an operator", &id));
	while (take(s, '.')) {
		str_add(&domain, some ? "." : "");
		str_add(&domain, id);
		some = true;
		TRY(name(s, "an operator", &id));
	}
	n->op_type = id;
	if (some) {
		n->domain = str_done(&domain);
		if (!n->domain)
			return fail_mem(s->e);
		n->domain = unless_empty(n->domain);
	}
	if (take(s, ':'))
		TRY(name(s, "an overload", &n->overload));
	n->overload = unless_empty(n->overload);
	return LINNET_OK;
}

static enum linnet_code node(struct parser *s, Onnx__NodeProto **out)
{
	Onnx__NodeProto *n;

	TRY_MESSAGE(s, n, node_proto);
	*out = n;
	if (take(s, '[')) {
		TRY(maybe_name(s, &n->name));
		n->name = unless_empty(n->name);
		TRY(need(s, ']', "after the name of a node"));
	}
	TRY(ids(s, &n->output, &n->n_output));
	TRY(need(s, '=', "after the outputs of a node"));
	TRY(operator_name(s, n));
	TRY(attributes(s, n));
	TRY(need(s, '(', "before the inputs of a node"));
	TRY(ids(s, &n->input, &n->n_input));
	TRY(need(s, ')', "after the inputs of a node"));
	if (!n->n_attribute)
		TRY(attributes(s, n));
	return note(s, n);
}

static enum linnet_code nodes(struct parser *s, Onnx__NodeProto ***list, size_t *n)
{
	TRY(need(s, '{', "before the nodes"));
	while (!take(s, '}')) {
		Onnx__NodeProto *one = NULL;

		if (peek(s) == 0 && s->p == s->end)
			return expected(s, "a node or '}'");
		TRY(node(s, &one));
		PUSH(s, *list, *n, one);
	}
	return LINNET_OK;
}

static enum linnet_code arrow(struct parser *s)
{
	skip(s);
	if (s->end - s->p < 2 || s->p[0] != '=' || s->p[1] != '>')
		return expected(s, "'=>' after the inputs");
	s->p += 2;
	return LINNET_OK;
}

/* ( value infos ), each with its data when it is an input with a default */
static enum linnet_code graph_inputs(struct parser *s, Onnx__GraphProto *g)
{
	TRY(need(s, '(', "before the inputs of a graph"));
	if (take(s, ')'))
		return LINNET_OK;
	do {
		const char *at = here(s);
		Onnx__ValueInfoProto *v;
		Onnx__TensorProto *t;

		TRY(value_info(s, &v));
		TRY(note(s, v));
		PUSH(s, g->input, g->n_input, v);
		if (take(s, '=')) {
			TRY(tensor_data(s, at, v->type, v->name, &t));
			PUSH(s, g->initializer, g->n_initializer, t);
		}
	} while (take(s, ','));
	return need(s, ')', "after the inputs of a graph");
}

static enum linnet_code graph_outputs(struct parser *s, Onnx__GraphProto *g)
{
	TRY(need(s, '(', "before the outputs of a graph"));
	if (take(s, ')'))
		return LINNET_OK;
	do {
		Onnx__ValueInfoProto *v;

		TRY(value_info(s, &v));
		TRY(note(s, v));
		PUSH(s, g->output, g->n_output, v);
	} while (take(s, ','));
	return need(s, ')', "after the outputs of a graph");
}

/* < initializers and value infos >, if there; g: NULL where initializers have no place */
static enum linnet_code value_infos(struct parser *s, Onnx__GraphProto *g, Onnx__ValueInfoProto ***list, size_t *n)
{
	if (!take(s, '<') || take(s, '>'))
		return LINNET_OK;
	do {
		const char *at = here(s);
		Onnx__ValueInfoProto *v;
		Onnx__TensorProto *t;

		TRY(value_info(s, &v));
		if (g && take(s, '=')) {
			TRY(tensor_data(s, at, v->type, v->name, &t));
			PUSH(s, g->initializer, g->n_initializer, t);
		} else {
			TRY(note(s, v));
			PUSH(s, *list, *n, v);
		}
	} while (take(s, ','));
	return need(s, '>', "after the initializers and values");
}

static enum linnet_code graph(struct parser *s, char *graph_name, Onnx__GraphProto **out)
{
	Onnx__GraphProto *g;

	TRY(enter(s));
	TRY_MESSAGE(s, g, graph_proto);
	*out = g;
	g->name = graph_name;
	TRY(graph_inputs(s, g));
	TRY(arrow(s));
	TRY(graph_outputs(s, g));
	TRY(value_infos(s, g, &g->value_info, &g->n_value_info));
	TRY(nodes(s, &g->node, &g->n_node));
	leave(s);
	return note(s, g);
}

/* ( type? name, ... ): a typed one is a value info as well */
static enum linnet_code function_ids(struct parser *s, Onnx__FunctionProto *f, char ***list, size_t *n)
{
	TRY(need(s, '(', "before the inputs or outputs of a function"));
	if (take(s, ')'))
		return LINNET_OK;
	do {
		Onnx__ValueInfoProto *v;

		TRY(value_info(s, &v));
		PUSH(s, *list, *n, v->name);
		if (v->type)
			PUSH(s, f->value_info, f->n_value_info, v);
	} while (take(s, ','));
	return need(s, ')', "after the inputs or outputs of a function");
}

/* < name, name = default, ... > */
static enum linnet_code function_attrs(struct parser *s, Onnx__FunctionProto *f)
{
	if (!take(s, '<') || take(s, '>'))
		return LINNET_OK;
	do {
		Onnx__AttributeProto *a;
		char *id;

		TRY(name(s, "the name of an attribute", &id));
		if (peek(s) == ':' || peek(s) == '=') {
			TRY(attribute(s, id, &a));
			PUSH(s, f->attribute_proto, f->n_attribute_proto, a);
		} else {
			PUSH(s, f->attribute, f->n_attribute, id);
		}
	} while (take(s, ','));
	return need(s, '>', "after the attributes of a function");
}

static enum linnet_code function(struct parser *s, Onnx__FunctionProto **out)
{
	Onnx__FunctionProto *f;

	TRY_MESSAGE(s, f, function_proto);
	*out = f;
	if (take(s, '<'))
		TRY(fields(s, &f->base, '>'));
	TRY(name(s, "the name of a function", &f->name));
	TRY(function_attrs(s, f));
	TRY(function_ids(s, f, &f->input, &f->n_input));
	TRY(arrow(s));
	TRY(function_ids(s, f, &f->output, &f->n_output));
	TRY(value_infos(s, NULL, &f->value_info, &f->n_value_info));
	return nodes(s, &f->node, &f->n_node);
}

static enum linnet_code at_end(struct parser *s)
{
	skip(s);
	return s->p == s->end ? LINNET_OK : expected(s, "the end");
}

static enum linnet_code model(struct parser *s, Onnx__ModelProto **out)
{
	Onnx__ModelProto *m;
	char *id;

	TRY_MESSAGE(s, m, model_proto);
	*out = m;
	if (take(s, '<'))
		TRY(fields(s, &m->base, '>'));
	TRY(name(s, "the name of a graph", &id));
	TRY(graph(s, id, &m->graph));
	while (peek(s) || s->p < s->end) {
		Onnx__FunctionProto *f = NULL;

		TRY(function(s, &f));
		PUSH(s, m->functions, m->n_functions, f);
	}
	return LINNET_OK;
}

/* ---- Entry points ---- */

enum { NESTING = 64 };

/* A copy of the text that ends with a zero, in memory of its own, and numbers with a point. */
static enum linnet_code open_text(struct parser *s, const char *text, size_t n, struct arena **scratch, struct text_locale *l)
{
	*scratch = arena_new();
	s->text = s->p = *scratch ? arena_strn(*scratch, text, n) : NULL;
	if (!s->text || text_locale_enter(l, s->e)) {
		arena_free(*scratch);
		return fail_mem(s->e);
	}
	s->end = s->text + n;
	return LINNET_OK;
}

static void close_text(struct arena *scratch, struct text_locale *l)
{
	text_locale_leave(l);
	arena_free(scratch);
}

enum linnet_code text_parse(struct linnet_model *m, const char *text, size_t n, struct linnet_error *e)
{
	struct parser s = { .a = m->arena, .e = e, .max_depth = m->limits.max_depth ? m->limits.max_depth : NESTING };
	struct text_locale l;
	struct arena *scratch;
	Onnx__ModelProto *proto = NULL;
	enum linnet_code code;

	TRY(open_text(&s, text, n, &scratch, &l));
	code = model(&s, &proto);
	close_text(scratch, &l);
	if (!code)
		m->proto = proto;
	return code;
}

/* { nodes }, ?name block block, or ?name=word block block */
static enum linnet_code block(struct parser *s, text_given *given, void *ctx, Onnx__FunctionProto *f)
{
	Onnx__FunctionProto other = ONNX__FUNCTION_PROTO__INIT;
	char *id, *word = NULL;
	bool first;

	if (!take(s, '?'))
		return nodes(s, &f->node, &f->n_node);
	TRY(enter(s));
	TRY(name(s, "the name of an attribute or input", &id));
	if (take(s, '='))
		TRY(name(s, "the value of an attribute", &word));
	first = given && given(ctx, id, word);
	TRY(block(s, given, ctx, first ? f : &other));
	TRY(block(s, given, ctx, first ? &other : f));
	leave(s);
	return LINNET_OK;
}

static enum linnet_code row_names(struct parser *s, const struct op *op, Onnx__FunctionProto *f)
{
	char *id;

	f->name = arena_str(s->a, op->name);
	f->domain = arena_str(s->a, op->domain ? op->domain : "");
	if (!f->name || !f->domain)
		return fail_mem(s->e);
#define NAMES(from, list, n)                                                                       \
	for (int i = 0; op->from && op->from[i].name; i++) {                                       \
		id = arena_str(s->a, op->from[i].name);                                            \
		if (!id)                                                                           \
			return fail_mem(s->e);                                                     \
		PUSH(s, list, n, id);                                                              \
	}
	NAMES(in, f->input, f->n_input)
	NAMES(out, f->output, f->n_output)
	NAMES(attr, f->attribute, f->n_attribute)
#undef NAMES
	return LINNET_OK;
}

static enum linnet_code row_function(struct parser *s, const struct op *op, text_given *given, void *ctx,
                                     Onnx__FunctionProto **out)
{
	Onnx__OperatorSetIdProto *set;

	TRY_MESSAGE(s, *out, function_proto);
	TRY(row_names(s, op, *out));
	TRY_MESSAGE(s, set, operator_set_id_proto);
	set->domain = arena_get(s->a, 1, 1);
	if (!set->domain)
		return fail_mem(s->e);
	set->has_version = 1;
	set->version = OPSET_NEWEST;
	PUSH(s, (*out)->opset_import, (*out)->n_opset_import, set);
	TRY(block(s, given, ctx, *out));
	return at_end(s);
}

enum linnet_code text_parse_block(const char *text, const struct op *op, text_given *given, void *ctx,
                                  struct arena *a, Onnx__FunctionProto **out, struct linnet_error *e)
{
	struct parser s = { .a = a, .e = e, .max_depth = NESTING };
	struct text_locale l;
	struct arena *scratch;
	enum linnet_code code;

	TRY(open_text(&s, text, strlen(text), &scratch, &l));
	code = row_function(&s, op, given, ctx, out);
	close_text(scratch, &l);
	return code;
}

static enum linnet_code rule_graph(struct parser *s, Onnx__GraphProto **out)
{
	char *id;

	TRY(maybe_name(s, &id));
	if (peek(s) == '{') {
		TRY_MESSAGE(s, *out, graph_proto);
		(*out)->name = id;
		TRY(nodes(s, &(*out)->node, &(*out)->n_node));
	} else {
		TRY(graph(s, id, out));
	}
	return at_end(s);
}

enum linnet_code text_parse_graph(const char *text, struct arena *a, Onnx__GraphProto **out, struct linnet_error *e)
{
	struct parser s = { .a = a, .e = e, .max_depth = NESTING };
	struct text_locale l;
	struct arena *scratch;
	enum linnet_code code;

	TRY(open_text(&s, text, strlen(text), &scratch, &l));
	code = rule_graph(&s, out);
	close_text(scratch, &l);
	return code;
}

enum linnet_code text_parse_tensor(const char *text, size_t n, bool values, struct arena *a, Onnx__TensorProto **out,
                                   struct linnet_error *e)
{
	struct parser s = { .a = a, .e = e, .max_depth = NESTING, .values = values };
	struct text_locale l;
	struct arena *scratch;
	enum linnet_code code;

	TRY(open_text(&s, text, n, &scratch, &l));
	code = tensor(&s, out);
	if (!code)
		code = at_end(&s);
	close_text(scratch, &l);
	return code;
}
