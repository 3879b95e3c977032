/* The container: files and memory to and from the protobuf tree. */
#include "graph/proto.h"

#include <string.h>

#include "graph/file.h"
#include "graph/wire.h"

/* ---- Loading ---- */

static struct wire_limits wire_limits(const struct linnet_limits *l)
{
	return (struct wire_limits){ l->max_depth, &onnx__node_proto__descriptor, l->max_nodes };
}

static enum linnet_code load_binary(struct linnet_model *m, struct bytes b, struct linnet_error *e)
{
	struct wire_limits l = wire_limits(&m->limits);
	const Onnx__ModelProto *p;
	ProtobufCMessage *msg;

	if (!b.n)
		return fail(e, LINNET_EFORMAT, "the file is empty");
	TRY(wire_read(m->arena, &onnx__model_proto__descriptor, b.p, b.n, &l, &msg, e));
	m->proto = msg;
	p = proto_model(m);
	if (!p->has_ir_version && !p->n_opset_import && !p->graph && !p->n_functions)
		return fail(e, LINNET_EFORMAT, "not an ONNX model: neither version, opset, graph nor function in it");
	return LINNET_OK;
}

static bool is_word(unsigned char c)
{
	return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static size_t skip_space(struct bytes b, size_t i)
{
	while (i < b.n) {
		if (b.p[i] == '#') {
			while (i < b.n && b.p[i] != '\n')
				i++;
		} else if (b.p[i] == ' ' || (b.p[i] >= '\t' && b.p[i] <= '\r')) {
			i++;
		} else {
			break;
		}
	}
	return i;
}

/*
 * Whether a model is text: "<" (a model's properties), or a name followed by "(" or "<" (a graph). As protobuf "<" would
 * end a group that never began, and the tags that look like letters open fields that stand late in a model.
 */
static bool looks_like_text(struct bytes b)
{
	size_t i = skip_space(b, 0), word = i;

	if (i < b.n && b.p[i] == '<')
		return true;
	while (i < b.n && is_word(b.p[i]))
		i++;
	if (i == word)
		return false;
	i = skip_space(b, i);
	return i < b.n && (b.p[i] == '(' || b.p[i] == '<');
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), k = strlen(end);

	return n >= k && !strcmp(s + n - k, end);
}

static enum linnet_code load(struct linnet_model *m, struct bytes b, bool text, struct linnet_error *e)
{
	if (text || looks_like_text(b))
		return text_parse(m, (const char *)b.p, b.n, e);
	return load_binary(m, b, e);
}

enum linnet_code proto_load_memory(struct linnet_model *m, const void *data, size_t n, struct linnet_error *e)
{
	struct bytes b = { data, n };

	if (n > (uint64_t)m->limits.max_bytes)
		return fail(e, LINNET_ELIMIT, "the model has more than %lld bytes", (long long)m->limits.max_bytes);
	return load(m, b, false, e);
}

enum linnet_code proto_load(struct linnet_model *m, const char *path, struct linnet_error *e)
{
	bool text = ends_with(path, ".onnxtxt") || ends_with(path, ".txt");
	struct bytes b;

	TRY(file_load(m->arena, path, m->limits.max_bytes, &b, e));
	m->path = arena_str(m->arena, path);
	if (!m->path)
		return fail_mem(e);
	return err_file(e, load(m, b, text, e), strcmp(path, "-") ? path : "stdin");
}

/* ---- Saving ---- */

enum {
	MESSAGE_MAX = INT32_MAX, /* bytes of one protobuf message, by its own rule */
	DETACH_MIN = 1024,       /* tensors with more bytes are worth a place in the data file */
	DETACH_ALIGN = 4096,     /* a page, so that a tensor can be mapped by itself */
};

/* A tensor in the data file. */
struct piece {
	struct bytes data;
	uint64_t offset;
};

/* What is being saved, and where its tensors are to be. */
struct saver {
	struct linnet_model m; /* shares the tree; maps files for as long as saving takes */
	const char *location;  /* of the data file; NULL: everything is kept inside */
	uint64_t more;         /* bytes of a tensor that goes there */
	struct piece *piece;
	size_t npiece, cap;
	uint64_t end;          /* of the data file so far */
};

static bool is_external(const Onnx__TensorProto *p)
{
	return p->has_data_location && p->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
}

