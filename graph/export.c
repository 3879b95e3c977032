/*
 * Graph to protobuf tree. The tree is new; names, strings, weights, and whatever the graph does not interpret (doc
 * strings, metadata, unknown fields) are shared with the graph and with the tree it was imported from.
 */
#include <stdio.h>
#include <string.h>

#include "graph/proto.h"

struct export {
	struct linnet_model *m;
	struct arena *a, *scratch;
	const Onnx__ModelProto *old; /* NULL for a graph that was not read from a file */
	bool value_info;
	const struct opset *opset;   /* written for */
	uint32_t nopset;
	struct map domain;           /* of the nodes written: domain to greatest `since` of its rows */
};

/* A graph being written, and the names of what it captures. */
struct frame {
	const struct graph *g;
	const char **capture;
	struct map nodes; /* names given to nodes: how often; runtimes want them unique */
};

/* p = a new message of type Onnx__<Type>, or return out of memory. */
#define TRY_MESSAGE(p, a, type)                                                                    \
	do {                                                                                       \
		TRY_NEW(p, a, 1);                                                                  \
		onnx__##type##__init(p);                                                           \
	} while (0)

/* Protobuf-c's fields are not const; the tree is only read. */
static char *plain(const char *s) { return (char *)(uintptr_t)(s ? s : ""); }
static void *bare(const void *p) { return (void *)(uintptr_t)p; }

static const char *name_of(const struct frame *f, value_id v)
{
	const struct value *x = &f->g->value[v];
	uint32_t nformal = f->g->nin - f->g->ncapture;

	return x->kind == VALUE_INPUT && x->index >= nformal ? f->capture[x->index - nformal] : x->name;
}

/* ---- Types ---- */

static enum linnet_code shape_write(struct export *x, const struct shape *s, Onnx__TensorShapeProto **out, struct linnet_error *e)
{
	Onnx__TensorShapeProto *p;

	TRY_MESSAGE(p, x->a, tensor_shape_proto);
	p->n_dim = (size_t)s->rank;
	TRY_NEW(p->dim, x->a, s->rank);
	for (int i = 0; i < s->rank; i++) {
		Onnx__TensorShapeProto__Dimension *d;

		TRY_MESSAGE(d, x->a, tensor_shape_proto__dimension);
		p->dim[i] = d;
		if (dim_is_int(s->d[i])) {
			d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
			d->dim_value = s->d[i];
		} else if (s->d[i] != DIM_NONE) {
			d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
			d->dim_param = bare(dim_str(x->m->dims, s->d[i], x->a));
			if (!d->dim_param)
				return fail_mem(e);
		}
	}
	*out = p;
	return LINNET_OK;
}

static enum linnet_code tensor_type_write(struct export *x, const struct type *t, Onnx__TypeProto *p, struct linnet_error *e)
{
	Onnx__TypeProto__Tensor *tensor;

	TRY_MESSAGE(tensor, x->a, type_proto__tensor);
	tensor->has_elem_type = 1;
	tensor->elem_type = (int32_t)t->dt;
	if (t->shape.rank >= 0)
		TRY(shape_write(x, &t->shape, &tensor->shape, e));
	p->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
	p->tensor_type = tensor;
	return LINNET_OK;
}

static enum linnet_code kind_write(struct export *x, enum type_kind kind, const struct type *t, Onnx__TypeProto *p,
                                   struct linnet_error *e)
{
	Onnx__TypeProto *member;

	if (kind == KIND_TENSOR)
		return tensor_type_write(x, t, p, e);
	TRY_MESSAGE(member, x->a, type_proto);
	TRY(kind_write(x, kind_member(kind), t, member, e));
	switch (kind) {
	case KIND_SEQUENCE:
	case KIND_SEQUENCE_MAP:
		p->value_case = ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE;
		TRY_MESSAGE(p->sequence_type, x->a, type_proto__sequence);
		p->sequence_type->elem_type = member;
		return LINNET_OK;
	case KIND_MAP:
		p->value_case = ONNX__TYPE_PROTO__VALUE_MAP_TYPE;
		TRY_MESSAGE(p->map_type, x->a, type_proto__map);
		p->map_type->has_key_type = 1;
		p->map_type->key_type = (int32_t)t->key;
		p->map_type->value_type = member;
		return LINNET_OK;
	default:
		p->value_case = ONNX__TYPE_PROTO__VALUE_OPTIONAL_TYPE;
		TRY_MESSAGE(p->optional_type, x->a, type_proto__optional);
		p->optional_type->elem_type = member;
		return LINNET_OK;
	}
}

