/*
 * The protobuf tree of a model and the tensors in it. Only for the files that read or write that tree: proto*.c,
 * text.c, import.c, export.c.
 */
#ifndef LINNET_PROTO_H
#define LINNET_PROTO_H

#include "graph/file.h"
#include "graph/graph.h"
#include "graph/onnx.pb-c.h"

static inline Onnx__ModelProto *proto_model(const struct linnet_model *m)
{
	return m->proto;
}

/*
 * The tensor a TensorProto describes, whatever way it keeps its data: raw, typed or external. The data is borrowed from the
 * tree or the mapped file where it lies aligned for its element type, else copied to the model's arena; so the
 * tensor lives as long as the model and must not be written to. Messages do not name the tensor: callers do. External files are looked for in the folder of m->path.
 *
 * Errors: LINNET_EFORMAT data and shape disagree; LINNET_ETYPE unknown element type; LINNET_ESHAPE negative length;
 * LINNET_ELIMIT; LINNET_EIO external data missing or not allowed; LINNET_EUNSUPPORTED rank, segments; LINNET_EMEM.
 */
enum linnet_code proto_tensor(struct linnet_model *m, const Onnx__TensorProto *p, struct tensor **out, struct linnet_error *e);

/* The same, but raw and external data is borrowed wherever it lies: not a byte of it is read. */
enum linnet_code proto_weights(struct linnet_model *m, const Onnx__TensorProto *p, struct tensor **out, struct linnet_error *e);

/* The bytes of a tensor whose data_location is EXTERNAL, as they lie in their file. */
enum linnet_code proto_external(struct linnet_model *m, const Onnx__TensorProto *p, struct bytes *out, struct linnet_error *e);

/* The dense tensor a SparseTensorProto describes; its name is p->values->name. */
enum linnet_code proto_sparse(struct linnet_model *m, const Onnx__SparseTensorProto *p, struct tensor **out, struct linnet_error *e);

/* The converse: a TensorProto with raw data (strings: string_data) borrowed from t. name may be NULL. */
enum linnet_code proto_from_tensor(struct arena *a, const struct tensor *t, const char *name, Onnx__TensorProto **out,
                                   struct linnet_error *e);

/* proto_value.c: what a file of such a value holds, a value, and the converse. want: its kind, and its type where the file leaves
 * it open; maps of scalars by int64 or string keys only (LINNET_EUNSUPPORTED). */
const ProtobufCMessageDescriptor *proto_of_kind(enum type_kind kind);
enum linnet_code proto_value(struct linnet_model *m, const struct type *want, const ProtobufCMessage *msg, struct tensor **out,
                             const char **name, struct linnet_error *e);
enum linnet_code proto_from_value(struct arena *a, const struct tensor *t, const char *name, const ProtobufCMessage **out,
                                  struct linnet_error *e);

#endif
