/* linnet ops: the operator table, as text, JSON and docs/ops.md. */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "ops/op.h"

struct ops_opt {
	bool markdown, absent;
};

static const char *domain_of(const struct op *op)
{
	return op->domain && *op->domain ? op->domain : "ai.onnx";
}

static int by_name(const void *a, const void *b)
{
	const struct op *p = *(const struct op *const *)a, *q = *(const struct op *const *)b;
	int d = strcmp(domain_of(p), domain_of(q)), n = strcmp(p->name, q->name);

	return d ? d : n ? n : p->since - q->since;
}

/* All rows, sorted; freed by the caller. */
static const struct op **sorted(int *n)
{
	const struct op **row;

	*n = 0;
	for (const struct op_family *const *f = op_families; *f; f++)
		*n += (*f)->n;
	row = calloc((size_t)*n + 1, sizeof *row);
	*n = 0;
	for (const struct op_family *const *f = op_families; row && *f; f++)
		for (int i = 0; i < (*f)->n; i++)
			row[(*n)++] = &(*f)->op[i];
	if (row)
		qsort(row, (size_t)*n, sizeof *row, by_name);
	return row;
}

/* "float double ..." of a set. */
static void type_names(dtype_set s, char *buf, size_t n)
{
	size_t at = 0;

	buf[0] = '\0';
	if (s == ANY_DTYPE) {
		snprintf(buf, n, "any");
		return;
	}
	for (int t = 1; t < DT_COUNT && at < n; t++)
		if (dtype_in((enum dtype)t, s))
			at += (size_t)snprintf(buf + at, n - at, "%s%s", at ? " " : "", dtype_name((enum dtype)t));
}

/* How an operator is computed. */
enum way { LOWERED, CONTROL, BODY, TYPES, REFERENCE, FAST_TOO, NWAY };

static const char *const way_name[NWAY] = { "lowered", "control flow", "body", "types only", "reference", "reference, fast" };

static enum way way_of(const struct op *op)
{
	if (op_is_old(op))
		return LOWERED;
	if (op->flags & OP_CONTROL)
		return CONTROL;
	if (!op->kernel)
		return op_has_body(op) ? BODY : TYPES;
	return op->fast ? FAST_TOO : REFERENCE;
}

/* "seq, optional(seq) of " and the like; nothing of tensors alone. */
static void kind_names(const struct op_io *io, char *buf, size_t n)
{
	static const char *const name[] = {
		[KIND_TENSOR] = "tensor", [KIND_SEQUENCE] = "seq", [KIND_OPTIONAL] = "optional", [KIND_OPTIONAL_SEQUENCE] = "optional(seq)",
		[KIND_MAP] = "map", [KIND_SEQUENCE_MAP] = "seq(map)", [KIND_SPARSE] = "sparse_tensor", [KIND_OTHER] = "other",
	};
	size_t at = 0;

	buf[0] = '\0';
	for (int k = 0; k <= KIND_OTHER && at < n && io->kinds; k++)
		if (kind_in((enum type_kind)k, io->kinds))
			at += (size_t)snprintf(buf + at, n - at, "%s%s", at ? ", " : "", name[k]);
	if (at < n && at)
		snprintf(buf + at, n - at, " of ");
}

static const char *gradient_of(const struct op *op)
{
	static const char *const name[] = {
		[GRADIENT_NO] = "", [GRADIENT_ROW] = "own", [GRADIENT_BODY] = "body", [GRADIENT_GRAPHS] = "of its graphs", [GRADIENT_MISSING] = "missing",
	};

	return op_is_old(op) ? "" : name[op_gradient(op)];
}

static const char *kernels_of(const struct op *op) { return way_name[way_of(op)]; }

static void attr_default(const struct op_attr *a, char *buf, size_t n)
{
	if (a->flags & REQUIRED)
		snprintf(buf, n, "required");
	else if (a->flags & OPTIONAL || a->kind == ATTR_TENSOR || a->kind == ATTR_GRAPH || a->kind == ATTR_STRINGS)
		snprintf(buf, n, "optional");
	else if (a->kind == ATTR_INT)
		snprintf(buf, n, "%lld", (long long)a->i);
	else if (a->kind == ATTR_FLOAT)
		snprintf(buf, n, "%g", a->f);
	else
		snprintf(buf, n, "%s", a->s ? a->s : "empty");
}

static const char *kind_name(enum attr_kind k)
{
	static const char *const name[] = {
		[ATTR_NONE] = "none",     [ATTR_INT] = "int",     [ATTR_FLOAT] = "float",     [ATTR_STRING] = "string",
		[ATTR_TENSOR] = "tensor", [ATTR_GRAPH] = "graph", [ATTR_INTS] = "ints",       [ATTR_FLOATS] = "floats",
		[ATTR_STRINGS] = "strings", [ATTR_TYPE] = "type", [ATTR_OTHER] = "other",
	};

	return name[k];
}

