/*
 * Making a plan: order, last uses, which constants are known, what each node may take, the structures its run needs.
 */
#include "ops/blas.h"
#include "runtime/plan.h"

#include <string.h>

#include "ops/base/thread.h"

const char *step_name(const struct graph *g, const struct step *s)
{
	const struct node *n = s->node;

	if (*n->name)
		return n->name;
	for (uint32_t i = 0; i < n->nout; i++)
		if (n->out[i])
			return g->value[n->out[i]].name;
	return "";
}

/* ---- What has to be computed ---- */

/* Constants: initializers, what inference has folded, and captures of an outer graph's constants. */
static void find_fixed(struct plan *p, const struct plan *outer, const struct node *owner, uint32_t first_capture)
{
	const struct graph *g = p->graph;

	for (value_id v = 1; v < g->nvalue; v++)
		if (g->value[v].type.value && g->value[v].kind != VALUE_INPUT) {
			p->slot[v].t = *g->value[v].type.value;
			p->fixed[v] = true;
		}
	for (uint32_t i = 0; outer && i < g->ncapture; i++) {
		value_id inner = g->in[g->nin - g->ncapture + i], v = owner->in[first_capture + i];

		if (outer->fixed[v] && outer->slot[v].t.data) {
			p->slot[inner].t = outer->slot[v].t;
			p->fixed[inner] = true;
		}
	}
}

/* Nodes the outputs depend on. */
static enum linnet_code find_needed(const struct plan *p, const node_id *order, uint32_t n, bool **needed, struct arena *a,
                                    struct linnet_error *e)
{
	const struct graph *g = p->graph;
	bool *value;

	TRY_NEW(*needed, a, n);
	TRY_NEW(value, a, g->nvalue);
	for (uint32_t i = 0; i < g->nout; i++)
		value[g->out[i]] = true;
	for (uint32_t i = n; i-- > 0;) {
		const struct node *node = &g->node[order[i]];

		for (uint32_t k = 0; k < node->nout; k++)
			(*needed)[i] |= node->out[k] && value[node->out[k]] && !p->fixed[node->out[k]];
		for (uint32_t k = 0; (*needed)[i] && k < node->nin; k++)
			value[node->in[k]] = true;
	}
	return LINNET_OK;
}

static enum linnet_code check_kind(const struct plan *p, value_id v, struct linnet_error *e)
{
	const struct value *value = &p->graph->value[v];
	char found[64];

	if (!v || !kind_in(value->type.kind, KIND(SPARSE) | KIND(OTHER)))
		return LINNET_OK;
	return fail(e, LINNET_EUNSUPPORTED, "value \"%s\" is %s, which cannot be computed", value->name,
	            kind_str(&value->type, found, sizeof found));
}

static enum linnet_code check_runs(const struct plan *p, const struct node *n, struct linnet_error *e)
{
	bool runs = n->op->flags & OP_CONTROL ? control_known(n->op) : n->op->kernel || n->op->flags & OP_VIEW;

	if (!n->known || !runs) {
		const char *why = op_absent(n->op->domain, n->op->name);

		return fail(e, LINNET_EUNSUPPORTED, "no kernel for operator %s%s%s%s%s", n->op->domain ? n->op->domain : "",
		            n->op->domain ? "." : "", n->op->name, why ? ": " : "", why ? why : "");
	}
	for (uint32_t i = 0; i < n->nin; i++)
		TRY(check_kind(p, n->in[i], e));
	for (uint32_t i = 0; i < n->nout; i++)
		TRY(check_kind(p, n->out[i], e));
	return LINNET_OK;
}

/* ---- Steps ---- */

static uint64_t name_hash(const char *s)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 0x100000001b3u;
	return h;
}

/* Outputs that the kernel writes all the same, without a value or with one that is a constant to its users. */
static bool is_spare(const struct graph *g, const struct node *n, uint32_t out)
{
	const struct op_io *io = op_out(n->op, (int)out);

	return n->out[out] ? g->value[n->out[out]].type.value != NULL : io && !(io->flags & OPTIONAL);
}

/* The row's fast kernels, in order, each at the best level this processor has. */
static enum linnet_code find_choices(struct plan *p, struct step *s, struct linnet_error *e)
{
	const struct op *op = s->node->op;
	int n = 0;

	if (!op->fast || p->world->opt.kernels != KERNELS_FAST)
		return LINNET_OK;
	while (op->fast[n])
		n++;
	TRY_NEW(s->choice, p->world->arena, n);
	for (int i = 0; i < n; i++)
		for (int level = (int)fast_level(); level >= 0; level--)
			if (op->fast[i]->at[level]) {
				s->choice[s->nchoice++].fast = op->fast[i]->at[level];
				break;
			}
	return LINNET_OK;
}

