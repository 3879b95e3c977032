/* Logs of factors that let the past grow. */
#ifndef LINNET_FAST_DECAY_H
#define LINNET_FAST_DECAY_H

#include <stdbool.h>
#include <stdint.h>

/* So large a decay lets something grow by e^44 in so many tokens: floats may overflow with larger ones where double does not. */
static inline float decay_most(int64_t tokens) { return tokens ? 44 / (float)tokens : 0; }

/* Whether one of n decays is larger than `most` or NaN. */
static inline bool decays_grow(const float *decay, int64_t n, float most)
{
	bool grow = false;

	for (int64_t i = 0; i < n; i++)
		grow |= !(decay[i] <= most);
	return grow;
}

#endif
