# SPDX-License-Identifier: Apache-2.0
"""Firecracker's jailer command line: a probe as the monitor tells what it sees and can do.

Cases carry the ids J01-J15. All need root, in a mount namespace that may make device nodes.
"""
import contextlib
import ctypes
import multiprocessing
import shlex
import stat

from vm import *

PROBE = os.path.join(BUILD, 'tests', 'e2e', 'jail_probe')
STEP = os.path.join(BUILD, 'tests', 'e2e', 'step')
UID, GID = 4001, 4002
DEVICES = {'/dev/net/tun': '10:200', '/dev/kvm': '10:232', '/dev/urandom': '1:9'}
CLONE_NEWNET = 0x40000000
SYS_ADD_KEY, SYS_KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, KEYCTL_SEARCH = 248, 250, 1, 10
KEY_SPEC_SESSION_KEYRING = -3
libc = ctypes.CDLL(None, use_errno=True)


class Jail:
    """A base directory that others may enter, as /srv/jailer is, and one jail in it."""

    def __init__(self, id='j', exec_file=PROBE):
        if os.geteuid() != 0:
            raise Skip('needs root')
        self.base = tempfile.mkdtemp(prefix='jails-', dir='/tmp')
        os.chmod(self.base, 0o755)
        self.id = id
        self.exec_file = exec_file
        self.root = os.path.join(self.base, os.path.basename(exec_file), id, 'root')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.base, ignore_errors=True)

    def words(self, *extra):
        return ['jailer', '--id', self.id, '--exec-file', self.exec_file, '--uid', UID,
                '--gid', GID, '--chroot-base-dir', self.base, *extra]

    def run(self, *extra, **kw):
        return kelvin(*self.words(*extra), **kw)

    def refused(self, *extra, **kw):
        return refused(*self.words(*extra), **kw)

    def clear(self):
        for name in os.listdir(self.base):
            shutil.rmtree(os.path.join(self.base, name))

    def output(self):
        """What a probe said that was told --output /run/out."""
        path = os.path.join(self.root, 'run', 'out')
        wait_until(lambda: os.path.exists(path) and 'end' in open(path).read(), what=path)
        with open(path) as f:
            return told(f.read())

    def gone(self):
        return not os.path.lexists(os.path.join(self.base, os.path.basename(self.exec_file), self.id))


def told(text):
    """The probe's answer: what it says once, and lists of the rest."""
    seen = {'arg': [], 'env': [], 'file': {}, 'try': {}}
    for line in text.splitlines():
        key, _, rest = line.partition(' ')
        if key in ('arg', 'env'):
            seen[key].append(rest)
        elif key in ('file', 'try'):
            name, _, value = rest.partition(' ')
            seen[key][name] = value
        else:
            seen[key] = rest
    assert 'end' in seen, text
    return seen


def probe(jail, *extra, **kw):
    r = jail.run(*extra, **kw)
    assert r.code == 0 and r.err == '', r
    return told(r.out)


def test_jail_J06_ids_capabilities_environment():
    with Jail() as j:
        seen = probe(j, '--', '--api-sock', 'x y', env={**ENV, 'SECRET': 'password'})
        assert seen['uid'] == f'{UID} {UID} {UID}' and seen['gid'] == f'{GID} {GID} {GID}'
        assert seen['groups'] == '0'
        assert (seen['caps'], seen['bounding'], seen['ambient']) == ('0 0', '0', '0'), seen
        assert seen['no_new_privs'] == '1'
        assert seen['env'] == [] and seen['cwd'] == '/' and seen['umask'] == '77'
        for call in ('setuid', 'mount', 'umount', 'unshare', 'chroot'):
            assert seen['try'][call] == 'EPERM', seen['try']
        a = seen['arg']
        assert a[:3] == ['/jail_probe', '--id', 'j'] and a[-2:] == ['--api-sock', 'x y'], a
        assert a[3:9:2] == ['--start-time-us', '--start-time-cpu-us', '--parent-cpu-time-us'], a
        now = time.monotonic() * 1e6
        assert now - 60e6 < int(a[4]) < now and int(a[6]) < 1e6 and 0 < int(a[8]) < 1e6, a
        assert len(a) == 11


