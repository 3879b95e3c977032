/*
 * linnet: import, recognise, convert and validate ONNX models.
 *
 * One header, opaque handles. Every function that can fail returns a code and fills the caller's
 * error record; 0 is success. Nothing here aborts on bad input. A handle may be used by one thread
 * at a time; different handles are independent.
 */
#ifndef LINNET_H
#define LINNET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define LINNET_API __attribute__((visibility("default")))
#else
#define LINNET_API
#endif

/* Codes: name, meaning. The program's exit status for each is in cli/main.c. */
#define LINNET_CODES(X)                                                                            \
	X(OK, "success")                                                                           \
	X(EIO, "a file cannot be read or written")                                                 \
	X(EFORMAT, "not a well-formed container")                                                  \
	X(ELIMIT, "beyond a configured limit")                                                     \
	X(EMEM, "out of memory")                                                                   \
	X(EMODEL, "the graph breaks a rule of ONNX")                                               \
	X(ETYPE, "element types do not fit")                                                       \
	X(ESHAPE, "lengths or ranks do not fit")                                                   \
	X(EATTR, "an attribute is missing or out of range")                                        \
	X(EVALUE, "a value is out of range")                                                       \
	X(EUNSUPPORTED, "outside what linnet can do")                                              \
	X(EUSAGE, "the call or command line is wrong")                                             \
	X(EINTERNAL, "an invariant of linnet does not hold: a bug")

enum linnet_code {
#define X(name, text) LINNET_##name,
	LINNET_CODES(X)
#undef X
};

/* The one error record. Empty strings where a part does not apply. */
struct linnet_error {
	enum linnet_code code;
	char file[256];    /* path as the caller gave it */
	char node[128];    /* name of the node, or of the value when there is no node */
	char op[64];       /* operator type of that node */
	char message[512]; /* one sentence: what was found and what was expected */
};

/*
 * Bounds on what is read, checked before use. All zero fields mean the default.
 */
struct linnet_limits {
	size_t size;          /* sizeof(struct linnet_limits) */
	int64_t max_bytes;    /* bytes of one file; default 2^46 */
	int64_t max_nodes;    /* nodes over all graphs; default 2^20 */
	int64_t max_elements; /* elements of one tensor; default 2^40 */
	int64_t max_memory;   /* bytes of activations while running; default 2^40 */
	int max_depth;        /* nesting of messages and subgraphs; default 64, at most 500 */
};

/* The code's name without prefix ("ESHAPE") and its meaning. Never NULL. */
LINNET_API const char *linnet_code_name(enum linnet_code code);
LINNET_API const char *linnet_code_text(enum linnet_code code);

/*
 * The error as one line, `file: node "name" (Op): message`, without a newline.
 * Writes at most n bytes including the terminating zero. Returns buf.
 */
LINNET_API char *linnet_error_line(const struct linnet_error *e, char *buf, size_t n);

#ifdef __cplusplus
}
#endif
#endif
