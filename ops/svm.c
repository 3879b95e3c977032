/*
 * ai.onnx.ml's support vector machines, as libsvm evaluates them. Reference kernels, then rows.
 *
 * Letters: N samples, F features, V support vectors, C classes.
 */
#include "ops/ml.h"

/* ---- Attributes ---- */

static enum linnet_code expect_length(const struct shape_call *c, const char *name, int64_t expected)
{
	int64_t n = list_length(attr_get(c->op, c->attr, name));

	if (n != expected)
		return fail(c->e, LINNET_EATTR, "attribute \"%s\" has %lld elements; expected %lld", name, (long long)n, (long long)expected);
	return LINNET_OK;
}

static enum linnet_code expect_kernel(const struct shape_call *c)
{
	int64_t n = list_length(attr_get(c->op, c->attr, "kernel_params"));

	if (n != 0 && n != 3)
		return fail(c->e, LINNET_EATTR, "attribute \"kernel_params\" has %lld elements; expected 3: gamma, coef0, degree", (long long)n);
	return LINNET_OK;
}

/* ---- Kernels ---- */

/* K(x, v): LINEAR x.v, POLY (gamma x.v + coef0)^degree, RBF exp(-gamma |x - v|^2), SIGMOID tanh(gamma x.v + coef0) */
struct function {
	enum { LINEAR, POLY, RBF, SIGMOID } kind;
	double gamma, coef0, degree;
};

static struct function function_of(const struct kernel_call *c)
{
	const struct attr *p = attr_of(c, "kernel_params");
	struct function k = { (unsigned)attr_choice(c->op, c->attr, "kernel_type"), 0, 0, 0 };

	if (list_length(p)) {
		k.gamma = (double)p->floats[0];
		k.coef0 = (double)p->floats[1];
		k.degree = (double)p->floats[2];
	}
	return k;
}

static double apply(const struct function *k, const struct tensor *x, int64_t sample, const float *v)
{
	int64_t f = feature_count(x);
	double dot = 0, distance = 0;

	for (int64_t i = 0; i < f; i++) {
		double a = tensor_get(x, sample * f + i), b = (double)v[i];

		dot += a * b;
		distance += (a - b) * (a - b);
	}
	switch (k->kind) {
	case POLY: return pow(k->gamma * dot + k->coef0, k->degree);
	case RBF: return exp(-k->gamma * distance);
	case SIGMOID: return tanh(k->gamma * dot + k->coef0);
	default: return dot;
	}
}

/* ---- Regression ---- */

/* Y: [N, 1] */
static enum linnet_code shape_regress(struct shape_call *c)
{
	int64_t v = attr_get(c->op, c->attr, "n_supports")->i;
	dim n, f;

	TRY(samples_shape(c, &n, &f));
	TRY(expect_kernel(c));
	TRY(expect_length(c, "rho", 1));
	if (v) {
		TRY(expect_length(c, "coefficients", v));
		TRY(matrix_check(c, "support_vectors", v, f));
	} else {
		TRY(matrix_check(c, "coefficients", 1, f));
	}
	c->out[0].shape = (struct shape){ .rank = 2, .d = { n, 1 } };
	return LINNET_OK;
}

/*
 * s = sum of coefficients[j] K(x, vector[j]) + rho, without support vectors x . coefficients + rho. Y is s transformed (onnxruntime
 * leaves it as it is), or of a one-class machine 1 where s > 0, else -1.
 */
static enum linnet_code regress(struct kernel_call *c)
{
	enum transform t = (enum transform)attr_choice(c->op, c->attr, "post_transform");
	const struct attr *w = attr_of(c, "coefficients"), *vectors = attr_of(c, "support_vectors");
	const struct function k = function_of(c), linear = { LINEAR, 0, 0, 0 };
	int64_t v = attr_of(c, "n_supports")->i, f = feature_count(c->in[0]);

