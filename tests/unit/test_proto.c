/* The container: reading, tensors, writing. Inputs are built byte by byte here. */
#include "unit.h"

#include <stdio.h>

#include "graph/proto.h"
#include "wire.h"

/* Numbers of fields used here. */
enum {
	MODEL_IR = 1, MODEL_GRAPH = 7, MODEL_OPSET = 8,
	GRAPH_NODE = 1, GRAPH_NAME = 2, GRAPH_INITIALIZER = 5,
	TENSOR_DIMS = 1, TENSOR_TYPE = 2, TENSOR_FLOATS = 4, TENSOR_INT32S = 5, TENSOR_STRINGS = 6, TENSOR_INT64S = 7,
	TENSOR_NAME = 8, TENSOR_RAW = 9, TENSOR_DOUBLES = 10, TENSOR_UINT64S = 11, TENSOR_EXTERNAL = 13, TENSOR_LOCATION = 14,
};

/* Load bytes; on failure put the error's line into `line`. */
static struct linnet_model *load(const struct wire *w, enum linnet_code *code, char line[512])
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);

	assert_non_null(m);
	*code = proto_load_memory(m, w->p, w->n, &e);
	linnet_error_line(&e, line, 512);
	return m;
}

static void broken_wire(void **state)
{
	static const struct {
		const char *name;
		const char *bytes;
		size_t n;
		const char *says;
	} cases[] = {
#define CASE(name, bytes, says) { name, bytes, sizeof bytes - 1, says }
		CASE("empty", "", "empty"),
		CASE("cut tag", "\x88", "at byte 0: a varint is cut off"),
		CASE("cut value", "\x08\x80", "ir_version at byte 1: a varint is cut off"),
		CASE("long varint", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "ir_version at byte 1: a varint has more than 64 bits"),
		CASE("field zero", "\x08\x01\x00\x01", "at byte 2: field number 0"),
		CASE("group", "\x08\x01\x0b", "ir_version at byte 2: wire type 3, expected 0"),
		CASE("group in unknown", "\x08\x01\xeb\x07", "field 125 at byte 2: wire type 3 is not in use"),
		CASE("wire type", "\x0a\x01\x01", "ir_version at byte 0: wire type 2, expected 0"),
		CASE("too long", "\x08\x07\x3a\x05\x12\x01", "graph at byte 2: 5 bytes announced, 2 left"),
		CASE("inner too long", "\x08\x07\x3a\x04\x0a\x02\x0a\x05", "graph.node[0].input at byte 6: 5 bytes announced, 0 left"),
		CASE("zero in string", "\x08\x07\x3a\x05\x12\x03" "a\0b", "graph.name at byte 7: a string holds a zero byte"),
		CASE("nothing of ONNX", "\xf8\x07\x01", "not an ONNX model"),
		CASE("floats", "\x3a\x06\x2a\x04\x22\x02\x01\x02", "graph.initializer[0].float_data at byte 4: an array of 4-byte numbers has 2 bytes"),
#undef CASE
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct wire w = { 0 };
		enum linnet_code code;
		char line[512];

		w_bytes(&w, cases[i].bytes, cases[i].n);
		model_free(load(&w, &code, line));
		if (code != LINNET_EFORMAT || !strstr(line, cases[i].says))
			fail_msg("%s: %s: %s", cases[i].name, linnet_code_name(code), line);
	}
}


