/*
 * Protobuf's wire format to and from protobuf-c's structs, driven by their descriptors. Knows nothing of ONNX.
 *
 * Reading costs time in the number of fields, not of bytes: byte strings and packed arrays of fixed width are borrowed
 * from the input. Writing streams them from where they lie.
 */
#ifndef LINNET_WIRE_H
#define LINNET_WIRE_H

#include <protobuf-c/protobuf-c.h>

#include "ops/base/err.h"
#include "ops/base/arena.h"

struct wire_limits {
	int depth;                                 /* nesting of messages */
	const ProtobufCMessageDescriptor *counted; /* kind of message whose number is bounded, by ... */
	int64_t count;
};

/*
 * Read one message into the arena. Strings and varints are copied, byte strings, unknown fields and arrays of float and
 * double borrowed from data (arrays only where they are aligned), so data must live as long as the arena. Fields the
 * descriptor does not have are kept as unknown fields.
 *
 * Errors say which field at which byte: "graph.node[2].name at byte 17: 9 bytes announced, 4 left".
 */
enum linnet_code wire_read(struct arena *a, const ProtobufCMessageDescriptor *d, const void *data, size_t n,
                           const struct wire_limits *l, ProtobufCMessage **out, struct linnet_error *e);

/* What is to be written: every message in order, with its size. */
struct wire_item {
	const ProtobufCMessage *m;
	uint64_t size;
};

struct wire_plan {
	struct wire_item *item;
	size_t n, cap;
};

/* May replace a message by another of the same kind before it is measured and written. */
typedef enum linnet_code wire_swap(void *ctx, const ProtobufCMessage **m, struct linnet_error *e);

/* Measure m, which must not change before it is written; item[0].size is the total. swap may be NULL. */
enum linnet_code wire_measure(struct arena *scratch, const ProtobufCMessage *m, wire_swap *swap, void *ctx,
                              struct wire_plan *out, struct linnet_error *e);

typedef enum linnet_code wire_sink(void *ctx, const void *p, size_t n, struct linnet_error *e);

/* Fields in order of their numbers, then the unknown ones: same tree, same bytes. */
enum linnet_code wire_write(const struct wire_plan *p, wire_sink *sink, void *ctx, struct linnet_error *e);

#endif
