/*
 * Changing graphs: rules find and describe a change, patches carry it out, passes are lists of rules.
 *
 * A rule reads a const graph and fills a patch; only patch_apply() changes the graph.
 */
#ifndef LINNET_PASS_H
#define LINNET_PASS_H

#include "graph/graph.h"

/* ---- Patches ---- */

/*
 * New values have ids above the graph's own until the patch is applied; both kinds may be used as
 * inputs of new nodes. All functions remember failure (memory, bad attributes): patch_apply() returns it.
 */
struct patch {
	const struct graph *g;
	struct arena *arena; /* the graph's: what is made may stay */
	struct arena *scratch; /* until it is applied; the graph's, too, when the caller has none that is shorter lived */
	struct patch_node *node;
	uint32_t nnode, cap_node;
	struct patch_value *value;
	uint32_t nvalue, cap_value;
	struct patch_replace *replace;
	uint32_t nreplace, cap_replace;
	struct patch_output *output;
	uint32_t noutput, cap_output;
	struct uses *uses;   /* of the graph, to be kept; NULL: made anew */
	uint32_t base;       /* the graph's nvalue when the patch was begun */
	struct linnet_error *e;
	enum linnet_code code;
};

/* The graph may not change between this and patch_apply(). */
void patch_init(struct patch *p, const struct graph *g, struct linnet_error *e);

/* A node of the newest row of ai.onnx operator `op`; returns its first output, the others follow (v + 1, ...). 0 inputs are left out.
 * attr: terminated by a NULL name; NULL for none. hint names node and outputs. */
value_id patch_node(struct patch *p, const char *op, const char *hint, const value_id *in, uint32_t nin, uint32_t nout,
                    const struct attr *attr);
value_id patch_op(struct patch *p, const struct op *op, const char *hint, const value_id *in, uint32_t nin, uint32_t nout,
                  const struct attr *attr);

#define PATCH_IN(...) (const value_id[]){ __VA_ARGS__ }, (uint32_t)(sizeof((value_id[]){ __VA_ARGS__ }) / sizeof(value_id))

/* Constants. */
value_id patch_const(struct patch *p, const struct tensor *t, const char *hint);
value_id patch_ints(struct patch *p, const int64_t *v, int n, const char *hint); /* int64 [n] */
value_id patch_int(struct patch *p, int64_t v, const char *hint);                /* int64 scalar */
value_id patch_float(struct patch *p, enum dtype dt, double v, const char *hint); /* scalar of that type */

/* Lengths of the axes of v from `from` to before `to` (INT64_MAX: to the last), int64 [to - from], in words that the main graph's opset has. */
value_id patch_lengths(struct patch *p, value_id v, int64_t from, int64_t to, const char *hint);

/* Length d, int64 [1], as a number or a multiple of one length of the graph's inputs, or of the largest of up to three; 0 when it is none of these. */
value_id patch_said(struct patch *p, dim d);
bool length_is_said(const struct graph *g, dim d);

/* Attribute values for the lists above. */
struct attr attr_int(const char *name, int64_t i);
struct attr attr_float(const char *name, double f);
struct attr attr_ints(const char *name, const int64_t *v, size_t n);
struct attr attr_string(const char *name, const char *s);

/* Uses of `old` become uses of `by`, which has the same type. A replaced graph output keeps its name. */
void patch_replace(struct patch *p, value_id old, value_id by);

/* A new graph input of that name, which must be unused and outlive the graph. */
value_id patch_input(struct patch *p, const char *name, const struct type *t);

/* A new value becomes a graph output of that name, which must be unused and outlive the graph. */
void patch_output(struct patch *p, value_id v, const char *name);

/* Whether all its nodes may be made: graph.opset, graph.denied of the main graph. */
bool patch_fits(const struct patch *p, const struct graph *main);

/* The name of the first node of the file that a node stands for. */
const char *node_first_written(const struct graph *g, const struct node *n);

static inline bool patch_empty(const struct patch *p) { return !p->nreplace && !p->noutput && !p->code; }

/*
 * Carry the change out: new nodes get types by inference and `from` as origin; a replaced value must keep its element
 * type and, where both are known, its shape (LINNET_EINTERNAL otherwise, and the graph is as before). Nodes left without
 * use are marked dead.
 */
