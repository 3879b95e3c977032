/*
 * What an operator is: one row. Everything else about operators (importer, verifier, inference, executor,
 * generator, documents) is read from here.
 *
 * ops/ never sees a graph: a shape function or a kernel sees its own inputs, outputs and attributes.
 */
#ifndef LINNET_OP_H
#define LINNET_OP_H

#include "ops/base/err.h"
#include "ops/base/shape.h"

/* How an output depends on an input: not through smooth arithmetic, linearly, smoothly, with kinks. */
enum flow { FLOW_NONE, FLOW_LINEAR, FLOW_SMOOTH, FLOW_KINKED };

/* How two executions of the operator agree: bit for bit, up to rounding, in distribution. */
enum agree { AGREE_BITS, AGREE_ROUND, AGREE_RANDOM };

/* ---- Attributes ---- */

enum attr_kind {
	ATTR_NONE, /* in struct attr: left out and without default */
	ATTR_INT,
	ATTR_FLOAT,
	ATTR_STRING,
	ATTR_TENSOR,
	ATTR_GRAPH,
	ATTR_INTS,
	ATTR_FLOATS,
	ATTR_STRINGS,
	ATTR_TYPE,
	ATTR_OTHER /* kept for writing back, not interpreted (sparse tensors, lists of tensors, types or graphs) */
};

struct graph; /* graph/graph.h; opaque here */

/* The value of one attribute. */
struct attr {
	const char *name; /* as in the row; for operators without a row, as in the file */
	enum attr_kind kind;
	bool given;       /* written in the file, not filled in from the row */
	int64_t i;        /* INT */
	double f;         /* FLOAT */
	struct text s;    /* STRING */
	size_t n;         /* INTS, FLOATS, STRINGS */
	const int64_t *ints;
	const float *floats;
	const struct text *strings;
	const struct tensor *t; /* TENSOR */
	struct graph *g;        /* GRAPH */
	const struct type *type; /* TYPE */
	const void *origin;     /* TYPE, OTHER: for the exporter */
};

/* Flags of inputs, outputs and attributes. */
enum {
	OPTIONAL = 1, /* may be left out */
	VARIADIC = 2, /* the last one, repeated any number of times, at least once unless OPTIONAL too */
	REQUIRED = 4, /* attribute without default that must be given */
	HETERO = 8,   /* variadic whose members may differ in type */
	BY_NAME = 16, /* STRING attribute whose range is `oneof` */
	FOR_GRAD = 32, /* optional output that the gradient needs: added where it is left out */
	SCALAR = 64,  /* input: of rank 0, where an older form's attribute becomes it */
	SAID = 128,   /* INT attribute that is written with its default too, for programs that take another */
};

enum { IGNORED = UINT8_MAX }; /* op_attr.input */

struct op_attr {
	const char *name;
	enum attr_kind kind;
	uint8_t flags;  /* REQUIRED; OPTIONAL: no default, absence means something */
	uint8_t input;  /* in an old version's row: this attribute later became input number `input` (> 0). The importer
	                 * turns it into a constant input, the exporter back. IGNORED: it says nothing */
	uint8_t since;  /* opset that introduced it, when later than the row's */
	int64_t i;      /* default of INT */
	double f;       /* default of FLOAT */
	const char *s;  /* default of STRING; of INTS and FLOATS as text, "1,1" */
	double lo, hi;  /* admitted range of INT, FLOAT and the members of INTS, FLOATS, when lo < hi */
	const char *oneof; /* admitted STRINGs, separated by '|', when not NULL */
};

/* ---- Inputs, outputs, types ---- */

/* Type variables of a row. */
enum tvar { T, T1, T2, T3, T4, T5, T6, NTVAR };

struct op_io {
	const char *name;
	uint8_t type;  /* enum tvar */
	uint8_t flow;  /* enum flow; inputs */
	uint8_t flags; /* OPTIONAL, VARIADIC, HETERO */
	uint8_t since; /* opset that introduced it, when later than the row's */
	kind_set kinds; /* of values; 0: tensors. The element type is that of the tensors inside */
};

static inline kind_set io_kinds(const struct op_io *io) { return io->kinds ? io->kinds : TENSORS; }