def test_jail_root_is_kept_by_uid_0():
    with Jail() as j:
        words = [0 if w in (UID, GID) else w for w in j.words()]
        r = kelvin(*words)
        assert r.code == 0 and 'warning' in r.err, r
        seen = told(r.out)
        assert (seen['caps'], seen['bounding']) == ('0 0', '0') and seen['uid'] == '0 0 0'


def test_jail_layout_and_J07_devices():
    with Jail() as j:
        seen = probe(j)
        files = seen['file']
        expected = dict(DEVICES)
        if os.path.exists('/dev/userfaultfd'):
            d = os.stat('/dev/userfaultfd').st_rdev
            expected['/dev/userfaultfd'] = f'{os.major(d)}:{os.minor(d)}'
        assert {n: v for n, v in files.items() if len(v.split()) == 3} == {
            n: f'20600 {UID}:{GID} {v}' for n, v in expected.items()}, files
        assert files['/jail_probe'] == '100555 0:0', files
        assert files['/jail_probe.pid'] == '100444 0:0'
        assert files['/run'] == f'40700 {UID}:{GID}'
        assert files['/dev'] == files['/dev/net'] == '40755 0:0'
        assert len(files) == len(expected) + 5, files
        assert seen['try']['mknod'] in ('EPERM', 'EACCES') and seen['try']['write-dev'] == 'EACCES'
        assert seen['try']['write-run'] == seen['try']['write-root'] == 'DONE'
        assert seen['try']['kvm'] == 'DONE'
        st = os.stat(j.root)
        assert (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (UID, GID, 0o700)
        with open(os.path.join(j.root, 'jail_probe.pid')) as f:
            assert f.read() == seen['pid']


def test_jail_command_line():
    with Jail() as j:
        assert ok('jailer', '--version').out.startswith('Jailer v')
        link = os.path.join(j.base, 'jailer')
        os.symlink(KELVIN, link)
        r = subprocess.run([link, *map(str, j.words()[1:]), '--', 'a'], capture_output=True,
                           text=True, env=ENV)
        assert r.returncode == 0 and told(r.stdout)['arg'][-1] == 'a', r
        j.id = 'equals'
        words = ['--id=equals', '--exec-file=' + PROBE, f'--uid={UID}', f'--gid={GID}',
                 '--chroot-base-dir=' + j.base]
        assert told(ok('jailer', *words).out)['arg'][2] == 'equals'
        for gone in ('--id', '--exec-file', '--uid', '--gid'):
            words = j.words()
            at = words.index(gone)
            refused(*words[:at], *words[at + 2:], code=2, says=gone + ' is missing')
        j.refused('--uid', '5', code=2, says='twice')
        j.refused('word', code=2, says='behind')
        j.refused('word', '--', 'word', code=2, says='behind')
        for bad in ('-1', '4294967295', '4294967296', 'root', '', '1x', '0x10'):
            words = j.words()
            words[words.index('--uid') + 1] = bad
            refused(*words, code=2, says='--uid')
        for bad in ('fsize', 'fsize=', 'fsize=-1', 'no-file=x', 'core=1', '=1', 'no-file=1=1'):
            j.refused('--resource-limit', bad, code=2, says='--resource-limit')
        for bad in ('3', '0', 'v2', ''):
            j.refused('--cgroup-version', bad, code=2, says='--cgroup-version')


def test_jail_J01_ids():
    with Jail() as j:
        for bad in ('', 'x' * 65, '..', '.', 'a/b', '/', '-a', '.a', 'a.b', 'a b', 'a\n', 'a_b',
                    '\u00e4'):
            j.id = bad
            j.refused(code=2, says='--id')
            assert os.listdir(j.base) == [], bad
        for good in ('x' * 64, 'A-z-0', '0'):
            j.id = good
            probe(j)


def prepare(j):
    j.clear()
    os.makedirs(j.root)


def test_jail_J02_what_exists_is_refused():
    with Jail() as j, tempfile.TemporaryDirectory() as outside:
        victim = os.path.join(outside, 'victim')
        with open(victim, 'w') as f:
            f.write('precious')
        os.chmod(victim, 0o644)
        before = os.stat(victim)

        def exists(name, make):
            prepare(j)
            make(os.path.join(j.root, name))
            j.refused(says=[name.split('/')[0], 'xist'])
            st = os.stat(victim)
            assert (st.st_mtime_ns, st.st_uid, st.st_mode, st.st_size) == (
                before.st_mtime_ns, before.st_uid, before.st_mode, 8), name
            assert os.listdir(j.root) == [name], os.listdir(j.root)  # what was made is gone

        def hard_link(path):
            os.link(victim, path)

        for name in ('jail_probe', 'dev', 'run', 'jail_probe.pid'):
            exists(name, lambda p: os.symlink(victim, p))
            exists(name, lambda p: os.symlink(outside, p))
            exists(name, lambda p: os.symlink('/nowhere', p))
            exists(name, hard_link)
            exists(name, os.mkfifo)
            exists(name, os.mkdir)
        assert os.listdir(outside) == ['victim']


def test_jail_prepared_by_root_alone():
    with Jail() as j:
        prepare(j)
        with open(os.path.join(j.root, 'vmlinux'), 'w') as f:
            f.write('x')
        os.symlink('/etc', os.path.join(j.root, 'link'))
        assert '/vmlinux' in probe(j)['file']
        for path in (j.root, os.path.dirname(j.root), os.path.dirname(os.path.dirname(j.root))):
            prepare(j)
            os.chown(path, UID, 0)
            j.refused(says=['exists', f'user {UID}'])
            os.chown(path, 0, 0)
            os.chmod(path, 0o775)
            j.refused(says='exists')
            os.chmod(path, 0o755)
            probe(j)
        for path in (j.root, os.path.dirname(j.root), os.path.dirname(os.path.dirname(j.root))):
            prepare(j)
            os.rename(path, j.base + '/real')
            os.symlink(j.base + '/real', path)
            j.refused()
            assert stat.S_ISLNK(os.lstat(path).st_mode)


def swap(root, base, sentinel, until):
    """Renames each component away and puts a link to @sentinel in its place, and back."""
    paths = [os.path.dirname(os.path.dirname(root)), os.path.dirname(root), root,
             os.path.join(root, 'dev'), os.path.join(root, 'run'), os.path.join(root, 'dev', 'net')]
    i = 0
    while time.monotonic() < until:
        path, away = paths[i % len(paths)], f'{base}/away'
        i += 1
        try:
            os.rename(path, away)
        except OSError:
            continue
        try:
            os.symlink(sentinel, path)
            os.unlink(path)
            os.rename(away, path)
        except OSError:
            shutil.rmtree(away, ignore_errors=True)


def test_jail_J03_renames_race():
    with Jail() as j, tempfile.TemporaryDirectory() as sentinel:
        for name in ('jail_probe', 'j', 'root', 'victim'):
            with open(os.path.join(sentinel, name), 'w') as f:
                f.write('precious')
        os.mkdir(os.path.join(sentinel, 'net'))

        def facts():
            return [(p, s.st_mtime_ns, s.st_ctime_ns, s.st_uid, s.st_mode)
                    for p in (sentinel, *(os.path.join(sentinel, n)
                                          for n in sorted(os.listdir(sentinel))))
                    for s in [os.lstat(p)]]

        before = facts()
        until = time.monotonic() + 4
        racer = multiprocessing.Process(target=swap, args=(j.root, j.base, sentinel, until))
        racer.start()
        codes = {0: 0, 1: 0}
        while time.monotonic() < until:
            r = j.run()
            codes[r.code] += 1
            if r.code == 0:
                assert told(r.out)['caps'] == '0 0'
            for name in os.listdir(j.base):
                shutil.rmtree(os.path.join(j.base, name), ignore_errors=True)
                with contextlib.suppress(OSError):  # the racer may have taken it away
                    os.unlink(os.path.join(j.base, name))
        racer.join()
        assert facts() == before
        assert codes[0] and codes[1], f'nothing was raced: {codes}'


def test_jail_J04_descriptors():
    with Jail() as j:
        r, w = os.pipe()
        d = os.open('/', os.O_RDONLY | os.O_DIRECTORY)
        seen = probe(j, pass_fds=(r, w, d))
        assert seen['fds'] == '0 1 2', seen['fds']
        j.clear()
        j.refused(stdin=d, says='stdin is a directory')
        assert os.listdir(j.base) == []
        for fd in (r, w, d):
            os.close(fd)
        words = map(str, [KELVIN, *j.words('--', '--output', '/run/out')])
        subprocess.run(['sh', '-c', shlex.join(words) + ' <&- >&- 2>&-'], env=ENV, check=True)
        assert j.output()['uid'].startswith(str(UID))


def test_jail_J05_binary_is_a_copy():
    with Jail() as j:
        seen = probe(j)
        copy, source = os.stat(os.path.join(j.root, 'jail_probe')), os.stat(PROBE)
        assert copy.st_ino != source.st_ino and copy.st_nlink == 1
        assert (copy.st_uid, stat.S_IMODE(copy.st_mode)) == (0, 0o555)
        with open(PROBE, 'rb') as a, open(os.path.join(j.root, 'jail_probe'), 'rb') as b:
            assert a.read() == b.read()
        assert seen['try']['write-self'] == 'EACCES' and seen['try']['chmod-self'] == 'EPERM'
        assert seen['try']['proc'] == 'ENOENT'


CGROUPS = '/sys/fs/cgroup'


def group_dirs(parent):
    return [os.path.join(d, parent) for d in [CGROUPS, *(os.path.join(CGROUPS, c)
            for c in os.listdir(CGROUPS))] if os.path.isdir(os.path.join(d, parent))]


def test_jail_J08_cgroup():
    if not os.access(CGROUPS, os.W_OK) or not os.listdir(CGROUPS):
        raise Skip('no cgroups here')
    parent = f'jail-test-{os.getpid()}'
    try:
        with Jail() as j:
            words = ['--cgroup', 'memory.max=64M', '--cgroup', 'pids.max=9', '--parent-cgroup',
                     parent, '--daemonize', '--', '--output', '/run/out', 'sleep']
            r = j.run(*words)
            assert r.code == 0, r
            with open(os.path.join(j.root, 'jail_probe.pid')) as f:
                pid = int(f.read())
            with open(f'/proc/{pid}/cgroup') as f:
                mine = [line for line in f.read().splitlines() if f'/{parent}/j' in line]
            j.output()
            try:
                assert mine, 'in no cgroup of its own'
                limits = [os.path.join(d, 'j', 'pids.max') for d in group_dirs(parent)]
                assert '9\n' in [open(p).read() for p in limits if os.path.exists(p)]
                # The name is taken while it lives: nothing is changed for it.
                shutil.rmtree(j.root)
                shutil.rmtree(os.path.dirname(j.root))
                j.refused(*words, says=[f'{parent}/j', 'processes'])
                assert j.gone()
            finally:
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not os.path.exists(f'/proc/{pid}'))
            wait_until(lambda: j.run('--cgroup', 'pids.max=9', '--parent-cgroup', parent).code == 0)
            j.clear()
            for bad in ('../x', '/x', 'a/../../x', '', 'a//b'):
                j.refused('--parent-cgroup', bad, code=2, says='--parent-cgroup')
            for bad in ('cgroup.procs=1', '../../x.y=1', 'memory.max', 'a/b.c=1', '=1'):
                j.refused('--cgroup', bad, code=2, says='--cgroup')
            j.id = 'bad'
            j.refused('--cgroup', 'pids.max=many', '--parent-cgroup', parent, says='pids.max=many')
            j.refused('--cgroup', 'nosuch.max=1', '--parent-cgroup', parent, says='not mounted')
            assert j.gone()
            assert all(not os.path.exists(os.path.join(d, 'bad')) for d in group_dirs(parent))
    finally:
        for d in group_dirs(parent):
            for below in os.listdir(d):
                if os.path.isdir(os.path.join(d, below)):
                    os.rmdir(os.path.join(d, below))
            os.rmdir(d)


