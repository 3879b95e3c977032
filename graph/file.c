/* Files on POSIX. */
#define _DEFAULT_SOURCE /* madvise() */
#include "graph/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER = 64 * 1024 };

const char *file_folder(struct arena *a, const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return ".";
	return arena_strn(a, path, slash == path ? 1 : (size_t)(slash - path));
}

/* ---- Reading ---- */

struct mapping {
	void *p;
	size_t n;
};

static void unmap(void *arg)
{
	struct mapping *m = arg;

	munmap(m->p, m->n);
}

static enum linnet_code map(struct arena *a, int fd, size_t n, struct bytes *out, struct linnet_error *e)
{
	struct mapping *m = NEW(a, 1, struct mapping);

	if (!m)
		return fail_mem(e);
	m->n = n;
	m->p = mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
	if (m->p == MAP_FAILED)
		return fail(e, LINNET_EIO, "cannot be mapped: %s", strerror(errno));
	if (arena_on_free(a, unmap, m)) {
		unmap(m);
		return fail_mem(e);
	}
	*out = (struct bytes){ m->p, n };
	return LINNET_OK;
}

static bool forget(void *arg, void *ctx)
{
	const struct mapping *m = arg;
	const struct bytes *b = ctx;
	uintptr_t begin = (uintptr_t)m->p, page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)b->p, to = from + b->n;

	if (from < begin || to > begin + m->n)
		return false;
	from = (from + page - 1) / page * page;
	to = to / page * page;
	if (from < to)
		madvise((void *)from, to - from, MADV_DONTNEED); /* of a mapping that is only read: drops what can be read again */
	return true;
}

void file_forget(const struct arena *a, const void *p, size_t n)
{
	struct bytes b = { p, n };

	arena_walk(a, unmap, forget, &b);
}

static enum linnet_code too_long(int64_t max_bytes, struct linnet_error *e)
{
	return fail(e, LINNET_ELIMIT, "the file has more than %lld bytes", (long long)max_bytes);
}

/* Everything a pipe gives, in a block that doubles. */
static enum linnet_code slurp(struct arena *a, int fd, int64_t max_bytes, struct bytes *out, struct linnet_error *e)
{
	size_t cap = BUFFER, n = 0;
	unsigned char *p = arena_get(a, cap, 1);

	for (;;) {
		ssize_t got;

		if (!p)
			return fail_mem(e);
		got = read(fd, p + n, cap - n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return fail(e, LINNET_EIO, "cannot be read: %s", strerror(errno));
		if (got == 0)
			break;
		n += (size_t)got;
		if (n > (uint64_t)max_bytes)
			return too_long(max_bytes, e);
		if (n == cap) {
			unsigned char *q = arena_get(a, cap, 2);

			if (q)
				memcpy(q, p, n);
			p = q;
			cap *= 2;
		}
	}
	*out = (struct bytes){ p, n };
	return LINNET_OK;
}

static enum linnet_code load_fd(struct arena *a, int fd, int64_t max_bytes, struct bytes *out, struct linnet_error *e)
{
	struct stat st;

	if (fstat(fd, &st))
		return fail(e, LINNET_EIO, "cannot be examined: %s", strerror(errno));
	if (S_ISDIR(st.st_mode))
		return fail(e, LINNET_EIO, "is a folder, not a file");
	if (!S_ISREG(st.st_mode))
		return slurp(a, fd, max_bytes, out, e);
	if (st.st_size > max_bytes)
		return too_long(max_bytes, e);
	*out = (struct bytes){ (const unsigned char *)"", 0 };
	return st.st_size ? map(a, fd, (size_t)st.st_size, out, e) : LINNET_OK;
}

enum linnet_code file_load(struct arena *a, const char *path, int64_t max_bytes, struct bytes *out, struct linnet_error *e)
{
	enum linnet_code code;
	int fd;