static void limits_hold(void **state)
{
	struct wire w = { 0 }, node = { 0 }, graph = { 0 };
	const struct linnet_limits limits[] = { { .max_depth = 2 }, { .max_nodes = 2 }, { .max_bytes = 4 } };
	static const char *const says[] = { "graph.node[0] at byte 6: more than 2 messages inside each other",
		                            "graph.node[2] at byte 10: more than 2 messages NodeProto", "more than 4 bytes" };

	(void)state;
	for (int i = 0; i < 3; i++)
		w_msg(&graph, GRAPH_NODE, &node);
	w_int(&w, MODEL_IR, 10);
	w_msg(&w, MODEL_GRAPH, &graph);
	for (int i = 0; i < 3; i++) {
		struct linnet_error e = { 0 };
		struct linnet_model *m = model_new(&limits[i], &e);

		assert_non_null(m);
		assert_int_equal(proto_load_memory(m, w.p, w.n, &e), LINNET_ELIMIT);
		if (!strstr(e.message, says[i]))
			fail_msg("%s", e.message);
		model_free(m);
	}
}

/* Save to memory and compare with the expected bytes. */
static void check_saved(const char *name, const struct wire *in, const struct wire *expected)
{
	struct linnet_error e = { 0 };
	enum linnet_code code;
	char line[512];
	struct linnet_model *m = load(in, &code, line);
	void *data;
	size_t n;

	if (code)
		fail_msg("%s: %s", name, line);
	assert_int_equal(proto_save_memory(m, m->arena, &data, &n, &e), LINNET_OK);
	if (n != expected->n || memcmp(data, expected->p, n))
		fail_msg("%s: other bytes", name);
	model_free(m);
}

/* Fields in order of number come back byte for byte, known or not. */
static void bytes_are_kept(void **state)
{
	struct wire w = { 0 }, graph = { 0 }, node = { 0 }, attr = { 0 };
	static const float f[] = { 1.5f, -0.0f };
	static const uint8_t any[] = { 0, 1, 0xff };

	(void)state;
	w_str(&attr, 1, "alpha");
	w_tag(&attr, 2, 5); /* f */
	w_bytes(&attr, f, 4);
	w_int(&attr, 3, -1);
	w_len(&attr, 4, any, sizeof any);
	for (int i = 0; i < 2; i++) { /* floats: one by one, as exporters do */
		w_tag(&attr, 7, 5);
		w_bytes(&attr, f + i, 4);
	}
	w_int(&attr, 8, INT64_MIN);
	w_int(&attr, 8, INT64_MAX);
	w_len(&attr, 9, any, sizeof any);
	w_len(&attr, 9, "", 0);
	w_int(&attr, 20, -7); /* an enumerator that does not exist */

	w_str(&node, 1, "x");
	w_str(&node, 1, "");
	w_str(&node, 4, "Op");
	w_msg(&node, 5, &attr);
	w_str(&node, 6, "");
	w_int(&node, 100, 1);                  /* unknown: number, */
	w_tag(&node, 101, 1);                  /* 8 bytes, */
	w_bytes(&node, "12345678", 8);
	w_str(&node, 102, "anything");         /* string, */
	w_tag(&node, 536870911, 5);            /* 4 bytes with the largest number there is */
	w_bytes(&node, "1234", 4);
	w_msg(&graph, GRAPH_NODE, &node);
	w_str(&graph, GRAPH_NAME, "g");
	w_int(&w, MODEL_IR, 10);
	w_msg(&w, MODEL_GRAPH, &graph);
	check_saved("all kinds", &w, &w);
}