	for (int64_t i = 0; i < sample_count(c->in[0]); i++) {
		double s = (double)attr_of(c, "rho")->floats[0];

		for (int64_t j = 0; j < v; j++)
			s += (double)w->floats[j] * apply(&k, c->in[0], i, vectors->floats + j * f);
		if (!v)
			s += apply(&linear, c->in[0], i, w->floats);
		if (attr_of(c, "one_class")->i)
			tensor_put(c->out[0], i, s > 0 ? 1 : -1);
		else
			scores_put(c->out[0], i, &s, 1, t);
	}
	return LINNET_OK;
}

/* ---- Classification ---- */

/*
 * With support vectors there is one decision for each pair of classes i < j, in the order (0, 1), (0, 2), ..., (1, 2), ...; without
 * there is one score for each class.
 */
struct machine {
	struct labels labels;
	int64_t classes, pairs;
	int64_t vectors; /* 0: linear */
	bool probable;   /* prob_a and prob_b make probabilities of decisions */
};

static enum linnet_code machine_read(const struct op *op, const struct attr *attr, struct machine *m, struct linnet_error *e)
{
	const struct attr *per_class = attr_get(op, attr, "vectors_per_class");

	*m = (struct machine){ .classes = 0 };
	TRY(labels_read(op, attr, "classlabels_ints", "classlabels_strings", &m->labels, e));
	m->classes = m->labels.n;
	if (m->classes > UINT16_MAX)
		return fail(e, LINNET_ELIMIT, "%lld classes; at most %d can be compared in pairs", (long long)m->classes, UINT16_MAX);
	m->pairs = m->classes * (m->classes - 1) / 2;
	for (int64_t i = 0; i < list_length(per_class); i++) {
		if (per_class->ints[i] < 0 || per_class->ints[i] > INT32_MAX)
			return fail(e, LINNET_EATTR, "class %lld has %lld support vectors", (long long)i, (long long)per_class->ints[i]);
		m->vectors += per_class->ints[i];
	}
	m->probable = m->vectors && list_length(attr_get(op, attr, "prob_a"));
	return LINNET_OK;
}

/* How many scores a sample has. */
static int64_t score_count(const struct machine *m)
{
	return !m->vectors || m->probable || m->classes == 2 ? m->classes : m->pairs;
}

static enum linnet_code shape_classify(struct shape_call *c)
{
	struct machine m;
	dim n, f;

	TRY(samples_shape(c, &n, &f));
	TRY(machine_read(c->op, c->attr, &m, c->e));
	TRY(expect_kernel(c));
	if (m.vectors) {
		if (m.classes < 2)
			return fail(c->e, LINNET_EATTR, "1 class is listed; support vectors need at least 2");
		TRY(expect_length(c, "vectors_per_class", m.classes));
		TRY(matrix_check(c, "support_vectors", m.vectors, f));
		TRY(matrix_check(c, "coefficients", m.classes - 1, m.vectors));
		TRY(expect_length(c, "rho", m.pairs));
		if (m.probable) {
			TRY(expect_length(c, "prob_a", m.pairs));
			TRY(expect_length(c, "prob_b", m.pairs));
		}
	} else {
		TRY(matrix_check(c, "coefficients", m.classes, f));
		if (!list_length(attr_get(c->op, c->attr, "rho")))
			return fail(c->e, LINNET_EATTR, "attribute \"rho\" has no elements");
	}
	classes_shape(c, &m.labels, n, score_count(&m));
	return LINNET_OK;
}

/*
 * decision of i < j: sum over i's vectors of coefficients[j - 1] K, plus that over j's of coefficients[i] K, plus rho; above
 * 0 it is a vote for i, else for j. k: [V], K(x, v); coefficients: [C - 1, V]
 */
