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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(broken_wire),
	};

	return cmocka_run_group_tests_name("proto", tests, NULL, NULL);
}
