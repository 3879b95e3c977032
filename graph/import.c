/*
 * Protobuf tree to graph: names become ids, defaults are filled in, and what the graph does not have is replaced by
 * the nodes it stands for: Constant nodes by constants, model-local functions and old versions of operators by their bodies.
 *
 * One piece of code puts a body into a graph (inline_body); functions of the file, `lower` blocks of old rows and `body`
 * blocks of rows (graph_expand) all go through it.
 */
#include <string.h>

#include "graph/grad.h"
#include "graph/proto.h"
#include "graph/text.h"

/* What the importer remembers of one operator as a file calls it: a function of the file, a row, or neither. */
struct callee {
	const Onnx__FunctionProto *f;
	const struct op *op;
	int64_t version; /* of the operator's domain, as imported */
};

/* The operator sets that the model, a function or (newest) a row's block imports. */
struct opsets {
	bool newest;
	const struct opset *opset;
	uint32_t n;
	struct map domain; /* index in opset */
	struct map known;  /* operators met so far: index in callee */
	struct callee *callee;
	uint32_t ncallee, cap;
};

/* A body that is being put in; the list of them shows recursion. */
struct active {
	const Onnx__FunctionProto *f;
	const struct active *next;
};

/* A block without choices, parsed once for all nodes of its row. */
struct block {
	const char *text;
	Onnx__FunctionProto *f;
	struct block *next;
};

struct import {
	struct linnet_model *m;
	const Onnx__ModelProto *proto; /* NULL when only a row's block is put in */
	struct arena *scratch;
	struct map function;        /* functions of the file by key() */
	struct opsets *function_opsets; /* by function; known only where used */
	struct opsets newest;
	struct block *block;
	int64_t nnode;
	int depth;
	struct late *late;
};

/* A node to look at again once types are known. */
struct late {
	struct graph *g;
	node_id node;
	const struct op *old; /* the row it may have to be lowered by; NULL: a CastLike of a constant, to be folded */
	struct late *next;
};

/* Captures of a node's subgraphs, until they are appended to its inputs. */
struct captures {
	const struct graph *g;
	const value_id *v;
	const struct captures *next;
};

/* What a name means: the values of a graph by the names of the file, a function or a block. */
struct scope {
	struct scope *outer;      /* whose values a subgraph sees; NULL for the main graph and for bodies */
	struct graph *g;
	struct opsets *opsets;
	struct map names;         /* to ids in g; 0: an input left out */
	const struct active *active;
	value_id *capture;        /* values of outer->g that g has read: the sources of its last inputs */
	uint32_t ncapture, cap_capture;
	/* Of bodies: */
	const struct attr *env;   /* what attribute references mean */
	size_t nenv;
	const struct captures *captures; /* of the graphs among them */
	struct map want;          /* output names to the caller's values */
	const char *prefix;       /* of new names; NULL: names are the file's */
	bool single;              /* the body is one node */
	struct map nodes;         /* names given to nodes: how often */
	const Onnx__NodeProto *origin; /* of all nodes; NULL: each its own */
	const char *from;
};

static const char *str_or(const char *s) { return s ? s : ""; }

static const char *domain_of(const char *s) { return !s || !strcmp(s, "ai.onnx") ? "" : s; }

/* Domain, name and overload as one string, so that no two operators share it. */
static const char *key(struct arena *a, const char *domain, const char *name, const char *overload)
{
	return arena_fmt(a, "%zu:%s%zu:%s%s", strlen(domain), domain, strlen(name), name, str_or(overload));
}

/* A node's name for messages: its own or that of its first output. */
static const char *label(const Onnx__NodeProto *p)
{
	if (p->name && *p->name)
		return p->name;
	return p->n_output ? p->output[0] : "";
}

static enum linnet_code count_node(struct import *im, struct linnet_error *e)
{
	if (++im->nnode > im->m->limits.max_nodes)
		return fail(e, LINNET_ELIMIT, "the model has more than %lld nodes", (long long)im->m->limits.max_nodes);
	return LINNET_OK;
}

static enum linnet_code enter(struct import *im, struct linnet_error *e)
{
	if (++im->depth > im->m->limits.max_depth)
		return fail(e, LINNET_ELIMIT, "subgraphs and functions are nested deeper than %d", im->m->limits.max_depth);
	return LINNET_OK;
}

/* ---- Operator sets ---- */

static enum linnet_code read_opsets(struct import *im, Onnx__OperatorSetIdProto *const *p, size_t n, struct opsets *s,
                                    struct linnet_error *e)
{
	struct opset *list;

	TRY_NEW(list, im->m->arena, n);
	map_init(&s->domain, im->scratch);
	map_init(&s->known, im->scratch);
	s->opset = list;
	for (size_t i = 0; i < n; i++) {
		const char *domain = domain_of(p[i]->domain);
		int64_t newest = !*domain ? OPSET_NEWEST : !strcmp(domain, "ai.onnx.ml") ? OPSET_NEWEST_ML : INT64_MAX;
		uint32_t j;

		if (p[i]->version > newest)
			return fail(e, LINNET_EUNSUPPORTED, "the model imports opset %lld of %s; the newest known is %lld",
			            (long long)p[i]->version, *domain ? domain : "ai.onnx", (long long)newest);
		if (p[i]->version < 1)
			return fail(e, LINNET_EMODEL, "opset %lld of \"%s\" is imported; versions start at 1",
			            (long long)p[i]->version, domain);
		if (!map_get(&s->domain, domain, &j)) {
			if (map_put(&s->domain, domain, s->n))
				return fail_mem(e);
			list[s->n++] = (struct opset){ .domain = domain, .version = p[i]->version };
		} else if (list[j].version != p[i]->version) {
			return fail(e, LINNET_EMODEL, "opsets %lld and %lld of \"%s\" are both imported", (long long)list[j].version,
			            (long long)p[i]->version, domain);
		}
	}
	return LINNET_OK;
}

static enum linnet_code version_of(const struct opsets *s, const char *domain, int64_t *version, struct linnet_error *e)
{
	uint32_t i;

	*version = OPSET_NEWEST;
	if (s->newest)
		return LINNET_OK;
	if (!map_get(&s->domain, domain, &i))
		return fail(e, LINNET_EMODEL, "no opset of domain \"%s\" is imported", *domain ? domain : "ai.onnx");
	*version = s->opset[i].version;
	return LINNET_OK;
}

/* A row for one node whose operator has none: attributes as given, any inputs and outputs. */
static enum linnet_code row_for(struct arena *a, const char *domain, const char *name, int64_t version, const struct attr *attr,
                                size_t nattr, const struct op **out, struct linnet_error *e)
{
	static const struct op_io any[] = { { "", T, FLOW_NONE, VARIADIC | OPTIONAL | HETERO, .kinds = (kind_set)~0 }, { .name = NULL } };
	struct op_attr *row;
	struct op *op;

	TRY_NEW(op, a, 1);
	TRY_NEW(row, a, nattr + 1);
	for (size_t i = 0; i < nattr; i++) {
		row[i] = (struct op_attr){ .name = attr[i].name, .kind = attr[i].kind, .flags = OPTIONAL };
		if (attr[i].kind == ATTR_GRAPH)
			op->flags = OP_CONTROL;
	}
	op->domain = *domain ? domain : NULL;
	op->name = name;
	op->since = (int)version;
	op->in = op->out = any;
	op->attr = row;
	op->types[T] = ANY_DTYPE;
	*out = op;
	return LINNET_OK;
}

static enum linnet_code resolve_callee(struct import *im, const struct opsets *s, const Onnx__NodeProto *p, struct callee *c,
                                       struct linnet_error *e)
{
	const char *domain = domain_of(p->domain), *name = str_or(p->op_type), *k;
	const struct op *newest = op_newest(domain, name);
	uint32_t i;

	if (!*name)
		return fail(e, LINNET_EMODEL, "the node names no operator");
	TRY(version_of(s, domain, &c->version, e));
	if (!s->newest && im->proto->n_functions) {
		k = key(im->scratch, domain, name, p->overload);
		if (!k)
			return fail_mem(e);
		if (map_get(&im->function, k, &i)) {
			c->f = im->proto->functions[i];
			return LINNET_OK;
		}
	}
	if (c->version > INT16_MAX)
		return fail(e, LINNET_EUNSUPPORTED, "opset %lld of \"%s\" is out of range", (long long)c->version, domain);
	c->op = op_find(domain, name, (int)c->version);
	if (!c->op && !*domain && !strcmp(name, "LayerNormalization"))
		c->op = newest; /* onnxruntime's optimizer writes it at any opset */
	if (!c->op && newest)
		return fail(e, LINNET_EUNSUPPORTED, "the operator is supported from opset %d on; opset %lld is imported", newest->since,
		            (long long)c->version);
	return LINNET_OK;
}

/* The meaning of a node's operator, remembered by name: its index in s->callee. */
static enum linnet_code find_callee(struct import *im, struct opsets *s, const Onnx__NodeProto *p, uint32_t *at,
                                    struct linnet_error *e)
{
	const char *domain = domain_of(p->domain), *k = str_or(p->op_type);
	struct callee c = { 0 };

