/* Load a model's container and save it: resave IN OUT. For comparing both files by other programs. */
#include <stdio.h>

#include "graph/graph.h"

int main(int argc, char **argv)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	enum linnet_code code = LINNET_EUSAGE;
	char line[800];

	if (argc == 3 && m) {
		code = proto_load(m, argv[1], &e);
		if (!code)
			code = proto_save(m, argv[2], false, &e);
	}
	if (code)
		fprintf(stderr, "%s\n", linnet_error_line(&e, line, sizeof line));
	model_free(m);
	return code != LINNET_OK;
}
