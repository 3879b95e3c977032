/*
 * ONNX's textual syntax, to and from the protobuf tree. docs/text.md describes it and what linnet adds to it.
 *
 * text_parse() and text_print() of graph.h are whole models; here are the parts of which texts in our own tables are made
 * (bodies, rules) and the choices a printer has.
 */
#ifndef LINNET_TEXT_H
#define LINNET_TEXT_H

#include "graph/graph.h"

struct Onnx__FunctionProto;
struct Onnx__GraphProto;
struct Onnx__TensorProto;

struct text_opt {
	int64_t max_elements; /* tensors of more elements are printed as {...}; 0: all are printed in full */
	bool plain;           /* only what the onnx package's parser reads: no notes, narrow floats as their bits */
	bool brief;           /* no notes */
};

/* m->proto as text. opt NULL: everything, so that text_parse() of it gives the same model. */
enum linnet_code text_print_model(const struct linnet_model *m, const struct text_opt *opt, struct arena *a, char **text,
                                  struct linnet_error *e);

/*
 * Whether the attribute or input `name` is given and, when word is not NULL, whether STRING attribute `name` (or its default) is that word.
 */
typedef bool text_given(void *ctx, const char *name, const char *word);

/*
 * A row's `body` or `lower`: a block `{ nodes }` over the names of the row's inputs, outputs and attributes, or a choice
 * `?name block block` or `?name=word block block`, of which the first is taken when given(ctx, name, word) and the other one
 * otherwise (always, when given is NULL). Gives a function of the row's name, in current operators.
 */
enum linnet_code text_parse_block(const char *text, const struct op *op, text_given *given, void *ctx,
                                  struct arena *a, struct Onnx__FunctionProto **out, struct linnet_error *e);

/*
 * A pattern or replacement of a rule: `(inputs) => (outputs) <initializers> { nodes }`, or `{ nodes }` alone, with or without a name in
 * front.
 */
enum linnet_code text_parse_graph(const char *text, struct arena *a, struct Onnx__GraphProto **out, struct linnet_error *e);

/* One tensor, `float[1,3] {1, 2, 3}`. Integers in tensors of narrow floats are their bits, or, with `values`, numbers. */
enum linnet_code text_parse_tensor(const char *text, size_t n, bool values, struct arena *a, struct Onnx__TensorProto **out,
                                   struct linnet_error *e);

#endif