/* Protobuf lets a field come twice: numbers and strings are replaced, messages merged, members of a oneof displaced. */
static void repeated_singles(void **state)
{
	struct wire w = { 0 }, expected = { 0 }, graph = { 0 }, node = { 0 }, type = { 0 }, tensor = { 0 }, sequence = { 0 };
	struct wire info = { 0 }, info2 = { 0 };

	(void)state;
	w_str(&node, 4, "A");
	w_msg(&graph, GRAPH_NODE, &node);
	w_str(&graph, GRAPH_NAME, "old");
	w_int(&w, MODEL_IR, 3);
	w_msg(&w, MODEL_GRAPH, &graph);
	w_int(&w, MODEL_IR, 10);
	graph.n = 0;
	w_str(&graph, GRAPH_NAME, "new");
	w_msg(&graph, GRAPH_NODE, &node);
	w_int(&tensor, 1, 7);
	w_msg(&type, 1, &tensor);
	w_msg(&type, 4, &sequence);
	tensor.n = 0;
	w_int(&tensor, 1, 1);
	w_msg(&type, 1, &tensor);
	w_msg(&info, 2, &type);
	w_msg(&graph, 11, &info);
	w_msg(&w, MODEL_GRAPH, &graph);

	w_int(&expected, MODEL_IR, 10);
	graph.n = type.n = 0;
	w_msg(&graph, GRAPH_NODE, &node);
	w_msg(&graph, GRAPH_NODE, &node);
	w_str(&graph, GRAPH_NAME, "new");
	w_msg(&type, 1, &tensor);
	w_msg(&info2, 2, &type);
	w_msg(&graph, 11, &info2);
	w_msg(&expected, MODEL_GRAPH, &graph);
	check_saved("twice", &w, &expected);
}

/* Packed or one by one, in one piece or several: the same array. */
static void packed_or_not(void **state)
{
	struct wire packed = { 0 }, mixed = { 0 }, single = { 0 }, t = { 0 }, graph = { 0 }, dims = { 0 };
	static const float f[] = { 1, 2, 3 };

	(void)state;
	w_int(&t, TENSOR_DIMS, 3);
	w_len(&t, TENSOR_FLOATS, f, 12);
	w_msg(&graph, GRAPH_INITIALIZER, &t);
	w_int(&single, MODEL_IR, 9);
	w_msg(&single, MODEL_GRAPH, &graph);
	t.n = graph.n = 0;
	w_varint(&dims, 3);
	w_msg(&t, TENSOR_DIMS, &dims);
	for (int i = 0; i < 3; i++) {
		w_tag(&t, TENSOR_FLOATS, 5);
		w_bytes(&t, f + i, 4);
	}
	w_msg(&graph, GRAPH_INITIALIZER, &t);
	w_int(&packed, MODEL_IR, 9);
	w_msg(&packed, MODEL_GRAPH, &graph);
	t.n = graph.n = 0;
	w_len(&t, TENSOR_FLOATS, f, 4);
	w_int(&t, TENSOR_DIMS, 3);
	w_len(&t, TENSOR_FLOATS, f, 0);
	w_len(&t, TENSOR_FLOATS, f + 1, 8);
	w_msg(&graph, GRAPH_INITIALIZER, &t);
	w_int(&mixed, MODEL_IR, 9);
	w_msg(&mixed, MODEL_GRAPH, &graph);
	check_saved("packed floats", &single, &single);
	check_saved("packed dims, single floats", &packed, &single);
	check_saved("in pieces", &mixed, &single);
}

