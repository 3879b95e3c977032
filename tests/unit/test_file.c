/* The container on the disk: external data, saving, and running out of memory on the way. */
#include "unit.h"

#include "folder.h"
#include "graph/proto.h"
#include "graph/sha1.h"
#include "walk.h"
#include "wire.h"

enum { MODEL_IR = 1, MODEL_PRODUCER = 2, MODEL_GRAPH = 7, GRAPH_INITIALIZER = 5 };
enum { TENSOR_DIMS = 1, TENSOR_TYPE = 2, TENSOR_NAME = 8, TENSOR_RAW = 9, TENSOR_EXTERNAL = 13, TENSOR_LOCATION = 14 };

static const float values[4] = { 1, -2, 3.5f, 0.125f };

static void entry(struct wire *t, const char *key, const char *value)
{
	struct wire x = { 0 };

	w_str(&x, 1, key);
	if (value)
		w_str(&x, 2, value);
	w_msg(t, TENSOR_EXTERNAL, &x);
}

/* A model with one float[4] that is in a file; entries with a value of NULL are left out. */
static struct wire external_model(const char *location, const char *offset, const char *length, const char *checksum)
{
	struct wire t = { 0 }, graph = { 0 }, w = { 0 };

	w_int(&t, TENSOR_DIMS, 4);
	w_int(&t, TENSOR_TYPE, DT_FLOAT);
	w_str(&t, TENSOR_NAME, "w");
	if (location)
		entry(&t, "location", location);
	if (offset)
		entry(&t, "offset", offset);
	if (length)
		entry(&t, "length", length);
	if (checksum)
		entry(&t, "checksum", checksum);
	w_int(&t, TENSOR_LOCATION, 1);
	w_msg(&graph, GRAPH_INITIALIZER, &t);
	w_int(&w, MODEL_IR, 10);
	w_str(&w, MODEL_PRODUCER, "tests");
	w_msg(&w, MODEL_GRAPH, &graph);
	return w;
}

/* Put the model into the folder, load it from there, and ask for its tensor. */
static enum linnet_code load_external(const struct folder *f, const struct wire *w, bool checksums, struct linnet_error *e)
{
	struct linnet_model *m = model_new(NULL, e);
	enum linnet_code code;
	struct tensor *t;
	char path[256];

	folder_put(f, "model.onnx", w->p, w->n);
	code = proto_load(m, folder_path(f, "model.onnx", path), e);
	m->checksums = checksums;
	if (!code)
		code = proto_tensor(m, proto_model(m)->graph->initializer[0], &t, e);
	if (!code)
		assert_memory_equal(t->data, values, sizeof values);
	model_free(m);
	return code;
}

