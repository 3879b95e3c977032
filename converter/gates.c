/*
 * What fades by gates of the data, and mechanisms whose gates do more than fade.
 *
 * Gates look at the keys before their rotation. New projections start so that every gate is constant, or is the key itself.
 */
#include <stdio.h>

#include "converter/build.h"
#include "ops/base/str.h"

static int64_t slots_of(const struct build *b) { return b->opt->features ? b->opt->features : b->D; }

/* ---- Fades ---- */

/*
 * g = -softplus(k w + b), one number a head and token, as Mamba-2's and Gated DeltaNet's; at first w = 0 and b from -5 to -1 across heads,
 * which leaves .993 to .73 of the past a token. Source: Dao and Gu 2024; Yang et al., Gated Delta Networks, 2024.
 */
static value_id token_gate(struct build *b, int64_t width)
{
	struct tensor *bias = build_tensor(b, 3, (int64_t[]){ b->G, 1, 1 });
	value_id in[3] = { b->plain_k, build_filled(b, "gate_w", 3, (int64_t[]){ b->G, b->D, 1 }, 0), 0 };

	(void)width;
	for (int64_t h = 0; bias && h < b->G; h++)
		tensor_put(bias, h, b->G > 1 ? -5 + 4.0 * (double)h / (double)(b->G - 1) : -3);
	in[2] = build_param(b, "gate_b", bias);
	return build_value(b, "(float[B,G,T,D] k, float[G,D,1] w, float[G,1,1] b) => (float[B,G,T,1] g) {\n"
	                      "  u = MatMul (k, w)\n"
	                      "  x = Add (u, b)\n"
	                      "  s = Softplus (x)\n"
	                      "  g = Neg (s) }", in);
}

const struct fade token_fade = { .name = "token", .doc = "a gate a head and token: -softplus(k w + b)", .gate = token_gate };

/* g = logsigmoid(k W1 W2 + b) / 16, k the keys of all heads, W1 drawn and 16 wide, W2 and b at first 0. Source: Yang et al. 2024, section 4.2. */
static value_id channel_gate(struct build *b, int64_t width)
{
	enum { RANK = 16 };
	int64_t n = b->G * b->D, m = b->G * width;
	struct str t;

	str_init(&t, b->scratch);
	str_addf(&t, "(float[B,G,T,D] k, float[N,r] w1, float[r,M] w2, float[M] b) => (float[B,G,T,F] g) {\n"
	             "  kt = Transpose <perm = [0, 2, 1, 3]> (k)\n"
	             "  ks = Constant <value_ints = [0, 0, %lld]> ()\n"
	             "  k3 = Reshape (kt, ks)\n"
	             "  u1 = MatMul (k3, w1)\n"
	             "  u2 = MatMul (u1, w2)\n"
	             "  u = Add (u2, b)\n"
	             "  n = Neg (u)\n"
	             "  s = Softplus (n)\n"
	             "  slow = Constant <value_float = -0.0625> ()\n"
	             "  g3 = Mul (s, slow)\n"
	             "  gs = Constant <value_ints = [0, 0, %lld, %lld]> ()\n"
	             "  gt = Reshape (g3, gs)\n"
	             "  g = Transpose <perm = [0, 2, 1, 3]> (gt) }",
	         (long long)n, (long long)b->G, (long long)width);
	return build_value(b, str_done(&t), BUILD_IN(b->plain_k, build_drawn(b, "gate_w1", 2, (int64_t[]){ n, RANK }),
	                                            build_filled(b, "gate_w2", 2, (int64_t[]){ RANK, m }, 0),
	                                            build_filled(b, "gate_b", 1, &m, 0)));
}

const struct fade channel_fade = { .name = "channel", .doc = "a gate a key channel and token: logsigmoid(k W1 W2 + b) / 16",
	                           .gate = channel_gate, .by_channel = true };

