/*
 * The graph: two arrays, values and nodes, in the model's arena.
 *
 * Every value has exactly one producer (a node output, a graph input, or itself as a constant) and knows it. Ids are
 * stable while a pass runs: nodes are appended or marked dead; graph_compact() sorts and renumbers between passes.
 */
#ifndef LINNET_GRAPH_H
#define LINNET_GRAPH_H

#include <string.h>

#include "ops/base/map.h"
#include "ops/op.h"

typedef uint32_t value_id; /* index into graph.value; 0 means none */
typedef uint32_t node_id;  /* index into graph.node;  0 means none */

struct uses;

enum value_kind { VALUE_NODE, VALUE_INPUT, VALUE_CONST };

struct value {
	const char *name;    /* unique in the graph and its outer ones; never NULL */
	enum value_kind kind;
	node_id producer;    /* VALUE_NODE */
	uint32_t index;      /* which output of the producer, or which graph input */
	struct type type;    /* VALUE_CONST: type.value is set */
	const void *origin;  /* the file's ValueInfoProto (VALUE_CONST: TensorProto), for the exporter; may be NULL */
	bool has_default;    /* VALUE_INPUT with an initializer of the same name: type.value stays NULL, see dflt */
	const struct tensor *dflt;
};

/* What a node stands for: a node of the file, or those that a rule replaced. */
struct trail {
	const char *rule;         /* NULL: a node of the file */
	const char *name, *op;    /* of a node of the file, as written there */
	const struct trail *const *of;
	uint32_t n;
};

struct node {
	const struct op *op;      /* the row; for an operator without one, a row made for this node: no shape, no kernel */
	const char *name;         /* "" when the file gives none */
	value_id *in, *out;       /* in[i] == 0: optional input left out; out[i] == 0: output not wanted */
	uint32_t nin, nout;
	uint32_t ncapture;        /* the last ncapture inputs are captures of the subgraphs, in attribute order */
	bool dead;
	bool known;               /* op is a row of the table */
	struct attr *attr;        /* one per row attribute, in row order, defaults filled in */
	uint32_t nattr;
	const void *origin;       /* the file's NodeProto: doc string, metadata, unknown fields; may be NULL */
	const char *from;         /* pass and rule that made it, NULL when imported */
	const struct trail *trail; /* then: what it was made of; shared by all nodes of a patch */
};

struct opset {
	const char *domain; /* "" for ai.onnx */
	int64_t version;
};

/*
 * A subgraph has inputs: first the formal ones, then ncapture captured ones, which stand for the last inputs of the
 * node that owns it (graphs of one node list their captures one after the other).
 */
struct set_dim;

struct graph {
	struct arena *arena;
	const struct arena *files;  /* the model's: where the files are mapped that constants lie in; a copy keeps it */
	struct dims *dims;
	const char *name, *doc;
	struct value *value;
	uint32_t nvalue, cap_value; /* value[0] is unused */
	struct node *node;
	uint32_t nnode, cap_node;   /* node[0] is unused */
	value_id *in, *out;         /* grown by graph_add_input() and graph_add_output() only */
	uint32_t nin, nout, ncapture; /* nin counts the captures too */
	struct graph *outer;
	const void *origin;         /* the file's GraphProto */
	/* Of the main graph: rules make no operator that this opset of ai.onnx cannot say; 0: any. */
	int opset;
	/* When set, they make such operators for a time; but not where "Operator:node of the file" is in this map. */
	const struct map *denied;
	/* Of the main graph: it is read, not run or written. A mask then tells causality also where rows hide every key, which such a node does otherwise. */
	bool reads;
	const struct set_dim *set;  /* of the main graph: the last one set */
	bool stale;                 /* of the main graph: changes since graph_infer() that may let it find other types */
	uint32_t fresh;             /* counter behind new names */
	struct map names;           /* value names in use */
	struct map inner;           /* those in use in subgraphs */
};

/* A symbol of the file's lengths that stands for something else since. */
struct set_dim {
	const char *name;
	dim by;
	const struct set_dim *before;
};

/* The graph that no node holds. */
static inline const struct graph *graph_main(const struct graph *g)
{
	while (g->outer)
		g = g->outer;
	return g;
}

