/*
 * Why not: where the recognisers stopped, for every softmax, gated product and loop that did not become one node.
 *
 * The recognisers themselves say it. A view with `why` set makes them note each condition that failed and the node that shows
 * it; one of the notes is chosen for the answer. The rules run once more for that on a graph in which none of them applies any more.
 */
#ifndef LINNET_WHY_H
#define LINNET_WHY_H

#include "graph/pass.h"

/*
 * The codes: their stable names, the form that was near, what does not hold, and what can be done. Printed as docs/why.md.
 */
#define WHY_CODES(X)                                                                                                             \
	X(SOFTMAX_ALONE, "softmax.alone", "none",                                                                                \
	  "no product of queries and keys lies before the softmax and no product with values behind it: a classifier, router or pooling", \
	  "nothing: this is no attention")                                                                                       \
	X(SOFTMAX_ROUTER, "softmax.router", "none",                                                                              \
	  "the softmax chooses or weighs the experts of a mixture: it is their router",                                          \
	  "nothing: this is no attention; `linnet show --blocks` tells of the experts")                                          \
	X(SOFTMAX_SUM_ELSEWHERE, "softmax.sum-elsewhere", "softmax",                                                             \
	  "exponentials are divided by a sum that is not theirs along one axis kept with length 1",                              \
	  "sum the same exponentials over one axis with keepdims=1")                                                             \
	X(SOFTMAX_PLUS, "softmax.plus", "softmax",                                                                               \
	  "something other than one is added to the sum of exponentials before the division",                           \
	  "nothing; softmax plus one can be said as attention, other sums cannot")                                       \
	X(ATTENTION_NO_SCORES, "attention.no-scores", "attention",                                                               \
	  "a product with values lies behind the softmax, but reading back from the softmax meets no product of queries and keys", \
	  "nothing, if scores are meant to be made otherwise (additive attention, pooling)")                                     \
	X(ATTENTION_NO_VALUES, "attention.no-values", "attention",                                                               \
	  "scores are a product of queries and keys, but the probabilities meet no product with values",                         \
	  "nothing, if probabilities are the result; else multiply them by the values with MatMul")                              \
	X(ATTENTION_NO_SOFTMAX, "attention.no-softmax", "attention",                                                             \
	  "a product of queries and keys is multiplied by values without a softmax between them: sigmoid, squared relu or linear attention", \
	  "nothing, if no softmax is meant; Attention has one")                                                                  \
	X(ATTENTION_SOFTMAX_AXIS, "attention.softmax-axis", "attention",                                                         \
	  "the softmax does not normalise along the keys, over which the product with values sums",                              \
	  "give the softmax the axis of the keys, the last one of q k^T")                                                        \
	X(ATTENTION_OPERATOR, "attention.operator", "attention",                                                                 \
	  "an operator between the product of queries and keys and the softmax is no scale, bias, mask, soft cap, cast or layout", \
	  "move it out of the scores, or say what it does as a bias that is added")                                              \
	X(ATTENTION_SCORES_USED, "attention.scores-used", "attention",                                                           \
	  "the scores are also used elsewhere, or are an output of the graph, so they must exist",                               \
	  "drop the other use; scores that only serve to read lengths can be replaced by Shape of an input")                     \
	X(ATTENTION_SCORES_CHOOSE, "attention.scores-choose", "attention",                                                       \
	  "which scores are hidden is computed from the scores themselves, as where only the k largest stay",                    \
	  "nothing, if keys are meant to be chosen by their scores; Attention has no such mask")                                 \
	X(ATTENTION_SCORES_MULTIPLIED, "attention.scores-multiplied", "attention",                                               \
	  "scores are multiplied or divided by something that differs within a head, or after terms were added",                  \
	  "multiply queries or keys by it, before terms are added to the scores")                                              \
	X(ATTENTION_SCORES_LAYOUT, "attention.scores-layout", "attention",                                                       \
	  "the scores are turned, cut or reshaped so that queries and keys are no more their last two axes",                     \
	  "keep the scores [batch, heads, queries, keys] until the product with values")                                         \
	X(ATTENTION_SINK, "attention.sink", "attention",                                                                         \
	  "more than one further logit is joined to each row of scores, or its probability is not dropped at once behind the softmax",                                     \
	  "join one logit as the last column, and slice it off behind the softmax")                                       \
	X(ATTENTION_QUANTISED, "attention.quantised", "attention",                                                               \
	  "scores or probabilities are quantised between the two products",                                                      \
	  "leave the two products and the softmax of attention out of quantisation")                                             \
	X(ATTENTION_SOFT_CAP, "attention.soft-cap", "attention",                                                                 \
	  "a tanh on the scores is not a soft cap: something is added inside of it, it is there twice, or not scaled by a positive number", \
	  "write cap * tanh(scale q k^T / cap), and add masks and biases behind it")                                             \
	X(ATTENTION_MASK_FILL, "attention.mask-fill", "attention",                                                               \
	  "a Where replaces scores by a number that does not hide them: it is not one constant of at most -10000",               \
	  "fill with -inf or the lowest number of the type")                                                                     \
	X(ATTENTION_MASK_SHAPE, "attention.mask-shape", "attention",                                                             \
	  "a mask or bias has more axes than the scores, or lengths that Attention does not broadcast",                          \
	  "give the mask the rank of the scores, with lengths equal or 1")                                                       \
	X(ATTENTION_MANY_TERMS, "attention.many-terms", "attention",                                                             \
	  "more terms are added to the scores, or more operators lie on the way, than are read",                                 \
	  "add masks and biases together first")                                                                                 \
	X(ATTENTION_SCALE, "attention.scale", "attention",                                                                       \
	  "the factor of q k^T is 0 or not finite",                                                                              \
	  "nothing: the weights are the same for all keys")                                                                                          \
	X(ATTENTION_PROBABILITIES_USED, "attention.probabilities-used", "attention",                                             \
	  "the probabilities are also used elsewhere, or are an output of the graph, so they must exist",                        \
	  "drop the other use or output (export without attention weights)")                                                     \
	X(ATTENTION_PROBABILITIES_CHANGED, "attention.probabilities-changed", "attention",                                       \
	  "something changes the probabilities between the softmax and the product with values",                                 \
	  "export in inference mode, without dropout; masks belong before the softmax")                                          \
	X(ATTENTION_PROBABILITIES_LAYOUT, "attention.probabilities-layout", "attention",                                         \
	  "the probabilities are turned, cut or reshaped in a way that is not undone before the product with values",            \
	  "keep the probabilities [batch, heads, queries, keys] until the product with values")                                  \
	X(ATTENTION_RANK, "attention.rank", "attention",                                                                         \
	  "an operand has fewer than two axes, no known rank or no floating-point type",                                         \
	  "run `linnet show --types` to see which types are unknown; annotate the inputs")                                       \
	X(ATTENTION_TYPES, "attention.types-differ", "attention",                                                                \
	  "queries, keys and values differ in element type",                                                                     \
	  "cast them to one type in front of the products")                                                                      \
	X(ATTENTION_BATCH, "attention.batch", "attention",                                                                       \
	  "queries, keys and values differ in rank, or in leading lengths that are not 1", \
	  "give them one rank, with the same batch and heads or lengths of 1")                                                                        \
	X(GLU_BOTH_ACTIVATED, "glu.both-activated", "glu",                                                                       \
	  "both factors are activations: neither is the plain value of a gated linear unit",                                     \
	  "nothing: cells of recurrent and highway networks do this")                                                                        \
	X(GLU_ACTIVATION, "glu.activation", "glu",                                                                               \
	  "the gate's activation is none of sigmoid, relu, gelu (both forms) and swish",                                         \
	  "nothing, if the other activation is wanted")                                                                          \
	X(GLU_CONSTANTS, "glu.constants", "glu",                                                                                 \
	  "the activation has the form of Gelu but not its constants",                                                           \
	  "compare with 0.5 x (1 + erf(x / sqrt 2)) and 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))")                      \
	X(GLU_ACTIVATION_USED, "glu.activation-used", "glu",                                                                     \
	  "the activated gate is also used elsewhere, or is an output of the graph",                                             \
	  "nothing, if gates are shared (highway networks, gated cells)")                                                        \
	X(GLU_LIMITS, "glu.limits", "glu",                                                                                       \
	  "gate or value are limited (Clip, Min, Max) between projection and product",                                           \
	  "nothing: a unit with limits stays as it is written; of experts, com.microsoft's MoE and QMoE have them (swiglu_limit)")                                                                  \
	X(GLU_GATE_NOT_PROJECTED, "glu.gate-not-projected", "glu",                                                               \
	  "the gate does not come from one projection (MatMul, Gemm or Conv with constant weights)",                               \
	  "nothing, if the gate is made otherwise")                                                                              \
	X(GLU_VALUE_NOT_PROJECTED, "glu.value-not-projected", "glu",                                                             \
	  "the value does not come from one projection (MatMul, Gemm or Conv with constant weights)",                              \
	  "nothing, if something other than a projection is gated (attention outputs, features, states)")                        \
	X(GLU_SOURCES_DIFFER, "glu.sources-differ", "glu",                                                                       \
	  "gate and value are projections of different values",                                                                  \
	  "nothing, if one value gates another")                                                                                 \
	X(GLU_HALVES_DIFFER, "glu.halves-differ", "glu",                                                                         \
	  "gate and value differ in shape: one is broadcast to the other",                                                       \
	  "give gate and value the same shape; gates for each channel (squeeze and excitation) are no gated linear units")       \
	X(LOOP_NO_STATE, "loop.no-state", "recurrence",                                                                          \
	  "nothing but counters is carried from one step to the next: the steps are independent",                                \
	  "write the body over the whole axis at once")                                                                          \
	X(LOOP_STATE_NOT_LINEAR, "loop.state-not-linear", "recurrence",                                                          \
	  "the new state is not linear in the old one: an operator in its way is not",                                           \
	  "nothing: no linear recurrence does this (gated cells, softmax over a cache)")                                         \
	X(LOOP_STATE_GROWS, "loop.state-grows", "recurrence",                                                                    \
	  "the state is not of one size: it gets longer with the steps, as a list or cache",                                     \
	  "collect results as a scanned output instead of joining them to a state")                                              \
	X(LOOP_CONDITION, "loop.condition", "recurrence",                                                                        \
	  "the loop stops on a condition that is computed from what it carries, not after a number of steps",                    \
	  "give the loop a trip count and a constant condition")                                                                 \
	X(LOOP_BACKWARDS, "loop.backwards", "recurrence",                                                                        \
	  "a scan reads or writes its sequences from their end",                                                                 \
	  "turn the sequences around before the scan and its results behind it")                                                 \
	X(LOOP_STATES, "loop.many-states", "recurrence",                                                                         \
	  "more than one state is carried besides counters, so that no single recurrence is the whole step",                     \
	  "split the loop, if the states do not depend on one another")                                                          \
	X(LOOP_OUTPUTS, "loop.outputs", "recurrence",                                                                            \
	  "not exactly one result of the steps is used",                                                                         \
	  "give the result of reading the state alone; compute the others outside of the loop")                                  \
	X(LOOP_TYPE, "loop.type", "recurrence",                                                                                  \
	  "the state is not of a floating-point type that LinearAttention has",                                                  \
	  "cast what is carried to float")                                                                                       \
	X(LOOP_READ, "loop.read", "recurrence",                                                                                  \
	  "what a step gives is no product of a query with the state",                                                           \
	  "give q S of the new state, and do the rest behind the loop")                                                          \
	X(LOOP_UPDATE, "loop.update", "recurrence",                                                                              \
	  "the new state is linear in the old one, but it is not the old one that fades, plus keys times values",                \
	  "nothing, if another recurrence is meant")                                                                             \
	X(LOOP_LENGTHS, "loop.lengths", "recurrence",                                                                            \
	  "the number of heads or the lengths of the state are not known",                                                       \
	  "fix these lengths (linnet convert --fix-dim)")                                                                        \
	X(LOOP_LINEAR, "loop.linear", "recurrence",                                                                               \
	  "the recurrence is linear, but none that is recognised by what it computes",                                           \
	  "write the recurrence as LinearAttention or CausalConvWithState, if a runtime shall run it at once")                    \
	X(CONV_DILATED, "conv.dilated", "recurrence",                                                                             \
	  "a causal convolution of each channel has a dilation, which CausalConvWithState has not",                               \
	  "spread the weights with zeros, if the longer filter is worth one operator with a state")