	if (*domain || (p->overload && *p->overload) || strchr(k, ':')) {
		k = key(im->scratch, domain, k, p->overload);
		if (!k)
			return fail_mem(e);
	}
	if (map_get(&s->known, k, at))
		return LINNET_OK;
	TRY(resolve_callee(im, s, p, &c, e));
	s->callee = arena_grow(im->scratch, s->callee, s->ncallee, 1, &s->cap, sizeof *s->callee);
	if (!s->callee)
		return fail_mem(e);
	if (map_put(&s->known, k, s->ncallee))
		return fail_mem(e);
	s->callee[s->ncallee] = c;
	*at = s->ncallee++;
	return LINNET_OK;
}

/* ---- Types ---- */

/* hint: what to name unnamed lengths after; NULL leaves them unknown. */
static enum linnet_code tensor_type_read(struct dims *dims, int32_t elem, const Onnx__TensorShapeProto *s, const char *hint,
                                         struct type *t, struct linnet_error *e)
{
	if (elem < 0 || elem >= DT_COUNT)
		return fail(e, LINNET_ETYPE, "element type %d is unknown", (int)elem);
	t->dt = (enum dtype)elem;
	t->shape.rank = -1;
	if (!s)
		return LINNET_OK;
	if (s->n_dim > MAX_RANK)
		return fail(e, LINNET_EUNSUPPORTED, "rank is %zu; at most %d is supported", s->n_dim, MAX_RANK);
	t->shape.rank = (int)s->n_dim;
	for (size_t i = 0; i < s->n_dim; i++) {
		const Onnx__TensorShapeProto__Dimension *d = s->dim[i];
		bool named = d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM && d->dim_param && *d->dim_param;

		if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE && d->dim_value >= 0)
			t->shape.d[i] = d->dim_value;
		else if (named || hint) /* exporters write -1 for an unnamed length too */
			t->shape.d[i] = named ? dim_parse(dims, d->dim_param) : dim_fresh(dims, hint);
		else
			t->shape.d[i] = DIM_NONE;
		if (t->shape.d[i] == DIM_NONE && (named || hint))
			return fail_mem(e);
	}
	return LINNET_OK;
}

/* Keep only lengths that are numbers. */
static void forget_symbols(struct type *t)
{
	for (int i = 0; i < t->shape.rank; i++)
		if (!dim_is_int(t->shape.d[i]))
			t->shape.d[i] = DIM_NONE;
}

/* hint: of a tensor's lengths; the members of other values may have each its own lengths, whatever their names, so of these only
 * numbers are kept. depth: of the types around it. */
static enum linnet_code type_read(struct dims *dims, const Onnx__TypeProto *p, const char *hint, int depth, struct type *t,
                                  struct linnet_error *e)
{
	enum { MAX_DEPTH = 64 };

	*t = (struct type){ .shape.rank = -1 };
	if (depth > MAX_DEPTH)
		return fail(e, LINNET_ELIMIT, "types nested more than %d deep", MAX_DEPTH);
	switch (p ? p->value_case : ONNX__TYPE_PROTO__VALUE__NOT_SET) {
	case ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE:
		return tensor_type_read(dims, p->tensor_type->elem_type, p->tensor_type->shape, hint, t, e);
	case ONNX__TYPE_PROTO__VALUE_SPARSE_TENSOR_TYPE:
		TRY(tensor_type_read(dims, p->sparse_tensor_type->elem_type, p->sparse_tensor_type->shape, hint, t, e));
		t->kind = KIND_SPARSE;
		return LINNET_OK;
	case ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE:
		TRY(type_read(dims, p->sequence_type->elem_type, NULL, depth + 1, t, e));
		t->kind = kind_sequence(t->kind);
		break;
	case ONNX__TYPE_PROTO__VALUE_OPTIONAL_TYPE:
		TRY(type_read(dims, p->optional_type->elem_type, NULL, depth + 1, t, e));
		t->kind = kind_optional(t->kind);
		break;
	case ONNX__TYPE_PROTO__VALUE_MAP_TYPE:
		TRY(type_read(dims, p->map_type->value_type, NULL, depth + 1, t, e));
		if (p->map_type->key_type < 0 || p->map_type->key_type >= DT_COUNT)
			return fail(e, LINNET_ETYPE, "element type %d is unknown", (int)p->map_type->key_type);
		t->kind = t->kind == KIND_TENSOR ? KIND_MAP : KIND_OTHER;
		t->key = (enum dtype)p->map_type->key_type;
		break;
	default: break;
	}
	forget_symbols(t);
	return LINNET_OK;
}

/* Lengths as they were set, one after the other. */
static void set_again(struct dims *dims, const struct set_dim *last, struct shape *s)
{
	if (!last)
		return;
	set_again(dims, last->before, s);
	for (int i = 0; i < s->rank; i++)
		if (dim_is_expr(s->d[i]))
			s->d[i] = dim_put(dims, s->d[i], dim_symbol(dims, last->name), last->by);
}

enum linnet_code graph_annotation(const struct graph *g, value_id v, struct type *t, struct linnet_error *e)
{
	const Onnx__ValueInfoProto *p = g->value[v].kind == VALUE_CONST ? NULL : g->value[v].origin;

	TRY(err_node(e, type_read(g->dims, p ? p->type : NULL, NULL, 0, t, e), g->value[v].name, NULL));
	set_again(g->dims, graph_main(g)->set, &t->shape);
	return LINNET_OK;
}

/* ---- Names ---- */

static enum linnet_code capture(struct scope *s, value_id outer, value_id *id, struct linnet_error *e)
{
	struct graph *g = s->g;
	const char *name = s->outer->g->value[outer].name;

	if (map_get(&g->names, name, NULL))
		name = graph_fresh_name(g, name);
	if (s->ncapture == s->cap_capture) {
		uint32_t cap = s->cap_capture ? s->cap_capture * 2 : 8;
		value_id *more;

		TRY_NEW(more, g->arena, cap);
		if (s->ncapture)
			memcpy(more, s->capture, s->ncapture * sizeof *more);
		s->capture = more;
		s->cap_capture = cap;
	}
	*id = name ? graph_add_input(g, name, &s->outer->g->value[outer].type) : 0;
	if (!*id)
		return fail_mem(e);
	g->value[*id].type.value = NULL;
	s->capture[s->ncapture++] = outer;
	g->ncapture++;
	return LINNET_OK;
}

/* The value a name stands for; *found is false when nothing defines it. */
static enum linnet_code lookup(struct scope *s, const char *name, value_id *id, bool *found, struct linnet_error *e)
{
	value_id outer;

	*found = map_get(&s->names, name, id);
	if (*found || !s->outer)
		return LINNET_OK;
	TRY(lookup(s->outer, name, &outer, found, e));
	if (!*found)
		return LINNET_OK;
	*id = 0;
	if (outer)
		TRY(capture(s, outer, id, e));
	return map_put(&s->names, name, *id) ? fail_mem(e) : LINNET_OK;
}

/* A new value of that name, or of a name like it where it must differ from others. */
static enum linnet_code define(struct scope *s, enum value_kind kind, const char *name, value_id *id, struct linnet_error *e)
{
	struct graph *g = s->g;
	const char *mine = name;

	if (map_get(&s->names, name, NULL))
		return fail(e, LINNET_EMODEL, "\"%s\" is defined twice", name);
	if (map_get(&s->want, name, id)) {
		g->value[*id].kind = kind;
		g->value[*id].producer = 0;
	} else {
		if (s->prefix && *s->prefix)
			mine = arena_fmt(g->arena, "%s/%s", s->prefix, name);
		mine = mine ? graph_fresh_name(g, mine) : NULL;
		if (!mine)
			return fail_mem(e);
		*id = kind == VALUE_INPUT ? graph_add_input(g, mine, NULL) : graph_add_value(g, kind, mine, NULL);
		if (!*id)
			return fail_mem(e);
	}
	return map_put(&s->names, name, *id) ? fail_mem(e) : LINNET_OK;
}

static enum linnet_code define_const(struct scope *s, const char *name, const struct tensor *t, const void *origin,
                                     struct linnet_error *e)
{
	value_id id;

	TRY(define(s, VALUE_CONST, name, &id, e));
	s->g->value[id].type = (struct type){ .dt = t->dt, .shape = shape_of(t), .value = t };
	s->g->value[id].origin = origin;
	return LINNET_OK;
}

/* ---- Attributes ---- */

static const char *kind_name(int type)
{
	const ProtobufCEnumValue *v =
		protobuf_c_enum_descriptor_get_value(&onnx__attribute_proto__attribute_type__descriptor, type);

	return v ? v->name : "unknown";
}

/* The kind by which field is filled; files before IR version 2 do not say it. */
static int filled_type(const Onnx__AttributeProto *p, int *n)
{
	const struct {
		bool filled;
		int type;
	} fields[] = {
		{ p->has_f, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT },
		{ p->has_i, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT },
		{ p->has_s, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING },
		{ p->t, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR },
		{ p->g, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH },
		{ p->n_floats, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS },
		{ p->n_ints, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS },
		{ p->n_strings, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRINGS },
		{ p->n_tensors, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSORS },
		{ p->n_graphs, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPHS },
		{ p->sparse_tensor, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__SPARSE_TENSOR },
		{ p->n_sparse_tensors, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__SPARSE_TENSORS },
		{ p->tp, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TYPE_PROTO },
		{ p->n_type_protos, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TYPE_PROTOS },
	};
	int type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__UNDEFINED;

	*n = 0;
	for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
		if (!fields[i].filled)
			continue;
		type = fields[i].type;
		++*n;
	}
	return type;
}

