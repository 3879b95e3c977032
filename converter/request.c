/* What is asked for in words and numbers, by the program and by the library, as options of a conversion. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "converter/convert.h"

/* The place of a name in a list; 0 without a name: the first. */
static enum linnet_code one_of(const char *what, const char *name, const char *const *list, int n, int *out, struct linnet_error *e)
{
	char all[160] = "";
	size_t used = 0;

	*out = 0;
	for (int i = 0; name && i < n; i++) {
		if (!strcmp(name, list[i])) {
			*out = i;
			return LINNET_OK;
		}
		used += (size_t)snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", list[i]);
	}
	return name ? fail(e, LINNET_EUSAGE, "there is no %s \"%s\"; there are %s", what, name, all) : LINNET_OK;
}

static enum linnet_code check_numbers(const struct convert_request *r, struct linnet_error *e)
{
	const struct {
		const char *name;
		int64_t value, lo, hi;
	} number[] = {
		{ "features", r->features, 1, 65536 }, { "degree", r->degree, 1, 16 },  { "horizon", r->horizon, 1, INT64_C(1) << 40 },
		{ "conv", r->conv, 1, 64 },            { "window", r->window, 1, 65536 }, { "sinks", r->sinks, 1, 1024 },
		{ "chunk", r->chunk, 1, 4096 },        { "seed", r->seed, 1, INT64_MAX }, { "opset", r->opset, 11, OPSET_NEWEST },
	};

	for (size_t i = 0; i < sizeof number / sizeof *number; i++)
		if (number[i].value && (number[i].value < number[i].lo || number[i].value > number[i].hi))
			return fail(e, LINNET_EUSAGE, number[i].hi == INT64_MAX ? "%s is %lld; it is at least %lld" : "%s is %lld; it is %lld to %lld",
			            number[i].name, (long long)number[i].value, (long long)number[i].lo, (long long)number[i].hi);
	return LINNET_OK;
}

/* A fade by name, or a number: what is left of the past after each token. */
static enum linnet_code read_fade(const char *s, struct convert_opt *out, struct linnet_error *e)
{
	char *end;

	out->fade = s;
	if (!s || !strcmp(s, "none") || fade_find(s))
		return LINNET_OK;
	out->decay = strtod(s, &end);
	if (end == s || *end)
		return fail(e, LINNET_EUSAGE, "there is no fade \"%s\"; linnet convert --list names them, or it is a number", s);
	if (out->decay > 1)
		return fail(e, LINNET_EUSAGE, "a decay of %s a token grows without bound; it is above 0 and at most 1", s);
	if (!(out->decay > 0))
		return fail(e, LINNET_EUSAGE, "a decay of %s a token leaves nothing; it is above 0 and at most 1", s);
	return LINNET_OK;
}

static enum linnet_code read_mechanism(const struct convert_request *r, struct arena *a, const struct mechanism **out, struct linnet_error *e)
{
	struct mechanism *m;

	*out = mechanism_find(r->mechanism ? r->mechanism : "elu");
	if (!*out)
		return fail(e, LINNET_EUSAGE, "there is no mechanism \"%s\"; linnet convert --list names them", r->mechanism);
	if (!r->map)
		return LINNET_OK;
	TRY_NEW(m, a, 1);
	*m = (struct mechanism){ .name = "map", .doc = "the user's map", .source = r->map_name ? r->map_name : "a text", .map = r->map, .scaled = true,
		                 .may_vanish = true };
	*out = m;
	return LINNET_OK;
}

enum linnet_code convert_read(const struct convert_request *r, struct arena *a, struct convert_opt *out, struct linnet_error *e)
{
	static const char *const heads[] = { "key", "query" }, *const states[] = { "float16", "bfloat16" };
	int target, which;
	char after;

	*out = (struct convert_opt){ .layers = r->layers, .strict = r->strict, .chunk = (int)r->chunk, .opset = (int)r->opset, .features = r->features,
		                     .horizon = r->horizon, .seed = (uint64_t)r->seed, .conv = (int)r->conv, .window = (int)r->window,
		                     .sinks = (int)r->sinks, .degree = (int)r->degree, .heads = r->heads, .norm = r->norm };
	TRY(read_mechanism(r, a, &out->mechanism, e));
	TRY(one_of("target", r->target ? r->target : "portable", target_names, NTARGET, &target, e));
	out->target = (enum target)target;
	TRY(one_of("kind of heads", r->heads, heads, 2, &which, e));
	TRY(one_of("norm", r->norm, normaliser_names, NORM_NONE + 1, &which, e));
	TRY(one_of("type of states", r->state, states, 2, &which, e));
	if (r->state)
		out->state = which ? DT_BFLOAT16 : DT_FLOAT16;
	TRY(check_numbers(r, e));
	TRY(read_fade(r->fade, out, e));
	if (r->sinks && !r->window && !out->mechanism->window)
		return fail(e, LINNET_EUSAGE, "sinks stay in a window, and none was asked for");
	if (r->grid && (sscanf(r->grid, "%dx%d%c", &out->rows, &out->columns, &after) != 2 || out->rows < 1 || out->columns < 1))
		return fail(e, LINNET_EUSAGE, "\"%s\" is no grid; it is ROWSxCOLUMNS, 14x14", r->grid);
	return LINNET_OK;
}
