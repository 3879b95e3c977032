/* linnet show --blocks: the tree of blocks as tables, JSON and drawings. */
#ifndef LINNET_CLI_BLOCKS_H
#define LINNET_CLI_BLOCKS_H

#include "cli/cli.h"
#include "graph/blocks.h"

json_t *attention_json(const struct attention_group *f);
json_t *glu_json(const struct glu_group *f);

/* On stdout. */
enum linnet_code blocks_show(const struct block *top, struct arena *a, struct linnet_error *e);

/* draw.c: a drawing as an SVG document, or that in an HTML page with the same as a table; "-": stdout. The tree should be folded. */
enum linnet_code blocks_draw(const struct block *top, const char *title, const char *path, bool html, struct arena *a, struct linnet_error *e);

/* "3.5 M"; "" for 0. */
const char *count_words(int64_t n, struct arena *a);
/* "layer 3", "layers 1 to 12", "attention x 4" */
const char *block_title(const struct block *b, struct arena *a);

#endif
