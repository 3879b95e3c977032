/*
 * Drawing the tree of blocks: parts are columns, in which the stream runs downwards; a block is a box with its steps as lines, a residual
 * sum the line around it.
 */
#include <string.h>

#include "cli/blocks.h"
#include "cli/model.h"
#include "cli/page.h"

enum { LINE = 17, HEAD = 22, PAD = 10, GAP = 20, ARC = 22, SUM = 26, WIDTH = 330, BETWEEN = 48, TITLE = 44, CHAR_10 = 62, MAX_LINES = 24 };

struct drawing {
	struct str s;
	struct arena *a;
};

/* ---- Text ---- */

static void put_text(struct drawing *d, const char *p, int most) { page_text(&d->s, p, most); }

static void put_line(struct drawing *d, int x, int y, int width, const char *class, const char *text)
{
	str_addf(&d->s, "<text class=\"%s\" x=\"%d\" y=\"%d\">", class, x, y);
	put_text(d, text, width * 10 / CHAR_10);
	str_add(&d->s, "</text>\n");
}

/* ---- Sizes ---- */

/* Its children are lines in its box. */
static bool is_box(const struct block *b)
{
	for (int i = 0; i < b->nchild; i++)
		if (b->child[i]->kind != BLOCK_STEP)
			return false;
	return b->kind != BLOCK_MODEL && b->kind != BLOCK_GROUP;
}

/* A norm behind the sum is drawn there. */
static int lines(const struct block *b)
{
	int n = b->nchild - (b->residual && b->post_norm && b->nchild && !strcmp(b->child[b->nchild - 1]->label, "norm"));

	return n > MAX_LINES ? MAX_LINES + 1 : n;
}

static int height(const struct block *b)
{
	int h = HEAD + 6;

	if (is_box(b))
		return h + LINE * lines(b) + (b->nchild ? 4 : 0);
	for (int i = 0; i < b->nchild; i++)
		h += height(b->child[i]) + (b->child[i]->residual ? SUM : 0) + GAP;
	return h + PAD / 2;
}

static int depth(const struct block *b)
{
	int most = 0;

	for (int i = 0; i < b->nchild; i++) {
		int n = depth(b->child[i]);

		most = n > most ? n : most;
	}
	return is_box(b) ? 0 : most + 1;
}

/* ---- Shapes ---- */

static const char *colour(const struct block *b)
{
	switch (b->kind) {
	case BLOCK_ATTENTION:
	case BLOCK_CROSS: return "at";
	case BLOCK_PARALLEL: return "pa";
	case BLOCK_GLU:
	case BLOCK_MLP:
	case BLOCK_EXPERTS: return "ff";
	case BLOCK_CONV:
	case BLOCK_MIXER:
	case BLOCK_RECURRENCE: return "mi";
	case BLOCK_EMBEDDING:
	case BLOCK_HEAD: return "en";
	case BLOCK_PART:
	case BLOCK_LAYER:
	case BLOCK_GROUP:
	case BLOCK_NESTED: return "in";
	default: return "ot";
	}
}

static void arrow(struct drawing *d, int x, int y, int to)
{
	str_addf(&d->s, "<path class=\"s\" d=\"M%d %dV%d\"/><path class=\"h\" d=\"M%d %dl-4 -6h8z\"/>\n", x, y, to - 5, x, to);
}

static void tooltip(struct drawing *d, const struct block *b)
{
	str_add(&d->s, "<title>");
	put_text(d, block_title(b, d->a) ? block_title(b, d->a) : "?", 200);
	if (*b->name) {
		str_add(&d->s, " \u2013 ");
		put_text(d, b->name, 200);
	}
	if (b->out) {
		str_add(&d->s, "\n");
		put_text(d, b->g->value[b->out].name, 200);
		str_add(&d->s, ": ");
		put_text(d, type_words(b->g, &b->g->value[b->out].type, d->a), 200);
	}
	str_addf(&d->s, "\n%u node%s", b->nnode, b->nnode == 1 ? "" : "s");
	if (b->parameters > 0)
		str_addf(&d->s, ", %lld parameters", (long long)b->parameters);
	str_add(&d->s, "</title>");
}