static void decide(const struct kernel_call *c, const struct machine *m, const double *k, double *decision, double *votes)
{
	const float *w = attr_of(c, "coefficients")->floats, *rho = attr_of(c, "rho")->floats;
	const int64_t *count = attr_of(c, "vectors_per_class")->ints;
	int64_t from_i = 0, pair = 0;

	for (int64_t i = 0; i < m->classes; i++)
		votes[i] = 0;
	for (int64_t i = 0; i < m->classes; from_i += count[i++]) {
		int64_t from_j = from_i + count[i];

		for (int64_t j = i + 1; j < m->classes; from_j += count[j++]) {
			double s = (double)rho[pair];

			for (int64_t v = from_i; v < from_i + count[i]; v++)
				s += (double)w[(j - 1) * m->vectors + v] * k[v];
			for (int64_t v = from_j; v < from_j + count[j]; v++)
				s += (double)w[i * m->vectors + v] * k[v];
			votes[s > 0 ? i : j]++;
			decision[pair++] = s;
		}
	}
}

/*
 * Probabilities p of classes from those of pairs, r[i][j] that it is i when it is i or j: minimise the sum over i != j of
 * (r[j][i] p[i] - r[i][j] p[j])^2 with sum p = 1, in rounds over the classes that end when no p changes much.
 * r, q: [C, C]  p, qp: [C]
 * Source: Wu, Lin and Weng, Probability estimates for multi-class classification by pairwise coupling, JMLR 2004, algorithm 2; the
 * bounds of the rounds are libsvm's.
 */
static void couple(int64_t n, const double *r, double *q, double *qp, double *p)
{
	for (int64_t i = 0; i < n; i++) {
		p[i] = 1 / (double)n;
		q[i * n + i] = 0;
		for (int64_t j = 0; j < n; j++) {
			if (j == i)
				continue;
			q[i * n + i] += r[j * n + i] * r[j * n + i];
			q[i * n + j] = -r[j * n + i] * r[i * n + j];
		}
	}
	for (int64_t round = 0; round < (n > 100 ? n : 100); round++) {
		double pqp = 0, error = 0;

		for (int64_t i = 0; i < n; i++) {
			qp[i] = 0;
			for (int64_t j = 0; j < n; j++)
				qp[i] += q[i * n + j] * p[j];
			pqp += p[i] * qp[i];
		}
		for (int64_t i = 0; i < n; i++)
			error = fmax(error, fabs(qp[i] - pqp));
		if (error < 0.005 / (double)n)
			return;
		for (int64_t i = 0; i < n; i++) {
			double d = (pqp - qp[i]) / q[i * n + i];

			p[i] += d;
			pqp = (pqp + d * (d * q[i * n + i] + 2 * qp[i])) / (1 + d) / (1 + d);
			for (int64_t j = 0; j < n; j++) {
				qp[j] = (qp[j] + d * q[i * n + j]) / (1 + d);
				p[j] /= 1 + d;
			}
		}
	}
}

/* r[i][j] = 1 / (1 + exp(prob_a decision + prob_b)), kept 1e-7 away from 0 and 1; then p. room: [2 C^2 + C] */
static void probabilities(const struct kernel_call *c, const struct machine *m, const double *decision, double *room, double *p)
{
	const float *a = attr_of(c, "prob_a")->floats, *b = attr_of(c, "prob_b")->floats;
	int64_t n = m->classes, pair = 0;
	double *r = room, *q = r + n * n, *qp = q + n * n;

	for (int64_t i = 0; i < n; i++)
		for (int64_t j = i + 1; j < n; j++, pair++) {
			double v = logistic_of(-(decision[pair] * (double)a[pair] + (double)b[pair]));

			r[i * n + j] = fmin(fmax(v, 1e-7), 1 - 1e-7);
			r[j * n + i] = 1 - r[i * n + j];
		}
	couple(n, r, q, qp, p);
}

/*
 * Y: the class with the most votes, the first of several; without support vectors that of the largest score (onnxruntime takes the
 * second of two as soon as one score is above 0). Z: probabilities, else the decisions, of which a single one s stands for the
 * scores s', s = -s, s of two classes; transformed (where onnxruntime applies to two classes LOGISTIC alone, and has 1 - s for -s
 * with others). All rows of a linear machine have the first rho, as in onnxruntime and the reference evaluator.
 */