def namespaces_of(pid):
    return {n: os.readlink(f'/proc/{pid}/ns/{n}') for n in ('mnt', 'ipc', 'uts', 'net', 'pid')}


def test_jail_namespaces_and_mounts():
    with Jail() as j:
        r = j.run('--daemonize', '--new-pid-ns', '--', '--output', '/run/out', 'sleep')
        assert r.code == 0 and r.out == r.err == '', r
        with open(os.path.join(j.root, 'jail_probe.pid')) as f:
            pid = int(f.read())
        try:
            seen = j.output()
            assert seen['pid'] == '1' and seen['sid'] == '1', seen
            mine, its = namespaces_of('self'), namespaces_of(pid)
            assert {n for n in mine if mine[n] == its[n]} == {'net'}, (mine, its)
            with open(f'/proc/{pid}/mountinfo') as f:
                mounts = f.read().splitlines()
            assert len(mounts) == 1 and mounts[0].split()[4] == '/', mounts
            assert 'shared:' not in mounts[0] and 'master:' not in mounts[0]
            for fd in (0, 2):  # stdout is where the probe was told to write
                assert os.readlink(f'/proc/{pid}/fd/{fd}').endswith('/null')
            assert seen['fds'] == '0 1 2'
        finally:
            os.kill(pid, signal.SIGKILL)