static void draw(struct drawing *d, const struct block *b, int x, int y, int w)
{
	int h = height(b), at = y + HEAD, cx;
	const char *size = count_words(b->parameters, d->a), *title = block_title(b, d->a);

	str_add(&d->s, "<g>");
	tooltip(d, b);
	str_addf(&d->s, "<rect class=\"%s%s\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"6\"/>\n", colour(b), is_box(b) ? "" : " c", x, y, w, h);
	if (*b->label && b->kind == BLOCK_CROSS && title)
		title = arena_fmt(d->a, "%s, %s", title, b->label);
	if (b->kind == BLOCK_STEP && block_text(b, d->a) && title)
		title = arena_fmt(d->a, "%s: %s", title, block_text(b, d->a));
	put_line(d, x + PAD, y + 16, w - 2 * PAD - 60, "t", title ? title : "?");
	if (size && *size)
		str_addf(&d->s, "<text class=\"q\" x=\"%d\" y=\"%d\">%s</text>\n", x + w - PAD, y + 16, size);
	str_add(&d->s, "</g>\n");
	if (*b->label && b->kind == BLOCK_CROSS)
		str_addf(&d->s, "<path class=\"s\" d=\"M%d %dh-16\"/><path class=\"h\" d=\"M%d %dl-6 -4v8z\"/>\n", x, y + 12, x, y + 12);
	if (is_box(b)) {
		for (int i = 0; i < lines(b); i++) {
			const struct block *s = b->child[i];
			const char *what = block_title(s, d->a), *text = block_text(s, d->a);

			at += LINE;
			if (i == MAX_LINES) {
				put_line(d, x + PAD, at - 4, w - 2 * PAD, "l", arena_fmt(d->a, "and %d more", b->nchild - MAX_LINES));
				break;
			}
			str_add(&d->s, "<g>");
			tooltip(d, s);
			what = what ? what : "?";
			text = text ? text : "?";
			put_line(d, x + PAD, at - 4, w - 2 * PAD, "l", s->attention || s->glu || !strcmp(what, text) ? text : arena_fmt(d->a, "%s: %s", what, text));
			str_add(&d->s, "</g>\n");
		}
		return;
	}
	cx = x + (w - ARC) / 2;
	for (int i = 0; i < b->nchild; i++) {
		const struct block *k = b->child[i];
		int top = at + GAP - 6, end = top + height(k), width = w - 2 * PAD - ARC;
		bool flows = b->kind != BLOCK_MODEL && k->kind != BLOCK_SHARED;

		if (flows)
			arrow(d, cx, !i ? at - 2 : b->child[i - 1]->residual ? at - 2 : at - 6, top);
		draw(d, k, x + PAD, top, width);
		at = end + 6;
		if (k->residual) {
			int right = x + PAD + width + ARC / 2 + 2, sum = end + SUM - 10;

			str_addf(&d->s, "<path class=\"s\" d=\"M%d %dH%dq6 0 6 6V%dq0 6 -6 6H%d\"/><path class=\"h\" d=\"M%d %dl6 -4v8z\"/>\n", cx,
			         top - 9, right - 6, sum - 6, cx + 13, cx + 8, sum);
			str_addf(&d->s, "<path class=\"s\" d=\"M%d %dV%d\"/><circle class=\"p\" cx=\"%d\" cy=\"%d\" r=\"8\"/>"
			                "<path class=\"s\" d=\"M%d %dh8M%d %dv8\"/>\n", cx, end, sum - 8, cx, sum, cx - 4, sum, cx, sum - 4);
			if (k->post_norm)
				put_line(d, cx - 54, sum + 4, 60, "l", "norm");
			at = end + SUM;
		}
	}
	if (b->kind != BLOCK_MODEL && b->nchild)
		str_addf(&d->s, "<path class=\"s\" d=\"M%d %dV%d\"/>\n", cx, at - (b->child[b->nchild - 1]->residual ? 2 : 6), y + h);
}

static const char style_sheet[] =
	"<style>svg{--b:#fff;--f:#1c2330;--m:#5b6575;--l:#8892a3;--at:#dbe8ff;--ff:#dcf3e1;--pa:#d8f0f2;--mi:#ffe9d3;--en:#ece2fb;--ot:#eef0f4;--in:#f7f8fb;"
	"}"
	"@media(prefers-color-scheme:dark){svg{--b:#12161d;--f:#e6e9ef;--m:#a3adbd;--l:#6d7889;--at:#1d3563;--ff:#1b4428;--pa:#17434a;--mi:#553515;--en:#3a2a5c;"
	"--ot:#262c37;--in:#191f29}}"
	".bg{fill:var(--b)}.at{fill:var(--at)}.ff{fill:var(--ff)}.pa{fill:var(--pa)}.mi{fill:var(--mi)}.en{fill:var(--en)}.ot{fill:var(--ot)}.in{fill:var(--in)}"
	"rect{stroke:var(--l);stroke-width:1}.bg{stroke:none}.c{stroke-dasharray:none}"
	"text{fill:var(--f);font-family:ui-sans-serif,system-ui,sans-serif;font-size:12px}.t{font-weight:600}.l{fill:var(--f)}.q{fill:var(--m);text-anchor:end}.n{font-size:15px;font-weight:600}.o{fill:var(--m)}"
	".s{fill:none;stroke:var(--m);stroke-width:1.4}.h{fill:var(--m)}.p{fill:var(--b);stroke:var(--m);stroke-width:1.4}</style>\n";

