/* A program outside: load a model, run it against itself. */
#include <linnet.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	linnet_model *m = NULL;
	linnet_report *r = NULL;
	struct linnet_error e = { 0 };
	char line[1200];

	if (argc != 2 || linnet_model_load(argv[1], NULL, &m, &e) || linnet_validate(m, m, NULL, &r, &e))
		return fprintf(stderr, "%s\n", linnet_error_line(&e, line, sizeof line)), 1;
	printf("linnet %s: %s\n", linnet_version(), linnet_report_agrees(r) ? "agrees" : "differs");
	linnet_report_free(r);
	linnet_model_free(m);
	return 0;
}
