/*
 * Constants that lie in a file at an address their element type does not allow are copied once a plan, by its first run: making a plan costs
 * nothing in the bytes of its weights, and a plan that is never run copies none.
 */
#include <stdlib.h>
#include <string.h>

#include "graph/file.h"
#include "ops/base/thread.h"
#include "runtime/plan.h"

enum { PIECE = 1 << 20 };

enum linnet_code weights_note(struct world *w, struct tensor *t, struct linnet_error *e)
{
	struct crooked *c;

	if (t->dt == DT_STRING || (uintptr_t)t->data % dtype_align(t->dt) == 0)
		return LINNET_OK;
	TRY_NEW(c, w->arena, 1);
	*c = (struct crooked){ .t = t, .next = w->crooked };
	w->crooked = c;
	return LINNET_OK;
}

static int by_data(const void *a, const void *b)
{
	const struct tensor *x = *(struct tensor *const *)a, *y = *(struct tensor *const *)b;

	if (x->data != y->data)
		return (uintptr_t)x->data < (uintptr_t)y->data ? -1 : 1;
	return x->bytes == y->bytes ? 0 : x->bytes > y->bytes ? -1 : 1;
}

struct copy {
	unsigned char *to;
	const unsigned char *from;
	size_t n;
};

static void copy_piece(void *ctx, int64_t i)
{
	const struct copy *c = ctx;
	size_t at = (size_t)i * PIECE, n = c->n - at < PIECE ? c->n - at : PIECE;

	memcpy(c->to + at, c->from + at, n);
}

/* The tensors t[0..n) share their data. */
static enum linnet_code settle(struct world *w, struct tensor **t, size_t n, const struct arena *model, struct linnet_error *e)
{
	struct copy c = { .to = mem_get(t[0]->bytes), .from = t[0]->data, .n = t[0]->bytes };

	if (!c.to)
		return fail_mem(e);
	if (arena_on_free(w->arena, mem_put, c.to)) {
		mem_put(c.to);
		return fail_mem(e);
	}
	parallel_for(w->opt.threads, (int64_t)((c.n + PIECE - 1) / PIECE), copy_piece, &c);
	file_forget(model, c.from, c.n);
	w->prepared_bytes += (int64_t)c.n;
	for (size_t i = 0; i < n; i++)
		t[i]->data = c.to;
	return LINNET_OK;
}

enum linnet_code weights_settle(struct world *w, const struct arena *model, struct linnet_error *e)
{
	struct tensor **t;
	size_t n = 0;

	if (!w->crooked)
		return LINNET_OK;
	for (const struct crooked *c = w->crooked; c; c = c->next)
		n++;
	TRY_NEW(t, w->scratch, n);
	n = 0;
	for (const struct crooked *c = w->crooked; c; c = c->next)
		t[n++] = c->t;
	qsort(t, n, sizeof *t, by_data);
	for (size_t i = 0, k; i < n; i = k) {
		for (k = i + 1; k < n && t[k]->data == t[i]->data; k++)
			;
		if ((uintptr_t)t[i]->data % dtype_align(t[i]->dt)) /* not copied by a first run that failed later */
			TRY(settle(w, t + i, k - i, model, e));
	}
	w->crooked = NULL;
	return LINNET_OK;
}
