/* SPDX-License-Identifier: Apache-2.0 */
/* main.c - find the verb and run it. The verbs are in cmd_<verb>.c, their table in verb.h. */
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>

#include "monitor/machine_int.h"
#include "monitor/verb.h"

static const struct {
	const char *name, *text;
	int (*run)(int argc, char **argv);
} verbs[] = {
#define X(name, text) {#name, text, cmd_##name},
	VERBS(X)
#undef X
};

static void overview(FILE *out)
{
	fprintf(out, "kelvin %s - microVMs: run, snapshot and restore unikernels and Linux\n\n"
		     "usage: kelvin VERB [options] ...\n\n",
		KELVIN_VERSION);
	for (unsigned i = 0; i < ARRAY_SIZE(verbs); i++)
		fprintf(out, "  %-10s %s\n", verbs[i].name, verbs[i].text);
	fprintf(out, "\nkelvin VERB --help tells more about each, with examples.\n");
}

int main(int argc, char **argv)
{
	u32 seed;

	since_start_ns(); /* the clock of all timelines begins here */
	/* Hash seed for JSON objects: the kernel's gift to every process, so no file is read. */
	memcpy(&seed, (const void *)getauxval(AT_RANDOM), sizeof(seed));
	json_object_seed(seed | 1);
	if (argc < 2) {
		overview(stderr);
		return 2;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
		overview(stdout);
		return 0;
	}
	if (strcmp(argv[1], "--version") == 0)
		argv[1] += 2;
	for (unsigned i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strcmp(argv[1], verbs[i].name) == 0)
			return verbs[i].run(argc - 1, argv + 1);
	fprintf(stderr, "kelvin: no verb \"%s\" (kelvin --help lists them)\n", argv[1]);
	return 2;
}
