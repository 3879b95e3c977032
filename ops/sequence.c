/*
 * Sequences and optionals: values that hold tensors. Members are handed on as they are, never copied, so an operator costs as many
 * pointers as the sequence has members.
 *
 * Source: ONNX SequenceEmpty-11 to SplitToSequence-24, SequenceMap-17, Optional-15, OptionalHasElement-18, OptionalGetElement-18
 * and their wider versions of opset 28.
 */
#include <string.h>

#include "ops/kernel.h"

/* What most of the operators admit. */
#define HELD (COMMON & ~SET(BFLOAT16))

/* ---- Positions ---- */

/* Input i as a position among n; without it the last of them. */
static enum linnet_code position(const struct kernel_call *c, int i, int64_t n, int64_t *out)
{
	int64_t at = i < c->nin && c->in[i] ? tensor_get_int(c->in[i], 0) : n - 1;

	if (at < -n || at >= n)
		return fail(c->e, LINNET_EVALUE, n ? "position %lld is not in [%lld, %lld]" : "position %lld is asked for; there is none",
		            (long long)at, (long long)-n, (long long)n - 1);
	*out = at < 0 ? at + n : at;
	return LINNET_OK;
}

/* The output is of the same kind as input 0, of tensors that have its shape. */
static enum linnet_code erase_shape(struct shape_call *c)
{
	c->out[0].shape = c->in[0]->shape;
	return scalar_check(c, 1);
}

/* ---- Making sequences ---- */

static enum linnet_code empty_shape(struct shape_call *c)
{
	const struct attr *dtype = attr_get(c->op, c->attr, "dtype");
	int64_t dt = attr_given(dtype) ? dtype->i : DT_FLOAT;

	if (dt <= DT_UNDEFINED || dt >= DT_COUNT || !dtype_in((enum dtype)dt, c->op->types[T]))
		return fail(c->e, LINNET_EATTR, "dtype is %lld, which %s does not admit", (long long)dt, c->op->name);
	c->out[0].dt = (enum dtype)dt;
	return LINNET_OK;
}

static enum linnet_code empty_kernel(struct kernel_call *c)
{
	struct tensor **member;

	return give_members(c, 0, 0, &member);
}

static enum linnet_code construct_shape(struct shape_call *c)
{
	struct shape *s = &c->out[0].shape;

	for (int i = 0; i < c->nin; i++) {
		if (!c->in[i])
			return fail(c->e, LINNET_EMODEL, "input %d is left out but is not optional", i);
		if (i)
			shape_share(s, &c->in[i]->shape);
		else
			*s = c->in[i]->shape;
	}
	return LINNET_OK;
}

static enum linnet_code construct_kernel(struct kernel_call *c)
{
	struct tensor **member;

	TRY(give_members(c, 0, c->nin, &member));
	for (int i = 0; i < c->nin; i++)
		member[i] = as_member(c->in[i]);
	return LINNET_OK;
}

/* ---- Members in and out ---- */

static enum linnet_code length_shape(struct shape_call *c)
{
	c->out[0].shape = (struct shape){ .rank = 0 };
	return LINNET_OK;
}

static enum linnet_code length_kernel(struct kernel_call *c)
{
	tensor_put_int(c->out[0], 0, c->in[0]->n);
	return LINNET_OK;
}

static enum linnet_code at_kernel(struct kernel_call *c)
{
	int64_t at;

	TRY(position(c, 1, c->in[0]->n, &at));
	c->pick = tensor_member(c->in[0], at);
	return LINNET_OK;
}

static enum linnet_code erase_kernel(struct kernel_call *c)
{
	int64_t n = c->in[0]->n, at, k = 0;
	struct tensor **member;

	TRY(position(c, 1, n, &at));
	TRY(give_members(c, 0, n - 1, &member));
	for (int64_t i = 0; i < n; i++)
		if (i != at)
			member[k++] = as_member(tensor_member(c->in[0], i));
	return LINNET_OK;
}

static enum linnet_code insert_shape(struct shape_call *c)
{
	c->out[0].shape = c->in[0]->shape;
	shape_share(&c->out[0].shape, &c->in[1]->shape);
	return scalar_check(c, 2);
}

static enum linnet_code insert_kernel(struct kernel_call *c)
{
	int64_t n = c->in[0]->n, at = n, k = 0;
	struct tensor **member;

