/*
 * Graphs written as text inside the program: patterns, replacements, feature maps, targets.
 */
#ifndef LINNET_TEMPLATE_H
#define LINNET_TEMPLATE_H

#include "graph/pass.h"

/*
 * A graph from text: `(float[B,T,D] x, ...) => (float[...] y) { nodes }` in operators of the newest opset, and of com.microsoft. It lives as
 * long as the arena.
 */
enum linnet_code template_parse(const char *text, struct arena *a, struct graph **out, struct linnet_error *e);

/*
 * Add the template's nodes to a patch. in: a value for each template input, of the graph or new; out: receives the values that stand for
 * the template's outputs. Float constants become `real`. Names start with hint. Subgraphs are copied; they may not capture.
 */
enum linnet_code template_add(struct patch *p, const struct graph *t, const value_id *in, value_id *out, enum dtype real,
                              const char *hint, struct linnet_error *e);

/* Parse and add in one step. */
enum linnet_code template_apply(struct patch *p, const char *text, const value_id *in, value_id *out, enum dtype real,
                                const char *hint, struct linnet_error *e);

/* The same for what takes the place of a node: the one that computes the first output is called `name`. */
enum linnet_code template_replace(struct patch *p, const char *text, const value_id *in, value_id *out, enum dtype real, const char *name,
                                  struct linnet_error *e);

#endif
