/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_init.c - what process 1 of a guest does before and after the agent's own work.
 *
 * Begins in an initial RAM disk (or on a root the kernel mounted): the file systems of the kernel,
 * the modules in /modules in the order of their names, then, where the command line has
 * kelvin.root=, that device becomes the root, and the RAM disk's files are removed, for its memory
 * is the guest's. Nothing here ends the guest but the end itself: what cannot be done is said on
 * the console.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

#define MODULES_MAX   256u
#define NEW_ROOT      "/.kelvin-root"
#define ROOT_WAIT_MS  10000
#define END_WAIT_MS   2000
#define ARGS_MAX      64u
#define WIPE_DEPTH    64u
#define RAMFS_TYPE    0x858458f6
#define TMPFS_TYPE    0x01021994
#define MODULE_PACKED 4 /* MODULE_INIT_COMPRESSED_FILE: the kernel unpacks it */

static char cmdline[8192];
static char *own_args; /* what stands behind " -- " */

static void say(const char *what, const char *on)
{
	fprintf(stderr, "agent: cannot %s %s: %s\n", what, on, strerror(errno));
}

static void pause_ms(int ms)
{
	nanosleep(&(struct timespec){.tv_nsec = ms * 1000000l}, NULL);
}

/* ---- the command line ---- */

static void read_cmdline(void)
{
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, cmdline, sizeof(cmdline) - 1) : 0;

	if (fd >= 0)
		close(fd);
	cmdline[n > 0 ? n : 0] = 0;
	if (n > 0 && cmdline[n - 1] == '\n')
		cmdline[n - 1] = 0;
	own_args = strstr(cmdline, " -- ");
	if (own_args) {
		*own_args = 0;
		own_args += 4;
	}
}

/* The next word at *@p, quotes taken off, in place. NULL at the end. */
static char *next_word(char **p)
{
	char *from = *p, *to, *word;
	bool quoted = false;

	while (*from == ' ')
		from++;
	if (!*from)
		return NULL;
	word = to = from;
	for (; *from && (quoted || *from != ' '); from++) {
		if (*from == '"')
			quoted = !quoted;
		else
			*to++ = *from;
	}
	*p = *from ? from + 1 : from;
	*to = 0;
	return word;
}

bool init_word(const char *name, char *out, size_t cap)
{
	static char copy[sizeof(cmdline)];
	char *p = copy, *word;
	size_t n = strlen(name);

	memcpy(copy, cmdline, sizeof(copy));
	while ((word = next_word(&p))) {
		bool flag = !strcmp(word, name);

		if (!flag && (strncmp(word, name, n) || word[n] != '='))
			continue;
		if ((size_t)snprintf(out, cap, "%s", flag ? "" : word + n + 1) < cap)
			return true;
		fprintf(stderr, "agent: %s= is too long\n", name);
	}
	return false;
}

/* ---- file systems ---- */

