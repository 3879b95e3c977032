/* Training in several processes: sums over them through MPI, where linnet was built with it. Nothing else knows MPI. */
#ifndef LINNET_CLI_MPI_H
#define LINNET_CLI_MPI_H

#include "ops/base/arena.h"
#include "train/reduce.h"

/*
 * Join the processes that mpirun started. local: how many of them run on this machine. LINNET_EUNSUPPORTED: built without MPI.
 * After an error a process ends without mpi_end(), so that mpirun ends the others too, whatever they wait for.
 */
enum linnet_code mpi_begin(struct arena *a, struct reduce *r, int *local, struct linnet_error *e);
void mpi_end(void);

#endif
