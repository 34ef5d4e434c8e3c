/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jail_probe.c - played as a monitor by the jailer's tests: prints what it sees and can do.
 *
 * There is no /proc in the jail, so it asks the kernel; where there is one it does nothing, since
 * what it should not be able to do is tried, and the errno told. One "key value" a line. Its last
 * argument may name a way to end: "sleep", "fill" (writes until something stops it).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

extern char **environ;

static void ids(void)
{
	uid_t u[3];
	gid_t g[3];

	getresuid(&u[0], &u[1], &u[2]);
	getresgid(&g[0], &g[1], &g[2]);
	printf("uid %u %u %u\ngid %u %u %u\ngroups %d\n", u[0], u[1], u[2], g[0], g[1], g[2],
		getgroups(0, NULL));
}

static void capabilities(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[2];
	int bounding = 0, ambient = 0;

	syscall(SYS_capget, &head, sets);
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++) {
		bounding += prctl(PR_CAPBSET_READ, cap, 0, 0, 0);
		ambient += prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0);
	}
	printf("caps %x %x\nbounding %d\nambient %d\nno_new_privs %d\n",
		sets[0].effective | sets[0].permitted | sets[0].inheritable,
		sets[1].effective | sets[1].permitted | sets[1].inheritable, bounding, ambient,
		prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
}

/* Before any is opened here; told later. */
static char fds[4096];

static void look_at_descriptors(void)
{
	size_t len = 0;

	for (int fd = 0; fd < 4096; fd++)
		if (fcntl(fd, F_GETFD) >= 0 && len < sizeof(fds) - 16)
			len += (size_t)snprintf(fds + len, sizeof(fds) - len, " %d", fd);
}

static void walk(const char *path, int depth)
{
	DIR *d = opendir(path[0] ? path : "/");
	struct dirent *entry;

	while (d && (entry = readdir(d))) {
		char below[4096];
		struct stat st;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		snprintf(below, sizeof(below), "%s/%s", path, entry->d_name);
		if (lstat(below, &st))
			continue;
		printf("file %s %o %u:%u", below, st.st_mode, st.st_uid, st.st_gid);
		if (S_ISCHR(st.st_mode))
			printf(" %u:%u", major(st.st_rdev), minor(st.st_rdev));
		printf("\n");
		if (S_ISDIR(st.st_mode) && depth < 8)
			walk(below, depth + 1);
	}
	if (d)
		closedir(d);
}

static void limits(void)
{
	static const struct {
		int resource;
		const char *name;
	} all[] = {{RLIMIT_NOFILE, "nofile"}, {RLIMIT_FSIZE, "fsize"}, {RLIMIT_CORE, "core"}};

	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		struct rlimit r;

		getrlimit(all[i].resource, &r);
		printf("%s %ld %ld\n", all[i].name, (long)r.rlim_cur, (long)r.rlim_max);
	}
}

static void attempt(const char *what, long r)
{
	printf("try %s %s\n", what, r >= 0 ? "DONE" : strerrorname_np(errno));
}

static int connect_abstract(const char *name)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	size_t len = strlen(name);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(sa.sun_path + 1, name, len);
	return connect(fd, (struct sockaddr *)&sa,
		(socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + len));
}

/* The classic: chroot deeper with a descriptor of above, and climb. */
static long double_chroot(void)
{
	struct stat before, after;
	int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	stat("/", &before);
	mkdir("/deeper", 0700);
	if (chroot("/deeper"))
		return -1;
	if (fchdir(fd))
		return -1;
	for (int i = 0; i < 64; i++)
		if (chdir(".."))
			return -1;
	stat(".", &after);
	return after.st_ino == before.st_ino ? -1 : 0;
}

static void attempts(const char *self, const char *abstract, pid_t other)
{
	attempt("setuid", setuid(0));
	attempt("mknod", mknod("/dev/mem", S_IFCHR | 0600, makedev(1, 1)));
	attempt("mount", mount("none", "/run", "tmpfs", 0, NULL));
	attempt("umount", umount2("/", MNT_DETACH));
	attempt("unshare", syscall(SYS_unshare, 0x00020000));
	attempt("chroot", double_chroot());
	attempt("write-self", open(self, O_WRONLY | O_CLOEXEC));
	attempt("chmod-self", chmod(self, 0777));
	attempt("proc", open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
	attempt("key", syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user",
		"kelvin-secret", 0));
	attempt("up", open("/../../../../etc/passwd", O_RDONLY | O_CLOEXEC));
	attempt("ptrace", other > 0 ? ptrace(PTRACE_ATTACH, other, NULL, NULL) : -1);
	attempt("kill", other > 0 ? kill(other, 0) : -1);
	attempt("abstract", abstract ? connect_abstract(abstract) : -1);
	attempt("kvm", open("/dev/kvm", O_RDWR | O_CLOEXEC));
	attempt("write-dev", open("/dev/x", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	attempt("write-run", open("/run/x", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	attempt("write-root", open("/x", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

static void fill(void)
{
	static const char block[4096];
	int fd = open("/run/fill", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	for (;;)
		if (write(fd, block, sizeof(block)) < 0)
			_exit(3);
}

int main(int argc, char **argv)
{
	const char *abstract = NULL, *end = argv[argc - 1];
	int output = STDOUT_FILENO;
	pid_t other = 0;
	char cwd[64];

	if (access("/proc/self", F_OK) == 0)
		return 2;
	look_at_descriptors();
	for (int i = 1; i + 1 < argc; i++) {
		if (strcmp(argv[i], "--abstract") == 0)
			abstract = argv[i + 1];
		if (strcmp(argv[i], "--other") == 0)
			other = atoi(argv[i + 1]);
		/* Told where nobody listens to stdout. */
		if (strcmp(argv[i], "--output") == 0)
			output = open(argv[i + 1], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	}
	if (output != STDOUT_FILENO) {
		dup2(output, STDOUT_FILENO);
		close(output);
	}
	printf("fds%s\n", fds);
	for (int i = 0; i < argc; i++)
		printf("arg %s\n", argv[i]);
	for (char **p = environ; *p; p++)
		printf("env %s\n", *p);
	ids();
	capabilities();
	limits();
	walk("", 0);
	printf("pid %d\nsid %d\numask %o\ncwd %s\n", getpid(), getsid(0), umask(077),
		getcwd(cwd, sizeof(cwd)) ? cwd : "?");
	attempts(argv[0], abstract, other);
	printf("end\n");
	fflush(stdout);
	if (strcmp(end, "fill") == 0)
		fill();
	if (strcmp(end, "sleep") == 0)
		pause();
	return 0;
}
