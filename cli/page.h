/* What drawings and pages share: text in XML, the frame of a page, writing it. Nothing is loaded, no scripts; colours follow the reader's light or dark mode. */
#ifndef LINNET_CLI_PAGE_H
#define LINNET_CLI_PAGE_H

#include <stdbool.h>

#include "ops/base/err.h"
#include "ops/base/str.h"

/* Text inside an element: characters of XML as they are, others as a question mark, at most so many. */
void page_text(struct str *s, const char *text, int most);

void page_open(struct str *s, const char *title);
void page_close(struct str *s);

/*
 * The beginning of a drawing: <svg>, its title, style and ground. Classes: .g lines of levels, .a axes, .l lines, .h dashed lines, .d points, .c0 to .c5 colours, .x
 * text about its place, .y text before it.
 */
void page_drawing(struct str *s, int width, int height, const char *title);

/* An axis, `length` long from `from` on: from left to right, or up when that is negative. It begins as { .low = INFINITY, .high = -INFINITY }. */
struct page_axis {
	double low, high;
	int from, length;
	bool log;
};

/* The axis reaches to x as well; what is no number, or on an axis of logarithms not above 0, it passes over. */
void page_reach(struct page_axis *a, double x);

double page_place(const struct page_axis *a, double x);

/* Both axes, made a little longer, with lines and names of levels, and what x is. */
void page_axes(struct str *s, struct page_axis *x, struct page_axis *y, const char *label);

/* The text as a file, whole or not at all. */
enum linnet_code page_save(struct str *s, const char *path, struct linnet_error *e);

#endif
