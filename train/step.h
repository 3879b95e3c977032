/* One step of the weights, and the rate it goes by. */
#ifndef LINNET_TRAIN_STEP_H
#define LINNET_TRAIN_STEP_H

#include "train/train.h"

/* One weight and what the optimizer keeps of it. */
struct weight {
	const char *name;
	struct tensor *t;             /* float */
	float *grad;                  /* summed over a step's batches */
	float *first, *second;        /* means of the gradient and its square; momentum in first */
	float *average;               /* or NULL */
	double rate;                  /* the peak of its rate */
	bool decays;
};

/* The learning rate of step `step`, counted from 1, where the schedule's peak is `peak`. */
double rate_at(const struct train_opt *o, double peak, int64_t step);

/* The norm of all gradients together. */
double norm_of(const struct weight *w, int n);

/*
 * g = grad * factor.
 * adamw:  x -= rate decay x;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  x -= rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)
 * adam:   the same, with decay x added to g instead
 * sgd:    m = momentum m + g + decay x;  x -= rate m
 * The rate is each weight's own.
 */
void weights_step(const struct train_opt *o, struct weight *w, int n, int64_t step, double factor);

#endif