static void external_data(void **state)
{
	static const struct {
		const char *location, *offset, *length, *checksum;
		enum linnet_code code;
		const char *says;
	} cases[] = {
		{ "data", "8", "16", NULL, LINNET_OK, "" },
		{ "./data", "8", NULL, NULL, LINNET_OK, "" },
		{ "sub/data", NULL, "16", NULL, LINNET_OK, "" },
		{ "sub//data", "0", NULL, NULL, LINNET_OK, "" },
		{ "data", "8", "16", "DFE8FD58C6C13E76A16AF0BCD4CC0A7ED6A9D2E4", LINNET_EFORMAT, "has checksum" },
		{ NULL, "8", "16", NULL, LINNET_EFORMAT, "without a location" },
		{ "", NULL, NULL, NULL, LINNET_EIO, "without a location" },
		{ "missing", NULL, NULL, NULL, LINNET_EIO, "\"missing\" cannot be opened: No such file" },
		{ "data", "9", "16", NULL, LINNET_EFORMAT, "\"data\": 16 bytes at offset 9, but the file has 24" },
		{ "data", "25", "0", NULL, LINNET_EFORMAT, "0 bytes at offset 25" },
		{ "data", "18446744073709551608", "16", NULL, LINNET_EFORMAT, "the file has 24" },
		{ "data", "18446744073709551616", NULL, NULL, LINNET_EFORMAT, "is too large" },
		{ "data", "8", "12", NULL, LINNET_EFORMAT, "external data has 12 bytes; float[4] takes 16" },
		{ "data", "-8", NULL, NULL, LINNET_EFORMAT, "offset \"-8\" is not a number" },
		{ "data", "", NULL, NULL, LINNET_EFORMAT, "offset is empty" },
		{ "/etc/passwd", NULL, NULL, NULL, LINNET_EIO, "an absolute path is not allowed" },
		{ "../data", NULL, NULL, NULL, LINNET_EIO, "leaves the model's folder" },
		{ "sub/../data", NULL, NULL, NULL, LINNET_EIO, "leaves the model's folder" },
		{ "sub/..", NULL, NULL, NULL, LINNET_EIO, "leaves the model's folder" },
		{ "sub", NULL, NULL, NULL, LINNET_EIO, "is not a regular file" },
		{ "pipe", NULL, NULL, NULL, LINNET_EIO, "is not a regular file" },
		{ "link", NULL, NULL, NULL, LINNET_EIO, "\"link\": a symbolic link is not followed" },
		{ "away/data", NULL, NULL, NULL, LINNET_EIO, "a symbolic link is not followed" },
		{ "twin", "8", NULL, NULL, LINNET_EIO, "\"twin\" has 2 hard links" },
	};
	struct folder f = folder_new(), sub = f;
	char path[256], other[256], sum[41];
	unsigned char file[24] = { 0 };
	struct linnet_error e;
	struct wire w;

	(void)state;
	memcpy(file + 8, values, sizeof values);
	folder_put(&f, "data", file, sizeof file);
	folder_put(&f, "one", file, sizeof file);
	assert_int_equal(link(folder_path(&f, "one", path), folder_path(&f, "twin", other)), 0);
	assert_int_equal(symlink("data", folder_path(&f, "link", path)), 0);
	assert_int_equal(symlink("sub", folder_path(&f, "away", path)), 0);
	assert_int_equal(mkfifo(folder_path(&f, "pipe", path), 0600), 0);
	snprintf(sub.path, sizeof sub.path, "%.50s/sub", f.path);
	assert_int_equal(mkdir(sub.path, 0700), 0);
	folder_put(&sub, "data", values, sizeof values);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		enum linnet_code code;

		w = external_model(cases[i].location, cases[i].offset, cases[i].length, cases[i].checksum);
		err_clear(&e);
		code = load_external(&f, &w, true, &e);
		if (code != cases[i].code || !strstr(e.message, cases[i].says))
			fail_msg("case %zu: %s: %s", i, linnet_code_name(code), e.message);
	}
	err_clear(&e);
	sha1_hex(file, sizeof file, sum);
	w = external_model("data", "8", "16", sum);
	assert_int_equal(load_external(&f, &w, true, &e), LINNET_OK);
	w = external_model("data", "8", "16", "0");
	assert_int_equal(load_external(&f, &w, false, &e), LINNET_OK); /* not asked for */
	folder_remove(&sub);
	folder_remove(&f);
}

/* FIPS 180-4's examples, and lengths around the block's edge (digests from sha1sum). */
static void checksums(void **state)
{
	static const struct {
		const char *text;
		size_t n;
		const char *hex;
	} cases[] = {
		{ "", 0, "da39a3ee5e6b4b0d3255bfef95601890afd80709" },
		{ "abc", 3, "a9993e364706816aba3e25717850c26c9cd0d89d" },
		{ "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, "84983e441c3bd26ebaae4aa1f95129e5e54670f1" },
		{ "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 55, "47b172810795699fe739197d1a1f5960700242f1" },
		{ "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 64, "0098ba824b5c16427bd7a1122a5a442a25ec644d" },
	};
	char hex[41];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		sha1_hex(cases[i].text, cases[i].n, hex);
		assert_string_equal(hex, cases[i].hex);
	}
}

/* ---- Saving ---- */

/* A model with the given numbers of bytes in raw initializers of uint8; they count up from 0. */
static struct wire raw_model(const int64_t *bytes, int n)
{
	struct wire graph = { 0 }, w = { 0 };
	uint8_t data[4096];

	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)i;
	for (int i = 0; i < n; i++) {
		struct wire t = { 0 };

		w_int(&t, TENSOR_DIMS, bytes[i]);
		w_int(&t, TENSOR_TYPE, DT_UINT8);
		w_str(&t, TENSOR_NAME, &"abcdef"[i]);
		w_len(&t, TENSOR_RAW, data, (size_t)bytes[i]);
		w_str(&t, 100, "unknown");
		w_msg(&graph, GRAPH_INITIALIZER, &t);
	}
	w_int(&w, MODEL_IR, 10);
	w_msg(&w, MODEL_GRAPH, &graph);
	return w;
}

static struct linnet_model *open_model(const char *path)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);

	if (proto_load(m, path, &e))
		fail_msg("%s: %s", path, e.message);
	return m;
}

static void same_file(const struct folder *f, const char *name, const void *p, size_t n)
{
	size_t got = 0;
	unsigned char *q = folder_get(f, name, &got);

	if (!q || got != n || memcmp(p, q, n))
		fail_msg("%s: other bytes", name);
	free(q);
}