/* What an attribute without a type and without a value must be: empty or zero, of the row's kind. */
static int row_type(const struct op *op, const char *name)
{
	static const int type[] = {
		[ATTR_INT] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT,
		[ATTR_FLOAT] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT,
		[ATTR_STRING] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING,
		[ATTR_INTS] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS,
		[ATTR_FLOATS] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS,
		[ATTR_STRINGS] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRINGS,
		[ATTR_TYPE] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TYPE_PROTO,
		[ATTR_OTHER] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__UNDEFINED,
	};
	int i = op ? op_attr_index(op, name) : -1;

	return i < 0 ? ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__UNDEFINED : type[op->attr[i].kind];
}

static enum linnet_code strings_read(struct arena *a, const Onnx__AttributeProto *p, struct attr *out, struct linnet_error *e)
{
	struct text *s;

	TRY_NEW(s, a, p->n_strings);
	for (size_t i = 0; i < p->n_strings; i++)
		s[i] = (struct text){ (const char *)p->strings[i].data, p->strings[i].len };
	out->n = p->n_strings;
	out->strings = s;
	return LINNET_OK;
}

static enum linnet_code import_graph(struct import *im, const Onnx__GraphProto *p, struct scope *s, struct linnet_error *e);

static enum linnet_code subgraph_read(struct import *im, struct scope *s, const Onnx__GraphProto *p, const struct captures **list,
                                      struct graph **out, struct linnet_error *e)
{
	struct scope inner = { .outer = s, .opsets = s->opsets, .active = s->active, .env = s->env, .nenv = s->nenv };
	struct captures *c;

	map_init(&inner.nodes, im->scratch);
	inner.prefix = s->prefix;
	inner.origin = s->origin;
	inner.from = s->from;
	if (!p)
		return fail(e, LINNET_EATTR, "a graph was expected");
	TRY(import_graph(im, p, &inner, e));
	TRY_NEW(c, im->scratch, 1);
	*c = (struct captures){ .g = inner.g, .v = inner.capture, .next = *list };
	*list = c;
	*out = inner.g;
	return LINNET_OK;
}

/* A graph that the caller gave, which goes on to a node of the body, and with it what it captures. */
static enum linnet_code graph_again(struct import *im, struct scope *s, const struct captures **list, const struct attr *a,
                                    struct linnet_error *e)
{
	const struct captures *from = s->captures;
	struct captures *c;

	while (from && from->g != a->g)
		from = from->next;
	if (!from || !list)
		return fail(e, LINNET_EUNSUPPORTED, "attribute \"%s\" refers to a graph", a->name);
	TRY_NEW(c, im->scratch, 1);
	*c = (struct captures){ .g = a->g, .v = from->v, .next = *list };
	*list = c;
	return LINNET_OK;
}

/* One attribute; kind ATTR_NONE when it refers to one the caller left out. */
static enum linnet_code attr_read(struct import *im, struct scope *s, const Onnx__AttributeProto *p, const struct op *op,
                                  const struct captures **captures, struct attr *out, struct linnet_error *e)
{
	int nfilled, filled = filled_type(p, &nfilled), type = p->has_type ? (int)p->type : 0;
	struct tensor *t;
	struct type *held;

	*out = (struct attr){ .name = str_or(p->name) };
	if (p->ref_attr_name && *p->ref_attr_name) {
		if (!s->env)
			return fail(e, LINNET_EATTR, "attribute \"%s\" refers to \"%s\" outside a function", out->name, p->ref_attr_name);
		for (size_t i = 0; i < s->nenv; i++)
			if (!strcmp(s->env[i].name, p->ref_attr_name)) {
				*out = s->env[i];
				out->name = str_or(p->name);
			}
		return out->kind == ATTR_GRAPH ? graph_again(im, s, captures, out, e) : LINNET_OK;
	}
	if (nfilled > 1)
		return fail(e, LINNET_EATTR, "attribute \"%s\" holds %d values; expected one", out->name, nfilled);
	if (type && filled && filled != type)
		return fail(e, LINNET_EATTR, "attribute \"%s\" says %s but holds %s", out->name, kind_name(type), kind_name(filled));
	if (!type)
		type = filled ? filled : row_type(op, out->name);
	switch (type) {
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT:
		out->kind = ATTR_FLOAT;
		out->f = p->f;
		return LINNET_OK;
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT:
		out->kind = ATTR_INT;
		out->i = p->i;
		return LINNET_OK;
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING:
		out->kind = ATTR_STRING;
		out->s = (struct text){ p->s.len ? (const char *)p->s.data : "", p->s.len };
		return LINNET_OK;
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR:
		if (!p->t)
			return fail(e, LINNET_EATTR, "attribute \"%s\" has no value", out->name);
		TRY(proto_tensor(im->m, p->t, &t, e));
		out->kind = ATTR_TENSOR;
		out->t = t;
		out->origin = p->t;
		return LINNET_OK;
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH:
		if (!captures)
			return fail(e, LINNET_EUNSUPPORTED, "attribute \"%s\" of a function is a graph", out->name);
		out->kind = ATTR_GRAPH;
		return subgraph_read(im, s, p->g, captures, &out->g, e);
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS:
		out->kind = ATTR_FLOATS;
		out->floats = p->floats;
		out->n = p->n_floats;
		return LINNET_OK;
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS:
		out->kind = ATTR_INTS;
		out->ints = p->ints;
		out->n = p->n_ints;
		return LINNET_OK;
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRINGS:
		out->kind = ATTR_STRINGS;
		return strings_read(im->m->arena, p, out, e);
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPHS:
		return fail(e, LINNET_EUNSUPPORTED, "attribute \"%s\" is a list of graphs", out->name);
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TYPE_PROTO:
		out->kind = ATTR_TYPE;
		out->origin = p;
		TRY_NEW(held, im->m->arena, 1);
		out->type = held;
		return type_read(im->m->dims, p->tp, NULL, 0, held, e);
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__SPARSE_TENSOR:
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSORS:
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__SPARSE_TENSORS:
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TYPE_PROTOS:
		out->kind = ATTR_OTHER;
		out->origin = p;
		return LINNET_OK;
	default:
		return fail(e, LINNET_EATTR, "attribute \"%s\" has no kind and no value", out->name);
	}
}

/* The value of a Constant node; NULL when its attribute refers to one the caller left out. */
static enum linnet_code constant_read(struct import *im, struct scope *s, const Onnx__NodeProto *p, const struct tensor **out,
                                      const void **origin, struct linnet_error *e)
{
	struct arena *a = im->m->arena;
	struct attr v = { .kind = ATTR_NONE };
	struct tensor *t = NULL;
	const char *name;
	int64_t n;

	*out = NULL;
	*origin = NULL;
	if (p->n_attribute != 1)
		return fail(e, LINNET_EATTR, "%zu attributes give the value; expected one", p->n_attribute);
	if (p->n_input)
		return fail(e, LINNET_EMODEL, "%zu inputs given; at most 0 taken", p->n_input);
	name = str_or(p->attribute[0]->name);
	TRY(attr_read(im, s, p->attribute[0], NULL, NULL, &v, e));
	if (v.kind == ATTR_NONE)
		return LINNET_OK;
	n = (int64_t)v.n;
	if (!strcmp(name, "value") && v.kind == ATTR_TENSOR) {
		*out = v.t;
		*origin = v.origin;
		return LINNET_OK;
	}
	if (!strcmp(name, "sparse_value") && v.kind == ATTR_OTHER && p->attribute[0]->sparse_tensor) {
		TRY(proto_sparse(im->m, p->attribute[0]->sparse_tensor, &t, e));
	} else if (!strcmp(name, "value_int") && v.kind == ATTR_INT) {
		TRY(tensor_new(a, DT_INT64, 0, NULL, &t, e));
		tensor_put_int(t, 0, v.i);
	} else if (!strcmp(name, "value_float") && v.kind == ATTR_FLOAT) {
		TRY(tensor_new(a, DT_FLOAT, 0, NULL, &t, e));
		tensor_put(t, 0, v.f);
	} else if (!strcmp(name, "value_string") && v.kind == ATTR_STRING) {
		TRY(tensor_new(a, DT_STRING, 0, NULL, &t, e));
		*(struct text *)t->data = v.s;
	} else if (!strcmp(name, "value_ints") && v.kind == ATTR_INTS) {
		TRY(tensor_wrap(a, DT_INT64, 1, &n, v.ints, &t, e));
	} else if (!strcmp(name, "value_floats") && v.kind == ATTR_FLOATS) {
		TRY(tensor_wrap(a, DT_FLOAT, 1, &n, v.floats, &t, e));
	} else if (!strcmp(name, "value_strings") && v.kind == ATTR_STRINGS) {
		TRY(tensor_wrap(a, DT_STRING, 1, &n, v.strings, &t, e));
	} else {
		return fail(e, LINNET_EATTR, "attribute \"%s\" of this kind gives no value", name);
	}
	*out = t;
	return LINNET_OK;
}

/* ---- Bodies ---- */

/* A node to be replaced by a body: its operator's formals get these values and attributes. */
struct call {
	const char *name;
	const struct attr *attr;
	size_t nattr;
	const value_id *in, *out;
	uint32_t nin, nout;
	const struct captures *captures; /* of the graphs among attr */
	const Onnx__NodeProto *origin; /* for all nodes of the body; NULL: each its own */
	const char *from;
};