enum why_code {
	WHY_NONE,
#define X(id, code, form, text, help) WHY_##id,
	WHY_CODES(X)
#undef X
	WHY_COUNT
};

struct why_row {
	const char *code, *form, *text, *help;
};

extern const struct why_row why_rows[WHY_COUNT]; /* [0] is empty */

/* ---- Notes that recognisers take ---- */

enum why_part { WHY_WHOLE, WHY_BEFORE, WHY_BEHIND }; /* of attention: the scores, what becomes of the probabilities */

struct why_note {
	enum why_code code;
	enum why_part part;
	node_id node;   /* the witness; 0: `value` has no node */
	value_id value; /* where reading stopped */
	int depth;      /* how far it came: of several notes the deepest counts */
};

enum { MAX_NOTES = 64 };

struct why {
	struct why_note note[MAX_NOTES];
	int n;
	enum why_part part;
};

/* Note that `code` failed at node n (or at value v without one), depth steps on the way; nothing without w->why. Always false. */
bool why_not(const struct view *w, enum why_code code, const struct node *n, value_id v, int depth);

/* The part that is being read from here on. */
void why_part(const struct view *w, enum why_part part);
/* What was noted of a part counts no more: it can be read after all. */
void why_forget(const struct view *w, enum why_part part);

/* A user of v other than `reader`, NULL when that is a graph output: what keeps v alive. */
const struct node *other_user(const struct view *w, value_id v, const struct node *reader);

