/* linnet convert without a mechanism: the same model in other words; and linnet certify, which checks the evidence. */
#include "cli/again.h"

#include <stdlib.h>
#include <string.h>

#include "cli/model.h"
#include "graph/file.h"
#include "graph/sha1.h"
#include "validate/certify.h"

bool again_given(const struct again_opt *o)
{
	return o->extract || o->fuse || o->certify || o->dim.n || o->external_data.n || o->simplify || o->expand || o->float16 || o->bfloat16 ||
	       o->float32 || o->keep_io;
}

static int usage(const char *what)
{
	fprintf(stderr, "linnet: %s; see linnet convert --help\n", what);
	return EXIT_USAGE;
}

/* ---- Options, also as a certificate has them ---- */

static int to_rewrite(const struct again_opt *o, struct rewrite_opt *r)
{
	if (o->float16 + o->bfloat16 + o->float32 > 1)
		return usage("a model has one precision");
	if (o->keep_io && !o->float16 && !o->bfloat16 && !o->float32)
		return usage("--keep-io goes with --float16, --bfloat16 or --float32");
	if (o->fuse && o->expand)
		return usage("--fuse and --expand are opposites");
	if (o->opset && (o->opset < 11 || o->opset > OPSET_NEWEST))
		return usage("--opset is 11 to 28");
	*r = (struct rewrite_opt){ .opset = (int)o->opset, .extract = o->extract, .dim = o->dim.v, .ndim = o->dim.n, .simplify = o->simplify,
	                           .expand = o->expand, .keep_io = o->keep_io };
	if (o->fuse)
		r->fuse = !strcmp(o->fuse, "ort") ? FUSE_ORT : FUSE_ONNX;
	r->to = o->float16 ? DT_FLOAT16 : o->bfloat16 ? DT_BFLOAT16 : o->float32 ? DT_FLOAT : DT_UNDEFINED;
	return EXIT_YES;
}

static json_t *options_json(const struct again_opt *o)
{
	json_t *fixed = json_array();

	for (int i = 0; i < o->dim.n; i++)
		json_array_append_new(fixed, json_string(o->dim.v[i]));
	return json_pack("{s:I, s:s?, s:o, s:b, s:b, s:s?, s:s?, s:b}", "opset", (json_int_t)o->opset, "extract", o->extract, "fix_dim", fixed,
	                 "simplify", o->simplify, "expand", o->expand, "fuse", o->fuse, "precision",
	                 o->float16 ? "float16" : o->bfloat16 ? "bfloat16" : o->float32 ? "float32" : NULL, "keep_io", o->keep_io);
}

static const char *text(const json_t *o, const char *key) { return json_string_value(json_object_get(o, key)); }

static bool options_read(const json_t *j, struct again_opt *o)
{
	const json_t *fixed = json_object_get(j, "fix_dim");
	const char *p = text(j, "precision");

	if (!json_is_object(j))
		return false;
	*o = (struct again_opt){ .extract = text(j, "extract"), .fuse = text(j, "fuse") };
	o->opset = json_integer_value(json_object_get(j, "opset"));
	o->simplify = json_is_true(json_object_get(j, "simplify"));
	o->expand = json_is_true(json_object_get(j, "expand"));
	o->keep_io = json_is_true(json_object_get(j, "keep_io"));
	o->float16 = p && !strcmp(p, "float16");
	o->bfloat16 = p && !strcmp(p, "bfloat16");
	o->float32 = p && !strcmp(p, "float32");
	o->dim.v = calloc(json_array_size(fixed) + 1, sizeof *o->dim.v);
	for (size_t i = 0; o->dim.v && i < json_array_size(fixed); i++)
		if (json_string_value(json_array_get(fixed, i)))
			o->dim.v[o->dim.n++] = json_string_value(json_array_get(fixed, i));
	return o->dim.v;
}

/* ---- Certificates ---- */

static int file_sha1(const char *path, char hex[41])
{
	FILE *f = fopen(path, "rb");
	char *data = NULL;
	size_t n = 0, cap = 0, got;

	while (f) {
		if (n == cap) {
			char *more = realloc(data, cap = cap ? 2 * cap : 1 << 16);

			if (!more)
				break;
			data = more;
		}
		got = fread(data + n, 1, cap - n, f);
		n += got;
		if (got)
			continue;
		sha1_hex(data, n, hex);
		free(data);
		fclose(f);
		return EXIT_YES;
	}
	free(data);
	if (f)
		fclose(f);
	fprintf(stderr, "linnet: %s cannot be read\n", path);
	return EXIT_INPUT;
}

/* How a step is known to be right. */
static const char *method(const struct certified_step *s)
{
	return s->proved ? "proved" : s->untested ? "untested" : s->approximate ? "measured" : "tested";
}