static enum linnet_code import_nodes(struct import *im, struct scope *s, Onnx__NodeProto *const *node, size_t n,
                                     struct linnet_error *e);

/*
 * The name of a node of a body is made from the caller's: "caller/name" or, in bodies of several nodes, "caller/Op", numbered
 * where that is not unique.
 */
static const char *node_name(struct scope *s, const char *name, const char *op)
{
	const char *made;
	uint32_t n = 0;

	if (!s->prefix || (!*name && s->single))
		return s->prefix ? s->prefix : name;
	if (!*s->prefix)
		return name;
	made = arena_fmt(s->g->arena, "%s/%s", s->prefix, *name ? name : op);
	if (!made)
		return NULL;
	map_get(&s->nodes, made, &n);
	if (map_put(&s->nodes, made, n + 1))
		return NULL;
	return n ? arena_fmt(s->g->arena, "%s_%u", made, n) : made;
}

/* Outputs that the body did not define itself: formals passed through. */
static enum linnet_code finish_outputs(struct scope *s, const Onnx__FunctionProto *f, const struct call *c, struct linnet_error *e)
{
	for (uint32_t i = 0; i < c->nout; i++) {
		const char *name;
		value_id v;

		if (!c->out[i])
			continue;
		if (!map_get(&s->names, f->output[i], &v) || !v)
			return fail(e, LINNET_EMODEL, "the body does not define output \"%s\"", f->output[i]);
		if (v == c->out[i])
			continue;
		name = node_name(s, "", "Identity");
		if (!name)
			return fail_mem(e);
		TRY(graph_add_node(s->g, op_newest(NULL, "Identity"), name, &v, 1, &c->out[i], 1, NULL, 0, NULL, e));
	}
	return LINNET_OK;
}

static enum linnet_code inline_body(struct import *im, struct scope *caller, const Onnx__FunctionProto *f, struct opsets *opsets,
                                    const struct call *c, struct linnet_error *e)
{
	struct active active = { .f = f, .next = caller->active };
	struct scope s = { .g = caller->g, .opsets = opsets, .active = &active, .env = c->attr, .nenv = c->nattr };

	s.captures = c->captures;
	s.prefix = c->name;
	s.single = f->n_node == 1;
	s.origin = c->origin;
	s.from = c->from;
	for (const struct active *i = caller->active; i; i = i->next)
		if (i->f == f)
			return fail(e, LINNET_EMODEL, "function \"%s\" calls itself", str_or(f->name));
	if (c->nin > f->n_input)
		return fail(e, LINNET_EMODEL, "%u inputs given; at most %zu taken", c->nin, f->n_input);
	if (c->nout > f->n_output)
		return fail(e, LINNET_EMODEL, "%u outputs given; at most %zu taken", c->nout, f->n_output);
	TRY(enter(im, e));
	TRY(count_node(im, e));
	map_init(&s.names, im->scratch);
	map_init(&s.want, im->scratch);
	map_init(&s.nodes, im->scratch);
	for (size_t i = 0; i < f->n_input; i++) {
		if (map_get(&s.names, f->input[i], NULL))
			return fail(e, LINNET_EMODEL, "\"%s\" is defined twice", f->input[i]);
		if (map_put(&s.names, f->input[i], i < c->nin ? c->in[i] : 0))
			return fail_mem(e);
	}
	for (uint32_t i = 0; i < c->nout; i++)
		if (c->out[i] && map_put(&s.want, f->output[i], c->out[i]))
			return fail_mem(e);
	TRY(import_nodes(im, &s, f->node, f->n_node, e));
	TRY(finish_outputs(&s, f, c, e));
	im->depth--;
	return LINNET_OK;
}

/* A call of a function of the file: its attributes are those given and the function's defaults. */
static enum linnet_code inline_function(struct import *im, struct scope *s, const Onnx__FunctionProto *f, const Onnx__NodeProto *p,
                                        struct call *c, struct linnet_error *e)
{
	struct opsets *opsets;
	struct attr *env;
	uint32_t i;
	const char *k = key(im->scratch, domain_of(f->domain), str_or(f->name), f->overload);

	if (!k || !map_get(&im->function, k, &i))
		return fail_mem(e);
	opsets = &im->function_opsets[i];
	if (!opsets->opset)
		TRY(read_opsets(im, f->opset_import, f->n_opset_import, opsets, e));
	TRY_NEW(env, im->scratch, p->n_attribute + f->n_attribute_proto + 1);
	for (size_t j = 0; j < p->n_attribute; j++) {
		const char *name = str_or(p->attribute[j]->name);
		bool known = false;

		for (size_t l = 0; l < f->n_attribute && !known; l++)
			known = !strcmp(f->attribute[l], name);
		for (size_t l = 0; l < f->n_attribute_proto && !known; l++)
			known = !strcmp(str_or(f->attribute_proto[l]->name), name);
		if (!known)
			return fail(e, LINNET_EATTR, "unknown attribute \"%s\"", name);
		TRY(attr_read(im, s, p->attribute[j], NULL, NULL, &env[c->nattr], e));
		c->nattr += env[c->nattr].kind != ATTR_NONE;
	}
	for (size_t j = 0; j < f->n_attribute_proto; j++) {
		bool given = false;

		for (size_t l = 0; l < p->n_attribute && !given; l++)
			given = !strcmp(str_or(p->attribute[l]->name), str_or(f->attribute_proto[j]->name));
		if (!given)
			TRY(attr_read(im, s, f->attribute_proto[j], NULL, NULL, &env[c->nattr++], e));
	}
	c->attr = env;
	return inline_body(im, s, f, opsets, c, e);
}

struct question {
	const struct op *op;
	const struct call *c;
};

/* Whether an attribute or input is written in the file; with a word, whether the attribute is that word. */
static bool given(void *ctx, const char *name, const char *word)
{
	const struct question *q = ctx;

	for (size_t i = 0; i < q->c->nattr; i++) {
		const struct attr *v = &q->c->attr[i];

		if (strcmp(v->name, name))
			continue;
		if (!word)
			return v->given;
		return v->kind == ATTR_STRING && v->s.n == strlen(word) && !memcmp(v->s.p, word, v->s.n);
	}
	for (uint32_t i = 0; i < q->c->nin && q->op->in[i].name && !word; i++)
		if (!strcmp(q->op->in[i].name, name))
			return q->c->in[i] != 0;
	return false;
}

/* The block's inputs for one call: the members of a variadic input are NAME_0, NAME_1, ... */
static enum linnet_code name_members(struct import *im, const struct op *op, uint32_t nin, Onnx__FunctionProto **f, struct linnet_error *e)
{
	bool variadic;
	int n = op_nin(op, &variadic);
	Onnx__FunctionProto *own;
	char **name;

	if (!variadic)
		return LINNET_OK;
	own = arena_dup(im->scratch, *f, sizeof *own);
	if (!own)
		return fail_mem(e);
	TRY_NEW(name, im->scratch, (uint32_t)n + nin);
	for (int i = 0; i < n - 1; i++)
		name[i] = (*f)->input[i];
	own->n_input = (size_t)n - 1;
	for (uint32_t i = (uint32_t)n - 1; i < nin; i++) {
		name[i] = arena_fmt(im->scratch, "%s_%u", op->in[n - 1].name, i - (uint32_t)n + 1);
		if (!name[own->n_input++])
			return fail_mem(e);
	}
	own->input = name;
	*f = own;
	return LINNET_OK;
}

static enum linnet_code inline_block(struct import *im, struct scope *s, const struct op *op, const char *text,
                                     const struct call *c, struct linnet_error *e)
{
	struct question q = { .op = op, .c = c };
	bool choice = text[strspn(text, " \t\n")] == '?';
	struct block *b = im->block;
	Onnx__FunctionProto *f;

	while (b && b->text != text)
		b = b->next;
	if (!b) {
		TRY_NEW(b, im->scratch, 1);
		TRY(text_parse_block(text, op, given, &q, im->m->arena, &b->f, e));
		b->text = text;
		b->next = im->block;
		im->block = choice ? im->block : b;
	}
	f = b->f;
	TRY(name_members(im, op, c->nin, &f, e));
	return inline_body(im, s, f, &im->newest, c, e);
}

/* ---- Nodes ---- */

static enum linnet_code look_later(struct import *im, struct graph *g, node_id node, const struct op *old, struct linnet_error *e)
{
	struct late *l;

	TRY_NEW(l, im->scratch, 1);
	*l = (struct late){ .g = g, .node = node, .old = old, .next = im->late };
	im->late = l;
	return LINNET_OK;
}

