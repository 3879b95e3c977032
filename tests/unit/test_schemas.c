/*
 * The operator table against the schemas of ONNX and onnxruntime: every version of every operator has a row that says the same
 * of its inputs, outputs, attributes and element types, or stands in ops/absent.c.
 *
 * corpus/onnx/exceptions.txt lists what is known to differ, one finding a line, as `domain name version what ...: reason`;
 * version * means all. What is listed and does not occur is an error too; `test_schemas --update` takes it from the list.
 * `test_schemas NAME ...` prints all findings of these operators.
 */
#include "tests/unit/unit.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/op.h"

#define SCHEMAS "corpus/onnx/schemas.json"
#define EXCEPTIONS "corpus/onnx/exceptions.txt"

enum { MAX_EXCEPTIONS = 1000, MAX_IO = 64 };

static char **only; /* operators asked for on the command line */
static int nonly;
static bool update;

/* ---- Findings and exceptions ---- */

static struct exception {
	char domain[40], name[80], version[8], what[80];
	int line;
	bool used;
} exception[MAX_EXCEPTIONS];

static int nexception, nfinding, nschema, nrow;

static void read_exceptions(void)
{
	FILE *f = fopen(EXCEPTIONS, "r");
	char line[500];
	int n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof line, f)) {
		struct exception *x = &exception[nexception];

		x->line = n++;
		if (*line == '#' || *line == '\n')
			continue;
		assert_true(nexception < MAX_EXCEPTIONS);
		if (sscanf(line, "%39s %79s %7s %79[^:]: %*s", x->domain, x->name, x->version, x->what) != 4)
			fail_msg(EXCEPTIONS ": not \"domain name version what: reason\": %s", line);
		nexception++;
	}
	fclose(f);
}

/* The file without the lines that are not needed. */
static void write_exceptions(void)
{
	FILE *in = fopen(EXCEPTIONS, "r"), *out = fopen(EXCEPTIONS ".new", "w");
	char line[500];
	int k = 0;

	assert_true(in && out);
	for (int n = 0; fgets(line, sizeof line, in); n++) {
		while (k < nexception && exception[k].line < n)
			k++;
		if (k == nexception || exception[k].line != n || exception[k].used)
			fputs(line, out);
	}
	fclose(in);
	assert_int_equal(fclose(out), 0);
	assert_int_equal(rename(EXCEPTIONS ".new", EXCEPTIONS), 0);
}

/* A version of an operator as the schemas have it, and the row for it. */
struct pair {
	const char *domain, *name;
	int since;
	bool newest; /* of the versions the row stands for */
	const struct op *op;
	json_t *schema, *sets;
};

static void __attribute__((format(printf, 3, 4))) finding(const struct pair *p, const char *what, const char *fmt, ...)
{
	char text[600], version[8];
	bool excepted = false;
	va_list ap;

	snprintf(version, sizeof version, "%d", p->since);
	for (int i = 0; i < nexception; i++) {
		struct exception *x = &exception[i];

		if (strcmp(x->domain, p->domain) || strcmp(x->name, p->name) || strcmp(x->what, what) ||
		    (strcmp(x->version, "*") && strcmp(x->version, version)))
			continue;
		x->used = excepted = true;
	}
	if (excepted && !nonly)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	print_error("%s %s %d %s: %s\n", p->domain, p->name, p->since, what, text);
	nfinding += !excepted;
}

/* ---- Attributes ---- */

static const char *const kind_name[] = {
	[ATTR_NONE] = "none",     [ATTR_INT] = "int",   [ATTR_FLOAT] = "float",   [ATTR_STRING] = "string",   [ATTR_TENSOR] = "tensor",
	[ATTR_GRAPH] = "graph",   [ATTR_INTS] = "ints", [ATTR_FLOATS] = "floats", [ATTR_STRINGS] = "strings",
	[ATTR_TYPE] = "type_proto", [ATTR_OTHER] = "sparse_tensor",
};

static bool has_default(const struct op_attr *a)
{
	return !(a->flags & (REQUIRED | OPTIONAL)) && a->kind != ATTR_TENSOR && a->kind != ATTR_GRAPH && a->kind != ATTR_STRINGS &&
	       a->kind != ATTR_TYPE && a->kind != ATTR_OTHER;
}

