/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chroot_tree.c - BASE/NAME/ID/root, with a copy of the monitor, /dev, /run and a pid file.
 *
 * Two kinds of paths. Those of the operator (the monitor, BASE) may have symbolic links and are
 * opened once. Everything below BASE is named by one component at a time, relative to a descriptor
 * of the directory above, never through a symbolic link, and is new: what exists is refused, so
 * that nothing prepared by others is written, followed or handed over. Owners and modes are set on
 * descriptors, after looking at what they are.
 *
 * Exceptions for who prepares a jail, as Firecracker's users do: NAME, ID and root may exist if
 * they are root's and nobody else may write them. In root, then, the names that we make may not.
 * A root that was in use belongs to the uid, and is refused for that.
 *
 * The uid gets root and run to write into, the devices, and nothing else; the monitor's copy is
 * root's and read-only.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "jailer/chroot_int.h"
#include "monitor/base/cleanup.h"

#define DIR_FLAGS  (O_RDONLY | O_DIRECTORY)
#define COPY_CHUNK (1u << 30)

/* One name below @dir; no symbolic links, nothing outside. */
static int open_in(int dir, const char *name, int flags, mode_t mode)
{
	struct open_how how = {
		.flags = (u64)(flags | O_CLOEXEC | O_NOFOLLOW),
		.mode = mode,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};

	return (int)syscall(SYS_openat2, dir, name, &how, sizeof(how));
}

int jail_check_id(const char *id, struct err *e)
{
	size_t len = strlen(id);

	if (len < 1 || len > JAIL_ID_MAX || id[0] == '-')
		return err_set(e, -EINVAL, "id \"%.70s\": wanted 1 to %u of [A-Za-z0-9-], no \"-\" "
			"in front", id, JAIL_ID_MAX);
	for (size_t i = 0; i < len; i++)
		if (!(id[i] >= 'a' && id[i] <= 'z') && !(id[i] >= 'A' && id[i] <= 'Z') &&
			!(id[i] >= '0' && id[i] <= '9') && id[i] != '-')
			return err_set(e, -EINVAL, "id \"%s\": wanted letters, digits and \"-\"",
				id);
	return 0;
}

int chroot_open(struct chroot_tree *t, const struct chroot_spec *spec, struct err *e)
{
	_cleanup_free_ char *path = realpath(spec->exec_file, NULL);
	const char *name;
	struct stat st;

	*t = (struct chroot_tree){.exec_fd = -1, .base_fd = -1, .name_fd = -1, .id_fd = -1,
		.root_fd = -1};
	if (!path)
		return err_sys(e, errno, "cannot find the monitor %s", spec->exec_file);
	t->exec_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (t->exec_fd < 0 || fstat(t->exec_fd, &st))
		return err_sys(e, errno, "cannot open the monitor %s", path);
	if (!S_ISREG(st.st_mode) || !(st.st_mode & 0111))
		return err_set(e, -EACCES, "%s is no program", path);
	name = strrchr(path, '/') + 1;
	if (strlen(name) > NAME_MAX - sizeof(".pid"))
		return err_set(e, -ENAMETOOLONG, "the name of the monitor %s is too long", path);
	memcpy(t->name, name, strlen(name) + 1);
	t->base_fd = open(spec->base, DIR_FLAGS | O_CLOEXEC);
	if (t->base_fd < 0)
		return err_sys(e, errno, "cannot open the base of jails %s", spec->base);
	snprintf(t->path, sizeof(t->path), "%s/%s/%s/root", spec->base, t->name, spec->id);
	return 0;
}

