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
			{ "transfer", LOSS_TRANSFER, WEIGHTS_NEW, 5e-3, 0.4 },
			{ "distil", LOSS_DISTIL, WEIGHTS_ALL, 5e-4, 0.6 },
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
			{ "transfer", LOSS_TRANSFER, WEIGHTS_NEW, 1e-2, 0.5 },
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

struct recipe recipe_for(const struct mechanism *m)
{
	struct recipe r = { .name = m->name, .doc = m->doc, .source = m->source, .mechanism = m->name };

	for (int i = 0; recipe_at(i); i++)
		if (!strcmp(recipes[i].mechanism, m->name))
			return recipes[i];
	memcpy(r.stage, usual, sizeof usual);
	return r;
}
