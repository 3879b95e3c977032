/* Building one attention's new form: its inputs, parameters and states, and recurrences, convolutions and windows in the target's words. */
#ifndef LINNET_BUILD_H
#define LINNET_BUILD_H

#include "converter/convert.h"
#include "ops/base/rng.h"

/*
 * The attention at hand. q [B, H, T, D], k [B, G, T, D] and v [B, G, T, E] are what the mechanism works on, R = H / G: as the attention reads
 * them, or before their rotation, or behind short convolutions, as mechanism and options say.
 */
struct build {
	const struct graph *g;
	const struct node *n;
	const struct convert_opt *opt;
	const struct mechanism *m;
	struct patch *p;     /* remembers failure, as do all functions below that return a value */
	struct linnet_error *e;
	struct arena *scratch;
	const char *hint;    /* of names */
	uint32_t layer;
	enum dtype dt;
	enum target target;
	int64_t H, G, R, D, E;
	double scale;
	bool causal;
	value_id q, k, v;
	value_id turned_q, turned_k; /* as the attention reads them, that is rotated; k by key heads, G of them */
	value_id turned_v;           /* by key heads */
	int64_t kv_heads;            /* of the attention, whatever G has become */
	value_id plain_k;            /* before its rotation; gates look at it */
	value_id mask;               /* hides keys; 0: none */
	value_id own_mask;           /* the same, in a step model counted from its own first token */
	bool sloped_mask;            /* mask is ALiBi's bias too; own_mask is only which keys are seen, boolean */
	double softcap;              /* of the scores; 0: none */
	const double *slope;         /* ALiBi's, [H], of an attention whose bias they are: another fade; else NULL */
	value_id first;              /* number of the first token, int64 [1], once it was asked for */
	int64_t features;            /* F, once known */
	int64_t state_numbers;       /* elements of all states of one batch entry so far */
	const char *state;           /* name of the first state without prefix */
};

/* What nodes of a mask are called that are made again for a step model's own tokens. */
#define OWN_MASK "own_mask"

/* A template with its inputs; out: its outputs. */
void build_text(struct build *b, const char *text, const value_id *in, value_id *out);
#define BUILD_IN(...) ((const value_id[]){ __VA_ARGS__ })

/* The same with one output. */
value_id build_value(struct build *b, const char *text, const value_id *in);

/* ---- Parameters, as initializers "<layer>.<name>" ---- */

/* Zeros of that shape, to be filled; never NULL: after a failure it is a scratch tensor nobody looks at. NULL without any memory. */
struct tensor *build_tensor(struct build *b, int rank, const int64_t *d);
value_id build_param(struct build *b, const char *name, const struct tensor *t);
value_id build_filled(struct build *b, const char *name, int rank, const int64_t *d, double x);
/* [heads, rows, columns]: ones where column = row modulo rows. */
value_id build_identity(struct build *b, const char *name, int64_t heads, int64_t rows, int64_t columns);
/* Uniform within +-1 / sqrt(d[rank - 2]), by the seed. */
value_id build_drawn(struct build *b, const char *name, int rank, const int64_t *d);

/* A [rows, columns] constant shared by all layers. */
value_id build_mask(struct build *b, const char *name, int64_t rows, int64_t columns, double (*at)(int64_t i, int64_t j, int64_t x), int64_t x);

/* ---- States, of step and chunk models: input past_<name>.<layer>, output present_<name>.<layer>; zeros start a sequence ---- */

/* d[0] is ignored: it is the batch. */
value_id build_past(struct build *b, const char *name, int rank, const int64_t *d);
void build_present(struct build *b, const char *name, value_id v);

static inline bool build_steps(const struct build *b) { return target_has_states(b->target); }

/* int64 [1]: how many tokens came before these. */
value_id build_first(struct build *b);

/* ---- Pieces ---- */

/* x [B, G, T, D] repeated to H heads, each R times in place. */
value_id build_repeat(struct build *b, value_id x, int64_t width);

/* x [B, heads, T, D] rotated as `like`, queries or keys as the attention reads them, which has as many heads; x itself when that is not rotated. */
value_id build_turn(struct build *b, value_id x, value_id like);

/* The last taps tokens of each channel of x [B, heads, T, width], weighted; at first the last one alone. */
value_id build_conv(struct build *b, value_id x, int64_t heads, int64_t width, const char *name, int taps);

/* Rows and columns of an image of so many tokens, as asked for or square; false: the number is not known, or is another. */
bool build_grid(const struct convert_opt *opt, dim tokens, int64_t *rows, int64_t *columns);

/* y [B, H, T, E] and a convolution of 5 x 5 of each channel of the values' image, at first 0. Source: Wang et al., LiT, 2025, section 3.1. */
value_id build_image(struct build *b, value_id y);

/* Each row of x [B, H, T, E] divided by its root mean square, about its mean when centred. */
value_id build_norm(struct build *b, value_id x, bool centred);

/* ---- recur.c ---- */

/*
 * A state S [F, E] a key head, read by R query heads:
 *	S <- diag(exp g) S      v' = beta (v - k S)      S <- S + k^T v'      o = q S
 * g [B, G, T, 1], or [B, G, T, F] when by_channel, not above 0; 0: nothing fades. When by_value, g is [B, G, T, E] and S <- S diag(exp g), without
 * beta. beta [B, G, T, 1]; 0: v' = v.
 */
struct recurrence {
	value_id q, k, v, g, beta;
	int64_t H, G, F, E;
	bool by_channel, by_value;
};

/* o [B, H, T, E]. name: of its state. */
value_id build_recurrence(struct build *b, const struct recurrence *r, const char *name);

/* ---- Gates ---- */

extern const struct fade fixed_fade, retention_fade, slopes_fade, token_fade, channel_fade;

/* What fades in this conversion; NULL: nothing. */
const struct fade *fade_of(const struct convert_opt *opt);

/* g and the logs of the attention's slopes, where it has them; g may be 0. */
value_id build_sloped(struct build *b, value_id g);

/* Its logs and those of the attention's slopes, [B, G, T, 1], or [B, G, T, width] where it fades by channel; 0: nothing fades. */
value_id build_fade(struct build *b, const struct fade *f, int64_t width);

/* ---- linear.c ---- */

enum linnet_code linear_build(struct build *b, value_id *y, struct linnet_error *e); /* feature maps */
value_id linear_map(struct build *b, value_id x, char side, int64_t heads);          /* of x [B, heads, T, D], side 'q' or 'k'; F is known then */
value_id build_hide(struct build *b, value_id x);                                    /* x [B, G, T, F], of masked keys 0 */
value_id linear_ones(struct build *b, value_id v);                                   /* [v, 1] */
value_id linear_divided(struct build *b, value_id o);                                /* o but for its last column, by that */

/* ---- hybrid.c ---- */

/* The mechanism's map for what has left the window, divided by one sum. */
void build_joint(struct build *b, value_id *y);
/* y [B, H, T, E] and softmax over the window, half and half at first. */
value_id build_mixed(struct build *b, value_id y);

/* ---- maps.c ---- */

extern const char hedgehog_map[], focused_map[];
enum linnet_code identity_weights(const struct map_use *u, struct tensor **out, int *n, struct linnet_error *e);

#endif
