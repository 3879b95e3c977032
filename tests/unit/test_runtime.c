/* runtime/: plans, memory, control flow, on small graphs of operators of this file's own. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/memory.h"
#include "runtime/runtime.h"

/* ---- Operators ---- */

static int kernel_runs, fast_runs, prepares, shapes_asked;

static enum linnet_code plus(struct kernel_call *c)
{
	int64_t sa[MAX_RANK], sb[MAX_RANK];
	struct tensor *y = c->out[0];

	kernel_runs++;
	broadcast_strides(c->in[0], y->rank, sa);
	broadcast_strides(c->in[1], y->rank, sb);
	for (int64_t i = 0; i < y->n; i++) {
		int64_t rest = i, a = 0, b = 0;

		for (int k = y->rank - 1; k >= 0; rest /= y->d[k--]) {
			a += rest % y->d[k] * sa[k];
			b += rest % y->d[k] * sb[k];
		}
		tensor_put(y, i, tensor_get(c->in[0], a) + tensor_get(c->in[1], b));
	}
	return LINNET_OK;
}

static enum linnet_code shape_plus(struct shape_call *c)
{
	shapes_asked++;
	return shape_broadcast(c);
}

static bool plus_fast_ok(const struct kernel_call *c)
{
	return c->in[0]->dt == DT_FLOAT && c->in[0]->n == c->out[0]->n && c->in[1]->n == c->out[0]->n;
}

static enum linnet_code plus_prepare(const struct op *op, const struct attr *attr, int nin, const struct tensor *const *constant,
                                     struct arena *a, void **prepared, struct linnet_error *e)
{
	(void)op, (void)attr, (void)nin;
	prepares++;
	if (!constant[1])
		return LINNET_OK;
	TRY_NEW(*prepared, a, 100);
	return LINNET_OK;
}

static enum linnet_code plus_fast(struct kernel_call *c)
{
	const float *a = c->in[0]->data, *b = c->in[1]->data;
	float *y = c->out[0]->data;

	fast_runs++;
	for (int64_t i = 0; i < c->out[0]->n; i++)
		y[i] = a[i] + b[i];
	return LINNET_OK;
}

static const struct fast plus_fast_kernel = { "plus/same", plus_fast_ok, plus_prepare, plus_fast, .inplace = true };
static const struct fast_set plus_set = { { &plus_fast_kernel } };

/* As many elements as the first input says: 0, 1, 2, ... */
static enum linnet_code shape_count_up(struct shape_call *c)
{
	dim n;
	int found;

	TRY(type_ints(c->in[0], &n, 1, &found, c->e));
	c->out[0].shape.rank = 1;
	c->out[0].shape.d[0] = found == 1 ? n : DIM_NONE;
	return LINNET_OK;
}

static enum linnet_code count_up(struct kernel_call *c)
{
	for (int64_t i = 0; i < c->out[0]->n; i++)
		tensor_put(c->out[0], i, (double)i);
	return LINNET_OK;
}

static enum linnet_code shape_view(struct shape_call *c)
{
	dim d[MAX_RANK];
	int n;

	TRY(type_ints(c->in[1], d, MAX_RANK, &n, c->e));
	if (n < 0)
		return LINNET_OK;
	c->out[0].shape.rank = n;
	memcpy(c->out[0].shape.d, d, (size_t)n * sizeof *d);
	return LINNET_OK;
}

static enum linnet_code shape_dims(struct shape_call *c)
{
	c->out[0].shape = (struct shape){ .rank = 1, .d = { c->in[0]->shape.rank } };
	return LINNET_OK;
}

static enum linnet_code dims_kernel(struct kernel_call *c)
{
	for (int i = 0; i < c->in[0]->rank; i++)
		tensor_put_int(c->out[0], i, c->in[0]->d[i]);
	return LINNET_OK;
}

static enum linnet_code less(struct kernel_call *c)
{
	tensor_put_int(c->out[0], 0, tensor_get(c->in[0], 0) < tensor_get(c->in[1], 0));
	return LINNET_OK;
}

static enum linnet_code shape_scalar(struct shape_call *c)
{
	c->out[0].shape.rank = 0;
	return LINNET_OK;
}

static enum linnet_code refuse(struct kernel_call *c)
{
	return fail(c->e, LINNET_EVALUE, "refused");
}

/* Every string twice. */
static enum linnet_code twice(struct kernel_call *c)
{
	const struct text *in = c->in[0]->data;
	struct text *out = c->out[0]->data;

	for (int64_t i = 0; i < c->out[0]->n; i++) {
		char *p = arena_get(c->scratch, 2 * in[i].n, 1);

		if (!p)
			return fail_mem(c->e);
		memcpy(p, in[i].p, in[i].n);
		memcpy(p + in[i].n, in[i].p, in[i].n);
		out[i] = (struct text){ p, 2 * in[i].n };
	}
	return LINNET_OK;
}

static enum linnet_code draw(struct kernel_call *c)
{
	tensor_put_int(c->out[0], 0, (int64_t)(c->seed >> 1));
	return LINNET_OK;
}

#define ANY_TYPES .types = { [T] = NUMBERS | SET(BOOL) | SET(STRING), [T1] = SET(INT64), [T2] = SET(BOOL) }