/* What the graph knows of a type; of what it does not model, what the file said. NULL when neither knows. */
static enum linnet_code type_write(struct export *x, const struct type *t, const Onnx__TypeProto *said, Onnx__TypeProto **out,
                                   struct linnet_error *e)
{
	Onnx__TypeProto *p;

	*out = bare(said);
	if (t->dt == DT_UNDEFINED || (t->kind != KIND_TENSOR && said) || t->kind == KIND_OTHER || t->kind == KIND_SPARSE)
		return LINNET_OK;
	TRY_MESSAGE(p, x->a, type_proto);
	*out = p;
	if (said)
		p->denotation = said->denotation;
	return kind_write(x, t->kind, t, p, e);
}

static enum linnet_code value_write(struct export *x, const struct value *v, const char *name, Onnx__ValueInfoProto **out,
                                    struct linnet_error *e)
{
	const Onnx__ValueInfoProto *origin = v->kind == VALUE_CONST ? NULL : v->origin;
	Onnx__ValueInfoProto *p;

	TRY_MESSAGE(p, x->a, value_info_proto);
	if (origin)
		*p = *origin;
	p->name = plain(name);
	*out = p;
	return type_write(x, &v->type, p->type, &p->type, e);
}

/* ---- Constants ---- */

static enum linnet_code tensor_write(struct export *x, const struct tensor *t, const Onnx__TensorProto *origin, const char *name,
                                     Onnx__TensorProto **out, struct linnet_error *e)
{
	TRY(proto_from_tensor(x->a, t, name, out, e));
	if (!origin)
		return LINNET_OK;
	(*out)->base = origin->base;
	(*out)->doc_string = origin->doc_string;
	(*out)->n_metadata_props = origin->n_metadata_props;
	(*out)->metadata_props = origin->metadata_props;
	return LINNET_OK;
}

/* ---- Nodes ---- */

static enum linnet_code graph_write(struct export *x, struct frame *f, Onnx__GraphProto **out, struct linnet_error *e);

static enum linnet_code subgraph_write(struct export *x, const struct frame *f, const struct node *n, const struct graph *sub,
                                       uint32_t *capture, Onnx__GraphProto **out, struct linnet_error *e)
{
	struct frame inner = { .g = sub };

	map_init(&inner.nodes, x->scratch);
	TRY_NEW(inner.capture, x->scratch, sub->ncapture);
	for (uint32_t i = 0; i < sub->ncapture; i++)
		inner.capture[i] = name_of(f, n->in[(*capture)++]);
	return graph_write(x, &inner, out, e);
}

static enum linnet_code strings_write(struct export *x, const struct attr *v, Onnx__AttributeProto *p, struct linnet_error *e)
{
	TRY_NEW(p->strings, x->a, v->n);
	for (size_t i = 0; i < v->n; i++)
		p->strings[i] = (ProtobufCBinaryData){ .len = v->strings[i].n, .data = bare(v->strings[i].p) };
	p->n_strings = v->n;
	return LINNET_OK;
}

