/*
 * Recognising activations that are spelled out: Gelu in its forms, Swish, Sigmoid, Softplus, Mish and others become one node. Needs types.
 *
 * Source: Hendrycks and Gimpel, Gaussian Error Linear Units, 2016; Misra, Mish, 2019; Howard et al., Searching for MobileNetV3, 2019.
 */
#include <math.h>
#include <string.h>

#include "graph/bend.h"
#include "graph/why.h"

static bool near(double a, double b)
{
	return fabs(a - b) <= 1e-3 * fabs(b); /* constants as half precision keeps them */
}

/* v^power as constant * factors; inner products have no other use. */
static bool read_product(const struct view *w, value_id v, int power, struct factors *p, bool top)
{
	const struct node *n = top || value_uses(w, v) == 1 ? value_node(w->g, v) : NULL;
	double c;

	if (value_scalar(w->g, v, &c) && c != 0) {
		p->c *= power > 0 ? c : 1 / c;
		return true;
	}
	if (n && (node_is(n, "Mul") || node_is(n, "Div")))
		return read_product(w, n->in[0], power, p, false) && read_product(w, n->in[1], node_is(n, "Div") ? -power : power, p, false);
	if (n && node_is(n, "Neg")) {
		p->c = -p->c;
		return read_product(w, n->in[0], power, p, false);
	}
	if (p->n == MAX_FACTORS)
		return false;
	p->power[p->n] = power;
	p->v[p->n++] = v;
	return true;
}

/* v as a product without divisors. */
static bool product_of(const struct view *w, value_id v, struct factors *p, bool top)
{
	bool whole = true;

	*p = (struct factors){ .c = 1 };
	if (!read_product(w, v, 1, p, top))
		return false;
	for (int i = 0; i < p->n; i++)
		whole = whole && p->power[i] > 0;
	return whole;
}

/* v is c * x^power: its c. */
static bool power_of(const struct view *w, value_id v, value_id x, int power, double *c)
{
	struct factors p;
	int have = 0;
	double k;

	if (!product_of(w, v, &p, false))
		return false;
	for (int i = 0; i < p.n; i++) {
		const struct node *n = value_from(w->g, p.v[i], "Pow");

		if (p.v[i] == x)
			have++;
		else if (n && n->in[0] == x && value_scalar(w->g, n->in[1], &k) && (k == 2 || k == 3))
			have += (int)k;
		else
			return false;
	}
	*c = p.c;
	return have == power;
}

/* The value added to 1 in v. */
static value_id beside_one(const struct graph *g, value_id v)
{
	const struct node *n = value_from(g, v, "Add");
	double one;

	for (int i = 0; n && i < 2; i++)
		if (value_scalar(g, n->in[i], &one) && one == 1)
			return n->in[1 - i];
	return 0;
}

/* t = times sqrt(2/pi) (x + 0.044715 x^3), or with x taken out of the bracket. */
static bool is_tanh_argument(const struct view *w, value_id t, value_id x, double times)
{
	const double root = times * sqrt(2 / 3.14159265358979323846);
	struct factors p;
	const struct node *sum;
	value_id cube;
	double c;

	if (!product_of(w, t, &p, false) || !near(p.c, root))
		return false;
	if (p.n == 1 && (sum = value_from(w->g, p.v[0], "Add")) != NULL)
		for (int i = 0; i < 2; i++)
			if (sum->in[i] == x && power_of(w, sum->in[1 - i], x, 3, &c) && near(c, 0.044715))
				return true;
	for (int i = 0; p.n == 2 && i < 2; i++) {
		cube = p.v[i] == x ? beside_one(w->g, p.v[1 - i]) : 0;
		if (cube && power_of(w, cube, x, 2, &c) && near(c, 0.044715))
			return true;
	}
	return false;
}

/* The product n is only multiplied by a constant: it is part of a larger one. */
static bool is_factor(const struct view *w, const struct node *n)
{
	uint32_t i;
	const struct node *user = value_user(w, n->out[0], &i);
	double c;

	return user && (node_is(user, "Mul") || (node_is(user, "Div") && !i)) && value_scalar(w->g, user->in[1 - i], &c);
}

/* v = 1 + erf(c x) or 1 - erf(-c x), c = 1 / sqrt 2. */
static bool is_erf(const struct view *w, value_id v, value_id x)
{
	const struct node *erf = value_from(w->g, beside_one(w->g, v), "Erf"), *sub = value_from(w->g, v, "Sub");
	double c, one;

	if (erf)
		return power_of(w, erf->in[0], x, 1, &c) && near(c, sqrt(0.5));
	erf = sub && value_scalar(w->g, sub->in[0], &one) && one == 1 ? value_from(w->g, sub->in[1], "Erf") : NULL;
	return erf && power_of(w, erf->in[0], x, 1, &c) && near(c, -sqrt(0.5));
}