static const struct op op_plus = {
	.name = "Plus", .in = IN({ "a", T }, { "b", T }), .out = OUT({ "y", T }), ANY_TYPES, .shape = shape_plus, .kernel = plus,
	.fast = FAST(&plus_set),
};
static const struct op op_count_up = {
	.name = "CountUp", .in = IN({ "n", T1 }, { "like", T }), .out = OUT({ "y", T }), ANY_TYPES, .shape = shape_count_up,
	.kernel = count_up,
};
static const struct op op_view = {
	.name = "View", .in = IN({ "x", T }, { "shape", T1 }), .out = OUT({ "y", T }), ANY_TYPES, .shape = shape_view,
	.flags = OP_VIEW,
};
static const struct op op_dims = {
	.name = "Dims", .in = IN({ "x", T }), .out = OUT({ "y", T1 }), ANY_TYPES, .shape = shape_dims, .kernel = dims_kernel,
	.flags = OP_SHAPE_ONLY,
};
static const struct op op_less = {
	.name = "Less", .in = IN({ "a", T }, { "b", T }), .out = OUT({ "y", T2 }), ANY_TYPES, .shape = shape_scalar, .kernel = less,
};
static const struct op op_refuse = {
	.name = "Refuse", .in = IN({ "x", T }), .out = OUT({ "y", T }), ANY_TYPES, .shape = shape_same, .kernel = refuse,
};
static const struct op op_twice = {
	.name = "Twice", .in = IN({ "x", T }), .out = OUT({ "y", T }), ANY_TYPES, .shape = shape_same, .kernel = twice,
};
static const struct op op_draw = {
	.name = "Draw", .in = IN({ "x", T, .flags = OPTIONAL }), .out = OUT({ "y", T1 }), ANY_TYPES, .shape = shape_scalar,
	.kernel = draw,
};
static const struct op op_none = {
	.domain = "odd", .name = "None", .in = IN({ "x", T }), .out = OUT({ "y", T }), ANY_TYPES, .shape = shape_same,
};
static const struct op op_if = {
	.name = "If", .in = IN({ "cond", T2 }), .out = OUT({ "y", T, .flags = VARIADIC | HETERO }), ANY_TYPES, .flags = OP_CONTROL,
	.attr = ATTRS({ .name = "else_branch", .kind = ATTR_GRAPH }, { .name = "then_branch", .kind = ATTR_GRAPH }),
};
static const struct op op_loop = {
	.name = "Loop", .flags = OP_CONTROL, ANY_TYPES,
	.in = IN({ "M", T1, .flags = OPTIONAL }, { "cond", T2, .flags = OPTIONAL }, { "v", T, .flags = VARIADIC | HETERO | OPTIONAL }),
	.out = OUT({ "y", T, .flags = VARIADIC | HETERO }), .attr = ATTRS({ .name = "body", .kind = ATTR_GRAPH }),
};
static const struct op op_scan = {
	.name = "Scan", .flags = OP_CONTROL, ANY_TYPES, .in = IN({ "v", T, .flags = VARIADIC | HETERO }),
	.out = OUT({ "y", T, .flags = VARIADIC | HETERO }),
	.attr = ATTRS({ .name = "body", .kind = ATTR_GRAPH }, { .name = "num_scan_inputs", .kind = ATTR_INT, .flags = REQUIRED },
	              { .name = "scan_input_axes", .kind = ATTR_INTS, .flags = OPTIONAL },
	              { .name = "scan_input_directions", .kind = ATTR_INTS, .flags = OPTIONAL },
	              { .name = "scan_output_axes", .kind = ATTR_INTS, .flags = OPTIONAL },
	              { .name = "scan_output_directions", .kind = ATTR_INTS, .flags = OPTIONAL }),
};

/* ---- Building ---- */

struct fixture {
	struct arena *a;
	struct dims *dims;
	struct graph *g;
	struct linnet_error e;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	f->a = arena_new();
	f->dims = dims_new(f->a);
	f->g = graph_new(f->a, f->dims, NULL);
	*state = f;
	kernel_runs = fast_runs = prepares = shapes_asked = 0;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	arena_free(f->a);
	free(f);
	return 0;
}

#define OK(call) is_ok(f, call, __LINE__)

static void is_ok(struct fixture *f, enum linnet_code code, int line)
{
	char buf[900];

	if (code)
		print_error("line %d: %s\n", line, linnet_error_line(&f->e, buf, sizeof buf));
	assert_int_equal(code, LINNET_OK);
}

static void says(struct fixture *f, enum linnet_code found, enum linnet_code code, const char *line)
{
	char buf[900];

	assert_string_equal(linnet_error_line(&f->e, buf, sizeof buf), line);
	assert_int_equal(found, code);
	memset(&f->e, 0, sizeof f->e);
}

static struct tensor *floats(struct fixture *f, int rank, const int64_t *d, const float *v)
{
	struct tensor *t;

	assert_int_equal(tensor_new(f->a, DT_FLOAT, rank, d, &t, NULL), LINNET_OK);
	memcpy(t->data, v, t->bytes);
	return t;
}

#define FLOATS_OF(...) (const float[]){ __VA_ARGS__ }
#define LENGTHS(...) (const int64_t[]){ __VA_ARGS__ }
#define VECTOR(...)                                                                                \
	floats(f, 1, LENGTHS(sizeof FLOATS_OF(__VA_ARGS__) / sizeof(float)), FLOATS_OF(__VA_ARGS__))

static struct tensor *integers(struct fixture *f, enum dtype dt, int rank, int64_t n, const int64_t *v)
{
	struct tensor *t;

	assert_int_equal(tensor_new(f->a, dt, rank, &n, &t, NULL), LINNET_OK);
	for (int64_t i = 0; i < t->n; i++)
		tensor_put_int(t, i, v[i]);
	return t;
}

static struct tensor *scalar(struct fixture *f, enum dtype dt, int64_t v)
{
	return integers(f, dt, 0, 0, &v);
}

static value_id node_n(struct fixture *f, struct graph *g, const struct op *op, const char *name, const value_id *in, uint32_t nin,
                       uint32_t nout)
{
	node_id id;

	OK(graph_add_node(g, op, name, in, nin, NULL, nout, NULL, 0, &id, &f->e));
	return g->node[id].out[0];
}

#define NODE(g, op, name, ...)                                                                     \
	node_n(f, g, op, name, (const value_id[]){ __VA_ARGS__ },                                  \
	       sizeof((const value_id[]){ __VA_ARGS__ }) / sizeof(value_id), 1)

static struct graph *subgraph(struct fixture *f)
{
	struct graph *g = graph_new(f->a, f->dims, NULL);

	g->outer = f->g;
	return g;
}

static struct plan *planned(struct fixture *f, enum kernels k)
{
	struct plan *p = NULL;

	OK(plan_new(f->g, &(struct run_opt){ .kernels = k, .threads = 1, .seed = 7 }, &p, &f->e));
	return p;
}

static void is_floats(const struct tensor *t, int rank, const int64_t *d, const float *v)
{
	assert_int_equal(t->dt, DT_FLOAT);
	assert_int_equal(t->rank, rank);
	for (int i = 0; i < rank; i++)
		assert_int_equal(t->d[i], d[i]);
	for (int64_t i = 0; i < t->n; i++)
		assert_float_equal(((const float *)t->data)[i], v[i], 0);
}

#define IS_VECTOR(t, ...)                                                                          \
	is_floats(t, 1, LENGTHS(sizeof FLOATS_OF(__VA_ARGS__) / sizeof(float)), FLOATS_OF(__VA_ARGS__))

/* ---- Memory ---- */

static void pool_reuses_and_counts(void **state)
{
	struct fixture *f = *state;
	struct pool *p = pool_new(100000);
	struct block *a, *b, *c;
	void *was;

	OK(pool_get(p, 1000, &a, &f->e));
	assert_int_equal((uintptr_t)block_data(a) % 64, 0);
	assert_true(a->capacity >= 1000 && a->capacity <= 1125);
	was = a;
	block_drop(a);
	assert_int_equal(pool_live(p), 0);
	OK(pool_get(p, 990, &a, &f->e));
	assert_ptr_equal(a, was);
	OK(pool_get(p, 90, &b, &f->e)); /* much smaller: not the same block */
	block_drop(a);
	OK(pool_get(p, 10, &c, &f->e));
	assert_ptr_not_equal(c, was);
	assert_int_equal(pool_live(p), 100);
	assert_int_equal(pool_peak(p), 1080);
	says(f, pool_get(p, 99901, &a, &f->e), LINNET_ELIMIT,
	     "activations need more than 100000 bytes: 100 are in use and 99901 are asked for");
	block_drop(b);
	pool_free(p); /* c outlives the pool */
	memset(block_data(c), 1, 10);
	block_drop(c);
}

