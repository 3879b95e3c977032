/* All mechanisms, family by family, and all fades. */
#include <string.h>

#include "converter/build.h"

static const struct mechanism_family *const families[] = { &map_family, &gate_family, &delta_family, &hybrid_family };

const struct mechanism *mechanism_at(int i)
{
	for (size_t f = 0; i >= 0 && f < sizeof families / sizeof *families; i -= families[f]->n, f++)
		if (i < families[f]->n)
			return &families[f]->row[i];
	return NULL;
}

const struct mechanism *mechanism_find(const char *name)
{
	for (int i = 0; mechanism_at(i); i++)
		if (!strcmp(mechanism_at(i)->name, name))
			return mechanism_at(i);
	return NULL;
}

const struct fade *const fades[] = { &fixed_fade, &retention_fade, &slopes_fade, &token_fade, &channel_fade, NULL };

const struct fade *fade_find(const char *name)
{
	for (const struct fade *const *f = fades + 1; *f; f++) /* numbers have no name */
		if (!strcmp((*f)->name, name))
			return *f;
	return NULL;
}
