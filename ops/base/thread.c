/*
 * Cutting work over threads: one pool of workers for the process, made when first needed.
 *
 * A caller opens a job, takes pieces itself, and in the end waits only for workers that are inside it: a worker that the system
 * has not let run is not waited for, so a busy machine costs no more than the share of it that one gets. A caller that finds
 * the pool in use does all pieces itself.
 */
#define _GNU_SOURCE /* sched_getaffinity() */
#include "ops/base/thread.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

enum {
	WORKERS_MAX = 255,
	LOOKS = 100,     /* at the counter before yielding */
	AWAKE = 1000000, /* nanoseconds without a job before sleeping: kernels of a model follow each other within, and waking takes some 100,000 */
};

static struct {
	pthread_mutex_t lock; /* of sleeping */
	pthread_cond_t wake;
	atomic_flag busy;     /* a job is being run */
	atomic_uint opened;   /* jobs so far */
	atomic_uint open;     /* number of the open job; 0: none */
	atomic_int inside;    /* workers looking at the job */
	atomic_int sleepers;
	int nworker;          /* with `busy` held */
	/* The job. */
	int helpers;          /* workers that may take part */
	int64_t n;
	void (*f)(void *ctx, int64_t i);
	void *ctx;
	_Atomic int64_t next;
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER, .busy = ATOMIC_FLAG_INIT };

static void take_pieces(void)
{
	for (int64_t i; (i = atomic_fetch_add(&pool.next, 1)) < pool.n;)
		pool.f(pool.ctx, i);
}

static int64_t nanoseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* The number of a job later than `seen`. */
static unsigned wait_for_job(unsigned seen)
{
	unsigned now = seen;

	for (int64_t end = nanoseconds() + AWAKE; nanoseconds() < end; sched_yield())
		for (int i = 0; i < LOOKS; i++)
			if ((now = atomic_load(&pool.opened)) != seen)
				return now;
	pthread_mutex_lock(&pool.lock);
	atomic_fetch_add(&pool.sleepers, 1);
	while ((now = atomic_load(&pool.opened)) == seen)
		pthread_cond_wait(&pool.wake, &pool.lock);
	atomic_fetch_sub(&pool.sleepers, 1);
	pthread_mutex_unlock(&pool.lock);
	return now;
}

static void *work(void *arg)
{
	int me = (int)(intptr_t)arg;

	for (unsigned seen = 0;;) {
		seen = wait_for_job(seen);
		atomic_fetch_add(&pool.inside, 1);
		/* a job found open here stays open until we are outside again */
		if (atomic_load(&pool.open) == seen && me < pool.helpers)
			take_pieces();
		atomic_fetch_sub(&pool.inside, 1);
	}
	return NULL;
}

/* In a forked child there are no workers, and whoever held the pool is not there either. */
static void forget_workers(void)
{
	pool.nworker = 0;
	atomic_store(&pool.inside, 0);
	atomic_store(&pool.sleepers, 0);
	atomic_store(&pool.open, 0);
	atomic_flag_clear(&pool.busy);
	pthread_mutex_init(&pool.lock, NULL);
	pthread_cond_init(&pool.wake, NULL);
}

/* Workers until there are n, or no more can be had. They leave signals to the program's own threads. */
static void hire(int n)
{
	sigset_t all, before;
	pthread_attr_t attr;

	if (pool.nworker >= n || pthread_attr_init(&attr))
		return;
	if (!pool.nworker && atomic_load(&pool.opened) == 0)
		pthread_atfork(NULL, NULL, forget_workers);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (pthread_t id; pool.nworker < n && !pthread_create(&id, &attr, work, (void *)(intptr_t)pool.nworker);)
		pool.nworker++;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
}

static void open_job(int helpers, int64_t n, void (*f)(void *ctx, int64_t i), void *ctx)
{
	unsigned number;

	pool.helpers = helpers;
	pool.n = n;
	pool.f = f;
	pool.ctx = ctx;
	atomic_store(&pool.next, 0);
	number = atomic_load(&pool.opened) + 1;
	number += number == 0;
	atomic_store(&pool.open, number);
	atomic_store(&pool.opened, number);
	if (atomic_load(&pool.sleepers)) {
		pthread_mutex_lock(&pool.lock);
		pthread_cond_broadcast(&pool.wake);
		pthread_mutex_unlock(&pool.lock);
	}
}

static void close_job(void)
{
	atomic_store(&pool.open, 0);
	for (int i = 0; atomic_load(&pool.inside); i++)
		if (i >= LOOKS)
			sched_yield();
}

void parallel_for(int threads, int64_t n, void (*f)(void *ctx, int64_t i), void *ctx)
{
	int helpers = threads - 1 > WORKERS_MAX ? WORKERS_MAX : threads - 1;

	if (helpers > n - 1)
		helpers = (int)(n - 1);
	if (helpers < 1 || atomic_flag_test_and_set(&pool.busy)) {
		for (int64_t i = 0; i < n; i++)
			f(ctx, i);
		return;
	}
	hire(helpers);
	open_job(helpers, n, f, ctx);
	take_pieces();
	close_job();
	atomic_flag_clear(&pool.busy);
}

/* What the control group of a container allows, in processors; 0: no bound. */
static int quota(void)
{
	FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
	long long most, period;
	bool bound = f && fscanf(f, "%lld %lld", &most, &period) == 2 && most > 0 && period > 0 && most / period < WORKERS_MAX;

	if (f)
		fclose(f);
	return bound ? (int)((most + period - 1) / period) : 0;
}

int thread_default(void)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set), most = quota();

	return most && most < n ? most : n;
}