/* Text is known by its first characters; binary models are not mistaken for it. */
static void text_is_recognised(void **state)
{
	static const struct {
		const char *text;
		bool good;
	} cases[] = {
		{ "<ir_version: 10, opset_import: [\"\": 21]> g (float[N] x) => (float[N] y) { y = Relu (x) }", true },
		{ "# a comment\n\n  my_graph (float[N] x) => (float[N] y) { y = Relu (x) }", true },
		{ "my graph", false },
		{ "(float[N] x)", false },
		{ "#", false },
		{ ":", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct wire w = { 0 };
		enum linnet_code code;
		struct linnet_model *m;
		char line[512];

		w_bytes(&w, cases[i].text, strlen(cases[i].text));
		m = load(&w, &code, line);
		if (cases[i].good != !code)
			fail_msg("%s: %s", cases[i].text, line);
		if (!code)
			assert_string_equal(proto_model(m)->graph->node[0]->op_type, "Relu");
		model_free(m);
	}
}

/* ---- Tensors ---- */

/* A model with one initializer. */
static struct wire model_of(const struct wire *tensor)
{
	struct wire w = { 0 }, graph = { 0 };

	w_msg(&graph, GRAPH_INITIALIZER, tensor);
	w_int(&w, MODEL_IR, 10);
	w_msg(&w, MODEL_GRAPH, &graph);
	return w;
}

static void tensor_head(struct wire *t, enum dtype dt, int rank, const int64_t *d)
{
	for (int i = 0; i < rank; i++)
		w_int(t, TENSOR_DIMS, d[i]);
	w_int(t, TENSOR_TYPE, dt);
}

static void packed_ints(struct wire *t, uint32_t field, const int64_t *v, size_t n)
{
	struct wire a = { 0 };

	for (size_t i = 0; i < n; i++)
		w_varint(&a, (uint64_t)v[i]);
	w_msg(t, field, &a);
}

/* Values kept in integer fields; what they are read as. */
static void typed_integers(void **state)
{
	static const struct {
		enum dtype dt;
		uint32_t field;
		int64_t n, nentry, entry[4];
		double value[4];
	} cases[] = {
		{ DT_INT32, TENSOR_INT32S, 3, 3, { 1, -2, INT32_MAX }, { 1, -2, INT32_MAX } },
		{ DT_INT16, TENSOR_INT32S, 2, 2, { INT16_MIN, INT16_MAX }, { INT16_MIN, INT16_MAX } },
		{ DT_INT8, TENSOR_INT32S, 2, 2, { -128, 127 }, { -128, 127 } },
		{ DT_UINT16, TENSOR_INT32S, 2, 2, { 0, 65535 }, { 0, 65535 } },
		{ DT_UINT8, TENSOR_INT32S, 2, 2, { 0, 255 }, { 0, 255 } },
		{ DT_BOOL, TENSOR_INT32S, 2, 2, { 1, 0 }, { 1, 0 } },
		{ DT_FLOAT16, TENSOR_INT32S, 3, 3, { 0x3c00, 0xc000, 0x7bff }, { 1, -2, 65504 } },
		{ DT_BFLOAT16, TENSOR_INT32S, 2, 2, { 0x3f80, 0xc000 }, { 1, -2 } },
		{ DT_FLOAT8E4M3FN, TENSOR_INT32S, 2, 2, { 0x38, 0xfe }, { 1, -448 } },
		{ DT_FLOAT8E5M2, TENSOR_INT32S, 2, 2, { 0x3c, 0xfb }, { 1, -57344 } },
		{ DT_FLOAT8E8M0, TENSOR_INT32S, 2, 2, { 127, 128 }, { 1, 2 } },
		{ DT_FLOAT6E2M3, TENSOR_INT32S, 2, 2, { 0x08, 0x3f }, { 1, -7.5 } },
		{ DT_FLOAT4E2M1, TENSOR_INT32S, 3, 2, { 0xf2, 0x07 }, { 1, -6, 6 } },
		{ DT_INT4, TENSOR_INT32S, 3, 2, { 0x87, 0x0f }, { 7, -8, -1 } },
		{ DT_INT4, TENSOR_INT32S, 2, 1, { -1 }, { -1, -1 } },
		{ DT_UINT4, TENSOR_INT32S, 2, 1, { 0xf1 }, { 1, 15 } },
		{ DT_INT2, TENSOR_INT32S, 4, 1, { 0xe4 }, { 0, 1, -2, -1 } },
		{ DT_UINT2, TENSOR_INT32S, 4, 1, { 0xe4 }, { 0, 1, 2, 3 } },
		{ DT_INT64, TENSOR_INT64S, 2, 2, { -5, (int64_t)1 << 40 }, { -5, 0x1p40 } },
		{ DT_UINT32, TENSOR_UINT64S, 2, 2, { 1, UINT32_MAX }, { 1, UINT32_MAX } },
		{ DT_UINT64, TENSOR_UINT64S, 2, 2, { 1, INT64_MIN }, { 1, 0x1p63 } },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct linnet_error e = { 0 };
		struct wire t = { 0 }, w;
		struct linnet_model *m;
		enum linnet_code code;
		struct tensor *out;
		char line[512];

		tensor_head(&t, cases[i].dt, 1, &cases[i].n);
		packed_ints(&t, cases[i].field, cases[i].entry, (size_t)cases[i].nentry);
		w = model_of(&t);
		m = load(&w, &code, line);
		assert_int_equal(code, LINNET_OK);
		if (proto_tensor(m, proto_model(m)->graph->initializer[0], &out, &e))
			fail_msg("%s: %s", dtype_name(cases[i].dt), e.message);
		assert_int_equal(out->dt, cases[i].dt);
		assert_int_equal(out->rank, 1);
		assert_int_equal(out->n, cases[i].n);
		for (int64_t k = 0; k < out->n; k++)
			if (tensor_get(out, k) != cases[i].value[k])
				fail_msg("%s[%d] is %g", dtype_name(cases[i].dt), (int)k, tensor_get(out, k));
		model_free(m);
	}
}

static struct tensor *only_tensor(struct linnet_model *m, const struct wire *t)
{
	static struct wire w; /* stays while the tensor is looked at */
	struct linnet_error e = { 0 };
	struct tensor *out = NULL;

	w = model_of(t);
	if (proto_load_memory(m, w.p, w.n, &e) || proto_tensor(m, proto_model(m)->graph->initializer[0], &out, &e))
		fail_msg("%s", e.message);
	return out;
}

static void other_fields(void **state)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	static const float f[] = { 1, 2, 3, 4 };
	static const double d[] = { 0.1, -2 };
	static const uint8_t six[] = { 0x08 | (0x3f & 3) << 6, 0x3f >> 2 | (0x01 & 15) << 4, 0x01 >> 4 };
	struct wire t = { 0 };
	struct tensor *out;

	(void)state;
	tensor_head(&t, DT_FLOAT, 2, (const int64_t[]){ 2, 2 });
	w_len(&t, TENSOR_FLOATS, f, sizeof f);
	out = only_tensor(m, &t);
	assert_int_equal(out->d[1], 2);
	assert_memory_equal(out->data, f, sizeof f);

	t.n = 0;
	tensor_head(&t, DT_COMPLEX64, 1, (const int64_t[]){ 2 });
	w_len(&t, TENSOR_FLOATS, f, sizeof f);
	out = only_tensor(m, &t);
	assert_int_equal(out->n, 2);
	assert_memory_equal(out->data, f, sizeof f);

	t.n = 0;
	tensor_head(&t, DT_COMPLEX128, 0, NULL);
	w_len(&t, TENSOR_DOUBLES, d, sizeof d);
	out = only_tensor(m, &t);
	assert_int_equal(out->n, 1);
	assert_memory_equal(out->data, d, sizeof d);

	t.n = 0;
	tensor_head(&t, DT_STRING, 1, (const int64_t[]){ 2 });
	w_len(&t, TENSOR_STRINGS, "a\0b", 3);
	w_len(&t, TENSOR_STRINGS, "", 0);
	out = only_tensor(m, &t);
	assert_int_equal(((struct text *)out->data)[0].n, 3);
	assert_memory_equal(((struct text *)out->data)[0].p, "a\0b", 3);
	assert_int_equal(((struct text *)out->data)[1].n, 0);

	t.n = 0; /* three six-bit floats in 18 bits */
	tensor_head(&t, DT_FLOAT6E2M3, 1, (const int64_t[]){ 3 });
	w_len(&t, TENSOR_RAW, six, sizeof six);
	out = only_tensor(m, &t);
	assert_true(tensor_get(out, 0) == 1 && tensor_get(out, 1) == -7.5 && tensor_get(out, 2) == 0.125);

	t.n = 0; /* nothing, in no field */
	tensor_head(&t, DT_FLOAT, 2, (const int64_t[]){ 0, 5 });
	out = only_tensor(m, &t);
	assert_int_equal(out->n, 0);
	assert_non_null(out->data);
	model_free(m);
}

