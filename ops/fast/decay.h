/* Logs of factors that let the past grow. */
#ifndef LINNET_FAST_DECAY_H
#define LINNET_FAST_DECAY_H

#include "ops/op.h"

/* Whether they let something grow by more than e^44 in so many tokens: floats may overflow then where double does not. Also when one is NaN. */
static inline bool decays_grow(const struct tensor *decay, int64_t tokens)
{
	float most = tokens ? 44 / (float)tokens : 0;
	bool grow = false;

	if (decay && decay->dt == DT_FLOAT)
		for (int64_t i = 0; i < decay->n; i++)
			grow |= !(((const float *)decay->data)[i] <= most);
	else
		for (int64_t i = 0; decay && i < decay->n && !grow; i++)
			grow = !(tensor_get(decay, i) <= (double)most);
	return grow;
}

#endif
