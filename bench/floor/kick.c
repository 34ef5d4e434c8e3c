/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kick.c - what it costs to get another thread's attention and an answer from it: the part of a
 * request to a device that is left when there is no work in it. Two threads on two processors.
 *
 *   sleep COUNT   both sleep in read() on an eventfd: two wake-ups a round
 *   wake COUNT    the asker watches memory, only the answerer sleeps: one wake-up
 *   spin COUNT    both watch memory: none
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../tool.h"

struct line {
	_Alignas(128) _Atomic uint64_t round;
};

static struct line asked, answered;
static int ask_fd, answer_fd;
static bool ask_sleeps, answer_sleeps; /* the asker, the answerer */
static uint64_t rounds;

static cpu_set_t only(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return set;
}

static void ring(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) != sizeof(one))
		die("eventfd");
}

static void rest(int fd)
{
	uint64_t value;

	if (read(fd, &value, sizeof(value)) != sizeof(value))
		die("eventfd");
}

static void watch(struct line *line, uint64_t round)
{
	while (atomic_load_explicit(&line->round, memory_order_acquire) != round)
		__builtin_ia32_pause();
}

static void *answer(void *arg)
{
	(void)arg;
	for (uint64_t i = 1; i <= rounds; i++) {
		if (answer_sleeps)
			rest(ask_fd);
		else
			watch(&asked, i);
		if (ask_sleeps)
			ring(answer_fd);
		else
			atomic_store_explicit(&answered.round, i, memory_order_release);
	}
	return NULL;
}

static void ask(uint64_t *ns)
{
	for (uint64_t i = 1; i <= rounds; i++) {
		uint64_t start = now_ns();

		if (answer_sleeps)
			ring(ask_fd);
		else
			atomic_store_explicit(&asked.round, i, memory_order_release);
		if (ask_sleeps)
			rest(answer_fd);
		else
			watch(&answered, i);
		ns[i - 1] = now_ns() - start;
	}
}

int main(int argc, char **argv)
{
	cpu_set_t first = only(0), second = only(1);
	pthread_attr_t attr;
	pthread_t thread;
	uint64_t *ns;

	tool_name = "kick";
	if (argc != 3) {
		fputs("usage: kick sleep|wake|spin COUNT\n", stderr);
		return 2;
	}
	ask_sleeps = strcmp(argv[1], "sleep") == 0;
	answer_sleeps = ask_sleeps || strcmp(argv[1], "wake") == 0;
	rounds = number(argv[2]);
	ns = calloc(rounds, sizeof(*ns));
	ask_fd = eventfd(0, EFD_CLOEXEC);
	answer_fd = eventfd(0, EFD_CLOEXEC);
	if (!ns || ask_fd < 0 || answer_fd < 0)
		die("eventfd");
	/* Before it runs: it might have to wait for ever for the processor that we keep busy. */
	pthread_attr_init(&attr);
	if (pthread_attr_setaffinity_np(&attr, sizeof(second), &second) ||
	    sched_setaffinity(0, sizeof(first), &first) < 0 ||
	    pthread_create(&thread, &attr, answer, NULL))
		die("thread");
	ask(ns);
	pthread_join(thread, NULL);
	print_trips(ns, rounds);
	free(ns);
	return 0;
}
