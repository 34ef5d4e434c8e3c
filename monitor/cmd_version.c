/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_version.c - kelvin version: print the version. */
#include "monitor/show.h"
#include "monitor/verb.h"

enum { OPT_JSON = 1 };

static const struct opt_spec opts[] = {
	{"json", NULL, "print an object", OPT_JSON},
};

int cmd_version(int argc, char **argv)
{
	struct opt_parser p = {
		.verb = "version",
		.usage = "version [--json]",
		.summary = "Prints the version of kelvin.",
		.examples = "  kelvin version\n",
		.opts = opts,
		.opt_count = ARRAY_SIZE(opts),
	};
	const char *arg;
	bool json = false;
	int id;

	opt_begin(&p, argc, argv);
	while ((id = opt_next(&p, &arg)) > 0)
		json = true;
	if (id < 0)
		return 2;
	if (optind < argc)
		return usage_error(&p, "\"%s\" is too much", argv[optind]);
	if (json)
		return show_json(json_pack("{s:s, s:s}", "name", "kelvin", "version",
			KELVIN_VERSION));
	printf("kelvin %s\n", KELVIN_VERSION);
	return show_end();
}
