/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_overlay.c - copy-on-write disks against the model: in any order, killed, without power.
 *
 * G01 and G02 in small: a child runs random requests and dies at random. What it was told about is
 * in memory it shares with the test. For a loss of power, the test keeps what was on stable storage
 * at every sync, and lets a random part of everything later arrive, sector by sector.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/overlay_fix.h"
#include "tests/lib/tmpdir.h"

static void run_and_check(struct overlay_fix *f, unsigned steps)
{
	model_run(f->m, steps);
	model_drain(f->m);
	model_check(f->m);
}

/* Opened and closed again and again, also under other kernels: nothing is lost by that. */
static void run_rounds(struct overlay_fix *f, unsigned rounds, unsigned steps)
{
	f->r->nuisance = 15;
	for (unsigned i = 0; i < rounds; i++) {
		overlay_fix_open(f);
		if (f->d->overlay->top->direct)
			f->r->unit = 4096;
		else
			f->d->overlay->top->no_zero_range = i & 1;
		model_check(f->m);
		run_and_check(f, steps);
		disk_close(&f->d);
		if (i % 3 == 2)
			overlay_fix_boot(f);
	}
	assert_int_equal(dir_count(f->dir, "top"), 1);
}

static void test_model(void **state)
{
	struct overlay_fix *f = *state;

	run_rounds(f, 12, 6000);
	for (unsigned what = 0; what < 5; what++)
		assert_true(f->m->done[what] > 100);
}

static void test_model_write_through(void **state)
{
	struct overlay_fix *f = *state;

	f->m->write_through = true;
	run_rounds(f, 6, 4000);
	assert_true(f->r->queued[FAKE_SYNC] > 20);
}

static void test_model_unsafe(void **state)
{
	struct overlay_fix *f = *state;

	f->cfg.sync = DISK_UNSAFE;
	run_rounds(f, 6, 4000);
	assert_int_equal(f->r->queued[FAKE_SYNC], 0);
}

/* O_DIRECT: the overlay's own requests are aligned, the guest's are not. */
static void test_model_direct(void **state)
{
	struct overlay_fix *f = *state;

	f->cfg.sync = DISK_DIRECT;
	/* Whole blocks of any size: the base's length must fit. */
	model_free(&f->m);
	f->m = model_make(1000);
	model_write_base(f->m, f->base, 0);
	free(f->base_was);
	f->base_was = file_read(f->base, &f->base_len);
	run_rounds(f, 6, 4000);
}

/* A snapshot's overlay below a fresh one, and so on: each copy stands alone. */
static void test_saved_layers(void **state)
{
	struct overlay_fix *f = *state;
	char next[220];
	u8 *a, *b;
	struct err e;

	f->r->nuisance = 15;
	overlay_fix_open(f);
	for (unsigned i = 0; i < 8; i++) {
		run_and_check(f, 1500);
		snprintf(next, sizeof(next), "%s/saved%u", f->dir, i);
		overlay_fix_save(f, next + strlen(f->dir) + 1);
		a = overlay_fix_content(f);
		disk_close(&f->d);
		if (i & 1)
			overlay_fix_boot(f);
		/* Two VMs from one copy at the same time, one with a file, one without. */
		snprintf(f->saved, sizeof(f->saved), "%s/saved%u", f->dir, i);
		f->cfg.saved_overlay = f->saved;
		snprintf(f->top, sizeof(f->top), "%s/top%u", f->dir, i);
		f->cfg.overlay = f->top;
		overlay_fix_open(f);
		b = overlay_fix_content(f);
		assert_memory_equal(a, b, OVERLAY_FIX_SECTORS * DISK_SECTOR);
		free(b);
		if (i % 3 == 2) {
			struct disk *other = f->d;

			f->cfg.overlay = NULL;
			f->cfg.overlay_dir = f->dir;
			overlay_fix_open(f);
			disk_close(&other);
			assert_int_equal(disk_open(&other,
						 &(struct disk_config){.path = f->base,
							 .overlay = f->top},
						 f->r, &e),
				-EINVAL);
			assert_non_null(strstr(e.msg, "begun on a saved overlay"));
		}
		free(a);
		model_check(f->m);
	}
	disk_close(&f->d);
	/* The last copy as an overlay of its own. */
	f->cfg.overlay = f->saved;
	f->cfg.saved_overlay = NULL;
	overlay_fix_open(f);
	run_and_check(f, 1500);
}