enum linnet_code patch_apply(struct graph *g, struct patch *p, const char *from, struct linnet_error *e);


/* ---- Reading graphs in rules ---- */

/* What rules need to know of a graph; patches keep it. */
struct view {
	const struct graph *g;
	struct uses uses;
	struct arena *scratch; /* until the rule returns */
	struct why *why; /* NULL, or where recognisers note what they miss (graph/why.h) */
};

static inline uint32_t value_uses(const struct view *w, value_id v) { return uses_of(&w->uses, v); }
bool value_is_output(const struct view *w, value_id v);

/* The node computing v when it is operator `op`, else NULL. */
const struct node *value_from(const struct graph *g, value_id v, const char *op);
/* The only user of v when it has one and is no graph output, else NULL; *index: which input. */
const struct node *value_user(const struct view *w, value_id v, uint32_t *index);
/* A rotary embedding of x: RotaryEmbedding, then `node` is it, or x cos + [-x2, x1] sin. */
struct rope {
	value_id x, cos, sin;
	const struct node *node;
};
bool rope_find(const struct graph *g, value_id v, struct rope *r);
/* The constant of v (VALUE_CONST, or known to inference), else NULL. */
const struct tensor *value_const(const struct graph *g, value_id v);
/* Attention n again with other inputs [6], up to past_value, and for the attributes named in `change` other values. (passes/attend.c) */
void attention_again(struct patch *p, const struct node *n, const value_id *in, const struct attr *change);
/* The input that the node's first output is a copy of, else 0. (passes/tidy.c) */
value_id node_copies(const struct view *w, const struct node *n);
/* Numbers above 0, by the operator that makes them. (passes/recur.c) */
bool value_positive(const struct graph *g, value_id v);
/* v is constant with one element, or all its elements equal: that number. */
bool value_scalar(const struct graph *g, value_id v, double *x);
/* The same of what is filled with a number by the time it runs. (passes/scores.c) */
bool value_filled(const struct graph *g, value_id v, double *x);
/* v is a constant list of integers. */
bool value_ints(const struct graph *g, value_id v, int64_t *out, int max, int *n);
/* The only element of v, an integer or an expression of lengths; DIM_NONE: it has more, or nothing is known of it. */
dim value_length(const struct graph *g, value_id v);

/* Whether it is a Pad that puts zeros around its first input; where, its second says for all axes. */
bool pads_zeros(const struct graph *g, const struct node *n);
/* Whether it is a Pad that appends one zero to that axis, counted from the last (1), and does nothing else. */
bool pads_one(const struct graph *g, const struct node *n, int axis);
/* Whether it is a Concat of one value with itself. */
bool joins_one(const struct node *n);
/* Whether its first output is numbers of its first input, moved, repeated, turned or zeros beside them: a factor of theirs is one of its own. */
bool keeps_factor(const struct graph *g, const struct node *n);

/* Whether a Transpose of values of that rank exchanges rows and columns and nothing else. */
bool swaps_last_two(const struct node *n, int rank);

/* ---- Rules and passes ---- */

/*
 * Either code: look at node n, of operator `anchor`; fill the patch or leave it empty. Or two texts (graph/rule.c), which compute the same for
 * every binding that the guard admits:
 *
 *   from    "(float[] x, float[D] w) => (y) <float two = {2}, float e = {@eps}> { nodes }". The first output is made by the anchor. Inputs stand
 *           for any values of their types: `float` for any one of `types`, [] for any rank, a letter for one length, a number for itself. A
 *           constant without axes stands for constants all of whose elements are that number; @p for a number that is met, in constants and
 *           attributes (`alpha: float = @p`). Operands of Add, Mul, Max, Min and Sum may be exchanged, axes counted from either end. Values
 *           inside of the pattern have no other uses; further outputs may have.
 *   to      "<constants> { nodes }" between the same inputs, outputs and parameters.
 */