def test_jail_J09_classics():
    with Jail() as j, socket.socket(socket.AF_UNIX) as s:
        name = f'kelvin-{os.getpid()}'
        s.bind('\0' + name)
        s.listen(1)
        ready, hold = os.pipe()
        other = os.fork()
        if other == 0:
            libc.unshare(CLONE_NEWNET)
            os.setresuid(UID + 1, UID + 1, UID + 1)
            os.write(hold, b'x')
            time.sleep(60)
            os._exit(0)
        os.read(ready, 1)
        try:
            words = ['--', '--other', other, '--abstract', name]
            tried = probe(j, *words)['try']
            assert tried['ptrace'] == tried['kill'] == 'EPERM', tried
            assert tried['chroot'] == 'EPERM' and tried['up'] == 'ENOENT'
            assert tried['abstract'] == 'DONE'  # in the host's network, as --netns was not asked
            j.clear()
            tried = probe(j, '--netns', f'/proc/{other}/ns/net', *words)['try']
            assert tried['abstract'] == 'ECONNREFUSED', tried
            j.clear()
            j.run('--new-pid-ns', *words[:3], '--abstract', name, '--output', '/run/out')
            tried = j.output()['try']
            assert tried['ptrace'] == tried['kill'] == 'ESRCH', tried
        finally:
            os.kill(other, signal.SIGKILL)
            os.waitpid(other, 0)
            os.close(ready)
            os.close(hold)