static void pool_wastes_an_eighth_at_most(void **state)
{
	struct fixture *f = *state;
	struct pool *p = pool_new(0);

	for (size_t n = 1024; n < 100 << 20; n += n / 7) {
		struct block *b;

		OK(pool_get(p, n, &b, &f->e));
		assert_true(b->capacity >= n && b->capacity <= n + n / 8);
		block_drop(b);
		assert_true(pool_cached(p) <= 2 * pool_peak(p) + 4096);
	}
	pool_free(p);
}

static void tensors_stand_alone(void **state)
{
	struct fixture *f = *state;
	struct tensor *t;

	OK(tensor_make(DT_INT4, 1, LENGTHS(5), &t, &f->e));
	assert_int_equal(t->bytes, 3);
	assert_int_equal(tensor_get_int(t, 4), 0);
	tensor_release(t);
	tensor_release(NULL);
	assert_int_equal(tensor_make(DT_DOUBLE, 2, LENGTHS(1 << 20, 1 << 19), &t, &f->e), LINNET_ELIMIT);
}

/* ---- Straight graphs ---- */

/* y = x + x, z = y + y, and dead nodes that would fail. */
static void runs_what_is_needed(void **state)
{
	struct fixture *f = *state;
	value_id x = graph_add_input(f->g, "x", NULL), y = NODE(f->g, &op_plus, "y", x, x);
	value_id z = NODE(f->g, &op_plus, "z", y, y);
	const struct tensor *in = VECTOR(1, 2, 3, 4);
	struct tensor *out;
	struct plan *p;

	NODE(f->g, &op_refuse, "dead", y);
	graph_add_output(f->g, z);
	p = planned(f, KERNELS_REFERENCE);
	for (int i = 0; i < 3; i++) {
		OK(plan_run(p, &in, &out, &f->e));
		IS_VECTOR(out, 4, 8, 12, 16);
		tensor_release(out);
	}
	assert_int_equal(kernel_runs, 6);
	assert_int_equal(shapes_asked, 2); /* once a node: the lengths stay the same */
	assert_int_equal(plan_peak_bytes(p), 32);
	in = VECTOR(1, 2);
	OK(plan_run(p, &in, &out, &f->e));
	IS_VECTOR(out, 4, 8);
	assert_int_equal(shapes_asked, 4);
	plan_free(p);
	IS_VECTOR(out, 4, 8); /* outlives its plan */
	tensor_release(out);
}

static void runs_in_place(void **state)
{
	struct fixture *f = *state;
	value_id x = graph_add_input(f->g, "x", NULL), y = NODE(f->g, &op_plus, "y", x, x);
	value_id z = NODE(f->g, &op_plus, "z", y, y);
	const struct tensor *in = VECTOR(1, 2, 3, 4);
	struct tensor *out;
	struct plan *p;

	graph_add_output(f->g, z);
	p = planned(f, KERNELS_FAST);
	OK(plan_run(p, &in, &out, &f->e));
	IS_VECTOR(out, 4, 8, 12, 16);
	IS_VECTOR(in, 1, 2, 3, 4); /* never over the caller's input */
	assert_int_equal(fast_runs, 2);
	assert_int_equal(plan_peak_bytes(p), 16);
	tensor_release(out);
	plan_free(p);
}

/* y is an output: z must not take its memory; w is read again by the last node. */
static void keeps_what_is_read_again(void **state)
{
	struct fixture *f = *state;
	value_id x = graph_add_input(f->g, "x", NULL), y = NODE(f->g, &op_plus, "y", x, x);
	value_id w = NODE(f->g, &op_plus, "w", y, x), z = NODE(f->g, &op_plus, "z", w, y), u = NODE(f->g, &op_plus, "u", z, w);
	const struct tensor *in = VECTOR(1, 2);
	struct tensor *out[2];
	struct plan *p;

	graph_add_output(f->g, u);
	graph_add_output(f->g, y);
	p = planned(f, KERNELS_FAST);
	OK(plan_run(p, &in, out, &f->e));
	IS_VECTOR(out[0], 8, 16);
	IS_VECTOR(out[1], 2, 4);
	tensor_release(out[0]);
	tensor_release(out[1]);
	plan_free(p);
}

static void views_share(void **state)
{
	struct fixture *f = *state;
	value_id x = graph_add_input(f->g, "x", NULL), shape = graph_add_const(f->g, integers(f, DT_INT64, 1, 2, LENGTHS(2, 2)), "s");
	value_id y = NODE(f->g, &op_plus, "y", x, x), v = NODE(f->g, &op_view, "v", y, shape);
	value_id z = NODE(f->g, &op_plus, "z", v, v), vx = NODE(f->g, &op_view, "vx", x, shape);
	const struct tensor *in = VECTOR(1, 2, 3, 4);
	struct tensor *out[6];
	struct plan *p;

	graph_add_output(f->g, z);
	graph_add_output(f->g, y);
	graph_add_output(f->g, v);
	graph_add_output(f->g, vx);
	graph_add_output(f->g, z);
	graph_add_output(f->g, shape);
	p = planned(f, KERNELS_FAST);
	OK(plan_run(p, &in, out, &f->e));
	is_floats(out[0], 2, LENGTHS(2, 2), FLOATS_OF(4, 8, 12, 16));
	IS_VECTOR(out[1], 2, 4, 6, 8);
	is_floats(out[2], 2, LENGTHS(2, 2), FLOATS_OF(2, 4, 6, 8));
	is_floats(out[3], 2, LENGTHS(2, 2), FLOATS_OF(1, 2, 3, 4));
	is_floats(out[4], 2, LENGTHS(2, 2), FLOATS_OF(4, 8, 12, 16));
	assert_int_equal(tensor_get_int(out[5], 1), 2);
	for (int i = 0; i < 6; i++)
		for (int k = 0; k < i; k++)
			assert_ptr_not_equal(out[i]->data, out[k]->data);
	assert_ptr_not_equal(out[3]->data, in->data);
	for (int i = 0; i < 6; i++)
		tensor_release(out[i]);
	plan_free(p);
}