static enum linnet_code attr_write(struct export *x, const struct frame *f, const struct node *n, const struct attr *v,
                                   uint32_t *capture, Onnx__AttributeProto **out, struct linnet_error *e)
{
	static const int type[] = {
		[ATTR_INT] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT,
		[ATTR_FLOAT] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT,
		[ATTR_STRING] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING,
		[ATTR_TENSOR] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR,
		[ATTR_GRAPH] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH,
		[ATTR_INTS] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS,
		[ATTR_FLOATS] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS,
		[ATTR_STRINGS] = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRINGS,
	};
	const Onnx__TensorProto *origin = v->kind == ATTR_TENSOR ? v->origin : NULL;
	Onnx__AttributeProto *p;

	if (v->kind == ATTR_OTHER || v->kind == ATTR_TYPE) {
		*out = bare(v->origin);
		return LINNET_OK;
	}
	TRY_MESSAGE(p, x->a, attribute_proto);
	*out = p;
	p->name = plain(v->name);
	p->has_type = 1;
	p->type = (Onnx__AttributeProto__AttributeType)type[v->kind];
	switch (v->kind) {
	case ATTR_INT:
		p->has_i = 1;
		p->i = v->i;
		break;
	case ATTR_FLOAT:
		p->has_f = 1;
		p->f = (float)v->f;
		break;
	case ATTR_STRING:
		p->has_s = 1;
		p->s = (ProtobufCBinaryData){ .len = v->s.n, .data = bare(v->s.p) };
		break;
	case ATTR_INTS:
		p->ints = bare(v->ints);
		p->n_ints = v->n;
		break;
	case ATTR_FLOATS:
		p->floats = bare(v->floats);
		p->n_floats = v->n;
		break;
	case ATTR_STRINGS: return strings_write(x, v, p, e);
	case ATTR_TENSOR: return tensor_write(x, v->t, origin, origin ? origin->name : NULL, &p->t, e);
	default: return subgraph_write(x, f, n, v->g, capture, &p->g, e);
	}
	return LINNET_OK;
}

/* Defaults are written when they were given, unless the opset does not know the attribute yet. */
static bool attr_wanted(const struct export *x, const struct op *op, const struct op_attr *row, const struct attr *v)
{
	const char *domain = op->domain ? op->domain : "";

	if (!attr_is_default(row, v))
		return true;
	for (uint32_t i = 0; v->given && row->since && i < x->nopset; i++)
		if (!strcmp(x->opset[i].domain, domain) && x->opset[i].version < row->since)
			return false;
	return v->given || row->flags & SAID;
}

static enum linnet_code attrs_write(struct export *x, const struct frame *f, const struct node *n, Onnx__NodeProto *p,
                                    struct linnet_error *e)
{
	uint32_t capture = n->nin - n->ncapture;

	p->n_attribute = 0;
	TRY_NEW(p->attribute, x->a, n->nattr);
	for (uint32_t i = 0; i < n->nattr; i++)
		if (attr_wanted(x, n->op, &n->op->attr[i], &n->attr[i]))
			TRY(attr_write(x, f, n, &n->attr[i], &capture, &p->attribute[p->n_attribute++], e));
	return LINNET_OK;
}

/* Names of a node's inputs or outputs; those left out at the end are not written. */
static enum linnet_code names_write(struct export *x, const struct frame *f, const value_id *v, uint32_t n, char ***list, size_t *count,
                                    struct linnet_error *e)
{
	while (n && !v[n - 1])
		n--;
	TRY_NEW(*list, x->a, n);
	for (uint32_t i = 0; i < n; i++)
		(*list)[i] = plain(v[i] ? name_of(f, v[i]) : "");
	*count = n;
	return LINNET_OK;
}

static enum linnet_code note_domain(struct export *x, const struct op *op, struct linnet_error *e)
{
	const char *domain = op->domain ? op->domain : "";
	uint32_t since = 0;

	if (map_get(&x->domain, domain, &since) && since >= (uint32_t)op->since)
		return LINNET_OK;
	return map_put(&x->domain, domain, (uint32_t)op->since) ? fail_mem(e) : LINNET_OK;
}

/* The node's name, numbered when another has it already. */
static const char *unique(struct export *x, struct frame *f, const char *name)
{
	const char *made = name;
	uint32_t n = 0;

	if (!*name)
		return name;
	map_get(&f->nodes, name, &n);
	while (made && n && map_get(&f->nodes, made, NULL))
		made = arena_fmt(x->a, "%s_%u", name, n++);
	if (!made || map_put(&f->nodes, name, n ? n : 1) || (made != name && map_put(&f->nodes, made, 1)))
		return NULL;
	return made;
}

static enum linnet_code node_write(struct export *x, struct frame *f, const struct node *n, Onnx__NodeProto **out,
                                   struct linnet_error *e)
{
	const Onnx__NodeProto *origin = n->origin;
	Onnx__NodeProto *p;