/* All of a TensorProto but its data. NULL without memory. */
static Onnx__TensorProto *without_data(struct arena *a, const Onnx__TensorProto *p)
{
	Onnx__TensorProto *q = arena_dup(a, p, sizeof *p);

	if (!q)
		return NULL;
	q->n_float_data = q->n_int32_data = q->n_int64_data = q->n_uint64_data = q->n_double_data = 0;
	q->n_external_data = 0;
	q->has_raw_data = q->has_data_location = 0;
	return q;
}

static enum linnet_code embed(struct saver *s, const ProtobufCMessage **msg, struct linnet_error *e)
{
	const Onnx__TensorProto *p = (const Onnx__TensorProto *)*msg;
	Onnx__TensorProto *q = without_data(s->m.arena, p);
	struct bytes b;

	if (!q)
		return fail_mem(e);
	TRY(err_node(e, proto_external(&s->m, p, &b, e), p->name, NULL));
	q->has_raw_data = 1;
	q->raw_data = (ProtobufCBinaryData){ b.n, (uint8_t *)(uintptr_t)b.p };
	*msg = &q->base;
	return LINNET_OK;
}

/* The bytes a tensor has as raw data; none for strings and for typed data that breaks the rules: those stay as they are. */
static enum linnet_code tensor_bytes(struct saver *s, const Onnx__TensorProto *p, struct bytes *out, struct linnet_error *e)
{
	struct linnet_error ignored = { 0 };
	Onnx__TensorProto *raw;
	struct tensor *t;
	enum linnet_code code;

	*out = (struct bytes){ NULL, 0 };
	if (is_external(p))
		return err_node(e, proto_external(&s->m, p, out, e), p->name, NULL);
	if (p->has_raw_data && p->raw_data.len) {
		*out = (struct bytes){ p->raw_data.data, p->raw_data.len };
		return LINNET_OK;
	}
	if (p->n_string_data)
		return LINNET_OK;
	code = proto_tensor(&s->m, p, &t, &ignored);
	if (!code)
		code = proto_from_tensor(s->m.arena, t, NULL, &raw, &ignored);
	if (code == LINNET_EMEM)
		return fail_mem(e);
	if (!code)
		*out = (struct bytes){ raw->raw_data.data, raw->raw_data.len };
	return LINNET_OK;
}

static Onnx__StringStringEntryProto *entry(struct arena *a, const char *key, const char *value)
{
	Onnx__StringStringEntryProto *x = value ? NEW(a, 1, Onnx__StringStringEntryProto) : NULL;

	if (!x)
		return NULL;
	onnx__string_string_entry_proto__init(x);
	x->key = (char *)(uintptr_t)key;
	x->value = (char *)(uintptr_t)value;
	return x;
}

/* Give data a place in the data file, and make the TensorProto that says so. */
static enum linnet_code detach(struct saver *s, const Onnx__TensorProto *p, struct bytes data, Onnx__TensorProto **out,
                               struct linnet_error *e)
{
	Onnx__TensorProto *q = without_data(s->m.arena, p);
	struct arena *a = s->m.arena;

	if (s->npiece == s->cap) {
		size_t more = s->cap ? s->cap * 2 : 64;
		struct piece *piece = NEW(a, more, struct piece);

		if (!piece)
			return fail_mem(e);
		if (s->npiece)
			memcpy(piece, s->piece, s->npiece * sizeof *piece);
		s->piece = piece;
		s->cap = more;
	}
	s->end = (s->end + DETACH_ALIGN - 1) / DETACH_ALIGN * DETACH_ALIGN;
	s->piece[s->npiece++] = (struct piece){ data, s->end };
	if (!q)
		return fail_mem(e);
	q->n_external_data = 3;
	TRY_NEW(q->external_data, a, q->n_external_data);
	q->external_data[0] = entry(a, "location", s->location);
	q->external_data[1] = entry(a, "offset", arena_fmt(a, "%llu", (unsigned long long)s->end));
	q->external_data[2] = entry(a, "length", arena_fmt(a, "%zu", data.n));
	for (size_t i = 0; i < q->n_external_data; i++)
		if (!q->external_data[i])
			return fail_mem(e);
	q->has_data_location = 1;
	q->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
	s->end += data.n;
	*out = q;
	return LINNET_OK;
}

static enum linnet_code detach_initializers(struct saver *s, const ProtobufCMessage **msg, struct linnet_error *e)
{
	Onnx__GraphProto *g = arena_dup(s->m.arena, *msg, sizeof *g);