static void shapes_from_values(void **state)
{
	struct fixture *f = *state;
	value_id n = graph_add_input(f->g, "n", NULL), x = graph_add_input(f->g, "x", NULL);
	value_id c = NODE(f->g, &op_count_up, "c", n, x), y = NODE(f->g, &op_plus, "y", c, x);
	struct tensor *out;
	struct plan *p;

	graph_add_output(f->g, y);
	p = planned(f, KERNELS_FAST);
	for (int64_t k = 1; k < 4; k++) {
		const struct tensor *in[] = { scalar(f, DT_INT64, k), VECTOR(5) };

		OK(plan_run(p, in, &out, &f->e));
		is_floats(out, 1, &k, FLOATS_OF(5, 6, 7));
		tensor_release(out);
	}
	plan_free(p);
}

/* A value only its shape is asked of is dropped as soon as nobody reads it. */
static void shape_only_uses_keep_nothing(void **state)
{
	struct fixture *f = *state;
	value_id x = graph_add_input(f->g, "x", NULL), y = NODE(f->g, &op_plus, "y", x, x), z = NODE(f->g, &op_plus, "z", y, x);
	value_id w = NODE(f->g, &op_plus, "w", z, x), s = NODE(f->g, &op_dims, "s", y);
	const struct tensor *in = VECTOR(1, 2, 3, 4);
	struct tensor *out[2];
	struct plan *p;

	graph_add_output(f->g, w);
	graph_add_output(f->g, s);
	p = planned(f, KERNELS_REFERENCE);
	OK(plan_run(p, &in, out, &f->e));
	IS_VECTOR(out[0], 4, 8, 12, 16);
	assert_int_equal(tensor_get_int(out[1], 0), 4);
	assert_int_equal(plan_peak_bytes(p), 32);
	tensor_release(out[0]);
	tensor_release(out[1]);
	plan_free(p);
}

static void constants_are_not_computed(void **state)
{
	struct fixture *f = *state;
	value_id c = graph_add_const(f->g, VECTOR(1, 2), "c"), y = NODE(f->g, &op_refuse, "y", c), z;
	const struct tensor *in = VECTOR(10, 20);
	value_id x = graph_add_input(f->g, "x", NULL);
	struct tensor *out;
	struct plan *p;

	f->g->value[y].type.value = VECTOR(3, 4); /* as inference folds it */
	z = NODE(f->g, &op_plus, "z", x, y);
	graph_add_output(f->g, z);
	p = planned(f, KERNELS_FAST);
	assert_int_equal(plan_prepared_bytes(p), 0);
	for (int i = 0; i < 3; i++) {
		OK(plan_run(p, &in, &out, &f->e));
		IS_VECTOR(out, 13, 24);
		tensor_release(out);
	}
	assert_int_equal(prepares, 1);
	assert_true(plan_prepared_bytes(p) >= 100);
	plan_free(p);
}

static struct type vector_type(dim n)
{
	return (struct type){ .dt = DT_FLOAT, .shape = { 1, { n } } };
}

/* What depends on constants only is computed in the first run and kept; inner results of such are not. */
static void constants_are_combined_once(void **state)
{
	struct fixture *f = *state;
	value_id c = graph_add_const(f->g, VECTOR(1, 2), "c"), a = NODE(f->g, &op_plus, "a", c, c), b = NODE(f->g, &op_plus, "b", a, c);
	value_id x = graph_add_input(f->g, "x", NULL), y = NODE(f->g, &op_plus, "y", x, b);
	const struct tensor *in = VECTOR(10, 20);
	struct tensor *out[2];
	struct plan *p;

	f->g->value[a].type = f->g->value[b].type = vector_type(2);
	graph_add_output(f->g, y);
	graph_add_output(f->g, b);
	p = planned(f, KERNELS_REFERENCE);
	for (int i = 0; i < 3; i++) {
		OK(plan_run(p, &in, out, &f->e));
		IS_VECTOR(out[0], 13, 26);
		IS_VECTOR(out[1], 3, 6);
		tensor_release(out[0]);
		tensor_release(out[1]);
	}
	assert_int_equal(kernel_runs, 2 + 3);
	assert_int_equal(plan_prepared_bytes(p), 8);
	plan_free(p);
}

/* A large result of small constants is made anew in each run. */
static void constants_do_not_swell(void **state)
{
	struct fixture *f = *state;
	value_id n = graph_add_const(f->g, scalar(f, DT_INT64, 1 << 20), "n"), like = graph_add_const(f->g, VECTOR(1), "like");
	value_id x = graph_add_input(f->g, "x", NULL), c = NODE(f->g, &op_count_up, "c", n, like), y = NODE(f->g, &op_dims, "y", c);
	const struct tensor *in = VECTOR(1);
	struct tensor *out;
	struct plan *p;

	(void)x;
	f->g->value[c].type = vector_type(1 << 20);
	graph_add_output(f->g, y);
	p = planned(f, KERNELS_REFERENCE);
	OK(plan_run(p, &in, &out, &f->e));
	assert_int_equal(tensor_get_int(out, 0), 1 << 20);
	assert_int_equal(plan_prepared_bytes(p), 0);
	tensor_release(out);
	plan_free(p);
}

static void inputs_are_checked(void **state)
{
	struct fixture *f = *state;
	dim batch = dim_symbol(f->dims, "batch"), seq = dim_symbol(f->dims, "seq");
	struct type tx = { .dt = DT_FLOAT, .shape = { 2, { batch, 2 } } };
	struct type ty = { .dt = DT_FLOAT, .shape = { 2, { batch, seq } } };
	struct type tz = { .dt = DT_FLOAT, .shape = { 1, { dim_add(f->dims, batch, seq) } } };
	value_id x = graph_add_input(f->g, "x", &tx), y = graph_add_input(f->g, "y", &ty);
	value_id z = graph_add_input(f->g, "z", &tz), s = NODE(f->g, &op_plus, "s", x, y);
	const float v[16] = { 0 };
	const struct tensor *in[3] = { floats(f, 2, LENGTHS(3, 2), v), floats(f, 2, LENGTHS(3, 1), v), floats(f, 1, LENGTHS(4), v) };
	struct tensor *out;
	struct plan *p;

	(void)z;
	graph_add_output(f->g, s);
	p = planned(f, KERNELS_FAST);
	OK(plan_run(p, in, &out, &f->e));
	tensor_release(out);
	in[1] = floats(f, 2, LENGTHS(4, 1), v);
	says(f, plan_run(p, in, &out, &f->e), LINNET_ESHAPE,
	     "input \"y\" has length 4 along axis 0 (batch); input \"x\" has 3 along axis 0");
	assert_null(out);
	in[1] = floats(f, 2, LENGTHS(3, 2), v);
	says(f, plan_run(p, in, &out, &f->e), LINNET_ESHAPE, "input \"z\" has length 4 along axis 0; the model declares 5");
	in[0] = floats(f, 2, LENGTHS(3, 3), v);
	says(f, plan_run(p, in, &out, &f->e), LINNET_ESHAPE, "input \"x\" has length 3 along axis 1; the model declares 2");
	in[0] = floats(f, 1, LENGTHS(3), v);
	says(f, plan_run(p, in, &out, &f->e), LINNET_ESHAPE, "input \"x\" has 1 dimensions; the model declares 2");
	in[0] = scalar(f, DT_INT64, 1);
	says(f, plan_run(p, in, &out, &f->e), LINNET_ETYPE, "input \"x\" has element type int64; the model declares float");
	in[0] = NULL;
	says(f, plan_run(p, in, &out, &f->e), LINNET_EUSAGE, "input \"x\" is not given and has no default");
	f->g->value[x].dflt = floats(f, 2, LENGTHS(3, 2), v);
	in[2] = floats(f, 1, LENGTHS(5), v);
	OK(plan_run(p, in, &out, &f->e));
	tensor_release(out);
	plan_free(p);
}