/*
 * Whether a node reads constants only, so that its outputs are computed once and kept. Folding has done the small ones; this is for
 * weights that are transposed or cast. Not when that takes much memory: weights kept small stay small.
 */
static bool runs_once(const struct plan *p, const struct step *s)
{
	const struct node *n = s->node;
	size_t in = 1 << 20, out = 0;

	if (n->op->flags & OP_CONTROL || n->op->agree == AGREE_RANDOM || !n->nin)
		return false;
	for (uint32_t i = 0; i < n->nin; i++) {
		if (n->in[i] && !s->fixed[i])
			return false;
		in += n->in[i] ? 2 * s->fixed[i]->bytes : 0;
	}
	for (uint32_t i = 0; i < n->nout; i++) {
		const struct type *t = &p->graph->value[n->out[i]].type;
		size_t bytes;
		int64_t count;

		if (!s->out[i])
			continue;
		if (!n->out[i] || t->kind != KIND_TENSOR || t->dt == DT_UNDEFINED || t->dt == DT_STRING || !shape_known(&t->shape) ||
		    tensor_size(t->dt, t->shape.rank, t->shape.d, 0, &count, &bytes, NULL) || bytes > in)
			return false;
		out += bytes;
	}
	return out <= in;
}

static enum linnet_code plan_make(struct world *w, const struct graph *g, const struct plan *outer, const struct node *owner,
                                  uint32_t first_capture, struct plan **out, struct linnet_error *e);

static enum linnet_code make_subplans(struct plan *p, struct step *s, struct linnet_error *e)
{
	const struct node *n = s->node;
	uint32_t capture = n->nin - n->ncapture;

	TRY_NEW(s->sub, p->world->arena, n->nattr);
	for (uint32_t i = 0; i < n->nattr; i++) {
		if (n->attr[i].kind != ATTR_GRAPH)
			continue;
		if (n->attr[i].g->ncapture > n->nin - capture)
			return fail(e, LINNET_EINTERNAL, "subgraph \"%s\" has more captures than the node", n->attr[i].name);
		TRY(plan_make(p->world, n->attr[i].g, p, n, capture, &s->sub[s->nsub], e));
		capture += n->attr[i].g->ncapture;
		s->nsub++;
	}
	return control_prepare(p, s, e);
}

static enum linnet_code make_step(struct plan *p, struct step *s, uint32_t *spare, struct linnet_error *e)
{
	struct arena *a = p->world->arena;
	const struct node *n = s->node;
	const struct tensor **in;
	struct tensor **out;
	const struct type **in_type;
	bool *wanted;

	TRY(check_runs(p, n, e));
	TRY_NEW(in, a, n->nin);
	TRY_NEW(out, a, n->nout);
	TRY_NEW(s->in, a, n->nin);
	TRY_NEW(s->out, a, n->nout);
	TRY_NEW(s->in_type, a, n->nin);
	TRY_NEW(in_type, a, n->nin);
	TRY_NEW(s->fixed, a, n->nin);
	TRY_NEW(s->shape.out, a, n->nout);
	TRY_NEW(wanted, a, n->nout);
	for (uint32_t i = 0; i < n->nin; i++) {
		value_id v = n->in[i];

		if (!v)
			continue;
		if (p->fixed[v])
			TRY(weights_note(p->world, &p->slot[v].t, e));
		s->in[i] = &p->slot[v];
		in[i] = &p->slot[v].t;
		in_type[i] = &s->in_type[i];
		s->fixed[i] = p->fixed[v] ? &p->slot[v].t : NULL;
		s->reads_values |= i > 0 && n->op->flags & OP_VALUES && !p->fixed[v];
	}
	for (uint32_t i = 0; i < n->nout; i++) {
		bool is_extra = is_spare(p->graph, n, i);

		if (!n->out[i] && !is_extra)
			continue;
		s->out[i] = &p->slot[is_extra ? (*spare)++ : n->out[i]];
		out[i] = &s->out[i]->t;
		wanted[i] = true;
	}
	s->shape.op = s->call.op = n->op;
	s->shape.attr = s->call.attr = n->attr;
	s->shape.nin = s->call.nin = (int)n->nin;
	s->shape.nout = s->call.nout = (int)n->nout;
	s->shape.in = in_type;
	s->shape.wanted = wanted;
	s->call.in = in;
	s->call.out = out;
	s->call.threads = p->world->opt.threads;
	s->call.mixed = p->world->opt.mixed;
	s->seed = name_hash(step_name(p->graph, s)) + p->world->opt.seed * 0x9e3779b97f4a7c15u;
	s->view = n->op->flags & OP_VIEW;
	s->once = runs_once(p, s);
	for (uint32_t i = 0; s->once && i < n->nout; i++) {
		const struct type *t = &p->graph->value[n->out[i]].type;

		if (!s->out[i])
			continue;
		p->fixed[n->out[i]] = true;
		TRY(held_header(&s->out[i]->t, t->dt, t->shape.rank, t->shape.d, e));
	}
	if (n->op->flags & OP_CONTROL)
		return make_subplans(p, s, e);
	return find_choices(p, s, e);
}

