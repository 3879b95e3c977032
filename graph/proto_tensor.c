/* Tensors in the container: every way a TensorProto has to keep its data, and files beside the model. */
#include "graph/proto.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "graph/sha1.h"

/* A file of external data, mapped at its first use. */
struct proto_file {
	struct proto_file *next;
	const char *location;
	struct bytes data;
	char sha1[41]; /* empty until asked for */
};

/* ---- External data ---- */

struct external {
	const char *location, *checksum;
	uint64_t offset, length;
	bool has_length;
};

static enum linnet_code parse_size(const char *key, const char *s, uint64_t *out, struct linnet_error *e)
{
	uint64_t v = 0;

	if (!*s)
		return fail(e, LINNET_EFORMAT, "external data: %s is empty", key);
	for (const char *p = s; *p; p++) {
		if (*p < '0' || *p > '9')
			return fail(e, LINNET_EFORMAT, "external data: %s \"%.40s\" is not a number", key, s);
		if (v > (UINT64_MAX - 9) / 10)
			return fail(e, LINNET_EFORMAT, "external data: %s \"%.40s\" is too large", key, s);
		v = v * 10 + (uint64_t)(*p - '0');
	}
	*out = v;
	return LINNET_OK;
}

/* Keys other than ONNX's are for others. */
static enum linnet_code parse_external(const Onnx__TensorProto *p, struct external *x, struct linnet_error *e)
{
	*x = (struct external){ 0 };
	for (size_t i = 0; i < p->n_external_data; i++) {
		const char *key = p->external_data[i]->key, *value = p->external_data[i]->value;

		if (!key || !value)
			return fail(e, LINNET_EFORMAT, "external data: entry %zu has no %s", i, key ? "value" : "key");
		if (!strcmp(key, "location")) {
			x->location = value;
		} else if (!strcmp(key, "checksum")) {
			x->checksum = value;
		} else if (!strcmp(key, "offset")) {
			TRY(parse_size(key, value, &x->offset, e));
		} else if (!strcmp(key, "length")) {
			TRY(parse_size(key, value, &x->length, e));
			x->has_length = true;
		}
	}
	if (!x->location)
		return fail(e, LINNET_EFORMAT, "external data without a location");
	return LINNET_OK;
}

static enum linnet_code external_file(struct linnet_model *m, const char *location, struct proto_file **out,
                                      struct linnet_error *e)
{
	const char *folder;
	struct proto_file *f;

	for (f = m->files; f; f = f->next) {
		if (!strcmp(f->location, location)) {
			*out = f;
			return LINNET_OK;
		}
	}
	if (!m->path || !strcmp(m->path, "-"))
		return fail(e, LINNET_EIO, "external data \"%.80s\" needs a model that is read from a file", location);
	folder = file_folder(m->arena, m->path);
	f = NEW(m->arena, 1, struct proto_file);
	if (!folder || !f)
		return fail_mem(e);
	f->location = arena_str(m->arena, location);
	if (!f->location)
		return fail_mem(e);
	TRY(file_load_inside(m->arena, folder, location, m->limits.max_bytes, &f->data, e));
	f->next = m->files;
	*out = m->files = f;
	return LINNET_OK;
}

static enum linnet_code verify_checksum(struct proto_file *f, const char *expected, struct linnet_error *e)
{
	if (!*f->sha1)
		sha1_hex(f->data.p, f->data.n, f->sha1);
	if (strcasecmp(f->sha1, expected))
		return fail(e, LINNET_EFORMAT, "external data \"%.80s\" has checksum %s, expected %.40s", f->location, f->sha1,
		            expected);
	return LINNET_OK;
}

static enum linnet_code external_bytes(struct linnet_model *m, const Onnx__TensorProto *p, size_t need, struct bytes *out,
                                       struct linnet_error *e)
{
	struct external x;
	struct proto_file *f = NULL;