/* Raw data is used where it lies when it lies well, else copied. */
static void raw_is_borrowed(void **state)
{
	struct linnet_error e = { 0 };
	static const int64_t v[] = { 1, -2 };
	int borrowed = 0;

	(void)state;
	for (size_t pad = 0; pad < 8; pad++) {
		struct linnet_model *m = model_new(NULL, &e);
		struct wire t = { 0 }, w;
		_Alignas(8) uint8_t copy[256];
		struct tensor *out;

		w_str(&t, TENSOR_NAME, &"12345678"[pad]);
		tensor_head(&t, DT_INT64, 1, (const int64_t[]){ 2 });
		w_len(&t, TENSOR_RAW, v, sizeof v);
		w = model_of(&t);
		memcpy(copy, w.p, w.n);
		assert_int_equal(proto_load_memory(m, copy, w.n, &e), LINNET_OK);
		assert_int_equal(proto_tensor(m, proto_model(m)->graph->initializer[0], &out, &e), LINNET_OK);
		assert_memory_equal(out->data, v, sizeof v);
		assert_int_equal((uintptr_t)out->data % 8, 0);
		if ((uint8_t *)out->data >= copy && (uint8_t *)out->data < copy + sizeof copy)
			borrowed++;
		model_free(m);
	}
	assert_int_equal(borrowed, 1);
}

