/* Runs a fuzz target on the files and the files in the folders it is given: for compilers without libFuzzer, and for tests. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int replay(const char *path)
{
	FILE *f = fopen(path, "rb");
	struct stat st;
	uint8_t *p;
	size_t n;

	if (!f || fstat(fileno(f), &st) || !(p = malloc((size_t)st.st_size + 1))) {
		perror(path);
		exit(1);
	}
	n = fread(p, 1, (size_t)st.st_size, f);
	fclose(f);
	fprintf(stderr, "%s\n", path); /* first, so that a crash is below its name */
	p = realloc(p, n ? n : 1);     /* so that reading beyond is noticed */
	if (p)
		LLVMFuzzerTestOneInput(p, n);
	free(p);
	return 1;
}

static int replay_folder(DIR *d, const char *folder)
{
	char path[4096];
	struct stat st;
	int n = 0;

	for (struct dirent *x; (x = readdir(d));) {
		snprintf(path, sizeof path, "%s/%s", folder, x->d_name);
		if (!stat(path, &st) && S_ISREG(st.st_mode))
			n += replay(path);
	}
	closedir(d);
	return n;
}

int main(int argc, char **argv)
{
	int n = 0;

	for (int i = 1; i < argc; i++) {
		DIR *d = opendir(argv[i]);

		n += d ? replay_folder(d, argv[i]) : replay(argv[i]);
	}
	printf("%d inputs\n", n);
	return n ? 0 : 1;
}