/* Saving over the file the model is mapped from, with its permissions, and nothing left beside it. */
static void over_itself(void **state)
{
	struct wire w = raw_model((const int64_t[]){ 100, 3000 }, 2);
	struct linnet_error e = { 0 };
	struct folder f = folder_new();
	struct linnet_model *m;
	char path[256];
	struct stat st;

	(void)state;
	folder_put(&f, "a.onnx", w.p, w.n);
	assert_int_equal(chmod(folder_path(&f, "a.onnx", path), 0640), 0);
	m = open_model(path);
	for (int i = 0; i < 2; i++)
		assert_int_equal(proto_save(m, path, false, &e), LINNET_OK);
	model_free(m);
	same_file(&f, "a.onnx", w.p, w.n);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	assert_int_equal(folder_count(&f), 1);
	folder_remove(&f);
}

/* Weights outside and back in. */
static void outside_and_back(void **state)
{
	struct wire w = raw_model((const int64_t[]){ 1024, 1025, 2000, 0 }, 4);
	struct linnet_error e = { 0 };
	struct folder f = folder_new();
	struct linnet_model *m;
	Onnx__TensorProto **t;
	unsigned char *data;
	char path[256];
	size_t n = 0;

	(void)state;
	folder_put(&f, "a.onnx", w.p, w.n);
	m = open_model(folder_path(&f, "a.onnx", path));
	assert_int_equal(proto_save(m, path, true, &e), LINNET_OK);
	model_free(m);
	data = folder_get(&f, "a.onnx.data", &n);
	assert_non_null(data);
	assert_int_equal(n, 4096 + 2000);
	for (size_t i = 0; i < n; i++)
		if (data[i] != (i < 1025 ? i % 256 : i < 4096 ? 0 : (i - 4096) % 256))
			fail_msg("byte %zu is %d", i, data[i]);
	free(data);
	m = open_model(path);
	t = proto_model(m)->graph->initializer;
	assert_int_equal(t[0]->raw_data.len, 1024); /* not worth it */
	assert_int_equal(t[2]->n_external_data, 3);
	assert_string_equal(t[2]->external_data[0]->value, "a.onnx.data");
	assert_string_equal(t[2]->external_data[1]->value, "4096");
	assert_string_equal(t[2]->external_data[2]->value, "2000");

	/* outside again, over both files, then back */
	assert_int_equal(proto_save(m, path, true, &e), LINNET_OK);
	model_free(m);
	m = open_model(path);
	assert_int_equal(proto_save(m, path, false, &e), LINNET_OK);
	model_free(m);
	same_file(&f, "a.onnx", w.p, w.n);
	assert_int_equal(folder_count(&f), 2);
	folder_remove(&f);
}

static void saving_fails(void **state)
{
	struct wire w = raw_model((const int64_t[]){ 2000 }, 1), lost = external_model("gone", NULL, NULL, NULL);
	struct linnet_error e = { 0 };
	struct folder f = folder_new(), sub = f;
	struct linnet_model *m;
	char path[256];

	(void)state;
	folder_put(&f, "a.onnx", w.p, w.n);
	folder_put(&f, "lost.onnx", lost.p, lost.n);
	snprintf(sub.path, sizeof sub.path, "%.50s/b.onnx", f.path);
	assert_int_equal(mkdir(sub.path, 0700), 0);
	m = open_model(folder_path(&f, "a.onnx", path));
	assert_int_equal(proto_save(m, folder_path(&f, "no/such/folder", path), false, &e), LINNET_EIO);
	assert_string_equal(e.message, "cannot be created: No such file or directory");
	assert_string_equal(e.file, path);
	err_clear(&e);
	assert_int_equal(proto_save(m, sub.path, false, &e), LINNET_EIO); /* a folder of that name */
	err_clear(&e);
	assert_int_equal(proto_save(m, "/dev/full", false, &e), LINNET_EIO);
	assert_string_equal(e.message, "cannot be written: No space left on device");
	err_clear(&e);
	assert_int_equal(proto_save(m, "-", true, &e), LINNET_EUSAGE);
	model_free(m);

	err_clear(&e);
	m = open_model(folder_path(&f, "lost.onnx", path));
	assert_int_equal(proto_save(m, path, false, &e), LINNET_EIO);
	assert_string_equal(e.node, "w");
	model_free(m);
	same_file(&f, "lost.onnx", lost.p, lost.n);
	assert_int_equal(folder_count(&f), 3);
	folder_remove(&sub);
	folder_remove(&f);
}