static json_t *step_json(const struct certified_step *s)
{
	json_t *changes = json_array(), *dropped = json_array();

	for (uint32_t i = 0; i < s->nchange; i++) {
		json_t *of = json_array();

		for (uint32_t k = 0; k < s->change[i].nof; k++)
			json_array_append_new(of, json_string(s->change[i].of[k]));
		json_array_append_new(changes, json_pack("{s:s, s:s, s:o}", "rule", s->change[i].rule, "node", s->change[i].node, "replaces", of));
	}
	for (uint32_t i = 0; i < s->ndropped; i++)
		json_array_append_new(dropped, json_string(s->dropped[i]));
	return json_pack("{s:s, s:i, s:s, s:s?, s:s, s:s, s:f, s:f, s:o, s:o}", "step", s->name, "changes", (int)s->changes, "method",
	                 method(s), "why", s->untested, "before", s->before, "digest", s->digest, "max_abs", s->max_abs, "max_rel",
	                 s->max_rel, "nodes", changes, "dropped", dropped);
}

/* The weakest of all steps. */
static const char *overall(const struct certificate *c)
{
	static const char *const words[] = { "proved", "tested", "measured", "untested" };
	size_t worst = 0;

	for (uint32_t i = 0; i < c->nstep; i++)
		for (size_t k = worst; k < sizeof words / sizeof *words; k++)
			if (!strcmp(method(&c->step[i]), words[k]))
				worst = k;
	return words[worst];
}

static json_t *file_json(const char *path, const char *sha1, const char *digest)
{
	const char *slash = strrchr(path, '/');

	return json_pack("{s:s, s:s, s:s}", "file", slash ? slash + 1 : path, "sha1", sha1, "digest", digest);
}

static int write_certificate(const struct again_opt *o, const struct certificate *c, const char *in, const char *before, const char *out)
{
	json_t *steps = json_array(), *j;
	struct linnet_error e = { 0 };
	char after[41];
	int status = file_sha1(out, after);

	for (uint32_t i = 0; i < c->nstep; i++)
		json_array_append_new(steps, step_json(&c->step[i]));
	j = json_pack("{s:s, s:s, s:s, s:I, s:i, s:o, s:o, s:o, s:s, s:o}", "schema", "linnet/1", "kind", "certificate", "arithmetic",
	              "reference kernels in double precision", "seed", (json_int_t)c->seed, "cases", c->cases, "options", options_json(o), "before",
	              file_json(in, before, c->before), "after", file_json(out, after, c->after), "verdict", overall(c), "steps", steps);
	if (status)
		json_decref(j);
	else if (json_save(j, o->certify, &e))
		status = report_error(&e);
	return status;
}

/* ---- Converting ---- */

struct watcher {
	struct certificate *c;
	const char *out;
};

static void print_note(void *ctx, const char *name, const char *op, const char *why)
{
	const struct watcher *w = ctx;
	bool piped = !strcmp(w->out, "-"); /* the model has the standard output */

	if (globals.json && !piped)
		json_line(json_pack("{s:s, s:s, s:s}", "node", name, "op", op, "why", why), "kept");
	else if (!globals.quiet)
		fprintf(piped ? stderr : stdout, "kept: %s%s%s%s: %s\n", name, *op ? " (" : "", op, *op ? ")" : "", why);
}

/* A size is a threshold, anything else a name. */
static int save_options(const struct again_opt *o, struct save_opt *s)
{
	*s = (struct save_opt){ .external = o->external || o->external_data.n };
	for (int i = 0; i < o->external_data.n; i++) {
		int64_t n = bytes_of(o->external_data.v[i]);

		if (n < 0)
			s->data = o->external_data.v[i];
		else if (n > 0)
			s->more = n;
		else
			return usage("the threshold of --external-data is at least 1 byte");
	}
	return EXIT_YES;
}

static enum linnet_code watch(void *ctx, const struct rewrite_step *step, const struct graph *g, struct linnet_error *e)
{
	return certify_watch(((struct watcher *)ctx)->c, step, g, e);
}

/* The last step is writing: what a reader of the file makes of it. */
static enum linnet_code certify_written(struct linnet_model *m, struct certificate *c, struct linnet_model **written, struct linnet_error *e)
{
	const struct rewrite_step step = { .name = "write", .changes = 1 };
	void *data;
	size_t n;

	*written = model_new(NULL, e);
	if (!*written)
		return fail_mem(e);
	TRY(proto_save_memory(m, m->arena, &data, &n, e));
	TRY(proto_load_memory(*written, data, n, e));
	TRY(graph_import(*written, e));
	return certify_watch(c, &step, (*written)->graph, e);
}