	TRY_MESSAGE(p, x->a, node_proto);
	*out = p;
	if (origin)
		*p = *origin;
	if (origin && strcmp(plain(origin->op_type), n->op->name)) {
		p->overload = NULL;
		p->n_device_configurations = 0;
		p->device_configurations = NULL;
	}
	p->name = bare(unique(x, f, n->name));
	if (!p->name)
		return fail_mem(e);
	p->op_type = plain(n->op->name);
	p->domain = plain(n->op->domain);
	TRY(note_domain(x, n->op, e));
	TRY(names_write(x, f, n->in, n->nin - n->ncapture, &p->input, &p->n_input, e));
	TRY(names_write(x, f, n->out, n->nout, &p->output, &p->n_output, e));
	return attrs_write(x, f, n, p, e);
}

/* A subgraph's output must be computed in it: a captured value passes through a node. */
static enum linnet_code carry_write(struct export *x, const char *from, const char *to, Onnx__NodeProto **out, struct linnet_error *e)
{
	Onnx__NodeProto *p;

	TRY_MESSAGE(p, x->a, node_proto);
	TRY_NEW(p->input, x->a, 1);
	TRY_NEW(p->output, x->a, 1);
	p->op_type = plain("Identity");
	p->n_input = p->n_output = 1;
	p->input[0] = plain(from);
	p->output[0] = plain(to);
	*out = p;
	return LINNET_OK;
}

/* ---- Graphs ---- */

static enum linnet_code interface_write(struct export *x, const struct frame *f, Onnx__GraphProto *p, struct linnet_error *e)
{
	const struct graph *g = f->g;
	uint32_t nformal = g->nin - g->ncapture;

	TRY_NEW(p->input, x->a, nformal);
	TRY_NEW(p->output, x->a, g->nout);
	p->n_input = nformal;
	p->n_output = g->nout;
	for (uint32_t i = 0; i < nformal; i++)
		TRY(value_write(x, &g->value[g->in[i]], g->value[g->in[i]].name, &p->input[i], e));
	for (uint32_t i = 0; i < g->nout; i++) {
		const struct value *v = &g->value[g->out[i]];
		const char *name = name_of(f, g->out[i]);

		if (v->kind == VALUE_INPUT && v->index >= nformal) {
			name = arena_fmt(x->a, "%s/out%u", v->name, i);
			while (name && graph_name_used(g, name))
				name = arena_fmt(x->a, "%s_", name);
			if (!name)
				return fail_mem(e);
			TRY(carry_write(x, name_of(f, g->out[i]), name, &p->node[p->n_node++], e));
		}
		TRY(value_write(x, v, name, &p->output[i], e));
	}
	return LINNET_OK;
}

/* Constants that nothing uses are written only when the file had them. */
static enum linnet_code constants_write(struct export *x, const struct graph *g, Onnx__GraphProto *p, struct linnet_error *e)
{
	struct uses u;
	size_t n = 0;

	TRY(graph_uses(g, x->scratch, &u, e));
	for (value_id v = 1; v < g->nvalue; v++)
		n += g->value[v].kind == VALUE_CONST || g->value[v].has_default;
	p->n_sparse_initializer = 0;
	p->sparse_initializer = NULL;
	p->n_initializer = 0;
	TRY_NEW(p->initializer, x->a, n);
	for (value_id i = 1; i < g->nvalue; i++) {
		const struct value *v = &g->value[i];

		if (v->kind == VALUE_CONST && (v->origin || u.begin[i] < u.end[i]))
			TRY(tensor_write(x, v->type.value, v->origin, v->name, &p->initializer[p->n_initializer++], e));
		else if (v->has_default)
			TRY(tensor_write(x, v->dflt, NULL, v->name, &p->initializer[p->n_initializer++], e));
	}
	return LINNET_OK;
}

/* Of the values whose types the file told, so that no model grows by what can be inferred. */
static enum linnet_code value_info_write(struct export *x, const struct graph *g, const node_id *order, uint32_t n, Onnx__GraphProto *p,
                                         struct linnet_error *e)
{
	bool *output;