	if (!g)
		return fail_mem(e);
	*msg = &g->base;
	g->initializer = arena_dup(s->m.arena, g->initializer, g->n_initializer * sizeof *g->initializer);
	if (!g->initializer)
		return fail_mem(e);
	for (size_t i = 0; i < g->n_initializer; i++) {
		struct bytes b;

		TRY(tensor_bytes(s, g->initializer[i], &b, e));
		if (b.n > s->more)
			TRY(detach(s, g->initializer[i], b, &g->initializer[i], e));
	}
	return LINNET_OK;
}

static enum linnet_code swap(void *ctx, const ProtobufCMessage **msg, struct linnet_error *e)
{
	struct saver *s = ctx;

	if (s->location && (*msg)->descriptor == &onnx__graph_proto__descriptor)
		return detach_initializers(s, msg, e);
	if ((*msg)->descriptor == &onnx__tensor_proto__descriptor) {
		const Onnx__TensorProto *p = (const Onnx__TensorProto *)*msg;

		if (is_external(p) && !(s->location && p->n_external_data && p->external_data[0]->value == s->location))
			return embed(s, msg, e);
	}
	return LINNET_OK;
}

static enum linnet_code to_file(void *ctx, const void *p, size_t n, struct linnet_error *e)
{
	return file_write(ctx, p, n, e);
}

static enum linnet_code write_pieces(const struct saver *s, struct file_out *f, struct linnet_error *e)
{
	static const char zeros[DETACH_ALIGN];

	for (size_t i = 0; i < s->npiece; i++) {
		TRY(file_write(f, zeros, (size_t)(s->piece[i].offset - f->size), e));
		TRY(file_write(f, s->piece[i].data.p, s->piece[i].data.n, e));
	}
	return LINNET_OK;
}

/* Both files are complete on the disk before either takes its name. */
static enum linnet_code write_files(const struct saver *s, const struct wire_plan *plan, const char *path,
                                    struct file_out *out, struct file_out *data, struct linnet_error *e)
{
	if (s->npiece) {
		const char *slash = strrchr(path, '/');
		const char *data_path = arena_fmt(s->m.arena, "%.*s%s", slash ? (int)(slash + 1 - path) : 0, path, s->location);

		if (!data_path)
			return fail_mem(e);
		TRY(file_create(data, data_path, s->m.arena, e));
		TRY(write_pieces(s, data, e));
		TRY(file_finish(data, e));
	}
	TRY(file_create(out, path, s->m.arena, e));
	TRY(wire_write(plan, to_file, out, e));
	TRY(file_finish(out, e));
	if (s->npiece)
		TRY(file_publish(data, e));
	return file_publish(out, e);
}

static enum linnet_code save_plan(const struct saver *s, const struct wire_plan *plan, const char *path,
                                  struct linnet_error *e)
{
	struct file_out out = { .fd = -1 }, data = { .fd = -1 };
	enum linnet_code code = write_files(s, plan, path, &out, &data, e);

	if (code) {
		file_drop(&data);
		file_drop(&out);
	}
	return err_file(e, code, path);
}

static enum linnet_code too_big(uint64_t n, struct linnet_error *e)
{
	return fail(e, LINNET_ELIMIT, "%llu bytes to be written; protobuf admits %d", (unsigned long long)n, MESSAGE_MAX);
}

static enum linnet_code save(struct saver *s, const char *path, const struct save_opt *o, struct linnet_error *e)
{
	const char *slash = strrchr(path, '/');
	struct wire_plan plan;

	s->more = o->more ? (uint64_t)o->more : DETACH_MIN;
	if (!o->external) {
		TRY(wire_measure(s->m.arena, s->m.proto, swap, s, &plan, e));
		if (plan.item->size <= MESSAGE_MAX)
			return save_plan(s, &plan, path, e);
	}
	if (!strcmp(path, "-"))
		return fail(e, LINNET_EUSAGE, "a model with external data cannot be written to stdout");
	if (o->data && (!*o->data || strchr(o->data, '/') || !strcmp(o->data, "..") || !strcmp(o->data, ".") || !strcmp(o->data, slash ? slash + 1 : path)))
		return fail(e, LINNET_EUSAGE, "external data goes to a file beside the model; \"%s\" is no name of one", o->data);
	s->location = o->data ? o->data : arena_fmt(s->m.arena, "%s.data", slash ? slash + 1 : path);
	if (!s->location)
		return fail_mem(e);
	TRY(wire_measure(s->m.arena, s->m.proto, swap, s, &plan, e));
	if (plan.item->size > MESSAGE_MAX)
		return too_big(plan.item->size, e);
	return save_plan(s, &plan, path, e);
}

