/* What the parser and the printer of the text form have to agree on. */
#ifndef LINNET_TEXT_SYNTAX_H
#define LINNET_TEXT_SYNTAX_H

#include <locale.h>
#include <string.h>
#include <strings.h>

#include "graph/onnx.pb-c.h"
#include "graph/text.h"

#define ATTR_TYPE(NAME) ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__##NAME

/* Kinds of attributes: word of the text form, number, field that holds the value, word of one element of a list. */
#define TEXT_ATTRS(X)                                                                              \
	X(float, ATTR_TYPE(FLOAT), f, "")                                                          \
	X(int, ATTR_TYPE(INT), i, "")                                                              \
	X(string, ATTR_TYPE(STRING), s, "")                                                        \
	X(tensor, ATTR_TYPE(TENSOR), t, "")                                                        \
	X(graph, ATTR_TYPE(GRAPH), g, "")                                                          \
	X(sparse_tensor, ATTR_TYPE(SPARSE_TENSOR), sparse_tensor, "")                              \
	X(type_proto, ATTR_TYPE(TYPE_PROTO), tp, "")                                               \
	X(floats, ATTR_TYPE(FLOATS), floats, "float")                                              \
	X(ints, ATTR_TYPE(INTS), ints, "int")                                                      \
	X(strings, ATTR_TYPE(STRINGS), strings, "string")                                          \
	X(tensors, ATTR_TYPE(TENSORS), tensors, "tensor")                                          \
	X(graphs, ATTR_TYPE(GRAPHS), graphs, "graph")                                              \
	X(sparse_tensors, ATTR_TYPE(SPARSE_TENSORS), sparse_tensors, "sparse_tensor")              \
	X(type_protos, ATTR_TYPE(TYPE_PROTOS), type_protos, "type_proto")

/*
 * Fields that the syntax of a message says itself, with a blank around each. All others of a model or function are written in
 * its header, `<field: value, ...>`, of everything else in a note after it, `&{field: value, ...}`.
 */
static inline const char *text_said(const ProtobufCMessageDescriptor *d)
{
	if (d == &onnx__model_proto__descriptor)
		return " graph functions ";
	if (d == &onnx__function_proto__descriptor)
		return " name input output attribute attribute_proto node value_info ";
	if (d == &onnx__graph_proto__descriptor)
		return " name input output initializer value_info node ";
	if (d == &onnx__node_proto__descriptor)
		return " name input output domain op_type overload attribute ";
	if (d == &onnx__value_info_proto__descriptor)
		return " name type ";
	if (d == &onnx__attribute_proto__descriptor)
		return " name ref_attr_name ";
	if (d == &onnx__tensor_proto__descriptor)
		return " dims data_type name ";
	if (d == &onnx__type_proto__descriptor)
		return " tensor_type sequence_type map_type optional_type sparse_tensor_type opaque_type ";
	if (d == &onnx__tensor_shape_proto__dimension__descriptor)
		return " dim_value dim_param ";
	return "";
}

/* Whether the blank-separated list has the word. */
static inline bool text_listed(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = list; (p = strstr(p, word)) != NULL; p += n)
		if (p > list && p[-1] == ' ' && p[n] == ' ')
			return true;
	return false;
}

/* Letters, digits and underscores as ASCII has them, whatever the locale. */
static inline bool text_alpha(int c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
static inline bool text_digit(int c) { return c >= '0' && c <= '9'; }

/* Length of the identifier at p, 0 when there is none. */
static inline size_t text_word(const char *p, const char *end)
{
	size_t n = 0;

	if (p < end && text_alpha(*p))
		while (p + n < end && (text_alpha(p[n]) || text_digit(p[n])))
			n++;
	return n;
}

static inline bool text_is(const char *p, size_t n, const char *word)
{
	return strlen(word) == n && !memcmp(p, word, n);
}

/* A word that starts a type. */
static inline bool text_type_word(const char *p, size_t n)
{
	return dtype_parse(p, n) != DT_UNDEFINED || text_is(p, n, "seq") || text_is(p, n, "map") || text_is(p, n, "optional") ||
	       text_is(p, n, "sparse_tensor") || text_is(p, n, "opaque") || text_is(p, n, "undefined") || text_is(p, n, "untyped");
}

/* A word that is a number: inf, infinity, nan, in any case. */
static inline bool text_number_word(const char *p, size_t n)
{
	return (n == 3 && (!strncasecmp(p, "inf", 3) || !strncasecmp(p, "nan", 3))) || (n == 8 && !strncasecmp(p, "infinity", 8));
}

/* Numbers are written with a point whatever the program's locale is: it is set aside while we read and write. */
struct text_locale {
	locale_t own, old;
};

static inline enum linnet_code text_locale_enter(struct text_locale *l, struct linnet_error *e)
{
	l->own = newlocale(LC_ALL_MASK, "C", (locale_t)0);
	if (!l->own)
		return fail_mem(e);
	l->old = uselocale(l->own);
	return LINNET_OK;
}

static inline void text_locale_leave(struct text_locale *l)
{
	uselocale(l->old);
	freelocale(l->own);
}

/* A number written as text to the bits of one element of a float type, rounded once; narrow types go through double. */
void text_real(const char *digits, enum dtype dt, void *bits);

#endif