	if (c->nin > 2 && c->in[2] && tensor_get_int(c->in[2], 0) != n) /* n itself is a place behind all others */
		TRY(position(c, 2, n, &at));
	TRY(give_members(c, 0, n + 1, &member));
	for (int64_t i = 0; i <= n; i++)
		member[i] = as_member(i == at ? c->in[1] : tensor_member(c->in[0], k++));
	return LINNET_OK;
}

/* ---- SplitToSequence ---- */

/* The lengths of the pieces of an axis of length n: equal ones but for the last, or those listed. */
struct pieces {
	int64_t count, size;
	const struct tensor *list; /* NULL: all of `size` */
};

static int64_t piece_length(const struct pieces *p, int64_t n, int64_t i)
{
	if (p->list)
		return tensor_get_int(p->list, i);
	return i + 1 < p->count ? p->size : n - i * p->size;
}

static enum linnet_code find_pieces(const struct tensor *split, int64_t n, struct pieces *p, struct linnet_error *e)
{
	int64_t left = n;

	*p = (struct pieces){ .size = 1 };
	for (int64_t i = 0; split && i < split->n; i++) {
		int64_t v = tensor_get_int(split, i);

		if (v < !split->rank) /* the text wants listed ones positive too, but ONNX's own test has an empty piece */
			return fail(e, LINNET_EVALUE, "split[%lld] is %lld; expected at least %d", (long long)i, (long long)v, !split->rank);
		if (split->rank && v > left)
			return fail(e, LINNET_EVALUE, "the lengths in split exceed that of the axis, %lld", (long long)n);
		left -= split->rank ? v : 0;
		p->size = v;
	}
	if (split && split->rank) {
		if (left)
			return fail(e, LINNET_EVALUE, "the lengths in split sum to %lld; the axis has %lld", (long long)(n - left), (long long)n);
		p->list = split;
		p->count = split->n;
		return LINNET_OK;
	}
	p->count = n / p->size + (n % p->size != 0);
	return LINNET_OK;
}

/* What the pieces share: their length, or DIM_NONE. */
static enum linnet_code common_length(const struct shape_call *c, const struct type *split, dim n, dim *out)
{
	struct pieces p;

	*out = split ? DIM_NONE : 1;
	if (!split || !split->value)
		return LINNET_OK;
	if (dim_is_int(n))
		TRY(find_pieces(split->value, n, &p, c->e));
	for (int64_t i = 0; i < split->value->n; i++) {
		int64_t v = tensor_get_int(split->value, i);

		if (i && v != *out) {
			*out = DIM_NONE;
			return LINNET_OK;
		}
		*out = v;
	}
	if (split->shape.rank)
		return LINNET_OK;
	if (dim_is_int(n) && *out > n)
		*out = n;
	else if (*out < 1 || !dim_divides(c->dims, *out, n))
		*out = DIM_NONE;
	return LINNET_OK;
}

static enum linnet_code split_shape(struct shape_call *c)
{
	const struct type *split = c->nin > 1 ? c->in[1] : NULL;
	struct shape *s = &c->out[0].shape;
	int axis;

	TRY(rank_check(c, 1, 0, 1));
	if (c->in[0]->shape.rank < 0)
		return LINNET_OK;
	TRY(axis_check(attr_get(c->op, c->attr, "axis")->i, c->in[0]->shape.rank, &axis, c->e));
	*s = c->in[0]->shape;
	if (split || attr_get(c->op, c->attr, "keepdims")->i)
		return common_length(c, split, s->d[axis], &s->d[axis]);
	s->rank--;
	for (int i = axis; i < s->rank; i++)
		s->d[i] = s->d[i + 1];
	return LINNET_OK;
}

