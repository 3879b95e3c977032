/*
 * Fast kernels against the reference, on drawn calls: at every level this machine has, on one and on three threads, with
 * constants packed and not, in place where the kernel allows it; and products in mixed precision.
 *
 * `test_fast [-n CASES] NAME ...` runs the rows of these operators alone.
 */
#include "tests/unit/drawn.h"

#include "ops/fast/mixed.h"

enum { CASES = 200 };

/* One way to call a fast kernel. */
struct way {
	const struct fast *fast;
	int level, threads;
	bool packed, inplace;
};

static int taken; /* calls of the current row that a fast kernel did */

/* Kernels that rows name, and whether one of their calls was one for it. */
static struct taken_by {
	const struct fast *fast;
	bool used;
} use[500];

static struct taken_by *use_of(const struct fast *f)
{
	int i = 0;

	while (use[i].fast && use[i].fast != f)
		i++;
	assert_true(i + 1 < (int)(sizeof use / sizeof *use));
	use[i].fast = f;
	return &use[i];
}

/* Outputs as the reference's, of no defined content; output 0 in an input's memory when told so. */
static void make_outputs(const struct call *c, struct tensor *const *want, struct tensor **got, struct arena *a)
{
	for (int i = 0; i < c->nout; i++) {
		got[i] = NULL;
		if (!c->wanted[i])
			continue;
		assert_false(tensor_new(a, want[i]->dt, want[i]->rank, want[i]->d, &got[i], NULL));
		memset(got[i]->data, 0xa5, got[i]->bytes);
	}
}

/* Whether it was a call for this kernel; then got[] is what it gave, or code is the error. */
static bool run_fast(const struct call *c, const struct way *w, const struct tensor *const *want, struct arena *a, struct tensor **got,
                     enum linnet_code *code, struct linnet_error *e)
{
	const struct tensor *in[CALL_MAX], *constant[CALL_MAX] = { NULL };
	struct kernel_call k = { .op = c->op, .attr = c->attr, .nin = c->nin, .nout = c->nout, .in = in, .out = got, .scratch = a,
		                 .threads = w->threads, .seed = 1, .e = e };
	int at = -1;

	memcpy(in, c->in, sizeof in);
	for (int i = 1; i < c->nin && w->packed; i++)
		constant[i] = in[i];
	*code = w->fast->prepare ? w->fast->prepare(c->op, c->attr, c->nin, constant, a, &k.prepared, e) : LINNET_OK;
	if (*code)
		return true;
	make_outputs(c, (struct tensor *const *)want, got, a);
	if (w->fast->ok && !w->fast->ok(&k))
		return false;
	for (int i = 0; i < c->nin && w->inplace && at < 0; i++)
		if (in[i] && !constant[i] && got[0] && in[i]->dt == got[0]->dt && in[i]->rank == got[0]->rank &&
		    !memcmp(in[i]->d, got[0]->d, sizeof in[i]->d))
			at = i;
	if (at >= 0) {
		memcpy(got[0]->data, in[at]->data, got[0]->bytes);
		in[at] = got[0];
	}
	*code = w->fast->run(&k);
	return true;
}

static void check_way(const struct call *c, struct way w, struct tensor *const *want, struct tensor **first, struct arena *a)
{
	static const char *const level[NLEVEL] = { "base", "avx2", "avx512" };
	struct linnet_error e = { 0 };
	struct tensor *got[CALL_MAX] = { NULL };
	enum linnet_code code;
	const char *how = arena_fmt(a, "%s at %s, %d threads%s%s", w.fast->name, level[w.level], w.threads, w.packed ? ", packed" : "",
	                            w.inplace ? ", in place" : "");

	if (!run_fast(c, &w, (const struct tensor *const *)want, a, got, &code, &e))
		return;
	taken++;
	use_of(w.fast)->used = true;
	if (code) {
		complain_of(c, a, "%s: LINNET_%s %s", how, linnet_code_name(code), e.message);
		return;
	}
	for (int i = 0; i < c->nout; i++) {
		if (!got[i])
			continue;
		if (w.threads == 1 && !w.inplace)
			first[i] = got[i];
		else if (first[i] && !tensor_same(first[i], got[i]))
			complain_of(c, a, "%s: output %d has other bits than on one thread", how, i);
		compare_outputs(c, a, how, i, got[i], want[i], AS_ROW);
	}
}

