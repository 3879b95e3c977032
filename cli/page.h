/* What drawings and pages share: text in XML, the frame of a page, writing it. Nothing is loaded, no scripts; colours follow the reader's light or dark mode. */
#ifndef LINNET_CLI_PAGE_H
#define LINNET_CLI_PAGE_H

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

/* The text as a file, whole or not at all. */
enum linnet_code page_save(struct str *s, const char *path, struct linnet_error *e);

#endif
