/* Sequences, optionals and maps in files: SequenceProto, OptionalProto and MapProto to and from values. */
#include <string.h>

#include "graph/proto.h"
#include "ops/kernel.h"

/* ---- Reading ---- */

/* A value whose members are to come; what the file does not say of its type is as wanted. */
static enum linnet_code begin(struct linnet_model *m, const struct type *want, enum type_kind kind, size_t n, struct tensor **out,
                              struct linnet_error *e)
{
	TRY(members_new(m->arena, kind, want->dt, (int64_t)n, out, e));
	(*out)->key = kind == KIND_SEQUENCE_MAP ? want->key : DT_UNDEFINED;
	return LINNET_OK;
}

static void set_member(struct tensor *t, size_t i, struct tensor *member)
{
	((struct tensor **)t->data)[i] = member;
	if (!i) {
		t->dt = member->dt;
		t->key = member->key;
	}
}

static enum linnet_code map_keys(struct linnet_model *m, const Onnx__MapProto *p, struct tensor **out, struct linnet_error *e)
{
	bool strings = p->key_type == DT_STRING;
	int64_t n = (int64_t)(strings ? p->n_string_keys : p->n_keys);

	if (!strings && p->key_type != DT_INT64)
		return fail(e, LINNET_EUNSUPPORTED, "a map's keys are of element type %d; int64 and string are supported", (int)p->key_type);
	if (!strings)
		return tensor_wrap(m->arena, DT_INT64, 1, &n, p->keys, out, e);
	TRY(tensor_new(m->arena, DT_STRING, 1, &n, out, e));
	for (int64_t i = 0; i < n; i++)
		((struct text *)(*out)->data)[i] = (struct text){ (const char *)p->string_keys[i].data, p->string_keys[i].len };
	return LINNET_OK;
}

/* Scalars in a tensor of one dimension. */
static enum linnet_code map_values(struct linnet_model *m, const Onnx__SequenceProto *p, enum dtype want, struct tensor **out,
                                   struct linnet_error *e)
{
	int64_t n = p ? (int64_t)p->n_tensor_values : 0;

	if (p && (p->n_sequence_values || p->n_map_values || p->n_optional_values || p->n_sparse_tensor_values))
		return fail(e, LINNET_EUNSUPPORTED, "a map's values are no tensors");
	if (!n)
		return tensor_new(m->arena, want, 1, &n, out, e);
	for (int64_t i = 0; i < n; i++) {
		struct tensor *one;

		TRY(proto_tensor(m, p->tensor_values[i], &one, e));
		if (one->n != 1)
			return fail(e, LINNET_EUNSUPPORTED, "value %lld of a map has %lld elements; only scalars are supported", (long long)i,
			            (long long)one->n);
		if (!i)
			TRY(tensor_new(m->arena, one->dt, 1, &n, out, e));
		if (one->dt != (*out)->dt)
			return fail(e, LINNET_EFORMAT, "a map's values are of more than one element type");
		element_copy(*out, i, one, 0);
	}
	return LINNET_OK;
}

static enum linnet_code read_map(struct linnet_model *m, const Onnx__MapProto *p, const struct type *want, struct tensor **out,
                                 struct linnet_error *e)
{
	struct tensor *keys, *values;

	TRY(map_keys(m, p, &keys, e));
	TRY(map_values(m, p->values, want->dt, &values, e));
	if (keys->n != values->n)
		return fail(e, LINNET_EFORMAT, "a map has %lld keys and %lld values", (long long)keys->n, (long long)values->n);
	TRY(members_new(m->arena, KIND_MAP, values->dt, 2, out, e));
	(*out)->key = keys->dt;
	((struct tensor **)(*out)->data)[0] = keys;
	((struct tensor **)(*out)->data)[1] = values;
	return LINNET_OK;
}

static enum linnet_code read_sequence(struct linnet_model *m, const Onnx__SequenceProto *p, const struct type *want,
                                      struct tensor **out, struct linnet_error *e)
{
	enum type_kind kind = p->n_map_values || want->kind == KIND_SEQUENCE_MAP ? KIND_SEQUENCE_MAP : KIND_SEQUENCE;
	size_t n = kind == KIND_SEQUENCE_MAP ? p->n_map_values : p->n_tensor_values;

