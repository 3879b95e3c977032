/*
 * The protobuf tree to the text form. What the official syntax has no words for follows as notes, `&{field: value}`, which
 * are printed through the descriptors that protobuf-c generates.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "graph/text_syntax.h"
#include "ops/base/str.h"
#include "ops/base/utf8.h"

struct printer {
	struct str s;
	struct text_opt opt;
	int level;             /* of indentation */
	int depth, max_depth;
	struct linnet_error *e;
};

/* ---- Words and numbers ---- */

static void add(struct printer *p, const char *text)
{
	str_add(&p->s, text);
}

static void line(struct printer *p)
{
	add(p, "\n");
	for (int i = 0; i < p->level; i++)
		add(p, "  ");
}

/* Characters as they are, newline and tab included; \xHH for other control characters and what is not UTF-8. */
static void quoted(struct printer *p, const void *text, size_t n)
{
	const unsigned char *t = text;
	uint32_t c;

	add(p, "\"");
	for (size_t i = 0; i < n;) {
		size_t len = utf8_get((const char *)text + i, n - i, &c);

		if (!len || (t[i] < ' ' && t[i] != '\n' && t[i] != '\t') || t[i] == 0x7f) {
			str_addf(&p->s, "\\x%02x", t[i++]);
			continue;
		}
		if (t[i] == '"' || t[i] == '\\')
			add(p, "\\");
		str_addn(&p->s, (const char *)t + i, len);
		i += len;
	}
	add(p, "\"");
}

static void quoted_string(struct printer *p, const char *s)
{
	quoted(p, s ? s : "", s ? strlen(s) : 0);
}

/* Quoted unless it is an identifier. */
static void name(struct printer *p, const char *s)
{
	size_t n = s ? strlen(s) : 0;

	if (n && text_word(s, s + n) == n)
		add(p, s);
	else
		quoted_string(p, s);
}

/* Where a type or a number may stand as well: quoted when it would be taken for one. */
static void plain_name(struct printer *p, const char *s)
{
	if (s && (text_type_word(s, strlen(s)) || text_number_word(s, strlen(s))))
		quoted_string(p, s);
	else
		name(p, s);
}

/*
 * The number itself when it has at most six digits, else the fewest digits that read back as the same bits; other NaNs than the
 * usual one with their bits. point: never like an integer.
 */
static void real(struct printer *p, enum dtype dt, const void *bits, bool point)
{
	size_t size = dtype_bytes(dt, 1);
	uint8_t back[16] = { 0 };
	double v = dtype_get(dt, bits, 0);
	char t[40];

	if (isnan(v)) {
		uint64_t code = 0;

		text_real("nan", dt, back);
		if (!memcmp(back, bits, size)) {
			add(p, "nan");
			return;
		}
		text_real("-nan", dt, back);
		if (!memcmp(back, bits, size)) {
			add(p, "-nan");
			return;
		}
		for (size_t i = size; i-- > 0;)
			code = code << 8 | ((const uint8_t *)bits)[i];
		str_addf(&p->s, "nan(0x%" PRIx64 ")", code);
		return;
	}
	if (isinf(v)) {
		add(p, v < 0 ? "-inf" : "inf");
		return;
	}
	/* In narrow types few digits may be enough for a number that is far off: 450 for 448. */
	snprintf(t, sizeof t, "%.6g", v);
	for (int digits = dt == DT_DOUBLE && fabs(v) >= 0x1p-1022 ? 15 : dt == DT_FLOAT && fabs(v) >= 0x1p-126 ? 6 : 1;
	     strtod(t, NULL) != v && digits <= 17; digits++) {
		snprintf(t, sizeof t, "%.*g", digits, v);
		text_real(t, dt, back);
		if (!memcmp(back, bits, size))
			break;
	}
	add(p, t);
	if (point && !strpbrk(t, ".e"))
		add(p, ".0");
}

/* ---- Fields without words of their own ---- */

static void message(struct printer *p, const ProtobufCMessage *m);

