/* How a graph runs: a plan made once a model, run many times with changing lengths. */
#ifndef LINNET_RUNTIME_H
#define LINNET_RUNTIME_H

#include <stdio.h>

#include "graph/graph.h"

enum kernels { KERNELS_FAST, KERNELS_REFERENCE };

struct run_opt {
	enum kernels kernels;
	int threads;        /* 0: all processors */
	bool mixed;         /* large matrix products in mixed precision, where the processor has it: for training */
	int64_t max_memory; /* bytes of activations at a time; 0: 2^40 */
	uint64_t seed;      /* of random operators */
	/* Called with every value a top-level node computes, in order, before it may be freed; not with those computed from
	 * constants alone, once a plan. Return nonzero to stop the run
	 * (the run then ends with LINNET_OK and without outputs). */
	int (*watch)(void *ctx, const struct graph *g, value_id v, const struct tensor *t);
	void *watch_ctx;
};

struct plan;

/* The graph must outlive the plan and stay unchanged. */
enum linnet_code plan_new(const struct graph *g, const struct run_opt *opt, struct plan **out, struct linnet_error *e);
void plan_free(struct plan *p);

/*
 * Run once. in: one tensor for each graph input, in order (NULL: its default). out: one pointer for each graph output, set to
 * tensors owned by the caller: release each with tensor_release().
 */
enum linnet_code plan_run(struct plan *p, const struct tensor *const *in, struct tensor **out, struct linnet_error *e);

/* A zeroed tensor to be released. One that a plan handed out goes back to the plan's cache, so release it where the plan is
 * used, not in another thread at the same time; it may outlive the plan. NULL is allowed. */
enum linnet_code tensor_make(enum dtype dt, int rank, const int64_t *d, struct tensor **out, struct linnet_error *e);
void tensor_release(struct tensor *t);

/* Largest number of bytes of activations (outputs included, inputs and weights not) held at once since the plan was made. */
int64_t plan_peak_bytes(const struct plan *p);
/* Bytes of constants packed by fast kernels or computed once, in the first run. */
int64_t plan_prepared_bytes(const struct plan *p);

/* One line a node in execution order: node, operator, kernel taken, in place or view. */
enum linnet_code plan_explain(const struct plan *p, FILE *f, struct linnet_error *e);

/*
 * A session: a plan with states. A state is an output fed back to an input at the next run: pairs named past_X / present_X
 * and position / present_position (linnet's own step models) or past_key_values.X / present.X, or those given. The first run uses what session_set_state() gave,
 * else zeros of the input's declared lengths, with symbols taken from the other inputs (0 when none has them).
 * States are handed from run to run without a copy. After an error, or a run that `watch` stopped, all states are forgotten as by
 * session_reset().
 */
struct session;

struct state_pair {
	const char *input, *output;
};

/* npair 0: the pairs are found by their names. */
enum linnet_code session_new(const struct graph *g, const struct run_opt *opt, const struct state_pair *pair, int npair,
                             struct session **out, struct linnet_error *e);
void session_free(struct session *s);
/* in: graph inputs that are no states, in graph order; out likewise. */
enum linnet_code session_run(struct session *s, const struct tensor *const *in, struct tensor **out, struct linnet_error *e);
void session_reset(struct session *s);
int session_nin(const struct session *s);
int session_nout(const struct session *s);
int session_nstate(const struct session *s);
struct state_pair session_pair(const struct session *s, int i);
const struct tensor *session_state(const struct session *s, int i); /* NULL before it is set or computed */
enum linnet_code session_set_state(struct session *s, int i, const struct tensor *t, struct linnet_error *e); /* copied */
int64_t session_state_bytes(const struct session *s);
struct plan *session_plan(struct session *s);

#endif