/* -slope, or a fade's constant log, by head. */
static value_id constant_fade(struct build *b, const struct fade *f)
{
	struct tensor *g = build_tensor(b, 4, (int64_t[]){ 1, b->G, 1, 1 });

	for (int64_t h = 0; g && h < b->G; h++)
		tensor_put(g, h, f ? f->log_factor(b->opt, h, b->G) : -b->slope[h * b->R]);
	return build_value(b, "(float[B,G,T,D] k, float[a,G,c,d] c) => (float[B,G,T,1] g) {\n"
	                      "  lead = Shape <start = 0, end = 3> (k)\n"
	                      "  one = Constant <value_ints = [1]> ()\n"
	                      "  shape = Concat <axis = 0> (lead, one)\n"
	                      "  g = Expand (c, shape) }", BUILD_IN(b->k, build_param(b, f ? "fade" : "slope", g)));
}

value_id build_sloped(struct build *b, value_id g)
{
	value_id slope = b->slope ? constant_fade(b, NULL) : 0;

	return g && slope ? patch_node(b->p, "Add", b->hint, PATCH_IN(g, slope), 1, NULL) : g ? g : slope;
}

value_id build_fade(struct build *b, const struct fade *f, int64_t width)
{
	return build_sloped(b, !f ? 0 : f->gate ? f->gate(b, width) : constant_fade(b, f));
}

/* ---- HGRN2: the key is what the gate lets go ---- */

/* f = k W + b as a gate's logits; at first k and 3, which leaves .95. */
static value_id logits(struct build *b, int64_t width, double bias)
{
	return build_value(b, "(float[B,G,T,D] k, float[G,D,F] w, float[G,1,F] b) => (float[B,G,T,F] f) {\n"
	                      "  u = MatMul (k, w)\n"
	                      "  f = Add (u, b) }",
	                   BUILD_IN(b->plain_k, build_identity(b, "gate_w", b->G, b->D, width),
	                            build_filled(b, "gate_b", 3, (int64_t[]){ b->G, 1, width }, bias)));
}

/* log sigmoid(f) / slow. */
static value_id slowly(struct build *b, value_id f, double slow)
{
	struct str t;

	str_init(&t, b->scratch);
	str_addf(&t, "(float[B,G,T,F] f) => (float[B,G,T,F] g) {\n"
	             "  n = Neg (f)\n"
	             "  s = Softplus (n)\n"
	             "  c = Constant <value_float = %#.9g> ()\n"
	             "  g = Mul (s, c) }", -1 / slow);
	return build_value(b, str_done(&t), BUILD_IN(f));
}

/* 1 - sigmoid(f). */
static value_id let_go(struct build *b, value_id f)
{
	return build_value(b, "(float[B,G,T,F] f) => (float[B,G,T,F] k) {\n"
	                      "  n = Neg (f)\n"
	                      "  k = Sigmoid (n) }", BUILD_IN(f));
}

static value_id by_key(struct build *b, value_id q, value_id k, value_id g)
{
	b->features = b->D;
	return build_recurrence(b, &(struct recurrence){ .q = q, .k = k, .v = b->v, .g = build_sloped(b, g), .H = b->H, .G = b->G, .F = b->D, .E = b->E,
	                                                 .by_channel = true }, "state");
}

static void hgrn2(struct build *b, value_id *y)
{
	value_id f = logits(b, b->D, 3), q = build_value(b, "(float[B,H,T,D] x) => (float[B,H,T,D] y) {\n"
	                                                    "  s = Sigmoid (x)\n"
	                                                    "  y = Mul (x, s) }", &b->q);

	*y = build_norm(b, by_key(b, q, let_go(b, f), slowly(b, f, 1)), false);
}

/* ---- GSA: M slots of keys and of values, both fading by slot ---- */

/*
 *	K_t = K_{t-1} diag(e^g) + k^T s      p = softmax(scale q K_t)      V_t = diag(e^g) V_{t-1} + s^T v      y = p V_t      s = 1 - e^g
 */