/* The attribute's value as a constant, in the element type of `like` where that is another float type. */
static enum linnet_code attr_const(struct import *im, struct graph *g, const struct attr *v, const char *hint, int rank, value_id like,
                                   value_id *out, struct linnet_error *e)
{
	int64_t n = (int64_t)v->n;
	struct tensor *t;
	node_id id;

	if (v->kind == ATTR_INT) {
		TRY(tensor_new(g->arena, DT_INT64, rank, (int64_t[]){ 1 }, &t, e));
		tensor_put_int(t, 0, v->i);
	} else if (v->kind == ATTR_FLOAT) {
		TRY(tensor_new(g->arena, DT_FLOAT, 0, NULL, &t, e));
		tensor_put(t, 0, v->f);
	} else if (v->kind == ATTR_INTS) {
		TRY(tensor_wrap(g->arena, DT_INT64, 1, &n, v->ints, &t, e));
	} else if (v->kind == ATTR_FLOATS) {
		TRY(tensor_wrap(g->arena, DT_FLOAT, 1, &n, v->floats, &t, e));
	} else {
		return fail(e, LINNET_EINTERNAL, "attribute \"%s\" cannot become an input", v->name);
	}
	*out = graph_add_const(g, t, hint);
	if (!*out)
		return fail_mem(e);
	if (!like)
		return LINNET_OK;
	TRY(graph_add_node(g, op_newest(NULL, "CastLike"), hint, (value_id[]){ *out, like }, 2, NULL, 1, NULL, 0, &id, e));
	*out = g->node[id].out[0];
	return look_later(im, g, id, NULL, e);
}

static bool same_default(const struct op_attr *a, const struct op_attr *b)
{
	return a->flags == b->flags && a->kind == b->kind && a->i == b->i && a->f == b->f && !strcmp(str_or(a->s), str_or(b->s));
}

/* Since opset 18 Split says how many equal pieces it makes; before, it did not. */
static void complete_split(struct graph *g, node_id id)
{
	struct node *n = &g->node[id];
	int i = op_attr_index(n->op, "num_outputs");

	if (n->known && node_is(n, "Split") && i >= 0 && !attr_given(&n->attr[i]) && (n->nin < 2 || !n->in[1]))
		n->attr[i] = (struct attr){ .name = n->attr[i].name, .kind = ATTR_INT, .i = n->nout };
}

/* An input that was of floats, of the element type of the data, and is of integers now. */
static enum linnet_code integers(struct graph *g, const struct op *old, const struct op *op, uint32_t i, const char *name, value_id *v,
                                 struct linnet_error *e)
{
	const struct op_io *was = op_in(old, (int)i), *is = op_in(op, (int)i);
	struct attr to = { .name = "to", .kind = ATTR_INT, .given = true, .i = DT_INT64 };
	node_id id;

	if (!was || !is || old->types[was->type] & op->types[is->type])
		return LINNET_OK;
	TRY(graph_add_node(g, op_newest(NULL, "Cast"), name, v, 1, NULL, 1, &to, 1, &id, e));
	*v = g->node[id].out[0];
	return LINNET_OK;
}

/* An old row whose attributes became inputs: the newest row with constants in their place. */
static enum linnet_code modernize(struct import *im, struct scope *s, const struct op *old, const struct call *c,
                                  struct linnet_error *e)
{
	const struct op *op = op_newest(old->domain, old->name);
	uint32_t nin = c->nin, nattr = 0;
	struct attr *attr;
	value_id *in;
	node_id id;

	if (op_is_old(op))
		return fail(e, LINNET_EINTERNAL, "the row for opset %d has no current form", old->since);
	TRY_NEW(in, im->scratch, c->nin + UINT8_MAX);
	TRY_NEW(attr, im->scratch, c->nattr);
	for (uint32_t i = 0; i < c->nin; i++) {
		in[i] = c->in[i];
		if (in[i])
			TRY(integers(s->g, old, op, i, c->name, &in[i], e));
	}
	for (size_t i = 0; i < c->nattr; i++) {
		const struct attr *v = &c->attr[i];
		int at = old->attr[i].input, same = op_attr_index(op, v->name);
		const struct op_io *io = at && at != IGNORED ? op_in(op, at) : NULL;
		const char *hint;

		if (v->kind == ATTR_NONE || at == IGNORED || (!v->given && io && (io->flags & (OPTIONAL | SCALAR)) == OPTIONAL))
			continue;
		if (!at) {
			if (v->given || (same >= 0 && !same_default(&old->attr[i], &op->attr[same])))
				attr[nattr++] = *v;
			continue;
		}
		hint = arena_fmt(s->g->arena, *c->name ? "%s/%s" : "%s%s", c->name, v->name);
		if (!hint || !io)
			return hint ? fail(e, LINNET_EINTERNAL, "attribute \"%s\" has no input to become", v->name) : fail_mem(e);
		TRY(attr_const(im, s->g, v, hint, io->flags & SCALAR ? 0 : 1, v->kind == ATTR_FLOAT && io->type == op->in[0].type ? c->in[0] : 0, &in[at], e));
		if ((uint32_t)at >= nin)
			nin = (uint32_t)at + 1;
	}
	TRY(graph_add_node(s->g, op, c->name, in, nin, c->out, c->nout, attr, nattr, &id, e));
	complete_split(s->g, id);
	s->g->node[id].origin = c->origin;
	s->g->node[id].from = c->from;
	return LINNET_OK;
}

/* Attributes and inputs that came after the opset the file imports. */
static enum linnet_code check_since(const struct op *op, const struct attr *attr, size_t nattr, const value_id *in, uint32_t nin,
                                    int64_t version, struct linnet_error *e)
{
	for (size_t i = 0; i < nattr; i++) {
		int at = op_attr_index(op, attr[i].name);

		if (at >= 0 && op->attr[at].since > version)
			return fail(e, LINNET_EATTR, "attribute \"%s\" came with opset %d; opset %lld is imported", attr[i].name,
			            op->attr[at].since, (long long)version);
	}
	for (uint32_t i = 0; i < nin; i++) {
		const struct op_io *io = op_in(op, (int)i);

		if (io && in[i] && io->since > version)
			return fail(e, LINNET_EMODEL, "input \"%s\" came with opset %d; opset %lld is imported", io->name, io->since,
			            (long long)version);
	}
	return LINNET_OK;
}

/* An operator without a row keeps its version only as long as the model imports one version of its domain. */
static enum linnet_code check_version(struct import *im, const Onnx__NodeProto *p, int64_t version, struct linnet_error *e)
{
	const char *domain = domain_of(p->domain);

	for (uint32_t i = 0; i < im->m->nopset; i++)
		if (!strcmp(im->m->opset[i].domain, domain) && im->m->opset[i].version != version)
			return fail(e, LINNET_EUNSUPPORTED, "the operator is unknown, and a function imports opset %lld of its domain where "
			            "the model imports %lld", (long long)version, (long long)im->m->opset[i].version);
	return LINNET_OK;
}

/* The node itself, with the captures of its subgraphs as last inputs. */
static enum linnet_code add_node(struct scope *s, const struct op *row, bool known, const struct call *call,
                                 const struct captures *captures, struct linnet_error *e)
{
	uint32_t nin = call->nin, ncapture = 0;
	struct node *n;
	node_id id;

	TRY(graph_add_node(s->g, row, call->name, call->in, call->nin, call->out, call->nout, call->attr, (uint32_t)call->nattr, &id, e));
	n = &s->g->node[id];
	n->known = known;
	n->origin = call->origin;
	n->from = call->from;
	complete_split(s->g, id);
	for (const struct captures *i = captures; i; i = i->next)
		ncapture += i->g->ncapture;
	if (!ncapture)
		return LINNET_OK;
	TRY_NEW(n->in, s->g->arena, nin + ncapture);
	if (nin)
		memcpy(n->in, call->in, nin * sizeof *n->in);
	for (uint32_t i = 0; i < n->nattr; i++)
		for (const struct captures *j = captures; j; j = j->next)
			if (n->attr[i].kind == ATTR_GRAPH && n->attr[i].g == j->g && j->g->ncapture) {
				memcpy(n->in + nin, j->v, j->g->ncapture * sizeof *n->in);
				nin += j->g->ncapture;
			}
	n->nin = nin;
	n->ncapture = ncapture;
	return LINNET_OK;
}

/* What phase one of import_nodes() finds out about a node. */
struct item {
	uint32_t callee;
	uint32_t nout;
	value_id *out; /* NULL: a Constant, which is done */
};

/* A value of a subgraph with a name that neither it, nor those around it or in those have. */
static enum linnet_code inner_value(struct graph *g, const char *hint, bool input, value_id *v, struct linnet_error *e)
{
	const char *name = graph_fresh_name(g->outer, hint);

	*v = !name ? 0 : input ? graph_add_input(g, name, NULL) : graph_add_value(g, VALUE_NODE, name, NULL);
	return *v ? LINNET_OK : fail_mem(e);
}

static enum linnet_code inner_const(struct graph *g, const char *hint, int64_t x, value_id *out, struct linnet_error *e)
{
	const char *name = graph_fresh_name(g->outer, hint);
	struct tensor *t;

	TRY(tensor_new(g->arena, DT_INT64, 1, (int64_t[]){ 1 }, &t, e));
	tensor_put_int(t, 0, x);
	*out = name ? graph_add_const(g, t, name) : 0;
	return *out ? LINNET_OK : fail_mem(e);
}

/* out = op (in): a node with one output and at most one attribute. */
static enum linnet_code inner_node(struct graph *g, const char *op, const value_id *in, uint32_t nin, const struct attr *attr,
                                   const char *hint, value_id *out, struct linnet_error *e)
{
	TRY(inner_value(g, hint, false, out, e));
	return graph_add_node(g, op_newest(NULL, op), NULL, in, nin, out, 1, attr, attr ? 1 : 0, NULL, e);
}

