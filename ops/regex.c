/*
 * Regular expressions of RE2's syntax by PCRE2: the pattern is translated, which refuses what RE2 does not have (references, looking
 * around, possessive repetition) and spells out what PCRE2 means otherwise (\s, \v, octal numbers). PCRE2's DFA matcher follows all
 * alternatives at once, as RE2 does, so no pattern takes exponential time. The only file that includes pcre2.h.
 *
 * Source: RE2, doc/syntax.txt.
 */
#include "ops/regex.h"

#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "ops/base/str.h"
#include "ops/base/utf8.h"

enum { MAX_REPEAT = 1000, MAX_NESTING = 250, MIN_SPACE = 1 << 12, MAX_SPACE = 1 << 22 };

struct regex {
	pcre2_general_context *general;
	pcre2_code *code;
	pcre2_match_data *match;
	int *space; /* nspace of them, for the matcher's states */
	size_t nspace;
	struct arena *a;
};

/* ---- Translation ---- */

struct pattern {
	const char *p;
	size_t n, at;
	struct str out;
	int depth;                      /* of groups */
	bool multiline[MAX_NESTING + 1]; /* flag m, in the group of that depth: $ is also before newlines */
	struct linnet_error *e;
};

static enum linnet_code refuse(const struct pattern *t, const char *what)
{
	return fail(t->e, LINNET_EATTR, "pattern \"%.*s\", byte %zu: %s", (int)(t->n < 200 ? t->n : 200), t->p, t->at, what);
}