struct match;
struct rule {
	const char *name; /* "pass/what" */
	const char *doc;
	const char *anchor; /* NULL: every node */
	bool first;         /* it is tried on all nodes before the pass's other rules are: it spares them what it drops */
	enum linnet_code (*apply)(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e);
	const char *from, *to;
	bool (*guard)(const struct match *m); /* what the texts cannot say; NULL: nothing */
	dtype_set types; /* 0: FLOATS */
	double near;     /* relative error that constants of `from` may have, as narrow types keep them */
	/* The most that outputs of inputs drawn from [-1, 1) may differ by, computed in double, relative to them where they are above 1. 0: the same bits; 1e-12: sums change their order; 1e-6:
	 * attributes are floats, or operators are not defined in double. The tests hold each rule to it. */
	double differs;
};

/* For guards: what stands for the pattern's names and parameters. */
value_id match_value(const struct match *m, const char *name);
const struct type *match_type(const struct match *m, const char *name);
double match_param(const struct match *m, const char *name);
const struct graph *match_graph(const struct match *m);

/* The rule's pattern, read; it lives as long as the arena. */
struct pattern;
enum linnet_code pattern_read(const struct rule *r, struct arena *a, struct pattern **out, struct linnet_error *e);
enum linnet_code pattern_apply(const struct pattern *p, const struct view *w, const struct node *n, struct patch *patch, struct linnet_error *e);

/* Parameters of a rule; and the text of `from` or `to` with both's head, and numbers for the parameters in the order `from` names them. */
int rule_params(const struct rule *r);
enum linnet_code rule_text(const struct rule *r, const char *from_or_to, const double *value, struct arena *a, char **text, struct linnet_error *e);

enum { PASS_EXACT, PASS_APPROX };

struct pass {
	const char *name, *doc;
	int kind;
	const struct rule *rule;
	int nrule;
	const char *makes; /* the operator it is all about; without it in the wanted opset the pass is of no use. NULL: none */
	/* Instead of rules: change the graph by patches of its own. count: changes made. */
	enum linnet_code (*run)(struct graph *g, uint32_t *count, struct linnet_error *e);
	double differs; /* of run(): as a rule's */
	bool late;      /* it costs: of all passes together it waits until the others change nothing */
	bool settles;   /* what it changes leaves it nothing more to do */
};

#define PASS_RULES(rules) .rule = (rules), .nrule = (int)(sizeof(rules) / sizeof *(rules))

/* All exact passes, in the order they run; ended by NULL. */
extern const struct pass *const passes[];

/* Of fold and share, what makes a file smaller and never larger. */
extern const struct pass fold_small_pass, share_all_pass;
/* For models that are written: in one word of ONNX, or of com.microsoft, what the recognisers found. (passes/ort.c) */
extern const struct pass fuse_pass, ort_pass;
/* For models that are written: weights change by it. (passes/batch.c) */
extern const struct pass batch_pass;
const struct pass *pass_find(const char *name);
/* passes[], then those for models that are written; NULL behind the last. */
const struct pass *pass_at(int i);

/*
 * Apply a pass's rules until none applies (each node is looked at in order; rules in order), in subgraphs too; then compact and infer.
 * left: when not NULL, at most *left changes are made, and it is decreased (for bisection).
 */
enum linnet_code pass_run(const struct pass *pass, struct graph *g, uint32_t *count, uint32_t *left, struct linnet_error *e);

/*
 * Passes of a list in turn, until none changes anything: those that found nothing are not asked again of the same graph, and what they needed
 * to know of it is kept. Begin with zeros, end with pass_turns_end().
 */
enum { PASSES_MOST = 24 };
struct pass_turns {
	uint64_t changes;
	uint64_t seen[PASSES_MOST]; /* by pass: changes + 1 when it began */
	uint64_t uses_seen;         /* the same of uses; 0: there are none */
	struct uses uses;
	struct arena *memory;       /* of uses */
};

/* pass_run() of the pass that is number i of the list, when it is its turn and the wanted opset has what it makes. */
enum linnet_code pass_turn(struct pass_turns *t, size_t i, const struct pass *pass, struct graph *g, uint32_t *count, uint32_t *left, struct linnet_error *e);
void pass_turns_end(struct pass_turns *t);

/* The standard list: tidy, fold, recognisers. */
enum linnet_code pass_run_all(struct graph *g, uint32_t *left, struct linnet_error *e);

/* The same for a graph that is read (graph.reads): looked at or converted, not run. */
enum linnet_code pass_read_all(struct graph *g, struct linnet_error *e);

#endif