	if (p->n_sparse_tensor_values || p->n_sequence_values || p->n_optional_values || (p->n_tensor_values && p->n_map_values))
		return fail(e, LINNET_EUNSUPPORTED, "a sequence of other values than tensors or maps is not supported");
	TRY(begin(m, want, kind, n, out, e));
	for (size_t i = 0; i < n; i++) {
		struct tensor *member;

		if (kind == KIND_SEQUENCE_MAP)
			TRY(read_map(m, p->map_values[i], want, &member, e));
		else
			TRY(proto_tensor(m, p->tensor_values[i], &member, e));
		set_member(*out, i, member);
	}
	return LINNET_OK;
}

static enum linnet_code read_optional(struct linnet_model *m, const Onnx__OptionalProto *p, const struct type *want,
                                      struct tensor **out, struct linnet_error *e)
{
	enum type_kind kind = p->sequence_value ? KIND_OPTIONAL_SEQUENCE : p->tensor_value ? KIND_OPTIONAL : want->kind;
	bool full = p->tensor_value || p->sequence_value;
	struct type inner = *want;
	struct tensor *member;

	if (p->sparse_tensor_value || p->map_value || p->optional_value)
		return fail(e, LINNET_EUNSUPPORTED, "an optional of another value than a tensor or a sequence is not supported");
	inner.kind = KIND_SEQUENCE;
	TRY(begin(m, want, kind, full, out, e));
	if (p->sequence_value)
		TRY(read_sequence(m, p->sequence_value, &inner, &member, e));
	else if (full)
		TRY(proto_tensor(m, p->tensor_value, &member, e));
	if (full)
		set_member(*out, 0, member);
	return LINNET_OK;
}

const ProtobufCMessageDescriptor *proto_of_kind(enum type_kind kind)
{
	switch (kind) {
	case KIND_SEQUENCE:
	case KIND_SEQUENCE_MAP: return &onnx__sequence_proto__descriptor;
	case KIND_OPTIONAL:
	case KIND_OPTIONAL_SEQUENCE: return &onnx__optional_proto__descriptor;
	case KIND_MAP: return &onnx__map_proto__descriptor;
	default: return &onnx__tensor_proto__descriptor;
	}
}

enum linnet_code proto_value(struct linnet_model *m, const struct type *want, const ProtobufCMessage *msg, struct tensor **out,
                             const char **name, struct linnet_error *e)
{
	const ProtobufCMessageDescriptor *d = msg->descriptor;

	if (d == &onnx__sequence_proto__descriptor) {
		*name = ((const Onnx__SequenceProto *)msg)->name;
		return read_sequence(m, (const Onnx__SequenceProto *)msg, want, out, e);
	}
	if (d == &onnx__optional_proto__descriptor) {
		*name = ((const Onnx__OptionalProto *)msg)->name;
		return read_optional(m, (const Onnx__OptionalProto *)msg, want, out, e);
	}
	if (d == &onnx__map_proto__descriptor) {
		*name = ((const Onnx__MapProto *)msg)->name;
		return read_map(m, (const Onnx__MapProto *)msg, want, out, e);
	}
	*name = ((const Onnx__TensorProto *)msg)->name;
	return proto_tensor(m, (const Onnx__TensorProto *)msg, out, e);
}

/* ---- Writing ---- */

/* Numbers of the kinds of members, as SequenceProto.DataType and OptionalProto.DataType have them. */
enum { ELEM_TENSOR = 1, ELEM_SEQUENCE = 3, ELEM_MAP = 4 };

#define TRY_MESSAGE(p, a, type)                                                                    \
	do {                                                                                       \
		TRY_NEW(p, a, 1);                                                                  \
		onnx__##type##__init(p);                                                           \
	} while (0)

static enum linnet_code name_write(struct arena *a, const char *name, char **out, struct linnet_error *e)
{
	*out = name ? arena_str(a, name) : NULL;
	return name && !*out ? fail_mem(e) : LINNET_OK;
}

static enum linnet_code write_map(struct arena *a, const struct tensor *t, const char *name, Onnx__MapProto **out, struct linnet_error *e)
{
	const struct tensor *keys = tensor_member(t, 0), *values = tensor_member(t, 1);
	Onnx__SequenceProto *list;
	Onnx__MapProto *p;

