/* Drawings and pages: see page.h. */
#include "cli/page.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "graph/file.h"
#include "ops/base/utf8.h"

void page_text(struct str *s, const char *p, int most)
{
	size_t n = strlen(p);

	for (int i = 0; n; i++) {
		uint32_t c;
		size_t k = utf8_get(p, n, &c);

		if (i + 1 >= most && n > k) {
			str_add(s, "\u2026");
			return;
		}
		if (!k || c < 32 || c == 127 || (c >= 0xfffe && c <= 0xffff))
			str_add(s, "?");
		else if (c == '<')
			str_add(s, "&lt;");
		else if (c == '>')
			str_add(s, "&gt;");
		else if (c == '&')
			str_add(s, "&amp;");
		else if (c == '"')
			str_add(s, "&quot;");
		else
			str_addn(s, p, k);
		k = k ? k : 1;
		p += k;
		n -= k;
	}
}

void page_open(struct str *s, const char *title)
{
	str_add(s, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>");
	page_text(s, title, 200);
	str_add(s, "</title>\n<style>:root{color-scheme:light dark}body{margin:1.5em;font:14px ui-sans-serif,system-ui,sans-serif;background:#fff;color:#1c2330}"
	           "svg{max-width:100%;height:auto}table{border-collapse:collapse;margin-top:1em}td,th{padding:2px 10px;text-align:left;border-bottom:1px solid #8884}"
	           ".r{text-align:right}@media(prefers-color-scheme:dark){body{background:#12161d;color:#e6e9ef}}</style></head><body>\n");
}

void page_close(struct str *s)
{
	str_add(s, "</body></html>\n");
}

void page_drawing(struct str *s, int width, int height, const char *title)
{
	str_addf(s, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\"><title>", width, height, width, height);
	page_text(s, title, 200);
	str_add(s, "</title>\n");
	str_add(s, "<style>svg{--b:#fff;--f:#1c2330;--m:#5b6575;--g:#d5d9e0;--0:#2563c9;--1:#c2410c;--2:#15803d;--3:#7e22ce;--4:#0e7490;--5:#a16207}"
	           "@media(prefers-color-scheme:dark){svg{--b:#12161d;--f:#e6e9ef;--m:#a3adbd;--g:#2c3442;--0:#6ea2f5;--1:#f5935c;--2:#5fc481;--3:#c08bf0;--4:#5cc3d6;"
	           "--5:#dcb04a}}.b{fill:var(--b)}.g{stroke:var(--g)}.a{stroke:var(--m);fill:none}text{fill:var(--f);font:12px ui-sans-serif,system-ui,sans-serif}"
	           ".y{text-anchor:end}.x{text-anchor:middle}.l{fill:none;stroke-width:1.5;stroke-opacity:.75}.h{fill:none;stroke-width:1.5;stroke-dasharray:5 3}.d{stroke:none}"
	           ".c0{stroke:var(--0);fill:var(--0)}.c1{stroke:var(--1);fill:var(--1)}.c2{stroke:var(--2);fill:var(--2)}.c3{stroke:var(--3);fill:var(--3)}"
	           ".c4{stroke:var(--4);fill:var(--4)}.c5{stroke:var(--5);fill:var(--5)}path.l,path.h{fill:none}</style>\n");
	str_addf(s, "<rect class=\"b\" width=\"%d\" height=\"%d\"/>\n", width, height);
}

/* ---- Axes ---- */

void page_reach(struct page_axis *a, double x)
{
	if (!isfinite(x) || (a->log && !(x > 0)))
		return;
	a->low = x < a->low ? x : a->low;
	a->high = x > a->high ? x : a->high;
}

double page_place(const struct page_axis *a, double x)
{
	double part = a->log ? log(x / a->low) / log(a->high / a->low) : (x - a->low) / (a->high - a->low);

	return a->from + a->length * part;
}

static void lengthen(struct page_axis *a)
{
	double by = a->log ? pow(a->high / a->low, 0.06) * 1.02 : 0.06 * (a->high - a->low);

	a->low = a->log ? a->low / by : a->low - by;
	a->high = a->log ? a->high * by : a->high + by;
}

static void level(struct str *s, const struct page_axis *a, const struct page_axis *across, double x)
{
	if (x < a->low || x > a->high)
		return;
	if (a->length > 0)
		str_addf(s, "<text class=\"x\" x=\"%.1f\" y=\"%d\">%g%s</text>\n", page_place(a, x), across->from + 18, x < 1e3 ? x : x < 1e6 ? x / 1e3 : x / 1e6,
		         x < 1e3 ? "" : x < 1e6 ? "k" : "M");
	else
		str_addf(s, "<path class=\"g\" d=\"M%d %.1fh%d\"/><text class=\"y\" x=\"%d\" y=\"%.1f\">%g</text>\n", across->from, page_place(a, x), across->length,
		         across->from - 6, page_place(a, x) + 4, x);
}

/* Levels of logarithms at 1, 2 and 5 times powers of ten, or at these; else at 1, 2 or 5 times a power of ten. */
static void levels(struct str *s, const struct page_axis *a, const struct page_axis *across)
{
	double span = a->high - a->low, by = pow(10, floor(log10(span / 8)));

	if (a->log) {
		for (int power = (int)floor(log10(a->low)); pow(10, power) <= a->high; power++)
			for (int k = 0; k < (a->high / a->low > 200 ? 1 : 3); k++)
				level(s, a, across, pow(10, power) * (const int[]){ 1, 2, 5 }[k]);
		return;
	}
	by *= span > 40 * by ? 5 : span > 16 * by ? 2 : 1;
	for (double k = ceil(a->low / by); k * by <= a->high; k++)
		level(s, a, across, k * by);
}

void page_axes(struct str *s, struct page_axis *x, struct page_axis *y, const char *label)
{
	lengthen(x);
	lengthen(y);
	levels(s, y, x);
	levels(s, x, y);
	str_addf(s, "<path class=\"a\" d=\"M%d %dV%dH%d\"/>\n<text class=\"x\" x=\"%d\" y=\"%d\">", x->from, y->from + y->length, y->from, x->from + x->length,
	         x->from + x->length / 2, y->from + 40);
	page_text(s, label, 100);
	str_add(s, "</text>\n");
}

static enum linnet_code write_text(struct file_out *f, const void *ctx, struct arena *a, struct linnet_error *e)
{
	(void)a;
	return file_write(f, ctx, strlen(ctx), e);
}

enum linnet_code page_save(struct str *s, const char *path, struct linnet_error *e)
{
	const char *text = str_done(s);

	return text ? file_save(path, write_text, text, e) : fail_mem(e);
}