/* A loaded model. */
struct linnet_model {
	struct arena *arena;      /* everything below lives here */
	struct dims *dims;
	struct graph *graph;      /* NULL when only the container was asked for */
	void *proto;              /* Onnx__ModelProto as read; what is saved while `changed` is false */
	bool changed;             /* the graph is newer than the proto */
	const char *path;         /* as opened, NULL for memory */
	struct opset *opset;
	uint32_t nopset;
	struct linnet_limits limits; /* no zeros: defaults are filled in */
	bool checksums;           /* verify those of external data; reads every byte of it */
	struct proto_file *files; /* external data mapped so far */
};

struct graph *graph_new(struct arena *a, struct dims *d, struct linnet_error *e);

/* Room for so many more values and nodes; spares the growing of big graphs. */
enum linnet_code graph_reserve(struct graph *g, size_t nvalue, size_t nnode, struct linnet_error *e);

/* Add a value; name NULL makes a fresh one after hint ("q" gives "q", "q_1", ...). 0 without memory. */
value_id graph_add_value(struct graph *g, enum value_kind kind, const char *name, const char *hint);
value_id graph_add_const(struct graph *g, const struct tensor *t, const char *hint);
value_id graph_add_input(struct graph *g, const char *name, const struct type *t);
int graph_add_output(struct graph *g, value_id v);

/* A constant becomes an input with that default; types of what is computed from it have to be inferred anew. */
int graph_free_const(struct graph *g, value_id v);
bool graph_is_output(const struct graph *g, value_id v);

/* A copy, in the graph's arena, of the hint when no value of the graph, of those around it and in it has that name, else of one like it. */
const char *graph_fresh_name(struct graph *g, const char *hint);

/*
 * Append a node whose inputs exist; makes its nout outputs (fresh names after the node's) when out is NULL, else takes them over: they must be
 * VALUE_NODE values without a producer, or 0. attr: given attributes by name, defaults are filled in from the row.
 */
enum linnet_code graph_add_node(struct graph *g, const struct op *op, const char *name, const value_id *in, uint32_t nin,
                                const value_id *out, uint32_t nout, const struct attr *attr, uint32_t nattr, node_id *id,
                                struct linnet_error *e);

/*
 * Replace every use of `old` (node inputs, graph outputs) by `by`, in u too. The main graph's outputs keep their names: `by` exchanges
 * names with `old` when it is a node's value and no output yet, else an Identity node carries it to the output.
 */
enum linnet_code graph_replace(struct graph *g, struct uses *u, value_id old, value_id by, struct linnet_error *e);

/* What changes a graph and cannot tell that types stay says so. */
static inline void graph_types_change(struct graph *g)
{
	while (g->outer)
		g = g->outer;
	g->stale = true;
}

/* Whether a value of the graph or of one around it has that name. */
bool graph_name_used(const struct graph *g, const char *name);

/* import.c: put the nodes of the row's body in place of node n, whose values have types. The node dies, its outputs live on. */
enum linnet_code graph_expand(struct graph *g, node_id n, struct linnet_error *e);

/*
 * import.c: append the nodes of a block over the names of op's inputs, outputs and attributes (see text_parse_block), named after `name`, and infer
 * their types. Constants of floats become `real`. out receives the new values, 0 for outputs that are not wanted or that the block does not
 * define.
 */
struct block_call {
	const struct op *op;
	const char *name;
	const struct attr *attr;
	size_t nattr;
	const value_id *in;
	const bool *wanted;
	value_id *out;
	uint32_t nin, nout;
	enum dtype real;
};
enum linnet_code graph_add_block(struct graph *g, const char *text, const struct block_call *call, struct linnet_error *e);

/* A copy in arena a: its own arrays and subgraphs; names, rows and tensors are shared. */
enum linnet_code graph_copy(const struct graph *g, struct arena *a, struct graph **out, struct linnet_error *e);

/*
 * Append b, of the same model, to g: inputs of the same name become one, constants share their contents, all else gets names of its own.
 * to[v], of b->nvalue: what value v of b has become. For graphs that are run, not written.
 */
enum linnet_code graph_join(struct graph *g, const struct graph *b, value_id *to, struct linnet_error *e);

/*
 * lower.c: make do with older opsets. Nodes take the row that is valid at the opset of their domain, with constant
 * inputs turned into attributes, or are expanded by their body until all that is left exists there. The graph must have types;
 * afterwards it may hold old rows and is good for writing only. LINNET_EUNSUPPORTED names the node that needs more, and *stuck its first output.
 * own: these are the file's own opsets; what onnxruntime's optimizer put into ONNX's domain then stays as the file has it.
 */
