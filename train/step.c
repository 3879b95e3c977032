/* Steps of the optimizers. */
#include "train/step.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

double rate_at(const struct train_opt *o, double peak, int64_t step)
{
	double done;

	if (step <= o->warmup)
		return peak * (double)step / (double)o->warmup;
	if (o->schedule == SCHEDULE_CONSTANT || o->steps <= o->warmup)
		return peak;
	done = (double)(step - o->warmup) / (double)(o->steps - o->warmup);
	done = done > 1 ? 1 : done;
	if (o->schedule == SCHEDULE_LINEAR)
		return peak * (1 - (1 - o->rate_end) * done);
	return peak * (o->rate_end + (1 - o->rate_end) * 0.5 * (1 + cos(pi * done)));
}

double norm_of(const struct weight *w, int n)
{
	double sum = 0;

	for (int i = 0; i < n; i++)
		for (int64_t k = 0; k < w[i].t->n; k++)
			sum += (double)w[i].grad[k] * (double)w[i].grad[k];
	return sqrt(sum);
}

static void adam(const struct train_opt *o, const struct weight *w, int64_t step, double rate, float factor)
{
	float *restrict x = w->t->data, *restrict m = w->first, *restrict v = w->second;
	const float *restrict grad = w->grad;
	bool apart = o->optimizer == OPTIMIZER_ADAMW;
	float b1 = (float)o->beta1, b2 = (float)o->beta2, eps = (float)o->epsilon;
	float shrink = w->decays && apart ? (float)(1 - rate * o->decay) : 1, added = w->decays && !apart ? (float)o->decay : 0;
	float r1 = (float)(rate / (1 - pow(o->beta1, (double)step))), r2 = (float)(1 / sqrt(1 - pow(o->beta2, (double)step)));

	for (int64_t k = 0; k < w->t->n; k++) {
		float g = grad[k] * factor + added * x[k];

		m[k] = b1 * m[k] + (1 - b1) * g;
		v[k] = b2 * v[k] + (1 - b2) * g * g;
		x[k] = shrink * x[k] - r1 * m[k] / (sqrtf(v[k]) * r2 + eps);
	}
}

static void sgd(const struct train_opt *o, const struct weight *w, double rate, float factor)
{
	float *restrict x = w->t->data, *restrict m = w->first;
	const float *restrict grad = w->grad;
	float keep = (float)o->momentum, added = w->decays ? (float)o->decay : 0, r = (float)rate;

	for (int64_t k = 0; k < w->t->n; k++) {
		m[k] = keep * m[k] + grad[k] * factor + added * x[k];
		x[k] -= r * m[k];
	}
}

void weights_step(const struct train_opt *o, struct weight *w, int n, int64_t step, double factor)
{
	for (int i = 0; i < n; i++) {
		const float *x = w[i].t->data;
		double rate = rate_at(o, w[i].rate, step);

		if (o->optimizer == OPTIMIZER_SGD)
			sgd(o, &w[i], rate, (float)factor);
		else
			adam(o, &w[i], step, rate, (float)factor);
		for (int64_t k = 0; w[i].average && k < w[i].t->n; k++)
			w[i].average[k] += (float)(1 - o->average) * (x[k] - w[i].average[k]);
	}
}