static void check_call(const struct call *c, struct tensor *const *want, struct arena *a)
{
	for (int level = 0; level <= (int)fast_level(); level++)
		for (const struct fast_set *const *f = c->op->fast; *f; f++)
			for (int packed = 0; packed <= ((*f)->at[level]->prepare != NULL); packed++) {
				struct way w = { .fast = (*f)->at[level], .level = level, .threads = 1, .packed = packed };
				struct tensor *first[CALL_MAX] = { NULL };

				check_way(c, w, want, first, a);
				w.threads = 3;
				check_way(c, w, want, first, a);
				w.inplace = w.fast->inplace;
				if (w.inplace)
					check_way(c, w, want, first, a);
			}
}

static void check_row(const struct op *op)
{
	struct draw_count n = { 0 };

	if (!op->fast || op->agree == AGREE_RANDOM)
		return;
	taken = 0;
	while (n.good < cases(CASES) && n.tried < 60 * cases(CASES)) {
		/* most kernels are for float */
		struct call_opt opt = { .types = n.tried % 2 ? SET(FLOAT) | SET(INT8) | SET(UINT8) | SET(INT32) : 0, .extreme = n.tried % 8 == 7 };
		struct tensor *want[CALL_MAX] = { NULL };
		struct arena *a = arena_new();
		struct call c;

		if (draw_good(op, &opt, a, &c, want, &n))
			check_call(&c, want, a);
		arena_free(a);
	}
	check_count(op, &n, cases(CASES));
	for (const struct fast_set *const *f = op->fast; *f; f++)
		use_of((*f)->at[fast_level()]);
	verbose("%s: %d calls drawn, %d executed, %d by fast kernels", row_title(op), n.tried, n.good, taken);
}

static void fast_kernels_agree(void **state)
{
	(void)state;
	each_row(check_row);
	for (int i = 0; use[i].fast; i++)
		if (!use[i].used)
			fail_msg("fast kernel %s: no drawn call is one for it", use[i].fast->name);
	assert_int_equal(complaints, 0);
}

static const double cuts[] = { -INFINITY, 0, -0.1, -INFINITY }, grows[] = { 100, -100, 0, -104 }, jumps[] = { 89, -INFINITY, -1, -300 };

/* ---- Long sequences: more tokens than drawn calls have, in several chunks ---- */

static const struct long_call {
	const char *rule;
	int64_t batch, steps, heads, key_heads, dk, dv, ndecay, nbeta;
	bool past;
	double decay; /* the strongest */
	const double *of; /* instead: drawn of these four */
} long_calls[] = {
	{ "linear", 2, 75, 4, 2, 20, 33, 0, 0, true, 0 },
	{ "gated", 1, 130, 4, 2, 16, 48, 1, 0, true, -2 },
	{ "gated", 1, 70, 2, 1, 40, 24, 40, 0, false, -5 },
	{ "gated", 1, 70, 1, 1, 8, 8, 1, 0, false, -150 },
	{ "delta", 1, 200, 2, 2, 64, 40, 0, 1, true, 0 },
	{ "gated_delta", 2, 100, 4, 2, 32, 32, 1, 2, true, -1 },
	{ "gated_delta", 1, 150, 2, 1, 72, 70, 1, 1, false, -0.1 },
	{ "gated_delta", 1, 100, 2, 2, 33, 17, 33, 2, true, -3 },
	{ "gated_delta", 1, 70, 1, 1, 16, 16, 16, 1, true, -80 },
	{ "gated", 2, 70, 2, 1, 16, 16, 1, 0, true, 0, cuts },
	{ "gated", 1, 50, 2, 2, 12, 20, 12, 0, true, 0, cuts },
	{ "gated_delta", 1, 50, 2, 2, 16, 16, 1, 1, true, 0, cuts },
	{ "gated_delta", 1, 50, 2, 1, 9, 16, 9, 1, false, 0, cuts },
	{ "gated", 2, 1, 2, 2, 16, 16, 1, 0, false, 0, (double[]){ 100, 100, 100, 100 } },
	{ "gated", 2, 1, 2, 2, 16, 16, 16, 0, false, 0, (double[]){ 100, 100, 100, 100 } },
	{ "gated", 1, 20, 2, 2, 16, 16, 1, 0, false, 0, jumps },
	{ "gated", 1, 20, 2, 1, 8, 16, 8, 0, true, 0, jumps },
	{ "gated_delta", 1, 3, 2, 1, 8, 16, 1, 1, false, 0, grows },
};