/* After which step each slot is dropped, and which inputs die with it. A use of the shape alone keeps no data alive. */
static enum linnet_code find_last_uses(struct plan *p, struct arena *scratch, struct linnet_error *e)
{
	enum { NEVER = UINT32_MAX };
	const struct graph *g = p->graph;
	uint32_t *last; /* step + 1; 0: no step touches it */

	TRY_NEW(last, scratch, p->nslot);
	for (uint32_t i = 0; i < p->nstep; i++) {
		const struct step *s = &p->step[i];

		for (int k = 0; k < s->call.nout; k++)
			if (s->out[k])
				last[s->out[k] - p->slot] = i + 1;
		for (int k = 0; k < s->call.nin; k++)
			if (s->in[k] && !s->fixed[k] && !(s->node->op->flags & OP_SHAPE_ONLY))
				last[s->in[k] - p->slot] = i + 1;
	}
	for (uint32_t i = 0; i < g->nout; i++)
		last[g->out[i]] = NEVER;
	for (uint32_t v = 1; v < p->nslot; v++)
		if (last[v] && last[v] != NEVER)
			p->step[last[v] - 1].ndrop++;
	for (uint32_t i = 0; i < p->nstep; i++) {
		struct step *s = &p->step[i];

		TRY_NEW(s->drop, p->world->arena, s->ndrop);
		TRY_NEW(s->dying, p->world->arena, s->call.nin);
		TRY_NEW(s->reuse, p->world->arena, s->call.nin);
		s->ndrop = 0;
		for (int k = 0; k < s->call.nin; k++)
			if (s->in[k] && !s->fixed[k] && last[s->in[k] - p->slot] == i + 1)
				s->dying[s->ndying++] = (uint32_t)k;
	}
	for (uint32_t v = 1; v < p->nslot; v++)
		if (last[v] && last[v] != NEVER) {
			struct step *s = &p->step[last[v] - 1];

			s->drop[s->ndrop++] = v;
		}
	return LINNET_OK;
}

static enum linnet_code plan_make(struct world *w, const struct graph *g, const struct plan *outer, const struct node *owner,
                                  uint32_t first_capture, struct plan **out, struct linnet_error *e)
{
	struct plan *p;
	node_id *order;
	uint32_t n, spare = g->nvalue;
	bool *needed;

	TRY_NEW(p, w->arena, 1);
	*out = p;
	*p = (struct plan){ .world = w, .graph = g, .first_capture = first_capture };
	TRY(graph_order(g, w->scratch, &order, &n, e));
	p->nslot = g->nvalue;
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t k = 0; k < g->node[order[i]].nout; k++)
			p->nslot += is_spare(g, &g->node[order[i]], k);
	TRY_NEW(p->slot, w->arena, p->nslot);
	TRY_NEW(p->fixed, w->arena, p->nslot);
	find_fixed(p, outer, owner, first_capture);
	TRY(find_needed(p, order, n, &needed, w->scratch, e));
	TRY_NEW(p->step, w->arena, n);
	for (uint32_t i = 0; i < n; i++) {
		struct step *s = &p->step[p->nstep];

		if (!needed[i])
			continue;
		s->node = &g->node[order[i]];
		TRY(err_node(e, make_step(p, s, &spare, e), step_name(g, s), s->node->op->name));
		p->nstep++;
	}
	for (uint32_t i = 0; i < g->nout; i++) {
		TRY(check_kind(p, g->out[i], e));
		if (p->fixed[g->out[i]])
			TRY(weights_note(w, &p->slot[g->out[i]].t, e));
	}
	return find_last_uses(p, w->scratch, e);
}

/* ---- What inputs must agree in ---- */

struct collect {
	struct plan *plan;
	int cap;
	const char *last; /* the latest name seen, and how many */
	int n;
};

static int symbol_index(const struct plan *p, const char *name)
{
	for (int i = 0; i < p->nsymbol; i++)
		if (!strcmp(p->symbol[i].name, name))
			return i;
	return -1;
}