static value_id through_slots(struct build *b, value_id g, double scale, int64_t slots)
{
	struct recurrence keys = { .k = b->k, .g = build_sloped(b, g), .H = b->H, .G = b->G, .F = b->D, .E = slots, .by_value = true }, values;
	value_id p;

	b->features = slots;
	keys.q = scale == 1 ? b->q : patch_node(b->p, "Mul", b->hint, PATCH_IN(b->q, patch_float(b->p, b->dt, scale, "scale")), 1, NULL);
	keys.v = build_value(b, "(float[B,G,T,M] g) => (float[B,G,T,M] s) {\n"
	                        "  e = Exp (g)\n"
	                        "  one = Constant <value_float = 1.0> ()\n"
	                        "  s = Sub (one, e) }", &g);
	p = build_value(b, "(float[B,H,T,M] x) => (float[B,H,T,M] y) { y = Softmax <axis = -1> (x) }",
	                BUILD_IN(build_recurrence(b, &keys, "slot_key")));
	values = (struct recurrence){ .q = p, .k = keys.v, .v = b->v, .g = keys.g, .H = b->H, .G = b->G, .F = slots, .E = b->E, .by_channel = true };
	return build_recurrence(b, &values, "slot_value");
}

static void gsa(struct build *b, value_id *y)
{
	*y = through_slots(b, slowly(b, logits(b, slots_of(b), 0), 8), b->scale, slots_of(b));
}

/* ---- Liger: gates pooled from the keys, nothing new to learn ---- */

/* The keys of all heads, D each, averaged to `width` a head: of n numbers into m, number i is the mean of those from i n / m to (i + 1) n / m. */
static value_id pooled(struct build *b, int64_t width)
{
	int64_t n = b->G * b->D, m = b->G * width;
	struct tensor *w;
	struct str t;

	if (width == b->D)
		return b->plain_k;
	w = build_tensor(b, 2, (int64_t[]){ n, m });
	for (int64_t i = 0; w && i < m; i++) {
		int64_t from = i * n / m, to = ((i + 1) * n + m - 1) / m;

		for (int64_t j = from; j < to; j++)
			tensor_put(w, j * m + i, 1 / (double)(to - from));
	}
	str_init(&t, b->scratch);
	str_addf(&t, "(float[B,G,T,D] k, float[N,M] w) => (float[B,G,T,F] f) {\n"
	             "  kt = Transpose <perm = [0, 2, 1, 3]> (k)\n"
	             "  ks = Constant <value_ints = [0, 0, %lld]> ()\n"
	             "  k3 = Reshape (kt, ks)\n"
	             "  f3 = MatMul (k3, w)\n"
	             "  fs = Constant <value_ints = [0, 0, %lld, %lld]> ()\n"
	             "  ft = Reshape (f3, fs)\n"
	             "  f = Transpose <perm = [0, 2, 1, 3]> (ft) }",
	         (long long)n, (long long)b->G, (long long)width);
	return build_value(b, str_done(&t), BUILD_IN(b->plain_k, build_param(b, "pool", w)));
}

static const char softmax[] = "(float[B,H,T,D] x) => (float[B,H,T,D] y) { y = Softmax <axis = -1> (x) }";

static void liger_gla(struct build *b, value_id *y)
{
	*y = by_key(b, build_value(b, softmax, &b->q), build_value(b, softmax, &b->k), slowly(b, b->plain_k, 16));
}

static void liger_hgrn2(struct build *b, value_id *y)
{
	*y = by_key(b, build_value(b, softmax, &b->q), let_go(b, b->k), slowly(b, b->plain_k, 1));
}

static void liger_gsa(struct build *b, value_id *y)
{
	*y = through_slots(b, slowly(b, pooled(b, slots_of(b)), 16), 1, slots_of(b));
}

/* ---- SUPRA ---- */

/* relu(x W + b) over the heads side by side, W uniform as fresh layers are. */
static value_id rectified(struct build *b, value_id x, int64_t heads, const char *w, const char *bias)
{
	int64_t n = heads * b->D;
	struct str t;

	str_init(&t, b->scratch);
	str_addf(&t, "(float[B,H,T,D] x, float[N,N] w, float[N] b) => (float[B,H,T,D] y) {\n"
	             "  xt = Transpose <perm = [0, 2, 1, 3]> (x)\n"
	             "  xs = Constant <value_ints = [0, 0, %lld]> ()\n"
	             "  x3 = Reshape (xt, xs)\n"
	             "  u = MatMul (x3, w)\n"
	             "  v = Add (u, b)\n"
	             "  r = Relu (v)\n"
	             "  ys = Constant <value_ints = [0, 0, %lld, %lld]> ()\n"
	             "  yt = Reshape (r, ys)\n"
	             "  y = Transpose <perm = [0, 2, 1, 3]> (yt) }",
	         (long long)n, (long long)heads, (long long)b->D);
	return build_value(b, str_done(&t), BUILD_IN(x, build_drawn(b, w, 2, (int64_t[]){ n, n }), build_filled(b, bias, 1, &n, 0)));
}

