/* linnet curve: draw the losses of training runs, from their logs. */
#include "cli/curve.h"

#include <math.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/page.h"
#include "graph/file.h"

/* ---- Points ---- */

enum linnet_code curve_add(struct curve *c, struct curve_point p, struct linnet_error *e)
{
	while (c->n && c->p[c->n - 1].step >= p.step)
		c->n--;
	c->p = arena_grow(c->a, c->p, (uint32_t)c->n, 1, &c->cap, sizeof *c->p);
	if (!c->p)
		return fail_mem(e);
	c->p[c->n++] = p;
	return LINNET_OK;
}

static double number_of(const json_t *j, const char *key)
{
	const json_t *x = json_object_get(j, key);

	return json_is_number(x) ? json_number_value(x) : NAN;
}

/* A last line that is cut off, as a killed run leaves it, is passed over. */
enum linnet_code curve_read(struct curve *c, const char *path, int64_t before, struct linnet_error *e)
{
	struct bytes b;

	TRY(file_load(c->a, path, (int64_t)1 << 40, &b, e));
	for (size_t at = 0, line = 1; at < b.n; line++) {
		const unsigned char *end = memchr(b.p + at, '\n', b.n - at);
		size_t n = end ? (size_t)(end - b.p) - at : b.n - at;
		json_t *j = json_loadb((const char *)b.p + at, n, 0, NULL);
		struct curve_point p = { (int64_t)json_integer_value(json_object_get(j, "step")), number_of(j, "loss"), number_of(j, "held_out") };
		enum linnet_code code = LINNET_OK;

		if (p.step < before && !isnan(p.loss))
			code = curve_add(c, p, e);
		else if (end && (!j || isnan(p.loss)))
			code = err_file(e, fail(e, LINNET_EFORMAT, "line %zu is no step of a log", line), path);
		json_decref(j);
		if (code)
			return code;
		at += n + 1;
	}
	return LINNET_OK;
}

/* ---- Drawing ---- */

enum { WIDTH = 800, HEIGHT = 440, LEFT = 60, RIGHT = 20, TOP = 40, BOTTOM = 44, BINS = 300, COLOURS = 6 };

struct frame {
	double x0, x1, y0, y1; /* what the edges stand for; of logarithms when log */
	bool log;
};

static double place_x(const struct frame *f, double step)
{
	return LEFT + (step - f->x0) / (f->x1 - f->x0) * (WIDTH - LEFT - RIGHT);
}

static double place_y(const struct frame *f, double loss)
{
	double y = f->log ? log(loss) : loss;

	return HEIGHT - BOTTOM - (y - f->y0) / (f->y1 - f->y0) * (HEIGHT - TOP - BOTTOM);
}

static void widen(double x, double *low, double *high)
{
	*low = x < *low ? x : *low;
	*high = x > *high ? x : *high;
}

/* Losses that span more than 20 times are drawn by their logarithms. */
static struct frame frame_of(const struct curve *c, int n)
{
	double x0 = INFINITY, x1 = -INFINITY, y0 = INFINITY, y1 = -INFINITY;
	struct frame f;

	for (int i = 0; i < n; i++)
		for (int k = 0; k < c[i].n; k++) {
			widen((double)c[i].p[k].step, &x0, &x1);
			if (isfinite(c[i].p[k].loss))
				widen(c[i].p[k].loss, &y0, &y1);
			if (isfinite(c[i].p[k].held_out))
				widen(c[i].p[k].held_out, &y0, &y1);
		}
	if (!(y1 >= y0))
		y0 = 0, y1 = 1;
	f = (struct frame){ x0 - 1 < 0 ? x0 : x0 - 1, x1 > x0 ? x1 : x0 + 1, y0, y1, y0 > 0 && y1 > 20 * y0 };
	if (f.log) {
		f.y0 = log(y0);
		f.y1 = log(y1);
	}
	if (!(f.y1 > f.y0))
		f.y0 -= 0.5, f.y1 += 0.5;
	f.y0 -= 0.04 * (f.y1 - f.y0);
	f.y1 += 0.04 * (f.y1 - f.y0);
	return f;
}