/* ---- Shape functions ---- */

/*
 * One call of a shape function. The same function serves inference (symbolic lengths, some values known) and
 * execution (every length a number, every value known; dims and arena may then be NULL and syms are not kept).
 *
 * Before the call: arity, attributes and the inputs' kinds and dtypes have been checked against the row; out[i].dt is set to the
 * binding of its type variable when an input or a single-type set decides it, else DT_UNDEFINED; out[i].kind is the first the
 * row has; out[i].shape is unknown. The function fills what it can and fails only when the inputs break the operator's rules.
 */
struct shape_call {
	const struct op *op;
	const struct attr *attr; /* in row order */
	struct dims *dims;
	struct arena *arena;
	int nin, nout;
	const struct type *const *in; /* NULL: left out */
	struct type *out;             /* nout of them */
	const bool *wanted;           /* nout of them: false where the node leaves the output out */
	struct linnet_error *e;
};

typedef enum linnet_code shape_fn(struct shape_call *c);

/*
 * The body of one call, where one text cannot say it for all: written for the ranks, element types, lengths and attributes of this
 * call and the outputs it wants (c as a shape function sees it, after it). *text is in c->arena and in the form of `body`.
 */
typedef enum linnet_code body_fn(struct shape_call *c, const char **text);

/* ---- Kernels ---- */

/*
 * One call of a kernel. Inputs have been checked against the row, outputs are allocated with the shapes the shape
 * function gave, attributes have defaults; the kernel computes values. Output data is not zeroed.
 *
 * An output that is no tensor comes without members: the kernel makes room by give_members() and puts there inputs, members of
 * inputs, or tensors made in scratch memory. A row with OP_PICK allocates nothing: its kernel sets `pick` to the
 * input, or the member of one, that output 0 is. Who called sees to it that they live on.
 */
struct kernel_call {
	const struct op *op;
	const struct attr *attr; /* in row order */
	int nin, nout;
	const struct tensor *const *in; /* NULL: left out */
	struct tensor *const *out;      /* NULL: not wanted */
	struct arena *scratch;          /* reset after the call; kept for the run when an output is of strings, whose
	                                 * bytes may be here */
	int threads;                    /* fast kernels may use so many */
	bool mixed;                     /* fast kernels may round factors of large matrix products to bfloat16 */
	void *prepared;                 /* what `prepare` of the fast kernel made, else NULL */
	uint64_t seed;                  /* for random operators */
	const struct tensor *pick;      /* OP_PICK: set by the kernel */
	struct linnet_error *e;
};

typedef enum linnet_code kernel_fn(struct kernel_call *c);

/* A fast kernel: another way to compute the same, never the definition. */
struct fast {
	const char *name; /* as `linnet run --explain` says it */
	/* Whether this call is one it can do: dtypes, shapes, attributes. Inputs' data must not be read, except of
	 * constants a `prepare` has seen. */
	bool (*ok)(const struct kernel_call *c);
	/* Once a plan, optional: pack constants. constant[i] is NULL where input i is not constant. *prepared stays NULL when
	 * there is nothing to pack. Memory from the arena lives as long as the plan. */
	enum linnet_code (*prepare)(const struct op *op, const struct attr *attr, int nin, const struct tensor *const *constant,
	                            struct arena *a, void **prepared, struct linnet_error *e);
	kernel_fn *run;
	bool inplace; /* out[0] may be the memory of an input with the same dtype and shape */
};

/* Instruction sets the fast sources are compiled for; LEVEL_BASE is x86-64-v2 or plain aarch64. */
enum fast_level { LEVEL_BASE, LEVEL_AVX2, LEVEL_AVX512, NLEVEL };

/* One fast kernel at every level; made by FAST_LIST in ops/fast/table.c. */
struct fast_set {
	const struct fast *at[NLEVEL];
};

/* The best level this processor has (or LINNET_LEVEL=base|avx2|avx512 in the environment asks for, if it has it). */
enum fast_level fast_level(void);

/* ---- Generator hints ---- */

/* FUZZ_STEPS: input 0 is a sequence, along axis 0 or 1, and each step goes on from the last. */
enum fuzz_shapes { FUZZ_NONE, FUZZ_SAME, FUZZ_BROADCAST, FUZZ_MATMUL, FUZZ_REDUCE, FUZZ_STEPS, FUZZ_CUSTOM };