static void field_value(struct printer *p, const ProtobufCFieldDescriptor *f, const void *at)
{
	const ProtobufCEnumValue *v;

	switch (f->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32: str_addf(&p->s, "%" PRId32, *(const int32_t *)at); break;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64: str_addf(&p->s, "%" PRId64, *(const int64_t *)at); break;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32: str_addf(&p->s, "%" PRIu32, *(const uint32_t *)at); break;
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64: str_addf(&p->s, "%" PRIu64, *(const uint64_t *)at); break;
	case PROTOBUF_C_TYPE_BOOL: add(p, *(const protobuf_c_boolean *)at ? "1" : "0"); break;
	case PROTOBUF_C_TYPE_FLOAT: real(p, DT_FLOAT, at, false); break;
	case PROTOBUF_C_TYPE_DOUBLE: real(p, DT_DOUBLE, at, false); break;
	case PROTOBUF_C_TYPE_ENUM:
		v = protobuf_c_enum_descriptor_get_value(f->descriptor, *(const int *)at);
		if (v)
			add(p, v->name);
		else
			str_addf(&p->s, "%d", *(const int *)at);
		break;
	case PROTOBUF_C_TYPE_STRING: quoted_string(p, *(char *const *)at); break;
	case PROTOBUF_C_TYPE_BYTES:
		quoted(p, ((const ProtobufCBinaryData *)at)->data, ((const ProtobufCBinaryData *)at)->len);
		break;
	case PROTOBUF_C_TYPE_MESSAGE: message(p, *(ProtobufCMessage *const *)at); break;
	}
}

static size_t field_size(const ProtobufCFieldDescriptor *f)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE: return 8;
	case PROTOBUF_C_TYPE_BYTES: return sizeof(ProtobufCBinaryData);
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE: return sizeof(void *);
	default: return 4;
	}
}

static bool present(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
	const char *at = (const char *)m + f->offset, *has = (const char *)m + f->quantifier_offset;

	if (f->label == PROTOBUF_C_LABEL_REPEATED)
		return *(const size_t *)has > 0;
	if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
		return *(const uint32_t *)has == f->id;
	if (f->type == PROTOBUF_C_TYPE_STRING)
		return *(char *const *)at && **(char *const *)at;
	if (f->type == PROTOBUF_C_TYPE_MESSAGE)
		return *(void *const *)at;
	return *(const protobuf_c_boolean *)has;
}

/* field: value, ... of those fields that are present and neither said by the syntax nor in `also`; whether there were any. */
static bool fields(struct printer *p, const ProtobufCMessage *m, const char *also, const char *open, const char *between)
{
	const ProtobufCMessageDescriptor *d = m->descriptor;
	bool any = false;

	for (unsigned i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &d->fields[i];
		const char *at = (const char *)m + f->offset;

		if (text_listed(text_said(d), f->name) || text_listed(also, f->name) || !present(m, f))
			continue;
		add(p, any ? between : open);
		any = true;
		str_addf(&p->s, "%s: ", f->name);
		if (f->label != PROTOBUF_C_LABEL_REPEATED) {
			field_value(p, f, at);
			continue;
		}
		add(p, "[");
		for (size_t k = 0; k < *(const size_t *)((const char *)m + f->quantifier_offset); k++) {
			add(p, k ? ", " : "");
			field_value(p, f, *(const char *const *)at + k * field_size(f));
		}
		add(p, "]");
	}
	for (unsigned i = 0; i < m->n_unknown_fields && !p->opt.plain && !p->opt.brief; i++) {
		const ProtobufCMessageUnknownField *f = &m->unknown_fields[i];

		add(p, any ? between : open);
		any = true;
		str_addf(&p->s, "%" PRIu32 "/%u: ", f->tag, (unsigned)f->wire_type);
		quoted(p, f->data, f->len);
	}
	return any;
}

/* The note of m, if it needs one; whether it did. */
static bool note(struct printer *p, const void *m, const char *also)
{
	if (p->opt.plain || p->opt.brief || !fields(p, m, also, " &{", ", "))
		return false;
	add(p, "}");
	return true;
}

/* ---- Types ---- */

static void element_type(struct printer *p, int32_t t)
{
	if (t > 0 && t < DT_COUNT)
		add(p, dtype_name((enum dtype)t));
	else if (t)
		str_addf(&p->s, "undefined(%" PRId32 ")", t);
	else
		add(p, "undefined");
}