static void collect_symbol(void *ctx, const char *name)
{
	struct collect *c = ctx;

	c->last = name;
	c->n++;
}

/* Every known length of every input becomes a check: first those that bind a symbol, then the rest. */
static enum linnet_code make_checks(struct plan *p, struct linnet_error *e)
{
	const struct graph *g = p->graph;
	struct arena *a = p->world->arena;
	int n = 0;

	for (uint32_t i = 0; i < g->nin; i++)
		n += g->value[g->in[i]].type.kind == KIND_TENSOR && g->value[g->in[i]].type.shape.rank > 0 ? g->value[g->in[i]].type.shape.rank : 0;
	TRY_NEW(p->check, a, n);
	TRY_NEW(p->symbol, a, n);
	for (int pass = 0; pass < 2; pass++)
		for (uint32_t i = 0; i < g->nin; i++) {
			const struct shape *s = &g->value[g->in[i]].type.shape;

			for (int k = 0; k < s->rank && g->value[g->in[i]].type.kind == KIND_TENSOR; k++) {
				struct check c = { .input = i, .axis = k, .d = s->d[k], .symbol = -1 };
				struct collect names = { 0 };
				bool alone = false;

				if (c.d == DIM_NONE)
					continue;
				if (dim_is_expr(c.d)) {
					dim_symbols(g->dims, c.d, collect_symbol, &names);
					alone = names.n == 1 && dim_symbol(g->dims, names.last) == c.d;
				}
				if (alone != (pass == 0))
					continue;
				if (alone) {
					c.symbol = symbol_index(p, names.last);
					if (c.symbol < 0) {
						c.symbol = p->nsymbol++;
						p->symbol[c.symbol].name = names.last;
					}
				}
				p->check[p->ncheck++] = c;
			}
		}
	return LINNET_OK;
}

static enum linnet_code world_fill(struct world *w, const struct graph *g, struct plan **out, struct linnet_error *e)
{
	w->scratch = arena_new();
	w->text = arena_new();
	w->pool = pool_new(w->opt.max_memory);
	w->dims = dims_new(w->arena);
	if (!w->scratch || !w->text || !w->pool || !w->dims)
		return fail_mem(e);
	TRY(plan_make(w, g, NULL, NULL, 0, out, e));
	arena_reset(w->scratch);
	return make_checks(*out, e);
}

static void world_free(struct world *w)
{
	if (!w)
		return;
	arena_free(w->scratch);
	arena_free(w->text);
	pool_free(w->pool);
	arena_free(w->arena);
}

enum linnet_code plan_new(const struct graph *g, const struct run_opt *opt, struct plan **out, struct linnet_error *e)
{
	struct arena *a = arena_new();
	struct world *w = a ? NEW(a, 1, struct world) : NULL;
	struct plan *p = NULL;
	enum linnet_code code;

	*out = NULL;
	if (!w) {
		arena_free(a);
		return fail_mem(e);
	}
	w->arena = a;
	if (opt)
		w->opt = *opt;
	if (w->opt.threads <= 0)
		w->opt.threads = thread_default();
	blas_init();
	code = world_fill(w, g, &p, e);
	if (code)
		world_free(w);
	else
		*out = p;
	return code;
}

void plan_free(struct plan *p)
{
	if (p)
		world_free(p->world);
}

struct pool *plan_pool(struct plan *p)
{
	return p->world->pool;
}

int64_t plan_peak_bytes(const struct plan *p)
{
	return pool_peak(p->world->pool);
}

int64_t plan_prepared_bytes(const struct plan *p)
{
	return p->world->prepared_bytes;
}

/* ---- Saying what it will do ---- */

static void explain_step(const struct plan *p, const struct step *s, int depth, FILE *f)
{
	const char *kernel = s->nsub ? "subgraph" : s->view ? "view" : !s->decided ? "not run yet"
		: s->taken ? s->taken->fast->name : "reference";

	fprintf(f, "%*s%s\t%s\t%s%s\n", depth * 2, "", step_name(p->graph, s), s->node->op->name, kernel,
	        s->once ? "\tonce" : s->nreuse ? "\tin place" : "");
}

static void explain(const struct plan *p, int depth, FILE *f)
{
	for (uint32_t i = 0; i < p->nstep; i++) {
		explain_step(p, &p->step[i], depth, f);
		for (int k = 0; k < p->step[i].nsub; k++)
			explain(p->step[i].sub[k], depth + 1, f);
	}
}

enum linnet_code plan_explain(const struct plan *p, FILE *f, struct linnet_error *e)
{
	explain(p, 0, f);
	return ferror(f) ? fail(e, LINNET_EIO, "cannot write the explanation") : LINNET_OK;
}