/* Nothing of it is left, and nothing of it is synced. */
static void test_unnamed(void **state)
{
	struct overlay_fix *f = *state;
	unsigned files = dir_count(f->dir, "");

	f->cfg.overlay = NULL;
	f->cfg.overlay_dir = f->dir;
	f->r->nuisance = 15;
	overlay_fix_open(f);
	assert_int_equal(dir_count(f->dir, ""), files);
	run_and_check(f, 8000);
	assert_int_equal(f->r->queued[FAKE_SYNC], 0);
	overlay_fix_save(f, "copy");
	disk_close(&f->d);
	snprintf(f->top, sizeof(f->top), "%s/copy", f->dir);
	f->cfg.overlay = f->top;
	overlay_fix_boot(f);
	overlay_fix_open(f);
	model_check(f->m);
}

/* A child opens the disk, works and dies. */
static void run_killed(struct overlay_fix *f)
{
	int status;
	pid_t pid;

	/* Not the same requests again. */
	fake_ring_rand(f->r, 2);
	pid = fork();
	must(pid >= 0);
	if (!pid) {
		struct err e;

		if (disk_open(&f->d, &f->cfg, f->r, &e)) {
			fprintf(stderr, "child: %s\n", e.msg);
			_exit(1);
		}
		f->r->did = overlay_fix_note;
		f->r->ctx = f;
		model_attach(f->m, f->d, f->r);
		model_check(f->m);
		model_run(f->m, (unsigned)fake_ring_rand(f->r, 700));
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void crash_rounds(struct overlay_fix *f, unsigned rounds, unsigned power_odds)
{
	for (unsigned i = 0; i < rounds; i++) {
		bool power = power_odds && fake_ring_rand(f->r, power_odds) == 0;

		run_killed(f);
		if (power)
			overlay_fix_power_off(f, 2);
		overlay_fix_open(f);
		model_check_crashed(f->m, power);
		overlay_fix_kill(f);
	}
	assert_true(*f->m->next > rounds * 10);
}

/* G01: what was completed is there. */
static void test_killed(void **state)
{
	crash_rounds(*state, 60, 0);
}

static void test_killed_write_through(void **state)
{
	struct overlay_fix *f = *state;

	f->m->write_through = true;
	crash_rounds(f, 30, 0);
}

/* G02: what was flushed is there, and nothing that was never written. */
static void test_power_lost(void **state)
{
	crash_rounds(*state, 150, 2);
}

static void test_power_lost_in_flush(void **state)
{
	struct overlay_fix *f = *state;

	f->m->flush_often = true;
	crash_rounds(f, 200, 1);
}

static void test_power_lost_write_through(void **state)
{
	struct overlay_fix *f = *state;

	f->m->write_through = true;
	crash_rounds(f, 80, 2);
}

static void test_power_lost_over_saved(void **state)
{
	struct overlay_fix *f = *state;

	overlay_fix_open(f);
	run_and_check(f, 1000);
	overlay_fix_save(f, "saved");
	disk_close(&f->d);
	f->cfg.saved_overlay = f->saved;
	snprintf(f->top, sizeof(f->top), "%s/over", f->dir);
	/* What is in the saved one is safe. */
	overlay_fix_open(f);
	model_check_crashed(f->m, false);
	for (u32 i = 0; i < OVERLAY_FIX_SECTORS; i++) {
		f->m->s[i].floor = f->m->s[i].now;
		f->m->s[i].zeroed = f->m->s[i].zero ? f->m->s[i].now : 0;
	}
	disk_close(&f->d);
	unlink(f->top);
	crash_rounds(f, 60, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, overlay_fix_setup, overlay_fix_teardown)
		T(test_model),
		T(test_model_write_through),
		T(test_model_unsafe),
		T(test_model_direct),
		T(test_saved_layers),
		T(test_unnamed),
		T(test_killed),
		T(test_killed_write_through),
		T(test_power_lost),
		T(test_power_lost_in_flush),
		T(test_power_lost_write_through),
		T(test_power_lost_over_saved),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