static void shape(struct printer *p, const Onnx__TensorShapeProto *s)
{
	if (!s)
		add(p, "[]");
	if (!s || !s->n_dim)
		return;
	for (size_t i = 0; i < s->n_dim; i++) {
		const Onnx__TensorShapeProto__Dimension *d = s->dim[i];

		add(p, i ? "," : "[");
		if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE)
			str_addf(&p->s, "%" PRId64, d->dim_value);
		else if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM)
			name(p, d->dim_param);
		else
			add(p, "?");
		note(p, d, "");
	}
	add(p, "]");
}

static void opaque(struct printer *p, const Onnx__TypeProto__Opaque *t)
{
	add(p, "opaque(");
	if (t->domain && *t->domain) {
		name(p, t->domain);
		add(p, ",");
	}
	if ((t->name && *t->name) || (t->domain && *t->domain))
		name(p, t->name);
	add(p, ")");
}

static void type(struct printer *p, const Onnx__TypeProto *t)
{
	if (!t) {
		add(p, "untyped");
		return;
	}
	if (p->depth == p->max_depth) {
		if (!p->s.failed)
			fail(p->e, LINNET_ELIMIT, "types nested more than %d deep", p->max_depth);
		p->s.failed = 1;
		return;
	}
	p->depth++;
	switch (t->value_case) {
	case ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE:
		element_type(p, t->tensor_type->elem_type);
		shape(p, t->tensor_type->shape);
		break;
	case ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE:
		add(p, "seq(");
		type(p, t->sequence_type->elem_type);
		add(p, ")");
		break;
	case ONNX__TYPE_PROTO__VALUE_OPTIONAL_TYPE:
		add(p, "optional(");
		type(p, t->optional_type->elem_type);
		add(p, ")");
		break;
	case ONNX__TYPE_PROTO__VALUE_MAP_TYPE:
		add(p, "map(");
		element_type(p, t->map_type->key_type);
		add(p, ", ");
		type(p, t->map_type->value_type);
		add(p, ")");
		break;
	case ONNX__TYPE_PROTO__VALUE_SPARSE_TENSOR_TYPE:
		add(p, "sparse_tensor(");
		element_type(p, t->sparse_tensor_type->elem_type);
		shape(p, t->sparse_tensor_type->shape);
		add(p, ")");
		break;
	case ONNX__TYPE_PROTO__VALUE_OPAQUE_TYPE: opaque(p, t->opaque_type); break;
	default: add(p, "untyped"); break;
	}
	p->depth--;
	note(p, t, "");
}

/* Whether the type has a note. */
static bool noted(const Onnx__TypeProto *t)
{
	return (t->denotation && *t->denotation) || t->base.n_unknown_fields;
}

static void value_info(struct printer *p, const Onnx__ValueInfoProto *v)
{
	const Onnx__TypeProto *t = v->type;

	if (t && (t->value_case != ONNX__TYPE_PROTO__VALUE__NOT_SET || noted(t))) {
		type(p, t);
		add(p, " ");
	}
	plain_name(p, v->name);
	note(p, v, "");
}

/* ---- Tensors ---- */

/* Where a tensor has its elements, when it has them in the one place its type asks for, and as many as its lengths say. */
enum source { SOURCE_NONE, SOURCE_ODD, SOURCE_EXTERNAL, SOURCE_RAW, SOURCE_STRING, SOURCE_FLOAT, SOURCE_INT32, SOURCE_INT64,
	      SOURCE_DOUBLE, SOURCE_UINT64 };

static enum source typed_source(enum dtype dt)
{
	switch (dt) {
	case DT_FLOAT:
	case DT_COMPLEX64: return SOURCE_FLOAT;
	case DT_DOUBLE:
	case DT_COMPLEX128: return SOURCE_DOUBLE;
	case DT_INT64: return SOURCE_INT64;
	case DT_UINT32:
	case DT_UINT64: return SOURCE_UINT64;
	case DT_STRING: return SOURCE_STRING;
	default: return SOURCE_INT32;
	}
}