def in_session_with_a_key():
    libc.syscall(SYS_KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, None)
    if libc.syscall(SYS_ADD_KEY, b'user', b'kelvin-secret', b'x', ctypes.c_size_t(1),
                    KEY_SPEC_SESSION_KEYRING) < 0:
        os._exit(77)
    if libc.syscall(SYS_KEYCTL, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, b'user',
                    b'kelvin-secret', 0) < 0:
        os._exit(78)


def test_jail_session_keys_stay_outside():
    with Jail() as j:
        r = j.run(preexec_fn=in_session_with_a_key)
        if r.code == 77:
            raise Skip('no keys in this kernel')
        assert r.code == 0, r
        assert told(r.out)['try']['key'] == 'ENOKEY', r


def test_jail_J10_resource_limits():
    with Jail() as j:
        seen = probe(j)
        assert seen['nofile'] == '2048 2048' and seen['core'] == '0 0' and seen['fsize'] == '-1 -1'
        j.clear()
        r = j.run('--resource-limit', 'fsize=8192', '--resource-limit', 'no-file=100', '--', 'fill')
        seen = told(r.out)
        assert seen['nofile'] == '100 100' and seen['fsize'] == '8192 8192', seen
        assert r.code == -signal.SIGXFSZ, r.code
        assert os.stat(os.path.join(j.root, 'run', 'fill')).st_size == 8192
        j.clear()
        # Less than a pid file has: the tree is made before.
        assert j.run('--resource-limit', 'fsize=0', '--', 'fill').code == -signal.SIGXFSZ
        with open(os.path.join(j.root, 'jail_probe.pid')) as f:
            assert int(f.read()) > 1