static void broken_tensors(void **state)
{
	static const struct {
		enum dtype dt;
		int rank;
		int64_t d[9];
		uint32_t field; /* 0: none */
		size_t bytes;   /* of it, zeros */
		enum linnet_code code;
		const char *says;
	} cases[] = {
		{ 0, 1, { 1 }, TENSOR_RAW, 4, LINNET_ETYPE, "element type 0 is not known" },
		{ DT_COUNT, 1, { 1 }, TENSOR_RAW, 4, LINNET_ETYPE, "element type 29 is not known" },
		{ DT_FLOAT, 1, { -1 }, TENSOR_RAW, 4, LINNET_ESHAPE, "length 0 is -1" },
		{ DT_FLOAT, 9, { 1, 1, 1, 1, 1, 1, 1, 1, 1 }, TENSOR_RAW, 4, LINNET_EUNSUPPORTED, "rank is 9" },
		{ DT_FLOAT, 2, { 1 << 30, 1 << 30 }, TENSOR_RAW, 4, LINNET_ELIMIT, "more than 1099511627776 elements" },
		{ DT_FLOAT, 3, { INT64_MAX, INT64_MAX, 4 }, TENSOR_RAW, 4, LINNET_ELIMIT, "more than" },
		{ DT_FLOAT, 2, { 2, 3 }, TENSOR_RAW, 23, LINNET_EFORMAT, "raw_data has 23 bytes; float[2,3] takes 24" },
		{ DT_FLOAT, 2, { 2, 3 }, TENSOR_FLOATS, 20, LINNET_EFORMAT, "float_data has 5 entries; float[2,3] takes 6" },
		{ DT_FLOAT, 1, { 1 }, 0, 0, LINNET_EFORMAT, "no data for float[1]" },
		{ DT_FLOAT, 1, { 1 }, TENSOR_INT32S, 1, LINNET_EFORMAT, "float elements in int32_data; expected float_data" },
		{ DT_INT4, 1, { 3 }, TENSOR_RAW, 1, LINNET_EFORMAT, "raw_data has 1 bytes; int4[3] takes 2" },
		{ DT_FLOAT6E3M2, 1, { 5 }, TENSOR_RAW, 5, LINNET_EFORMAT, "takes 4" },
		{ DT_COMPLEX64, 1, { 2 }, TENSOR_FLOATS, 12, LINNET_EFORMAT, "float_data has 3 entries; complex64[2] takes 4" },
		{ DT_STRING, 1, { 1 }, TENSOR_RAW, 4, LINNET_EFORMAT, "strings in raw_data" },
		{ DT_FLOAT, 1, { 0 }, TENSOR_RAW, 4, LINNET_EFORMAT, "raw_data has 4 bytes; float[0] takes 0" },
	};
	static const uint8_t zeros[64];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct linnet_error e = { 0 };
		struct wire t = { 0 }, w;
		struct linnet_model *m;
		enum linnet_code code;
		struct tensor *out;
		char line[512];

		tensor_head(&t, cases[i].dt, cases[i].rank, cases[i].d);
		if (cases[i].field)
			w_len(&t, cases[i].field, zeros, cases[i].bytes);
		w = model_of(&t);
		m = load(&w, &code, line);
		assert_int_equal(code, LINNET_OK);
		code = proto_tensor(m, proto_model(m)->graph->initializer[0], &out, &e);
		if (code != cases[i].code || !strstr(e.message, cases[i].says))
			fail_msg("case %zu: %s: %s", i, linnet_code_name(code), e.message);
		model_free(m);
	}
}