	TRY_MESSAGE(p, a, map_proto);
	TRY_MESSAGE(list, a, sequence_proto);
	*out = p;
	TRY(name_write(a, name, &p->name, e));
	p->has_key_type = 1;
	p->key_type = (int32_t)keys->dt;
	p->values = list;
	list->has_elem_type = 1;
	list->elem_type = ELEM_TENSOR;
	TRY_NEW(list->tensor_values, a, values->n);
	for (int64_t i = 0; i < values->n; i++) {
		struct tensor *one;

		TRY(tensor_new(a, values->dt, 0, NULL, &one, e));
		element_copy(one, 0, values, i);
		TRY(proto_from_tensor(a, one, NULL, &list->tensor_values[list->n_tensor_values++], e));
	}
	if (keys->dt != DT_STRING) {
		p->n_keys = (size_t)keys->n;
		p->keys = keys->data;
		return LINNET_OK;
	}
	TRY_NEW(p->string_keys, a, keys->n);
	for (int64_t i = 0; i < keys->n; i++) {
		const struct text *s = (const struct text *)keys->data + i;

		p->string_keys[p->n_string_keys++] = (ProtobufCBinaryData){ s->n, (uint8_t *)(uintptr_t)s->p };
	}
	return LINNET_OK;
}

static enum linnet_code write_sequence(struct arena *a, const struct tensor *t, const char *name, Onnx__SequenceProto **out,
                                       struct linnet_error *e)
{
	bool maps = t->kind == KIND_SEQUENCE_MAP;
	Onnx__SequenceProto *p;

	TRY_MESSAGE(p, a, sequence_proto);
	*out = p;
	TRY(name_write(a, name, &p->name, e));
	p->has_elem_type = 1;
	p->elem_type = maps ? ELEM_MAP : ELEM_TENSOR;
	TRY_NEW(p->map_values, a, maps ? t->n : 0);
	TRY_NEW(p->tensor_values, a, maps ? 0 : t->n);
	for (int64_t i = 0; i < t->n; i++) {
		if (maps)
			TRY(write_map(a, tensor_member(t, i), NULL, &p->map_values[p->n_map_values++], e));
		else
			TRY(proto_from_tensor(a, tensor_member(t, i), NULL, &p->tensor_values[p->n_tensor_values++], e));
	}
	return LINNET_OK;
}

static enum linnet_code write_optional(struct arena *a, const struct tensor *t, const char *name, Onnx__OptionalProto **out,
                                       struct linnet_error *e)
{
	Onnx__OptionalProto *p;

	TRY_MESSAGE(p, a, optional_proto);
	*out = p;
	TRY(name_write(a, name, &p->name, e));
	p->has_elem_type = 1;
	p->elem_type = t->kind == KIND_OPTIONAL ? ELEM_TENSOR : ELEM_SEQUENCE;
	if (t->n && t->kind == KIND_OPTIONAL)
		return proto_from_tensor(a, tensor_member(t, 0), NULL, &p->tensor_value, e);
	return t->n ? write_sequence(a, tensor_member(t, 0), NULL, &p->sequence_value, e) : LINNET_OK;
}

enum linnet_code proto_from_value(struct arena *a, const struct tensor *t, const char *name, const ProtobufCMessage **out,
                                  struct linnet_error *e)
{
	Onnx__SequenceProto *sequence;
	Onnx__OptionalProto *optional;
	Onnx__TensorProto *tensor;
	Onnx__MapProto *map;

	switch (t->kind) {
	case KIND_SEQUENCE:
	case KIND_SEQUENCE_MAP:
		TRY(write_sequence(a, t, name, &sequence, e));
		*out = &sequence->base;
		return LINNET_OK;
	case KIND_OPTIONAL:
	case KIND_OPTIONAL_SEQUENCE:
		TRY(write_optional(a, t, name, &optional, e));
		*out = &optional->base;
		return LINNET_OK;
	case KIND_MAP:
		TRY(write_map(a, t, name, &map, e));
		*out = &map->base;
		return LINNET_OK;
	default:
		TRY(proto_from_tensor(a, t, name, &tensor, e));
		*out = &tensor->base;
		return LINNET_OK;
	}
}
