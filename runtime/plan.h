/* Inside of a plan: shared by plan.c (made once) and run.c (run often). */
#ifndef LINNET_PLAN_H
#define LINNET_PLAN_H

#include "runtime/memory.h"
#include "runtime/runtime.h"

/* What a plan and the plans of its subgraphs have in common. */
struct world {
	struct run_opt opt;
	struct arena *arena;   /* plans, packed constants */
	struct arena *scratch; /* one node's */
	struct arena *text;    /* bytes of strings computed in the current run */
	struct pool *pool;
	struct dims *dims;     /* for asking shape functions what they know without values */
	int64_t prepared_bytes;
	struct crooked *crooked; /* to be copied by the first run */
	uint64_t execs;        /* of plans since the run began: the body of a loop draws anew each time */
};

/* A fast kernel a node may take. */
struct choice {
	const struct fast *fast;
	void *prepared;
	bool asked; /* prepare has run */
};

/* One node, ready to run: everything that does not depend on this run's shapes is set. */
struct step {
	const struct node *node;
	struct shape_call shape;
	struct kernel_call call;
	struct type *in_type;         /* under which shapes, kernel and reuse below were decided */
	const struct tensor **fixed;  /* inputs that are constants, NULL where not */
	struct held **in, **out;      /* NULL: left out, not wanted */
	kernel_fn *run;               /* decided */
	struct choice *choice, *taken; /* taken NULL: the reference kernel */
	int nchoice;
	uint32_t *drop;               /* values nobody reads after this node */
	uint32_t ndrop;
	uint32_t *dying;              /* inputs among them, whose memory output 0 may take */
	uint32_t ndying;
	uint32_t *reuse;              /* those that fit, decided */
	uint32_t nreuse;
	struct plan **sub;            /* plans of the subgraphs, in attribute order */
	int nsub;
	struct control *control;      /* what If, Loop or Scan keep between iterations */
	bool decided, reads_values, view, text;
	bool once; /* reads constants only: run before all others, in the first run */
	uint64_t seed;
};

/* A constant that kernels read and that is not aligned for its element type where it lies in a file. */
struct crooked {
	struct tensor *t; /* the slot's header */
	struct crooked *next;
};

/* A length of an input to check: a number, a symbol to bind, or an expression of bound symbols. */
struct check {
	uint32_t input;
	int axis;
	dim d;
	int symbol; /* index into plan.symbol when d is a symbol alone, else -1 */
};

struct symbol {
	const char *name;
	dim length; /* DIM_NONE until bound */
	uint32_t input; /* which input bound it */
	int axis;
};

struct plan {
	struct world *world;
	const struct graph *graph;
	uint32_t first_capture; /* of a subgraph: which input of its node is its first capture */
	struct held *slot; /* one a value; behind them those of outputs no value names */
	uint32_t nslot;
	bool *fixed;       /* slots holding constants, from the beginning or after the first run */
	bool primed;       /* the steps run once have run */
	struct step *step;
	uint32_t nstep;
	struct check *check;
	int ncheck;
	struct symbol *symbol;
	int nsymbol;
};

/* weights.c: note a constant to be copied when it is not aligned; make the copies, and let go of the file's pages. */
enum linnet_code weights_note(struct world *w, struct tensor *t, struct linnet_error *e);
enum linnet_code weights_settle(struct world *w, const struct arena *model, struct linnet_error *e);

/* The node's name, or that of its first output. */
const char *step_name(const struct graph *g, const struct step *s);

/* Run all steps; inputs have been bound to their slots. What the outputs' slots hold is the result. */
enum linnet_code plan_exec(struct plan *p, bool watched, bool *stopped, struct linnet_error *e);

/*
 * plan_run() that takes over the inputs with given[i], which are tensors to be released: whatever the result, the caller has
 * them no longer, and kernels may write over them.
 */
enum linnet_code plan_run_given(struct plan *p, const struct tensor *const *in, const bool *given, struct tensor **out,
                                struct linnet_error *e);

struct pool *plan_pool(struct plan *p);

/* Drop whatever the slots hold. */
void plan_clear(struct plan *p);

/* If, Loop, Scan (control.c): whether it is one, checks and room once a plan, running. */
bool control_known(const struct op *op);
enum linnet_code control_prepare(struct plan *p, struct step *s, struct linnet_error *e);
enum linnet_code control_run(struct plan *p, struct step *s, struct linnet_error *e);

#endif