static void print_io(const char *title, const struct op_io *io, const struct op *op)
{
	for (; io && io->name; io++) {
		char types[512], kinds[128];

		type_names(op->types[io->type], types, sizeof types);
		kind_names(io, kinds, sizeof kinds);
		printf("  %-9s %s%s%s%s%s: %s%s\n", title, style(stdout, CYAN), io->name, style(stdout, RESET),
		       io->flags & OPTIONAL ? " (optional)" : "", io->flags & VARIADIC ? " (variadic)" : "", kinds, types);
	}
}

static void print_row(const struct op *op)
{
	printf("%s%s%s  %s, since opset %d, %s\n", style(stdout, BOLD), op->name, style(stdout, RESET), domain_of(op),
	       op->since, kernels_of(op));
	printf("  %s\n", op->doc ? op->doc : "");
	if (*gradient_of(op))
		printf("  gradient: %s\n", gradient_of(op));
	print_io("input", op->in, op);
	print_io("output", op->out, op);
	for (const struct op_attr *a = op->attr; a && a->name; a++) {
		char dflt[64];

		attr_default(a, dflt, sizeof dflt);
		printf("  attribute %s%s%s: %s, %s", style(stdout, CYAN), a->name, style(stdout, RESET), kind_name(a->kind), dflt);
		if (a->oneof)
			printf(", one of %s", a->oneof);
		if (a->input)
			printf(", later input %d", a->input);
		putchar('\n');
	}
	if (op->body)
		printf("  the same in other operators:\n%s\n", op->body);
	else if (op->write_body)
		puts("  the same in other operators: written for each call");
}

static json_t *io_json(const struct op_io *io, const struct op *op)
{
	json_t *list = json_array();

	for (; io && io->name; io++) {
		char types[512], kinds[128];

		type_names(op->types[io->type], types, sizeof types);
		kind_names(io, kinds, sizeof kinds);
		json_array_append_new(list, json_pack("{s:s, s:s+, s:b, s:b}", "name", io->name, "types", kinds, types, "optional",
		                                      io->flags & OPTIONAL, "variadic", io->flags & VARIADIC));
	}
	return list;
}

static void row_json(const struct op *op)
{
	json_t *attrs = json_array();

	for (const struct op_attr *a = op->attr; a && a->name; a++) {
		char dflt[64];

		attr_default(a, dflt, sizeof dflt);
		json_array_append_new(attrs, json_pack("{s:s, s:s, s:s}", "name", a->name, "kind", kind_name(a->kind), "default", dflt));
	}
	json_line(json_pack("{s:s, s:s, s:i, s:s, s:s, s:s, s:o, s:o, s:o}", "name", op->name, "domain", domain_of(op), "since",
	                    op->since, "kernels", kernels_of(op), "gradient", gradient_of(op), "doc", op->doc ? op->doc : "", "inputs",
	                    io_json(op->in, op), "outputs", io_json(op->out, op), "attributes", attrs),
	          "op");
}

/* What the table has of one domain: its operators by the way their newest row is computed. */
struct coverage {
	const char *domain;
	int operators, rows, by[NWAY];
};

/* Of the domain that the rows from *i on are of; *i becomes the first of the next. */
static struct coverage coverage_of(const struct op **row, int n, int *i)
{
	struct coverage c = { .domain = domain_of(row[*i]) };

	for (; *i < n && !strcmp(domain_of(row[*i]), c.domain); (*i)++) {
		const struct op *op = row[*i];

		c.rows++;
		if (op_newest(op->domain, op->name) != op)
			continue;
		c.operators++;
		c.by[way_of(op)]++;
	}
	return c;
}

static void print_coverage(const struct op **row, int n)
{
	for (int i = 0; i < n;) {
		struct coverage c = coverage_of(row, n, &i);
		int kernels = c.by[REFERENCE] + c.by[FAST_TOO];

		if (globals.json) {
			json_line(json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "domain", c.domain, "operators", c.operators, "rows",
			                    c.rows, "kernels", kernels, "fast", c.by[FAST_TOO], "control", c.by[CONTROL], "composed",
			                    c.by[LOWERED] + c.by[BODY], "types_only", c.by[TYPES]),
			          "coverage");
			continue;
		}
		printf("%s: %d operator%s in %d row%s; %d with a kernel, %d of them with a fast one", c.domain, c.operators,
		       c.operators == 1 ? "" : "s", c.rows, c.rows == 1 ? "" : "s", kernels, c.by[FAST_TOO]);
		if (c.by[CONTROL])
			printf("; %d run graphs", c.by[CONTROL]);
		if (c.by[LOWERED] + c.by[BODY])
			printf("; %d in other operators", c.by[LOWERED] + c.by[BODY]);
		if (c.by[TYPES])
			printf("; %d by types only", c.by[TYPES]);
		putchar('\n');
	}
}