/* A directory that is root's alone to write; made, or found so. @made is told even on failure. */
static int make_dir(const struct chroot_tree *t, int above, const char *name, mode_t mode, int *ret,
	bool *made, struct err *e)
{
	_cleanup_fd_ int fd = -1;
	struct stat st;

	*made = mkdirat(above, name, mode) == 0;
	if (!*made && errno != EEXIST)
		return err_sys(e, errno, "cannot make %s of %s", name, t->path);
	fd = open_in(above, name, DIR_FLAGS, 0);
	if (fd < 0 || fstat(fd, &st))
		return err_sys(e, errno, "cannot open %s of %s, which %s", name, t->path,
			*made ? "was just made" : "exists already");
	if (st.st_uid != geteuid() || (st.st_mode & 022))
		return err_set(e, -EEXIST, "%s exists, and user %u may write %s in it: a jail that "
			"was in use? (remove it, or choose another id)", t->path,
			(unsigned)st.st_uid, name);
	*ret = fd_steal(&fd);
	return 0;
}

/* One below root, which must not be there. */
static int make_new_dir(const struct chroot_tree *t, int above, const char *name, mode_t mode,
	int *ret, bool *made, struct err *e)
{
	int r = make_dir(t, above, name, mode, ret, made, e);

	if (r || *made)
		return r;
	fd_close(ret);
	return err_set(e, -EEXIST, "cannot make %s of %s, which exists already", name, t->path);
}

static int copy_monitor(struct chroot_tree *t, struct err *e)
{
	_cleanup_fd_ int fd = open_in(t->root_fd, t->name, O_WRONLY | O_CREAT | O_EXCL, 0555);
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return err_sys(e, errno, "cannot make %s in %s", t->name, t->path);
	t->made_exec = true;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_nlink != 1 || st.st_uid != geteuid())
		return err_set(e, -EPERM, "%s in %s is not what was made there", t->name, t->path);
	while ((n = sendfile(fd, t->exec_fd, NULL, COPY_CHUNK)) != 0)
		if (n < 0 && errno != EINTR)
			return err_sys(e, errno, "cannot copy %s to %s", t->name, t->path);
	return 0;
}

static int make_device(const struct chroot_tree *t, int dir, const char *name, dev_t dev,
	const struct chroot_spec *spec, struct err *e)
{
	_cleanup_fd_ int fd = -1;
	struct stat st;

	if (mknodat(dir, name, S_IFCHR | 0600, dev))
		return err_sys(e, errno, "cannot make the device %s in %s", name, t->path);
	fd = open_in(dir, name, O_PATH, 0);
	if (fd < 0 || fstat(fd, &st) || !S_ISCHR(st.st_mode) || st.st_rdev != dev)
		return err_set(e, -EPERM, "the device %s in %s is not what was made there", name,
			t->path);
	if (fchownat(fd, "", spec->uid, spec->gid, AT_EMPTY_PATH))
		return err_sys(e, errno, "cannot give the device %s in %s to user %u", name,
			t->path, spec->uid);
	return 0;
}

static int make_devices(struct chroot_tree *t, const struct chroot_spec *spec, struct err *e)
{
	_cleanup_fd_ int dev = -1, net = -1;
	struct stat st;
	bool made_net;
	int r = make_new_dir(t, t->root_fd, "dev", 0755, &dev, &t->made_dev, e);

	r = r ? r : make_new_dir(t, dev, "net", 0755, &net, &made_net, e);
	r = r ? r : make_device(t, net, "tun", makedev(10, 200), spec, e);
	r = r ? r : make_device(t, dev, "kvm", makedev(10, 232), spec, e);
	r = r ? r : make_device(t, dev, "urandom", makedev(1, 9), spec, e);
	if (r)
		return r;
	/* Its number differs between hosts, and some have none. */
	if (stat("/dev/userfaultfd", &st))
		return errno == ENOENT ? 0 : err_sys(e, errno, "cannot look at /dev/userfaultfd");
	if (!S_ISCHR(st.st_mode))
		return err_set(e, -ENODEV, "/dev/userfaultfd is no device");
	return make_device(t, dev, "userfaultfd", st.st_rdev, spec, e);
}