static void errors_name_the_node(void **state)
{
	struct fixture *f = *state;
	value_id x = graph_add_input(f->g, "x", NULL), y = NODE(f->g, &op_plus, "sum", x, x), z = NODE(f->g, &op_refuse, "", y);
	const struct tensor *in = VECTOR(1);
	struct tensor *out;
	struct plan *p;

	graph_add_output(f->g, z);
	p = planned(f, KERNELS_FAST);
	says(f, plan_run(p, &in, &out, &f->e), LINNET_EVALUE, "node \"v\" (Refuse): refused");
	plan_free(p);
	NODE(f->g, &op_none, "odd one", z);
	p = planned(f, KERNELS_FAST); /* nobody needs it */
	plan_free(p);
	f->g->out[0] = NODE(f->g, &op_none, "odd two", z);
	says(f, plan_new(f->g, NULL, &p, &f->e), LINNET_EUNSUPPORTED, "node \"odd two\" (None): no kernel for operator odd.None");
	assert_null(p);
}

static void memory_is_bounded(void **state)
{
	struct fixture *f = *state;
	value_id x = graph_add_input(f->g, "x", NULL), y = NODE(f->g, &op_plus, "y", x, x), z = NODE(f->g, &op_plus, "z", y, x);
	const struct tensor *in = VECTOR(1, 2, 3, 4);
	struct tensor *out;
	struct plan *p;

	graph_add_output(f->g, z);
	OK(plan_new(f->g, &(struct run_opt){ .kernels = KERNELS_REFERENCE, .max_memory = 31 }, &p, &f->e));
	says(f, plan_run(p, &in, &out, &f->e), LINNET_ELIMIT,
	     "node \"z\" (Plus): activations need more than 31 bytes: 16 are in use and 16 are asked for");
	plan_free(p);
	OK(plan_new(f->g, &(struct run_opt){ .kernels = KERNELS_FAST, .max_memory = 16 }, &p, &f->e));
	OK(plan_run(p, &in, &out, &f->e));
	tensor_release(out);
	plan_free(p);
}

struct seen {
	char names[64];
	int left;
};

static int watch(void *ctx, const struct graph *g, value_id v, const struct tensor *t)
{
	struct seen *s = ctx;

	snprintf(s->names + strlen(s->names), 32, "%s=%g ", g->value[v].name, tensor_get(t, 0));
	return --s->left == 0;
}

static void values_can_be_watched(void **state)
{
	struct fixture *f = *state;
	value_id x = graph_add_input(f->g, "x", NULL), y = NODE(f->g, &op_plus, "y", x, x), z = NODE(f->g, &op_plus, "z", y, y);
	const struct tensor *in = VECTOR(1, 2);
	struct seen seen = { .left = 3 };
	struct tensor *out;
	struct plan *p;

	graph_add_output(f->g, z);
	OK(plan_new(f->g, &(struct run_opt){ .watch = watch, .watch_ctx = &seen }, &p, &f->e));
	OK(plan_run(p, &in, &out, &f->e));
	assert_string_equal(seen.names, "y=2 z=4 ");
	tensor_release(out);
	OK(plan_run(p, &in, &out, &f->e));
	assert_string_equal(seen.names, "y=2 z=4 y=2 ");
	assert_null(out);
	plan_free(p);
}

static void strings_outlive_the_run(void **state)
{
	struct fixture *f = *state;
	value_id x = graph_add_input(f->g, "x", NULL), y = NODE(f->g, &op_twice, "y", x), z = NODE(f->g, &op_twice, "z", y);
	const struct text v[] = { { "ab", 2 }, { "", 0 }, { "xyz", 3 } };
	struct tensor *t, *out;
	struct plan *p;

	graph_add_output(f->g, z);
	OK(tensor_wrap(f->a, DT_STRING, 1, LENGTHS(3), v, &t, &f->e));
	p = planned(f, KERNELS_FAST);
	OK(plan_run(p, (const struct tensor *const[]){ t }, &out, &f->e));
	plan_free(p);
	assert_int_equal(((struct text *)out->data)[0].n, 8);
	assert_memory_equal(((struct text *)out->data)[0].p, "abababab", 8);
	assert_int_equal(((struct text *)out->data)[1].n, 0);
	assert_memory_equal(((struct text *)out->data)[2].p, "xyzxyzxyzxyz", 12);
	tensor_release(out);
}

static void plans_explain_themselves(void **state)
{
	struct fixture *f = *state;
	value_id x = graph_add_input(f->g, "x", NULL), shape = graph_add_const(f->g, integers(f, DT_INT64, 1, 2, LENGTHS(2, 2)), "s");
	value_id y = NODE(f->g, &op_plus, "a", x, x), v = NODE(f->g, &op_view, "b", y, shape), z = NODE(f->g, &op_plus, "c", v, v);
	const struct tensor *in = VECTOR(1, 2, 3, 4);
	struct tensor *out;
	struct plan *p;
	char text[300] = "";
	FILE *file = tmpfile();

	graph_add_output(f->g, NODE(f->g, &op_less, "d", z, x));
	p = planned(f, KERNELS_FAST);
	OK(plan_run(p, &in, &out, &f->e));
	OK(plan_explain(p, file, &f->e));
	rewind(file);
	text[fread(text, 1, sizeof text - 1, file)] = '\0';
	assert_string_equal(text, "a\tPlus\tplus/same\nb\tView\tview\nc\tPlus\tplus/same\tin place\nd\tLess\treference\n");
	fclose(file);
	tensor_release(out);
	plan_free(p);
}

/* ---- Control flow ---- */

static value_id control_node(struct fixture *f, struct graph *g, const struct op *op, const value_id *in, uint32_t nin, uint32_t ncapture,
                             uint32_t nout, const struct attr *attr, uint32_t nattr)
{
	node_id id;

	OK(graph_add_node(g, op, op->name, in, nin, NULL, nout, attr, nattr, &id, &f->e));
	g->node[id].ncapture = ncapture;
	return g->node[id].out[0];
}