static enum linnet_code split_kernel(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *split = c->nin > 1 ? c->in[1] : NULL;
	bool keep = split || attr_get(c->op, c->attr, "keepdims")->i;
	int64_t d[MAX_RANK], kept[MAX_RANK], from[MAX_RANK], to[MAX_RANK], start = 0;
	struct tensor **member;
	struct pieces p;
	int axis;

	TRY(axis_check(attr_get(c->op, c->attr, "axis")->i, x->rank, &axis, c->e));
	TRY(find_pieces(split, x->d[axis], &p, c->e));
	TRY(give_members(c, 0, p.count, &member));
	strides(x->rank, x->d, from);
	memcpy(d, x->d, sizeof d);
	for (int64_t i = 0; i < p.count; i++) {
		int rank = 0;

		d[axis] = piece_length(&p, x->d[axis], i);
		for (int k = 0; k < x->rank; k++)
			if (keep || k != axis)
				kept[rank++] = d[k];
		TRY(tensor_new(c->scratch, x->dt, rank, kept, &member[i], c->e));
		strides(x->rank, d, to);
		copy_box(member[i], 0, to, x, start * from[axis], from, x->rank, d);
		start += d[axis];
	}
	return LINNET_OK;
}

/* ---- ConcatFromSequence ---- */

/* The members joined: the sum of their lengths along `axis`, or their number along a new one. */
static enum linnet_code joined_shape(const struct tensor *seq, int axis, bool stack, struct shape *out, struct linnet_error *e)
{
	const struct tensor *first = tensor_member(seq, 0);
	int64_t length = 0;
	int r = 0;

	for (int64_t i = 0; i < seq->n; i++) {
		const struct tensor *t = tensor_member(seq, i);
		bool fits = t->rank == first->rank;

		for (int k = 0; fits && k < t->rank; k++)
			fits = t->d[k] == first->d[k] || (k == axis && !stack);
		if (!fits)
			return fail(e, LINNET_ESHAPE, "member %lld of the sequence has another shape than the first", (long long)i);
		if (__builtin_add_overflow(length, stack ? 1 : t->d[axis], &length))
			return fail(e, LINNET_ELIMIT, "the lengths of the members sum to more than a length can be");
	}
	out->rank = first->rank + stack;
	for (int k = 0; k < out->rank; k++)
		out->d[k] = k == axis ? length : first->d[stack ? r++ : k];
	return LINNET_OK;
}

static enum linnet_code concat_axis(const struct op *op, const struct attr *attr, int rank, int *axis, bool *stack,
                                    struct linnet_error *e)
{
	*stack = attr_get(op, attr, "new_axis")->i;
	TRY(rank_limit(rank + *stack, e));
	return axis_check(attr_get(op, attr, "axis")->i, rank + *stack, axis, e);
}

static enum linnet_code concat_shape(struct shape_call *c)
{
	const struct tensor *seq = c->in[0]->value;
	struct shape member = c->in[0]->shape, *s = &c->out[0].shape;
	int axis, r = 0;
	bool stack;

	if (seq && !seq->n)
		return fail(c->e, LINNET_EVALUE, "the sequence is empty");
	if (seq)
		member.rank = tensor_member(seq, 0)->rank;
	if (member.rank < 0)
		return LINNET_OK;
	TRY(concat_axis(c->op, c->attr, member.rank, &axis, &stack, c->e));
	if (seq)
		return joined_shape(seq, axis, stack, s, c->e);
	s->rank = member.rank + stack;
	for (int k = 0; k < s->rank; k++)
		s->d[k] = k == axis ? DIM_NONE : member.d[stack ? r++ : k];
	return LINNET_OK;
}

static enum linnet_code concat_kernel(struct kernel_call *c)
{
	struct tensor *y = c->out[0];
	int64_t to[MAX_RANK], from[MAX_RANK], d[MAX_RANK], start = 0;
	int axis;
	bool stack;

	TRY(concat_axis(c->op, c->attr, tensor_member(c->in[0], 0)->rank, &axis, &stack, c->e));
	strides(y->rank, y->d, to);
	for (int64_t i = 0; i < c->in[0]->n; i++) {
		const struct tensor *t = tensor_member(c->in[0], i);

		memcpy(d, y->d, sizeof d);
		d[axis] = stack ? 1 : t->d[axis];
		strides(y->rank, d, from);
		copy_box(y, start * to[axis], to, t, 0, from, y->rank, d);
		start += d[axis];
	}
	return LINNET_OK;
}

/* ---- Optionals ---- */

static enum linnet_code optional_shape(struct shape_call *c)
{
	const struct attr *type = attr_get(c->op, c->attr, "type");
	const struct type *t = c->nin ? c->in[0] : NULL;
	char found[64];