static int make_run(struct chroot_tree *t, const struct chroot_spec *spec, struct err *e)
{
	_cleanup_fd_ int run = -1;
	int r = make_new_dir(t, t->root_fd, "run", 0700, &run, &t->made_run, e);

	if (r == 0 && fchown(run, spec->uid, spec->gid))
		r = err_sys(e, errno, "cannot give run in %s to user %u", t->path, spec->uid);
	return r;
}

int chroot_make(struct chroot_tree *t, const struct chroot_spec *spec, struct err *e)
{
	bool made_name;
	int r = make_dir(t, t->base_fd, t->name, 0755, &t->name_fd, &made_name, e);

	r = r ? r : make_dir(t, t->name_fd, spec->id, 0755, &t->id_fd, &t->made_id, e);
	r = r ? r : make_dir(t, t->id_fd, "root", 0700, &t->root_fd, &t->made_root, e);
	/* One that was prepared is closed until chroot_publish(), too. */
	if (r == 0 && fchmod(t->root_fd, 0700))
		r = err_sys(e, errno, "cannot set the mode of %s", t->path);
	r = r ? r : copy_monitor(t, e);
	r = r ? r : make_devices(t, spec, e);
	return r ? r : make_run(t, spec, e);
}

static void pid_name(const struct chroot_tree *t, char *out, size_t cap)
{
	snprintf(out, cap, "%s.pid", t->name);
}

int chroot_write_pid(struct chroot_tree *t, pid_t pid, struct err *e)
{
	_cleanup_fd_ int fd = -1;
	char name[NAME_MAX + sizeof(".pid")], text[16];
	int n = snprintf(text, sizeof(text), "%d", (int)pid);

	pid_name(t, name, sizeof(name));
	fd = open_in(t->root_fd, name, O_WRONLY | O_CREAT | O_EXCL, 0444);
	if (fd < 0)
		return err_sys(e, errno, "cannot make %s in %s", name, t->path);
	t->made_pid = true;
	if (write(fd, text, (size_t)n) != n)
		return err_sys(e, errno, "cannot write %s in %s", name, t->path);
	return 0;
}

int chroot_publish(const struct chroot_tree *t, const struct chroot_spec *spec, struct err *e)
{
	if (fchown(t->root_fd, spec->uid, spec->gid))
		return err_sys(e, errno, "cannot give %s to user %u", t->path, spec->uid);
	return 0;
}

/* Names are enough: unlinking follows nothing, and of our directories we hold descriptors. */
bool chroot_undo(struct chroot_tree *t, const struct chroot_spec *spec)
{
	static const char *const devices[] = {"kvm", "urandom", "userfaultfd"};
	char name[NAME_MAX + sizeof(".pid")];
	int r = 0;

	pid_name(t, name, sizeof(name));
	if (t->made_pid)
		r |= unlinkat(t->root_fd, name, 0);
	if (t->made_exec)
		r |= unlinkat(t->root_fd, t->name, 0);
	if (t->made_run)
		r |= unlinkat(t->root_fd, "run", AT_REMOVEDIR);
	if (t->made_dev) {
		_cleanup_fd_ int dev = open_in(t->root_fd, "dev", DIR_FLAGS, 0);
		_cleanup_fd_ int net = dev < 0 ? -1 : open_in(dev, "net", DIR_FLAGS, 0);

		if (net >= 0)
			unlinkat(net, "tun", 0);
		for (unsigned i = 0; dev >= 0 && i < ARRAY_SIZE(devices); i++)
			unlinkat(dev, devices[i], 0);
		if (dev >= 0)
			unlinkat(dev, "net", AT_REMOVEDIR);
		r |= unlinkat(t->root_fd, "dev", AT_REMOVEDIR);
	}
	if (t->made_root)
		r |= unlinkat(t->id_fd, "root", AT_REMOVEDIR);
	if (t->made_id)
		r |= unlinkat(t->name_fd, spec->id, AT_REMOVEDIR);
	return r == 0;
}
