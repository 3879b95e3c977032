/* Sequences, optionals and maps: their life in the executor, and in files. */
#include "tests/unit/unit.h"

#include <string.h>

#include "runtime/runtime.h"
#include "tests/unit/folder.h"
#include "tests/unit/walk.h"

/* ---- Models and values ---- */

struct fixture {
	struct linnet_model *m;
	struct arena *a;
	struct linnet_error e;
};

#define HEAD "<ir_version: 10, opset_import: [\"\" : 24]> g "

static struct fixture model(const char *text)
{
	struct fixture f = { 0 };
	enum linnet_code code = LINNET_OK;

	f.m = model_new(NULL, NULL);
	assert_non_null(f.m);
	f.a = f.m->arena;
	if (text)
		code = text_parse(f.m, text, strlen(text), &f.e);
	if (text && !code)
		code = graph_import(f.m, &f.e);
	if (code)
		fail_msg("%s", f.e.message);
	return f;
}

static struct plan *planned(struct fixture *f, enum kernels k)
{
	struct plan *p;

	if (plan_new(f->m->graph, &(struct run_opt){ .kernels = k, .threads = 1 }, &p, &f->e))
		fail_msg("%s", f->e.message);
	return p;
}

static struct tensor *vector(struct fixture *f, int64_t n, float from)
{
	struct tensor *t;

	assert_int_equal(tensor_new(f->a, DT_FLOAT, 1, &n, &t, NULL), LINNET_OK);
	for (int64_t i = 0; i < n; i++)
		((float *)t->data)[i] = from + (float)i;
	return t;
}

static struct tensor *number(struct fixture *f, int64_t v)
{
	struct tensor *t;

	assert_int_equal(tensor_new(f->a, DT_INT64, 0, NULL, &t, NULL), LINNET_OK);
	*(int64_t *)t->data = v;
	return t;
}

static struct tensor *words(struct fixture *f, const char *a, const char *b)
{
	struct tensor *t;

	assert_int_equal(tensor_new(f->a, DT_STRING, 1, (int64_t[]){ 2 }, &t, NULL), LINNET_OK);
	((struct text *)t->data)[0] = (struct text){ a, strlen(a) };
	((struct text *)t->data)[1] = (struct text){ b, strlen(b) };
	return t;
}

/* A value of up to two members. */
static struct tensor *holding(struct fixture *f, enum type_kind kind, enum dtype dt, const struct tensor *a, const struct tensor *b)
{
	struct tensor *t;

	assert_int_equal(members_new(f->a, kind, dt, (a != NULL) + (b != NULL), &t, NULL), LINNET_OK);
	if (a)
		((const struct tensor **)t->data)[0] = a;
	if (b)
		((const struct tensor **)t->data)[1] = b;
	return t;
}

static struct tensor *map(struct fixture *f, const struct tensor *keys, const struct tensor *values)
{
	struct tensor *t = holding(f, KIND_MAP, values->dt, keys, values);

	t->key = keys->dt;
	return t;
}

static void run(struct fixture *f, struct plan *p, const struct tensor *const *in, struct tensor **out)
{
	if (plan_run(p, in, out, &f->e))
		fail_msg("%s", f->e.message);
}

static void says(struct fixture *f, enum linnet_code found, enum linnet_code code, const char *line)
{
	char buf[900];

	assert_string_equal(linnet_error_line(&f->e, buf, sizeof buf), line);
	assert_int_equal(found, code);
	memset(&f->e, 0, sizeof f->e);
}

/* ---- Sharing ---- */

/* A thousand vectors of 40 kB in a sequence, of which those before are kept at every step: no copy but that to the caller. */
static void insertion_copies_no_elements(void **state)
{
	struct fixture f = model(HEAD "(int64 n, float[k] x, seq(float[]) s) => (t) {\n"
	                              "t = Loop (n, , s) <body = b (int64 i, bool c, seq(float[]) s0) => (bool d, seq(float[]) s1) {\n"
	                              "d = Identity (c)  v = Cast <to = 1> (i)  y = Add (x, v)  s1 = SequenceInsert (s0, y) }> }");
	struct plan *p = planned(&f, KERNELS_FAST);
	const struct tensor *in[] = { number(&f, 100), vector(&f, 10000, 0), holding(&f, KIND_SEQUENCE, DT_FLOAT, NULL, NULL) };
	struct tensor *out;

	(void)state;
	run(&f, p, in, &out);
	assert_int_equal(out->kind, KIND_SEQUENCE);
	assert_int_equal(out->n, 100);
	for (int64_t i = 0; i < out->n; i++)
		assert_true(((const float *)tensor_member(out, i)->data)[9999] == 9999 + (float)i);
	assert_true(plan_peak_bytes(p) < 2 * 100 * 40000 + 200000);
	tensor_release(out);
	run(&f, p, in, &out);
	tensor_release(out);
	plan_free(p);
	model_free(f.m);
}

