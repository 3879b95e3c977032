/* convert --calibrate: options, running, what is shown and written in the card. */
#ifndef LINNET_CLI_CALIBRATE_H
#define LINNET_CLI_CALIBRATE_H

#include "calibrate/calibrate.h"
#include "cli/model.h"

struct calibrate_cli {
	struct opt_list data, held_out;
	const char *recipe, *checkpoint, *max_loss;
	double minutes, rate;
	int64_t tokens, batch, length, rank, threads;
};

static inline bool calibrate_given(const struct calibrate_cli *o) { return o->data.n > 0; }

/* Mechanism and options that the recipe has and the user did not choose; complains of what cannot be. 0, or an exit status. */
int calibrate_choose(const struct calibrate_cli *o, bool chosen, struct convert_opt *c, struct recipe *r);

/* Calibrate, with progress; c->given gets the weights. 0, or an exit status with the error printed. */
int calibrate_run(const struct calibrate_cli *o, const struct recipe *r, const struct linnet_model *m, const char *path, struct convert_opt *c,
                  struct calibrate_result *out);

void calibrate_print(const struct calibrate_cli *o, const struct calibrate_result *r);
json_t *calibrate_json(const struct recipe *recipe, const struct calibrate_result *r);

/* Whether it is worse than --max-loss allows; says so. */
bool calibrate_too_bad(const struct calibrate_cli *o, const struct calibrate_result *r);

void calibrate_list(void);

#endif