enum linnet_code graph_lower(struct graph *g, const struct opset *opset, uint32_t nopset, bool own, const char **stuck, struct linnet_error *e);

/*
 * The least opset of ai.onnx above the one listed that can say the node of which `stuck` is the first output, as graph_lower() gave it; 0 when
 * none can. The graph is as it was before.
 */
enum linnet_code graph_lowest(const struct graph *g, const struct opset *opset, uint32_t nopset, const char *stuck, int *lowest,
                              struct linnet_error *e);

/* Only primitive operators: functions of ONNX and operators of com.microsoft that have a body are replaced by it, in subgraphs too. */
enum linnet_code graph_primitive(struct graph *g, uint32_t *count, struct linnet_error *e);

/* The opset, or a later one that has what onnxruntime writes into earlier ones: LayerNormalization. */
int graph_least_opset(const struct graph *g, int opset);

/* Whether graph_lower() would leave the graph as it is. */
bool graph_fits(const struct graph *g, const struct opset *opset, uint32_t nopset, bool own);

/* ---- Derived on request, in scratch memory ---- */

struct use {
	node_id node;   /* 0: a graph output */
	uint32_t index; /* which input, or which graph output */
};

/*
 * The uses of each value, kept while the graph changes: uses of v are use[begin[v]..end[v]), in no order that lasts. Valid for the values
 * that existed when the uses were made or have been used since: uses_of() counts for all.
 */
struct uses {
	uint32_t *begin, *end, *room; /* by value */
	struct use *use;
	uint32_t *input, *place;      /* of node n's input i: use[begin[v] + place[input[n] + i]] */
	uint32_t nvalue, nuse, nnode, ninput;
	uint32_t cap_value, cap_use, cap_node, cap_input;
	struct arena *a;
};

enum linnet_code graph_uses(const struct graph *g, struct arena *scratch, struct uses *u, struct linnet_error *e);

/* The inputs of nodes added since, from node `first` on. */
enum linnet_code uses_add_nodes(struct uses *u, const struct graph *g, node_id first, struct linnet_error *e);
enum linnet_code uses_add(struct uses *u, value_id v, struct use use, struct linnet_error *e);
/* Take away those of a node that dies. */
void uses_drop_node(struct uses *u, const struct graph *g, node_id n);
static inline uint32_t uses_of(const struct uses *u, value_id v) { return v < u->nvalue ? u->end[v] - u->begin[v] : 0; }

/* Every live node behind those whose outputs it reads. */
bool graph_is_ordered(const struct graph *g);

/* Live nodes, producers before users; LINNET_EMODEL names a node on a cycle. Stable: file order where it may be kept. */
enum linnet_code graph_order(const struct graph *g, struct arena *scratch, node_id **order, uint32_t *n,
                             struct linnet_error *e);

/* Drop dead and unreachable nodes and unused constants, sort, renumber. */
enum linnet_code graph_compact(struct graph *g, struct arena *scratch, struct linnet_error *e);

/* The invariants, in code: ids in range, one producer, no cycle, arity, attributes and types as the row says. */
enum linnet_code graph_verify(const struct graph *g, struct linnet_error *e);

/*
 * Types of all values, in order; subgraphs included. Lengths that depend on data become symbols named after the value. Values
 * whose type cannot be found take what the file says of them. Small results of constants are evaluated: type.value
 * is then set though the kind is VALUE_NODE. The graph itself stays as it is. Idempotent.
 */
enum linnet_code graph_infer(struct graph *g, struct linnet_error *e);

/* The same for one node whose inputs have types, as when a patch adds it. */
enum linnet_code graph_infer_node(struct graph *g, node_id n, struct linnet_error *e);

static inline const struct attr *node_attr(const struct node *n, const char *name)
{
	return attr_get(n->op, n->attr, name);
}
/* For messages: the node's name, or that of its first output. */
const char *node_label(const struct graph *g, const struct node *n);
/* Operator of ai.onnx of that name. */
static inline bool node_is(const struct node *n, const char *name)
{
	return !n->dead && n->known && !n->op->domain && n->op->name[0] == name[0] && !strcmp(n->op->name, name);
}