struct fuzz {
	enum fuzz_shapes shapes;
	double lo, hi; /* sensible range of float inputs; both 0: [-1, 1] */
	const char *words; /* sensible values, separated by '|', of a string attribute that may be anything */
};

/* ---- The row ---- */

enum {
	OP_VIEW = 1,    /* out[0] is in[0]'s data with another shape */
	OP_CONTROL = 2, /* has subgraphs: run by the executor */
	OP_SHAPE_ONLY = 4, /* reads only the shapes of its inputs, not their data */
	OP_PICK = 16,   /* out[0] is in[0] or a member of it, as the kernel says */
	OP_OLD = 32,    /* an old version: the newest row says the same with the same inputs and attributes */
	OP_EACH = 64,   /* out[0] has at each place what the inputs, broadcast, have there */
	OP_VALUES = 8,  /* the shape function checks values it may not need: execution shows it those of all inputs */
};

struct op {
	const char *domain; /* NULL means ai.onnx */
	const char *name;
	int since;                 /* first opset with these semantics; element types are the newest version's */
	const char *doc;           /* one sentence or two */
	const struct op_io *in, *out;     /* IN(...), OUT(...) */
	const struct op_attr *attr;       /* ATTRS(...) or NULL */
	dtype_set types[NTVAR];
	uint8_t agree;
	uint8_t flags;
	shape_fn *shape;
	kernel_fn *kernel;
	const struct fast_set *const *fast; /* FAST(...): asked in order */
	const char *body;  /* the same function in other operators, in the text form: { ... } over the row's input and output names.
	                    * "?name { ... } { ... }": the first block when attribute or input `name` is given, else the second;
	                    * "?name=word { ... } { ... }": the first when STRING attribute `name` (or its default) is that word */
	body_fn *write_body; /* instead of `body` */
	const char *lower; /* old version: the same as `body` but in current operators, used by the importer instead of a kernel */
	/* Instead of `lower`: the text for one call whose inputs' types are known. Such a row has a shape function, for the types
	 * of the nodes behind it. */
	body_fn *write_lower;
	/* Optional, of old versions and of what replaced one with a kernel: whether for these inputs (of known types) the newest row
	 * computes the same with the same attributes, so that lowering can be undone when exporting and, where it is by `lower`, be
	 * spared. */
	bool (*same)(const struct op *op, const struct attr *attr, int nin, const struct type *const *in);
	/*
	 * The gradient as a block: from the row's inputs, its outputs and d_NAME, the gradient of output NAME, to d_NAME of each input that
	 * has one. "?d_NAME" asks whether an output has a gradient. d_NAME of an input may have the lengths the input is broadcast to: it
	 * is summed where it was repeated. Constants of floats are in the type of the gradients. Members of a variadic
	 * input or output are NAME_0, NAME_1 and so on.
	 */
	const char *grad;
	body_fn *write_grad; /* instead of `grad`: as body_fn says, but c->wanted tells which outputs have gradients; *text stays NULL for calls
	                      * that have none of their own, which then have that of the body */
	struct fuzz fuzz;
	const void *param; /* for kernels shared by several rows: which one */
};

#define IN(...) (const struct op_io[]){ __VA_ARGS__, { .name = NULL } }
#define OUT(...) (const struct op_io[]){ __VA_ARGS__, { .name = NULL } }
#define ATTRS(...) (const struct op_attr[]){ __VA_ARGS__, { .name = NULL } }
#define FAST(...) (const struct fast_set *const[]){ __VA_ARGS__, NULL }

struct op_family {
	const char *name; /* of the file */
	const struct op *op;
	int n;
};

#define FAMILY(title, rows) { .name = title, .op = (rows), .n = (int)(sizeof(rows) / sizeof *(rows)) }

/* A number in a `grad` block, in the type of the gradients. */
#define REAL(to, number) "  " to " = Constant <value = double {" number "}> ()\n"

static inline bool op_has_body(const struct op *op) { return op->body || op->write_body; }