/* A model of no opset's operators is said in one that has them; expanded, it needs none. */
static int opset_for(const struct linnet_model *m, const struct rewrite_opt *r)
{
	int own = own_opset(m), least = graph_least_opset(m->graph, own);

	return r->opset || r->expand || least == own ? r->opset : least;
}

/* More bytes for which one node less is no larger file: names and places of a node. */
enum { NODE_BYTES = 128 };

/* Rewrite and export; m keeps the result, *written the graph of what is written, which the certificate may refer to. */
static enum linnet_code convert(struct linnet_model *m, struct rewrite_opt *r, const char *out, struct certificate *c, struct linnet_model **written,
                                struct linnet_error *e)
{
	struct watcher w = { c, out };
	const struct linnet_model as_read = *m;
	bool only_simpler;
	uint32_t nodes = m->graph->nnode;
	uint64_t before = 0, after = 0;

	*written = NULL;
	r->opset = opset_for(m, r);
	only_simpler = (r->simplify || r->fuse == FUSE_ONNX) && !r->expand && !r->extract && !r->ndim && !r->to && !r->opset;
	r->ctx = &w;
	r->watch = c ? watch : NULL;
	TRY(rewrite(m, r, e));
	if (only_simpler)
		TRY(proto_size(&as_read, &before, e));
	if (m->changed)
		TRY(graph_export(m, r->opset, e));
	if (only_simpler)
		TRY(proto_size(m, &after, e));
	if (r->fuse && m->graph->nnode < nodes)
		before += NODE_BYTES * (uint64_t)(nodes - m->graph->nnode);
	if (after > before) { /* neither simplifying nor fusing makes a model larger */
		m->proto = as_read.proto;
		m->opset = as_read.opset;
		m->nopset = as_read.nopset;
	}
	return c ? certify_written(m, c, written, e) : LINNET_OK;
}

static void say_written(const struct linnet_model *m, const char *out, size_t before, enum fuse fuse)
{
	const char *hint = fuse == FUSE_ONNX && own_opset(m) < 23 ? ", which has no Attention, RMSNormalization and RotaryEmbedding; 23 has" : "";

	if (globals.json && strcmp(out, "-") != 0)
		json_line(json_pack("{s:s, s:I, s:I, s:i}", "file", out, "nodes", (json_int_t)proto_nodes(m), "before", (json_int_t)before, "opset", own_opset(m)),
		          "written");
	else
		note("%s: %zu node%s, %zu before, opset %d%s", strcmp(out, "-") ? out : "standard output", proto_nodes(m), proto_nodes(m) == 1 ? "" : "s", before, own_opset(m), hint);
}

int again_run(const struct again_opt *o, const char *in, const char *out)
{
	struct rewrite_opt r;
	struct save_opt save;
	struct linnet_error e = { 0 };
	struct linnet_model *m, *written;
	struct certificate c = { .cases = (int)o->cases, .seed = (uint64_t)o->seed };
	char before[41] = "";
	size_t nodes;
	int status = to_rewrite(o, &r);

	if (!status)
		status = save_options(o, &save);
	if (!status && (o->cases < 1 || o->cases > 1000))
		status = usage("--cases is 1 to 1000");
	if (!status && o->certify)
		status = file_sha1(in, before);
	if (!status)
		status = open_model(in, &m);
	if (status)
		return status;
	r.note = print_note;
	c.arena = m->arena;
	nodes = proto_nodes(m);
	if (convert(m, &r, out, o->certify ? &c : NULL, &written, &e)) {
		err_file(&e, e.code, in);
		status = report_error(&e);
	} else if (proto_save_as(m, out, &save, &e)) {
		err_file(&e, e.code, out);
		status = report_error(&e);
	} else if (o->certify) {
		status = write_certificate(o, &c, in, before, out);
	}
	if (!status)
		say_written(m, out, nodes, r.fuse);
	certificate_release(&c);
	model_free(written);
	model_free(m);
	return status;
}

/* ---- Checking a certificate ---- */

struct check {
	const json_t *j;
	const char *before, *after;
	bool ok;
};

static void verdict(struct check *c, bool ok, const char *what)
{
	c->ok = c->ok && ok;
	if (globals.json)
		json_line(json_pack("{s:s, s:b}", "claim", what, "holds", ok), "claim");
	else
		printf("%s%s%s: %s\n", style(stdout, ok ? GREEN : RED), ok ? "holds" : "FAILS", style(stdout, RESET), what);
}

static int check_file(struct check *c, const char *key, const char *path)
{
	const char *said = text(json_object_get(c->j, key), "sha1");
	char found[41], what[64];
	int status = file_sha1(path, found);

	snprintf(what, sizeof what, "%s is the file that was certified", key);
	if (!status)
		verdict(c, said && !strcmp(said, found), what);
	return status;
}