/* 0.5 x (1 + erf(x / sqrt 2)) and its tanh approximation, by a sigmoid too; x sigmoid(c x). */
static enum linnet_code activate_product(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	struct factors f;
	double c;

	(void)e;
	if (!product_of(w, n->out[0], &f, true) || f.n != 2)
		return LINNET_OK;
	for (int i = 0; i < 2; i++) {
		value_id x = f.v[i], other = f.v[1 - i], inner = beside_one(g, other);
		const struct node *tanh = value_from(g, inner, "Tanh"), *sigmoid = value_from(g, other, "Sigmoid");
		struct attr approximate[] = { attr_string("approximate", "tanh"), { .name = NULL } };

		if (f.c == 0.5 && is_erf(w, other, x))
			patch_replace(p, n->out[0], patch_node(p, "Gelu", n->name, PATCH_IN(x), 1, NULL));
		else if ((f.c == 0.5 && tanh && is_tanh_argument(w, tanh->in[0], x, 1)) || (f.c == 1 && sigmoid && is_tanh_argument(w, sigmoid->in[0], x, 2)))
			patch_replace(p, n->out[0], patch_node(p, "Gelu", n->name, PATCH_IN(x), 1, approximate));
		else if (f.c == 1 && sigmoid && sigmoid->in[0] != x && power_of(w, sigmoid->in[0], x, 1, &c) && c > 0)
			patch_replace(p, n->out[0], patch_node(p, "Swish", n->name, PATCH_IN(x), 1, (struct attr[]){ attr_float("alpha", c), { .name = NULL } }));
		else if (f.c == 1 && sigmoid && sigmoid->in[0] == x)
			patch_replace(p, n->out[0], patch_node(p, "Swish", n->name, PATCH_IN(x), 1, NULL));
		else
			continue;
		return LINNET_OK;
	}
	for (int i = 0; i < 2; i++) {
		const struct node *curve = value_node(g, beside_one(g, f.v[i]));

		if (curve && (node_is(curve, "Erf") || node_is(curve, "Tanh")) && !is_factor(w, n))
			why_not(w, WHY_GLU_CONSTANTS, curve, n->out[0], 1);
	}
	return LINNET_OK;
}

/* What computes an activation, whatever it is made of; of a product also some factors. */
static enum linnet_code activate_curve(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	struct factors f = { .c = 1, .v = { n->out[0] }, .power = { 1 }, .n = 1 };
	bool product = node_is(n, "Mul") || node_is(n, "Div"), found;
	value_id y = n->out[0], v;
	struct bend c;

	if (product)
		f = (struct factors){ .c = 1 };
	if (is_factor(w, n) || (product && !read_product(w, y, 1, &f, true)))
		return LINNET_OK;
	TRY(bend_read(w, &f, y, &c, &found, e));
	if (!found)
		return LINNET_OK;
	v = patch_node(p, c.op, n->name, PATCH_IN(c.x), 1, c.attr);
	for (int i = 0; i < f.n; i++)
		if (!(c.of >> i & 1))
			v = patch_node(p, f.power[i] > 0 ? "Mul" : "Div", "gated", PATCH_IN(v, f.v[i]), 1, NULL);
	if (c.scale != 1)
		v = patch_node(p, "Mul", "scaled", PATCH_IN(v, patch_float(p, w->g->value[y].type.dt, c.scale, "scale")), 1, NULL);
	patch_replace(p, y, v);
	return LINNET_OK;
}

/*
 * x < c ? c : x is Clip from below, c < x ? c : x from above: how Clip is said where nothing else may be. With a limit below on x already,
 * both.
 */
static enum linnet_code activate_limit(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct node *test = value_node(g, n->in[0]), *from = value_from(g, n->in[2], "Clip");
	value_id x = n->in[2], limit[2] = { 0 };
	enum dtype dt = g->value[x].type.dt;
	double c, tested;
	bool below;

	(void)e;
	if (!test || (!node_is(test, "Less") && !node_is(test, "Greater")) || !dtype_in(dt, FLOATS) || !value_scalar(g, n->in[1], &c) ||
	    !shape_equal(&g->value[x].type.shape, &g->value[n->out[0]].type.shape) || (test->in[0] != x && test->in[1] != x))
		return LINNET_OK;
	if (!value_scalar(g, test->in[test->in[0] == x], &tested) || tested != c)
		return LINNET_OK;
	below = (test->in[0] == x) == node_is(test, "Less");
	limit[!below] = patch_float(p, dt, c, "limit");
	if (!below && from && from->nin > 1 && from->in[1] && (from->nin < 3 || !from->in[2]) && value_uses(w, x) == 2) {
		limit[0] = from->in[1];
		x = from->in[0];
	}
	patch_replace(p, n->out[0], patch_node(p, "Clip", *n->name ? n->name : "limited", PATCH_IN(x, limit[0], limit[1]), 1, NULL));
	return LINNET_OK;
}

static bool is_twice(const struct match *m) { return match_param(m, "a") == 2 * match_param(m, "c"); }

#define UNARY(title, what, first, text, with, ...)                                                 \
	{ .name = "activate/" title, .doc = what, .anchor = first, .from = "(float[] x) => (y) " text, .to = "{ y = " with " (x) }", __VA_ARGS__ }