static const struct tensor *long_input(struct arena *a, int rank, const int64_t *d, double lo, double hi)
{
	struct tensor *t;

	assert_false(tensor_new(a, DT_FLOAT, rank, d, &t, NULL));
	for (int64_t i = 0; i < t->n; i++)
		tensor_put(t, i, lo + (hi - lo) * rng_unit(&draw_rng));
	return t;
}

static void check_long(const struct op *op, const struct long_call *x)
{
	struct attr given[] = { { .name = "q_num_heads", .kind = ATTR_INT, .i = x->heads }, { .name = "kv_num_heads", .kind = ATTR_INT, .i = x->key_heads },
		                { .name = "update_rule", .kind = ATTR_STRING, .s = { x->rule, strlen(x->rule) } } };
	const int64_t state[] = { x->batch, x->key_heads, x->dk, x->dv }, widths[] = { x->heads * x->dk, x->key_heads * x->dk, x->key_heads * x->dv, 0,
		                  x->key_heads * x->ndecay, x->nbeta, x->heads * x->dv };
	struct arena *a = arena_new();
	struct call c = { .op = op, .given = given, .ngiven = 3, .nin = op_nin(op, NULL), .nout = op_nout(op, NULL) };
	struct tensor *want[CALL_MAX] = { NULL };
	struct linnet_error e = { 0 };
	double unit = 1 / sqrt((double)x->dk); /* keys of about unit length, for which the rules that correct are stable */

	assert_false(op_attrs(op, given, 3, a, &c.attr, &e));
	for (int i = 0; i < c.nin; i++)
		if (i == 3 || i == 7)
			c.in[i] = x->past ? long_input(a, 4, state, -1, 1) : NULL;
		else if (widths[i])
			c.in[i] = long_input(a, 3, (int64_t[]){ x->batch, x->steps, widths[i] }, i == 4 ? x->decay : i == 5 ? 0 : i == 1 ? -unit : -1,
			                     i == 4 ? 0 : i == 1 ? unit : 1);
	for (int64_t i = 0; x->of && i < c.in[4]->n; i++)
		tensor_put((struct tensor *)(uintptr_t)c.in[4], i, x->of[(int)(rng_unit(&draw_rng) * 4)]);
	for (int i = 0; i < c.nout; i++)
		c.wanted[i] = op_nin(op, NULL) < 8 || c.in[i];
	if (op_eval(op, c.attr, c.nin, c.in, c.nout, c.wanted, a, want, &e))
		complain("%s: %s", row_title(op), e.message);
	else
		check_call(&c, want, a);
	arena_free(a);
}

static void long_sequences_agree(void **state)
{
	const struct op *op[] = { op_newest(NULL, "LinearAttention"), op_newest("linnet", "LinearAttentionGrad") };

	(void)state;
	complaints = 0;
	draw_rng.state = 1;
	for (size_t k = 0; k < sizeof op / sizeof *op; k++)
		for (size_t i = 0; i < sizeof long_calls / sizeof *long_calls && row_asked(op[k]); i++) {
			row_complaints = 0;
			check_long(op[k], &long_calls[i]);
			if (row_complaints)
				print_error("%s, %.300s\n(%d such)\n\n", long_calls[i].rule, shortest, row_complaints);
		}
	assert_int_equal(complaints, 0);
}

/* ---- Long attention: more keys than a piece keeps, several pieces a head, windows, masks that pieces share ---- */

static const struct long_attention {
	int64_t batch, heads, key_heads, queries, keys, dk, dv;
	bool causal;
	int64_t left, right, mask; /* the mask's lengths: 1 where the digit is 1, of [B, H, L, S]; 0: none */
	double cap;
} long_attentions[] = {
	{ 1, 1, 1, 70, 1200, 8, 20, false, -1, -1, 0, 0 },
	{ 1, 2, 1, 1100, 1100, 4, 4, true, -1, -1, 0, 0 },
	{ 1, 1, 1, 1500, 1500, 8, 8, true, 20, -1, 0, 0 },
	{ 2, 2, 2, 600, 700, 17, 5, false, 40, 3, 0, 0 },
	{ 2, 4, 2, 300, 300, 8, 8, true, -1, -1, 1100, 0 },
	{ 2, 2, 1, 530, 530, 4, 4, true, 100, -1, 1011, 3 },
	{ 2, 2, 2, 520, 200, 4, 4, false, -1, -1, 110, 0 },
};