/* Where a gradient comes from: nothing flows from floats to floats; the row; its body; the graphs inside (graph/passes/grad.c); nowhere yet. */
enum op_gradient { GRADIENT_NO, GRADIENT_ROW, GRADIENT_BODY, GRADIENT_GRAPHS, GRADIENT_MISSING };
enum op_gradient op_gradient(const struct op *op);

/* All families, ended by NULL. */
extern const struct op_family *const op_families[];

/* The row with the greatest `since` not above the opset; NULL when there is none. domain: NULL, "" and "ai.onnx" are the same. */
const struct op *op_find(const char *domain, const char *name, int opset);

/* An operator that has no row on purpose. */
struct op_absent {
	const char *domain, *name, *why;
};

const struct op_absent *op_absents(int *n);

/* Why an operator has no row; NULL when nothing is known of it. */
const char *op_absent(const char *domain, const char *name);

/* The row current in this build (op_find at the newest opset). */
const struct op *op_newest(const char *domain, const char *name);

enum { OPSET_NEWEST = 28, OPSET_NEWEST_ML = 5 }; /* of ai.onnx, of ai.onnx.ml */

/* Whether others define it: a function of ONNX, or one of com.microsoft. (function.c) */
bool op_is_function(const struct op *op);

/* The opset that lets input or output i of the operator be of type t, when that is after `opset`; else 0. (since.c) */
int op_type_since(const struct op *op, bool output, int i, enum dtype t, int opset);

/* The opset that took type t from the operator's data, when that is not after `opset`; else 0. */
int op_type_gone(const struct op *op, enum dtype t, int opset);

/* The opset that lets input or output i be of kind k, when that is after `opset`; else 0. */
int op_kind_since(const struct op *op, bool output, int i, enum type_kind k, int opset);

/* The opset that lets its element type be another than that of input *like, when that is after `opset`; else 0. */
int op_alike_since(const struct op *op, bool output, int i, int opset, int *like);

/* An old version's row, which the importer replaces by current operators. */
bool op_is_old(const struct op *op);

int op_nin(const struct op *op, bool *variadic);  /* declared inputs */
int op_nout(const struct op *op, bool *variadic);
int op_nattr(const struct op *op);
int op_attr_index(const struct op *op, const char *name); /* -1 when it has none of that name */

/* Declaration of input or output i, counting a variadic one's repetitions; NULL beyond. */
const struct op_io *op_in(const struct op *op, int i);
const struct op_io *op_out(const struct op *op, int i);

/* The attribute of a call by name; never NULL for a name the row has. */
const struct attr *attr_get(const struct op *op, const struct attr *attr, const char *name);
/* The number of a STRING attribute's value in its row's `oneof`. */
int attr_choice(const struct op *op, const struct attr *attr, const char *name);
/* Whether leaving the attribute out says the same. */
bool attr_is_default(const struct op_attr *row, const struct attr *a);
static inline bool attr_given(const struct attr *a) { return a->kind != ATTR_NONE; }

/*
 * Types of a call's outputs: check arity and dtypes against the row, preset out dtypes, call the row's shape
 * function. Rows without one leave shapes unknown.
 */
enum linnet_code op_infer(struct shape_call *c);

/* Whether every wanted output's type is known; op_undecided() is the error of a call that leaves one open although all its inputs
 * are known: a length that has overflowed. */
bool op_decided(const struct shape_call *c);
enum linnet_code op_undecided(const struct shape_call *c, struct linnet_error *e);

/*
 * Evaluate one node by its reference kernel: infer, allocate the outputs in the arena, run. For constant folding and
 * tests. out[i] is set where wanted[i]. Not for OP_CONTROL.
 */
enum linnet_code op_eval(const struct op *op, const struct attr *attr, int nin, const struct tensor *const *in, int nout,
                         const bool *wanted, struct arena *a, struct tensor **out, struct linnet_error *e);

/* Fill defaults: every row attribute gets its entry in `full` (row order) from the given ones; checks kinds, ranges,
 * required ones and unknown names. */
enum linnet_code op_attrs(const struct op *op, const struct attr *given, size_t ngiven, struct arena *a, struct attr **full,
                          struct linnet_error *e);

/* ---- Shape functions and helpers shared by families (shapes.c) ---- */

