/*
 * Masks are what their values are, at any length: tests/masks.txt, at a length the inputs leave open and at fixed ones, read as what is written there; and
 * the graph computes the same before and after, at lengths on both sides of where the mask shows. Operators said to work place by place do.
 */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/pass.h"
#include "ops/base/rng.h"
#include "ops/kernel.h"
#include "validate/certify.h"
#include "validate/gen_op.h"

#define HEADER "<ir_version: 10, opset_import: [\"\": 23]>\n"

struct spelling {
	char title[200], what[20], text[4000];
	int64_t w[12];
	int nw;
};

static bool next_spelling(FILE *file, struct spelling *s)
{
	char line[1000];
	long at = ftell(file);

	memset(s, 0, sizeof *s);
	while (fgets(line, sizeof line, file)) {
		if (!strncmp(line, "## ", 3) && *s->title) {
			fseek(file, at, SEEK_SET);
			return true;
		}
		at = ftell(file);
		if (!strncmp(line, "## ", 3)) {
			snprintf(s->title, sizeof s->title, "%.*s", (int)strcspn(line + 3, "\n"), line + 3);
		} else if (!strncmp(line, "=> ", 3)) {
			char *p = line + 3 + strcspn(line + 3, " \n");

			snprintf(s->what, sizeof s->what, "%.*s", (int)(p - line - 3), line + 3);
			while (*p == ' ' && s->nw < 12)
				s->w[s->nw++] = strtoll(p, &p, 10);
		} else if (*s->title) {
			strncat(s->text, line, sizeof s->text - strlen(s->text) - 1);
		}
	}
	return *s->title;
}

/* $w, $v, $W, $V in numbers. */
static void filled(const char *text, int64_t w, char *out, size_t size)
{
	size_t n = 0;

	for (; *text && n + 24 < size; text++) {
		int64_t x = text[1] == 'w' ? w : text[1] == 'v' ? w - 1 : text[1] == 'W' ? -w : 1 - w;

		if (*text != '$') {
			out[n++] = *text;
			continue;
		}
		n += (size_t)snprintf(out + n, size - n, "%lld", (long long)x);
		text++;
	}
	out[n] = '\0';
}

/* fixed: the length; 0 leaves it open. */
static struct linnet_model *model_of(const struct spelling *s, int64_t w, int64_t fixed)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	char whole[9000], nodes[5000], line[800], length[24] = "T";
	bool added = strstr(s->text, " f = ") != NULL;

	filled(s->text, w, nodes, sizeof nodes);
	if (fixed)
		snprintf(length, sizeof length, "%lld", (long long)fixed);
	snprintf(whole, sizeof whole,
	         HEADER "g (float[B,2,%s,4] q, float[B,2,%s,4] k, float[B,2,%s,4] v) => (float[B,2,%s,4] y) {\n"
	         "front = Constant <value_ints = [0]> ()  back = Constant <value_ints = [-1]> ()  from = Constant <value_int = 0> ()  by = Constant <value_int = 1> ()\n"
	         "n = Shape <start = 2, end = 3> (q)  t = Squeeze (n)  tt = Concat <axis = 0> (n, n)  r = Range (from, t, by)  i = Unsqueeze (r, back)  j = Unsqueeze (r, front)\n"
	         "d = Sub (i, j)  ones = ConstantOfShape <value = float[1] {1}> (tt)\n%s\n"
	         "kt = Transpose <perm = [0, 1, 3, 2]> (k)  s0 = MatMul (q, kt)  hidden = Constant <value_float = -1e9> ()\n"
	         "s = %s  p = Softmax <axis = -1> (s)  y = MatMul (p, v) }",
	         length, length, length, length, nodes, added ? "Add (s0, f)" : "Where (m, s0, hidden)");
	if (!m || text_parse(m, whole, strlen(whole), &e) || graph_import(m, &e))
		fail_msg("%s: %s\n%s", s->title, linnet_error_line(&e, line, sizeof line), whole);
	return m;
}

static const struct node *attention_in(const struct graph *g)
{
	for (node_id id = 1; id < g->nnode; id++)
		if (!g->node[id].dead && node_is(&g->node[id], "Attention"))
			return &g->node[id];
	return NULL;
}

/* What the attention's mask was read as. */
static const char *read_as(const struct node *n, int64_t *window)
{
	bool mask = n->nin > 3 && n->in[3], causal = node_attr(n, "is_causal")->i;
	int64_t left = node_attr(n, "left_window_size")->i;

	*window = left + 1;
	if (mask)
		return causal ? "mask" : "kept";
	return left >= 0 ? "window" : causal ? "causal" : "none";
}

