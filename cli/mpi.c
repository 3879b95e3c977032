/* Sums over processes: see mpi.h. */
#include "cli/mpi.h"

#ifdef LINNET_HAVE_MPI
#include <mpi.h>
#include <string.h>

enum { CHUNK = 1 << 20 };

struct sums {
	int rank, size;
	double *part, *all; /* CHUNK + size elements each */
};

/*
 * Each process adds up one piece of what all have, in the order of their ranks, and gives it to all: the same bits everywhere, and each
 * number goes over the wire twice, however many they are.
 */
#define SUM(name, real, kind)                                                                              \
	static enum linnet_code name(void *ctx, real *x, int64_t n, struct linnet_error *e)                \
	{                                                                                                  \
		struct sums *s = ctx;                                                                      \
		real *part = (real *)s->part, *all = (real *)s->all;                                       \
                                                                                                           \
		(void)e;                                                                                   \
		for (int64_t at = 0; at < n; at += CHUNK) {                                                \
			int len = (int)(n - at < CHUNK ? n - at : CHUNK), each = (len + s->size - 1) / s->size; \
                                                                                                           \
			memcpy(all, x + at, (size_t)len * sizeof *x);                                      \
			memset(all + len, 0, (size_t)(each * s->size - len) * sizeof *x);                  \
			MPI_Alltoall(all, each, kind, part, each, kind, MPI_COMM_WORLD);                   \
			for (int r = 1; r < s->size; r++)                                                  \
				for (int i = 0; i < each; i++)                                             \
					part[i] += part[r * each + i];                                     \
			MPI_Allgather(part, each, kind, all, each, kind, MPI_COMM_WORLD);                  \
			memcpy(x + at, all, (size_t)len * sizeof *x);                                      \
		}                                                                                          \
		return LINNET_OK;                                                                          \
	}
SUM(sum_floats, float, MPI_FLOAT)
SUM(sum_doubles, double, MPI_DOUBLE)

enum linnet_code mpi_begin(struct arena *a, struct reduce *r, int *local, struct linnet_error *e)
{
	MPI_Comm here;
	struct sums *s;
	int level;

	TRY_NEW(s, a, 1);
	MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level);
	MPI_Comm_rank(MPI_COMM_WORLD, &s->rank);
	MPI_Comm_size(MPI_COMM_WORLD, &s->size);
	MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &here);
	MPI_Comm_size(here, local);
	MPI_Comm_free(&here);
	TRY_NEW(s->part, a, CHUNK + s->size);
	TRY_NEW(s->all, a, CHUNK + s->size);
	*r = (struct reduce){ s->rank, s->size, sum_floats, sum_doubles, s };
	return LINNET_OK;
}

void mpi_end(void)
{
	MPI_Finalize();
}
#else
enum linnet_code mpi_begin(struct arena *a, struct reduce *r, int *local, struct linnet_error *e)
{
	(void)a;
	(void)r;
	(void)local;
	return fail(e, LINNET_EUNSUPPORTED, "linnet was built without MPI, which CMake finds where it is installed (libopenmpi-dev in Debian)");
}

void mpi_end(void)
{
}
#endif