/* Whether the entries of int32_data or uint64_data are values of a narrower type, or, of the narrowest, bytes of several. */
static bool entries_fit(const Onnx__TensorProto *t, enum source from, enum dtype dt)
{
	unsigned bits = dt == DT_BOOL ? 1 : dtype_bits(dt);
	bool several = bits == 2 || bits == 4, sign = several || dtype_class(dt) == CLASS_INT;
	int64_t hi = several ? UINT8_MAX : ((int64_t)1 << (bits - sign) % 63) - 1; /* of the types in int32_data */
	int64_t lo = several ? INT8_MIN : sign ? -hi - 1 : 0;

	for (size_t i = 0; from == SOURCE_INT32 && i < t->n_int32_data; i++)
		if (t->int32_data[i] < lo || t->int32_data[i] > hi)
			return false;
	for (size_t i = 0; from == SOURCE_UINT64 && bits == 32 && i < t->n_uint64_data; i++)
		if (t->uint64_data[i] > UINT32_MAX)
			return false;
	return true;
}

static enum source find_source(const Onnx__TensorProto *t, uint64_t *elements)
{
	const size_t n[] = { t->has_raw_data ? t->raw_data.len : 0, t->n_string_data, t->n_float_data, t->n_int32_data, t->n_int64_data,
		             t->n_double_data, t->n_uint64_data };
	enum dtype dt = t->data_type > 0 && t->data_type < DT_COUNT ? (enum dtype)t->data_type : DT_UNDEFINED;
	uint64_t count = 1, want;
	int sources = 0;
	enum source found = SOURCE_NONE;

	*elements = UINT64_MAX; /* no number */
	for (size_t i = 0; i < t->n_dims; i++) {
		if (t->dims[i] < 0 || (t->dims[i] && count > (uint64_t)INT64_MAX / (uint64_t)t->dims[i]))
			return SOURCE_ODD;
		count *= (uint64_t)t->dims[i];
	}
	*elements = count;
	for (int i = 0; i < 7; i++)
		if (n[i]) {
			sources++;
			found = (enum source)(SOURCE_RAW + i);
		}
	if (t->has_data_location && t->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL)
		return sources ? SOURCE_ODD : SOURCE_EXTERNAL;
	if (dt == DT_UNDEFINED || t->n_external_data || t->segment)
		return SOURCE_ODD;
	if (!sources)
		return count ? SOURCE_NONE : dt == DT_STRING ? SOURCE_STRING : SOURCE_RAW;
	if (sources > 1 || (found == SOURCE_RAW ? dt == DT_STRING : found != typed_source(dt)))
		return SOURCE_ODD;
	want = count;
	if (found == SOURCE_RAW && dtype_bits(dt) == 6)
		want = (count * 6 + 7) / 8;
	else if (found == SOURCE_RAW || dtype_bits(dt) < 6)
		want = dtype_bytes(dt, count);
	else if (dtype_class(dt) == CLASS_COMPLEX)
		want = 2 * count;
	return n[found - SOURCE_RAW] == want && entries_fit(t, found, dt) ? found : SOURCE_ODD;
}

/* Element i (of complex types, half i) as it would be stored alone. Raw data need not be aligned; elements under a byte lie close
 * in it, from the low bits on. */
static void element_bits(const Onnx__TensorProto *t, enum source from, enum dtype dt, size_t i, void *out)
{
	unsigned bits = dtype_bits(dt), pair, at = (unsigned)(i * bits % 8);
	size_t size = dtype_class(dt) == CLASS_COMPLEX ? dtype_bytes(dt, 1) / 2 : dtype_bytes(dt, 1), byte = i * bits / 8;
	uint8_t one;

	switch (from) {
	case SOURCE_FLOAT: memcpy(out, &t->float_data[i], 4); return;
	case SOURCE_DOUBLE: memcpy(out, &t->double_data[i], 8); return;
	case SOURCE_INT64: memcpy(out, &t->int64_data[i], 8); return;
	case SOURCE_UINT64: memcpy(out, &t->uint64_data[i], 8); return;
	case SOURCE_INT32:
		if (bits > 4) {
			memcpy(out, &t->int32_data[i], 4);
			return;
		}
		pair = (uint8_t)t->int32_data[byte]; /* an entry is a byte of several */
		break;
	default:
		if (bits >= 8) {
			memcpy(out, t->raw_data.data + i * size, size);
			return;
		}
		pair = t->raw_data.data[byte] | (at + bits > 8 ? (unsigned)t->raw_data.data[byte + 1] << 8 : 0);
	}
	one = (uint8_t)(pair >> at & ((1u << bits) - 1));
	memcpy(out, &one, 1);
}