	if (!t && !attr_given(type))
		return fail(c->e, LINNET_EATTR, "neither an element nor the type of one is given");
	t = t ? t : type->type;
	if (!dtype_in(t->dt, c->op->types[T] | 1) || !kind_in(t->kind, TENSORS | SEQUENCES))
		return fail(c->e, LINNET_ETYPE, "the element would be %s, which %s does not admit", kind_str(t, found, sizeof found),
		            c->op->name);
	if (attr_given(type) && t->dt && (type->type->dt != t->dt || type->type->kind != t->kind))
		return fail(c->e, LINNET_ETYPE, "the element is %s, not what attribute \"type\" says", kind_str(t, found, sizeof found));
	c->out[0] = (struct type){ .kind = kind_optional(t->kind), .dt = t->dt, .shape = t->shape };
	return LINNET_OK;
}

static enum linnet_code optional_kernel(struct kernel_call *c)
{
	bool full = c->nin && c->in[0];
	struct tensor **member;

	TRY(give_members(c, 0, full, &member));
	if (full)
		member[0] = as_member(c->in[0]);
	return LINNET_OK;
}

static enum linnet_code has_element_kernel(struct kernel_call *c)
{
	const struct tensor *t = c->nin ? c->in[0] : NULL;

	tensor_put_int(c->out[0], 0, t && (!kind_in(t->kind, OPTIONALS) || t->n));
	return LINNET_OK;
}

static enum linnet_code get_element_shape(struct shape_call *c)
{
	const struct type *t = c->in[0];

	c->out[0].kind = kind_in(t->kind, OPTIONALS) ? kind_member(t->kind) : t->kind;
	c->out[0].shape = t->shape;
	return LINNET_OK;
}

static enum linnet_code get_element_kernel(struct kernel_call *c)
{
	const struct tensor *t = c->in[0];
	bool held = kind_in(t->kind, OPTIONALS);

	if (held && !t->n)
		return fail(c->e, LINNET_EVALUE, "the optional has no element");
	c->pick = held ? tensor_member(t, 0) : t;
	return LINNET_OK;
}

/* ---- Rows ---- */

