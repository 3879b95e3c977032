/* Recipes of calibration: which conversion, which stages. */
#include "calibrate/calibrate.h"

#include <string.h>

static const struct recipe recipes[] = {
	{
		.name = "gated-delta",
		.doc = "purely recurrent: the gated delta rule behind short convolutions",
		.source = "the mixer of Yang et al., Gated Delta Networks, 2024; what is inherited of softmax attention is our own",
		.mechanism = "gated-delta",
		.stage = {
			{ "transfer", LOSS_TRANSFER, WEIGHTS_NEW, 5e-3, 0.3 },
			{ "distil", LOSS_DISTIL, WEIGHTS_ALL, 5e-4, 0.7 },
		},
	},
	{
		.name = "gated-delta-16",
		.doc = "gated-delta and softmax over a window of 16 tokens, half and half at first",
		.source = "our own: gated-delta's mixer beside a window, as Liger mixes them",
		.mechanism = "gated-delta",
		.window = 16,
		.stage = {
			{ "transfer", LOSS_TRANSFER, WEIGHTS_NEW, 5e-3, 0.3 },
			{ "distil", LOSS_DISTIL, WEIGHTS_ALL, 5e-4, 0.7 },
		},
	},
	{
		.name = "lolcats",
		.doc = "softmax over a window and a learned map of what has left it, then adapters",
		.source = "Zhang et al., LoLCATs, 2025, section 3",
		.mechanism = "lolcats",
		.stage = {
			{ "transfer", LOSS_TRANSFER, WEIGHTS_NEW, 1e-2, 0.6 },
			{ "adapt", LOSS_DISTIL, WEIGHTS_LOW, 1e-3, 0.4 },
		},
	},
	{
		.name = "hedgehog",
		.doc = "a learned map whose features are softmaxes, then everything",
		.source = "Zhang et al., The Hedgehog & the Porcupine, 2024, section 4",
		.mechanism = "hedgehog",
		.stage = {
			{ "transfer", LOSS_WEIGHTS, WEIGHTS_NEW, 1e-2, 0.5 },
			{ "distil", LOSS_DISTIL, WEIGHTS_ALL, 5e-4, 0.5 },
		},
	},
	{
		.name = "supra",
		.doc = "one learned map for queries and keys, decays, a norm of the output, everything trained",
		.source = "Mercat et al., Linearizing Large Language Models, 2024, section 3",
		.mechanism = "supra",
		.stage = { { "tune", LOSS_TASK, WEIGHTS_ALL, 1e-3, 1 } },
	},
	{
		.name = "lolcats-16",
		.doc = "lolcats with a window of 16 tokens",
		.source = "Zhang et al., LoLCATs, 2025, section 3",
		.mechanism = "lolcats",
		.window = 16,
		.stage = {
			{ "transfer", LOSS_TRANSFER, WEIGHTS_NEW, 1e-2, 0.6 },
			{ "adapt", LOSS_DISTIL, WEIGHTS_LOW, 1e-3, 0.4 },
		},
	},
	{
		.name = "t2r",
		.doc = "a learned map max(W x + b, 0), everything trained",
		.source = "Kasai et al., Finetuning Pretrained Transformers into RNNs, 2021, section 3",
		.mechanism = "t2r",
		.stage = { { "tune", LOSS_TASK, WEIGHTS_ALL, 1e-3, 1 } },
	},
	{
		.name = "delta",
		.doc = "purely recurrent: the delta rule behind short convolutions",
		.source = "Yang et al., Parallelizing Linear Transformers with the Delta Rule, 2024; stages as gated-delta's",
		.mechanism = "delta",
		.stage = {
			{ "transfer", LOSS_TRANSFER, WEIGHTS_NEW, 5e-3, 0.4 },
			{ "distil", LOSS_DISTIL, WEIGHTS_ALL, 5e-4, 0.6 },
		},
	},
	{
		.name = "transnormer",
		.doc = "elu(x) + 1, a norm of the output, everything trained",
		.source = "Qin et al., The Devil in Linear Transformer, 2022, section 3.2; trained on from the softmax model's weights",
		.mechanism = "transnormer",
		.stage = { { "tune", LOSS_TASK, WEIGHTS_ALL, 1e-3, 1 } },
	},
	{
		.name = "prf-16",
		.doc = "softmax over a window of 16 tokens and trained random features of what has left it, both on the scale of exp(s), then adapters",
		.source = "our own: lolcats' stages, with positive random features (Choromanski et al., 2021, Lemma 1) in place of its map",
		.mechanism = "prf",
		.window = 16,
		.stage = {
			{ "transfer", LOSS_TRANSFER, WEIGHTS_NEW, 3e-2, 0.6 },
			{ "adapt", LOSS_DISTIL, WEIGHTS_LOW, 1e-3, 0.4 },
		},
	},
#define LIGER .window = 64, .source = "Lan et al., Liger, 2025, sections 3 and 4", .stage = { { "adapt", LOSS_TASK, WEIGHTS_LOW, 1e-3, 1 } }
	{
		.name = "liger-gla",
		.doc = "softmax over a window and a gated memory whose gates are pooled keys, half and half, then adapters",
		.mechanism = "liger-gla",
		LIGER,
	},
	{
		.name = "liger-hgrn2",
		.doc = "the same with HGRN2's memory",
		.mechanism = "liger-hgrn2",
		LIGER,
	},
	{
		.name = "liger-gsa",
		.doc = "the same with slots that fade",
		.mechanism = "liger-gsa",
		LIGER,
	},
	{
		.name = "lit",
		.doc = "max(x, 0) and a convolution over the values' image, everything trained on the task and the softmax model's outputs",
		.source = "Wang et al., LiT, 2025, section 3",
		.mechanism = "lit",
		.stage = { { "distil", LOSS_HYBRID, WEIGHTS_ALL, 1e-3, 1 } },
	},
};

