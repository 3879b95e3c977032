/* The graphs that calibration trains: teacher, student and a loss. */
#ifndef LINNET_CALIBRATE_GRAPHS_H
#define LINNET_CALIBRATE_GRAPHS_H

#include "calibrate/calibrate.h"

/* Names of weights, in the graph's arena. */
struct names {
	const char **v;
	int n;
};

/* A graph to train, and what it came of. */
struct lesson {
	struct linnet_model model;  /* its graph; everything else is the source's */
	struct convert_report report;
	struct names fresh;         /* parameters of the mechanisms */
	struct names inherited;     /* weights of the model that WEIGHTS_ALL moves */
	const char *loss;
	const char **error;         /* of each converted layer's, once lesson_transfer() made it */
};

/*
 * The converted model with these weights, ready to run; `beside` as in convert_opt. Everything is in arena a.
 * LINNET_EUNSUPPORTED: nothing is converted.
 */
enum linnet_code lesson_student(const struct linnet_model *m, const struct convert_opt *opt, const struct named_tensor *given, int ngiven, bool beside,
                                struct arena *a, struct lesson *out, struct linnet_error *e);

/* Of a student beside its attention: each layer's error, and the loss, which is their mean. */
enum linnet_code lesson_transfer(struct lesson *l, struct linnet_error *e);

/* Of a student: the teacher joins it; the loss is how far their outputs are apart; with `task` half of it, and the model's own loss, if any. */
enum linnet_code lesson_distil(struct lesson *l, const struct linnet_model *teacher, bool task, struct linnet_error *e);

/* Of a student that is no language model: its own loss, or, where it has none, the distance from the teacher. */
enum linnet_code lesson_task(struct lesson *l, const struct linnet_model *teacher, struct linnet_error *e);

/* Of a student: matrices W that nodes multiply by become W + s A B, A drawn, B 0. Their names in `out`, "a.W", "b.W". */
enum linnet_code lesson_low_rank(struct lesson *l, int64_t rank, uint64_t seed, struct names *out, struct linnet_error *e);

/* s = alpha / r; alpha = 2 r. Source: Hu et al., LoRA, 2021, section 4.1 */
enum { LOW_RANK_SCALE = 2 };

#endif