static char peek(const struct pattern *t, size_t ahead) { return t->at + ahead < t->n ? t->p[t->at + ahead] : '\0'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool is_word(char c) { return is_letter(c) || is_digit(c) || c == '_'; }
static bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

static void copy(struct pattern *t, size_t n)
{
	str_addn(&t->out, t->p + t->at, n);
	t->at += n;
}

static void literal(struct pattern *t, char c)
{
	if ((unsigned char)c < 0x80 && !is_word(c))
		str_add(&t->out, "\\");
	str_addn(&t->out, &c, 1);
}

/* \x4f, \x{10ffff} */
static enum linnet_code hexadecimal(struct pattern *t)
{
	size_t n = 2;

	if (peek(t, n) == '{') {
		for (n++; is_hex(peek(t, n)); n++)
			;
		if (n == 3 || peek(t, n++) != '}')
			return refuse(t, "\\x{ needs hexadecimal digits and }");
	} else if (is_hex(peek(t, 2)) && is_hex(peek(t, 3))) {
		n = 4;
	} else {
		return refuse(t, "\\x needs two hexadecimal digits");
	}
	copy(t, n);
	return LINNET_OK;
}

/* \pL, \p{Greek}, \P{^Lu} */
static enum linnet_code property(struct pattern *t)
{
	size_t n = 3;

	if (peek(t, 2) == '{') {
		n += peek(t, n) == '^';
		while (is_letter(peek(t, n)) || peek(t, n) == '_')
			n++;
		if (peek(t, n++) != '}')
			return refuse(t, "a property's name needs }");
	} else if (!is_letter(peek(t, 2))) {
		return refuse(t, "\\p needs a property");
	}
	copy(t, n);
	return LINNET_OK;
}

/* What begins with a backslash; in a class or outside. */
static enum linnet_code escape(struct pattern *t, bool in_class)
{
	char c = peek(t, 1);

	if (t->at + 1 >= t->n)
		return refuse(t, "nothing follows the backslash");
	switch (c) {
	case 'd': case 'D': case 'w': case 'W': case 'a': case 'f': case 't': case 'n': case 'r':
		copy(t, 2);
		return LINNET_OK;
	case 's': str_add(&t->out, in_class ? "\\t\\n\\f\\r " : "[\\t\\n\\f\\r ]"); break;
	case 'S': str_add(&t->out, in_class ? "\\S\\x0b" : "[^\\t\\n\\f\\r ]"); break;
	case 'v': str_add(&t->out, "\\x0b"); break;
	case 'x': return hexadecimal(t);
	case 'p': case 'P': return property(t);
	case 'A': case 'z': case 'b': case 'B':
		if (in_class)
			return refuse(t, "no class has that");
		str_addf(&t->out, "(?:\\%c)", c);
		break;
	case 'C': return refuse(t, "\\C, a byte of a character, is not supported");
	default:
		if (is_digit(c)) {
			unsigned v = 0;
			size_t n = 1;

			if (c > '7' || (c != '0' && (peek(t, 2) < '0' || peek(t, 2) > '7')))
				return refuse(t, "RE2 has no references");
			for (; n < 4 && peek(t, n) >= '0' && peek(t, n) <= '7'; n++)
				v = 8 * v + (unsigned)(peek(t, n) - '0');
			str_addf(&t->out, "\\x{%x}", v);
			t->at += n;
			return LINNET_OK;
		}
		if (is_letter(c) || (unsigned char)c >= 0x80)
			return refuse(t, "RE2 does not have that escape");
		literal(t, c);
	}
	t->at += 2;
	return LINNET_OK;
}

/* \Q...\E, or to the end */
static void quotation(struct pattern *t)
{
	for (t->at += 2; t->at < t->n; t->at++) {
		if (peek(t, 0) == '\\' && peek(t, 1) == 'E') {
			t->at += 2;
			return;
		}
		literal(t, peek(t, 0));
	}
}

static enum linnet_code class(struct pattern *t)
{
	copy(t, peek(t, 1) == '^' ? 2 : 1);
	for (bool first = true; first || peek(t, 0) != ']'; first = false) {
		if (t->at >= t->n)
			return refuse(t, "] is missing");
		if (peek(t, 0) == '\\') {
			TRY(escape(t, true));
		} else if (peek(t, 0) == '[' && peek(t, 1) == ':') {
			size_t n = 2;

			while (is_letter(peek(t, n)) || peek(t, n) == '^')
				n++;
			if (peek(t, n) != ':' || peek(t, n + 1) != ']')
				return refuse(t, "a named class needs :]");
			copy(t, n + 2);
		} else if (peek(t, 0) == '[' || peek(t, 0) == ']') {
			literal(t, peek(t, 0));
			t->at++;
		} else {
			copy(t, 1);
		}
	}
	copy(t, 1);
	return LINNET_OK;
}

static enum linnet_code open_group(struct pattern *t, bool multiline)
{
	if (t->depth == MAX_NESTING)
		return refuse(t, "groups are nested too deeply");
	t->multiline[++t->depth] = multiline;
	return LINNET_OK;
}

/* ( or (?: or (?P<name> or (?<name>, which need not be told apart here; (?flags) and (?flags: */
static enum linnet_code group(struct pattern *t)
{
	bool multiline = t->multiline[t->depth], on = true;
	size_t n = 2;

	if (peek(t, 1) != '?') {
		str_add(&t->out, "(?:");
		t->at++;
		return open_group(t, multiline);
	}
	n += peek(t, n) == 'P' && peek(t, n + 1) == '<';
	if (peek(t, n) == '<') {
		size_t name = ++n;

		while (is_word(peek(t, n)))
			n++;
		if (n == name || peek(t, n++) != '>')
			return refuse(t, "RE2 does not have that kind of group");
		str_add(&t->out, "(?:");
		t->at += n;
		return open_group(t, multiline);
	}
	for (; peek(t, n) && strchr("imsU-", peek(t, n)); n++) {
		if (peek(t, n) == '-')
			on = false;
		else if (peek(t, n) == 'm')
			multiline = on;
	}
	if (peek(t, n) == ')')
		t->multiline[t->depth] = multiline;
	else if (peek(t, n) != ':')
		return refuse(t, "RE2 does not have that kind of group");
	else
		TRY(open_group(t, multiline));
	copy(t, n + 1);
	return LINNET_OK;
}

/* Length of {2} or {2,} or {2,3} here, 0 when it is text. */
static size_t repeat_length(const struct pattern *t, long *most)
{
	size_t n = 1, digits = 0;
	long v = 0;

	*most = 0;
	for (; is_digit(peek(t, n)); n++, digits++)
		v = v < MAX_REPEAT + 1 ? 10 * v + (peek(t, n) - '0') : v;
	*most = v;
	if (!digits)
		return 0;
	if (peek(t, n) == ',') {
		for (v = 0, n++; is_digit(peek(t, n)); n++)
			v = v < MAX_REPEAT + 1 ? 10 * v + (peek(t, n) - '0') : v;
		*most = v > *most ? v : *most;
	}
	return peek(t, n) == '}' ? n + 1 : 0;
}

static enum linnet_code translate(struct pattern *t)
{
	bool item = false, repeated = false; /* what came before: something to repeat, a repetition */

	while (t->at < t->n) {
		char c = peek(t, 0);
		long most = 0;
		size_t n = strchr("*+?", c) && c ? 1 : c == '{' ? repeat_length(t, &most) : 0;

		if (n) {
			if (!item)
				return refuse(t, repeated ? "a repetition of a repetition" : "nothing to repeat");
			if (most > MAX_REPEAT)
				return refuse(t, "more repetitions than 1000");
			copy(t, n + (peek(t, n) == '?'));
			item = false;
			repeated = true;
			continue;
		}
		item = true;
		repeated = false;
		switch (c) {
		case '\\':
			if (peek(t, 1) == 'Q')
				quotation(t);
			else
				TRY(escape(t, false));
			break;
		case '[': TRY(class(t)); break;
		case '(':
			TRY(group(t));
			item = false;
			break;
		case '|':
			item = false;
			copy(t, 1);
			break;
		case '^': case '$':
			str_add(&t->out, c == '^' ? "(?:^)" : t->multiline[t->depth] ? "(?:$)" : "(?:\\z)");
			t->at++;
			break;
		case ')':
			if (!t->depth)
				return refuse(t, ") without (");
			t->depth--;
			copy(t, 1);
			break;
		case '.': copy(t, 1); break;
		default:
			if ((unsigned char)c < 0x80) {
				literal(t, c);
				t->at++;
			} else {
				uint32_t point;
				size_t len = utf8_get(t->p + t->at, t->n - t->at, &point);

				if (!len)
					return refuse(t, "not UTF-8");
				copy(t, len);
			}
		}
	}
	return LINNET_OK;
}

/* ---- Matching ---- */

static void *get(size_t n, void *ctx)
{
	(void)ctx;
	return mem_get(n);
}

static void put(void *p, void *ctx)
{
	(void)ctx;
	mem_put(p);
}

static void release(void *ctx)
{
	struct regex *r = ctx;

	pcre2_match_data_free(r->match);
	pcre2_code_free(r->code);
	pcre2_general_context_free(r->general);
}

enum linnet_code regex_new(struct regex **out, struct text pattern, enum regex_use use, struct arena *a, struct linnet_error *e)
{
	const uint32_t options = PCRE2_UTF | (use == REGEX_WHOLE ? PCRE2_ANCHORED : 0u) | PCRE2_ALT_CIRCUMFLEX | PCRE2_NEVER_UCP;
	struct pattern t = { .p = pattern.p, .n = pattern.n, .e = e };
	pcre2_compile_context *c;
	PCRE2_UCHAR why[120];
	struct regex *r;
	PCRE2_SIZE at;
	const char *s;
	int code;

	str_init(&t.out, a);
	str_add(&t.out, "(?:");
	TRY(translate(&t));
	str_add(&t.out, use == REGEX_WHOLE ? ")\\z" : ")"); /* with PCRE2_ENDANCHORED the DFA matcher (10.42) takes an empty match before one character */
	s = str_done(&t.out);
	TRY_NEW(r, a, 1);
	if (!s || arena_on_free(a, release, r))
		return fail_mem(e);
	r->a = a;
	r->general = pcre2_general_context_create(get, put, NULL);
	c = r->general ? pcre2_compile_context_create(r->general) : NULL;
	if (!c)
		return fail_mem(e);
	pcre2_set_newline(c, PCRE2_NEWLINE_LF);
	r->code = pcre2_compile((PCRE2_SPTR)s, t.out.n, options, &code, &at, c);
	pcre2_compile_context_free(c);
	if (!r->code) {
		if (pcre2_get_error_message(code, why, sizeof why) < 0)
			why[0] = '\0';
		return code == PCRE2_ERROR_NOMEMORY || code == PCRE2_ERROR_HEAP_FAILED
			? fail_mem(e) : refuse(&t, (const char *)why);
	}
	r->match = pcre2_match_data_create(1, r->general);
	if (!r->match)
		return fail_mem(e);
	r->nspace = MIN_SPACE;
	TRY_NEW(r->space, a, r->nspace);
	*out = r;
	return LINNET_OK;
}

/* *found: as pcre2_dfa_match() returns it, when it is no failure. */
static enum linnet_code search(struct regex *r, struct text s, size_t from, int *found, struct linnet_error *e)
{
	for (;;) {
		*found = pcre2_dfa_match(r->code, (PCRE2_SPTR)(s.n ? s.p : ""), s.n, from, 0, r->match, NULL, r->space, r->nspace);
		if (*found != PCRE2_ERROR_DFA_WSSIZE || r->nspace >= MAX_SPACE)
			break;
		r->nspace *= 4;
		TRY_NEW(r->space, r->a, r->nspace);
	}
	if (*found >= 0 || *found == PCRE2_ERROR_NOMATCH || (*found <= PCRE2_ERROR_UTF8_ERR1 && *found >= PCRE2_ERROR_UTF8_ERR21))
		return LINNET_OK;
	if (*found == PCRE2_ERROR_NOMEMORY)
		return fail_mem(e);
	return fail(e, LINNET_ELIMIT, "matching the pattern takes more than is admitted (PCRE2 error %d)", *found);
}

enum linnet_code regex_match(struct regex *r, struct text s, bool *matches, struct linnet_error *e)
{
	int found;

	TRY(search(r, s, 0, &found, e));
	*matches = found >= 0;
	return LINNET_OK;
}

enum linnet_code regex_find(struct regex *r, struct text s, size_t from, struct text *match, struct linnet_error *e)
{
	const PCRE2_SIZE *at = pcre2_get_ovector_pointer(r->match);
	int found;

	TRY(search(r, s, from, &found, e));
	*match = found < 0 ? (struct text){ 0 } : (struct text){ s.p + at[0], at[1] - at[0] };
	return LINNET_OK;
}
