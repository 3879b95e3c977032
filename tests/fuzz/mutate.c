/*
 * libFuzzer's mutator for model files. Random bytes mostly break the container; this changes the tree inside it as well: fields
 * set to odd values, elements deleted, doubled, swapped, names and whole messages taken from elsewhere in the model, operators
 * from the table. Half of the inputs still get plain bytes changed.
 */
#include <string.h>

#include "graph/proto.h"
#include "graph/wire.h"
#include "ops/base/rng.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

struct mutator {
	struct arena *a;
	struct rng rng;
	struct wire_plan plan; /* every message of the tree */
};

static size_t below(struct mutator *u, size_t n)
{
	return (size_t)rng_below(&u->rng, n);
}

static bool repeated(const ProtobufCFieldDescriptor *f)
{
	return f->label == PROTOBUF_C_LABEL_REPEATED;
}

static bool is_oneof(const ProtobufCFieldDescriptor *f)
{
	return f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF;
}

static bool is_pointer(const ProtobufCFieldDescriptor *f)
{
	return f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_MESSAGE;
}

static size_t element_size(const ProtobufCFieldDescriptor *f)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_DOUBLE: return 8;
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE: return sizeof(void *);
	case PROTOBUF_C_TYPE_BYTES: return sizeof(ProtobufCBinaryData);
	default: return 4;
	}
}

/* A string from somewhere in the tree, or an operator's name. */
static char *some_string(struct mutator *u, bool op)
{
	if (op && below(u, 4)) {
		const struct op_family *family;
		size_t nfamily = 0;

		while (op_families[nfamily])
			nfamily++;
		family = op_families[below(u, nfamily)];
		return family->n ? (char *)(uintptr_t)family->op[below(u, (size_t)family->n)].name : NULL;
	}
	for (int tries = 0; tries < 50; tries++) {
		const ProtobufCMessage *m = u->plan.item[below(u, u->plan.n)].m;
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[below(u, m->descriptor->n_fields)];
		const char *base = (const char *)m;
		size_t n;

		if (f->type != PROTOBUF_C_TYPE_STRING || is_oneof(f))
			continue;
		if (!repeated(f)) {
			char *s = *(char *const *)(base + f->offset);

			if (s)
				return s;
			continue;
		}
		n = *(const size_t *)(base + f->quantifier_offset);
		if (n)
			return (*(char **const *)(base + f->offset))[below(u, n)];
	}
	return (char *)(uintptr_t)"";
}

struct room {
	uint8_t *p;
	size_t n;
};

static enum linnet_code put(void *ctx, const void *p, size_t n, struct linnet_error *e)
{
	struct room *r = ctx;

	(void)e;
	if (n)
		memcpy(r->p + r->n, p, n);
	r->n += n;
	return LINNET_OK;
}

static const struct wire_limits limits = { 64, &onnx__node_proto__descriptor, 2000 };

/* A copy of a message of that kind from somewhere in the tree, or an empty one. */
static ProtobufCMessage *some_message(struct mutator *u, const ProtobufCMessageDescriptor *d)
{
	size_t start = below(u, u->plan.n);
	struct room bytes = { 0 };
	struct wire_plan plan;
	ProtobufCMessage *copy;

	for (size_t i = 0; i < u->plan.n; i++) {
		const ProtobufCMessage *m = u->plan.item[(start + i) % u->plan.n].m;

		if (m->descriptor != d)
			continue;
		if (wire_measure(u->a, m, NULL, NULL, &plan, NULL))
			return NULL;
		bytes.p = arena_get(u->a, plan.item->size, 1);
		if (!bytes.p || wire_write(&plan, put, &bytes, NULL))
			return NULL;
		break;
	}
	return wire_read(u->a, d, bytes.p, bytes.n, &limits, &copy, NULL) ? NULL : copy;
}

