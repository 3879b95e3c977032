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

enum linnet_code proto_load_memory(struct linnet_model *m, const void *data, size_t n, struct linnet_error *e)
{
	struct bytes b = { data, n };

	if (n > (uint64_t)m->limits.max_bytes)
		return fail(e, LINNET_ELIMIT, "the model has more than %lld bytes", (long long)m->limits.max_bytes);
	return load_binary(m, b, e);
}

enum linnet_code proto_load(struct linnet_model *m, const char *path, struct linnet_error *e)
{
	struct bytes b;

	TRY(file_load(m->arena, path, m->limits.max_bytes, &b, e));
	m->path = arena_str(m->arena, path);
	if (!m->path)
		return fail_mem(e);
	return err_file(e, load_binary(m, b, e), path);
}