	TRY(parse_external(p, &x, e));
	TRY(external_file(m, x.location, &f, e));
	if (!x.has_length)
		x.length = need;
	if (x.offset > f->data.n || x.length > f->data.n - x.offset)
		return fail(e, LINNET_EFORMAT, "external data \"%.80s\": %llu bytes at offset %llu, but the file has %zu", x.location,
		            (unsigned long long)x.length, (unsigned long long)x.offset, f->data.n);
	if (m->checksums && x.checksum)
		TRY(verify_checksum(f, x.checksum, e));
	*out = (struct bytes){ f->data.p + x.offset, (size_t)x.length };
	return LINNET_OK;
}

/* ---- Where the data is ---- */

enum field { RAW, FLOAT32S, INT32S, INT64S, UINT64S, FLOAT64S, STRINGS, NFIELD };

static const char *const field_name[] = {
	[RAW] = "raw_data",        [FLOAT32S] = "float_data",  [INT32S] = "int32_data",   [INT64S] = "int64_data",
	[UINT64S] = "uint64_data", [FLOAT64S] = "double_data", [STRINGS] = "string_data",
};

/* The typed field ONNX prescribes for an element type. */
static enum field field_of(enum dtype dt)
{
	switch (dt) {
	case DT_FLOAT:
	case DT_COMPLEX64: return FLOAT32S;
	case DT_DOUBLE:
	case DT_COMPLEX128: return FLOAT64S;
	case DT_INT64: return INT64S;
	case DT_UINT32:
	case DT_UINT64: return UINT64S;
	case DT_STRING: return STRINGS;
	default: return INT32S;
	}
}

static size_t field_count(const Onnx__TensorProto *p, enum field f)
{
	const size_t n[NFIELD] = {
		[RAW] = p->has_raw_data ? p->raw_data.len : 0,
		[FLOAT32S] = p->n_float_data,
		[INT32S] = p->n_int32_data,
		[INT64S] = p->n_int64_data,
		[UINT64S] = p->n_uint64_data,
		[FLOAT64S] = p->n_double_data,
		[STRINGS] = p->n_string_data,
	};

	return n[f];
}

/* Entries of the typed field that n elements take. */
static uint64_t typed_need(enum dtype dt, uint64_t n)
{
	unsigned bits = dtype_bits(dt);

	if (dtype_class(dt) == CLASS_COMPLEX)
		return 2 * n;
	if (bits == 2 || bits == 4) /* an entry is a byte of them */
		return (n * bits + 7) / 8;
	return n;
}

/* Six-bit elements lie close in raw data but take a byte each in memory. */
static size_t raw_need(const struct tensor *t)
{
	return dtype_bits(t->dt) == 6 ? (t->bytes * 6 + 7) / 8 : t->bytes;
}

/* "float[2,3]" */
static const char *describe(const struct tensor *t, char *buf, size_t n)
{
	size_t at = (size_t)snprintf(buf, n, "%s[", dtype_name(t->dt));

	for (int i = 0; i < t->rank && at < n; i++)
		at += (size_t)snprintf(buf + at, n - at, "%s%lld", i ? "," : "", (long long)t->d[i]);
	if (at < n)
		snprintf(buf + at, n - at, "]");
	return buf;
}

static void unpack6(uint8_t *to, const uint8_t *from, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		size_t bit = i * 6, at = bit / 8;
		unsigned pair = from[at] | (bit % 8 > 2 ? (unsigned)from[at + 1] << 8 : 0);

		to[i] = pair >> bit % 8 & 63;
	}
}

static void pack6(uint8_t *to, const uint8_t *from, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		size_t bit = i * 6, at = bit / 8;
		unsigned pair = (from[i] & 63u) << bit % 8;

		to[at] |= (uint8_t)pair;
		if (bit % 8 > 2)
			to[at + 1] |= (uint8_t)(pair >> 8);
	}
}

static enum linnet_code from_raw(struct arena *a, struct tensor *t, const char *what, struct bytes raw, struct linnet_error *e)
{
	char buf[200];