/* y = c ? x + x : x */
static void if_takes_a_branch(void **state)
{
	struct fixture *f = *state;
	value_id c = graph_add_input(f->g, "c", NULL), x = graph_add_input(f->g, "x", NULL), y, inner;
	struct graph *yes = subgraph(f), *no = subgraph(f);
	struct tensor *out;
	struct plan *p;

	inner = graph_add_input(yes, "x_then", NULL);
	yes->ncapture = 1;
	graph_add_output(yes, NODE(yes, &op_plus, "double", inner, inner));
	inner = graph_add_input(no, "x_else", NULL);
	no->ncapture = 1;
	graph_add_output(no, inner);
	y = control_node(f, f->g, &op_if, (const value_id[]){ c, x, x }, 3, 2, 1,
	                 (const struct attr[]){ { .name = "then_branch", .kind = ATTR_GRAPH, .g = yes },
	                                        { .name = "else_branch", .kind = ATTR_GRAPH, .g = no } }, 2);
	graph_add_output(f->g, y);
	p = planned(f, KERNELS_FAST);
	for (int i = 0; i < 4; i++) {
		const struct tensor *in[] = { scalar(f, DT_BOOL, i & 1), VECTOR(1, 2) };

		OK(plan_run(p, in, &out, &f->e));
		if (i & 1)
			IS_VECTOR(out, 2, 4);
		else
			IS_VECTOR(out, 1, 2);
		tensor_release(out);
	}
	says(f, plan_run(p, (const struct tensor *[]){ VECTOR(1), VECTOR(1) }, &out, &f->e), LINNET_ETYPE,
	     "node \"If\" (If): the condition is float with 1 elements; expected one bool");
	plan_free(p);
}

/*
 * for (i = 0; i < M && go; i++) { scan[i] = v; v = v + k; go = v[0] < limit }
 * k is the sum of constants outside, computed once; limit is a computed value outside.
 */
static void build_loop(struct fixture *f, bool with_cond, bool with_trips)
{
	value_id m = graph_add_input(f->g, "m", NULL), x = graph_add_input(f->g, "x", NULL);
	value_id k = graph_add_const(f->g, VECTOR(1, 10), "k"), half = graph_add_input(f->g, "half", NULL);
	value_id limit = NODE(f->g, &op_plus, "limit", half, half), zero = graph_add_const(f->g, VECTOR(0, 0), "zero");
	value_id step = NODE(f->g, &op_plus, "step", k, zero), cond = graph_add_const(f->g, scalar(f, DT_BOOL, 1), "true");
	struct graph *g = subgraph(f);
	value_id v, next, in_k, in_limit, y;

	graph_add_input(g, "i", NULL);
	graph_add_input(g, "go", NULL);
	v = graph_add_input(g, "v", NULL);
	in_k = graph_add_input(g, "in_k", NULL);
	in_limit = graph_add_input(g, "in_limit", NULL);
	g->ncapture = 2;
	next = NODE(g, &op_plus, "next", v, in_k);
	graph_add_output(g, NODE(g, &op_less, "less", next, in_limit));
	graph_add_output(g, next);
	graph_add_output(g, v);
	g->value[v].type = f->g->value[step].type = vector_type(2);
	y = control_node(f, f->g, &op_loop, (const value_id[]){ with_trips ? m : 0, with_cond ? cond : 0, x, step, limit }, 5, 2, 2,
	                 (const struct attr[]){ { .name = "body", .kind = ATTR_GRAPH, .g = g } }, 1);
	graph_add_output(f->g, y);
	graph_add_output(f->g, y + 1);
}

static void loop_case(struct fixture *f, struct plan *p, int64_t trips, float limit, int64_t made)
{
	const struct tensor *in[] = { scalar(f, DT_INT64, trips), VECTOR(0, 0), VECTOR(limit / 2) };
	struct tensor *out[2];

	OK(plan_run(p, in, out, &f->e));
	IS_VECTOR(out[0], (float)made, (float)made * 10);
	assert_int_equal(out[1]->rank, 2);
	assert_int_equal(out[1]->d[0], made);
	assert_int_equal(out[1]->d[1], 2);
	for (int64_t i = 0; i < made; i++) {
		assert_true(tensor_get(out[1], 2 * i) == (double)i);
		assert_true(tensor_get(out[1], 2 * i + 1) == (double)i * 10);
	}
	tensor_release(out[0]);
	tensor_release(out[1]);
}

static void loop_iterates(void **state)
{
	struct fixture *f = *state;
	struct plan *p;

	build_loop(f, true, true);
	p = planned(f, KERNELS_FAST);
	loop_case(f, p, 3, 1000, 3);
	loop_case(f, p, 100, 1000, 100);
	loop_case(f, p, INT64_MAX, 40, 40); /* room for the scanned output grows */
	loop_case(f, p, 0, 1000, 0);
	loop_case(f, p, -1, 1000, 0);
	plan_free(p);
}

static void loop_without_condition_or_count(void **state)
{
	struct fixture *f = *state;
	struct plan *p;

	build_loop(f, false, false);
	p = planned(f, KERNELS_REFERENCE);
	loop_case(f, p, 0, 5, 5);
	loop_case(f, p, 0, 3, 3);
	plan_free(p);
}

/*
 * Scan over the columns of a, backward, and the rows of b: s = s + a[:, i] + b[i], collecting s along axis 1.
 */