/* What is taken out of a sequence is not written over while the sequence, or its owner, still has it. */
static void members_are_not_written_over(void **state)
{
	struct fixture f = model(HEAD "(seq(float[]) s, float[k] x, int64 at) => (y, t, z) {\n"
	                              "u = SequenceAt (s, at)  y = Exp (u)\n"
	                              "w = Neg (x)  t = SequenceConstruct (w, x)  v = SequenceAt (t, at)  z = Exp (v) }");
	struct plan *p = planned(&f, KERNELS_FAST);
	struct tensor *x = vector(&f, 3, 1), *member = vector(&f, 3, 0), *out[3];
	const struct tensor *in[] = { holding(&f, KIND_SEQUENCE, DT_FLOAT, member, x), x, number(&f, 0) };

	(void)state;
	for (int i = 0; i < 2; i++) {
		run(&f, p, in, out);
		assert_true(tensor_same(member, vector(&f, 3, 0)));
		assert_true(tensor_same(x, vector(&f, 3, 1)));
		assert_true(((const float *)out[0]->data)[0] == 1);
		assert_true(((const float *)tensor_member(out[1], 0)->data)[2] == -3);
		assert_true(((const float *)tensor_member(out[1], 1)->data)[2] == 3);
		for (int k = 0; k < 3; k++)
			tensor_release(out[k]);
	}
	plan_free(p);
	model_free(f.m);
}

/* Outputs depend neither on the plan nor on the inputs, nor on each other. */
static void outputs_stand_alone(void **state)
{
	struct fixture f = model(HEAD "(seq(string[]) s, string[n] x) => (o, t) {\n"
	                              "u = SequenceInsert (s, x)  o = Optional (u)  t = SequenceErase (u) }");
	struct plan *p = planned(&f, KERNELS_FAST);
	struct tensor *w = words(&f, "a", "bc"), *out[2];
	const struct tensor *in[] = { holding(&f, KIND_SEQUENCE, DT_STRING, w, NULL), words(&f, "", "d") };
	const struct text *s;

	(void)state;
	run(&f, p, in, out);
	plan_free(p);
	model_free(f.m);
	assert_int_equal(out[0]->kind, KIND_OPTIONAL_SEQUENCE);
	assert_int_equal(out[0]->n, 1);
	assert_int_equal(tensor_member(out[0], 0)->n, 2);
	s = tensor_member(tensor_member(out[0], 0), 1)->data;
	assert_int_equal(s[0].n, 0);
	assert_memory_equal(s[1].p, "d", 1);
	tensor_release(out[0]);
	s = tensor_member(out[1], 0)->data;
	assert_memory_equal(s[1].p, "bc", 2);
	tensor_release(out[1]);
}

/* ---- What is given ---- */

static void inputs_are_what_they_say(void **state)
{
	struct fixture f = model(HEAD "(seq(float[]) s, optional(float[]) o) => (n, h) {\n"
	                              "n = SequenceLength (s)  h = OptionalHasElement (o) }");
	struct plan *p = planned(&f, KERNELS_FAST);
	struct tensor *x = vector(&f, 2, 0), *out[2];
	const struct tensor *good = holding(&f, KIND_SEQUENCE, DT_FLOAT, x, x), *none = holding(&f, KIND_OPTIONAL, DT_FLOAT, NULL, NULL);

	(void)state;
	run(&f, p, (const struct tensor *[]){ good, none }, out);
	assert_int_equal(*(const int64_t *)out[0]->data, 2);
	assert_int_equal(*(const bool *)out[1]->data, false);
	tensor_release(out[0]);
	tensor_release(out[1]);
	says(&f, plan_run(p, (const struct tensor *[]){ x, none }, out, &f.e), LINNET_ETYPE,
	     "input \"s\" is float; the model declares seq(float)");
	says(&f, plan_run(p, (const struct tensor *[]){ good, good }, out, &f.e), LINNET_ETYPE,
	     "input \"o\" is seq(float); the model declares optional(float)");
	says(&f, plan_run(p, (const struct tensor *[]){ holding(&f, KIND_SEQUENCE, DT_INT64, NULL, NULL), none }, out, &f.e), LINNET_ETYPE,
	     "input \"s\" has element type int64; the model declares float");
	says(&f, plan_run(p, (const struct tensor *[]){ holding(&f, KIND_SEQUENCE, DT_FLOAT, x, number(&f, 1)), none }, out, &f.e),
	     LINNET_ETYPE, "input \"s\": member 1 is of another type: int64 instead of float");
	says(&f, plan_run(p, (const struct tensor *[]){ good, holding(&f, KIND_OPTIONAL, DT_FLOAT, x, x) }, out, &f.e), LINNET_EUSAGE,
	     "input \"o\": its members do not make a value of its kind");
	plan_free(p);
	model_free(f.m);
}