/* A tensor of 2 GiB in a file (with a hole) does not fit into one message. */
static void two_gigabytes(void **state)
{
	struct linnet_error e = { 0 };
	struct folder f = folder_new();
	struct linnet_model *m;
	struct wire t = { 0 }, graph = { 0 }, w = { 0 };
	char path[256];
	void *data;
	size_t n;

	(void)state;
	w_int(&t, TENSOR_DIMS, (int64_t)1 << 31);
	w_int(&t, TENSOR_TYPE, DT_UINT8);
	entry(&t, "location", "hole");
	w_int(&t, TENSOR_LOCATION, 1);
	w_msg(&graph, GRAPH_INITIALIZER, &t);
	w_int(&w, MODEL_IR, 10);
	w_msg(&w, MODEL_GRAPH, &graph);
	folder_put(&f, "hole", "", 0);
	assert_int_equal(truncate(folder_path(&f, "hole", path), (off_t)1 << 31), 0);
	folder_put(&f, "a.onnx", w.p, w.n);
	m = open_model(folder_path(&f, "a.onnx", path));
	assert_int_equal(proto_save_memory(m, m->arena, &data, &n, &e), LINNET_ELIMIT);
	/* 2 + 1 + 5 bytes of the model, 1 + 5 of the graph, 6 + 2 + 1 + 5 of the tensor, and its data */
	assert_string_equal(e.message, "2147483676 bytes to be written; protobuf admits 2147483647");
	err_clear(&e);
	assert_int_equal(proto_save(m, "-", false, &e), LINNET_EUSAGE); /* it would take a second file */
	model_free(m);
	folder_remove(&f);
}

static void tensor_files(void **state)
{
	static const struct text words[] = { { "one", 3 }, { "", 0 } };
	static const uint8_t six[] = { 1, 63, 0, 42, 7 };
	static const struct {
		enum dtype dt;
		int64_t n;
		const void *data;
	} cases[] = { { DT_FLOAT, 4, values }, { DT_STRING, 2, words }, { DT_FLOAT6E3M2, 5, six }, { DT_UINT4, 9, six },
		      { DT_DOUBLE, 0, values } };
	struct linnet_error e = { 0 };
	struct folder f = folder_new();
	char path[256];

	(void)state;
	folder_path(&f, "t.pb", path);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct arena *a = arena_new();
		struct tensor *t, *back;
		const char *name;

		assert_int_equal(tensor_wrap(a, cases[i].dt, 1, &cases[i].n, cases[i].data, &t, &e), LINNET_OK);
		assert_int_equal(proto_save_value(path, t, "name", &e), LINNET_OK);
		if (proto_load_tensor(path, a, NULL, &back, &name, &e))
			fail_msg("%s", e.message);
		assert_string_equal(name, "name");
		if (!tensor_same(t, back))
			fail_msg("%s", dtype_name(cases[i].dt));
		arena_free(a);
	}
	folder_remove(&f);
}

/* ---- Out of memory ---- */

struct paths {
	char from[256], to[256];
};

/* Load, ask for all tensors, save outside and inside. */
static enum linnet_code load_and_save(const void *ctx, struct linnet_error *e)
{
	const struct paths *paths = ctx;
	struct linnet_model *m = model_new(NULL, e);
	enum linnet_code code = m ? proto_load(m, paths->from, e) : LINNET_EMEM;
	struct tensor *t;

	for (size_t i = 0; !code && i < proto_model(m)->graph->n_initializer; i++)
		code = proto_tensor(m, proto_model(m)->graph->initializer[i], &t, e);
	if (!code)
		code = proto_save(m, paths->to, true, e);
	if (!code)
		code = proto_save(m, paths->to, false, e);
	model_free(m);
	return code;
}

static void every_allocation_may_fail(void **state)
{
	struct wire w = raw_model((const int64_t[]){ 3, 2000, 1500 }, 3), x = external_model("b.data", "4", NULL, NULL);
	struct folder f = folder_new();
	struct paths p;

	(void)state;
	folder_put(&f, "a.onnx", w.p, w.n);
	folder_put(&f, "b.onnx", x.p, x.n);
	folder_put(&f, "b.data", w.p, w.n);
	folder_path(&f, "to.onnx", p.to);
	folder_path(&f, "a.onnx", p.from);
	assert_true(walk_memory("inside", load_and_save, &p) > 20);
	folder_path(&f, "b.onnx", p.from);
	assert_true(walk_memory("outside", load_and_save, &p) > 20);
	assert_int_equal(folder_count(&f), 5); /* nothing half-made */
	folder_remove(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(external_data),    cmocka_unit_test(checksums),    cmocka_unit_test(over_itself),
		cmocka_unit_test(outside_and_back), cmocka_unit_test(saving_fails), cmocka_unit_test(two_gigabytes),
		cmocka_unit_test(tensor_files),     cmocka_unit_test(every_allocation_may_fail),
	};

	return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
