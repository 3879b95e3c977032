/* A temporary folder for tests that need files; flat. */
#ifndef LINNET_TESTS_FOLDER_H
#define LINNET_TESTS_FOLDER_H

#include <assert.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct folder {
	char path[64];
};

static inline struct folder folder_new(void)
{
	struct folder f = { "/tmp/linnet-test-XXXXXX" };
	const char *made = mkdtemp(f.path);

	assert(made);
	return made ? f : (struct folder){ "" };
}

/* The path of a name in it, in a buffer of the caller. */
static inline char *folder_path(const struct folder *f, const char *name, char buf[256])
{
	snprintf(buf, 256, "%s/%s", f->path, name);
	return buf;
}

static inline void folder_put(const struct folder *f, const char *name, const void *p, size_t n)
{
	char path[256];
	FILE *out = fopen(folder_path(f, name, path), "wb");
	size_t done = out ? fwrite(p, 1, n, out) : 0;

	assert(out && done == n);
	if (out)
		fclose(out);
	(void)done;
}

/* The content of a file, to be freed; NULL when there is none. */
static inline unsigned char *folder_get(const struct folder *f, const char *name, size_t *n)
{
	char path[256];
	FILE *in = fopen(folder_path(f, name, path), "rb");
	unsigned char *p;
	struct stat st;

	if (!in)
		return NULL;
	fstat(fileno(in), &st);
	p = malloc((size_t)st.st_size + 1);
	assert(p);
	*n = p ? fread(p, 1, (size_t)st.st_size, in) : 0;
	fclose(in);
	return p;
}

/* How many entries it has. */
static inline int folder_count(const struct folder *f)
{
	DIR *d = opendir(f->path);
	int n = 0;

	for (struct dirent *x; d && (x = readdir(d));)
		n += x->d_name[0] != '.';
	if (d)
		closedir(d);
	return n;
}

static inline void folder_remove(const struct folder *f)
{
	DIR *d = opendir(f->path);
	char path[512];

	for (struct dirent *x; d && (x = readdir(d));) {
		snprintf(path, sizeof path, "%s/%s", f->path, x->d_name);
		if (strcmp(x->d_name, ".") && strcmp(x->d_name, ".."))
			remove(path);
	}
	if (d)
		closedir(d);
	rmdir(f->path);
}

#endif