/* That of com.microsoft. */
static inline bool node_is_ms(const struct node *n, const char *name)
{
	return n->op->domain && !strcmp(n->op->domain, "com.microsoft") && !strcmp(n->op->name, name);
}
/* One of those of ai.onnx; names end with NULL. */
static inline bool node_among(const struct node *n, const char *const *names)
{
	while (*names && !node_is(n, *names))
		names++;
	return *names != NULL;
}
/* The node computing v, NULL for inputs and constants. */
static inline const struct node *value_node(const struct graph *g, value_id v)
{
	return v && g->value[v].kind == VALUE_NODE && g->value[v].producer ? &g->node[g->value[v].producer] : NULL;
}
/* Which of n values has the name; -1: none. */
int values_find(const struct graph *g, const value_id *v, uint32_t n, const char *name);

/*
 * import.c: name and operator of an imported node as the file has them: of the node it was lowered from, and the name of its first output
 * when it has none itself. A function's node is called after the call, "call/node".
 */
void node_written(const struct graph *g, const struct node *n, const char **name, const char **op);

/* Whether the graph's file has a node Constant of that name. */
bool constant_written(const struct graph *g, const char *name);

/* ---- Containers ---- */

/* proto.c: file ("-": stdin) or memory to protobuf tree in m->proto, weights borrowed from the mapping; memory must outlive
 * the model. Files in the textual syntax are recognised by name (.onnxtxt, .txt) or content. */
enum linnet_code proto_load(struct linnet_model *m, const char *path, struct linnet_error *e);
enum linnet_code proto_load_memory(struct linnet_model *m, const void *data, size_t n, struct linnet_error *e);

/*
 * Write m->proto atomically ("-": to stdout). Same model, same bytes. External data the model was read with is embedded again;
 * when that makes more than 2 GiB, or external is set, tensors over 1 KiB go to `<path>.data`.
 */
enum linnet_code proto_save(const struct linnet_model *m, const char *path, bool external, struct linnet_error *e);

/* Nodes of the main graph as it would be saved. */
size_t proto_nodes(const struct linnet_model *m);

/* The bytes it would take to save the model in one file. */
enum linnet_code proto_size(const struct linnet_model *m, uint64_t *n, struct linnet_error *e);

struct save_opt {
	bool external;    /* in any case */
	const char *data; /* name of the data file, beside the model; NULL: that of the model and ".data" */
	int64_t more;     /* tensors of more bytes go there; 0: 1024 */
};

enum linnet_code proto_save_as(const struct linnet_model *m, const char *path, const struct save_opt *o, struct linnet_error *e);

/* The same into the arena. */
enum linnet_code proto_save_memory(const struct linnet_model *m, struct arena *a, void **data, size_t *n, struct linnet_error *e);

/* text.c: ONNX's textual syntax to and from the protobuf tree. */
enum linnet_code text_parse(struct linnet_model *m, const char *text, size_t n, struct linnet_error *e);
enum linnet_code text_print(const struct linnet_model *m, struct arena *a, char **text, struct linnet_error *e);

/* import.c: m->proto to m->graph, in current operators, functions inlined, defaults filled, types inferred. */
enum linnet_code graph_import(struct linnet_model *m, struct linnet_error *e);

/*
 * import.c: what the file says of the type of a value (graph input or output, value_info), to compare with what inference
 * finds. dt is DT_UNDEFINED and the rank -1 where it says nothing; lengths without a name are DIM_NONE.
 */
enum linnet_code graph_annotation(const struct graph *g, value_id v, struct type *t, struct linnet_error *e);

/* export.c: m->graph to m->proto at the given opset of ai.onnx (0: the model's own, or 7 when that is older). Operators newer than
 * it are expanded by their body. */
enum linnet_code graph_export(struct linnet_model *m, int opset, struct linnet_error *e);

/* One tensor file (TensorProto, .pb) to memory. */
enum linnet_code proto_load_tensor(const char *path, struct arena *a, const struct linnet_limits *l, struct tensor **t, const char **name,
                                   struct linnet_error *e);

/*
 * The same of any value: SequenceProto, OptionalProto or MapProto. want: its kind, and its element type should the file hold no
 * tensor that tells it.
 */
enum linnet_code proto_load_value(const char *path, const struct type *want, struct arena *a, const struct linnet_limits *l,
                                  struct tensor **t, const char **name, struct linnet_error *e);
enum linnet_code proto_save_value(const char *path, const struct tensor *t, const char *name, struct linnet_error *e);

/* model.c. l: NULL or zero fields for the defaults. */
struct linnet_model *model_new(const struct linnet_limits *l, struct linnet_error *e);
void limits_fill(struct linnet_limits *out, const struct linnet_limits *l);
void model_free(struct linnet_model *m);

#endif