/* The schema's default as the row would write it: a number, a word, or "1,1". */
static void default_text(json_t *v, char *buf, size_t n)
{
	buf[0] = '\0';
	if (json_is_integer(v))
		snprintf(buf, n, "%lld", (long long)json_integer_value(v));
	else if (json_is_real(v))
		snprintf(buf, n, "%.7g", (double)(float)json_real_value(v));
	else if (json_is_string(v))
		snprintf(buf, n, "%s", json_string_value(v));
	for (size_t i = 0; json_is_array(v) && i < json_array_size(v); i++) {
		size_t at = strlen(buf);

		if (i)
			buf[at++] = ',';
		default_text(json_array_get(v, i), buf + at, n - at);
	}
}

static void row_default(const struct op_attr *a, char *buf, size_t n)
{
	if (a->kind == ATTR_INT)
		snprintf(buf, n, "%lld", (long long)a->i);
	else if (a->kind == ATTR_FLOAT)
		snprintf(buf, n, "%.7g", (double)(float)a->f);
	else
		snprintf(buf, n, "%s", a->s ? a->s : "");
}

static void check_attr(const struct pair *p, const char *name, json_t *said)
{
	int i = op_attr_index(p->op, name);
	const struct op_attr *a = i < 0 || p->op->attr[i].since > p->since ? NULL : &p->op->attr[i];
	const char *kind = json_string_value(json_object_get(said, "kind"));
	bool required = json_is_true(json_object_get(said, "required"));
	json_t *value = json_object_get(said, "default");
	char what[100], want[300], got[300];

	snprintf(what, sizeof what, "attribute %s", name);
	if (!a) {
		finding(p, what, "the row does not have it");
		return;
	}
	if (strcmp(kind, kind_name[a->kind]))
		finding(p, what, "is %s in the row, %s in the schema", kind_name[a->kind], kind);
	if (required != !!(a->flags & REQUIRED))
		finding(p, what, "is %srequired by the schema", required ? "" : "not ");
	if (value && !has_default(a))
		finding(p, what, "has a default in the schema");
	if (!value || !has_default(a))
		return; /* a default the schema does not have is one its text tells */
	default_text(value, want, sizeof want);
	row_default(a, got, sizeof got);
	if (strcmp(want, got))
		finding(p, what, "has default %s in the row, %s in the schema", got, want);
}

static void check_attrs(const struct pair *p)
{
	json_t *said = json_object_get(p->schema, "attr"), *value;
	const char *name;

	json_object_foreach(said, name, value)
		check_attr(p, name, value);
	for (const struct op_attr *a = p->op->attr; a && a->name; a++) {
		char what[100];

		snprintf(what, sizeof what, "attribute %s", a->name);
		if (a->since <= p->since && !json_object_get(said, a->name))
			finding(p, what, "the schema does not have it");
	}
}

/* ---- Inputs and outputs ---- */

/* One of the row and its counterpart. */
struct io {
	const struct op_io *row;
	json_t *said;
	bool output;
	int at;
	dtype_set types; /* as the schema says */
	kind_set kinds;
};

static bool says(const struct io *io, const char *flag)
{
	for (size_t i = 2; i < json_array_size(io->said); i++)
		if (!strcmp(json_string_value(json_array_get(io->said, i)), flag))
			return true;
	return false;
}

static const char *type_var(const struct io *io) { return json_string_value(json_array_get(io->said, 1)); }

/* What the schema says: the kinds of values, and their element types. */
static void said_types(const struct pair *p, struct io *io)
{
	static const struct {
		const char *start;
		kind_set kind;
	} words[] = {
		{ "seq(map(", KIND(SEQUENCE_MAP) }, { "seq(", KIND(SEQUENCE) }, { "optional(seq(", KIND(OPTIONAL_SEQUENCE) },
		{ "optional(", KIND(OPTIONAL) }, { "map(", KIND(MAP) }, { "sparse_tensor(", KIND(TENSOR) }, { "", KIND(TENSOR) },
	};
	json_t *at = json_object_get(json_object_get(p->schema, "types"), type_var(io));
	const char *s = json_string_value(json_array_get(p->sets, (size_t)json_integer_value(at)));

	io->kinds = 0;
	io->types = 0;
	while (*s) {
		size_t n = strcspn(s, " "), start, end = strcspn(s, ") "), k = 0;

		while (strncmp(s, words[k].start, strlen(words[k].start)))
			k++;
		io->kinds |= words[k].kind;
		for (start = end; start && s[start - 1] != '(' && s[start - 1] != ','; start--)
			;
		io->types |= (dtype_set)1 << dtype_parse(s + start, end - start);
		s += n + (s[n] == ' ');
	}
}