	if (t->dt == DT_STRING)
		return fail(e, LINNET_EFORMAT, "strings in %s; expected string_data", what);
	if (raw.n != raw_need(t))
		return fail(e, LINNET_EFORMAT, "%s has %zu bytes; %s takes %zu", what, raw.n, describe(t, buf, sizeof buf),
		            raw_need(t));
	if (dtype_bits(t->dt) == 6) {
		t->data = arena_get(a, t->bytes, 1);
		if (!t->data)
			return fail_mem(e);
		unpack6(t->data, raw.p, t->bytes);
	} else {
		t->data = (void *)(uintptr_t)raw.p;
	}
	return t->data ? LINNET_OK : fail_mem(e);
}

static enum linnet_code from_strings(struct arena *a, struct tensor *t, const Onnx__TensorProto *p, struct linnet_error *e)
{
	struct text *s;

	TRY_NEW(s, a, t->n);
	for (int64_t i = 0; i < t->n; i++)
		s[i] = (struct text){ (const char *)p->string_data[i].data, p->string_data[i].len };
	t->data = s;
	return LINNET_OK;
}

/* Narrow elements, or bytes of several, kept in wider integers. */
static enum linnet_code from_wide(struct arena *a, struct tensor *t, const Onnx__TensorProto *p, enum field f,
                                  struct linnet_error *e)
{
	unsigned bits = dtype_bits(t->dt);
	bool bytes_of_several = bits == 2 || bits == 4, is_signed = dtype_class(t->dt) == CLASS_INT;
	int64_t lo = bytes_of_several ? INT8_MIN : is_signed ? -((int64_t)1 << (bits - 1)) : 0;
	int64_t hi = bytes_of_several         ? UINT8_MAX
	             : t->dt == DT_BOOL ? 1
	                                : ((int64_t)1 << (bits - is_signed)) - 1;
	size_t size = bits == 32 ? 4 : bits == 16 ? 2 : 1, n = field_count(p, f);
	char *to = arena_get(a, n, size);

	if (!to)
		return fail_mem(e);
	for (size_t i = 0; i < n; i++) {
		uint64_t u = f == UINT64S ? p->uint64_data[i] : (uint64_t)(int64_t)p->int32_data[i];
		int64_t v = (int64_t)u;

		if (v < lo || v > hi)
			return fail(e, LINNET_EVALUE, "%s[%zu] is %lld; %s admits [%lld, %lld]", field_name[f], i, (long long)v,
			            dtype_name(t->dt), (long long)lo, (long long)hi);
		memcpy(to + i * size, &u, size); /* little-endian: the low bytes */
	}
	t->data = to;
	return LINNET_OK;
}

static enum linnet_code from_typed(struct arena *a, struct tensor *t, const Onnx__TensorProto *p, enum field f,
                                   struct linnet_error *e)
{
	uint64_t need = typed_need(t->dt, (uint64_t)t->n);
	char buf[200];

	if (f != field_of(t->dt))
		return fail(e, LINNET_EFORMAT, "%s elements in %s; expected %s", dtype_name(t->dt), field_name[f],
		            field_name[field_of(t->dt)]);
	if (field_count(p, f) != need)
		return fail(e, LINNET_EFORMAT, "%s has %zu entries; %s takes %llu", field_name[f], field_count(p, f),
		            describe(t, buf, sizeof buf), (unsigned long long)need);
	switch (f) {
	case FLOAT32S: t->data = p->float_data; return LINNET_OK;
	case FLOAT64S: t->data = p->double_data; return LINNET_OK;
	case INT64S: t->data = p->int64_data; return LINNET_OK;
	case STRINGS: return from_strings(a, t, p, e);
	default: break;
	}
	if (t->dt == DT_UINT64)
		t->data = p->uint64_data;
	else if (t->dt == DT_INT32)
		t->data = p->int32_data;
	else
		return from_wide(a, t, p, f, e);
	return LINNET_OK;
}

/* Type, lengths and size; no data yet. */
static enum linnet_code header(struct linnet_model *m, int32_t number, size_t ndims, const int64_t *dims, struct tensor **out,
                               struct linnet_error *e)
{
	struct tensor *t;