static const struct op rows[] = {
	{
		.name = "SequenceEmpty", .since = 11,
		.doc = "A sequence without tensors, of an element type: float when `dtype` does not say another.",
		.out = OUT({ "output", T, .kinds = SEQUENCES }),
		.attr = ATTRS({ .name = "dtype", .kind = ATTR_INT, .flags = OPTIONAL }),
		.types = { [T] = HELD },
		.agree = AGREE_BITS,
		.shape = empty_shape, .kernel = empty_kernel,
	},
	{
		.name = "SequenceConstruct", .since = 11,
		.doc = "The inputs as a sequence.",
		.in = IN({ "inputs", T, FLOW_NONE, VARIADIC }),
		.out = OUT({ "output_sequence", T, .kinds = SEQUENCES }),
		.types = { [T] = HELD },
		.agree = AGREE_BITS,
		.shape = construct_shape, .kernel = construct_kernel,
	},
	{
		.name = "SequenceLength", .since = 11,
		.doc = "How many tensors a sequence has.",
		.in = IN({ "input_sequence", T, .kinds = SEQUENCES }),
		.out = OUT({ "length", T1 }),
		.types = { [T] = HELD, [T1] = SET(INT64) },
		.agree = AGREE_BITS,
		.shape = length_shape, .kernel = length_kernel,
	},
	{
		.name = "SequenceAt", .since = 11,
		.doc = "The tensor at a position of a sequence; negative ones count from its end.",
		.in = IN({ "input_sequence", T, .kinds = SEQUENCES }, { "position", T1 }),
		.out = OUT({ "tensor", T }),
		.types = { [T] = HELD, [T1] = INDICES },
		.agree = AGREE_BITS, .flags = OP_PICK,
		.shape = erase_shape, .kernel = at_kernel,
	},
	{
		.name = "SequenceErase", .since = 11,
		.doc = "A sequence without the tensor at a position, the last one by default.",
		.in = IN({ "input_sequence", T, .kinds = SEQUENCES }, { "position", T1, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output_sequence", T, .kinds = SEQUENCES }),
		.types = { [T] = HELD, [T1] = INDICES },
		.agree = AGREE_BITS,
		.shape = erase_shape, .kernel = erase_kernel,
	},
	{
		.name = "SequenceInsert", .since = 11,
		.doc = "A sequence with one more tensor: before the one at a position, by default behind the last.",
		.in = IN({ "input_sequence", T, .kinds = SEQUENCES }, { "tensor", T }, { "position", T1, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output_sequence", T, .kinds = SEQUENCES }),
		.types = { [T] = HELD, [T1] = INDICES },
		.agree = AGREE_BITS,
		.shape = insert_shape, .kernel = insert_kernel,
	},
	{
		.name = "SequenceMap", .since = 17,
		.doc = "A graph run on each tensor of a sequence, with the tensors at the same position of further sequences and with other "
		       "inputs whole; its outputs as sequences.",
		.in = IN({ "input_sequence", T, .kinds = SEQUENCES },
		         { "additional_inputs", T1, FLOW_NONE, VARIADIC | HETERO | OPTIONAL, .kinds = TENSORS | SEQUENCES }),
		.out = OUT({ "out_sequence", T2, FLOW_NONE, VARIADIC | HETERO, .kinds = SEQUENCES }),
		.attr = ATTRS({ .name = "body", .kind = ATTR_GRAPH, .flags = REQUIRED }),
		.types = { [T] = HELD, [T1] = HELD, [T2] = HELD },
		.agree = AGREE_ROUND, .flags = OP_CONTROL,
	},
	{
		.name = "SplitToSequence", .since = 11,
		.doc = "The pieces of a tensor along an axis as a sequence: of the lengths in `split`, or each of the one length there but for "
		       "the last. Without `split` they have length 1, and no such axis when `keepdims` is 0.",
		.in = IN({ "input", T }, { "split", T1, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output_sequence", T, .kinds = SEQUENCES }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT },
		              { .name = "keepdims", .kind = ATTR_INT, .i = 1 }),
		.types = { [T] = COMMON, [T1] = INDICES },
		.agree = AGREE_BITS,
		.shape = split_shape, .kernel = split_kernel,
	},
	{
		.name = "ConcatFromSequence", .since = 11,
		.doc = "The tensors of a sequence one behind the other along an axis, which is a new one when `new_axis` is 1.",
		.in = IN({ "input_sequence", T, .kinds = SEQUENCES }),
		.out = OUT({ "concat_result", T }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT, .flags = REQUIRED },
		              { .name = "new_axis", .kind = ATTR_INT, .lo = 0, .hi = 1 }),
		.types = { [T] = HELD },
		.agree = AGREE_BITS,
		.shape = concat_shape, .kernel = concat_kernel,
	},
	{
		.name = "Optional", .since = 15,
		.doc = "An optional that holds the input, or one of a given type that holds nothing.",
		.in = IN({ "input", T, FLOW_NONE, OPTIONAL, .kinds = TENSORS | SEQUENCES }),
		.out = OUT({ "output", T, .kinds = OPTIONALS }),
		.attr = ATTRS({ .name = "type", .kind = ATTR_TYPE, .flags = OPTIONAL }),
		.types = { [T] = ANY_DTYPE },
		.agree = AGREE_BITS,
		.shape = optional_shape, .kernel = optional_kernel,
	},
	{
		.name = "OptionalHasElement", .since = 15,
		.doc = "Whether an optional holds something. A tensor or a sequence does; an input that is left out does not.",
		.in = IN({ "input", T, FLOW_NONE, OPTIONAL, .kinds = TENSORS | SEQUENCES | OPTIONALS }),
		.out = OUT({ "output", T1 }),
		.types = { [T] = ANY_DTYPE, [T1] = SET(BOOL) },
		.agree = AGREE_BITS,
		.shape = length_shape, .kernel = has_element_kernel,
	},
	{
		.name = "OptionalGetElement", .since = 15,
		.doc = "What an optional holds; a tensor or a sequence itself.",
		.in = IN({ "input", T, FLOW_NONE, .kinds = TENSORS | SEQUENCES | OPTIONALS }),
		.out = OUT({ "output", T, .kinds = TENSORS | SEQUENCES }),
		.types = { [T] = ANY_DTYPE },
		.agree = AGREE_BITS, .flags = OP_PICK,
		.shape = get_element_shape, .kernel = get_element_kernel,
	},
};

const struct op_family sequence_ops = FAMILY("sequence", rows);
