/* convert --calibrate: options, running, what is shown and written in the card. */
#ifndef LINNET_CLI_CALIBRATE_H
#define LINNET_CLI_CALIBRATE_H

#include "calibrate/calibrate.h"
#include "cli/model.h"

struct calibrate_cli {
	struct opt_list data, held_out;
	const char *recipe, *checkpoint, *max_loss, *max_state, *plot;
	double minutes, rate;
	int64_t tokens, batch, length, rank, threads;
	bool exact;
};

/* What became of it. */
struct calibrated {
	struct recipe recipe;
	const struct mechanism *chosen; /* by the user; NULL: the recipe's */
	bool searched;                  /* with recipe `auto` */
	struct search_result search;
	struct calibrate_result result;
};

static inline bool calibrate_given(const struct calibrate_cli *o) { return o->data.n > 0; }

/* Mechanism and options that the recipe has and the user did not choose; complains of what cannot be. 0, or an exit status. */
int calibrate_choose(const struct calibrate_cli *o, bool chosen, struct convert_opt *c, struct calibrated *r);

/* Calibrate, with progress; c->given gets the weights, and c all that a search has chosen. 0, or an exit status with the error printed. */
int calibrate_run(const struct calibrate_cli *o, const struct linnet_model *m, const char *path, struct convert_opt *c, struct calibrated *out);

void calibrate_print(const struct calibrated *r);

/* Whether it is worse than --max-loss allows; says so. */
bool calibrate_too_bad(const struct calibrate_cli *o, const struct calibrated *r);

void calibrate_list(void);

/* ---- Searches (auto.c) ---- */

void trial_note(const struct search_result *s, const struct trial *t, int round, int rounds);
void search_print(const struct search_result *s);

/* Loss against state, and against speed, as an SVG. */
enum linnet_code search_draw(const struct search_result *s, const char *path, struct linnet_error *e);

#endif