def as_user():
    os.setgroups([])
    os.setresgid(GID, GID, GID)
    os.setresuid(UID, UID, UID)


def test_jail_J11_not_root():
    with Jail() as j, tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        copy = shutil.copy(KELVIN, place)
        os.chmod(copy, 0o755)
        r = subprocess.run([copy, *map(str, j.words())], preexec_fn=as_user, capture_output=True,
                           text=True, env=ENV)
        assert r.returncode == 1 and r.stderr == 'kelvin: the jailer must be started by root\n', r


def test_jail_J12_left_by_a_crash():
    with Jail() as j:
        probe(j)
        before = sorted(os.listdir(j.root))
        j.refused(says=['exists', 'in use'])
        assert sorted(os.listdir(j.root)) == before
        os.chown(j.root, 0, 0)
        j.refused(says='xist')


def tree(root):
    """What a jail is made of, as root sees it."""
    found = {}
    for base, dirs, files in os.walk(root):
        for name in [*dirs, *files]:
            st = os.lstat(os.path.join(base, name))
            size = st.st_size if stat.S_ISREG(st.st_mode) and not name.endswith('.pid') else 0
            found[os.path.relpath(os.path.join(base, name), root)] = (st.st_mode, st.st_uid,
                                                                    st.st_gid, st.st_rdev, size)
    return found


def within_reach(root):
    """Whether the uid can see into it."""
    pid = os.fork()
    if pid == 0:
        try:
            as_user()
            os.listdir(root)
            os._exit(1)
        except OSError:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def step(how, who, n, words):
    return Result(subprocess.run([STEP, str(how), who, str(n), KELVIN, *map(str, words)],
                                 capture_output=True, env=ENV, timeout=60,
                                 stdin=subprocess.DEVNULL))


def processes_of(id):
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/cmdline', 'rb') as f:
                if id.encode() in f.read().split(b'\0'):
                    found.append(int(pid))
        except OSError:
            pass
    return found


def needs_steps():
    if SANITIZED:
        raise Skip('too many steps under sanitizers')