/* y, filled up with zeros to the length of `like` along axis 0. */
static enum linnet_code fill_up(struct graph *g, value_id *y, value_id like, value_id zero, struct linnet_error *e)
{
	const struct attr end = { .name = "end", .kind = ATTR_INT, .given = true, .i = 1 };
	const struct attr axis = { .name = "axis", .kind = ATTR_INT, .given = true };
	value_id have, all, rest, pads;

	TRY(inner_node(g, "Shape", y, 1, &end, "have", &have, e));
	TRY(inner_node(g, "Shape", &like, 1, &end, "all", &all, e));
	TRY(inner_node(g, "Sub", (value_id[]){ all, have }, 2, NULL, "rest", &rest, e));
	TRY(inner_node(g, "Concat", (value_id[]){ zero, rest }, 2, &axis, "pads", &pads, e));
	return inner_node(g, "Pad", (value_id[]){ *y, pads, 0, zero }, 4, NULL, "filled", y, e);
}

/*
 * Scan of opset 8 has a batch axis before all others: a Scan over the batch, of Scans. With lengths every sequence is cut to its
 * own, and what comes of it is filled up with zeros.
 */
static enum linnet_code scan_batch(struct scope *s, const struct op *old, const struct call *c, const struct captures *captures,
                                   struct linnet_error *e)
{
	const struct attr *directions = attr_get(old, c->attr, "directions");
	struct graph *body = attr_get(old, c->attr, "body")->g, *g = graph_new(s->g->arena, s->g->dims, e);
	int64_t nscan = attr_get(old, c->attr, "num_scan_inputs")->i;
	struct attr attr[3] = { { .name = "body", .kind = ATTR_GRAPH, .given = true, .g = body },
		                { .name = "num_scan_inputs", .kind = ATTR_INT, .given = true, .i = nscan }, *directions };
	const struct op *scan = op_newest(NULL, "Scan");
	bool lengths = c->nin && c->in[0];
	uint32_t nin = c->nin ? c->nin - 1 : 0, ncapture = body->ncapture;
	value_id *in, *out, *inner, given = 0, length = 0, zero = 0, whole, one;
	struct scope inside = { .g = g };
	struct call each = { .attr = attr, .nattr = 3, .nin = nin, .nout = body->nout }, all = *c;
	struct captures taken = { .g = body };

	if (!g)
		return fail_mem(e);
	if (nscan > nin || body->nin - ncapture != nin || body->nout + nscan < nin)
		return fail(e, LINNET_EMODEL, "inputs and outputs of the body are not those of the scan");
	TRY_NEW(in, s->g->arena, nin);
	TRY_NEW(out, s->g->arena, body->nout);
	TRY_NEW(inner, s->g->arena, ncapture);
	each.in = in;
	each.out = out;
	taken.v = inner;
	all.in = c->in + !lengths;
	all.nin = nin + lengths;
	all.attr = attr;
	all.nattr = 2;
	g->outer = s->g;
	if (lengths)
		TRY(inner_value(g, "length", true, &given, e));
	for (uint32_t i = 0; i < nin; i++)
		TRY(inner_value(g, "sequence", true, &in[i], e));
	for (uint32_t i = 0; i < ncapture; i++) {
		inner[i] = graph_add_input(g, body->value[body->in[nin + i]].name, NULL);
		if (!inner[i])
			return fail_mem(e);
	}
	whole = in[nin - 1];
	g->ncapture = ncapture;
	body->outer = g;
	if (lengths) {
		TRY(inner_const(g, "zero", 0, &zero, e));
		TRY(inner_const(g, "one", 1, &one, e));
		TRY(inner_node(g, "Reshape", (value_id[]){ given, one }, 2, NULL, "length", &length, e));
	}
	for (uint32_t i = nin - (uint32_t)nscan; i < nin && lengths; i++)
		TRY(inner_node(g, "Slice", (value_id[]){ in[i], zero, length, zero }, 4, NULL, "cut", &in[i], e));
	for (uint32_t i = 0; i < body->nout; i++)
		TRY(inner_value(g, "scanned", false, &out[i], e));
	attr[2].name = "scan_input_directions";
	TRY(add_node(&inside, scan, true, &each, &taken, e));
	for (uint32_t i = 0; i < body->nout; i++) {
		if (lengths && i >= nin - (uint32_t)nscan)
			TRY(fill_up(g, &out[i], whole, zero, e));
		if (graph_add_output(g, out[i]))
			return fail_mem(e);
	}
	attr[0].g = g;
	attr[1].i = all.nin;
	taken = (struct captures){ .g = g, .v = captures->v };
	return add_node(s, scan, true, &all, &taken, e);
}

/* The node of an old row, in current operators. */
static enum linnet_code lower(struct import *im, struct scope *s, const struct op *old, const struct call *call,
                              const struct captures *captures, struct linnet_error *e)
{
	struct call c = *call;
	struct attr *attr;

	if (old->flags & OP_OLD && old->flags & OP_CONTROL)
		return scan_batch(s, old, call, captures, e);
	if (!old->lower && !old->write_lower)
		return modernize(im, s, old, &c, e);
	if (!old->same && old->lower)
		return inline_block(im, s, old, old->lower, &c, e);
	TRY_NEW(attr, im->scratch, c.nattr);
	c.attr = attr;
	c.nattr = 0;
	for (size_t i = 0; i < call->nattr; i++)
		if (call->attr[i].kind != ATTR_NONE)
			attr[c.nattr++] = call->attr[i];
	TRY(add_node(s, old->write_lower ? old : op_newest(old->domain, old->name), true, &c, captures, e));
	return look_later(im, s->g, s->g->nnode - 1, old, e);
}

static enum linnet_code import_node(struct import *im, struct scope *s, const Onnx__NodeProto *p, const struct item *item,
                                    struct linnet_error *e)
{
	const struct callee c = s->opsets->callee[item->callee];
	const Onnx__NodeProto *origin = s->origin ? s->origin : p;
	struct call call = { .out = item->out, .nout = item->nout, .origin = origin, .from = s->from };
	const struct captures *captures = NULL;
	const struct op *row = c.op;
	value_id *in;
	struct attr *attr;

	call.name = node_name(s, str_or(p->name), str_or(p->op_type));
	if (!call.name)
		return fail_mem(e);
	TRY_NEW(in, im->scratch, p->n_input);
	for (size_t i = 0; i < p->n_input; i++) {
		bool found = true;

		if (!*p->input[i])
			continue;
		TRY(lookup(s, p->input[i], &in[i], &found, e));
		if (!found)
			return fail(e, LINNET_EMODEL, "input %zu is \"%s\", which nothing defines", i, p->input[i]);
		if (in[i])
			call.nin = (uint32_t)i + 1;
	}
	call.in = in;
	if (c.f) {
		call.origin = s->origin;
		return inline_function(im, s, c.f, p, &call, e);
	}
	TRY_NEW(attr, im->scratch, p->n_attribute);
	for (size_t i = 0; i < p->n_attribute; i++) {
		TRY(attr_read(im, s, p->attribute[i], c.op, &captures, &attr[call.nattr], e));
		call.nattr += attr[call.nattr].kind != ATTR_NONE;
	}
	call.attr = attr;
	if (!row) {
		TRY(check_version(im, p, c.version, e));
		TRY(row_for(im->m->arena, domain_of(p->domain), p->op_type, c.version, attr, call.nattr, &row, e));
	} else {
		TRY(check_since(row, attr, call.nattr, in, call.nin, c.version, e));
	}
	if (op_is_old(row)) {
		struct attr *full;

		TRY(op_attrs(row, attr, call.nattr, im->m->arena, &full, e));
		call.attr = full;
		call.nattr = (size_t)op_nattr(row);
		return lower(im, s, row, &call, captures, e);
	}
	return add_node(s, row, row == c.op, &call, captures, e);
}

/*
 * Phase one gives every output its value, so that nodes may come in any order and a subgraph does not take a name that
 * is defined after it. Phase two makes the nodes.
 */
static enum linnet_code define_outputs(struct import *im, struct scope *s, const Onnx__NodeProto *p, struct item *item,
                                       struct linnet_error *e)
{
	const struct callee *c;

	TRY(count_node(im, e));
	TRY(find_callee(im, s->opsets, p, &item->callee, e));
	c = &s->opsets->callee[item->callee];
	for (size_t i = 0; i < p->n_output; i++)
		if (*p->output[i])
			item->nout = (uint32_t)i + 1;
	if (!c->f && !*domain_of(p->domain) && !strcmp(p->op_type, "Constant")) {
		const struct tensor *t;
		const void *origin;

		TRY(constant_read(im, s, p, &t, &origin, e));
		if (item->nout != 1)
			return item->nout ? fail(e, LINNET_EMODEL, "%u outputs given; at most 1 taken", item->nout) : LINNET_OK;
		if (t)
			return define_const(s, p->output[0], t, origin, e);
		return map_put(&s->names, p->output[0], 0) ? fail_mem(e) : LINNET_OK;
	}
	TRY_NEW(item->out, im->scratch, item->nout);
	for (uint32_t i = 0; i < item->nout; i++)
		if (*p->output[i])
			TRY(define(s, VALUE_NODE, p->output[i], &item->out[i], e));
	return LINNET_OK;
}

static enum linnet_code import_nodes(struct import *im, struct scope *s, Onnx__NodeProto *const *node, size_t n,
                                     struct linnet_error *e)
{
	struct item *item;