	p->n_value_info = 0;
	p->value_info = NULL;
	if (!x->value_info)
		return LINNET_OK;
	TRY_NEW(output, x->scratch, g->nvalue);
	for (uint32_t i = 0; i < g->nout; i++)
		output[g->out[i]] = true;
	TRY_NEW(p->value_info, x->a, g->nvalue);
	for (uint32_t k = 0; k < n; k++) {
		const struct node *node = &g->node[order[k]];

		for (uint32_t i = 0; i < node->nout; i++) {
			const struct value *y = &g->value[node->out[i]];

			if (node->out[i] && !output[node->out[i]] && y->origin)
				TRY(value_write(x, y, y->name, &p->value_info[p->n_value_info++], e));
		}
	}
	return LINNET_OK;
}

static enum linnet_code graph_write(struct export *x, struct frame *f, Onnx__GraphProto **out, struct linnet_error *e)
{
	const struct graph *g = f->g;
	Onnx__GraphProto *p;
	node_id *order;
	uint32_t n;

	TRY_MESSAGE(p, x->a, graph_proto);
	if (g->origin)
		*p = *(const Onnx__GraphProto *)g->origin;
	p->name = plain(*g->name ? g->name : "graph");
	p->doc_string = bare(g->doc);
	TRY(graph_order(g, x->scratch, &order, &n, e));
	p->n_node = 0;
	TRY_NEW(p->node, x->a, n + g->nout);
	for (uint32_t i = 0; i < n; i++) {
		const struct node *node = &g->node[order[i]];

		TRY(err_node(e, node_write(x, f, node, &p->node[p->n_node++], e), node_label(g, node), node->op->name));
	}
	TRY(interface_write(x, f, p, e));
	TRY(constants_write(x, g, p, e));
	TRY(value_info_write(x, g, order, n, p, e));
	*out = p;
	return LINNET_OK;
}

/* ---- Models ---- */

/* The least IR version for an opset of ai.onnx; below 4 initializers would have to be inputs. */
static int64_t ir_version(int64_t opset)
{
	static const int8_t since[] = { [9] = 4, [10] = 5, [11] = 6, [12] = 7, [15] = 8, [19] = 9, [21] = 10, [23] = 11,
	                                [24] = 12, [25] = 13, [28] = 14 };
	int64_t ir = 4;

	for (int64_t i = 0; i <= opset && i < (int64_t)sizeof since; i++)
		ir = since[i] ? since[i] : ir;
	return ir;
}

/* Whether only calls of the file's functions, which are gone now, needed a domain. */
static bool was_for_functions(const struct export *x, const char *domain)
{
	for (size_t i = 0; x->old && i < x->old->n_functions; i++)
		if (!strcmp(plain(x->old->functions[i]->domain), domain))
			return !map_get(&x->domain, domain, NULL);
	return false;
}

static enum linnet_code opsets_write(struct export *x, Onnx__ModelProto *p, struct opset *now, uint32_t *nnow, struct linnet_error *e)
{
	struct map known;

	*nnow = 0;
	map_init(&known, x->scratch);
	for (uint32_t i = 0; i < x->nopset; i++) {
		if (was_for_functions(x, x->opset[i].domain))
			continue;
		now[(*nnow)++] = x->opset[i];
		if (map_put(&known, x->opset[i].domain, 0))
			return fail_mem(e);
	}
	for (uint32_t i = 0; i < x->domain.cap; i++) {
		const struct map_slot *s = &x->domain.slot[i];

		if (s->key && !map_get(&known, s->key, NULL))
			now[(*nnow)++] = (struct opset){ .domain = s->key, .version = s->value };
	}
	TRY_NEW(p->opset_import, x->a, *nnow);
	p->n_opset_import = *nnow;
	for (uint32_t i = 0; i < *nnow; i++) {
		TRY_MESSAGE(p->opset_import[i], x->a, operator_set_id_proto);
		p->opset_import[i]->domain = plain(now[i].domain);
		p->opset_import[i]->has_version = 1;
		p->opset_import[i]->version = now[i].version;
	}
	return LINNET_OK;
}