/* ---- Answers ---- */

struct finding {
	enum why_code code;
	const char *node, *op;       /* what was not recognised, as the file has it */
	const char *witness, *witness_op; /* what shows it: a node, or a value ("" as operator) */
	bool described;              /* attention that `linnet show --attention` lists, but that stays as written */
	const struct graph *g;       /* where it is, after the passes */
	node_id at;
};

struct findings {
	struct graph *graph;         /* after the exact passes */
	const struct graph *written; /* as given */
	struct finding *list;
	int n;
	int mixtures;                /* of experts */
	int recognised[3];           /* nodes: attention, gated units, linear recurrences */
};

/* Run the exact passes on a copy of g, made in a, and ask. */
enum linnet_code why_graph(const struct graph *g, struct arena *a, struct findings *out, struct linnet_error *e);

enum fate {
	FATE_UNKNOWN,    /* no node or value of that name */
	FATE_PART,       /* became part of a recognised node */
	FATE_NEAR,       /* belongs to what a finding is about */
	FATE_REWRITTEN,  /* another node of the passes does its work */
	FATE_KEPT,       /* is there as written; no recogniser asked for it */
	FATE_CONSTANT,   /* its result is a constant */
	FATE_INPUT,      /* no node: an input of the graph */
	FATE_LEFT_OUT,   /* changes nothing, or another node computes the same */
};

struct node_fate {
	enum fate fate;
	const char *node, *op;       /* as the file has them */
	const char *into, *into_op;  /* FATE_PART, FATE_REWRITTEN: the node that took its place; FATE_KEPT: what is recognised behind it, or NULL */
	const char *rule;            /* that replaced it, NULL when it is there as written */
	int finding;                 /* FATE_NEAR: index, else -1 */
};

/* What became of the node of that name, or of the node that computes the value of that name. */
enum linnet_code why_node(const struct findings *f, const char *name, struct arena *a, struct node_fate *out, struct linnet_error *e);

#endif