	TRY_NEW(item, im->scratch, n);
	for (size_t i = 0; i < n; i++)
		TRY(err_node(e, define_outputs(im, s, node[i], &item[i], e), label(node[i]), node[i]->op_type));
	for (size_t i = 0; i < n; i++)
		if (item[i].out)
			TRY(err_node(e, import_node(im, s, node[i], &item[i], e), label(node[i]), node[i]->op_type));
	return LINNET_OK;
}

/* ---- Graphs ---- */

/* Names of lengths are taken before others are made up for the unnamed ones. */
static enum linnet_code reserve_lengths(struct dims *dims, Onnx__ValueInfoProto *const *v, size_t n, struct linnet_error *e)
{
	for (size_t i = 0; i < n; i++) {
		const Onnx__TypeProto *t = v[i]->type;
		const Onnx__TensorShapeProto *s =
			t && t->value_case == ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE ? t->tensor_type->shape : NULL;

		for (size_t k = 0; s && k < s->n_dim; k++)
			if (s->dim[k]->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM && s->dim[k]->dim_param &&
			    *s->dim[k]->dim_param && dim_parse(dims, s->dim[k]->dim_param) == DIM_NONE)
				return fail_mem(e);
	}
	return LINNET_OK;
}

static enum linnet_code import_input(struct scope *s, const Onnx__ValueInfoProto *p, struct linnet_error *e)
{
	struct graph *g = s->g;
	struct type t;
	value_id id;

	TRY(type_read(g->dims, p->type, g->outer ? NULL : str_or(p->name), 0, &t, e));
	if (g->outer)
		forget_symbols(&t); /* they may change from one iteration to the next */
	else if (!p->type || p->type->value_case == ONNX__TYPE_PROTO__VALUE__NOT_SET)
		return fail(e, LINNET_EMODEL, "the graph input has no type");
	else if (t.dt == DT_UNDEFINED)
		return fail(e, LINNET_EMODEL, "the graph input has no element type");
	TRY(define(s, VALUE_INPUT, str_or(p->name), &id, e));
	g->value[id].type = t;
	g->value[id].origin = p;
	return LINNET_OK;
}

/* A constant, or the default of the graph input of that name. */
static enum linnet_code import_initializer(struct scope *s, const char *name, struct tensor *t, const void *origin,
                                           struct linnet_error *e)
{
	struct value *v;
	value_id id;

	if (!map_get(&s->names, name, &id))
		return define_const(s, name, t, origin, e);
	v = &s->g->value[id];
	if (v->kind != VALUE_INPUT || v->has_default)
		return fail(e, LINNET_EMODEL, "\"%s\" is defined twice", name);
	v->has_default = true;
	v->dflt = t;
	return tensor_align(t, s->g->arena, e);
}

static const char *sparse_name(const Onnx__SparseTensorProto *p) { return str_or(p->values ? p->values->name : NULL); }

static enum linnet_code import_interface(struct import *im, struct scope *s, const Onnx__GraphProto *p, struct linnet_error *e)
{
	bool all_listed = !s->outer && im->proto->ir_version < 4; /* then every initializer is listed as an input too */
	struct map initializer;
	struct tensor *t;

	map_init(&initializer, im->scratch);
	for (size_t i = 0; i < p->n_initializer && all_listed; i++)
		if (map_put(&initializer, str_or(p->initializer[i]->name), 0))
			return fail_mem(e);
	if (!s->outer) {
		TRY(reserve_lengths(s->g->dims, p->input, p->n_input, e));
		TRY(reserve_lengths(s->g->dims, p->output, p->n_output, e));
	}
	for (size_t i = 0; i < p->n_input; i++)
		if (!map_get(&initializer, str_or(p->input[i]->name), NULL))
			TRY(err_node(e, import_input(s, p->input[i], e), p->input[i]->name, NULL));
	for (size_t i = 0; i < p->n_initializer; i++) {
		const char *name = str_or(p->initializer[i]->name);

		TRY(err_node(e, proto_weights(im->m, p->initializer[i], &t, e), name, NULL));
		TRY(err_node(e, import_initializer(s, name, t, p->initializer[i], e), name, NULL));
	}
	for (size_t i = 0; i < p->n_sparse_initializer; i++) {
		const char *name = sparse_name(p->sparse_initializer[i]);

		TRY(err_node(e, proto_sparse(im->m, p->sparse_initializer[i], &t, e), name, NULL));
		TRY(err_node(e, import_initializer(s, name, t, NULL, e), name, NULL));
	}
	return LINNET_OK;
}

static void annotate(struct scope *s, const Onnx__ValueInfoProto *p)
{
	value_id id;

	if (map_get(&s->names, str_or(p->name), &id) && id && s->g->value[id].kind == VALUE_NODE)
		s->g->value[id].origin = p;
}

/* A subgraph's output is computed in it: an outer value passes through a node. */
static enum linnet_code carry(struct scope *s, value_id *id, struct linnet_error *e)
{
	value_id in = *id;

	*id = graph_add_value(s->g, VALUE_NODE, NULL, s->g->value[in].name);
	if (!*id)
		return fail_mem(e);
	return graph_add_node(s->g, op_newest(NULL, "Identity"), NULL, &in, 1, id, 1, NULL, 0, NULL, e);
}

static enum linnet_code import_outputs(struct import *im, struct scope *s, const Onnx__GraphProto *p, struct linnet_error *e)
{
	struct map seen;

	map_init(&seen, im->scratch);
	for (size_t i = 0; i < p->n_value_info; i++)
		annotate(s, p->value_info[i]);
	for (size_t i = 0; i < p->n_output; i++) {
		const char *name = str_or(p->output[i]->name);
		value_id id = 0;
		bool found;

		TRY(lookup(s, name, &id, &found, e));
		if (!id)
			return fail(e, LINNET_EMODEL, "graph output %zu is \"%s\", which nothing defines", i, name);
		if (!s->outer && map_get(&seen, name, NULL))
			return fail(e, LINNET_EMODEL, "\"%s\" is a graph output twice", name);
		if (map_put(&seen, name, 0))
			return fail_mem(e);
		if (s->g->value[id].kind == VALUE_INPUT && s->g->value[id].index >= s->g->nin - s->g->ncapture)
			TRY(carry(s, &id, e));
		if (graph_add_output(s->g, id))
			return fail_mem(e);
		annotate(s, p->output[i]);
	}
	return LINNET_OK;
}

static enum linnet_code import_graph(struct import *im, const Onnx__GraphProto *p, struct scope *s, struct linnet_error *e)
{
	TRY(enter(im, e));
	s->g = graph_new(im->m->arena, im->m->dims, e);
	if (!s->g)
		return fail_mem(e);
	s->g->outer = s->outer ? s->outer->g : NULL;
	s->g->name = str_or(p->name);
	s->g->doc = p->doc_string;
	s->g->origin = p;
	map_init(&s->names, im->scratch);
	/* passes will add to it: room for twice as much, which takes up memory as it is used */
	TRY(graph_reserve(s->g, 2 * (p->n_input + p->n_initializer + p->n_node), 2 * p->n_node, e));
	TRY(import_interface(im, s, p, e));
	TRY(import_nodes(im, s, p->node, p->n_node, e));
	TRY(import_outputs(im, s, p, e));
	im->depth--;
	return LINNET_OK;
}

/* ---- Models ---- */

static enum linnet_code read_functions(struct import *im, struct linnet_error *e)
{
	const Onnx__ModelProto *p = im->proto;

	map_init(&im->function, im->scratch);
	TRY_NEW(im->function_opsets, im->scratch, p->n_functions);
	for (size_t i = 0; i < p->n_functions; i++) {
		const Onnx__FunctionProto *f = p->functions[i];
		const char *k = key(im->scratch, domain_of(f->domain), str_or(f->name), f->overload);

		if (!k)
			return fail_mem(e);
		if (map_get(&im->function, k, NULL))
			return fail(e, LINNET_EMODEL, "function \"%s\" is defined twice", str_or(f->name));
		if (map_put(&im->function, k, (uint32_t)i))
			return fail_mem(e);
	}
	return LINNET_OK;
}

static enum linnet_code expand(struct import *im, struct graph *g, node_id id, const struct op *row, const char *text,
                               struct linnet_error *e)
{
	struct node *n = &g->node[id];
	struct scope s = { .g = g, .opsets = &im->newest };
	struct call c = { .name = n->name, .attr = n->attr, .nattr = n->nattr, .in = n->in, .out = n->out };
	const value_id *capture;

	c.nin = n->nin - n->ncapture;
	c.nout = n->nout;
	c.origin = n->origin;
	c.from = n->from;
	capture = n->in + c.nin;
	for (uint32_t i = 0; i < n->nattr; i++) {
		struct captures *list;

		if (n->attr[i].kind != ATTR_GRAPH)
			continue;
		TRY_NEW(list, im->scratch, 1);
		*list = (struct captures){ .g = n->attr[i].g, .v = capture, .next = c.captures };
		capture += n->attr[i].g->ncapture;
		c.captures = list;
	}
	n->dead = true;
	return err_node(e, inline_block(im, &s, row, text, &c, e), c.name, row->name);
}