	if (!strcmp(path, "-"))
		return err_file(e, slurp(a, STDIN_FILENO, max_bytes, out, e), "stdin");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_file(e, fail(e, LINNET_EIO, "cannot be opened: %s", strerror(errno)), path);
	code = load_fd(a, fd, max_bytes, out, e);
	close(fd);
	return err_file(e, code, path);
}

/* Open one step of a path below a folder, following no link. */
static enum linnet_code step_inside(int folder, const char *name, size_t n, bool last, const char *path, int *out,
                                    struct linnet_error *e)
{
	char step[256];
	int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | (last ? O_NONBLOCK : O_DIRECTORY);
	struct stat st;

	if (n >= sizeof step)
		return fail(e, LINNET_EIO, "external data \"%.80s\": a name of %zu bytes", path, n);
	memcpy(step, name, n);
	step[n] = '\0';
	if (!strcmp(step, ".."))
		return fail(e, LINNET_EIO, "external data \"%.80s\" leaves the model's folder", path);
	if (!fstatat(folder, step, &st, AT_SYMLINK_NOFOLLOW) && S_ISLNK(st.st_mode))
		return fail(e, LINNET_EIO, "external data \"%.80s\": a symbolic link is not followed", path);
	*out = openat(folder, step, flags);
	if (*out < 0)
		return fail(e, LINNET_EIO, "external data \"%.80s\" cannot be opened: %s", path, strerror(errno));
	return LINNET_OK;
}

static enum linnet_code open_inside(const char *folder, const char *path, int *out, struct linnet_error *e)
{
	enum linnet_code code = LINNET_OK;
	const char *at = path;
	int fd = -1;

	if (!*path)
		return fail(e, LINNET_EIO, "external data without a location");
	if (*path == '/')
		return fail(e, LINNET_EIO, "external data \"%.80s\": an absolute path is not allowed", path);
	fd = open(folder, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
	if (fd < 0)
		return fail(e, LINNET_EIO, "the model's folder cannot be opened: %s", strerror(errno));
	while (*at && !code) {
		size_t n = strcspn(at, "/");
		bool last = !at[n];
		int next;

		if (n) {
			code = step_inside(fd, at, n, last, path, &next, e);
			if (!code) {
				close(fd);
				fd = next;
			}
		}
		at += last ? n : n + 1;
	}
	if (code)
		close(fd);
	*out = fd;
	return code;
}

enum linnet_code file_load_inside(struct arena *a, const char *folder, const char *path, int64_t max_bytes, struct bytes *out,
                                  struct linnet_error *e)
{
	enum linnet_code code;
	struct stat st;
	int fd = -1;

	TRY(open_inside(folder, path, &fd, e));
	if (fstat(fd, &st))
		code = fail(e, LINNET_EIO, "external data \"%.80s\" cannot be examined: %s", path, strerror(errno));
	else if (!S_ISREG(st.st_mode))
		code = fail(e, LINNET_EIO, "external data \"%.80s\" is not a regular file", path);
	else if (st.st_nlink > 1)
		code = fail(e, LINNET_EIO, "external data \"%.80s\" has %lu hard links; only one is allowed", path,
		            (unsigned long)st.st_nlink);
	else
		code = load_fd(a, fd, max_bytes, out, e);
	close(fd);
	return code;
}

/* ---- Writing ---- */

static enum linnet_code broken(struct file_out *f, const char *what, struct linnet_error *e)
{
	return err_file(e, fail(e, LINNET_EIO, "cannot be %s: %s", what, strerror(errno)), f->path);
}

/* A new file beside the target, with the target's permissions if it exists. */
static enum linnet_code create_beside(struct file_out *f, const struct stat *old, struct arena *scratch,
                                      struct linnet_error *e)
{
	enum { TRIES = 1000 };

