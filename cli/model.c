/* Opening models for commands. */
#include "cli/model.h"

#include "graph/pass.h"
#include "ops/base/str.h"

int open_container(const char *path, struct linnet_model **m)
{
	struct linnet_error e = { 0 };
	enum linnet_code code;

	*m = model_new(NULL, &e);
	code = *m ? proto_load(*m, path, &e) : LINNET_EMEM;
	if (!code)
		return EXIT_YES;
	err_file(&e, code, path);
	model_free(*m);
	*m = NULL;
	return report_error(&e);
}

int open_model(const char *path, struct linnet_model **m)
{
	struct linnet_error e = { 0 };
	enum linnet_code code;
	int status = open_container(path, m);

	if (status)
		return status;
	code = graph_import(*m, &e);
	if (!code)
		return EXIT_YES;
	err_file(&e, code, path);
	model_free(*m);
	*m = NULL;
	return report_error(&e);
}

int open_for_running(const char *path, bool as_written, struct linnet_model **m)
{
	struct linnet_error e = { 0 };
	int status = open_model(path, m);

	if (status || as_written || !pass_run_all((*m)->graph, NULL, &e))
		return status;
	err_file(&e, e.code, path);
	return report_error(&e);
}

int save_model(struct linnet_model *m, int opset, bool external, const char *source, const char *path)
{
	struct linnet_error e = { 0 };

	if (graph_export(m, opset, &e))
		err_file(&e, e.code, source);
	else if (proto_save(m, path, external, &e))
		err_file(&e, e.code, path);
	return e.code ? report_error(&e) : EXIT_YES;
}

const char *type_words(const struct graph *g, const struct type *t, struct arena *a)
{
	const char *s = type_str(g->dims, t, a);

	return s ? s : "?";
}
