/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_snapshot.c - kelvin snapshot: write a running VM to a directory.
 *
 * The directory is made here, with the rights of whoever calls, and the VM is handed open files: it
 * may be jailed, and need not see any path. Its answer means that they are on stable storage. A VM
 * may be in its guest's hands and is not believed: once nobody can write the files any more, they
 * get their name here, with a file `host` among them that the VM never had (host_spec.c). Who dies
 * in between leaves a temporary directory, and a VM that goes on: with --stop it waits, paused, on
 * this connection, until it is told to end.
 *
 * How long writing takes depends on how much there is, which only the VM knows. So it is seen from
 * outside: what the files take on disk earns time. A signal ends the wait, by the connection.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/sig.h"
#include "monitor/dev_spec.h"
#include "monitor/machine.h"
#include "monitor/vm_verb.h"
#include "monitor/vmfind.h"
#include "snapshot/snapshot.h"

#define STOP_NS      10000000000ull
#define WRITE_NS     600000000000ull
#define LET_GO_TRIES 50u /* to see that nobody writes any more ... */
#define LET_GO_MS    2   /* ... so far apart */

enum { OPT_STOP = 1, OPT_FORCE, OPT_JSON, OPT_TIMEOUT };

static const struct opt_spec opts[] = {
	{"stop", NULL, "end the VM once the snapshot is safe on disk", OPT_STOP},
	{"force", NULL, "replace a snapshot that is there, atomically", OPT_FORCE},
	{"timeout", "TIME", "how long the VM may take, and a second more for each MiB\n"
			    "that it has written (default 10m)", OPT_TIMEOUT},
	{"json", NULL, "print what was written as an object", OPT_JSON},
};

/* For people who look later, in the VM's log and in our output. */
static int make_absolute(const char *dir, char *out, size_t cap, struct err *e)
{
	char cwd[PATH_MAX];
	size_t len;
	int n;

	if (!*dir)
		return err_set(e, -EINVAL, "the directory for the snapshot has no name");
	if (dir[0] == '/')
		n = snprintf(out, cap, "%s", dir);
	else if (getcwd(cwd, sizeof(cwd)))
		n = snprintf(out, cap, "%s/%s", cwd, dir);
	else
		return err_sys(e, errno, "cannot find the working directory");
	if (n < 0 || (size_t)n >= cap)
		return err_set(e, -ENAMETOOLONG, "the path of %.200s is too long", dir);
	for (len = strlen(out); len > 1 && out[len - 1] == '/'; len--)
		out[len - 1] = 0;
	return 0;
}

static void print_result(const char *dir, const json_t *facts)
{
	u64 bytes = (u64)json_integer_value(json_object_get(facts, "bytes"));
	u64 data = (u64)json_integer_value(json_object_get(facts, "data_bytes"));
	u64 pause_us = (u64)json_integer_value(json_object_get(facts, "pause_us"));
	const char *state = json_string_value(json_object_get(facts, "state"));
	char a[32], b[32], c[32];

	printf("snapshot %s: %s RAM, %s data", dir, show_size(bytes, a, sizeof(a)),
		show_size(data, b, sizeof(b)));
	if (pause_us)
		printf(", paused %s", show_ns(pause_us * 1000, c, sizeof(c)));
	if (life_is_name(state) && strcmp(state, "running"))
		printf(", the VM is %s", state);
	putchar('\n');
}

/* The API words its errors as Firecracker does; here the verb says that much. */
static void plain_words(struct err *e, bool force)
{
	static const char prefix[] = "Create snapshot error: ", there[] = "exists already";
	char *p = strstr(e->msg, prefix);
	size_t len;

	if (p)
		memmove(p, p + sizeof(prefix) - 1, strlen(p + sizeof(prefix) - 1) + 1);
	len = strlen(e->msg);
	if (!force && len >= sizeof(there) - 1 && !strcmp(e->msg + len - sizeof(there) + 1, there))
		snprintf(e->msg + len, sizeof(e->msg) - len, " (--force replaces a snapshot)");
}

/* One snapshot on its way. */
struct taking {
	const char *id;
	const char *path; /* absolute */
	bool stop, force, json;
	u64 timeout_ns;
	int sock;      /* to the VM, from the first question to the last */
	json_t *names; /* of its files, as the VM says, so with suspicion */
	char *host;    /* what the VM has of the host, as was written down before its guest ran */
	size_t host_len;
	struct snap_dir *dir;
	int file[CLIENT_FILES_MAX];
	unsigned file_count;
	json_t *facts; /* the VM's answer */
};

static int ask_for_names(struct taking *t, struct err *e)
{
	struct client_request q = {.id = t->id, .method = "GET", .path = "/kelvin/snapshot",
		.timeout_ms = ANSWER_MS};
	json_auto_t *reply = NULL;
	int r = client_ask(t->sock, &q, &reply, e);

	if (r)
		return r;
	t->names = json_incref(json_object_get(reply, "files"));
	if (!json_is_array(t->names) || json_array_size(t->names) > CLIENT_FILES_MAX)
		return err_set(e, -EPROTO, "VM \"%s\" does not say which files it needs", t->id);
	return 0;
}