static void check_long_attention(const struct op *op, const struct long_attention *x)
{
	struct attr given[] = { { .name = "is_causal", .kind = ATTR_INT, .i = x->causal }, { .name = "left_window_size", .kind = ATTR_INT, .i = x->left },
		                { .name = "right_window_size", .kind = ATTR_INT, .i = x->right }, { .name = "softcap", .kind = ATTR_FLOAT, .f = x->cap } };
	const int64_t q[] = { x->batch, x->heads, x->queries, x->dk }, k[] = { x->batch, x->key_heads, x->keys, x->dk },
		      v[] = { x->batch, x->key_heads, x->keys, x->dv }, y[] = { x->batch, x->heads, x->queries, x->dv };
	const int64_t mask[] = { x->mask / 1000 % 10 ? 1 : x->batch, x->mask / 100 % 10 ? 1 : x->heads, x->mask / 10 % 10 ? 1 : x->queries, x->keys };
	struct arena *a = arena_new();
	struct call c = { .op = op, .given = given, .ngiven = sizeof given / sizeof *given, .nin = op->domain ? 8 : 4, .nout = op->domain ? 4 : 1 };
	struct tensor *want[CALL_MAX] = { NULL };
	struct linnet_error e = { 0 };

	assert_false(op_attrs(op, given, c.ngiven, a, &c.attr, &e));
	c.in[0] = long_input(a, 4, q, -2, 2);
	c.in[1] = long_input(a, 4, k, -2, 2);
	c.in[2] = long_input(a, 4, v, -1, 1);
	c.in[3] = x->mask ? long_input(a, 4, mask, -1, 1) : NULL;
	c.in[7] = op->domain ? long_input(a, 4, y, -1, 1) : NULL;
	for (int i = 0; i < c.nout; i++)
		c.wanted[i] = !op->domain || c.in[i];
	if (op_eval(op, c.attr, c.nin, c.in, c.nout, c.wanted, a, want, &e))
		complain("%s: %s", row_title(op), e.message);
	else
		check_call(&c, want, a);
	arena_free(a);
}

static void long_attention_agrees(void **state)
{
	const struct op *op[] = { op_newest(NULL, "Attention"), op_newest("linnet", "AttentionGrad") };

	(void)state;
	complaints = 0;
	draw_rng.state = 1;
	for (size_t k = 0; k < sizeof op / sizeof *op; k++)
		for (size_t i = 0; i < sizeof long_attentions / sizeof *long_attentions && row_asked(op[k]); i++) {
			row_complaints = taken = 0;
			check_long_attention(op[k], &long_attentions[i]);
			assert_true(taken);
			if (row_complaints)
				print_error("call %d, %.300s\n(%d such)\n\n", (int)i, shortest, row_complaints);
		}
	assert_int_equal(complaints, 0);
}

static double rounded(double x) { return bfloat_to_double(bfloat_from_double(x)); }