/* ---- Files ---- */

static void files_hold_values(void **state)
{
	struct fixture f = model(NULL);
	struct tensor *x = vector(&f, 3, 0.5f), *y = vector(&f, 1, 2), *w = words(&f, "a", "b");
	struct tensor *s = holding(&f, KIND_SEQUENCE, DT_FLOAT, x, y), *m = map(&f, w, vector(&f, 2, 7));
	const struct tensor *cases[] = {
		x, s, holding(&f, KIND_SEQUENCE, DT_STRING, w, NULL), holding(&f, KIND_SEQUENCE, DT_INT8, NULL, NULL),
		holding(&f, KIND_OPTIONAL, DT_FLOAT, x, NULL), holding(&f, KIND_OPTIONAL, DT_FLOAT, NULL, NULL),
		holding(&f, KIND_OPTIONAL_SEQUENCE, DT_FLOAT, s, NULL), holding(&f, KIND_OPTIONAL_SEQUENCE, DT_INT64, NULL, NULL),
		m, map(&f, words(&f, "k", "l"), words(&f, "v", "")),
	};
	struct folder folder = folder_new();
	struct tensor *maps = holding(&f, KIND_SEQUENCE_MAP, DT_FLOAT, m, m), *back;
	struct type want = { .kind = KIND_SEQUENCE_MAP, .dt = DT_FLOAT, .key = DT_STRING };
	const char *name;
	char path[256];

	(void)state;
	folder_path(&folder, "v.pb", path);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct type type = type_of(cases[i]);

		if (proto_save_value(path, cases[i], "name", &f.e) || proto_load_value(path, &type, f.a, NULL, &back, &name, &f.e))
			fail_msg("%zu: %s", i, f.e.message);
		assert_string_equal(name, "name");
		assert_true(tensor_same(cases[i], back));
	}
	maps->key = DT_STRING;
	assert_int_equal(proto_save_value(path, maps, NULL, NULL), LINNET_OK);
	assert_int_equal(proto_load_value(path, &want, f.a, NULL, &back, NULL, NULL), LINNET_OK);
	assert_true(tensor_same(maps, back));
	folder_remove(&folder);
	model_free(f.m);
}

/* ---- Out of memory ---- */

struct values_run {
	struct fixture *f;
	const struct tensor *const *in;
	uint32_t nout;
};

static enum linnet_code plan_and_run(const void *ctx, struct linnet_error *e)
{
	const struct values_run *r = ctx;
	struct tensor *out[8] = { NULL };
	struct plan *p;
	enum linnet_code code = plan_new(r->f->m->graph, &(struct run_opt){ .threads = 1 }, &p, e);

	for (int i = 0; !code && i < 2; i++) {
		code = plan_run(p, r->in, out, e);
		for (uint32_t k = 0; k < r->nout; k++) {
			tensor_release(out[k]);
			out[k] = NULL;
		}
	}
	if (p)
		plan_free(p);
	return code;
}

