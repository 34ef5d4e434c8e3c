/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay_main.c - runs a fuzz target over files, for builds without libFuzzer.
 *
 *	fuzz_queue DIR|FILE...
 *
 * Prints TAP, and the name of each file before it runs: the last one is the one that crashed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

#define INPUT_MAX (1u << 20)

static unsigned inputs;

static int run_file(const char *path)
{
	static u8 data[INPUT_MAX];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, data, sizeof(data));
	u8 *copy;

	if (n < 0) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return 1;
	}
	close(fd);
	printf("# %s\n", path);
	fflush(stdout);
	/* A copy of just this length, so that the sanitizer sees who reads past it. */
	copy = malloc((size_t)n + !n);
	must(copy);
	memcpy(copy, data, (size_t)n);
	LLVMFuzzerTestOneInput(copy, (size_t)n);
	free(copy);
	inputs++;
	return 0;
}

static int not_hidden(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

static int run(const char *path)
{
	struct dirent **list;
	struct stat st;
	int n, bad = 0;

	if (stat(path, &st) || !S_ISDIR(st.st_mode))
		return run_file(path);
	n = scandir(path, &list, not_hidden, alphasort);
	for (int i = 0; i < n; i++) {
		char *file;

		must(asprintf(&file, "%s/%s", path, list[i]->d_name) > 0);
		bad |= run_file(file);
		free(file);
		free(list[i]);
	}
	if (n >= 0)
		free(list);
	return bad || n < 0;
}

int main(int argc, char **argv)
{
	int bad = 0;

	LLVMFuzzerInitialize(&argc, &argv);
	printf("1..1\n");
	for (int i = 1; i < argc; i++)
		bad |= run(argv[i]);
	printf("%s 1 - corpus %u inputs\n", bad || !inputs ? "not ok" : "ok", inputs);
	return bad || !inputs;
}
