#include "cli/blocks.h"
enum linnet_code blocks_draw(const struct block *top, const char *title, const char *path, bool html, struct arena *a, struct linnet_error *e)
{
	(void)top, (void)title, (void)path, (void)html, (void)a, (void)e;
	return LINNET_OK;
}
