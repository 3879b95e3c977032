/* What calibration did, in JSON. */
#ifndef LINNET_CALIBRATE_CARD_H
#define LINNET_CALIBRATE_CARD_H

#include <jansson.h>

#include "calibrate/calibrate.h"

/* The card's "calibration"; search: NULL when there was none. */
json_t *calibrate_card(const struct recipe *recipe, const struct calibrate_result *r, const struct search_result *search);

json_t *trial_card(const struct search_result *s, const struct trial *t);

/* Whether trials have a perplexity; that, or the distance from the softmax model's outputs. */
bool search_language(const struct search_result *s);
double search_figure(const struct search_result *s, const struct trial *t);

#endif
