/* SPDX-License-Identifier: Apache-2.0 */
/* main.c - find the verb and run it. The verbs are in cmd_<verb>.c, their table in verb.h. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "monitor/machine_int.h"
#include "monitor/show.h"
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
	fprintf(out, "\nkelvin VERB --help tells more about each, with examples.\n"
		     "Running VMs are kept in $KELVIN_RUN_DIR; unless it is set, in /run/kelvin\n"
		     "(for users other than root in $XDG_RUNTIME_DIR/kelvin).\n");
}

/*
 * Who starts us with stdin, stdout or stderr closed must not get our words, or the guest's, into
 * whatever we open next.
 */
static bool open_standard(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			return false;
	return true;
}

/*
 * A jailer starts "kelvin --id X --start-time-us N ... VERB ARG...": what is before the verb goes
 * behind it, the times apart, which nobody asks for. Returns the new argc.
 */
static int sort_jailed(int argc, char **argv)
{
	char *id = argv[2], *option = argv[1];
	int verb = 3;

	while (verb + 1 < argc && strstr(argv[verb], "-time-") && strncmp(argv[verb], "--", 2) == 0)
		verb += 2;
	if (verb >= argc)
		return argc;
	argv[1] = argv[verb];
	argv[2] = option;
	argv[3] = id;
	memmove(argv + 4, argv + verb + 1, (size_t)(argc - verb) * sizeof(*argv));
	return argc - verb + 3;
}

static bool called_jailer(const char *name)
{
	const char *slash = strrchr(name, '/');

	return strcmp(slash ? slash + 1 : name, "jailer") == 0;
}

static bool is_one_of(const char *word, const char *a, const char *b, const char *c)
{
	return strcmp(word, a) == 0 || strcmp(word, b) == 0 || strcmp(word, c) == 0;
}

int main(int argc, char **argv)
{
	static char help[] = "--help", version[] = "version";
	u32 seed;

	since_start_ns(); /* the clock of all timelines begins here */
	if (!open_standard())
		return 1; /* and nowhere to say so */
	/* Hash seed for JSON objects: the kernel's gift to every process, so no file is read. */
	memcpy(&seed, (const void *)getauxval(AT_RANDOM), sizeof(seed));
	json_object_seed(seed | 1);
	if (argc > 0 && called_jailer(argv[0]))
		return cmd_jailer(argc, argv);
	if (argc > 3 && strcmp(argv[1], "--id") == 0)
		argc = sort_jailed(argc, argv);
	if (argc < 2) {
		overview(stderr);
		return 2;
	}
	if (strcmp(argv[1], "help") == 0 && argc > 2 && argv[2][0] != '-') {
		/* "help VERB" is "VERB --help". */
		argv[1] = argv[2];
		argv[2] = help;
	} else if (is_one_of(argv[1], "-h", "--help", "help")) {
		overview(stdout);
		return show_end();
	}
	if (is_one_of(argv[1], "-v", "-V", "--version"))
		argv[1] = version;
	for (unsigned i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strcmp(argv[1], verbs[i].name) == 0)
			return verbs[i].run(argc - 1, argv + 1);
	fprintf(stderr, "kelvin: no verb \"%s\" (kelvin --help lists them)\n", argv[1]);
	return 2;
}
