/* Byte-level BPE. */
#include "validate/tokenizer.h"

#include <string.h>

#include "graph/file.h"
#include "ops/base/utf8.h"

struct merge {
	int64_t left, right, id; /* id 0: an empty slot, no merge makes the first token */
};

static uint64_t slot_of(const struct tokenizer *t, int64_t left, int64_t right)
{
	uint64_t h = ((uint64_t)left << 32 ^ (uint64_t)right) * 0x9e3779b97f4a7c15u;

	for (h = (h ^ h >> 29) & (t->nslot - 1); t->slot[h].id && (t->slot[h].left != left || t->slot[h].right != right);)
		h = (h + 1) & (t->nslot - 1);
	return h;
}

/* ---- The file ---- */

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* A number, at most 9 digits, after spaces; *line moves behind it. */
static bool read_number(struct text *line, int64_t *n)
{
	bool negative;
	size_t i = 0;

	while (line->n && *line->p == ' ') {
		line->p++;
		line->n--;
	}
	negative = line->n && *line->p == '-';
	*n = 0;
	for (i = negative; i < line->n && i < 10 && line->p[i] >= '0' && line->p[i] <= '9'; i++)
		*n = 10 * *n + line->p[i] - '0';
	if (i == negative || (i < line->n && line->p[i] != ' '))
		return false;
	*n = negative ? -*n : *n;
	line->p += i;
	line->n -= i;
	return true;
}

static enum linnet_code read_token(struct tokenizer *t, struct text line, struct arena *a, struct linnet_error *e)
{
	int64_t left = -1, right = -1;
	size_t n = 0;
	char *bytes;

	while (n < line.n && digit(line.p[n]) >= 0)
		n++;
	if (!n || n % 2 || (n < line.n && line.p[n] != ' '))
		return fail(e, LINNET_EFORMAT, "token %lld is not written as pairs of hexadecimal digits", (long long)t->n);
	TRY_NEW(bytes, a, n / 2);
	for (size_t i = 0; i < n; i += 2)
		bytes[i / 2] = (char)(digit(line.p[i]) << 4 | digit(line.p[i + 1]));
	t->token[t->n] = (struct text){ bytes, n / 2 };
	line.p += n;
	line.n -= n;
	if (line.n && (!read_number(&line, &left) || !read_number(&line, &right) || (left < 0) != (right < 0) || left >= t->n || right >= t->n))
		return fail(e, LINNET_EFORMAT, "token %lld does not name two tokens before it, or -1 -1", (long long)t->n);
	if (left >= 0) {
		uint64_t h = slot_of(t, left, right);

		if (!t->slot[h].id) /* the first of two equal merges has the lower id */
			t->slot[h] = (struct merge){ left, right, t->n };
	} else if (n == 2) {
		t->byte[(unsigned char)bytes[0]] = (int32_t)t->n;
	}
	t->n++;
	return LINNET_OK;
}

enum linnet_code tokenizer_load(const char *path, struct arena *a, struct tokenizer **out, struct linnet_error *e)
{
	struct tokenizer *t;
	struct bytes f;
	size_t lines = 1;

	TRY(file_load(a, path, (int64_t)1 << 32, &f, e));
	for (size_t i = 0; i < f.n; i++)
		lines += f.p[i] == '\n';
	if (lines > INT32_MAX / 4)
		return err_file(e, fail(e, LINNET_ELIMIT, "%zu lines", lines), path);
	TRY_NEW(t, a, 1);
	TRY_NEW(t->token, a, lines);
	for (t->nslot = 64; t->nslot < 2 * lines;)
		t->nslot *= 2;
	TRY_NEW(t->slot, a, t->nslot);
	memset(t->byte, 0xff, sizeof t->byte);
	for (size_t at = 0, end; at < f.n; at = end + 1) {
		const char *p = (const char *)f.p + at;
		enum linnet_code code;

		for (end = at; end < f.n && f.p[end] != '\n';)
			end++;
		if (end == at || *p == '#')
			continue;
		code = read_token(t, (struct text){ p, end - at - (f.p[end - 1] == '\r') }, a, e);
		if (code)
			return err_file(e, code, path);
	}
	*out = t;
	return LINNET_OK;
}

/* ---- Encoding ---- */

enum kind { LETTER, DIGIT, SPACE, NEWLINE, OTHER };

static enum kind kind_of(char c)
{
	if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'))
		return LETTER;
	return c >= '0' && c <= '9' ? DIGIT : c == ' ' ? SPACE : c == '\n' ? NEWLINE : OTHER;
}

/* Bytes of the first piece of s. */
static size_t piece(struct text s)
{
	bool after_space = kind_of(*s.p) == SPACE && s.n > 1 && kind_of(s.p[1]) != SPACE && kind_of(s.p[1]) != NEWLINE;
	size_t n = after_space;
	enum kind k = kind_of(s.p[n]);

	if (k == OTHER) {
		size_t character = utf8_get(s.p + n, s.n - n, &(uint32_t){ 0 });

		return n + (character ? character : 1);
	}
	n++;
	while ((k == LETTER || k == DIGIT) && n < s.n && kind_of(s.p[n]) == k)
		n++;
	return n;
}

/* Merge within ids[0, n) until no neighbours merge; how many are left. */
static int64_t merge_all(const struct tokenizer *t, int64_t *ids, int64_t n)
{
	for (;;) {
		int64_t best = 0, at = -1;

		for (int64_t i = 0; i + 1 < n; i++) {
			int64_t id = t->slot[slot_of(t, ids[i], ids[i + 1])].id;

			if (id && (at < 0 || id < best)) {
				best = id;
				at = i;
			}
		}
		if (at < 0)
			return n;
		ids[at] = best;
		n--;
		memmove(ids + at + 1, ids + at + 2, (size_t)(n - at - 1) * sizeof *ids);
	}
}

enum linnet_code tokenizer_encode(const struct tokenizer *t, struct text s, struct arena *a, int64_t **ids, int64_t *n, struct linnet_error *e)
{
	int64_t *to;

	*n = 0;
	TRY_NEW(*ids, a, s.n + 1);
	while (s.n) {
		size_t length = piece(s);

		to = *ids + *n;
		for (size_t i = 0; i < length; i++) {
			to[i] = t->byte[(unsigned char)s.p[i]];
			if (to[i] < 0)
				return fail(e, LINNET_EVALUE, "the vocabulary has no token for byte %d", (unsigned char)s.p[i]);
		}
		*n += merge_all(t, to, (int64_t)length);
		s.p += length;
		s.n -= length;
	}
	return LINNET_OK;
}