static const struct stage usual[] = {
	{ "transfer", LOSS_TRANSFER, WEIGHTS_NEW, 5e-3, 0.4 },
	{ "distil", LOSS_DISTIL, WEIGHTS_ALL, 5e-4, 0.6 },
};

const struct recipe *recipe_at(int i) { return i >= 0 && i < (int)(sizeof recipes / sizeof *recipes) ? &recipes[i] : NULL; }

const struct recipe *recipe_find(const char *name)
{
	for (int i = 0; recipe_at(i); i++)
		if (!strcmp(recipes[i].name, name))
			return &recipes[i];
	return NULL;
}

void recipe_apply(const struct recipe *r, struct convert_opt *c)
{
	c->mechanism = c->mechanism ? c->mechanism : mechanism_find(r->mechanism);
	c->norm = c->norm ? c->norm : r->norm;
	c->fade = c->fade ? c->fade : r->fade;
	c->conv = c->conv ? c->conv : r->conv;
	c->window = c->window ? c->window : r->window;
	c->features = c->features ? c->features : r->features;
}

enum linnet_code calibrate_recipe(const char *name, bool chosen, struct convert_opt *c, struct recipe *out, bool *searched, struct linnet_error *e)
{
	const struct recipe *named = name ? recipe_find(name) : NULL;

	*searched = name && !strcmp(name, "auto");
	if (name && !named && !*searched)
		return fail(e, LINNET_EUSAGE, "there is no recipe \"%s\"; linnet convert --list names them", name);
	if (*searched)
		return LINNET_OK;
	*out = named ? *named : chosen ? recipe_for(c->mechanism) : *recipe_at(0);
	c->mechanism = chosen ? c->mechanism : NULL;
	recipe_apply(out, c);
	return LINNET_OK;
}

struct recipe recipe_for(const struct mechanism *m)
{
	struct recipe r = { .name = m->name, .doc = m->doc, .source = m->source, .mechanism = m->name };

	for (int i = 0; recipe_at(i); i++)
		if (!strcmp(recipes[i].mechanism, m->name))
			return recipes[i];
	memcpy(r.stage, usual, sizeof usual);
	return r;
}