static void memory_may_end_with_values(void **state)
{
	struct fixture f = model(HEAD
		"(int64 n, seq(float[]) s, float[k] x, optional(seq(string[])) o, bool b) => (t, j, q, r, h) {\n"
		"t = Loop (n, , s) <body = body (int64 i, bool c, seq(float[]) s0) => (bool d, seq(float[]) s1) {\n"
		"    d = Identity (c)  y = SequenceAt (s0, i)  z = Add (y, x)  e = SequenceInsert (s0, z)  s1 = Identity (e) }>\n"
		"p = SplitToSequence (x)\n"
		"u = SequenceMap <body = each (float[a] m) => (float[a] m2) { m2 = Exp (m) }> (p)\n"
		"j = ConcatFromSequence <axis = 0> (u)\n"
		"q = If (b) <then_branch = yes () => (seq(string[]) q0) { q0 = OptionalGetElement (o) },\n"
		"            else_branch = no () => (seq(string[]) q1) { q1 = SequenceEmpty <dtype = 8> () }>\n"
		"r = Optional (u)\n"
		"l = SequenceErase (t)  h = SequenceLength (l) }");
	struct tensor *yes;
	const struct tensor *in[] = { number(&f, 3), holding(&f, KIND_SEQUENCE, DT_FLOAT, vector(&f, 2, 0), vector(&f, 2, 1)),
		                      vector(&f, 2, 3),
		                      holding(&f, KIND_OPTIONAL_SEQUENCE, DT_STRING,
		                              holding(&f, KIND_SEQUENCE, DT_STRING, words(&f, "one", "two"), NULL), NULL), NULL };
	struct values_run r = { &f, in, 5 };

	(void)state;
	assert_int_equal(tensor_new(f.a, DT_BOOL, 0, NULL, &yes, NULL), LINNET_OK);
	*(bool *)yes->data = true;
	in[4] = yes;
	assert_true(walk_memory("run", plan_and_run, &r) > 100);
	model_free(f.m);
}

static void memory_may_end_in_batches(void **state)
{
	struct fixture f = model("<ir_version: 3, opset_import: [\"\" : 8]> g (int64[b] n, float[b] i, float[b,l] x) => (y, z) {\n"
	                         "y, z = Scan <num_scan_inputs = 1, body = h (float s, float a) => (float t, float u) {\n"
	                         "t = Add (s, a)  u = Identity (t) }> (n, i, x) }");
	struct tensor *n, *x;
	const struct tensor *in[] = { NULL, vector(&f, 2, 0), NULL };
	struct values_run r = { &f, in, 2 };

	(void)state;
	assert_int_equal(tensor_new(f.a, DT_INT64, 1, (int64_t[]){ 2 }, &n, NULL), LINNET_OK);
	assert_int_equal(tensor_new(f.a, DT_FLOAT, 2, (int64_t[]){ 2, 3 }, &x, NULL), LINNET_OK);
	((int64_t *)n->data)[1] = 3;
	in[0] = n;
	in[2] = x;
	assert_true(walk_memory("run", plan_and_run, &r) > 20);
	model_free(f.m);
}

struct file_of_value {
	const char *path;
	const struct tensor *t;
};

static enum linnet_code save_and_load(const void *ctx, struct linnet_error *e)
{
	const struct file_of_value *v = ctx;
	struct type type = type_of(v->t);
	struct arena *a = arena_new();
	struct tensor *back;
	enum linnet_code code = a ? proto_save_value(v->path, v->t, "v", e) : fail_mem(e);

	if (!code)
		code = proto_load_value(v->path, &type, a, NULL, &back, NULL, e);
	arena_free(a);
	return code;
}

static void memory_may_end_in_files_of_values(void **state)
{
	struct fixture f = model(NULL);
	struct folder folder = folder_new();
	char path[256];
	struct file_of_value v = { .path = path };

	(void)state;
	folder_path(&folder, "v.pb", path);
	v.t = holding(&f, KIND_OPTIONAL_SEQUENCE, DT_STRING, holding(&f, KIND_SEQUENCE, DT_STRING, words(&f, "a", "b"), NULL), NULL);
	assert_true(walk_memory("optional", save_and_load, &v) > 5);
	v.t = map(&f, words(&f, "a", "b"), vector(&f, 2, 0));
	assert_true(walk_memory("map", save_and_load, &v) > 5);
	folder_remove(&folder);
	model_free(f.m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(insertion_copies_no_elements),
		cmocka_unit_test(members_are_not_written_over),
		cmocka_unit_test(outputs_stand_alone),
		cmocka_unit_test(inputs_are_what_they_say),
		cmocka_unit_test(files_hold_values),
		cmocka_unit_test(memory_may_end_with_values),
		cmocka_unit_test(memory_may_end_in_batches),
		cmocka_unit_test(memory_may_end_in_files_of_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
