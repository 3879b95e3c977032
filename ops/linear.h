/* What kernels and gradients of linear attention and of the convolution before it share: positions, attributes, shapes, text. */
#ifndef LINNET_LINEAR_H
#define LINNET_LINEAR_H

#include "ops/body.h"
#include "ops/op.h"

/* Positions of inputs and attributes. */
enum { IN_QUERY, IN_KEY, IN_VALUE, IN_PAST, IN_DECAY, IN_BETA };
enum { CHUNK_SIZE, KV_NUM_HEADS, Q_NUM_HEADS, SCALE, UPDATE_RULE, STATE_WINDOW };

#define SINGLES (SET(FLOAT) | HALVES)

#define LINEAR_ATTRIBUTES                                                                          \
	[CHUNK_SIZE] = { .name = "chunk_size", .kind = ATTR_INT, .i = 64 },                        \
	[KV_NUM_HEADS] = { .name = "kv_num_heads", .kind = ATTR_INT, .flags = REQUIRED, .lo = 1, .hi = INT32_MAX }, \
	[Q_NUM_HEADS] = { .name = "q_num_heads", .kind = ATTR_INT, .flags = REQUIRED, .lo = 1, .hi = INT32_MAX }, \
	[SCALE] = { .name = "scale", .kind = ATTR_FLOAT },                                         \
	[UPDATE_RULE] = { .name = "update_rule", .kind = ATTR_STRING, .s = "gated_delta",          \
		          .oneof = "linear|gated|delta|gated_delta" }

/* "gated" and "gated_delta" decay, "delta" and "gated_delta" correct. */
static inline bool rule_decays(const struct attr *rule) { return rule->s.p[0] == 'g'; }
static inline bool rule_corrects(const struct attr *rule) { return rule->s.p[rule->s.n - 1] == 'a'; }

/* The shapes of output and present_state; d[2] and d[3] of the state are the widths of a head. */
shape_fn shape_linear_attention;

/* The gradient of a LinearAttention call: one LinearAttentionGrad (linear_grad.c). */
body_fn grad_linear_attention;

/* name: input `in`: [B, T, x y z] as [B, T, x, y, z], in another float type. One of the three may not be a number: it is computed, not left
 * to Reshape, which could not find it when there are no tokens. */
void linear_five(struct body *b, const char *name, const char *in, enum dtype from, enum dtype to, dim x, dim y, dim z);

/* ---- CausalConvWithState ---- */

enum { CONV_INPUT, CONV_WEIGHT, CONV_BIAS, CONV_PAST };

/* What com.microsoft's operator adds; 0 or as the layout says in the row that does not have it. */
struct causal {
	bool last, state_last;  /* channels of the input, of the states */
	int64_t dilation, window; /* window: states kept, 0: the last one, without an axis of its own */
	int64_t length;         /* of the states; 0: what the taps need */
	int64_t channels, offset; /* those of the input that are filtered; 0: all */
	int64_t capacity;       /* rows of state_update */
	bool extended;
};

struct causal causal_of(const struct op *op, const struct attr *attr);

#endif