static void element(struct printer *p, const Onnx__TensorProto *t, enum source from, enum dtype dt, size_t i)
{
	_Alignas(16) uint8_t one[16] = { 0 };
	uint64_t u;

	element_bits(t, from, dt, i, one);
	switch (dtype_class(dt)) {
	case CLASS_COMPLEX: real(p, dt == DT_COMPLEX64 ? DT_FLOAT : DT_DOUBLE, one, false); return;
	case CLASS_FLOAT:
		if (dtype_bits(dt) > 16 || !p->opt.plain) {
			real(p, dt, one, dtype_bits(dt) <= 16);
			return;
		}
		str_addf(&p->s, "%d", one[0] | one[1] << 8);
		return;
	case CLASS_UINT:
		memcpy(&u, one, 8);
		str_addf(&p->s, "%" PRIu64, dtype_bits(dt) == 64 ? u : u & (((uint64_t)1 << dtype_bits(dt)) - 1));
		return;
	default: str_addf(&p->s, "%" PRId64, dtype_get_int(dt, one, 0)); return;
	}
}

/* The data after a tensor's type and name, and the note; whether there was one. */
static bool tensor_data(struct printer *p, const Onnx__TensorProto *t)
{
	static const char data[] = " raw_data string_data float_data int32_data int64_data double_data uint64_data ";
	uint64_t n;
	enum source from = find_source(t, &n);
	enum dtype dt = (enum dtype)t->data_type;

	if (from == SOURCE_EXTERNAL) {
		add(p, " [");
		for (size_t i = 0; i < t->n_external_data; i++) {
			add(p, i ? ", " : "");
			message(p, &t->external_data[i]->base);
		}
		add(p, "]");
		return note(p, t, " external_data data_location ");
	}
	if (p->opt.max_elements && n > (uint64_t)p->opt.max_elements)
		from = SOURCE_NONE;
	if (from == SOURCE_ODD && !n && (p->opt.plain || p->opt.brief))
		from = dt > DT_UNDEFINED && dt < DT_COUNT ? SOURCE_RAW : SOURCE_NONE;
	if (from == SOURCE_NONE || (from == SOURCE_ODD && (p->opt.plain || p->opt.brief))) {
		add(p, " {...}");
		return note(p, t, data);
	}
	if (from == SOURCE_ODD)
		return note(p, t, "");
	add(p, " {");
	if (dtype_class(dt) == CLASS_COMPLEX)
		n *= 2;
	for (size_t i = 0; i < n && !p->s.failed; i++) {
		add(p, i ? ", " : "");
		if (from == SOURCE_STRING)
			quoted(p, t->string_data[i].data, t->string_data[i].len);
		else
			element(p, t, from, dt, i);
	}
	add(p, "}");
	return note(p, t, data);
}

/* named: where even an empty name has to stand */
static bool tensor(struct printer *p, const Onnx__TensorProto *t, bool named)
{
	element_type(p, t->data_type);
	for (size_t i = 0; i < t->n_dims; i++)
		str_addf(&p->s, "%s%" PRId64, i ? "," : "[", t->dims[i]);
	add(p, t->n_dims ? "] " : " ");
	if (named || (t->name && *t->name)) {
		name(p, t->name);
		add(p, " ");
	}
	add(p, "=");
	return tensor_data(p, t);
}

/* ---- Attributes ---- */

static bool graph(struct printer *p, const Onnx__GraphProto *g);

static const char *attr_word(int kind)
{
	switch (kind) {
#define X(word, number, field, one)                                                                \
	case number: return #word;
		TEXT_ATTRS(X)
#undef X
	default: return NULL;
	}
}