/* 1, 2 or 5 times a power of ten, so that about `parts` fit in the span. */
static double round_step(double span, int parts)
{
	double raw = span / parts, ten = pow(10, floor(log10(raw)));

	return raw < 1.5 * ten ? ten : raw < 3.5 * ten ? 2 * ten : raw < 7.5 * ten ? 5 * ten : 10 * ten;
}

static void put_level(struct str *s, const struct frame *f, double loss)
{
	double y = place_y(f, loss);

	str_addf(s, "<path class=\"g\" d=\"M%d %.1fH%d\"/><text class=\"y\" x=\"%d\" y=\"%.1f\">%g</text>\n", LEFT, y, WIDTH - RIGHT, LEFT - 6, y + 4, loss);
}

static void put_axes(struct str *s, const struct frame *f)
{
	double step = round_step(f->x1 - f->x0, 8);

	if (f->log) {
		for (double ten = pow(10, floor(f->y0 / log(10))); log(ten) < f->y1; ten *= 10)
			for (int k = 1; k < 10; k += k == 1 ? 1 : 3)
				if (log(k * ten) > f->y0 && log(k * ten) < f->y1)
					put_level(s, f, k * ten);
	} else {
		double by = round_step(f->y1 - f->y0, 6);

		for (double k = ceil(f->y0 / by); k * by <= f->y1; k++)
			put_level(s, f, k * by);
	}
	step = step < 1 ? 1 : step;
	for (double k = ceil(f->x0 / step); k * step <= f->x1; k++)
		str_addf(s, "<text class=\"x\" x=\"%.1f\" y=\"%d\">%.0f</text>\n", place_x(f, k * step), HEIGHT - BOTTOM + 18, k * step);
	str_addf(s, "<path class=\"a\" d=\"M%d %dV%dH%d\"/><text class=\"x\" x=\"%d\" y=\"%d\">step</text>\n", LEFT, TOP, HEIGHT - BOTTOM, WIDTH - RIGHT,
	         (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8);
}

/* Means over at most BINS runs of steps; what is no number breaks the line. */
static void put_losses(struct str *s, const struct frame *f, const struct curve *c, int colour)
{
	int per = (c->n + BINS - 1) / BINS;
	bool on = false;

	str_addf(s, "<path class=\"l c%d\" d=\"", colour);
	for (int i = 0; i < c->n; i += per) {
		int n = c->n - i < per ? c->n - i : per;
		double step = 0, loss = 0;

		for (int k = i; k < i + n; k++) {
			step += (double)c->p[k].step / n;
			loss += c->p[k].loss / n;
		}
		if (isfinite(loss))
			str_addf(s, "%s%.1f %.1f", on ? "L" : "M", place_x(f, step), place_y(f, loss));
		on = isfinite(loss);
	}
	str_add(s, "\"/>\n");
}

static void put_held_out(struct str *s, const struct frame *f, const struct curve *c, int colour)
{
	bool any = false;

	for (int i = 0; i < c->n; i++)
		any = any || isfinite(c->p[i].held_out);
	if (!any)
		return;
	str_addf(s, "<path class=\"h c%d\" d=\"", colour);
	any = false;
	for (int i = 0; i < c->n; i++) {
		if (!isfinite(c->p[i].held_out))
			continue;
		str_addf(s, "%s%.1f %.1f", any ? "L" : "M", place_x(f, (double)c->p[i].step), place_y(f, c->p[i].held_out));
		any = true;
	}
	str_add(s, "\"/>\n");
	for (int i = 0; i < c->n; i++)
		if (isfinite(c->p[i].held_out))
			str_addf(s, "<circle class=\"d c%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"><title>step %lld: held out %.4f</title></circle>\n", colour,
			         place_x(f, (double)c->p[i].step), place_y(f, c->p[i].held_out), (long long)c->p[i].step, c->p[i].held_out);
}

static void put_drawing(struct str *s, const struct curve *c, int n)
{
	struct frame f = frame_of(c, n);
	int x = LEFT;

	page_drawing(s, WIDTH, HEIGHT, "Loss by step");
	put_axes(s, &f);
	for (int i = 0; i < n; i++) {
		put_losses(s, &f, &c[i], i % COLOURS);
		put_held_out(s, &f, &c[i], i % COLOURS);
		if (x < WIDTH - 160) {
			str_addf(s, "<rect class=\"c%d\" x=\"%d\" y=\"16\" width=\"14\" height=\"3\"/><text x=\"%d\" y=\"22\">", i % COLOURS, x, x + 20);
			page_text(s, c[i].name, 30);
			str_add(s, "</text>\n");
			x += 40 + 7 * (int)(strlen(c[i].name) > 30 ? 30 : strlen(c[i].name));
		}
	}
	str_addf(s, "<text x=\"%d\" y=\"22\" text-anchor=\"end\">line: training; dashed: held out</text>\n</svg>\n", WIDTH - RIGHT);
}

static void put_table(struct str *s, const struct curve *c)
{
	str_add(s, "<table><tr><th>");
	page_text(s, c->name, 100);
	str_add(s, "<th class=\"r\">loss<th class=\"r\">held out<th class=\"r\">e^held out\n");
	for (int i = 0; i < c->n; i++)
		if (isfinite(c->p[i].held_out) || i == c->n - 1)
			str_addf(s, isfinite(c->p[i].held_out) ? "<tr><td>step %lld<td class=\"r\">%.4f<td class=\"r\">%.4f<td class=\"r\">%.2f\n" :
			                                         "<tr><td>step %lld<td class=\"r\">%.4f<td><td>\n",
			         (long long)c->p[i].step, c->p[i].loss, c->p[i].held_out, exp(c->p[i].held_out));
	str_add(s, "</table>\n");
}

enum linnet_code curve_draw(const struct curve *c, int n, const char *path, struct linnet_error *e)
{
	size_t len = strlen(path);
	bool html = len > 5 && !strcmp(path + len - 5, ".html");
	struct arena *a = arena_new();
	struct str s;
	enum linnet_code code;

	if (!a)
		return fail_mem(e);
	str_init(&s, a);
	if (html)
		page_open(&s, "Learning curve");
	put_drawing(&s, c, n);
	for (int i = 0; html && i < n; i++)
		put_table(&s, &c[i]);
	if (html)
		page_close(&s);
	code = page_save(&s, path, e);
	arena_free(a);
	return code;
}

/* ---- The command ---- */

struct curve_cli {
	const char *output;
};

static int curve_run(void *opt, int argc, char **argv)
{
	const struct curve_cli *o = opt;
	struct arena *a = arena_new();
	struct curve *c = a ? NEW(a, (size_t)argc, struct curve) : NULL;
	struct linnet_error e = { 0 };
	enum linnet_code code = c ? LINNET_OK : fail_mem(&e);

	if (!o->output) {
		arena_free(a);
		fputs("linnet: curve needs -o FILE; see linnet curve --help\n", stderr);
		return EXIT_USAGE;
	}
	for (int i = 0; !code && i < argc; i++) {
		const char *slash = strrchr(argv[i], '/');

		c[i] = (struct curve){ .name = slash ? slash + 1 : argv[i], .a = a };
		code = curve_read(&c[i], argv[i], INT64_MAX, &e);
		if (!code && !c[i].n)
			code = err_file(&e, fail(&e, LINNET_EFORMAT, "the log holds no step"), argv[i]);
	}
	if (!code)
		code = curve_draw(c, argc, o->output, &e);
	arena_free(a);
	return code ? report_error(&e) : EXIT_YES;
}

const struct command curve_command = {
	.name = "curve",
	.summary = "Draw the losses of training runs",
	.operands = "LOG...",
	.details = "Draws what linnet train --log wrote, several runs in one picture: an SVG, or with a name in .html a page that has the evaluations as a table too.",
	.examples = "linnet curve run.jsonl -o run.svg\nlinnet curve adamw.jsonl sgd.jsonl -o both.html",
	.opt = (const struct opt[]){
		{ "output", 'o', OPT_STRING, OPT(struct curve_cli, output), "FILE", "the drawing, .svg or .html", NULL },
		{ .name = NULL },
	},
	.min = 1,
	.max = -1,
	.size = sizeof(struct curve_cli),
	.run = curve_run,
};