/* What the row says, without what came later. */
static dtype_set row_types(const struct pair *p, const struct io *io, kind_set *kinds)
{
	dtype_set set = p->op->types[io->row->type];

	*kinds = io_kinds(io->row);
	for (int t = 1; t < DT_COUNT; t++)
		if (dtype_in((enum dtype)t, set) && (op_type_since(p->op, io->output, io->at, (enum dtype)t, p->since) ||
		                                     (!io->at && op_type_gone(p->op, (enum dtype)t, p->since))))
			set &= ~((dtype_set)1 << t);
	for (int k = 0; k <= KIND_OTHER; k++)
		if (kind_in((enum type_kind)k, *kinds) && op_kind_since(p->op, io->output, io->at, (enum type_kind)k, p->since))
			*kinds = (kind_set)(*kinds & ~(1 << k));
	return set;
}

static const char *names_of(dtype_set set)
{
	static char buf[500];
	size_t at = 0;

	buf[0] = '\0';
	for (int t = 1; t < DT_COUNT; t++)
		if (dtype_in((enum dtype)t, set))
			at += (size_t)snprintf(buf + at, sizeof buf - at, " %s", dtype_name((enum dtype)t));
	return buf;
}

static void check_io(const struct pair *p, struct io *io)
{
	const char *name = json_string_value(json_array_get(io->said, 0)), *kind = io->output ? "output" : "input";
	kind_set kinds;
	dtype_set got = row_types(p, io, &kinds);
	char what[100];

	said_types(p, io);
	snprintf(what, sizeof what, "%s %s", kind, name);
	if (p->newest && strcmp(name, io->row->name))
		finding(p, what, "is \"%s\" in the row", io->row->name);
	if (says(io, "optional") != !!(io->row->flags & OPTIONAL))
		finding(p, what, "is %soptional in the schema", says(io, "optional") ? "" : "not ");
	if (says(io, "variadic") != !!(io->row->flags & VARIADIC))
		finding(p, what, "is %svariadic in the schema", says(io, "variadic") ? "" : "not ");
	if (says(io, "hetero") != !!(io->row->flags & HETERO))
		finding(p, what, "members %s in type in the schema", says(io, "hetero") ? "may differ" : "agree");
	snprintf(what, sizeof what, "kinds of %s", name);
	if (kinds != io->kinds)
		finding(p, what, "%#x in the row, %#x in the schema", kinds, io->kinds);
	snprintf(what, sizeof what, "types of %s", name);
	if (got & ~io->types)
		finding(p, what, "the schema does not admit%s", names_of(got & ~io->types));
	if (io->types & ~got)
		finding(p, what, "the row does not admit%s", names_of(io->types & ~got));
}

static bool several(dtype_set s) { return s & (s - 1); }

/* The row's type variable, which may once have been an input's. */
static int row_var(const struct pair *p, const struct io *io)
{
	int like;

	return op_alike_since(p->op, io->output, io->at, p->since, &like) ? p->op->in[like].type : io->row->type;
}

/* Whether two of them have one type variable or two; of different kinds they have two even where the elements' types agree. */
static void check_vars(const struct pair *p, const struct io *a, const struct io *b)
{
	bool said = !strcmp(type_var(a), type_var(b)), row = row_var(p, a) == row_var(p, b);
	char what[100];

	if (said == row || (row && a->kinds != b->kinds) || !several(a->types) || !several(b->types) || (a->row->flags | b->row->flags) & HETERO)
		return;
	snprintf(what, sizeof what, "types of %s", json_string_value(json_array_get(b->said, 0)));
	finding(p, what, "in the schema %s those of %s", said ? "are" : "need not be", json_string_value(json_array_get(a->said, 0)));
}

