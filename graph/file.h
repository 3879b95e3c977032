/* Files: read ones are mapped, written ones appear whole under their name or not at all. */
#ifndef LINNET_FILE_H
#define LINNET_FILE_H

#include <stdbool.h>

#include "ops/base/arena.h"
#include "ops/base/err.h"

struct bytes {
	const unsigned char *p;
	size_t n;
};

/*
 * The content of a file, for as long as the arena lives. Regular files are mapped read-only and must not be
 * shortened meanwhile; pipes and "-" (stdin) are read to their end. LINNET_ELIMIT beyond max_bytes. Errors name the file.
 */
enum linnet_code file_load(struct arena *a, const char *path, int64_t max_bytes, struct bytes *out, struct linnet_error *e);

/*
 * Map a file that a model refers to by a path relative to `folder`. Refused is what could lead elsewhere: absolute
 * paths, "..", symbolic links on the way or at its end, further hard links, anything but a regular file.
 */
enum linnet_code file_load_inside(struct arena *a, const char *folder, const char *path, int64_t max_bytes, struct bytes *out,
                                  struct linnet_error *e);

/* Give back the memory that holds bytes of a file mapped in the arena, as what was read of it and is not needed for now; read again, they come back. Bytes
 * that are not a mapped file's stay. */
void file_forget(const struct arena *a, const void *p, size_t n);

/* A file being written. */
struct file_out {
	int fd;             /* -1: not open */
	const char *path;   /* what it will be called; the caller's string */
	const char *tmp;    /* what it is called until then; NULL: written in place (stdout, devices, pipes) */
	const char *folder; /* that it will be in */
	unsigned char *buf; /* bytes not written yet */
	size_t n;
	uint64_t size;      /* of all bytes so far */
};

/*
 * file_create, file_write any number of times, file_finish, file_publish; after any failure file_drop. Content and
 * name are durable when file_publish returns. scratch must live until then. file_drop after file_publish does nothing.
 */
enum linnet_code file_create(struct file_out *f, const char *path, struct arena *scratch, struct linnet_error *e);
enum linnet_code file_write(struct file_out *f, const void *p, size_t n, struct linnet_error *e);
enum linnet_code file_finish(struct file_out *f, struct linnet_error *e);  /* all bytes are on the disk */
enum linnet_code file_publish(struct file_out *f, struct linnet_error *e); /* the name is */
void file_drop(struct file_out *f);

/* All of it for one file that `write` fills; the arena is freed afterwards. After a failure nothing is left; the error names the file. */
typedef enum linnet_code file_writer(struct file_out *f, const void *ctx, struct arena *a, struct linnet_error *e);
enum linnet_code file_save(const char *path, file_writer *write, const void *ctx, struct linnet_error *e);

/* The folder part of a path, "." when there is none; in the arena, NULL without memory. */
const char *file_folder(struct arena *a, const char *path);

#endif