def kill_sweep(who, *opts):
    needs_steps()
    with Jail(f'stepped-{os.getpid()}') as j:
        probe_files = {'deeper', 'x', 'run/x', 'run/out'}
        j.run()
        whole = {n: v for n, v in tree(j.root).items() if n not in probe_files}
        n = published = hidden = 0
        while True:
            n += 1
            j.clear()
            r = step('kill', who, n, j.words(*opts, '--', '--output', '/run/out'))
            if r.code == 99:
                break
            assert r.code == 128 + signal.SIGKILL, (n, r)
            if within_reach(j.root):
                published += 1
                now = {p: v for p, v in tree(j.root).items() if p not in probe_files}
                assert now == whole, f'killed at call {n}, the uid reaches half a jail: {now}'
            elif os.path.exists(j.root):
                hidden += 1
                assert within_reach(j.base), 'the test cannot see anything'
            wait_until(lambda: not processes_of(j.id), what=f'the end of all, after call {n}')
        assert n > 20 and published and (hidden or who == 'child'), (n, published, hidden)


def test_jail_J13_killed_at_each_step():
    kill_sweep('parent')


def test_jail_J13_killed_at_each_step_with_a_child():
    kill_sweep('parent', '--new-pid-ns', '--daemonize')


def test_jail_J13_child_killed_at_each_step():
    kill_sweep('child', '--new-pid-ns')


def fault_sweep(error, who, *opts):
    """Whatever call fails: either one line and nothing left, or the monitor in a whole jail."""
    needs_steps()

    def facts(seen):
        same = {k: v for k, v in seen.items() if k not in ('pid', 'sid', 'arg')}
        return {**same, 'arg': [a for a in seen['arg'] if not a.isdigit()]}

    with Jail(f'stepped-{os.getpid()}') as j:
        expected = facts(probe(j))
        n = failed = silent = 0
        while True:
            n += 1
            j.clear()
            r = step(error, who, n, j.words(*opts))
            if r.code == 99:
                break
            if 'end' in r.out:
                seen = facts(told(r.out))
                assert seen == expected, (n, [(k, seen[k], expected[k]) for k in seen
                                              if seen[k] != expected[k]])
                continue
            if r.code == 127 or r.code > 128:
                continue  # libc could not even start
            failed += 1
            assert r.code in (1, 2), f'call {n}: {r}'
            if not r.err and j.gone() and silent < 4:
                silent += 1  # stdin, stdout and stderr are not known to be there
                continue
            assert r.err.startswith('kelvin') and r.err.count('\n') == 1, f'call {n}: {r}'
            assert j.gone() or 'is left' in r.err, f'call {n}: {r}'
            assert not within_reach(j.root) or 'is left' in r.err, f'call {n}: {r}'
        assert failed > 20, failed


def test_jail_faults():
    fault_sweep(22, 'parent')


def test_jail_faults_denied():
    fault_sweep(1, 'parent')


def test_jail_faults_with_a_child():
    fault_sweep(22, 'parent', '--new-pid-ns')


def test_jail_faults_in_the_child():
    fault_sweep(1, 'child', '--new-pid-ns')


def sentinel(name):
    path = os.path.join(TMP, name)
    os.chmod(TMP, 0o755)
    with open(path, 'w') as f:
        f.write('sentinel')
    os.chmod(path, 0o666)
    return path


def in_jail(j):
    return {**ENV, 'KELVIN_RUN_DIR': os.path.join(j.root, 'run', 'kelvin')}


@contextlib.contextmanager
def jail_with_a_guest(id):
    """One in which kelvin can run echo.elf, and the path of a log that its user may replace."""
    if SANITIZED:
        raise Skip('kelvin is not static under sanitizers')
    with Jail(id, KELVIN) as j:
        os.makedirs(j.root)
        shutil.copy(guest('echo'), j.root)
        yield j, os.path.join(j.root, 'log')


def test_jail_J14_log_is_a_symlink():
    """From inside, it leads to nothing that is outside."""
    outside = sentinel('j14-outside')
    with jail_with_a_guest('j14') as (j, log):
        os.symlink(outside, log)
        r = j.run('--', 'run', '--log', 'log', 'echo.elf')
        assert r.code == 1 and 'cannot open the log' in r.err, r
        assert open(outside).read() == 'sentinel'