/* The product of what is left of the factors in bfloat16, whose sums differ by their order alone. */
static void mixed_product(const int64_t n[3], bool ta, bool tb, int threads, struct arena *a)
{
	struct linnet_error e = { 0 };
	const struct op *gemm = op_newest(NULL, "Gemm");
	struct tensor *x, *y, *z;
	struct attr attr[8] = { { .name = NULL } };
	struct kernel_call k = { .op = gemm, .attr = attr, .nin = 2, .nout = 1, .in = (const struct tensor *[2]){ NULL }, .out = &z, .scratch = a,
	                         .threads = threads, .mixed = true, .e = &e };

	for (int i = 0; gemm->attr[i].name; i++)
		attr[i] = (struct attr){ .name = gemm->attr[i].name, .kind = gemm->attr[i].kind, .i = gemm->attr[i].i, .f = gemm->attr[i].f };
	attr[op_attr_index(gemm, "transA")].i = ta;
	attr[op_attr_index(gemm, "transB")].i = tb;
	assert_false(tensor_new(a, DT_FLOAT, 2, (int64_t[]){ n[ta ? 2 : 0], n[ta ? 0 : 2] }, &x, &e));
	assert_false(tensor_new(a, DT_FLOAT, 2, (int64_t[]){ n[tb ? 1 : 2], n[tb ? 2 : 1] }, &y, &e));
	assert_false(tensor_new(a, DT_FLOAT, 2, n, &z, &e));
	for (int64_t i = 0; i < x->n; i++)
		tensor_put(x, i, 2 * rng_unit(&draw_rng) - 1);
	for (int64_t i = 0; i < y->n; i++)
		tensor_put(y, i, 2 * rng_unit(&draw_rng) - 1);
	k.in = (const struct tensor *[]){ x, y };
	assert_true(gemm->fast[0]->at[fast_level()]->ok(&k));
	assert_false(gemm->fast[0]->at[fast_level()]->run(&k));
	for (int64_t i = 0; i < n[0]; i++)
		for (int64_t j = 0; j < n[1]; j++) {
			double sum = 0, size = 0;

			for (int64_t l = 0; l < n[2]; l++) {
				double p = rounded(tensor_get(x, ta ? l * n[0] + i : i * n[2] + l)) *
				           rounded(tensor_get(y, tb ? j * n[2] + l : l * n[1] + j));

				sum += p;
				size += fabs(p);
			}
			if (!(fabs(tensor_get(z, i * n[1] + j) - sum) <= 2e-6 * size))
				fail_msg("[%lld, %lld] of %lld x %lld x %lld: %g, not %g", (long long)i, (long long)j, (long long)n[0], (long long)n[1],
				         (long long)n[2], tensor_get(z, i * n[1] + j), sum);
		}
}

static void mixed_products_agree(void **state)
{
	static const int64_t sizes[][3] = { { 64, 64, 64 }, { 65, 97, 71 }, { 200, 70, 300 }, { 64, 600, 513 } };

	(void)state;
	if (!mixed_usable())
		skip(); /* this processor does not multiply bfloat16 */
	draw_rng.state = 1;
	for (size_t i = 0; i < 4 * sizeof sizes / sizeof *sizes; i++)
		for (int threads = 1; threads <= 3; threads += 2) {
			struct arena *a = arena_new();

			mixed_product(sizes[i / 4], i & 1, i & 2, threads, a);
			arena_free(a);
		}
}

/* What is behind the last whole chunk may be as short or long as it likes, under every rule. */
static void tails_of_every_length_agree(void **state)
{
	static const struct long_call rules[] = { { "linear", 1, 0, 2, 1, 8, 9, 0, 0, true, 0, NULL }, { "gated", 1, 0, 2, 2, 6, 8, 1, 0, false, -1, NULL },
		                                  { "gated", 1, 0, 2, 1, 8, 8, 8, 0, true, -1, NULL }, { "delta", 1, 0, 2, 1, 8, 8, 0, 1, true, 0, NULL },
		                                  { "gated_delta", 1, 0, 1, 1, 8, 8, 1, 1, false, -1, NULL },
		                                  { "gated_delta", 1, 0, 2, 2, 8, 5, 8, 1, true, -1, NULL } };
	const struct op *op[] = { op_newest(NULL, "LinearAttention"), op_newest("linnet", "LinearAttentionGrad") };

	(void)state;
	complaints = 0;
	for (size_t k = 0; k < 2; k++)
		for (size_t i = 0; i < sizeof rules / sizeof *rules && row_asked(op[k]); i++)
			for (int64_t steps = 0; steps < 100; steps += steps < 36 ? 1 : 13) {
				struct long_call x = rules[i];

				x.steps = steps;
				row_complaints = 0;
				check_long(op[k], &x);
				if (row_complaints)
					print_error("%s, %d tokens, %.300s\n(%d such)\n\n", x.rule, (int)steps, shortest, row_complaints);
			}
	assert_int_equal(complaints, 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(fast_kernels_agree), cmocka_unit_test(long_sequences_agree),
		                            cmocka_unit_test(long_attention_agrees), cmocka_unit_test(tails_of_every_length_agree),
		                            cmocka_unit_test(mixed_products_agree) };

	read_arguments(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
