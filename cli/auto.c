/* convert --calibrate --recipe auto: what was tried, as lines, a table, JSON and a drawing. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/card.h"
#include "cli/calibrate.h"
#include "cli/page.h"

/* ---- Lines and the table ---- */

void trial_note(const struct search_result *s, const struct trial *t, int round, int rounds)
{
	char size[32];

	if (globals.json) {
		json_line(trial_card(s, t), "trial");
		return;
	}
	if (globals.quiet)
		return;
	if (round)
		fprintf(stderr, "round %d of %d", round, rounds);
	else
		fprintf(stderr, "probe");
	if (t->reason)
		fprintf(stderr, "  %s: given up: %s\n", t->name, t->reason);
	else
		fprintf(stderr, "  %s: %s %.4g, state %s\n", t->name, search_language(s) ? "perplexity" : "distance", search_figure(s, t),
		        human_bytes(t->state_bytes, size, sizeof size));
}

static int by_figure(const void *x, const void *y)
{
	const struct trial *a = *(const struct trial *const *)x, *b = *(const struct trial *const *)y;

	if (a->fixed != b->fixed)
		return a->fixed ? -1 : 1;
	if (!a->reason != !b->reason)
		return a->reason ? 1 : -1;
	if (!a->reason && a->loss != b->loss)
		return a->loss < b->loss ? -1 : 1;
	return a < b ? -1 : 1;
}

static void add_row(struct table *t, const struct search_result *s, const struct trial *x)
{
	char text[64];

	table_add(t, "%s", x->name);
	if (x->reason)
		table_add(t, "-");
	else
		table_add(t, "%.4g", search_figure(s, x));
	table_add(t, "%s", x->state_bytes ? human_bytes(x->state_bytes, text, sizeof text) : "-");
	table_add(t, "%u", x->softmax);
	table_add(t, "%lld", (long long)x->tokens);
	table_add(t, "%s", human_seconds(x->seconds, text, sizeof text));
	if (x->quality.speed > 0)
		table_add(t, "%.0f", x->quality.speed);
	else
		table_add(t, "-");
	table_add(t, "%s", x->reason ? x->reason : x->best ? x->front ? "chosen, front" : "chosen" : x->front ? "front" : x->rounds || x->fixed ? "" : "not trained");
}

void search_print(const struct search_result *s)
{
	const struct trial **order = calloc((size_t)s->ntrial, sizeof(const struct trial *));
	struct table t;

	if (!order)
		return;
	for (int i = 0; i < s->ntrial; i++)
		order[i] = &s->trial[i];
	qsort(order, (size_t)s->ntrial, sizeof(const struct trial *), by_figure);
	table_init(&t, 8, "lrrrrrrl");
	for (const char *const *h = (const char *const[]){ "tried", search_language(s) ? "perplexity" : "distance", "state", "softmax layers",
	                                                    search_language(s) ? "tokens" : "samples", "time", "tokens a second", "", NULL }; *h; h++)
		table_add(&t, "%s", *h);
	for (int i = 0; i < s->ntrial; i++)
		add_row(&t, s, order[i]);
	table_print(&t, stdout, true);
	for (int i = 0; i < s->ntrial; i++) {
		const struct trial *x = &s->trial[i], *best = &s->trial[s->best];

		if (x->fixed && x->loss <= best->loss && x->state_bytes <= best->state_bytes)
			printf("A %s keeps no more state than what was chosen and loses less.\n", x->name);
	}
	putchar('\n');
	free(order);
}

/* ---- The drawing: two panels, loss against state and loss against speed ---- */

enum { WIDTH = 980, HEIGHT = 460, PANEL = 420, LEFT = 60, TOP = 50, BOTTOM = 50, TALL = HEIGHT - TOP - BOTTOM };

static double place_of(const struct trial *t, bool speed) { return speed ? t->quality.speed : (double)t->state_bytes; }

static bool shown(const struct search_result *s, const struct trial *t, bool speed)
{
	return !t->reason && place_of(t, speed) > 0 && search_figure(s, t) > 0 && isfinite(search_figure(s, t));
}

static void draw_points(struct str *o, const struct search_result *s, bool speed, const struct page_axis *x, const struct page_axis *y)
{
	for (int i = 0; i < s->ntrial; i++) {
		const struct trial *t = &s->trial[i];
		double at = shown(s, t, speed) ? page_place(x, place_of(t, speed)) : 0, high = at > 0 ? page_place(y, search_figure(s, t)) : 0;
		bool right = at > x->from + 0.6 * x->length;

		if (!shown(s, t, speed))
			continue;
		str_addf(o, "<circle class=\"d c%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"%d\"><title>", t->fixed ? 1 : t->best ? 2 : t->front ? 0 : 4, at, high, t->best ? 6 : 4);
		page_text(o, t->name, 80);
		str_addf(o, ": %.4g</title></circle>\n", search_figure(s, t));
		if (!t->fixed && !t->front && !t->best)
			continue;
		str_addf(o, "<text x=\"%.1f\" y=\"%.1f\"%s>", at + (right ? -8 : 8), high + (t->fixed ? 16 : -6), right ? " class=\"y\"" : "");
		page_text(o, t->name, 40);
		str_add(o, "</text>\n");
	}
}

static void draw_panel(struct str *o, const struct search_result *s, bool speed, int from)
{
	struct page_axis x = { INFINITY, -INFINITY, from, PANEL, true }, y = { INFINITY, -INFINITY, HEIGHT - BOTTOM, -TALL, true };

	for (int i = 0; i < s->ntrial; i++)
		if (shown(s, &s->trial[i], speed)) {
			page_reach(&x, place_of(&s->trial[i], speed));
			page_reach(&y, search_figure(s, &s->trial[i]));
		}
	if (!(x.high > 0))
		return;
	page_axes(o, &x, &y, speed ? "tokens a second, long windows" : "state of one sequence, bytes");
	draw_points(o, s, speed, &x, &y);
}

enum linnet_code search_draw(const struct search_result *s, const char *path, struct linnet_error *e)
{
	struct arena *a = arena_new();
	struct str o;
	enum linnet_code code;

	if (!a)
		return fail_mem(e);
	str_init(&o, a);
	page_drawing(&o, WIDTH, HEIGHT, "What was tried");
	str_addf(&o, "<text x=\"%d\" y=\"22\">%s, held out: front blue, chosen green, others cyan; beside softmax and windows of it, orange</text>\n", LEFT,
	         search_language(s) ? "perplexity" : "distance from the softmax model");
	draw_panel(&o, s, false, LEFT);
	draw_panel(&o, s, true, LEFT + PANEL + LEFT + 10);
	str_add(&o, "</svg>\n");
	code = page_save(&o, path, e);
	arena_free(a);
	return code;
}