static void scan_cuts_and_joins(void **state)
{
	struct fixture *f = *state;
	value_id s0 = graph_add_input(f->g, "s0", NULL), a = graph_add_input(f->g, "a", NULL), b = graph_add_input(f->g, "b", NULL);
	struct graph *g = subgraph(f);
	value_id s = graph_add_input(g, "s", NULL), ai = graph_add_input(g, "ai", NULL), bi = graph_add_input(g, "bi", NULL), t, y;
	const struct tensor *in[3];
	struct tensor *out[3];
	struct plan *p;

	t = NODE(g, &op_plus, "t", NODE(g, &op_plus, "t0", s, ai), bi);
	graph_add_output(g, t);
	graph_add_output(g, t);
	graph_add_output(g, bi);
	y = control_node(f, f->g, &op_scan, (const value_id[]){ s0, a, b }, 3, 0, 3,
	                 (const struct attr[]){ { .name = "body", .kind = ATTR_GRAPH, .g = g },
	                                        { .name = "num_scan_inputs", .kind = ATTR_INT, .i = 2 },
	                                        { .name = "scan_input_axes", .kind = ATTR_INTS, .n = 2, .ints = LENGTHS(-1, 0) },
	                                        { .name = "scan_input_directions", .kind = ATTR_INTS, .n = 2, .ints = LENGTHS(1, 0) },
	                                        { .name = "scan_output_axes", .kind = ATTR_INTS, .n = 2, .ints = LENGTHS(1, 0) },
	                                        { .name = "scan_output_directions", .kind = ATTR_INTS, .n = 2, .ints = LENGTHS(0, 1) } },
	                 6);
	for (value_id i = 0; i < 3; i++)
		graph_add_output(f->g, y + i);
	in[0] = VECTOR(0, 0);
	in[1] = floats(f, 2, LENGTHS(2, 3), FLOATS_OF(1, 2, 3, 4, 5, 6));
	in[2] = floats(f, 1, LENGTHS(3), FLOATS_OF(100, 200, 300));
	p = planned(f, KERNELS_FAST);
	for (int i = 0; i < 2; i++) {
		OK(plan_run(p, in, out, &f->e));
		IS_VECTOR(out[0], 606, 615);
		is_floats(out[1], 2, LENGTHS(2, 3), FLOATS_OF(103, 305, 606, 106, 311, 615));
		IS_VECTOR(out[2], 300, 200, 100);
		for (int k = 0; k < 3; k++)
			tensor_release(out[k]);
	}
	in[2] = floats(f, 1, LENGTHS(2), FLOATS_OF(100, 200));
	says(f, plan_run(p, in, out, &f->e), LINNET_ESHAPE,
	     "node \"Scan\" (Scan): scanned input 1 has length 2; the ones before it have 3");
	plan_free(p);
}

/* Elements of four bits: slices begin and end inside bytes. */
static void scan_cuts_bytes(void **state)
{
	struct fixture *f = *state;
	value_id a = graph_add_input(f->g, "a", NULL), y;
	struct graph *g = subgraph(f);
	const int64_t v[] = { 1, -2, 3, -4, 5, -6, 7, -8, 0 };
	const struct tensor *in;
	struct tensor *t, *out;
	struct plan *p;

	graph_add_output(g, graph_add_input(g, "ai", NULL));
	y = control_node(f, f->g, &op_scan, &a, 1, 0, 1,
	                 (const struct attr[]){ { .name = "body", .kind = ATTR_GRAPH, .g = g },
	                                        { .name = "num_scan_inputs", .kind = ATTR_INT, .i = 1 },
	                                        { .name = "scan_output_axes", .kind = ATTR_INTS, .n = 1, .ints = LENGTHS(1) } }, 3);
	graph_add_output(f->g, y);
	OK(tensor_new(f->a, DT_INT4, 2, LENGTHS(3, 3), &t, &f->e));
	for (int i = 0; i < 9; i++)
		tensor_put_int(t, i, v[i]);
	in = t;
	p = planned(f, KERNELS_FAST);
	OK(plan_run(p, &in, &out, &f->e));
	for (int i = 0; i < 9; i++)
		assert_int_equal(tensor_get_int(out, i % 3 * 3 + i / 3), v[i]); /* transposed */
	tensor_release(out);
	plan_free(p);
}

/* A loop in a branch; random numbers differ from one iteration to the next and are the same in the next run. */
static void nested_subgraphs_draw_anew(void **state)
{
	struct fixture *f = *state;
	value_id m = graph_add_input(f->g, "m", NULL), c = graph_add_input(f->g, "c", NULL), y;
	struct graph *yes = subgraph(f), *no = subgraph(f), *body = graph_new(f->a, f->dims, NULL);
	value_id in_m = graph_add_input(yes, "in_m", NULL), go;
	struct tensor *first, *out;
	struct plan *p;

	body->outer = yes;
	yes->ncapture = 1;
	graph_add_input(body, "i", NULL);
	go = graph_add_input(body, "go", NULL);
	graph_add_output(body, go);
	graph_add_output(body, node_n(f, body, &op_draw, "draw", NULL, 0, 1));
	graph_add_output(yes, control_node(f, yes, &op_loop, (const value_id[]){ in_m, 0 }, 2, 0, 1,
	                                   (const struct attr[]){ { .name = "body", .kind = ATTR_GRAPH, .g = body } }, 1));
	graph_add_output(no, graph_add_const(no, scalar(f, DT_INT64, 5), "five"));
	y = control_node(f, f->g, &op_if, (const value_id[]){ c, m }, 2, 1, 1,
	                 (const struct attr[]){ { .name = "then_branch", .kind = ATTR_GRAPH, .g = yes },
	                                        { .name = "else_branch", .kind = ATTR_GRAPH, .g = no } }, 2);
	graph_add_output(f->g, y);
	p = planned(f, KERNELS_FAST);
	OK(plan_run(p, (const struct tensor *[]){ scalar(f, DT_INT64, 3), scalar(f, DT_BOOL, 1) }, &first, &f->e));
	assert_int_equal(first->n, 3);
	assert_int_not_equal(tensor_get_int(first, 0), tensor_get_int(first, 1));
	assert_int_not_equal(tensor_get_int(first, 1), tensor_get_int(first, 2));
	OK(plan_run(p, (const struct tensor *[]){ scalar(f, DT_INT64, 3), scalar(f, DT_BOOL, 0) }, &out, &f->e));
	assert_int_equal(tensor_get_int(out, 0), 5);
	tensor_release(out);
	OK(plan_run(p, (const struct tensor *[]){ scalar(f, DT_INT64, 3), scalar(f, DT_BOOL, 1) }, &out, &f->e));
	assert_true(tensor_same(first, out));
	tensor_release(first);
	tensor_release(out);
	plan_free(p);
}

/* ---- Sessions ---- */

/* present_sum = past_sum + x; y = present_sum + x, in that order of outputs with another state last. */
static void build_step(struct fixture *f)
{
	dim batch = dim_symbol(f->dims, "batch");
	struct type t = { .dt = DT_FLOAT, .shape = { 2, { batch, 2 } } }, grown = { .dt = DT_FLOAT, .shape = { 1, { DIM_NONE } } };
	value_id past = graph_add_input(f->g, "past_sum", &t), x = graph_add_input(f->g, "x", &t);
	value_id kv = graph_add_input(f->g, "past_key_values.0", &grown), sum = graph_add_value(f->g, VALUE_NODE, "present_sum", NULL);
	value_id same = graph_add_value(f->g, VALUE_NODE, "present.0", NULL), y;

	OK(graph_add_node(f->g, &op_plus, "add", (const value_id[]){ past, x }, 2, &sum, 1, NULL, 0, NULL, &f->e));
	OK(graph_add_node(f->g, &op_plus, "kv", (const value_id[]){ kv, kv }, 2, &same, 1, NULL, 0, NULL, &f->e));
	y = NODE(f->g, &op_plus, "y", sum, x);
	graph_add_output(f->g, sum);
	graph_add_output(f->g, y);
	graph_add_output(f->g, same);
}