/* Entries that do not fit the element type, and data in two places. */
static void broken_entries(void **state)
{
	static const struct {
		enum dtype dt;
		uint32_t field;
		int64_t entry;
		const char *says;
	} cases[] = {
		{ DT_INT8, TENSOR_INT32S, 128, "int32_data[0] is 128; int8 admits [-128, 127]" },
		{ DT_UINT8, TENSOR_INT32S, -1, "int32_data[0] is -1; uint8 admits [0, 255]" },
		{ DT_BOOL, TENSOR_INT32S, 2, "bool admits [0, 1]" },
		{ DT_FLOAT16, TENSOR_INT32S, 65536, "float16 admits [0, 65535]" },
		{ DT_FLOAT6E2M3, TENSOR_INT32S, 64, "float6e2m3 admits [0, 63]" },
		{ DT_UINT32, TENSOR_UINT64S, (int64_t)1 << 32, "uint32 admits [0, 4294967295]" },
	};
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	struct wire t = { 0 }, w;
	struct tensor *out;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		err_clear(&e);
		t.n = 0;
		tensor_head(&t, cases[i].dt, 0, NULL);
		packed_ints(&t, cases[i].field, &cases[i].entry, 1);
		w = model_of(&t);
		assert_int_equal(proto_load_memory(m, w.p, w.n, &e), LINNET_OK);
		assert_int_equal(proto_tensor(m, proto_model(m)->graph->initializer[0], &out, &e), LINNET_EVALUE);
		if (!strstr(e.message, cases[i].says))
			fail_msg("%s", e.message);
	}
	err_clear(&e);
	w_len(&t, TENSOR_RAW, "1234", 4);
	w = model_of(&t);
	assert_int_equal(proto_load_memory(m, w.p, w.n, &e), LINNET_OK);
	assert_int_equal(proto_tensor(m, proto_model(m)->graph->initializer[0], &out, &e), LINNET_EFORMAT);
	assert_string_equal(e.message, "data in both raw_data and uint64_data");
	model_free(m);
}

/* ---- Sparse tensors ---- */

static struct wire sparse_of(enum dtype dt, const void *raw, size_t nraw, int64_t nnz, const int64_t *index, int width, int rank,
                             const int64_t *d)
{
	struct wire values = { 0 }, indices = { 0 }, sparse = { 0 }, graph = { 0 }, w = { 0 };

	tensor_head(&values, dt, 1, &nnz);
	w_len(&values, TENSOR_RAW, raw, nraw);
	tensor_head(&indices, DT_INT64, width ? 2 : 1, (const int64_t[]){ nnz, width });
	w_len(&indices, TENSOR_RAW, index, (size_t)(nnz * (width ? width : 1)) * sizeof *index);
	w_msg(&sparse, 1, &values);
	w_msg(&sparse, 2, &indices);
	for (int i = 0; i < rank; i++)
		w_int(&sparse, 3, d[i]);
	w_msg(&graph, 15, &sparse);
	w_int(&w, MODEL_IR, 10);
	w_msg(&w, MODEL_GRAPH, &graph);
	return w;
}