static void draw_all(struct drawing *d, const struct block *top, const char *title)
{
	int width = PAD, tall = 0, x = 2 * PAD, under, attentions = 0, glus = 0, ncolumn = 0;
	const char *size = count_words(top->parameters, d->a);

	for (int i = 0; i < top->nchild; i++) {
		const struct block *b = top->child[i];
		int h = height(b) + TITLE + GAP;

		if (b->kind != BLOCK_PART)
			continue;
		width += WIDTH + depth(b) * (2 * PAD + ARC) + BETWEEN;
		tall = h > tall ? h : tall;
		ncolumn++;
	}
	if (!ncolumn)
		width += WIDTH + BETWEEN;
	for (int i = 0; i < top->nchild; i++)
		if (top->child[i]->kind != BLOCK_PART)
			tall += height(top->child[i]) + GAP;
	tall += ncolumn ? 2 * PAD : TITLE + GAP;
	block_units(top, &attentions, &glus);
	str_addf(&d->s, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\">\n", width, tall, width, tall);
	str_add(&d->s, style_sheet);
	str_addf(&d->s, "<rect class=\"bg\" width=\"%d\" height=\"%d\"/>\n", width, tall);
	put_line(d, 2 * PAD, 20, width - 4 * PAD, "n", title);
	put_line(d, 2 * PAD, 38, width - 4 * PAD, "o",
	         arena_fmt(d->a, "%d layers, %d attentions, %d gated units%s%s%s", block_count(top, BLOCK_LAYER), attentions, glus, *size ? ", " : "", size,
	                   *size ? " parameters" : ""));
	under = TITLE + GAP;
	for (int i = 0; i < top->nchild; i++) {
		const struct block *b = top->child[i];
		int w = WIDTH + depth(b) * (2 * PAD + ARC);

		if (b->kind != BLOCK_PART)
			continue;
		draw(d, b, x, TITLE + 8, w);
		under = under > TITLE + 8 + height(b) ? under : TITLE + 8 + height(b);
		x += w + BETWEEN;
	}
	for (int i = 0, w; i < top->nchild; i++) {
		const struct block *b = top->child[i];

		if (b->kind == BLOCK_PART)
			continue;
		w = WIDTH;
		x = width - BETWEEN - w + PAD > 2 * PAD ? width - BETWEEN - w : 2 * PAD;
		if (b->kind == BLOCK_HEAD && ncolumn)
			arrow(d, x + w / 2, under, under + GAP);
		draw(d, b, x, under + GAP, w);
		under += GAP + height(b);
	}
	str_add(&d->s, "</svg>\n");
}

/* ---- A page ---- */

static void put_row(struct drawing *d, const struct block *b, int level)
{
	const char *title = block_title(b, d->a), *text = b->node ? block_text(b, d->a) : b->kind == BLOCK_PART ? "" : b->label;

	str_addf(&d->s, "<tr><td style=\"padding-left:%dem\">", level);
	put_text(d, title ? title : "?", 200);
	str_add(&d->s, "<td>");
	put_text(d, text ? text : "?", 200);
	str_add(&d->s, "<td>");
	if (b->out)
		put_text(d, type_words(b->g, &b->g->value[b->out].type, d->a), 200);
	str_addf(&d->s, "<td class=\"r\">%s<td>", count_words(b->parameters, d->a));
	put_text(d, b->node ? b->name : "", 300);
	str_add(&d->s, "\n");
	for (int i = 0; i < b->nchild; i++)
		put_row(d, b->child[i], level + 1);
}

static void put_page(struct drawing *d, const struct block *top, const char *title)
{
	page_open(&d->s, title);
	draw_all(d, top, title);
	str_add(&d->s, "<details><summary>As a table</summary><table><tr><th>block<th>what<th>output<th>parameters<th>node\n");
	for (int i = 0; i < top->nchild; i++)
		put_row(d, top->child[i], 0);
	str_add(&d->s, "</table></details>");
	page_close(&d->s);
}

enum linnet_code blocks_draw(const struct block *top, const char *title, const char *path, bool html, struct arena *a, struct linnet_error *e)
{
	struct drawing d = { .a = a };

	str_init(&d.s, a);
	if (html)
		put_page(&d, top, title);
	else
		draw_all(&d, top, title);
	return page_save(&d.s, path, e);
}
