/* The card beside a converted model: how it was made, in JSON. */
#ifndef LINNET_CARD_H
#define LINNET_CARD_H

#include "validate/agree.h"

struct card {
	const char *version, *file, *source; /* linnet's; the model's; what it was made from */
	const struct convert_request *request;
	const struct convert_opt *opt;
	const struct convert_report *report;
	const struct agreement *agreement;
	const struct graph *g;   /* the result */
	const char *calibration; /* what it did, as JSON; NULL: there was none */
};

/* One line ending in a newline; lives in the arena. */
enum linnet_code card_text(const struct card *c, struct arena *a, const char **text, struct linnet_error *e);

/* The same into a file, at once or not at all. */
enum linnet_code card_save(const struct card *c, const char *path, struct linnet_error *e);

#endif