/* Whether nobody but root and us can have put there what is open at @fd. */
static bool is_trusted(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) &&
		(st.st_uid == 0 || st.st_uid == geteuid()) &&
		!(st.st_mode & (S_IWGRP | S_IWOTH));
}

/*
 * Whether the directory open at @dir is, by now, of the process at the other end of @sock. The VM
 * that we talk to may have let go of its id, and somebody started another of that name.
 */
static bool is_of_peer(int dir, int sock)
{
	pid_t peer = client_peer(sock);

	return peer && peer == vm_pid_in(dir);
}

/* t->host_len is 0 where there is none, or it is not to be trusted. */
static int read_host(struct taking *t, struct err *e)
{
	_cleanup_fd_ int dir = -1, fd = -1;
	char path[PATH_MAX];
	ssize_t n;
	int r = vm_path(path, sizeof(path), t->id, NULL, e);

	if (r)
		return r;
	t->host = malloc(SNAP_HOST_MAX);
	if (!t->host)
		return err_sys(e, ENOMEM, "cannot start a snapshot");
	dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir >= 0)
		fd = openat(dir, VM_DEVICES_FILE,
			O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 && dir >= 0 && errno == ENOENT)
		return 0;
	if (fd < 0)
		return err_sys(e, errno, "cannot open %s/" VM_DEVICES_FILE, path);
	/* In this order: who takes the directory over writes its pid before that file. */
	if (!is_trusted(dir) || !is_trusted(fd) || !is_of_peer(dir, t->sock))
		return 0;
	n = TEMP_FAILURE_RETRY(read(fd, t->host, SNAP_HOST_MAX));
	if (n < 0)
		return err_sys(e, errno, "cannot read %s/" VM_DEVICES_FILE, path);
	t->host_len = (size_t)n;
	return dev_host_check(t->host, t->host_len, e) ? err_wrap(e, "%s/" VM_DEVICES_FILE, path)
						       : 0;
}

static int make_files(struct taking *t, struct err *e)
{
	int r = snap_dir_create(&t->dir, &sys_host, t->path, t->force, e);

	if (!r && t->host_len)
		r = snap_dir_host(t->dir, t->host, t->host_len, e);
	for (size_t i = 0; !r && i < json_array_size(t->names); i++) {
		const char *name = json_string_value(json_array_get(t->names, i));

		r = snap_dir_file(t->dir, name ? name : "", &t->file[i], e);
		t->file_count += !r;
	}
	return r;
}

/* What is on disk of it: the VM's own word is worth nothing. */
static u64 written_bytes(const struct taking *t)
{
	u64 bytes = 0;
	struct stat st;

	for (unsigned i = 0; i < t->file_count; i++)
		if (!fstat(t->file[i], &st))
			bytes += (u64)st.st_blocks * 512;
	return bytes;
}

/* A disk slower than a MiB a second is taken for a VM that plays for time. */
static unsigned write_timeout(const void *ctx)
{
	const struct taking *t = ctx;
	u64 earned_ns = written_bytes(t) / 1024 * 1000000;

	return timeout_ms(t->timeout_ns < UINT64_MAX - earned_ns ? t->timeout_ns + earned_ns
								 : UINT64_MAX);
}

static int have_written(struct taking *t, struct err *e)
{
	char size[32];
	struct client_request q = {
		.id = t->id,
		.method = "PUT",
		.path = "/kelvin/snapshot",
		.body = json_pack("{s:s, s:O, s:b}", "dir", t->path, "files", t->names, "stop",
			t->stop),
		.files = t->file,
		.file_count = t->file_count,
		.timeout_ms = timeout_ms(t->timeout_ns),
		.timeout_now = write_timeout,
		.ctx = t,
	};
	int r;

	if (!q.body)
		return err_set(e, -EINVAL, "the path %.200s is not valid UTF-8", t->path);
	r = client_ask(t->sock, &q, &t->facts, e);
	json_decref(q.body);
	if (r == -ETIMEDOUT)
		err_set(e, r, "VM \"%s\" takes too long: given up with %s written (see --timeout)",
			t->id, show_size(written_bytes(t), size, sizeof(size)));
	return r;
}

/*
 * The VM answered, so it has closed its descriptors. One in its guest's hands could keep them, and
 * change the memory under the clones.
 */
static int check_let_go(const struct taking *t, struct err *e)
{
	unsigned tries = 0;
	int r = 0;

	for (size_t i = 0; !r && i < json_array_size(t->names); i++) {
		const char *name = json_string_value(json_array_get(t->names, i));

		while ((r = snap_dir_let_go(t->dir, name, e)) == -EBUSY && tries++ < LET_GO_TRIES)
			poll(NULL, 0, LET_GO_MS);
	}
	if (r == -EBUSY)
		return err_set(e, r,
			"the monitor of VM \"%s\" keeps files of its snapshot open for writing; "
			"not published", t->id);
	return r;
}

