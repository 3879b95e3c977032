/*
 * Delta rules: a token writes what its key does not recall yet.
 *
 *	u(x) = SiLU(x W) / |SiLU(x W)|      beta = sigmoid(k w + b)      y = delta(u(q), u(k), v, g, beta) W_o
 *
 * W, W_o are a matrix a head, at first the identity; w and b at first 0. Keys of length 1 and beta below 1 keep the rule stable.
 * Source: Yang et al. 2024 (DeltaNet), Yang et al. 2024 (Gated DeltaNet); what is inherited of softmax attention is our own.
 */
#include "converter/build.h"
#include "ops/base/str.h"

static value_id unit(struct build *b, value_id x, int64_t heads, const char *name)
{
	struct str t;

	str_init(&t, b->scratch);
	str_addf(&t, "(float[B,H,T,D] x, float[H,D,D] w) => (float[B,H,T,D] y) {\n"
	             "  u = MatMul (x, w)\n"
	             "  s = Sigmoid (u)\n"
	             "  a = Mul (u, s)\n"
	             "  square = Mul (a, a)\n"
	             "  last = Constant <value_ints = [-1]> ()\n"
	             "  sum = ReduceSum (square, last)\n"
	             "  tiny = Constant <value_float = %s> ()\n"
	             "  more = Add (sum, tiny)\n"
	             "  length = Sqrt (more)\n"
	             "  y = Div (a, length) }",
	         b->dt == DT_FLOAT16 ? "1e-7" : "1e-12"); /* the least that float16 has is 6e-8 */
	return build_value(b, str_done(&t), BUILD_IN(x, build_identity(b, name, heads, b->D, b->D)));
}

static void delta(struct build *b, value_id *y)
{
	const struct fade *fade = fade_of(b->opt);
	struct recurrence r = { .v = b->v, .H = b->H, .G = b->G, .F = b->D, .E = b->E, .by_channel = fade && fade->by_channel };

	b->features = b->D;
	r.q = unit(b, b->q, b->H, "q_w");
	r.k = unit(b, b->k, b->G, "k_w");
	r.g = build_fade(b, fade, b->D);
	r.beta = build_value(b, "(float[B,G,T,D] k, float[G,D,1] w, float[G,1,1] b) => (float[B,G,T,1] beta) {\n"
	                        "  u = MatMul (k, w)\n"
	                        "  x = Add (u, b)\n"
	                        "  beta = Sigmoid (x) }",
	                     BUILD_IN(b->plain_k, build_filled(b, "beta_w", 3, (int64_t[]){ b->G, b->D, 1 }, 0),
	                              build_filled(b, "beta_b", 3, (int64_t[]){ b->G, 1, 1 }, 0)));
	*y = build_value(b, "(float[B,H,T,E] o, float[H,E,E] w) => (float[B,H,T,E] y) { y = MatMul (o, w) }",
	                 BUILD_IN(build_recurrence(b, &r, "state"), build_identity(b, "o_w", b->H, b->E, b->E)));
}

#define DELTA .build = delta, .normaliser = NORM_NONE, .per_query = true, .conv = 4, .corrects = true

static const struct mechanism rows[] = {
	{
		.name = "delta",
		.doc = "the delta rule on SiLU(W x) of length 1, behind short convolutions",
		.source = "Yang et al., Parallelizing Linear Transformers with the Delta Rule, 2024, section 2.2",
		DELTA,
	},
	{
		.name = "gated-delta",
		.doc = "the delta rule on SiLU(W x) of length 1, behind short convolutions, fading by a gate a head and token",
		.source = "Yang et al., Gated Delta Networks, 2024, section 3",
		DELTA,
		.fade = "token",
	},
	{
		.name = "kda",
		.doc = "the same, fading by a gate a key channel and token",
		.source = "Kimi Linear, 2025, section 3",
		DELTA,
		.fade = "channel",
	},
};

const struct mechanism_family delta_family = { rows, sizeof rows / sizeof *rows };