/* Those without a row, which stay out: all, or the one of that name. The number shown. */
static int print_absent(const char *name, bool as_markdown)
{
	int n, shown = 0;
	const struct op_absent *x = op_absents(&n);

	for (int i = 0; i < n; i++) {
		if (name && strcmp(x[i].name, name))
			continue;
		shown++;
		if (as_markdown)
			printf("| %s.%s | %s |\n", x[i].domain, x[i].name, x[i].why);
		else if (globals.json)
			json_line(json_pack("{s:s, s:s, s:b, s:s}", "domain", x[i].domain, "name", x[i].name, "runs", 0, "reason", x[i].why),
			          "operator");
		else
			printf("%s.%s: known, not run: %s\n", x[i].domain, x[i].name, x[i].why);
	}
	return shown;
}

static void markdown(const struct op **row, int n)
{
	printf("# Operators\n\nPrinted by `linnet ops --markdown` from the operator table. `since` is the first opset with the row's\n"
	       "semantics; \"lowered\" rows are old versions that the importer rewrites into the current ones. The gradient is a block of the row,\n"
	       "that of its body, or of the graphs inside. It is missing where nobody wrote one: operators of com.microsoft and ai.onnx.ml alone, some of which the exact passes\n"
	       "(`linnet passes`) put in terms of ai.onnx before a model is trained. Without an entry nothing flows from floats to floats.\n");
	for (int i = 0; i < n; i++) {
		if (!i || strcmp(domain_of(row[i]), domain_of(row[i - 1])))
			printf("\n## %s\n\n| operator | since | kernels | gradient | what it computes |\n| --- | --- | --- | --- | --- |\n", domain_of(row[i]));
		printf("| %s | %d | %s | %s | %s |\n", row[i]->name, row[i]->since, kernels_of(row[i]), gradient_of(row[i]), row[i]->doc ? row[i]->doc : "");
	}
}

static int ops_run(void *opt, int argc, char **argv)
{
	const struct ops_opt *o = opt;
	int n, shown = 0;
	const struct op **row = sorted(&n);
	struct table t;

	if (!row)
		return EXIT_RESOURCES;
	if (o->absent) {
		print_absent(argc ? argv[0] : NULL, false);
		free(row);
		return EXIT_YES;
	}
	table_init(&t, 4, "lrll");
	for (int i = 0; i < n && !o->markdown; i++) {
		if (argc && strcmp(row[i]->name, argv[0]))
			continue;
		shown++;
		if (globals.json) {
			row_json(row[i]);
		} else if (argc) {
			print_row(row[i]);
		} else {
			bool other = row[i]->domain && *row[i]->domain;

			table_add(&t, "%s%s%s", other ? row[i]->domain : "", other ? "." : "", row[i]->name);
			table_add(&t, "%d", row[i]->since);
			table_add(&t, "%s", kernels_of(row[i]));
			table_add(&t, "%s", row[i]->doc ? row[i]->doc : "");
		}
	}
	if (o->markdown)
		markdown(row, n);
	table_print(&t, stdout, false);
	if (o->markdown) {
		printf("\n## Known, not run\n\n| operator | why |\n| --- | --- |\n");
		print_absent(NULL, true);
	} else if (argc) {
		shown += print_absent(argv[0], false);
	} else {
		int absent;

		print_coverage(row, n);
		op_absents(&absent);
		if (!globals.json)
			printf("%d more are known and not run; linnet ops --absent says why\n", absent);
	}
	free(row);
	if (argc && !shown)
		fprintf(stderr, "linnet: there is no operator \"%s\"\n", argv[0]);
	return argc && !shown ? EXIT_NO : EXIT_YES;
}

const struct command ops_command = {
	.name = "ops",
	.summary = "List the operators, or describe one",
	.operands = "[NAME]",
	.examples = "linnet ops\nlinnet ops Softmax",
	.opt = (const struct opt[]){
		{ "absent", 0, OPT_FLAG, OPT(struct ops_opt, absent), NULL, "operators that are known and not run, each with its reason", NULL },
		{ "markdown", 0, OPT_FLAG, OPT(struct ops_opt, markdown), NULL, "as docs/ops.md", NULL },
		{ .name = NULL },
	},
	.max = 1,
	.size = sizeof(struct ops_opt),
	.run = ops_run,
};
