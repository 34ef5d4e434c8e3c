/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_agent.c - what a guest's agent says to `kelvin cp` and `kelvin exec`: frames (base/frame.c),
 * the trees in them (base/tree_recv.c) and a command's output and end (monitor/exec.c). The agent
 * is the input's: it sends files, directories and links, most of them as they should be; names that
 * lead elsewhere, links that do, and frames that are none.
 *
 * Checked, on a real file system: what came is below the destination and nothing else changed; a
 * refusal has a reason; no descriptor stays open.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/base/bytes.h"
#include "monitor/base/tree.h"
#include "monitor/exec.h"
#include "tests/fuzz/fuzz.h"

#define SAID_MAX 32768u /* fits a socket's buffer */

static struct {
	char top[64];
	int top_fd, null_fd, out_fd;
	unsigned long_names; /* few, so that paths stay short enough to be cleaned up */
	struct enc said;
	struct frame_reader in;
	struct tree tree;
} t;

static int drop(const char *path, const struct stat *st, int type, struct FTW *w)
{
	return remove(path);
}

static void clean(void)
{
	nftw(t.top, drop, 16, FTW_DEPTH | FTW_PHYS);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const int signals[] = {SIGTERM, SIGQUIT, SIGWINCH};

	snprintf(t.top, sizeof(t.top), "%s/kelvin-fuzz-XXXXXX",
		access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	must(mkdtemp(t.top));
	t.top_fd = open(t.top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	t.null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	t.out_fd = dup(STDOUT_FILENO);
	must(t.top_fd >= 0 && t.null_fd >= 0 && dup2(t.null_fd, STDIN_FILENO) == 0);
	must(!mkdirat(t.top_fd, "outside", 0755));
	atexit(clean);
	/* exec_run() leaves those alone that are ignored. */
	for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
		signal(signals[i], SIG_IGN);
	return 0;
}

/* ---- the agent ---- */

static const char *const names[] = {"a", "b", "c", "dir", "..", ".", "", "a/b", "../outside",
	"/etc", ".kelvin-cp", "\n"};
static const char *const targets[] = {"a", "..", "../..", "../outside", "/", "../../outside/x", "b",
	""};

static void add_text(const char *s)
{
	enc_bytes(&t.said, s, strlen(s) + 1);
}

static void add_name(struct fz *f)
{
	unsigned odd = fz_break(f, 32);
	char name[300];

	if (odd == 1 && t.long_names < 8) {
		t.long_names++;
		memset(name, 'n', sizeof(name));
		name[254 + fz_u8(f) % 3] = 0;
		add_text(name);
	} else if (odd == 2) {
		enc_u8(&t.said, 'x'); /* without an end */
	} else {
		add_text(names[odd ? odd % ARRAY_SIZE(names) : fz_below(f, 4)]);
	}
}

static void body(struct fz *f, u8 type)
{
	u32 n;

	switch (type) {
	case FR_FILE:
	case FR_DIR:
		enc_u32(&t.said, (fz_u8(f) & 1 ? 0755 : fz_u32(f)) | (type == FR_DIR ? 0700 : 0));
		enc_u64(&t.said, fz_u8(f) & 1 ? 1000000000 : fz_odd(f, 1));
		if (type == FR_FILE)
			enc_u64(&t.said, fz_u8(f));
		add_name(f);
		break;
	case FR_LINK:
		add_name(f);
		add_text(targets[fz_below(f, ARRAY_SIZE(targets))]);
		break;
	case FR_DATA:
	case FR_STDOUT:
		for (n = fz_u8(f); n--;)
			enc_u8(&t.said, (u8)n);
		break;
	case FR_FILE_END:
		enc_u64(&t.said, fz_odd(f, 0));
		break;
	case FR_ERROR:
	case FR_STDIN_ACK:
	case FR_EXIT:
		enc_u32(&t.said, (u32)fz_odd(f, 0));
		if (type == FR_ERROR)
			add_text("no");
		break;
	case FR_NOTE:
		add_text("note");
		break;
	default:
		break;
	}
}

/* Makes the head at @at say how long its frame is; or not. */
static void end_frame(struct fz *f, size_t at, u8 type)
{
	u8 *head = t.said.buf + at;
	unsigned odd = fz_break(f, 10);
	u32 len = (u32)(t.said.len - at - FRAME_HEAD);

	frame_head(head, type, odd == 1 ? (u32)fz_odd(f, len) : len);
	if (odd == 2)
		head[1] = fz_u8(f);
	if (odd == 3)
		head[2 + (fz_u8(f) & 1)] = fz_u8(f);
	if (odd == 4 && len) /* its end is the beginning of the next */
		t.said.len -= 1 + fz_u8(f) % len;
	fz_trace("frame %u, %u bytes, odd %u", type, len, odd);
}

static void frame(struct fz *f)
{
	static const u8 types[] = {FR_FILE, FR_FILE, FR_DIR, FR_DIR, FR_UP, FR_UP, FR_LINK, FR_DATA,
		FR_FILE_END, FR_TREE_END, FR_NOTE, FR_STDOUT, FR_EXIT, FR_STDIN_ACK, FR_ERROR, FR_OK};
	u8 type = types[fz_below(f, ARRAY_SIZE(types))];
	size_t at = t.said.len;
	u64 sent = 0;

	if (at > SAID_MAX - 1024)
		return;
	if (fz_break(f, 8))
		type = fz_u8(f);
	if (type == FR_STDERR) /* that would be the fuzzer's */
		type = FR_STDOUT;
	enc_u64(&t.said, 0);
	body(f, type);
	end_frame(f, at, type);
	if (type != FR_FILE || fz_break(f, 24))
		return;
	/* The rest of the file, as it goes by itself. */
	for (unsigned n = fz_below(f, 3); n--;) {
		at = t.said.len;
		enc_u64(&t.said, 0);
		body(f, FR_DATA);
		sent += t.said.len - at - FRAME_HEAD;
		end_frame(f, at, FR_DATA);
	}
	at = t.said.len;
	enc_u64(&t.said, 0);
	enc_u64(&t.said, fz_break(f, 8) ? fz_odd(f, sent) : sent);
	end_frame(f, at, FR_FILE_END);
}

/* ---- kelvin ---- */

static void count(struct tree *tree, u64 done, u64 size)
{
	must(done <= tree->bytes);
}

static void note(struct tree *tree, const char *text)
{
	must(memchr(text, 0, FRAME_MAX + 1));
}

static void receive(int fd, u8 how)
{
	static const char *const bases[] = {"a", ".", "dir", "b"};
	char dest[128];
	struct err e = {0};
	int r;

	memset(&t.tree, 0, sizeof(t.tree));
	t.in.have = 0;
	t.in.fd = fd;
	t.tree.in = &t.in;
	t.tree.mode_mask = how & 1 ? 0777 : 07777;
	t.tree.progress = count;
	t.tree.note = how & 2 ? note : NULL;
	must(!mkdirat(t.top_fd, "in", 0755));
	if (how & 4) { /* somebody had links there before */
		char in[80];

		snprintf(in, sizeof(in), "%s/in/a", t.top);
		must(!symlink("../outside", in));
	}
	snprintf(dest, sizeof(dest), "%s/in%s", t.top, how & 8 ? "/new" : how & 16 ? "/new/" : "");
	r = tree_recv(&t.tree, dest, bases[how >> 6], &e);
	must(!r == !e.msg[0]);
	fz_trace("%d: %s; %llu files", r, e.msg, (unsigned long long)t.tree.files);
}

static void execute(int fd, u8 how)
{
	static char word[] = "true";
	char *const argv[] = {word};
	const struct exec_spec spec = {.user = "", .cwd = "", .argv = argv, .argc = 1};
	struct err e = {0};
	int status, r;

	must(dup2(t.null_fd, STDOUT_FILENO) >= 0);
	r = exec_run(fd, &spec, &status, &e);
	must(dup2(t.out_fd, STDOUT_FILENO) >= 0);
	must(!r == !e.msg[0] && status >= 0 && status <= 255 && (!r || status));
	fz_trace("%d: %s; status %d", r, e.msg, status);
}

static unsigned entries(const char *name)
{
	int fd = openat(t.top_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	unsigned n = 0;

	must(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

/* Only what is below "in" may have changed. */
static void check_outside(bool received)
{
	struct stat st;
	char in[80];

	must(!entries("outside") && entries(".") == 1u + received);
	must(!fstatat(t.top_fd, "outside", &st, AT_SYMLINK_NOFOLLOW));
	must(S_ISDIR(st.st_mode) && (st.st_mode & 07777) == 0755);
	if (!received)
		return;
	snprintf(in, sizeof(in), "%s/in", t.top);
	must(!nftw(in, drop, 16, FTW_DEPTH | FTW_PHYS));
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	int sock[2], next;
	struct fz f;
	u8 kind, how;

	fz_begin(&f, data, len);
	fz_step(&f);
	kind = fz_u8(&f);
	how = fz_u8(&f);
	t.said.len = t.long_names = 0;
	if (kind & 1) { /* the answer to FR_EXEC */
		enc_u64(&t.said, 0);
		frame_head(t.said.buf, FR_OK, 0);
	}
	while (fz_step(&f))
		frame(&f);
	must(!t.said.oom);
	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock));
	if (t.said.len)
		must(send(sock[1], t.said.buf, t.said.len, MSG_DONTWAIT) == (ssize_t)t.said.len);
	must(!shutdown(sock[1], SHUT_WR));
	if (kind & 1)
		execute(sock[0], how);
	else
		receive(sock[0], how);
	check_outside(!(kind & 1));
	close(sock[1]);
	close(sock[0]);
	next = dup(t.null_fd);
	must(next == sock[0] && !close(next)); /* the lowest that is free, as before */
	return 0;
}