/* The VM, which is paused since it wrote the snapshot, may end now. */
static int end_vm(const struct taking *t, struct err *e)
{
	json_auto_t *body = json_pack("{s:i}", "wait_ms", 0);
	struct client_request q = {.id = t->id, .method = "PUT", .path = "/kelvin/stop",
		.body = body, .timeout_ms = ANSWER_MS};
	int r = client_ask(t->sock, &q, NULL, e);

	if (r && r != -EPIPE) /* it ended by itself, meanwhile */
		return r;
	json_object_set_new(t->facts, "state", json_string("stopped"));
	return 0;
}

/* ---- signals ---- */

static volatile sig_atomic_t signalled;
static volatile int signalled_sock = -1;

/* Whoever waits for the VM now hears that it hung up. */
static void on_signal(int sig)
{
	int error = errno;

	signalled = sig;
	shutdown(signalled_sock, SHUT_RDWR);
	errno = error;
}

/* Once each: the second one ends us at once. */
static void catch_signals(int sock)
{
	const struct sigaction sa = {
		.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_RESETHAND};

	signalled_sock = sock;
	sig_catch_ends(&sa);
}

/* Up to the name, and with --stop beyond it. What is left behind is swept by the next writer. */
static int take(struct taking *t, struct err *e)
{
	int r = client_dial(&t->sock, t->id, e);

	if (!r)
		catch_signals(t->sock);
	if (!r)
		r = read_host(t, e); /* before the VM has a say in how long that takes */
	if (!r)
		r = ask_for_names(t, e);
	if (!r)
		r = make_files(t, e);
	if (!r)
		r = have_written(t, e);
	while (t->file_count)
		fd_close(&t->file[--t->file_count]);
	if (!r)
		r = check_let_go(t, e);
	signalled_sock = -1; /* from here on it is too late to hang up */
	if (signalled)
		r = err_set(e, -EINTR, "interrupted: no snapshot of VM \"%s\" was made", t->id);
	if (!r)
		r = snap_dir_commit(&t->dir, e);
	else
		snap_dir_abort(&t->dir);
	if (!r && t->stop)
		r = end_vm(t, e);
	/* Where the VM was to end and did not, this lets it go on. */
	fd_close(&t->sock);
	json_decref(t->names);
	free(t->host);
	return r;
}

static int take_snapshot(struct taking *t, const char *dir)
{
	char path[PATH_MAX];
	pid_t pid;
	struct err e;
	int r;

	if (make_absolute(dir, path, sizeof(path), &e))
		return fail(&e);
	t->path = path;
	vm_look(t->id, &pid);
	if (take(t, &e)) {
		json_decref(t->facts);
		plain_words(&e, t->force);
		r = fail(&e);
		if (e.code == -EINTR)
			raise(signalled);
		return r;
	}
	if (t->json) {
		r = show_json(t->facts);
	} else {
		print_result(dir, t->facts);
		json_decref(t->facts);
		r = show_end();
	}
	if (t->stop && vm_wait_gone(t->id, pid, STOP_NS, &e))
		return fail(&e);
	return r;
}

int cmd_snapshot(int argc, char **argv)
{
	struct opt_parser p = {
		.verb = "snapshot",
		.usage = "snapshot [--stop] [--force] [--timeout TIME] [--json] ID DIR",
		.summary = "Writes the VM ID (memory, processors, devices) to the new directory\n"
			   "DIR. The VM is paused meanwhile and goes on after that, unless it\n"
			   "was paused before. DIR appears only once all of it is on stable\n"
			   "storage.",
		.examples = "  kelvin snapshot web /var/tmp/web\n"
			    "  kelvin snapshot --stop web snap && kelvin restore snap\n",
		.opts = opts,
		.opt_count = ARRAY_SIZE(opts),
	};
	struct taking t = {.sock = -1, .timeout_ns = WRITE_NS};
	const char *arg;
	struct err e;
	int id;

	opt_begin(&p, argc, argv);
	while ((id = opt_next(&p, &arg)) > 0) {
		t.stop = t.stop || id == OPT_STOP;
		t.force = t.force || id == OPT_FORCE;
		t.json = t.json || id == OPT_JSON;
		if (id == OPT_TIMEOUT && parse_time(arg, &t.timeout_ns, &e))
			return usage_error(&p, "--timeout: %s", e.msg);
	}
	if (id < 0)
		return 2;
	if (argc - optind != 2)
		return usage_error(&p, argc == optind ? "which VM, and where to?"
						      : "one VM and one directory, please");
	t.id = argv[optind];
	return take_snapshot(&t, argv[optind + 1]);
}