	if (number <= DT_UNDEFINED || number >= DT_COUNT)
		return fail(e, LINNET_ETYPE, "element type %d is not known", number);
	if (ndims > MAX_RANK)
		return fail(e, LINNET_EUNSUPPORTED, "rank is %zu; at most %d is supported", ndims, MAX_RANK);
	TRY_NEW(t, m->arena, 1);
	t->dt = (enum dtype)number;
	t->rank = (int)ndims;
	if (ndims)
		memcpy(t->d, dims, ndims * sizeof *dims);
	TRY(tensor_size(t->dt, t->rank, t->d, m->limits.max_elements, &t->n, &t->bytes, e));
	*out = t;
	return LINNET_OK;
}

enum linnet_code proto_external(struct linnet_model *m, const Onnx__TensorProto *p, struct bytes *out, struct linnet_error *e)
{
	struct tensor *t;

	for (size_t i = 0; i < p->n_external_data; i++)
		if (p->external_data[i]->key && !strcmp(p->external_data[i]->key, "length"))
			return external_bytes(m, p, 0, out, e);
	TRY(header(m, p->data_type, p->n_dims, p->dims, &t, e));
	return external_bytes(m, p, raw_need(t), out, e);
}

enum linnet_code proto_weights(struct linnet_model *m, const Onnx__TensorProto *p, struct tensor **out, struct linnet_error *e)
{
	enum field found = NFIELD;
	struct tensor *t;
	struct bytes raw;
	char buf[200];

	TRY(header(m, p->data_type, p->n_dims, p->dims, &t, e));
	*out = t;
	if (p->segment)
		return fail(e, LINNET_EUNSUPPORTED, "a tensor in segments");
	for (enum field f = RAW; f < NFIELD; f++) {
		if (!field_count(p, f))
			continue;
		if (found != NFIELD)
			return fail(e, LINNET_EFORMAT, "data in both %s and %s", field_name[found], field_name[f]);
		found = f;
	}
	if (p->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL) {
		if (found != NFIELD)
			return fail(e, LINNET_EFORMAT, "data in both %s and a file", field_name[found]);
		TRY(external_bytes(m, p, raw_need(t), &raw, e));
		return from_raw(m->arena, t, "external data", raw, e);
	}
	if (found == RAW) {
		raw = (struct bytes){ p->raw_data.data, p->raw_data.len };
		return from_raw(m->arena, t, field_name[RAW], raw, e);
	}
	if (found != NFIELD)
		return from_typed(m->arena, t, p, found, e);
	if (t->n)
		return fail(e, LINNET_EFORMAT, "no data for %s", describe(t, buf, sizeof buf));
	t->data = arena_get(m->arena, 0, 1);
	return t->data ? LINNET_OK : fail_mem(e);
}

enum linnet_code proto_tensor(struct linnet_model *m, const Onnx__TensorProto *p, struct tensor **out, struct linnet_error *e)
{
	TRY(proto_weights(m, p, out, e));
	return tensor_align(*out, m->arena, e);
}

/* ---- Sparse ---- */

/* Element `from` of one array of narrow or whole-byte elements to element `to` of a zeroed one. */
static void copy_element(enum dtype dt, char *dst, size_t to, const char *src, size_t from)
{
	unsigned bits = dtype_bits(dt);
	size_t size = dtype_bytes(dt, 1);

	if (bits == 2 || bits == 4) {
		unsigned byte = (unsigned char)src[from * bits / 8], v = byte >> from * bits % 8 & ((1u << bits) - 1);

		dst[to * bits / 8] = (char)((unsigned char)dst[to * bits / 8] | v << to * bits % 8);
		return;
	}
	memcpy(dst + to * size, src + from * size, size);
}

/* Row i of the indices as a position in the dense tensor. */
static enum linnet_code sparse_position(const struct tensor *t, const struct tensor *indices, int64_t i, int64_t *out,
                                        struct linnet_error *e)
{
	const int64_t *row = indices->data;
	int64_t at = 0;