static const struct rule rules[] = {
	{ .name = "activate/product", .doc = "spelled out, x sigmoid(c x) becomes Swish and the Gaussian error unit, by erf, tanh or sigmoid, Gelu", .anchor = "Mul",
	  .apply = activate_product, .differs = 1e-6 },
	{ .name = "activate/limit", .doc = "a number chosen in place of what lies beyond it becomes Clip", .anchor = "Where", .apply = activate_limit },
	{ .name = "activate/curve", .doc = "what computes an activation, scaled or not, becomes it; of a product also some factors", .anchor = "Mul", .apply = activate_curve, .differs = 1e-6 },
	{ .name = "activate/curve-quotient", .doc = "the same of a quotient", .anchor = "Div", .apply = activate_curve, .differs = 1e-6 },
	{ .name = "activate/curve-reciprocal", .doc = "the same", .anchor = "Reciprocal", .apply = activate_curve, .differs = 1e-6 },
	{ .name = "activate/curve-sum", .doc = "the same", .anchor = "Add", .apply = activate_curve, .differs = 1e-6 },
	{ .name = "activate/curve-difference", .doc = "the same", .anchor = "Sub", .apply = activate_curve, .differs = 1e-6 },
	{ .name = "activate/curve-choice", .doc = "the same", .anchor = "Where", .apply = activate_curve, .differs = 1e-6 },
	{ .name = "activate/curve-larger", .doc = "the same", .anchor = "Max", .apply = activate_curve, .differs = 1e-6 },
	{ .name = "activate/curve-log", .doc = "the same", .anchor = "Log", .apply = activate_curve, .differs = 1e-6 },
	{ .name = "activate/tanh", .doc = "2 sigmoid(x) - 1 becomes Tanh of x / 2", .anchor = "Sub",
	  .from = "(float[] x) => (y) <float a = {@a}, float c = {@c}> { s = Sigmoid (x)  m = Mul (s, a)  y = Sub (m, c) }",
	  .to = "<float half = {0.5}, float c = {@c}> { h = Mul (x, half)  t = Tanh (h)  y = Mul (t, c) }", .guard = is_twice, .differs = 1e-12 },
	UNARY("relu", "the larger of x and 0 becomes Relu", "Max", "<float zero = {0}> { y = Max (x, zero) }", "Relu"),
	UNARY("relu-clip", "x kept from 0 on becomes Relu", "Clip", "<float zero = {0}> { y = Clip (x, zero) }", "Relu"),
	UNARY("hard-sigmoid", "a x + b kept within 0 and 1 becomes HardSigmoid", "Clip",
	      "<float a = {@alpha}, float b = {@beta}, float zero = {0}, float one = {1}> { m = Mul (x, a)  s = Add (m, b)  y = Clip (s, zero, one) }",
	      "HardSigmoid <alpha: float = @alpha, beta: float = @beta>", .differs = 1e-6),
	UNARY("hard-sigmoid-sixth", "x + 3 kept within 0 and 6, over 6, becomes HardSigmoid", "Div",
	      "<float three = {3}, float zero = {0}, float top = {6}, float six = {6}> { s = Add (x, three)  c = Clip (s, zero, top)  y = Div (c, six) }",
	      "HardSigmoid <alpha = 0.16666667, beta = 0.5>", .differs = 1e-6),
	UNARY("hard-sigmoid-part", "the same by a factor", "Mul",
	      "<float three = {3}, float zero = {0}, float top = {6}, float sixth = {0.16666666666666666}>\n"
	      "{ s = Add (x, three)  c = Clip (s, zero, top)  y = Mul (c, sixth) }",
	      "HardSigmoid <alpha = 0.16666667, beta = 0.5>", .near = 1e-3, .differs = 1e-6),
	UNARY("hard-swish", "x times HardSigmoid of x / 6 + 0.5 becomes HardSwish", "Mul", "{ s = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x)  y = Mul (x, s) }", "HardSwish",
	      .near = 1e-6, .differs = 1e-6),
	UNARY("hard-swish-sixth", "x times x + 3 kept within 0 and 6, over 6, becomes HardSwish", "Div",
	      "<float three = {3}, float zero = {0}, float top = {6}, float six = {6}> { s = Add (x, three)  c = Clip (s, zero, top)  m = Mul (x, c)  y = Div (m, six) }",
	      "HardSwish", .differs = 1e-12),
	UNARY("hard-swish-part", "the same by a factor", "Mul",
	      "<float three = {3}, float zero = {0}, float top = {6}, float sixth = {0.16666666666666666}>\n"
	      "{ s = Add (x, three)  c = Clip (s, zero, top)  m = Mul (x, c)  y = Mul (m, sixth) }",
	      "HardSwish", .near = 1e-3, .differs = 1e-6),
};

const struct pass activate_pass = { .name = "activate", .doc = "Recognise activations", .kind = PASS_EXACT, PASS_RULES(rules) };
