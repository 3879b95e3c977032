/* Drawings and pages: see page.h. */
#include "cli/page.h"

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
