/* The list of families, and looking rows up. */
#include <pthread.h>
#include <string.h>

#include "ops/base/map.h"
#include "ops/op.h"

#define FAMILIES(X)                                                                                \
	X(unary)                                                                                   \
	X(binary)                                                                                  \
	X(logic)                                                                                   \
	X(reduce)                                                                                  \
	X(matmul)                                                                                  \
	X(norm)                                                                                    \
	X(layout)                                                                                  \
	X(resize)                                                                                  \
	X(sample)                                                                                  \
	X(vision)                                                                                  \
	X(index)                                                                                   \
	X(conv)                                                                                    \
	X(pool)                                                                                    \
	X(quant)                                                                                   \
	X(recurrent)                                                                               \
	X(loss)                                                                                    \
	X(control)                                                                                 \
	X(sequence)                                                                                \
	X(mlmap)                                                                                   \
	X(attention)                                                                               \
	X(linear)                                                                                  \
	X(linear_grad)                                                                             \
	X(glu)                                                                                     \
	X(signal)                                                                                  \
	X(random)                                                                                  \
	X(training)                                                                                \
	X(strings)                                                                                 \
	X(image)                                                                                   \
	X(contrib_attention)                                                                       \
	X(contrib_norm)                                                                            \
	X(legacy)                                                                                  \
	X(contrib)                                                                                 \
	X(contrib_dense)                                                                           \
	X(contrib_moe)                                                                             \
	X(contrib_tokens)                                                                          \
	X(contrib_nbits)                                                                           \
	X(contrib_quant)                                                                           \
	X(ml)                                                                                      \
	X(svm)                                                                                     \
	X(trees)

#define X(name) extern const struct op_family name##_ops;
FAMILIES(X)
#undef X

const struct op_family *const op_families[] = {
#define X(name) &name##_ops,
	FAMILIES(X)
#undef X
	NULL,
};

static const char *canonical(const char *domain)
{
	return !domain || !strcmp(domain, "ai.onnx") ? "" : domain;
}

/* All rows by the hash of their names, in open addressing; more than half of it stays free. */
enum { INDEX = 8192 };

static const struct op *row_index[INDEX];
static pthread_once_t row_index_made = PTHREAD_ONCE_INIT;

static void make_row_index(void)
{
	int rows = 0;

	for (const struct op_family *const *f = op_families; *f; f++)
		for (int i = 0; i < (*f)->n && rows < INDEX / 2; i++, rows++) {
			uint32_t at = map_hash((*f)->op[i].name) % INDEX;

			while (row_index[at])
				at = (at + 1) % INDEX;
			row_index[at] = &(*f)->op[i];
		}
}

const struct op *op_find(const char *domain, const char *name, int opset)
{
	const struct op *best = NULL, *op;

	pthread_once(&row_index_made, make_row_index);
	domain = canonical(domain);
	for (uint32_t at = map_hash(name) % INDEX; (op = row_index[at]); at = (at + 1) % INDEX)
		if (op->since <= opset && (!best || op->since > best->since) && !strcmp(op->name, name) && !strcmp(canonical(op->domain), domain))
			best = op;
	return best;
}

const struct op *op_newest(const char *domain, const char *name)
{
	return op_find(domain, name, OPSET_NEWEST);
}

bool op_is_old(const struct op *op)
{
	if (op->lower || op->write_lower || op->flags & OP_OLD)
		return true;
	for (const struct op_attr *a = op->attr; a && a->name; a++)
		if (a->input)
			return true;
	return false;
}

static int count(const struct op_io *io, bool *variadic)
{
	int n = 0;

	if (variadic)
		*variadic = false;
	for (; io && io[n].name; n++)
		if (variadic && io[n].flags & VARIADIC)
			*variadic = true;
	return n;
}

int op_nin(const struct op *op, bool *variadic) { return count(op->in, variadic); }
int op_nout(const struct op *op, bool *variadic) { return count(op->out, variadic); }

int op_nattr(const struct op *op)
{
	int n = 0;

	while (op->attr && op->attr[n].name)
		n++;
	return n;
}

int op_attr_index(const struct op *op, const char *name)
{
	for (int i = 0; op->attr && op->attr[i].name; i++)
		if (!strcmp(op->attr[i].name, name))
			return i;
	return -1;
}

static const struct op_io *io_at(const struct op_io *io, int i)
{
	bool variadic;
	int n = count(io, &variadic);

	if (i < n)
		return &io[i];
	return variadic ? &io[n - 1] : NULL;
}

const struct op_io *op_in(const struct op *op, int i) { return io_at(op->in, i); }
const struct op_io *op_out(const struct op *op, int i) { return io_at(op->out, i); }

const struct attr *attr_get(const struct op *op, const struct attr *attr, const char *name)
{
	static const struct attr none = { .kind = ATTR_NONE };
	int i = op_attr_index(op, name);

	return i < 0 || !attr ? &none : &attr[i];
}

int attr_choice(const struct op *op, const struct attr *attr, const char *name)
{
	struct text s = attr_get(op, attr, name)->s;
	const char *p = op->attr[op_attr_index(op, name)].oneof;

	for (int i = 0;; i++) {
		size_t n = strcspn(p, "|");

		if ((n == s.n && !memcmp(p, s.p, n)) || !p[n])
			return i;
		p += n + 1;
	}
}

enum op_gradient op_gradient(const struct op *op)
{
	bool in = false, out = false;

	for (const struct op_io *io = op->in; io && io->name; io++)
		in |= io->flow != FLOW_NONE && op->types[io->type] & (SET(FLOAT) | SET(DOUBLE)) && io_kinds(io) & TENSORS;
	for (const struct op_io *io = op->out; io && io->name; io++)
		out |= (op->types[io->type] & (SET(FLOAT) | SET(DOUBLE))) && io_kinds(io) & TENSORS;
	if (op->flags & OP_CONTROL)
		return GRADIENT_GRAPHS;
	if (!in || !out)
		return GRADIENT_NO;
	return op->grad || op->write_grad ? GRADIENT_ROW : op_has_body(op) ? GRADIENT_BODY : GRADIENT_MISSING;
}