static enum linnet_code classify(struct kernel_call *c)
{
	enum transform t = (enum transform)attr_choice(c->op, c->attr, "post_transform");
	const struct function k = function_of(c), linear = { LINEAR, 0, 0, 0 };
	const struct tensor *x = c->in[0];
	int64_t f = feature_count(x), n;
	struct linnet_error *e = c->e;
	double *value, *decision, *votes, *score, *room = NULL;
	struct machine m;

	TRY(machine_read(c->op, c->attr, &m, e));
	n = score_count(&m);
	TRY_NEW(value, c->scratch, m.vectors);
	TRY_NEW(decision, c->scratch, m.vectors ? m.pairs : 0);
	TRY_NEW(votes, c->scratch, m.classes);
	TRY_NEW(score, c->scratch, n);
	if (m.probable)
		TRY_NEW(room, c->scratch, 2 * m.classes * m.classes + m.classes);
	for (int64_t i = 0; i < sample_count(x); i++) {
		for (int64_t v = 0; v < m.vectors; v++)
			value[v] = apply(&k, x, i, attr_of(c, "support_vectors")->floats + v * f);
		if (m.vectors)
			decide(c, &m, value, decision, votes);
		for (int64_t j = 0; j < m.classes && !m.vectors; j++)
			score[j] = votes[j] = apply(&linear, x, i, attr_of(c, "coefficients")->floats + j * f) + (double)attr_of(c, "rho")->floats[0];
		if (m.probable) {
			probabilities(c, &m, decision, room, score);
		} else if (m.vectors) {
			for (int64_t j = 0; j < m.pairs; j++)
				score[j] = decision[j];
			if (m.classes == 2) {
				score[1] = decision[0];
				score[0] = -score[1];
			}
		}
		if (c->out[0])
			label_put(c->out[0], i, &m.labels, largest(votes, m.classes));
		if (c->out[1])
			scores_put(c->out[1], i * n, score, n, t);
	}
	return LINNET_OK;
}

/* ---- Rows ---- */

#define KERNEL                                                                                     \
	FLOAT_LIST("kernel_params"), { .name = "kernel_type", .kind = ATTR_STRING, .s = "LINEAR", .oneof = "LINEAR|POLY|RBF|SIGMOID" }

static const struct op rows[] = {
	{
		ML, .name = "SVMClassifier", .since = 1,
		.doc = "The class a support vector machine decides for, and probabilities or decisions, transformed.",
		.in = IN({ "X", T1, FLOW_SMOOTH }),
		.out = OUT({ "Y", T2 }, { "Z", T3 }),
		.attr = ATTRS(INT_LIST("classlabels_ints"), STRING_LIST("classlabels_strings"), FLOAT_LIST("coefficients"), KERNEL,
		              POST_TRANSFORM, FLOAT_LIST("prob_a"), FLOAT_LIST("prob_b"), FLOAT_LIST("rho"), FLOAT_LIST("support_vectors"),
		              INT_LIST("vectors_per_class")),
		.types = { [T1] = ML_NUMBERS, [T2] = SET(INT64) | SET(STRING), [T3] = SET(FLOAT) },
		.agree = AGREE_ROUND,
		.shape = shape_classify, .kernel = classify,
	},
	{
		ML, .name = "SVMRegressor", .since = 1,
		.doc = "The value of a support vector machine, transformed, or whether a one-class machine knows the sample (1 or -1).",
		.in = IN({ "X", T, FLOW_SMOOTH }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS(FLOAT_LIST("coefficients"), KERNEL,
		              { .name = "n_supports", .kind = ATTR_INT, .lo = 0, .hi = INT32_MAX }, { .name = "one_class", .kind = ATTR_INT },
		              POST_TRANSFORM, FLOAT_LIST("rho"), FLOAT_LIST("support_vectors")),
		.types = { [T] = ML_NUMBERS, [T1] = SET(FLOAT) },
		.agree = AGREE_ROUND,
		.shape = shape_regress, .kernel = regress,
	},
};
const struct op_family svm_ops = FAMILY("svm", rows);
