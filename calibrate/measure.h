/* What a language model keeps of another: by token, by position, where recall is needed. */
#ifndef LINNET_CALIBRATE_MEASURE_H
#define LINNET_CALIBRATE_MEASURE_H

#include "calibrate/calibrate.h"

/*
 * Mark in need[0..stream->n) the tokens that only recall predicts, in windows of `context` as lm_evaluate() cuts them: with the token before, a
 * pair that came before in the window, the last time at least `far` positions back, and that the other stream has at most `rare` times.
 * Source: Arora et al., Zoology, 2023, section 3.1.
 */
enum linnet_code recall_tokens(const struct tensor *stream, const struct tensor *train, int64_t context, int64_t far, int64_t rare, uint8_t *need,
                               struct linnet_error *e);

/* Its nats a token, and those of the tokens marked in `need`. */
enum linnet_code measure_lm(const struct graph *g, const struct tensor *stream, const uint8_t *need, int64_t context, int64_t batch, int threads,
                            struct quality *out, struct linnet_error *e);

/* The longest of context, context / 2, ... 16 tokens that it takes at once; where it takes none, why the first is not. */
enum linnet_code measure_longest(const struct graph *g, const struct tensor *stream, int64_t *context, int threads, struct linnet_error *e);

/*
 * Its nats by position in windows of 16 times the context, at most two of them; where the stream or the model's positions end before, of 8 times, 4
 * times, 2 times; where even that is too long, nothing is known.
 */
enum linnet_code measure_long(const struct graph *g, const struct tensor *stream, int64_t context, int threads, struct quality *out,
                              struct linnet_error *e);

#endif