def test_jail_J14_log_replaced_by_a_symlink():
    """It is a FIFO, as Firecracker's users have it, which somebody swaps while the VM runs."""
    outside = sentinel('j14-outside')
    with jail_with_a_guest('j14') as (j, log):
        os.mkfifo(log)
        os.chown(log, UID, GID)
        reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
        r = j.run('--daemonize', '--', 'run', '--log', 'log', 'echo.elf')
        assert r.code == 0 and r.err == '', r
        wait_until(lambda: kelvin('ps', env=in_jail(j)).out.count('j14') == 1, what='a VM')
        os.unlink(log)
        os.symlink(outside, log)
        ok('stop', 'j14', env=in_jail(j))
        said = os.read(reader, 65536)
        os.close(reader)
        assert b'booted' in said and b'stop' in said, said
        assert open(outside).read() == 'sentinel'


def test_jail_J15_inputs_are_what_they_should_be():
    with Jail() as j:
        fifo, text = os.path.join(j.base, 'fifo'), os.path.join(j.base, 'text')
        os.mkfifo(fifo)
        with open(text, 'w') as f:
            f.write('#!/bin/sh\n')
        for bad, says in ((fifo, 'no program'), (j.base, 'no program'), ('/dev/null', 'no program'),
                          (text, 'no program'), (j.base + '/nowhere', 'cannot find'), ('', '')):
            words = j.words()
            words[words.index(PROBE)] = bad
            refused(*words, says=says)
        words = j.words()
        words[words.index(j.base)] = text
        refused(*words, says='Not a directory')
        words[words.index(text)] = j.base + '/nowhere'
        refused(*words, says='No such file')
        j.refused('--netns', text, says='network namespace')
        j.refused('--netns', fifo, says='network namespace')
        j.refused('--netns', '/proc/self/ns/mnt', says='network namespace')
        assert j.gone()
        os.chmod(text, 0o755)
        j.exec_file = os.path.join(j.base, 'bin', 'text')
        os.mkdir(os.path.dirname(j.exec_file))
        os.rename(text, j.exec_file)
        j.refused(says=['cannot execute /text', 'is left'])
        # The operator's own links are followed; the jail is named after what they lead to.
        link = os.path.join(j.base, 'link')
        os.symlink(PROBE, link)
        os.symlink(j.base, j.base + '/there')
        words = j.words()
        words[words.index(j.exec_file)] = link
        words[words.index(j.base)] = j.base + '/there'
        assert told(ok(*words).out)['arg'][0] == '/jail_probe'


def test_jail_reports_a_child_that_cannot_start():
    with Jail() as j:
        os.mkdir(j.base + '/bin')
        script = os.path.join(j.base, 'bin', 'script')
        with open(script, 'w') as f:
            f.write('#!/bin/sh\n')
        os.chmod(script, 0o755)
        j.exec_file = script
        for opts in (['--daemonize'], ['--new-pid-ns'], ['--daemonize', '--new-pid-ns']):
            j.refused(*opts, says='cannot execute /script')
            assert j.gone()


def test_jail_kelvin_as_the_monitor():
    with jail_with_a_guest('k1') as (j, _):
        r = j.run('--daemonize', '--cgroup-version', '2', '--', 'run', 'echo.elf')
        assert r.code == 0 and r.err == '', r
        inside = in_jail(j)
        wait_until(lambda: kelvin('ps', env=inside).out.count('k1') == 1, what='a VM in the jail')
        with open(os.path.join(j.root, 'kelvin.pid')) as f:
            pid = int(f.read())
        with open(f'/proc/{pid}/status') as f:
            assert f'Uid:\t{UID}\t{UID}\t{UID}\t{UID}\n' in f.read()
        ok('stop', 'k1', env=inside)
        wait_until(lambda: not os.path.exists(f'/proc/{pid}'))
