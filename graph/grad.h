/* Gradients as graphs: what a graph computes, the same operators compute the derivative of. */
#ifndef LINNET_GRAD_H
#define LINNET_GRAD_H

#include "graph/graph.h"

/*
 * Add to g the nodes that compute the gradient of `of` with respect to wrt[0..n): inputs, constants or values of nodes, of float types.
 * out[i] has the type of wrt[i]; it is 0 where `of` does not depend on wrt[i]. Of more than one element, `of` stands for their sum.
 *
 * The graph must have types. Where an operator has no gradient of its own, its body takes its place. Constants among wrt become inputs
 * with a default: what is computed of them is not constant any more.
 *
 * LINNET_EUNSUPPORTED names the node whose operator has no gradient.
 */
enum linnet_code graph_grad(struct graph *g, value_id of, const value_id *wrt, uint32_t n, value_id *out, struct linnet_error *e);

/*
 * For less memory: the nodes that the loss depends on are cut into segments, and what the others read of a segment, but for the last, is computed again from
 * what crosses the cuts. Runs give the same bits. After all passes: they would share again what is computed twice.
 */
enum linnet_code graph_recompute(struct graph *g, value_id loss, int segments, struct linnet_error *e);

/*
 * Put in place of every Gradient node of ai.onnx.preview.training what it stands for: the nodes between the values that xs and zs name and the
 * one that y names are computed again from the node's inputs, and differentiated with respect to xs. For the importer, while values have
 * the names of the file.
 */
enum linnet_code graph_grad_nodes(struct graph *g, bool *changed, struct linnet_error *e);

#endif