/* A step's difference is no larger than was said; all else that is said of it is what replaying gives. */
static void check_step(struct check *c, uint32_t i, const json_t *said, const struct certified_step *now)
{
	json_t *found = step_json(now);
	const char *key, *wrong = found ? NULL : "memory";
	json_t *value;
	char what[200];

	json_object_foreach(found, key, value) {
		const json_t *old = json_object_get(said, key);
		bool measured = !strncmp(key, "max_", 4);

		if (!wrong && (measured ? !old || json_number_value(value) > json_number_value(old) * (1 + 1e-6) + 1e-300 : !json_equal(old, value)))
			wrong = key;
	}
	snprintf(what, sizeof what, "step %u, %s: the same graph, %s, largest difference %.3g%s%s", i, now->name, method(now), now->max_abs,
	         wrong ? "; not as said: " : "", wrong ? wrong : "");
	verdict(c, !wrong, what);
	json_decref(found);
}

static void check_steps(struct check *c, const struct certificate *now)
{
	const json_t *steps = json_object_get(c->j, "steps");
	const char *before = text(json_object_get(c->j, "before"), "digest"), *after = text(json_object_get(c->j, "after"), "digest"),
	           *said = text(c->j, "verdict");

	verdict(c, before && after && !strcmp(before, now->before) && !strcmp(after, now->after), "both graphs are those that were certified");
	verdict(c, json_array_size(steps) == now->nstep, "the steps are as many as replaying gives");
	for (uint32_t i = 0; i < now->nstep && i < json_array_size(steps); i++)
		check_step(c, i, json_array_get(steps, i), &now->step[i]);
	verdict(c, said && !strcmp(said, overall(now)), "the verdict is that of the steps");
}

/* What AFTER's file computes is what replaying writes. */
static enum linnet_code check_result(struct check *c, const struct certificate *now, struct linnet_error *e)
{
	struct linnet_model *after = model_new(NULL, e);
	char found[41] = "";
	enum linnet_code code = after ? proto_load(after, c->after, e) : fail_mem(e);

	if (!code)
		code = graph_import(after, e);
	if (!code)
		code = graph_digest(after->graph, found, e);
	if (!code)
		verdict(c, !strcmp(found, now->after), "after is what replaying writes");
	model_free(after);
	return code;
}

static int certify_run(void *opt, int argc, char **argv)
{
	struct check c = { .before = argv[1], .after = argv[2], .ok = true };
	struct linnet_error e = { 0 };
	struct certificate now = { 0 };
	struct again_opt o;
	struct rewrite_opt r;
	struct linnet_model *m = NULL, *written = NULL;
	json_error_t why;
	json_t *j = json_load_file(argv[0], 0, &why);
	int status;

	(void)opt;
	(void)argc;
	c.j = j;
	if (!j || !text(j, "kind") || strcmp(text(j, "kind"), "certificate") || !options_read(json_object_get(j, "options"), &o)) {
		fprintf(stderr, "linnet: %s is no certificate%s%s\n", argv[0], j ? "" : ": ", j ? "" : why.text);
		json_decref(j);
		return EXIT_INPUT;
	}
	now.cases = (int)json_integer_value(json_object_get(j, "cases"));
	now.seed = (uint64_t)json_integer_value(json_object_get(j, "seed"));
	status = now.cases < 1 || now.cases > 1000 ? EXIT_INPUT : to_rewrite(&o, &r);
	if (!status)
		status = check_file(&c, "before", argv[1]);
	if (!status)
		status = check_file(&c, "after", argv[2]);
	if (!status)
		status = open_model(argv[1], &m);
	if (!status) {
		now.arena = m->arena;
		if (convert(m, &r, "", &now, &written, &e)) {
			err_file(&e, e.code, argv[1]);
			status = report_error(&e);
		} else {
			check_steps(&c, &now);
			if (check_result(&c, &now, &e)) {
				err_file(&e, e.code, argv[2]);
				status = report_error(&e);
			}
		}
	}
	certificate_release(&now);
	model_free(written);
	model_free(m);
	free(o.dim.v);
	json_decref(j);
	return status ? status : c.ok ? EXIT_YES : EXIT_NO;
}

const struct command certify_command = {
	.name = "certify",
	.summary = "Check a certificate of linnet convert",
	.operands = "CERTIFICATE BEFORE AFTER",
	.details = "Replays the conversion that the certificate tells of: the files are those that were certified, each step gives the same graph by the\n"
	           "same rules on the same nodes, is proved or differs by no more than was said, and AFTER is what comes out. Exit status 1: a claim fails.",
	.examples = "linnet convert model.onnx -o small.onnx --simplify --certify small.json\nlinnet certify small.json model.onnx small.onnx",
	.opt = (const struct opt[]){ { .name = NULL } },
	.min = 3,
	.max = 3,
	.size = sizeof(char),
	.run = certify_run,
};