/* The map comes before the rotation, so weights may be negative and the output is brought to scale by itself. */
static void supra(struct build *b, value_id *y)
{
	const struct fade *fade = fade_of(b->opt);
	value_id q = build_turn(b, rectified(b, b->q, b->H, "q_w", "q_b"), b->turned_q),
	         k = build_turn(b, rectified(b, b->k, b->G, "k_w", "k_b"), b->turned_k);
	struct recurrence r = { .k = k, .v = b->v, .g = build_fade(b, fade, b->D), .H = b->H, .G = b->G, .F = b->D, .E = b->E,
		                .by_channel = fade && fade->by_channel };

	r.q = patch_node(b->p, "Mul", b->hint, PATCH_IN(q, patch_float(b->p, b->dt, b->scale, "scale")), 1, NULL);
	b->features = b->D;
	*y = build_norm(b, build_recurrence(b, &r, "state"), true);
}

/* ---- Rows ---- */

static const struct mechanism rows[] = {
	{
		.name = "gla",
		.doc = "x itself, fading by a gate a key channel and token; the output is brought to a root mean square of 1",
		.source = "Yang et al., Gated Linear Attention, 2024, section 4",
		.map = "(float[B,H,T,D] x) => (float[B,H,T,F] y) { y = Identity (x) }",
		.scaled = true,
		.normaliser = NORM_RMS,
		.fade = "channel",
	},
	{
		.name = "mamba2",
		.doc = "x sigmoid(x), fading by a gate a head and token; the output is brought to a root mean square of 1",
		.source = "Dao and Gu, Transformers are SSMs, 2024, section 7",
		.map = "(float[B,H,T,D] x) => (float[B,H,T,F] y) {\n"
		       "  s = Sigmoid (x)\n"
		       "  y = Mul (x, s) }",
		.normaliser = NORM_RMS,
		.fade = "token",
		.conv = 4,
	},
	{
		.name = "hgrn2",
		.doc = "gate a = sigmoid(k W + b) a key channel, key 1 - a, query q sigmoid(q); the output is brought to a root mean square of 1",
		.source = "Qin et al., HGRN2, 2024, section 3",
		.build = hgrn2,
		.plain = true,
		.normaliser = NORM_RMS,
	},
	{
		.name = "gsa",
		.doc = "softmax over slots of keys and values, which fade by gates sigmoid(k W + b)^(1/8) a slot",
		.source = "Zhang et al., Gated Slot Attention, 2024, section 3",
		.build = gsa,
		.normaliser = NORM_NONE,
	},
	{
		.name = "supra",
		.doc = "max(W x + b, 0) before the rotation, fading by ALiBi's slopes; the output is brought to a root mean square of 1 about its mean",
		.source = "Mercat et al., Linearizing Large Language Models, 2024, section 3",
		.build = supra,
		.plain = true,
		.normaliser = NORM_GROUP,
		.fade = "slopes",
	},
	{
		.name = "liger-gla",
		.doc = "softmax(q) and softmax(k) over a head's width, fading by sigmoid(k)^(1/16) a key channel",
		.source = "Lan et al., Liger, 2025, section 3, as released",
		.build = liger_gla,
		.plain = true,
		.normaliser = NORM_NONE,
	},
	{
		.name = "liger-hgrn2",
		.doc = "gate sigmoid(k) a key channel, key 1 - sigmoid(k), query softmax(q)",
		.source = "Lan et al., Liger, 2025, section 3, as released",
		.build = liger_hgrn2,
		.plain = true,
		.normaliser = NORM_NONE,
	},
	{
		.name = "liger-gsa",
		.doc = "softmax over slots of keys and values, which fade by gates sigmoid(pooled k)^(1/16) a slot",
		.source = "Lan et al., Liger, 2025, section 3, as released",
		.build = liger_gsa,
		.plain = true,
		.normaliser = NORM_NONE,
	},
};

const struct mechanism_family gate_family = { rows, sizeof rows / sizeof *rows };
