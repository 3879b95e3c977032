/*
 * Tensors in files: NumPy's .npy and .npz, ONNX's .pb.
 *
 * Element types NumPy has no descriptor for carry the names of the Python package ml_dtypes ("bfloat16", "float8_e4m3fn",
 * "int4", ...), one element a byte or two; NumPy reads such files once ml_dtypes is imported. NumPy itself writes
 * those types as void ("<V2", "<V1"), which says only their size: `want` decides then, without it V2 is taken for bfloat16.
 * Strings are read from S (bytes) and U (UTF-32, turned to UTF-8) with trailing zeros cut off, and written as U when all of
 * them are UTF-8, else as S.
 */
#ifndef LINNET_DATA_H
#define LINNET_DATA_H

#include "graph/file.h"
#include "graph/graph.h"

struct named_tensor {
	const char *name; /* in an .npz without ".npy"; of a .pb as it says; "" in an .npy */
	const struct tensor *t;
};

/*
 * All tensors of a file, whose kind is told by its content. They live in the arena, data borrowed from the mapped file where
 * it can be. want: the element type expected, or DT_UNDEFINED. Path "-" is stdin, not for .pb.
 *
 * Errors: LINNET_EIO; LINNET_EFORMAT not as the format says; LINNET_EUNSUPPORTED pickled objects, records, dates, encryption, rank over
 * MAX_RANK; LINNET_ELIMIT; LINNET_EMEM. They name the file, and the member of an .npz.
 */
enum linnet_code data_load(const char *path, enum dtype want, const struct linnet_limits *l, struct arena *a,
                           struct named_tensor **list, int *n, struct linnet_error *e);

/* Write one tensor as .npy; the file appears whole or not at all. */
enum linnet_code npy_save(const char *path, const struct tensor *t, struct linnet_error *e);

/* Write tensors that are no strings as the members of an .npz, stored; the same. LINNET_ELIMIT beyond 4 GiB. */
enum linnet_code npz_save(const char *path, const struct named_tensor *list, int n, struct linnet_error *e);

/* The bytes of an .npy file, which the tensor may borrow from. */
enum linnet_code npy_parse(struct bytes b, enum dtype want, const struct linnet_limits *l, struct arena *a, struct tensor **t,
                           struct linnet_error *e);

/* ---- Zip archives (zip.c) ---- */

struct zip_member {
	const char *name;
	uint64_t size, packed, at; /* bytes; at: of the local header */
	uint32_t crc;
	int method;                /* 0 stored, 8 deflated */
};

/* The members of an archive, as its directory at the end lists them. */
enum linnet_code zip_list(struct bytes b, struct arena *a, struct zip_member **list, int *n, struct linnet_error *e);

/* One member's content, borrowed or in the arena, checked against its checksum. */
enum linnet_code zip_read(struct bytes b, const struct zip_member *m, int64_t max_bytes, struct arena *a, struct bytes *out,
                          struct linnet_error *e);

#endif