static void sparse_tensors(void **state)
{
	static const float v[] = { 5, 7 }, dense[] = { 0, 0, 5, 0, 7, 0 };
	static const uint8_t nibbles = 0x21;
	static const int64_t d[] = { 2, 3 }, huge[] = { 1 << 20, 1 << 20 };
	static const struct {
		enum dtype dt;
		int width;
		int64_t index[4];
		const int64_t *d;
		enum linnet_code code;
		const char *says;
	} cases[] = {
		{ DT_FLOAT, 0, { 2, 4 }, d, LINNET_OK, "" },
		{ DT_FLOAT, 2, { 0, 2, 1, 1 }, d, LINNET_OK, "" },
		{ DT_UINT4, 2, { 0, 2, 1, 1 }, d, LINNET_OK, "" },
		{ DT_FLOAT, 0, { 2, 6 }, d, LINNET_EVALUE, "index 1 is 6; there are 6 elements" },
		{ DT_FLOAT, 0, { -1, 4 }, d, LINNET_EVALUE, "index 0 is -1" },
		{ DT_FLOAT, 0, { 4, 4 }, d, LINNET_EVALUE, "index 1 is not above the one before it" },
		{ DT_FLOAT, 2, { 0, 2, 1, 3 }, d, LINNET_EVALUE, "index 1 along axis 1 is 3; the length is 3" },
		{ DT_FLOAT, 3, { 0, 0, 0, 0 }, d, LINNET_ESHAPE, "indices must be [2] or [2,2]" },
		{ DT_FLOAT, 0, { 2, 4 }, huge, LINNET_ELIMIT, "dense it takes 4398046511104 bytes" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct linnet_error e = { 0 };
		bool narrow = cases[i].dt == DT_UINT4;
		int64_t index[6] = { 0 };
		struct linnet_model *m = model_new(NULL, &e);
		enum linnet_code code;
		struct tensor *t;
		struct wire w;

		memcpy(index, cases[i].index, sizeof cases[i].index);
		w = sparse_of(cases[i].dt, narrow ? (const void *)&nibbles : v, narrow ? 1 : sizeof v, 2, index, cases[i].width, 2,
		              cases[i].d);
		assert_int_equal(proto_load_memory(m, w.p, w.n, &e), LINNET_OK);
		code = proto_sparse(m, proto_model(m)->graph->sparse_initializer[0], &t, &e);
		if (code != cases[i].code || !strstr(e.message, cases[i].says))
			fail_msg("case %zu: %s: %s", i, linnet_code_name(code), e.message);
		if (!code && narrow)
			assert_true(tensor_get(t, 2) == 1 && tensor_get(t, 4) == 2 && tensor_get(t, 3) == 0 && t->n == 6);
		else if (!code)
			assert_memory_equal(t->data, dense, sizeof dense);
		model_free(m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(broken_wire),      cmocka_unit_test(limits_hold),     cmocka_unit_test(bytes_are_kept),
		cmocka_unit_test(repeated_singles), cmocka_unit_test(packed_or_not),   cmocka_unit_test(typed_integers),
		cmocka_unit_test(other_fields),     cmocka_unit_test(raw_is_borrowed), cmocka_unit_test(broken_tensors),
		cmocka_unit_test(broken_entries),   cmocka_unit_test(sparse_tensors),  cmocka_unit_test(text_is_recognised),
	};

	return cmocka_run_group_tests_name("proto", tests, NULL, NULL);
}