static const struct fs {
	const char *type, *where, *data;
	unsigned long flags;
	bool late; /* belongs on the final root */
} fs_list[] = {
	{"proc", "/proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, false},
	{"sysfs", "/sys", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, false},
	{"devtmpfs", "/dev", "mode=755", MS_NOSUID, false},
	{"devpts", "/dev/pts", "mode=620,ptmxmode=666", MS_NOSUID | MS_NOEXEC, true},
	{"tmpfs", "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV, true},
	{"tmpfs", "/run", "mode=755", MS_NOSUID | MS_NODEV, true},
	{"tmpfs", "/tmp", "mode=1777", MS_NOSUID | MS_NODEV, true},
};

static void mount_all(bool late)
{
	for (size_t i = 0; i < ARRAY_SIZE(fs_list); i++) {
		const struct fs *f = &fs_list[i];

		if (f->late != late)
			continue;
		mkdir(f->where, 0755);
		if (mount(f->type, f->where, f->type, f->flags, f->data) && errno != EBUSY)
			say("mount", f->where);
	}
}

/* stdin, stdout and stderr, which the kernel only opens where /dev/console was there at once. */
static void open_console(void)
{
	int fd = open("/dev/console", O_RDWR);

	if (fd < 0)
		fd = open("/dev/null", O_RDWR);
	for (int i = 0; fd >= 0 && i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
}

/* ---- modules ---- */

static char names[16384];

/* Names in @dir, each once in names[]; how many. */
static unsigned list_dir(int dir, const char *list[MODULES_MAX])
{
	_Alignas(struct dirent64) static char buf[4096];
	unsigned n = 0;
	size_t used = 0;
	ssize_t len;

	while ((len = getdents64(dir, buf, sizeof(buf))) > 0) {
		for (ssize_t at = 0; at < len;) {
			const struct dirent64 *d = (const void *)(buf + at);
			size_t size = strlen(d->d_name) + 1;

			at += d->d_reclen;
			if (d->d_name[0] == '.' || n == MODULES_MAX || size > sizeof(names) - used)
				continue;
			memcpy(names + used, d->d_name, size);
			list[n++] = names + used;
			used += size;
		}
	}
	return n;
}

static void load_module(int dir, const char *name)
{
	size_t len = strlen(name);
	bool packed = len > 4 && (!strcmp(name + len - 3, ".xz") ||
					 !strcmp(name + len - 3, ".gz") ||
					 !strcmp(name + len - 4, ".zst"));
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || (syscall(SYS_finit_module, (long)fd, "", packed ? MODULE_PACKED : 0L, 0L) &&
			      errno != EEXIST))
		say("load the module", name);
	if (fd >= 0)
		close(fd);
}

static void load_modules(void)
{
	const char *list[MODULES_MAX];
	int dir = open("/modules", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	unsigned n;

	if (dir < 0)
		return;
	n = list_dir(dir, list);
	for (unsigned i = 1; i < n; i++) { /* they mostly come sorted */
		const char *name = list[i];
		unsigned k = i;

		for (; k && strcmp(list[k - 1], name) > 0; k--)
			list[k] = list[k - 1];
		list[k] = name;
	}
	for (unsigned i = 0; i < n; i++)
		load_module(dir, list[i]);
	close(dir);
}

/* ---- the root file system ---- */

static int try_mount(const char *dev, const char *type, unsigned long flags)
{
	return mount(dev, NEW_ROOT, type, flags, NULL) ? -errno : 0;
}

/* Each type the kernel knows that needs a device. */
static int mount_any(const char *dev, unsigned long flags)
{
	char list[4096], *line = list, *end;
	int fd = open("/proc/filesystems", O_RDONLY | O_CLOEXEC), r = -ENODEV;
	ssize_t n = fd >= 0 ? read(fd, list, sizeof(list) - 1) : 0;

	if (fd >= 0)
		close(fd);
	list[n > 0 ? n : 0] = 0;
	for (; (end = strchr(line, '\n')); line = end + 1) {
		*end = 0;
		if (line[0] == '\t' && (r = try_mount(dev, line + 1, flags)) != -EINVAL)
			return r;
	}
	return r;
}

static bool mount_root(const char *dev)
{
	unsigned long flags = 0;
	char type[32], word[2];
	struct stat st;
	int r;

	if (init_word("ro", word, sizeof(word)))
		flags |= MS_RDONLY;
	for (int ms = 0; stat(dev, &st) && ms < ROOT_WAIT_MS; ms += 2)
		pause_ms(2);
	mkdir(NEW_ROOT, 0755);
	if (init_word("kelvin.rootfstype", type, sizeof(type)))
		r = try_mount(dev, type, flags);
	else if ((r = try_mount(dev, "ext4", flags))) /* the most likely; others complain aloud */
		r = mount_any(dev, flags);
	if (!r)
		return true;
	errno = -r;
	say("mount the root", dev);
	return false;
}

/* Removes all in @dir that is on the file system @dev. Closes @dir. */
static void wipe(int dir, dev_t dev, unsigned depth);

static void wipe_one(int dir, const char *name, dev_t dev, unsigned depth)
{
	struct stat st;
	int sub;

	if (!strcmp(name, ".") || !strcmp(name, "..") ||
		fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) || st.st_dev != dev)
		return;
	sub = S_ISDIR(st.st_mode) ? openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (sub >= 0)
		wipe(sub, dev, depth + 1);
	unlinkat(dir, name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0);
}

static void wipe(int dir, dev_t dev, unsigned depth)
{
	_Alignas(struct dirent64) char buf[1024];
	ssize_t len;

	while (depth < WIPE_DEPTH && (len = getdents64(dir, buf, sizeof(buf))) > 0) {
		for (ssize_t at = 0; at < len;) {
			const struct dirent64 *d = (const void *)(buf + at);

			at += d->d_reclen;
			wipe_one(dir, d->d_name, dev, depth);
		}
	}
	close(dir);
}

static void wipe_ram_disk(void)
{
	struct statfs fs;
	struct stat st;
	int dir;

	/* Nothing but a RAM disk, whatever went wrong before. */
	if (statfs("/", &fs) || (fs.f_type != RAMFS_TYPE && fs.f_type != TMPFS_TYPE))
		return;
	dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir >= 0 && !fstat(dir, &st))
		wipe(dir, st.st_dev, 0);
}

static void go_to_root(const char *dev)
{
	static const char *const moved[] = {"/dev", "/sys", "/proc"};
	char to[64];

	if (!mount_root(dev))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(moved); i++) {
		snprintf(to, sizeof(to), NEW_ROOT "%s", moved[i]);
		mkdir(to, 0755);
		if (mount(moved[i], to, NULL, MS_MOVE, NULL)) {
			say("move", moved[i]);
			umount2(moved[i], MNT_DETACH);
		}
	}
	if (chdir(NEW_ROOT))
		say("enter", NEW_ROOT);
	wipe_ram_disk();
	if (mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		say("go to the root on", dev);
}

void init_begin(void)
{
	char root[256];

	umask(022);
	mount_all(false);
	open_console();
	read_cmdline();
	load_modules();
	if (init_word("kelvin.root", root, sizeof(root)))
		go_to_root(root);
	mount_all(true);
	net_lo_up();
	if (chdir("/"))
		say("enter", "/");
}

/* ---- what runs in the guest ---- */

/* In the child: signals as a program expects them, a session of its own on the console. */
static _Noreturn void become(char **argv)
{
	static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	static char home[] = "HOME=/root", term[] = "TERM=linux";
	static char *const env[] = {path, home, term, NULL};
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	execve(argv[0], argv, env);
	say("run", argv[0]);
	_exit(errno == ENOENT ? 127 : 126);
}

pid_t init_command(void)
{
	static char text[4096], shell[] = "/bin/sh", flag[] = "-c";
	char *argv[ARGS_MAX + 1] = {shell, flag, text, NULL};
	unsigned n = 0;
	pid_t pid;

	if (own_args) {
		while (n < ARGS_MAX && (argv[n] = next_word(&own_args)))
			n++;
		argv[n] = NULL;
	}
	if (!n && !init_word("kelvin.run", text, sizeof(text)))
		return 0;
	pid = fork();
	if (pid)
		return pid < 0 ? 0 : pid;
	setsid();
	ioctl(STDIN_FILENO, TIOCSCTTY, 1);
	become(argv);
}

bool init_hand_over(void)
{
	static char path[256];
	char *argv[] = {path, NULL};
	struct stat st;

	if (!init_word("kelvin.init", path, sizeof(path)))
		return false;
	if (stat(path, &st)) {
		say("start", path);
		return false;
	}
	if (!fork())
		return true;
	become(argv);
}

/* Asks all others to end; waits a while for those that are children, which orphans become. */
static void end_others(int sig)
{
	if (kill(-1, sig))
		return;
	for (int ms = 0; ms < END_WAIT_MS; ms += 5) {
		pid_t pid;

		while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
			;
		if (pid < 0)
			return;
		pause_ms(5);
	}
}

_Noreturn void init_end(unsigned status, bool again)
{
	end_others(SIGTERM);
	end_others(SIGKILL);
	sync();
	mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
	door_power(status);
	reboot(again ? RB_AUTOBOOT : RB_POWER_OFF);
	for (;;)
		pause_ms(999);
}