/* Files of the first versions do not say the kind: it is that of the one field that is there. */
static int attr_kind(const Onnx__AttributeProto *a)
{
	const ProtobufCMessageDescriptor *d = a->base.descriptor;
	int kind = (int)a->type;

	if (kind || a->ref_attr_name)
		return kind;
#define X(word, number, field, one)                                                                \
	if (present(&a->base, protobuf_c_message_descriptor_get_field_by_name(d, #field)))         \
		kind = kind ? -1 : number;
	TEXT_ATTRS(X)
#undef X
	return kind;
}

/* The elements of list a->field, each printed by `call` on v. */
#define LIST(a, n_field, field, call)                                                              \
	do {                                                                                       \
		add(p, "[");                                                                       \
		for (size_t i = 0; i < (a)->n_field; i++) {                                        \
			add(p, i ? ", " : "");                                                     \
			v = (const void *)&(a)->field[i];                                          \
			call;                                                                      \
		}                                                                                  \
		add(p, "]");                                                                       \
	} while (0)

/* The value, if it has words; *inner: it ends with something that has notes of its own but none was printed. */
static bool attr_value(struct printer *p, const Onnx__AttributeProto *a, int kind, bool *inner)
{
	const void *v;

	*inner = false;
	switch (kind) {
	case ATTR_TYPE(FLOAT): real(p, DT_FLOAT, &a->f, true); return true;
	case ATTR_TYPE(INT): str_addf(&p->s, "%" PRId64, a->i); return true;
	case ATTR_TYPE(STRING): quoted(p, a->s.data, a->has_s ? a->s.len : 0); return true;
	case ATTR_TYPE(TENSOR):
		if (a->t)
			*inner = !tensor(p, a->t, false);
		return a->t;
	case ATTR_TYPE(GRAPH):
		if (a->g)
			*inner = !graph(p, a->g);
		return a->g;
	case ATTR_TYPE(TYPE_PROTO):
		if (a->tp)
			type(p, a->tp);
		*inner = a->tp && !noted(a->tp);
		return a->tp;
	case ATTR_TYPE(SPARSE_TENSOR):
		if (a->sparse_tensor)
			message(p, &a->sparse_tensor->base);
		return a->sparse_tensor;
	case ATTR_TYPE(FLOATS): LIST(a, n_floats, floats, real(p, DT_FLOAT, v, true)); return true;
	case ATTR_TYPE(INTS): LIST(a, n_ints, ints, str_addf(&p->s, "%" PRId64, *(const int64_t *)v)); return true;
	case ATTR_TYPE(STRINGS):
		LIST(a, n_strings, strings, quoted(p, ((const ProtobufCBinaryData *)v)->data, ((const ProtobufCBinaryData *)v)->len));
		return true;
	case ATTR_TYPE(TENSORS): LIST(a, n_tensors, tensors, tensor(p, *(Onnx__TensorProto *const *)v, false)); return true;
	case ATTR_TYPE(GRAPHS): LIST(a, n_graphs, graphs, graph(p, *(Onnx__GraphProto *const *)v)); return true;
	case ATTR_TYPE(TYPE_PROTOS): LIST(a, n_type_protos, type_protos, type(p, *(Onnx__TypeProto *const *)v)); return true;
	case ATTR_TYPE(SPARSE_TENSORS):
		LIST(a, n_sparse_tensors, sparse_tensors, message(p, *(ProtobufCMessage *const *)v));
		return true;
	default: return false;
	}
}

/* What the value alone does not tell. */
static bool needs_kind(const Onnx__AttributeProto *a, int kind)
{
	switch (kind) {
	case ATTR_TYPE(TENSOR): return !a->t;
	case ATTR_TYPE(GRAPH): return !a->g;
	case ATTR_TYPE(TYPE_PROTO): return !a->tp;
	case ATTR_TYPE(SPARSE_TENSOR): return true;
	case ATTR_TYPE(FLOATS): return !a->n_floats;
	case ATTR_TYPE(INTS): return !a->n_ints;
	case ATTR_TYPE(STRINGS): return !a->n_strings;
	case ATTR_TYPE(TENSORS): return !a->n_tensors;
	case ATTR_TYPE(GRAPHS): return !a->n_graphs;
	case ATTR_TYPE(SPARSE_TENSORS): return true;
	case ATTR_TYPE(TYPE_PROTOS): return !a->n_type_protos;
	default: return false;
	}
}

static void attribute(struct printer *p, const Onnx__AttributeProto *a)
{
	int kind = attr_kind(a);
	const char *word = attr_word(kind), *field = "";
	bool inner = false, value = true;
	size_t at;

	name(p, a->name);
	if (word && (a->ref_attr_name || needs_kind(a, kind)))
		str_addf(&p->s, ": %s", word);
	add(p, " = ");
	if (a->ref_attr_name) {
		add(p, "@");
		name(p, a->ref_attr_name);
		field = word ? " type " : "";
	} else {
		value = attr_value(p, a, kind, &inner);
		switch (kind) {
#define X(word_, number, field_, one)                                                              \
	case number: field = value ? " type " #field_ " " : " type "; break;
			TEXT_ATTRS(X)
#undef X
		default: break;
		}
	}
	if (p->opt.plain || p->opt.brief) {
		add(p, value ? "" : "&{}");
		return;
	}
	/* A note belongs to the nearest thing before it, so what ends the value gets an empty one before the attribute's. */
	at = p->s.n;
	if (inner)
		add(p, " &{}");
	if (!note(p, a, field)) {
		p->s.n = at;
		if (!value)
			add(p, "&{}");
	}
}

static void attributes(struct printer *p, Onnx__AttributeProto *const *a, size_t n)
{
	if (!n)
		return;
	add(p, " <");
	for (size_t i = 0; i < n; i++) {
		add(p, i ? ", " : "");
		attribute(p, a[i]);
	}
	add(p, ">");
}

/* ---- Nodes, graphs, functions ---- */

static void names(struct printer *p, char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		add(p, i ? ", " : "");
		plain_name(p, list[i]);
	}
}

/* Dotted identifiers as they are, any other domain quoted. */
static void domain(struct printer *p, const char *d)
{
	const char *end = d + strlen(d), *c = d;

	for (;;) {
		size_t n = text_word(c, end);

		c += n;
		if (!n || (c < end && *c != '.'))
			break;
		if (c++ == end) {
			add(p, d);
			return;
		}
	}
	quoted_string(p, d);
}

static void node(struct printer *p, const Onnx__NodeProto *n)
{
	bool graphs = false;

	line(p);
	if (n->name && *n->name) {
		add(p, "[");
		name(p, n->name);
		add(p, "] ");
	}
	names(p, n->output, n->n_output);
	add(p, n->n_output ? " = " : "= ");
	if (n->domain && *n->domain) {
		domain(p, n->domain);
		add(p, ".");
	}
	name(p, n->op_type);
	if (n->overload && *n->overload) {
		add(p, ":");
		name(p, n->overload);
	}
	for (size_t i = 0; i < n->n_attribute; i++)
		graphs |= n->attribute[i]->g || n->attribute[i]->n_graphs;
	if (!graphs)
		attributes(p, n->attribute, n->n_attribute);
	add(p, " (");
	names(p, n->input, n->n_input);
	add(p, ")");
	if (graphs)
		attributes(p, n->attribute, n->n_attribute);
	note(p, n, "");
}

static void nodes(struct printer *p, Onnx__NodeProto *const *list, size_t n)
{
	line(p);
	add(p, "{");
	p->level++;
	for (size_t i = 0; i < n && !p->s.failed; i++)
		node(p, list[i]);
	p->level--;
	line(p);
	add(p, "}");
}

static void value_infos(struct printer *p, Onnx__ValueInfoProto *const *list, size_t n)
{
	add(p, "(");
	for (size_t i = 0; i < n; i++) {
		add(p, i ? ", " : "");
		value_info(p, list[i]);
	}
	add(p, ")");
}

/* < one a line > */
static void inner_values(struct printer *p, Onnx__TensorProto *const *init, size_t ninit,
                         Onnx__ValueInfoProto *const *info, size_t ninfo)
{
	if (!ninit && !ninfo)
		return;
	line(p);
	add(p, "<");
	p->level++;
	for (size_t i = 0; i < ninit && !p->s.failed; i++) {
		add(p, i ? "," : "");
		line(p);
		tensor(p, init[i], true);
	}
	for (size_t i = 0; i < ninfo && !p->s.failed; i++) {
		add(p, i || ninit ? "," : "");
		line(p);
		value_info(p, info[i]);
	}
	p->level--;
	line(p);
	add(p, ">");
}

static bool graph(struct printer *p, const Onnx__GraphProto *g)
{
	plain_name(p, g->name);
	add(p, " ");
	if (p->depth == p->max_depth) {
		if (!p->s.failed)
			fail(p->e, LINNET_ELIMIT, "graphs nested more than %d deep", p->max_depth);
		p->s.failed = 1;
		return false;
	}
	p->depth++;
	p->level += p->depth > 1;
	value_infos(p, g->input, g->n_input);
	add(p, " => ");
	value_infos(p, g->output, g->n_output);
	inner_values(p, g->initializer, g->n_initializer, g->value_info, g->n_value_info);
	nodes(p, g->node, g->n_node);
	p->level -= p->depth > 1;
	p->depth--;
	return note(p, g, "");
}

/* One message as the value of a field: in its own syntax if it has one, else { field: value, ... }. */
static void message(struct printer *p, const ProtobufCMessage *m)
{
	const ProtobufCMessageDescriptor *d = m->descriptor;

	if (d == &onnx__string_string_entry_proto__descriptor) {
		quoted_string(p, ((const Onnx__StringStringEntryProto *)(const void *)m)->key);
		add(p, ": ");
		quoted_string(p, ((const Onnx__StringStringEntryProto *)(const void *)m)->value);
	} else if (d == &onnx__operator_set_id_proto__descriptor) {
		quoted_string(p, ((const Onnx__OperatorSetIdProto *)(const void *)m)->domain);
		str_addf(&p->s, " : %" PRId64, ((const Onnx__OperatorSetIdProto *)(const void *)m)->version);
	} else if (d == &onnx__tensor_proto__descriptor) {
		tensor(p, (const Onnx__TensorProto *)(const void *)m, false);
	} else if (d == &onnx__type_proto__descriptor) {
		type(p, (const Onnx__TypeProto *)(const void *)m);
	} else if (d == &onnx__graph_proto__descriptor) {
		graph(p, (const Onnx__GraphProto *)(const void *)m);
	} else {
		add(p, "{");
		fields(p, m, "", "", ", ");
		add(p, "}");
	}
}

/* <\n field: value,\n ... >\n of a model or function */
static void header(struct printer *p, const ProtobufCMessage *m, const char *also)
{
	size_t at = p->s.n;
	bool any;

	add(p, "<");
	any = fields(p, m, also, "\n  ", ",\n  ");
	if (any)
		add(p, "\n>\n");
	else
		p->s.n = at;
}

static void function(struct printer *p, const Onnx__FunctionProto *f)
{
	header(p, &f->base, p->opt.plain || p->opt.brief ? " metadata_props " : "");
	name(p, f->name);
	add(p, " ");
	if (f->n_attribute || f->n_attribute_proto) {
		add(p, "<");
		names(p, f->attribute, f->n_attribute);
		for (size_t i = 0; i < f->n_attribute_proto; i++) {
			add(p, i || f->n_attribute ? ", " : "");
			attribute(p, f->attribute_proto[i]);
		}
		add(p, "> ");
	}
	add(p, "(");
	names(p, f->input, f->n_input);
	add(p, ") => (");
	names(p, f->output, f->n_output);
	add(p, ")");
	inner_values(p, NULL, 0, f->value_info, f->n_value_info);
	nodes(p, f->node, f->n_node);
	add(p, "\n");
}

static void model(struct printer *p, const Onnx__ModelProto *m)
{
	static const Onnx__GraphProto empty = ONNX__GRAPH_PROTO__INIT;

	header(p, &m->base, p->opt.plain || p->opt.brief ? " training_info configuration " : "");
	graph(p, m->graph ? m->graph : &empty);
	add(p, "\n");
	for (size_t i = 0; i < m->n_functions && !p->s.failed; i++) {
		add(p, "\n");
		function(p, m->functions[i]);
	}
}

enum linnet_code text_print_model(const struct linnet_model *m, const struct text_opt *opt, struct arena *a, char **text,
                                  struct linnet_error *e)
{
	struct linnet_error first = { 0 };
	struct printer p = { .max_depth = m->limits.max_depth ? m->limits.max_depth : 64, .e = &first };
	struct text_locale l;

	if (!m->proto)
		return fail(e, LINNET_EUSAGE, "there is no model to print");
	if (opt)
		p.opt = *opt;
	str_init(&p.s, a);
	TRY(text_locale_enter(&l, e));
	model(&p, m->proto);
	text_locale_leave(&l);
	*text = str_done(&p.s);
	if (first.code)
		return fail(e, first.code, "%s", first.message);
	return *text ? LINNET_OK : fail_mem(e);
}

enum linnet_code text_print(const struct linnet_model *m, struct arena *a, char **text, struct linnet_error *e)
{
	return text_print_model(m, NULL, a, text, e);
}