shape_fn shape_same;      /* every output has the shape of input 0 */
shape_fn shape_broadcast; /* all inputs broadcast together, NumPy style; carries symbolic values of + - * / etc. is the family's job */

/* Broadcast two shapes. Lengths that may be equal or 1 but are not provably so: the known one, else DIM_NONE. */
enum linnet_code broadcast(struct dims *t, const struct shape *a, const struct shape *b, struct shape *out, struct linnet_error *e);

/* Lengths that must be equal: fails when they surely differ ("inner lengths differ: 64 and 32"), else *out (may be NULL)
 * is the one that says more. */
enum linnet_code length_join(struct shape_call *c, const char *what, dim a, dim b, dim *out);

/* Fails when input i is given, its rank known and not in [lo, hi]. */
enum linnet_code rank_check(const struct shape_call *c, int i, int lo, int hi);

/* Fails when input i, the gradient of a value of shape s, is given and surely has another shape. */
enum linnet_code shape_check(struct shape_call *c, int i, const struct shape *s);

/* Fails when input i is given and surely has not one element. */
enum linnet_code scalar_check(const struct shape_call *c, int i);

/* Output 0 has the element type that an INT attribute names, if it is given. */
enum linnet_code attr_dtype(struct shape_call *c, const char *name);

/* axis in [-rank, rank) to [0, rank). */
enum linnet_code axis_check(int64_t axis, int rank, int *out, struct linnet_error *e);

/* The axes that an INTS attribute lists, each at most once, in its order; all of them when it is left out. */
enum linnet_code axes_check(const struct attr *given, int rank, int axes[MAX_RANK], int *n, struct linnet_error *e);

/* The elements of a 0- or 1-D integer input as dims, from value or sym. *n = -1 when not known. */
enum linnet_code type_ints(const struct type *t, dim *out, int max, int *n, struct linnet_error *e);

/* The same, but when only their number is known they are DIM_NONE, *n of them. */
enum linnet_code type_dims(const struct type *t, dim *out, int max, int *n, struct linnet_error *e);

/*
 * The elements of a value that takes part in shape arithmetic: integers or bools, rank 0 or 1, at most MAX_SYM of
 * them, from value or sym; single ones may be DIM_NONE. Their number, or -1 when none is known. Never an error.
 */
int type_elements(const struct type *t, dim out[MAX_SYM]);

/* A length that went through floats on its way, num / den with den > 0; num is DIM_NONE when it is not known. */
struct ratio {
	dim num;
	int64_t den;
};

/* A number that is a ratio with a small power of two below, as 0.5 and 3 are, else not known. */
struct ratio ratio_of(double v);

/* The same as type_elements() of integers, floats and doubles. */
int type_ratios(const struct type *t, struct ratio out[MAX_SYM]);

/* Element i of a 0- or 1-D integer input, DIM_NONE when it is not known. */
dim type_element(const struct type *t, int64_t i);

/* An input whose elements are lengths, as a shape: d[i] may be DIM_NONE, the rank may be unknown. Whether the lengths are
 * admissible (-1, say) is the operator's affair. */
enum linnet_code type_shape(const struct type *t, struct shape *out, struct linnet_error *e);

/* Rank within MAX_RANK, else LINNET_EUNSUPPORTED. */
enum linnet_code rank_limit(int64_t rank, struct linnet_error *e);

/* Record symbolic elements for an output (copied; ignored when c->arena is NULL, n > MAX_SYM or none is known). */
void type_set_sym(struct shape_call *c, int out, const dim *elements, int n);
void type_set_ratios(struct shape_call *c, int out, const struct ratio *elements, int n);

/* Symbolic elements of output 0 as f of known elements of the inputs, folded from the left; one element goes with all of
 * another's. */
void join_sym(struct shape_call *c, dim (*f)(struct dims *t, dim a, dim b));

/* Input i as doubles, in scratch memory or its own; NULL when left out. */
enum linnet_code kernel_doubles(struct kernel_call *c, int i, const double **out);

/* Strides in elements of a tensor seen through a broadcast to `shape` of rank r: 0 along broadcast axes. */
void broadcast_strides(const struct tensor *t, int r, int64_t *stride);

#endif