	for (int i = 0; i < TRIES; i++) {
		f->tmp = arena_fmt(scratch, "%s.tmp%ld.%d", f->path, (long)getpid(), i);
		if (!f->tmp)
			return fail_mem(e);
		f->fd = open(f->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		if (f->fd >= 0 || errno != EEXIST)
			break;
	}
	if (f->fd < 0) {
		f->tmp = NULL;
		return broken(f, "created", e);
	}
	if (old && fchmod(f->fd, old->st_mode & 0777))
		return broken(f, "given its permissions", e);
	return LINNET_OK;
}

enum linnet_code file_create(struct file_out *f, const char *path, struct arena *scratch, struct linnet_error *e)
{
	struct stat st;
	bool exists;

	*f = (struct file_out){ .fd = -1, .path = path };
	TRY_NEW(f->buf, scratch, BUFFER);
	if (!strcmp(path, "-")) {
		f->path = "stdout";
		f->fd = dup(STDOUT_FILENO);
		return f->fd < 0 ? broken(f, "opened", e) : LINNET_OK;
	}
	f->folder = file_folder(scratch, path);
	if (!f->folder)
		return fail_mem(e);
	exists = !stat(path, &st);
	if (!exists || S_ISREG(st.st_mode))
		return create_beside(f, exists ? &st : NULL, scratch, e);
	f->fd = open(path, O_WRONLY | O_CLOEXEC);
	return f->fd < 0 ? broken(f, "opened", e) : LINNET_OK;
}

static enum linnet_code put(struct file_out *f, const unsigned char *p, size_t n, struct linnet_error *e)
{
	while (n) {
		ssize_t done = write(f->fd, p, n > (size_t)1 << 30 ? (size_t)1 << 30 : n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return broken(f, "written", e);
		p += done;
		n -= (size_t)done;
	}
	return LINNET_OK;
}

static enum linnet_code flush(struct file_out *f, struct linnet_error *e)
{
	size_t n = f->n;

	f->n = 0;
	return put(f, f->buf, n, e);
}

enum linnet_code file_write(struct file_out *f, const void *p, size_t n, struct linnet_error *e)
{
	f->size += n;
	if (n > BUFFER - f->n)
		TRY(flush(f, e));
	if (n > BUFFER)
		return put(f, p, n, e);
	if (n)
		memcpy(f->buf + f->n, p, n);
	f->n += n;
	return LINNET_OK;
}

enum linnet_code file_finish(struct file_out *f, struct linnet_error *e)
{
	int fd = f->fd;

	TRY(flush(f, e));
	if (f->tmp && fsync(fd))
		return broken(f, "written to the disk", e);
	f->fd = -1;
	return close(fd) ? broken(f, "closed", e) : LINNET_OK;
}

enum linnet_code file_publish(struct file_out *f, struct linnet_error *e)
{
	bool bad;
	int fd;

	if (!f->tmp)
		return LINNET_OK;
	if (rename(f->tmp, f->path))
		return broken(f, "renamed to its name", e);
	f->tmp = NULL;
	fd = open(f->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return LINNET_OK; /* a folder one may write to but not list */
	bad = fsync(fd) && errno != EINVAL && errno != EROFS; /* file systems that do not know it */
	close(fd);
	return bad ? broken(f, "recorded in its folder", e) : LINNET_OK;
}

void file_drop(struct file_out *f)
{
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
	if (f->tmp)
		unlink(f->tmp);
	f->tmp = NULL;
}

enum linnet_code file_save(const char *path, file_writer *write, const void *ctx, struct linnet_error *e)
{
	struct arena *a = arena_new();
	struct file_out f = { .fd = -1 };
	enum linnet_code code;

	if (!a)
		return fail_mem(e);
	code = file_create(&f, path, a, e);
	if (!code)
		code = write(&f, ctx, a, e);
	if (!code)
		code = file_finish(&f, e);
	if (!code)
		code = file_publish(&f, e);
	file_drop(&f);
	arena_free(a);
	return err_file(e, code, path);
}