size_t proto_nodes(const struct linnet_model *m)
{
	const Onnx__ModelProto *p = m->proto;

	return p && p->graph ? p->graph->n_node : 0;
}

enum linnet_code proto_size(const struct linnet_model *m, uint64_t *n, struct linnet_error *e)
{
	struct saver s = { .m = *m };
	struct wire_plan plan;
	enum linnet_code code;

	s.m.arena = arena_new();
	if (!s.m.arena)
		return fail_mem(e);
	code = wire_measure(s.m.arena, s.m.proto, swap, &s, &plan, e);
	*n = code ? 0 : plan.item->size;
	arena_free(s.m.arena);
	return code;
}

enum linnet_code proto_save(const struct linnet_model *m, const char *path, bool external, struct linnet_error *e)
{
	return proto_save_as(m, path, &(struct save_opt){ .external = external }, e);
}

enum linnet_code proto_save_as(const struct linnet_model *m, const char *path, const struct save_opt *o, struct linnet_error *e)
{
	struct saver s = { .m = *m };
	enum linnet_code code;

	s.m.arena = arena_new();
	if (!s.m.arena)
		return fail_mem(e);
	code = save(&s, path, o, e);
	arena_free(s.m.arena);
	return code;
}

struct memory {
	uint8_t *p;
	size_t n;
};

static enum linnet_code to_memory(void *ctx, const void *p, size_t n, struct linnet_error *e)
{
	struct memory *out = ctx;

	(void)e;
	if (n)
		memcpy(out->p + out->n, p, n);
	out->n += n;
	return LINNET_OK;
}

static enum linnet_code save_memory(struct saver *s, struct arena *a, struct memory *out, struct linnet_error *e)
{
	struct wire_plan plan;

	TRY(wire_measure(s->m.arena, s->m.proto, swap, s, &plan, e));
	if (plan.item->size > MESSAGE_MAX)
		return too_big(plan.item->size, e);
	TRY_NEW(out->p, a, plan.item->size);
	return wire_write(&plan, to_memory, out, e);
}

enum linnet_code proto_save_memory(const struct linnet_model *m, struct arena *a, void **data, size_t *n, struct linnet_error *e)
{
	struct saver s = { .m = *m };
	struct memory out = { 0 };
	enum linnet_code code;

	s.m.arena = arena_new();
	if (!s.m.arena)
		return fail_mem(e);
	code = save_memory(&s, a, &out, e);
	arena_free(s.m.arena);
	*data = out.p;
	*n = out.n;
	return code;
}

/* ---- Files of one value ---- */

static enum linnet_code load_value(struct linnet_model *m, const struct type *want, struct tensor **t, const char **name,
                                   struct linnet_error *e)
{
	struct wire_limits l = wire_limits(&m->limits);
	ProtobufCMessage *msg;
	const char *found = NULL;
	struct bytes b;

	TRY(file_load(m->arena, m->path, m->limits.max_bytes, &b, e));
	TRY(wire_read(m->arena, proto_of_kind(want->kind), b.p, b.n, &l, &msg, e));
	TRY(proto_value(m, want, msg, t, &found, e));
	if (name)
		*name = found ? found : "";
	return LINNET_OK;
}

enum linnet_code proto_load_value(const char *path, const struct type *want, struct arena *a, const struct linnet_limits *l,
                                  struct tensor **t, const char **name, struct linnet_error *e)
{
	struct linnet_model m = { .arena = a, .path = path };

	limits_fill(&m.limits, l);
	return err_file(e, load_value(&m, want, t, name, e), path);
}

enum linnet_code proto_load_tensor(const char *path, struct arena *a, const struct linnet_limits *l, struct tensor **t,
                                   const char **name, struct linnet_error *e)
{
	return proto_load_value(path, &(struct type){ .kind = KIND_TENSOR }, a, l, t, name, e);
}

enum linnet_code proto_save_value(const char *path, const struct tensor *t, const char *name, struct linnet_error *e)
{
	struct saver s = { .m.arena = arena_new() };
	const ProtobufCMessage *p;
	struct wire_plan plan;
	enum linnet_code code;

	if (!s.m.arena)
		return fail_mem(e);
	code = proto_from_value(s.m.arena, t, name, &p, e);
	if (!code)
		code = wire_measure(s.m.arena, p, NULL, NULL, &plan, e);
	if (!code)
		code = plan.item->size > MESSAGE_MAX ? too_big(plan.item->size, e) : save_plan(&s, &plan, path, e);
	arena_free(s.m.arena);
	return code;
}