/* A new value for one element; false when there is none to be had. */
static bool new_value(struct mutator *u, const ProtobufCFieldDescriptor *f, void *to)
{
	static const int64_t odd[] = { 0, 1, -1, 2, 3, 7, 8, 16, 64, 127, 255, 1 << 20, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN };
	int64_t v = below(u, 2) ? odd[below(u, sizeof odd / sizeof *odd)] : (int64_t)below(u, 30);

	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING: {
		char *s = some_string(u, !strcmp(f->name, "op_type"));

		memcpy(to, &s, sizeof s);
		return s;
	}
	case PROTOBUF_C_TYPE_MESSAGE: {
		ProtobufCMessage *m = some_message(u, f->descriptor);

		memcpy(to, &m, sizeof m);
		return m;
	}
	case PROTOBUF_C_TYPE_BYTES: {
		ProtobufCBinaryData b;
		uint8_t *p = arena_get(u->a, 1, 256);

		memcpy(&b, to, sizeof b);
		if (!p)
			return false;
		b.len = b.len > 256 ? 256 : b.len;
		if (b.len)
			memcpy(p, b.data, b.len);
		b.len = LLVMFuzzerMutate(p, b.len, 256);
		b.data = p;
		memcpy(to, &b, sizeof b);
		return true;
	}
	case PROTOBUF_C_TYPE_FLOAT: memcpy(to, &(float){ (float)v / 4 }, 4); return true;
	case PROTOBUF_C_TYPE_DOUBLE: memcpy(to, &(double){ (double)v / 4 }, 8); return true;
	default: memcpy(to, &v, element_size(f)); return true;
	}
}

static void change_single(struct mutator *u, char *m, const ProtobufCFieldDescriptor *f)
{
	bool present = !below(u, 4) ? false : new_value(u, f, m + f->offset);

	if (is_oneof(f))
		*(uint32_t *)(void *)(m + f->quantifier_offset) = present ? f->id : 0;
	else if (!is_pointer(f))
		*(protobuf_c_boolean *)(void *)(m + f->quantifier_offset) = present;
	else if (!present)
		memset(m + f->offset, 0, sizeof(void *));
}

/* Delete, double, swap or change an element, or add one. */
static void change_repeated(struct mutator *u, char *m, const ProtobufCFieldDescriptor *f)
{
	size_t size = element_size(f), n = *(size_t *)(void *)(m + f->quantifier_offset), i = n ? below(u, n) : 0;
	char *array = arena_get(u->a, n + 1, size);

	if (!array)
		return;
	if (n)
		memcpy(array, *(char **)(void *)(m + f->offset), n * size);
	switch (n ? below(u, 5) : 4) {
	case 0:
		memmove(array + i * size, array + (i + 1) * size, (n - i - 1) * size);
		n--;
		break;
	case 1:
		memmove(array + (i + 1) * size, array + i * size, (n - i) * size);
		n++;
		break;
	case 2: {
		size_t j = below(u, n);
		char t[sizeof(ProtobufCBinaryData)];

		memcpy(t, array + i * size, size);
		memmove(array + i * size, array + j * size, size);
		memcpy(array + j * size, t, size);
		break;
	}
	case 3: new_value(u, f, array + i * size); break;
	default: n += new_value(u, f, array + n * size); break;
	}
	memcpy(m + f->offset, &array, sizeof array);
	memcpy(m + f->quantifier_offset, &n, sizeof n);
}

/* Bytes of the changed model, now in data; 0 when data holds none or the new one does not fit. */
static size_t mutate_tree(struct mutator *u, uint8_t *data, size_t size, size_t max_size)
{
	uint8_t *copy = arena_dup(u->a, data, size); /* the tree borrows from it */
	struct room out = { data, 0 };
	ProtobufCMessage *root;

	if (!copy || wire_read(u->a, &onnx__model_proto__descriptor, copy, size, &limits, &root, NULL))
		return 0;
	for (size_t i = 1 + below(u, 3); i; i--) {
		const ProtobufCMessageDescriptor *d;
		const ProtobufCFieldDescriptor *f;
		char *m;

		if (wire_measure(u->a, root, NULL, NULL, &u->plan, NULL))
			return 0;
		m = (char *)(uintptr_t)u->plan.item[below(u, u->plan.n)].m;
		d = ((ProtobufCMessage *)(void *)m)->descriptor;
		f = &d->fields[below(u, d->n_fields)];
		if (repeated(f))
			change_repeated(u, m, f);
		else
			change_single(u, m, f);
	}
	if (wire_measure(u->a, root, NULL, NULL, &u->plan, NULL) || u->plan.item->size > max_size ||
	    wire_write(&u->plan, put, &out, NULL))
		return 0;
	return out.n;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
	struct mutator u = { .a = arena_new(), .rng.state = seed };
	size_t n = 0;

	if (u.a && below(&u, 2))
		n = mutate_tree(&u, data, size, max_size);
	arena_free(u.a);
	return n ? n : LLVMFuzzerMutate(data, size, max_size);
}
