/* The graphs that calibration trains: teacher, student and a loss. */
#ifndef LINNET_CALIBRATE_GRAPHS_H
#define LINNET_CALIBRATE_GRAPHS_H

#include "calibrate/calibrate.h"

/* Names of weights, in the graph's arena. */
struct names {
	const char **v;
	int n;
};

/* An output projection to be fitted. */
struct fit {
	const char *weight;         /* its name */
	const struct tensor *w;     /* [K, N], as it is */
	const char *sum[3];         /* values [K, K]: Y^T Y, Y^T X, X^T X, as fit.c has them */
};

/* A graph to train, and what it came of. */
struct lesson {
	struct linnet_model model;  /* its graph; everything else is the source's */
	struct convert_report report;
	struct names fresh;         /* parameters of the mechanisms */
	struct names inherited;     /* weights of the model that WEIGHTS_ALL moves */
	const char *loss;
	const char **error;         /* of each converted layer's, once lesson_transfer() made it */
	struct fit *fit;            /* of layers whose output a matrix projects, once lesson_fit() made them */
	uint32_t nfit;
};

/*
 * The converted model with these weights, ready to run; `beside` as in convert_opt. Everything is in arena a.
 * LINNET_EUNSUPPORTED: nothing is converted.
 */
enum linnet_code lesson_student(const struct linnet_model *m, const struct convert_opt *opt, const struct named_tensor *given, int ngiven, enum beside beside,
                                struct arena *a, struct lesson *out, struct linnet_error *e);

/* Of a student beside its attention: each layer's error, and the loss, which is their mean. */
enum linnet_code lesson_transfer(struct lesson *l, struct linnet_error *e);

/* Of a student beside its attention: its output "soft" or "linear" of a layer. */
value_id lesson_output(const struct lesson *l, const char *what, uint32_t layer);

/* Of a student beside its attention: the sums that its output projections are fitted by. */
enum linnet_code lesson_fit(struct lesson *l, struct linnet_error *e);

/* The projection, from its three sums one behind the other; before, after: |Y W - X W0|^2 / |X W0|^2. LINNET_EVALUE: sums are no numbers. */
enum linnet_code fit_solve(const struct fit *f, const double *sum, struct arena *a, struct tensor **w, double *before, double *after, struct linnet_error *e);

/* Of a student: the teacher joins it; the loss is how far their outputs are apart; with `task` half of it, and the model's own loss, if any. */
enum linnet_code lesson_distil(struct lesson *l, const struct linnet_model *teacher, bool task, struct linnet_error *e);

/* Of a student that is no language model: its own loss, or, where it has none, the distance from the teacher. */
enum linnet_code lesson_task(struct lesson *l, const struct linnet_model *teacher, struct linnet_error *e);

/* Of a student: matrices W that nodes multiply by become W + s A B, A drawn, B 0. Their names in `out`, "a.W", "b.W". */
enum linnet_code lesson_low_rank(struct lesson *l, int64_t rank, uint64_t seed, struct names *out, struct linnet_error *e);

/* s = alpha / r; alpha = 2 r. Source: Hu et al., LoRA, 2021, section 4.1 */
enum { LOW_RANK_SCALE = 2 };

#endif