	if (indices->rank == 1) {
		at = row[i];
		if (at < 0 || at >= t->n)
			return fail(e, LINNET_EVALUE, "sparse tensor: index %lld is %lld; there are %lld elements", (long long)i,
			            (long long)at, (long long)t->n);
	} else {
		row += i * t->rank;
		for (int k = 0; k < t->rank; k++) {
			if (row[k] < 0 || row[k] >= t->d[k])
				return fail(e, LINNET_EVALUE, "sparse tensor: index %lld along axis %d is %lld; the length is %lld",
				            (long long)i, k, (long long)row[k], (long long)t->d[k]);
			at = at * t->d[k] + row[k];
		}
	}
	*out = at;
	return LINNET_OK;
}

enum linnet_code proto_sparse(struct linnet_model *m, const Onnx__SparseTensorProto *p, struct tensor **out,
                              struct linnet_error *e)
{
	struct tensor *t, *values, *indices;
	int64_t last = -1;

	if (!p->values || !p->indices)
		return fail(e, LINNET_EFORMAT, "sparse tensor without %s", p->values ? "indices" : "values");
	TRY(proto_tensor(m, p->values, &values, e));
	TRY(proto_tensor(m, p->indices, &indices, e));
	TRY(header(m, (int32_t)values->dt, p->n_dims, p->dims, &t, e));
	if (t->bytes > INT32_MAX)
		return fail(e, LINNET_ELIMIT, "sparse tensor: dense it takes %zu bytes; at most 2^31 - 1 are supported", t->bytes);
	if (values->rank != 1)
		return fail(e, LINNET_ESHAPE, "sparse tensor: values have rank %d, expected 1", values->rank);
	if (indices->dt != DT_INT64)
		return fail(e, LINNET_ETYPE, "sparse tensor: indices are %s, expected int64", dtype_name(indices->dt));
	if (indices->rank < 1 || indices->rank > 2 || indices->d[0] != values->n ||
	    (indices->rank == 2 && indices->d[1] != t->rank))
		return fail(e, LINNET_ESHAPE, "sparse tensor: indices must be [%lld] or [%lld,%d]", (long long)values->n,
		            (long long)values->n, t->rank);
	t->data = arena_get(m->arena, t->bytes, 1);
	if (!t->data)
		return fail_mem(e);
	for (int64_t i = 0; i < values->n; i++) {
		int64_t at = 0;

		TRY(sparse_position(t, indices, i, &at, e));
		if (at <= last)
			return fail(e, LINNET_EVALUE, "sparse tensor: index %lld is not above the one before it", (long long)i);
		last = at;
		copy_element(t->dt, t->data, (size_t)at, values->data, (size_t)i);
	}
	*out = t;
	return LINNET_OK;
}

/* ---- Back ---- */

enum linnet_code proto_from_tensor(struct arena *a, const struct tensor *t, const char *name, Onnx__TensorProto **out,
                                   struct linnet_error *e)
{
	Onnx__TensorProto *p;

	TRY_NEW(p, a, 1);
	onnx__tensor_proto__init(p);
	*out = p;
	p->has_data_type = 1;
	p->data_type = (int32_t)t->dt;
	p->n_dims = (size_t)t->rank;
	p->dims = arena_dup(a, t->d, p->n_dims * sizeof *t->d);
	if (!p->dims)
		return fail_mem(e);
	if (name) {
		p->name = arena_str(a, name);
		if (!p->name)
			return fail_mem(e);
	}
	if (t->dt == DT_STRING) {
		const struct text *s = t->data;

		p->n_string_data = (size_t)t->n;
		TRY_NEW(p->string_data, a, t->n);
		for (int64_t i = 0; i < t->n; i++)
			p->string_data[i] = (ProtobufCBinaryData){ s[i].n, (uint8_t *)(uintptr_t)s[i].p };
		return LINNET_OK;
	}
	p->has_raw_data = 1;
	p->raw_data = (ProtobufCBinaryData){ raw_need(t), t->data };
	if (dtype_bits(t->dt) == 6) {
		TRY_NEW(p->raw_data.data, a, p->raw_data.len);
		pack6(p->raw_data.data, t->data, t->bytes);
	}
	return LINNET_OK;
}
