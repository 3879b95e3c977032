/* Language models: their inputs and outputs. */
#include "validate/lm.h"

#include <string.h>

static bool is_state(const struct lm *m, const char *name, bool input)
{
	for (int i = 0; i < session_nstate(m->session); i++)
		if (!strcmp(name, input ? session_pair(m->session, i).input : session_pair(m->session, i).output))
			return true;
	return false;
}

static enum linnet_code find_ports(struct lm *m, struct linnet_error *e)
{
	const struct graph *g = m->g;
	int n = 0;

	m->tokens = m->logits = -1;
	for (uint32_t i = 0; i < g->nin; i++) {
		const struct value *v = &g->value[g->in[i]];
		bool other = strstr(v->name, "mask") || strstr(v->name, "position");

		if (is_state(m, v->name, true))
			continue;
		if (m->tokens < 0 && !other && dtype_in(v->type.dt, INDICES) && v->type.shape.rank == 2)
			m->tokens = (int)m->nin;
		else if (!other && !v->has_default)
			return fail(e, LINNET_EUNSUPPORTED, "input \"%s\" is neither tokens [batch, sequence] nor a mask nor a position", v->name);
		m->in[m->nin++] = i;
	}
	for (uint32_t i = 0; i < g->nout; i++) {
		const struct value *v = &g->value[g->out[i]];

		if (is_state(m, v->name, false))
			continue;
		if (m->logits < 0 && dtype_class(v->type.dt) == CLASS_FLOAT && v->type.shape.rank == 3)
			m->logits = n;
		n++;
	}
	if (m->tokens < 0)
		return fail(e, LINNET_EUNSUPPORTED, "the model has no integer input [batch, sequence] for tokens");
	return m->logits < 0 ? fail(e, LINNET_EUNSUPPORTED, "the model has no float output [batch, sequence, vocabulary]") : LINNET_OK;
}

/* Everything but tokens: ones for a mask, positions; inputs with a default keep it. Axes are as long as the tokens where they have their
 * symbol, else as past and new tokens together. */
static enum linnet_code fill_other(const struct lm *m, const struct value *v, const struct tensor *ids, int64_t past, struct arena *scratch,
                                   const struct tensor **out, struct linnet_error *e)
{
	const struct shape *s = &v->type.shape, *tokens = &m->g->value[m->g->in[m->in[m->tokens]]].type.shape;
	bool mask = strstr(v->name, "mask") != NULL;
	int64_t d[MAX_RANK] = { 0 };
	struct tensor *t;

	if (v->has_default)
		return LINNET_OK;
	if (s->rank < 0)
		return fail(e, LINNET_EUNSUPPORTED, "the rank of input \"%s\" is not known", v->name);
	for (int i = 0; i < s->rank; i++)
		d[i] = dim_is_int(s->d[i]) ? s->d[i] : s->rank > 1 && !i ? ids->d[0] : !mask || s->d[i] == tokens->d[1] ? ids->d[1] : past + ids->d[1];
	TRY(tensor_new(scratch, v->type.dt, s->rank, d, &t, e));
	for (int64_t i = 0; i < t->n; i++)
		tensor_put(t, i, mask ? 1 : (double)(past + (s->rank ? i % d[s->rank - 1] : 0)));
	*out = t;
	return LINNET_OK;
}

enum linnet_code lm_open(struct lm *m, const struct graph *g, const struct run_opt *opt, struct arena *a, struct linnet_error *e)
{
	*m = (struct lm){ .g = g };
	TRY_NEW(m->in, a, g->nin);
	TRY(session_new(g, opt, NULL, 0, &m->session, e));
	return find_ports(m, e);
}

void lm_close(struct lm *m) { session_free(m->session); }

enum linnet_code lm_run(struct lm *m, const struct tensor *ids, int64_t past, struct arena *scratch, struct tensor **logits, struct linnet_error *e)
{
	const struct tensor **in;
	struct tensor **out;

	TRY_NEW(in, scratch, m->nin);
	TRY_NEW(out, scratch, m->g->nout);
	for (uint32_t i = 0; i < m->nin; i++)
		if ((int)i == m->tokens)
			in[i] = ids;
		else
			TRY(fill_other(m, &m->g->value[m->g->in[m->in[i]]], ids, past, scratch, &in[i], e));
	TRY(session_run(m->session, in, out, e));
	for (int i = 0; i < session_nout(m->session); i++)
		if (i != m->logits)
			tensor_release(out[i]);
	*logits = out[m->logits];
	if ((*logits)->rank == 3 && (*logits)->d[0] == ids->d[0] && (*logits)->d[1] == ids->d[1])
		return LINNET_OK;
	tensor_release(*logits);
	return fail(e, LINNET_ESHAPE, "the logits should be [%lld,%lld,vocabulary]", (long long)ids->d[0], (long long)ids->d[1]);
}