/* CastLike (constant, like) becomes the constant in the type of `like`, if that is known. */
static enum linnet_code fold_cast(struct graph *g, node_id id, bool *changed, struct linnet_error *e)
{
	struct node *n = &g->node[id];
	const struct tensor *from = g->value[n->in[0]].type.value;
	enum dtype dt = g->value[n->in[1]].type.dt;
	struct value *v = &g->value[n->out[0]];
	struct tensor *t;

	if (!dtype_in(dt, FLOATS))
		return LINNET_OK;
	TRY(tensor_new(g->arena, dt, from->rank, from->d, &t, e));
	for (int64_t i = 0; i < t->n; i++)
		tensor_put(t, i, tensor_get(from, i));
	v->kind = VALUE_CONST;
	v->producer = 0;
	v->type = (struct type){ .dt = dt, .shape = shape_of(t), .value = t };
	n->dead = true;
	*changed = true;
	return LINNET_OK;
}

/* A text that is written for one call goes by the types of the node's values. */
static enum linnet_code write_text(struct graph *g, const struct node *n, body_fn *write, struct arena *a, const char **text,
                                   struct linnet_error *e)
{
	struct shape_call c = { .op = n->op, .attr = n->attr, .dims = g->dims, .arena = a, .e = e };
	const struct type **in;
	bool *wanted;

	c.nin = (int)(n->nin - n->ncapture);
	c.nout = (int)n->nout;
	TRY_NEW(in, a, n->nin);
	TRY_NEW(c.out, a, n->nout);
	TRY_NEW(wanted, a, n->nout);
	for (uint32_t i = 0; i < n->nin; i++)
		in[i] = n->in[i] ? &g->value[n->in[i]].type : NULL;
	for (uint32_t i = 0; i < n->nout; i++) {
		wanted[i] = n->out[i] != 0;
		c.out[i] = g->value[n->out[i]].type;
	}
	c.in = in;
	c.wanted = wanted;
	return write(&c, text);
}

/* What had to wait for types. */
static enum linnet_code finish_late(struct import *im, bool *changed, struct linnet_error *e)
{
	*changed = false;
	for (const struct late *l = im->late; l; l = l->next) {
		const struct node *n = &l->g->node[l->node];
		const struct type **in;

		if (!l->old) {
			TRY(fold_cast(l->g, l->node, changed, e));
			continue;
		}
		if (l->old->write_lower) {
			const char *text;

			TRY(err_node(e, write_text(l->g, n, l->old->write_lower, im->scratch, &text, e), n->name, l->old->name));
			TRY(expand(im, l->g, l->node, l->old, text, e));
			*changed = true;
			continue;
		}
		TRY_NEW(in, im->scratch, n->nin);
		for (uint32_t i = 0; i < n->nin; i++)
			in[i] = n->in[i] ? &l->g->value[n->in[i]].type : NULL;
		if (l->old->same(n->op, n->attr, (int)n->nin, in))
			continue;
		TRY(expand(im, l->g, l->node, l->old, l->old->lower, e));
		*changed = true;
	}
	return LINNET_OK;
}

static enum linnet_code import_model(struct import *im, struct linnet_error *e)
{
	Onnx__OperatorSetIdProto first = ONNX__OPERATOR_SET_ID_PROTO__INIT; /* which older containers do not mention */
	struct linnet_model *m = im->m;
	struct opsets opsets = { 0 };
	struct scope s = { .opsets = &opsets };
	bool changed;

	first.version = 1;
	if (!im->proto->graph)
		return fail(e, LINNET_EMODEL, "the model has no graph");
	if (im->proto->has_ir_version && im->proto->ir_version < 3 && !im->proto->n_opset_import)
		TRY(read_opsets(im, (Onnx__OperatorSetIdProto *[]){ &first }, 1, &opsets, e));
	else
		TRY(read_opsets(im, im->proto->opset_import, im->proto->n_opset_import, &opsets, e));
	m->opset = (struct opset *)opsets.opset;
	m->nopset = opsets.n;
	TRY(read_functions(im, e));
	TRY(import_graph(im, im->proto->graph, &s, e));
	TRY(graph_infer(s.g, e));
	TRY(finish_late(im, &changed, e));
	if (changed)
		TRY(graph_infer(s.g, e));
	TRY(graph_grad_nodes(s.g, &changed, e));
	TRY(graph_verify(s.g, e));
	m->graph = s.g;
	m->changed = false;
	return LINNET_OK;
}

static enum linnet_code import_begin(struct import *im, struct linnet_error *e)
{
	im->scratch = arena_new();
	if (!im->scratch)
		return fail_mem(e);
	im->newest.newest = true;
	map_init(&im->newest.known, im->scratch);
	return LINNET_OK;
}

enum linnet_code graph_import(struct linnet_model *m, struct linnet_error *e)
{
	struct import im = { .m = m, .proto = proto_model(m) };
	enum linnet_code code;

	TRY(import_begin(&im, e));
	code = import_model(&im, e);
	arena_free(im.scratch);
	return err_file(e, code, m->path);
}

enum linnet_code graph_expand(struct graph *g, node_id n, struct linnet_error *e)
{
	const struct node *x = &g->node[n];
	const char *text = x->op->body;
	struct linnet_model m = { .arena = g->arena, .dims = g->dims };
	struct import im = { .m = &m };
	enum linnet_code code = LINNET_OK;

	limits_fill(&m.limits, NULL);
	TRY(import_begin(&im, e));
	if (x->op->write_body)
		code = err_node(e, write_text(g, x, x->op->write_body, im.scratch, &text, e), x->name, x->op->name);
	if (!code)
		code = expand(&im, g, n, g->node[n].op, text, e);
	arena_free(im.scratch);
	return code;
}

/* ---- Names in the file ---- */

void node_written(const struct graph *g, const struct node *n, const char **name, const char **op)
{
	const Onnx__NodeProto *p = n->origin;
	size_t length = p && p->name ? strlen(p->name) : 0;
	/* a lowered node is called after the file's, "name/part"; a function's after the call, which is not its own name */
	bool own = p && (!*n->name || (length && !strncmp(n->name, p->name, length) && (!n->name[length] || n->name[length] == '/')));

	*name = own ? label(p) : node_label(g, n);
	*op = p ? str_or(p->op_type) : n->op->name;
}

bool constant_written(const struct graph *g, const char *name)
{
	const Onnx__GraphProto *p = g->origin;

	for (size_t i = 0; p && i < p->n_node; i++)
		if (!strcmp(str_or(p->node[i]->op_type), "Constant") && !strcmp(str_or(p->node[i]->name), name))
			return true;
	return false;
}

/* ---- Blocks beside the graph's nodes ---- */

/* Float constants from `first` on in another float type. */
static enum linnet_code retype(struct graph *g, value_id first, enum dtype real, struct linnet_error *e)
{
	for (value_id v = first; v < g->nvalue; v++) {
		const struct tensor *from = g->value[v].type.value;
		struct tensor *t;

		if (g->value[v].kind != VALUE_CONST || from->dt == real || (from->dt != DT_FLOAT && from->dt != DT_DOUBLE))
			continue;
		TRY(tensor_new(g->arena, real, from->rank, from->d, &t, e));
		for (int64_t i = 0; i < t->n; i++)
			tensor_put(t, i, tensor_get(from, i));
		g->value[v].type = (struct type){ .dt = real, .shape = shape_of(t), .value = t };
		g->value[v].origin = NULL;
	}
	return LINNET_OK;
}

static bool defines(const Onnx__FunctionProto *f, const char *name)
{
	for (size_t i = 0; i < f->n_node; i++)
		for (size_t j = 0; j < f->node[i]->n_output; j++)
			if (!strcmp(f->node[i]->output[j], name))
				return true;
	return false;
}

static enum linnet_code add_block(struct import *im, struct graph *g, const char *text, const struct block_call *b, struct linnet_error *e)
{
	struct scope s = { .g = g, .opsets = &im->newest };
	struct call c = { .name = b->name, .attr = b->attr, .nattr = b->nattr, .in = b->in, .out = b->out };
	struct question q = { .op = b->op, .c = &c };
	Onnx__FunctionProto *f;
	value_id first = g->nvalue;
	node_id node = g->nnode;

	c.nin = b->nin;
	c.nout = b->nout;
	TRY(text_parse_block(text, b->op, given, &q, g->arena, &f, e));
	for (uint32_t i = 0; i < b->nout; i++) {
		b->out[i] = 0;
		if (!b->wanted[i] || !defines(f, b->op->out[i].name))
			continue;
		b->out[i] = graph_add_value(g, VALUE_NODE, NULL, arena_fmt(im->scratch, "%s/%s", b->name, b->op->out[i].name));
		if (!b->out[i])
			return fail_mem(e);
	}
	TRY(inline_body(im, &s, f, &im->newest, &c, e));
	TRY(retype(g, first, b->real, e));
	for (; node < g->nnode; node++) {
		g->node[node].origin = NULL;
		g->node[node].from = "grad";
		TRY(graph_infer_node(g, node, e));
	}
	return LINNET_OK;
}

enum linnet_code graph_add_block(struct graph *g, const char *text, const struct block_call *b, struct linnet_error *e)
{
	struct linnet_model m = { .arena = g->arena, .dims = g->dims };
	struct import im = { .m = &m };
	enum linnet_code code;

	limits_fill(&m.limits, NULL);
	TRY(import_begin(&im, e));
	code = add_block(&im, g, text, b, e);
	arena_free(im.scratch);
	return code;
}