static int gather(const struct pair *p, const char *key, const struct op_io *row, struct io *io)
{
	json_t *said = json_object_get(p->schema, key);
	size_t n = json_array_size(said), k = 0;

	for (int i = 0; row && row[i].name; i++) {
		if (row[i].since > p->since)
			continue;
		if (k < n)
			io[k] = (struct io){ .row = &row[i], .said = json_array_get(said, k), .output = *key == 'o', .at = i };
		k++;
	}
	if (k != n)
		finding(p, *key == 'o' ? "outputs" : "inputs", "%zu in the row, %zu in the schema", k, n);
	return (int)(k < n ? k : n);
}

static void check_ios(const struct pair *p)
{
	struct io io[MAX_IO];
	int n = gather(p, "in", p->op->in, io);

	n += gather(p, "out", p->op->out, io + n);
	for (int i = 0; i < n; i++) {
		check_io(p, &io[i]);
		for (int k = 0; k < i; k++)
			check_vars(p, &io[k], &io[i]);
	}
}

/* ---- The table ---- */

static bool asked(const char *name)
{
	for (int i = 0; i < nonly; i++)
		if (!strcmp(only[i], name))
			return true;
	return !nonly;
}

static struct pair pair_of(json_t *schema, json_t *next, json_t *sets)
{
	struct pair p = { .schema = schema, .sets = sets };

	p.domain = json_string_value(json_object_get(schema, "domain"));
	p.name = json_string_value(json_object_get(schema, "name"));
	p.since = (int)json_integer_value(json_object_get(schema, "since"));
	p.op = op_find(p.domain, p.name, p.since);
	p.newest = !next || strcmp(json_string_value(json_object_get(next, "name")), p.name) ||
	           op_find(p.domain, p.name, (int)json_integer_value(json_object_get(next, "since"))) != p.op;
	return p;
}

/* Rows of the schemas' domains are of a version that there is. */
static void check_row(const struct op *op, json_t *list)
{
	struct pair p = { .domain = op->domain && *op->domain ? op->domain : "ai.onnx", .name = op->name, .since = op->since };
	bool domain = false;

	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *s = json_array_get(list, i);

		if (strcmp(json_string_value(json_object_get(s, "domain")), p.domain))
			continue;
		domain = true;
		if (json_integer_value(json_object_get(s, "since")) == p.since && !strcmp(json_string_value(json_object_get(s, "name")), p.name))
			return;
	}
	if (domain)
		finding(&p, "row", "there is no such version");
}

static void rows_say_what_schemas_say(void **state)
{
	json_error_t error;
	json_t *file = json_load_file(SCHEMAS, 0, &error), *list = json_object_get(file, "schemas"), *sets = json_object_get(file, "sets");

	(void)state;
	if (!file)
		fail_msg(SCHEMAS ":%d: %s", error.line, error.text);
	read_exceptions();
	for (size_t i = 0; i < json_array_size(list); i++) {
		struct pair p = pair_of(json_array_get(list, i), json_array_get(list, i + 1), sets);

		if (!asked(p.name))
			continue;
		nschema++;
		if (!!p.op == !!op_absent(p.domain, p.name))
			finding(&p, "row", p.op ? "there is one, and ops/absent.c has it" : "there is none, and ops/absent.c does not say why");
		if (!p.op)
			continue;
		nrow++;
		check_ios(&p);
		check_attrs(&p);
	}
	for (const struct op_family *const *f = op_families; *f; f++)
		for (int i = 0; i < (*f)->n; i++)
			if (asked((*f)->op[i].name))
				check_row(&(*f)->op[i], list);
	json_decref(file);
	if (update)
		write_exceptions();
	for (int i = 0; i < nexception && !nonly && !update; i++)
		if (!exception[i].used) {
			print_error(EXCEPTIONS ": no longer needed (--update): %s %s %s %s\n", exception[i].domain, exception[i].name,
			            exception[i].version, exception[i].what);
			nfinding++;
		}
	print_message("%d of %d schemas have a row; %d findings\n", nrow, nschema, nfinding);
	assert_int_equal(nfinding, 0);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = { cmocka_unit_test(rows_say_what_schemas_say) };

	update = argc == 2 && !strcmp(argv[1], "--update");
	only = argv + 1;
	nonly = update ? 0 : argc - 1;
	return cmocka_run_group_tests_name("schemas", tests, NULL, NULL);
}
