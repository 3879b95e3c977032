/* linnet check: is this a valid model? */
#include "cli/model.h"

static int check_run(void *opt, int argc, char **argv)
{
	int worst = EXIT_YES;

	(void)opt;
	for (int i = 0; i < argc; i++) {
		struct linnet_model *m;
		struct linnet_error e = { 0 };
		uint32_t unknown = 0;
		int status = open_model(argv[i], &m);

		if (status) {
			worst = status > worst ? status : worst;
			continue;
		}
		if (graph_verify(m->graph, &e)) {
			err_file(&e, e.code, argv[i]);
			status = report_error(&e);
			worst = status > worst ? status : worst;
			model_free(m);
			continue;
		}
		for (node_id id = 1; id < m->graph->nnode; id++)
			unknown += !m->graph->node[id].known;
		if (globals.json)
			json_line(json_pack("{s:s, s:b, s:i, s:i}", "file", argv[i], "valid", 1, "nodes", (int)m->graph->nnode - 1,
			                    "unknown_operators", (int)unknown),
			          "check");
		else if (!globals.quiet)
			printf("%s: %svalid%s, %u nodes%s\n", argv[i], style(stdout, GREEN), style(stdout, RESET), m->graph->nnode - 1,
			       unknown ? ", some of operators unknown to linnet" : "");
		model_free(m);
	}
	return worst;
}

const struct command check_command = {
	.name = "check",
	.summary = "Check that models are well-formed and well-typed",
	.operands = "MODEL...",
	.details = "Reads the container, resolves names, checks every node against the operator table and infers the types of all values.\n"
	           "The first thing wrong is printed as one line naming file, node and reason; the exit status is then 3.",
	.examples = "linnet check model.onnx",
	.opt = (const struct opt[]){ { .name = NULL } },
	.min = 1,
	.max = -1,
	.run = check_run,
};