static int check(const struct spelling *s, int64_t w, int64_t fixed)
{
	struct linnet_error e = { 0 };
	struct linnet_model *before = model_of(s, w, fixed), *after = model_of(s, w, fixed);
	const int64_t lengths[] = { 5, w, w + 1, 2 * w + 3, 131 };
	const struct node *n;
	const char *found, *want = s->what;
	int64_t window = 0;
	char line[800];
	int wrong = 0;

	if (pass_run_all(after->graph, NULL, &e) || graph_verify(after->graph, &e))
		fail_msg("%s: %s", s->title, linnet_error_line(&e, line, sizeof line));
	n = attention_in(after->graph);
	if (!n)
		fail_msg("%s: no attention", s->title);
	found = read_as(n, &window);
	wrong = !(!strcmp(found, want) || (!strcmp(want, "mask") && !strcmp(found, "kept"))) || (!strcmp(want, "window") && window != w);
	if (wrong)
		print_error("%s, %lld, length %lld: read as %s %lld\n", s->title, (long long)w, (long long)fixed, found, (long long)window);
	for (int i = 0; i < (fixed ? 1 : (int)(sizeof lengths / sizeof *lengths)); i++) {
		double most = 0, relative = 0;

		if (!fixed && (lengths[i] < 1 || lengths[i] > 270 || (strstr(s->title, "128") && lengths[i] > 128)))
			continue;
		if ((fixed && fixed > 270) || certify_compare_at(before->graph, after->graph, 1, 1, fixed ? 0 : lengths[i], &most, &relative, &e))
			continue;
		if (most > 1e-6) {
			print_error("%s, %lld, length %lld: differs by %g\n", s->title, (long long)w, (long long)(fixed ? fixed : lengths[i]), most);
			wrong = 1;
		}
	}
	model_free(before);
	model_free(after);
	return wrong;
}

static void masks(void **state)
{
	static struct spelling s;
	FILE *file = fopen("tests/masks.txt", "r");
	int wrong = 0, n = 0;

	(void)state;
	assert_non_null(file);
	while (next_spelling(file, &s)) {
		for (int i = 0; i < (s.nw ? s.nw : 1); i++) {
			int64_t w = s.nw ? s.w[i] : 0, fixed = strstr(s.title, "128") ? 120 : strstr(s.title, "bits") ? (2 << w) + 5 : 2 * w + 13;

			wrong += check(&s, w, 0) + check(&s, w, fixed);
			n++;
		}
	}
	fclose(file);
	assert_int_equal(wrong, 0);
	assert_true(n > 100);
}

/* The element of t that broadcasts to that place of the output, as a scalar. */
static const struct tensor *element_at(struct arena *a, const struct tensor *t, const int64_t *at, int rank)
{
	struct linnet_error e = { 0 };
	int64_t stride[MAX_RANK], from = 0;
	struct tensor *x;

	strides(t->rank, t->d, stride);
	for (int i = 0; i < t->rank; i++)
		from += t->d[i] == 1 ? 0 : stride[i] * at[i + rank - t->rank];
	assert_int_equal(tensor_new(a, t->dt, 0, NULL, &x, &e), LINNET_OK);
	element_copy(x, 0, t, from);
	return x;
}

static int check_each(const struct op *op, struct rng *r, struct arena *a)
{
	struct linnet_error e = { 0 };
	const struct tensor *in[CALL_MAX] = { NULL };
	struct tensor *y = NULL, *z = NULL, *there;
	int64_t at[MAX_RANK] = { 0 };
	struct call c;

	if (gen_call(op, &(struct call_opt){ .elements = 200 }, r, a, &c, &e) || op_eval(op, c.attr, c.nin, c.in, 1, c.wanted, a, &y, &e))
		return 0;
	for (int64_t i = 0; i < y->n; i++, next_position(y->rank, y->d, at)) {
		if (i % 7)
			continue;
		for (int k = 0; k < c.nin; k++)
			in[k] = c.in[k] ? element_at(a, c.in[k], at, y->rank) : NULL;
		assert_int_equal(tensor_new(a, y->dt, 0, NULL, &there, &e), LINNET_OK);
		element_copy(there, 0, y, i);
		if (op_eval(op, c.attr, c.nin, in, 1, c.wanted, a, &z, &e) || !tensor_same(z, there)) {
			print_error("%s: not place by place\n%s", op->name, call_text(&c, a));
			return 1;
		}
	}
	return 0;
}

static void each(void **state)
{
	struct rng r = { 1 };
	int wrong = 0, n = 0;

	(void)state;
	for (const struct op_family *const *f = op_families; *f; f++)
		for (int i = 0; i < (*f)->n; i++) {
			const struct op *op = &(*f)->op[i];

			if (!(op->flags & OP_EACH) || !op->kernel)
				continue;
			n++;
			for (int k = 0; k < 20; k++) {
				struct arena *a = arena_new();

				wrong += check_each(op, &r, a);
				arena_free(a);
			}
		}
	assert_int_equal(wrong, 0);
	assert_true(n > 50);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(masks),
		cmocka_unit_test(each),
	};

	return cmocka_run_group_tests_name("mask", tests, NULL, NULL);
}