static void sessions_feed_states_back(void **state)
{
	struct fixture *f = *state;
	const struct tensor *in;
	struct session *s;
	struct tensor *out;
	const void *data;

	build_step(f);
	in = floats(f, 2, LENGTHS(1, 2), FLOATS_OF(1, 10));
	OK(session_new(f->g, &(struct run_opt){ .threads = 1 }, NULL, 0, &s, &f->e));
	assert_int_equal(session_nin(s), 1);
	assert_int_equal(session_nout(s), 1);
	assert_int_equal(session_nstate(s), 2);
	assert_string_equal(session_pair(s, 0).input, "past_sum");
	assert_string_equal(session_pair(s, 1).output, "present.0");
	assert_null(session_state(s, 0));
	for (int i = 1; i < 4; i++) {
		data = session_state(s, 0) ? session_state(s, 0)->data : NULL;
		OK(session_run(s, &in, &out, &f->e));
		is_floats(out, 2, LENGTHS(1, 2), FLOATS_OF((float)i + 1, (float)i * 10 + 10));
		is_floats(session_state(s, 0), 2, LENGTHS(1, 2), FLOATS_OF((float)i, (float)i * 10));
		if (data)
			assert_ptr_equal(session_state(s, 0)->data, data); /* updated in place */
		tensor_release(out);
	}
	assert_int_equal(session_state_bytes(s), 8); /* the other one has no elements */
	OK(session_set_state(s, 0, floats(f, 2, LENGTHS(1, 2), FLOATS_OF(100, 200)), &f->e));
	OK(session_run(s, &in, &out, &f->e));
	is_floats(out, 2, LENGTHS(1, 2), FLOATS_OF(102, 220));
	tensor_release(out);
	session_reset(s);
	OK(session_run(s, &in, &out, &f->e));
	is_floats(out, 2, LENGTHS(1, 2), FLOATS_OF(2, 20));
	tensor_release(out);
	in = floats(f, 2, LENGTHS(2, 2), FLOATS_OF(1, 2, 3, 4)); /* another batch than the state's */
	says(f, session_run(s, &in, &out, &f->e), LINNET_ESHAPE,
	     "input \"x\" has length 2 along axis 0 (batch); input \"past_sum\" has 1 along axis 0");
	assert_null(out);
	assert_null(session_state(s, 0));
	OK(session_run(s, &in, &out, &f->e)); /* starts anew */
	is_floats(out, 2, LENGTHS(2, 2), FLOATS_OF(2, 4, 6, 8));
	session_free(s);
	tensor_release(out);
}

static void sessions_take_given_pairs(void **state)
{
	struct fixture *f = *state;
	struct session *s;

	build_step(f);
	OK(session_new(f->g, NULL, &(struct state_pair){ "x", "y" }, 1, &s, &f->e));
	assert_int_equal(session_nin(s), 2);
	assert_int_equal(session_nstate(s), 1);
	session_free(s);
	says(f, session_new(f->g, NULL, &(struct state_pair){ "u", "y" }, 1, &s, &f->e), LINNET_EUSAGE,
	     "the model has no input \"u\" to keep a state");
	says(f, session_new(f->g, NULL, &(struct state_pair){ "x", "u" }, 1, &s, &f->e), LINNET_EUSAGE,
	     "the model has no output \"u\" to take a state from");
	says(f, session_new(f->g, NULL, (const struct state_pair[]){ { "x", "y" }, { "past_sum", "y" } }, 2, &s, &f->e), LINNET_EUSAGE,
	     "state \"past_sum\" from \"y\": one of them belongs to another state");
	assert_null(s);
}

/* ---- Running out of memory ---- */

static void memory_may_end_anywhere(void **state)
{
	struct fixture *f = *state;
	const struct tensor *in[3];
	enum linnet_code code = LINNET_EMEM;
	uint64_t n;

	build_loop(f, true, true);
	in[0] = scalar(f, DT_INT64, 20);
	in[1] = VECTOR(0, 0);
	in[2] = VECTOR(1000);
	for (n = 1; code; n++) {
		struct tensor *out[2];
		struct plan *p;

		memset(&f->e, 0, sizeof f->e);
		mem_fail_at(n);
		code = plan_new(f->g, &(struct run_opt){ .threads = 1 }, &p, &f->e);
		if (!code) {
			code = plan_run(p, in, out, &f->e);
			if (!code) {
				tensor_release(out[0]);
				tensor_release(out[1]);
			}
			plan_free(p);
		}
		mem_fail_at(0);
		assert_true(code == LINNET_OK || code == LINNET_EMEM);
	}
	assert_true(n > 50);
}

static void memory_may_end_in_a_session(void **state)
{
	struct fixture *f = *state;
	enum linnet_code code = LINNET_EMEM;
	const struct tensor *in;
	uint64_t n;

	build_step(f);
	in = floats(f, 2, LENGTHS(1, 2), FLOATS_OF(1, 10));
	for (n = 1; code; n++) {
		struct session *s;
		struct tensor *out = NULL;

		mem_fail_at(n);
		code = session_new(f->g, &(struct run_opt){ .threads = 1 }, NULL, 0, &s, NULL);
		if (!code)
			code = session_set_state(s, 0, in, NULL);
		for (int i = 0; !code && i < 2; i++) {
			code = session_run(s, &in, &out, NULL);
			tensor_release(out);
		}
		session_free(s);
		mem_fail_at(0);
		assert_true(code == LINNET_OK || code == LINNET_EMEM);
	}
	assert_true(n > 20);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(pool_reuses_and_counts),
		TEST(pool_wastes_an_eighth_at_most),
		TEST(tensors_stand_alone),
		TEST(runs_what_is_needed),
		TEST(runs_in_place),
		TEST(keeps_what_is_read_again),
		TEST(views_share),
		TEST(shapes_from_values),
		TEST(shape_only_uses_keep_nothing),
		TEST(constants_are_not_computed),
		TEST(constants_are_combined_once),
		TEST(constants_do_not_swell),
		TEST(inputs_are_checked),
		TEST(errors_name_the_node),
		TEST(memory_is_bounded),
		TEST(values_can_be_watched),
		TEST(strings_outlive_the_run),
		TEST(plans_explain_themselves),
		TEST(if_takes_a_branch),
		TEST(loop_iterates),
		TEST(loop_without_condition_or_count),
		TEST(scan_cuts_and_joins),
		TEST(scan_cuts_bytes),
		TEST(nested_subgraphs_draw_anew),
		TEST(sessions_feed_states_back),
		TEST(sessions_take_given_pairs),
		TEST(memory_may_end_anywhere),
		TEST(memory_may_end_in_a_session),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