static enum linnet_code model_write(struct export *x, const struct graph *g, int64_t version, struct linnet_error *e)
{
	struct linnet_model *m = x->m;
	struct frame f = { .g = g };
	Onnx__ModelProto *p;
	struct opset *now;
	uint32_t nnow;

	map_init(&f.nodes, x->scratch);
	TRY_MESSAGE(p, x->a, model_proto);
	if (x->old)
		*p = *x->old;
	if (!p->has_ir_version || p->ir_version < ir_version(version))
		p->ir_version = ir_version(version);
	p->has_ir_version = 1;
	p->n_functions = 0;
	p->functions = NULL;
	TRY(graph_write(x, &f, &p->graph, e));
	TRY_NEW(now, x->a, x->nopset + x->domain.n);
	TRY(opsets_write(x, p, now, &nnow, e));
	m->proto = p;
	m->opset = now;
	m->nopset = nnow;
	m->changed = false;
	return LINNET_OK;
}

/* The oldest opset that is written; models of older ones are read. */
enum { OPSET_OLDEST = 7 };

/* The opsets to write for: the model's, with the one of ai.onnx replaced. */
static enum linnet_code wanted_opsets(struct export *x, int version, int64_t *onnx, struct linnet_error *e)
{
	const struct linnet_model *m = x->m;
	struct opset *list;
	uint32_t n = m->nopset;
	bool found = false;

	TRY_NEW(list, x->scratch, n + 1);
	*onnx = version ? version : OPSET_NEWEST;
	for (uint32_t i = 0; i < n; i++) {
		list[i] = m->opset[i];
		if (*list[i].domain)
			continue;
		found = true;
		*onnx = list[i].version = version ? version : list[i].version < OPSET_OLDEST ? OPSET_OLDEST : list[i].version;
	}
	if (!found)
		list[n++] = (struct opset){ .domain = "", .version = *onnx };
	x->opset = list;
	x->nopset = n;
	return LINNET_OK;
}

/* Say of a node that the opset cannot say which is the lowest that can. */
static enum linnet_code say_lowest(struct export *x, const struct graph *g, const char *stuck, struct linnet_error *e)
{
	struct linnet_error told = { 0 };
	size_t n = e ? strlen(e->message) : 0;
	int lowest;

	if (!e || !stuck)
		return LINNET_EUNSUPPORTED;
	if (graph_lowest(g, x->opset, x->nopset, stuck, &lowest, &told)) {
		*e = told;
		return told.code;
	}
	if (lowest)
		snprintf(e->message + n, sizeof e->message - n, "; opset %d is the lowest that can say it", lowest);
	return LINNET_EUNSUPPORTED;
}

static enum linnet_code export_model(struct export *x, int version, struct linnet_error *e)
{
	struct graph *g = x->m->graph;
	int64_t onnx = 0;

	TRY(wanted_opsets(x, version, &onnx, e));
	TRY(graph_verify(g, e));
	if (!graph_fits(g, x->opset, x->nopset, !version)) {
		const struct graph *before = g;
		const char *stuck;
		enum linnet_code code;

		TRY(graph_copy(g, x->a, &g, e));
		code = graph_lower(g, x->opset, x->nopset, !version, &stuck, e);
		if (code == LINNET_EUNSUPPORTED)
			code = say_lowest(x, before, stuck, e);
		TRY(code);
	}
	return model_write(x, g, onnx, e);
}

enum linnet_code graph_export(struct linnet_model *m, int opset, struct linnet_error *e)
{
	struct export x = { .m = m, .a = m->arena, .old = proto_model(m), .scratch = arena_new() };
	enum linnet_code code;

	if (!x.scratch)
		return fail_mem(e);
	x.value_info = x.old && x.old->graph && x.old->graph->n_value_info;
	map_init(&x.domain, x.scratch);
	if (opset && (opset < OPSET_OLDEST || opset > OPSET_NEWEST))
		code = fail(e, LINNET_EUNSUPPORTED, "opset %d was asked for; %d to %d can be written", opset, OPSET_OLDEST, OPSET_NEWEST);
	else
		code = export_model(&x, opset, e);
	arena_free(x.scratch);
	return err_file(e, code, m->path);
}
