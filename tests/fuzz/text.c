/*
 * Fuzz target: bytes as a model in the text form. What parses is printed and parsed again: the same tree, byte for byte, and the
 * same text from it. What is printed in brief parses as well. Errors name a line and fit one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/onnx.pb-c.h"
#include "graph/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define CHECK(what)                                                                                \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what);  \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static struct linnet_model *new_model(void)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);

	CHECK(m);
	return m;
}

static uint8_t *packed(const struct linnet_model *m, size_t *n)
{
	uint8_t *p;

	*n = onnx__model_proto__get_packed_size(m->proto);
	p = malloc(*n + 1);
	CHECK(p);
	CHECK(onnx__model_proto__pack(m->proto, p) == *n);
	return p;
}

static char *printed(struct linnet_model *m, const struct text_opt *opt)
{
	struct linnet_error e = { 0 };
	char *text;

	CHECK(!text_print_model(m, opt, m->arena, &text, &e));
	return text;
}

static void parse_again(struct linnet_model *m, const char *text)
{
	struct linnet_error e = { 0 };

	if (text_parse(m, text, strlen(text), &e)) {
		fprintf(stderr, "%s\nin\n%s", e.message, text);
		abort();
	}
}

/* Text, parsed, is the model it was printed from. */
static void check_round(struct linnet_model *m, const char *text, bool same_tree)
{
	struct linnet_model *again = new_model();
	size_t n1, n2;
	uint8_t *p1, *p2;

	parse_again(again, text);
	CHECK(!strcmp(printed(again, NULL), text));
	if (!same_tree) {
		model_free(again);
		return;
	}
	p1 = packed(m, &n1);
	p2 = packed(again, &n2);
	CHECK(n1 == n2 && !memcmp(p1, p2, n1));
	free(p1);
	free(p2);
	model_free(again);
}

static void check_brief(struct linnet_model *m)
{
	const struct text_opt brief = { .max_elements = 2, .brief = true };
	struct linnet_model *again = new_model();
	const char *text = printed(m, &brief);

	parse_again(again, text);
	CHECK(!strcmp(printed(again, &brief), text));
	model_free(again);
}

static bool has(const uint8_t *data, size_t n, const char *word)
{
	size_t len = strlen(word);

	for (size_t i = 0; i + len <= n; i++)
		if (!memcmp(data + i, word, len))
			return true;
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct linnet_model *m = new_model();
	struct linnet_error e = { 0 };
	enum linnet_code code = text_parse(m, (const char *)data, n, &e);

	if (code) {
		CHECK(code == e.code && code != LINNET_EINTERNAL);
		CHECK(code != LINNET_EFORMAT || !strncmp(e.message, "line ", 5));
		for (const char *p = e.message; *p; p++)
			CHECK((unsigned char)*p >= ' ');
	} else {
		/* Elements given as float_data and the like in a note are raw data when printed and parsed. */
		check_round(m, printed(m, NULL), !has(data, n, "_data"));
		check_brief(m);
	}
	model_free(m);
	return 0;
}
