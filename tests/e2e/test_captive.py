# SPDX-License-Identifier: Apache-2.0
"""A monitor that its guest has taken over: what it tries, and what it gets.

`captive` is kelvin with attacker's code in it (attack.c), which runs once in a thread of a VM that
is jailed and filtered as any. Each attack is made by a vCPU thread and by the main one, with the
filters on, and with --seccomp=off, where the rest of the jail must hold without them. KELVIN_SHOW=1
prints each attack and its verdict.
"""
import collections
import concurrent.futures
import contextlib
import ctypes
import errno
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import termios
import time

import vm
from test_jail import cgroups, status
from vm import *

CAPTIVE = os.path.join(BUILD, 'tests', 'e2e', 'captive')
STEP = os.path.join(BUILD, 'tests', 'e2e', 'step')
THREADS = ('vcpu', 'loop')
KILLED = 128 + signal.SIGSYS
AT_ONCE = 6
USER = 54321
SYS_ADD_KEY, SYS_KEYCTL, SESSION_KEYRING = 248, 250, -3

# What may succeed without filters, and why it gives nothing that the guest has not already.
HARMLESS = {
    'add-key': 'in the keyring of its own user, which nobody else has',
    'affinity': 'more time on processors that it may use anyway: its cgroup says how much',
    'clone-user': 'capabilities over what is in there, which is nothing: inside-user',
    'clone3-user': 'the same',
    'dumpable': 'so that others of its user may trace it: there are none',
    'execveat-memfd': 'a program with no more rights than this one has',
    'io-uring-setup': 'operations that its rights deny are denied by a ring, too',
    'kvm-create-vm': 'a VM in its own memory, under its own limits',
    'listen': 'in a network where nobody else is',
    'memfd': 'memory of its own, under its own limit',
    'mlockall': 'as much as RLIMIT_MEMLOCK says',
    'mmap-exec': 'it can run what code it likes, which is the premise here',
    'mprotect-exec': 'the same',
    'pdeathsig': 'it outlives a keeper that is killed, in its jail; kelvin kill ends it',
    'perf-own': 'counters of its own threads, in user mode',
    'personality': 'for programs that it starts',
    'socketpair': 'with nobody at the other end but itself',
    'thread': 'one more of its own, in the same jail and under the same limits',
    'userfaultfd-own': 'its own faults, in user mode',
}
# The same where the VM has no user of its own.
HARMLESS_OF_A_USER = dict(HARMLESS, **{
    'mq-open': 'in an ipc namespace of its own',
    'msgget': 'in an ipc namespace of its own',
    'nice-user': 'of those in its pid namespace; untouched() looks at the other VM',
    'semget': 'in an ipc namespace of its own',
    'setuid-vm': 'it is that user',
    'shmget': 'in an ipc namespace of its own',
})
# Does not come back, or has tests of its own below.
ELSEWHERE = re.compile('keeper-|client-|ghost|pid-|inherited|tioc|tty-|report|fill-log|eat-')

Prize = collections.namedtuple('Prize', 'env secret root tcp path abstract vsock vm pid keeper uid')


def libc_call(*args):
    return ctypes.CDLL(None, use_errno=True).syscall(*args)


def put(name, text, mode):
    path = os.path.join(TMP, name)
    with open(path, 'w') as f:
        f.write(text)
    os.chmod(path, mode)
    return path


def listener(family, address):
    s = socket.socket(family)
    s.bind(address)
    s.listen()
    s.setblocking(False)
    return s


@contextlib.contextmanager
def prizes():
    """All that there is to be had on a host, untouched in the end."""
    p = lay_out()
    try:
        yield p
        untouched(p)
        ok('stop', p.vm)
    finally:
        for s in (p.tcp, p.path, p.abstract, p.vsock):
            if s:
                s.close()
        os.unlink(p.env['KELVIN_PRIZE_SOCK'])


def lay_out():
    os.chmod(TMP, 0o755)
    secret, root = put('secret', 'all may read this', 0o666), put('root', 'root may', 0o600)
    path, name = os.path.join(TMP, 'prize.sock'), f'kelvin-prize-{os.getpid()}'
    tcp = listener(socket.AF_INET, ('127.0.0.1', 0))
    unix = listener(socket.AF_UNIX, path)
    os.chmod(path, 0o777)
    abstract = listener(socket.AF_UNIX, '\0' + name)
    try:
        vsock = listener(socket.AF_VSOCK, (socket.VMADDR_CID_ANY, 0x6b65))
    except OSError:
        vsock = None
    libc_call(SYS_KEYCTL, 1, None)  # a session's keyring, as a login makes one
    libc_call(SYS_ADD_KEY, b'user', b'kelvin-prize', b'key', 3, SESSION_KEYRING)
    id = start('echo', id='prize')
    pid, keeper = pid_of(id), keeper_of(id)
    uid = int(status(pid)['Uid'].split()[0])
    told = {'SECRET': secret, 'ROOT': root, 'SOCK': path, 'NAME': name,
            'API': vm_path(id, 'api.sock'), 'PORT': tcp.getsockname()[1], 'VSOCK': 0x6b65,
            'VM': pid, 'KEEPER': keeper, 'VM_UID': uid}
    env = dict(ENV, **{f'KELVIN_PRIZE_{k}': str(v) for k, v in told.items()})
    return Prize(env, secret, root, tcp, unix, abstract, vsock, id, pid, keeper, uid)


@contextlib.contextmanager
def an_ordinary_user():
    """All that is started is his, as are the VMs; /dev/kvm is open to him, and to nobody else."""
    place = os.path.join(TMP, 'user')
    os.makedirs(place, exist_ok=True)
    os.chmod(TMP, 0o755)
    script = put('as-user', '#!/bin/sh -e\n'
                 f'[ -e {place}/kvm ] || mknod -m 666 {place}/kvm c 10 232\n'
                 f'mount --bind {place}/kvm /dev/kvm\n'
                 f'exec setpriv --reuid={USER} --regid={USER} --clear-groups "$@"\n', 0o755)
    wrapper = put('kelvin-as-user', f'#!/bin/sh\nexec unshare -m {script} {KELVIN} "$@"\n', 0o755)
    os.chown(place, USER, USER)
    before = vm.KELVIN, vm.RUN_DIR, dict(ENV)
    vm.KELVIN, vm.RUN_DIR = wrapper, os.path.join(place, 'run')
    ENV.update(KELVIN_RUN_DIR=vm.RUN_DIR, XDG_CACHE_HOME=place)
    try:
        yield ['unshare', '-m', script]
    finally:
        kill_all()
        vm.KELVIN, vm.RUN_DIR, env = before
        ENV.update(env)


def processes_with(uids):
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            if status(pid)['Uid'].split()[0] in uids:
                found.append(pid)
        except (OSError, KeyError):
            pass
    return found


def untouched(p, uids=()):
    """Nobody was here."""
    assert open(p.secret).read() == 'all may read this' and open(p.root).read() == 'root may'
    assert os.stat(p.secret).st_mode & 0o7777 == 0o666 and os.stat(p.root).st_uid == 0
    for s in (p.tcp, p.path, p.abstract, p.vsock):
        try:
            if s:
                s.accept()
                raise AssertionError(f'somebody came to {s}')
        except BlockingIOError:
            pass
    assert pid_of(p.vm) == p.pid and alive(p.pid) and alive(p.keeper)
    assert os.getpriority(os.PRIO_PROCESS, p.pid) == os.getpriority(os.PRIO_PROCESS, 0)
    assert fields(ask_once(p.vm, 'x'))['count']
    assert running_ids() == [p.vm], running_ids()
    wait_until(lambda: not processes_with(uids), what=f'the end of all of {uids}')


def captive(p, name, thread, *opts, verb='run', last=(), prefix=(), **kw):
    env = dict(p.env, KELVIN_ATTACK=name, KELVIN_ATTACK_THREAD=thread)
    words = [*prefix, CAPTIVE, verb, *map(str, opts), *(last or [guest('hello')])]
    return Result(subprocess.run(words, env=env, capture_output=True, timeout=60,
                                 stdin=subprocess.DEVNULL, start_new_session=True, **kw))


def verdict(r, name, thread):
    """What came of the attack: "killed", "GOT it", "denied by EPERM"."""
    assert f'attack {name} {thread}: begins' in r.err, f'{name} was not made: {r}'
    found = re.search(f'attack {name} {thread}: ((GOT|denied).*)', r.err)
    if found and r.code >= 0:
        return found[1]
    if r.code == KILLED and 'a system call that its filter does not allow' in r.err:
        return 'killed'
    return f'exit {r.code}'


def attacks():
    done = subprocess.run([CAPTIVE, 'attacks'], capture_output=True, text=True, check=True)
    return done.stdout.split()


def all_of(p, mode, **kw):
    """Makes all attacks. Returns {(name, thread): verdict}"""
    names = [n for n in attacks() if not ELSEWHERE.match(n)]
    uids = []

    def one(job):
        number, (name, thread) = job
        uid = 0x60000000 + number
        own = ()
        if not kw:
            uids.append(str(uid))
            own = ('--jail-uid', uid)
        r = captive(p, name, thread, f'--seccomp={mode}', '--id', f'a{number}', '--memory', '16M',
                    *own, **kw)
        return (name, thread), verdict(r, name, thread)

    jobs = enumerate((n, t) for n in names for t in THREADS)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        seen = dict(pool.map(one, jobs))
    untouched(p, uids)
    return seen


def judge(seen, allowed):
    got = {k: v for k, v in seen.items() if not v.startswith('denied by ') and v != 'killed' and
           k[0] not in allowed}
    assert not got, '\n'.join(f'{" ".join(k)}: {v}' for k, v in sorted(got.items()))
    if os.environ.get('KELVIN_SHOW'):
        for (name, thread), v in sorted(seen.items()):
            print(f'# {name:20} {thread:5} {v}')


def test_a_captive_with_filters():
    if SANITIZED:
        raise Skip('sanitizers need more system calls')
    with prizes() as p:
        seen = all_of(p, 'on')
        judge(seen, {})
        assert len([v for v in seen.values() if v == 'killed']) > len(seen) * 3 // 4, seen


def test_a_captive_without_filters():
    with prizes() as p:
        seen = all_of(p, 'off')
        judge(seen, HARMLESS)
        idle = [n for n in HARMLESS if not any(seen[n, t].startswith('GOT') for t in THREADS)]
        print(f'# harmless, and denied here all the same: {" ".join(idle) or "none"}')


def test_a_captive_of_an_ordinary_user():
    """He shares his user id with his other VMs, and with their keepers."""
    with an_ordinary_user() as prefix:
        r = kelvin('run', guest('hello'))
        if r.code:
            raise Skip(f'he cannot start a VM: {r.err.strip()}')
        with prizes() as p:
            assert p.uid == USER
            if not SANITIZED:
                judge(all_of(p, 'on', prefix=prefix), {})
            judge(all_of(p, 'off', prefix=prefix), HARMLESS_OF_A_USER)


def test_a_restored_captive():
    with prizes() as p, concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        d = fresh_dir('captive')
        ok('snapshot', p.vm, d)

        def one(job):
            number, (mode, name, thread) = job
            r = captive(p, name, thread, f'--seccomp={mode}', '--id', f'r{number}', '--timeout',
                        '500ms', verb='restore', last=[d])
            return (f'{name} {mode}', thread), verdict(r, name, thread)

        jobs = enumerate((m, n, t) for m in (('off',) if SANITIZED else ('on', 'off'))
                         for n in ('open', 'unix-abstract', 'setuid', 'kill-vm', 'ring-openat')
                         for t in THREADS)
        judge(dict(pool.map(one, jobs)), {})


def test_a_captive_that_lies_to_its_keeper():
    """The keeper lives on, says how it ended, and removes this VM's directory and no other."""
    names = [n for n in attacks() if n.startswith('keeper-')]
    with prizes() as p, concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        def one(job):
            number, (name, thread) = job
            r = captive(p, name, thread, '--id', f'l{number}', '--memory', '16M')
            assert f'attack {name} {thread}: begins' in r.err, r
            assert r.code in (0, 1, 128 + signal.SIGKILL, KILLED), (name, thread, r)
            assert 'Sanitizer' not in r.err, r
            return name, thread, r.code

        ends = list(pool.map(one, enumerate((n, t) for n in names for t in THREADS)))
        codes = {(n, t): c for n, t, c in ends}
        for name in ('short', 'unknown', 'answer', 'flood', 'here-again'):
            assert codes[f'keeper-{name}', 'loop'] == 128 + signal.SIGKILL, codes
        assert codes['keeper-dial-0', 'vcpu'] == 0, codes


def left_behind(p, name):
    """A detached VM that said so when it ended. Returns how the start went."""
    r = captive(p, name, 'loop', '--id', 'left', '--memory', '16M', '--detach', '--wait-ready')
    wait_until(lambda: not os.path.exists(vm_path('left', 'pid')), what='its end')
    return r


def test_a_captive_that_leaves_rubbish():
    with prizes() as p:
        for name in ('keeper-bye-rubbish', 'keeper-bye-too-much', 'keeper-bye-escape'):
            r = left_behind(p, name)
            assert '\x1b' not in r.err, r
            assert 0 < os.path.getsize(vm_path('left', 'exit.json')) <= 16384, name
            for words in (('ps', '--all'), ('ps', '--all', '--json'), ('inspect', 'left'),
                          ('inspect', '--json', 'left'), ('gc', '--ended')):
                assert '\x1b' not in ok(*words).out
            assert running_ids() == [p.vm]


def by_uid(uid):
    return [int(i) for i in processes_with([str(uid)])]


def test_a_captive_with_another_pid_in_its_file():
    with prizes() as p:
        for number, name in enumerate(('pid-file', 'pid-file-all')):
            for thread in ('loop',):
                uid = 0x60001000 + number
                r = captive(p, name, thread, '--id', 'liar', '--detach', '--wait-ready',
                            '--jail-uid', uid, last=[guest('echo')])
                assert r.code == 0, r
                for words in (('stop', 'liar'), ('kill', 'liar'), ('ps',), ('gc',)):
                    kelvin(*words, timeout=30)
                    assert alive(p.pid) and alive(p.keeper), words
                for pid in by_uid(uid):
                    with contextlib.suppress(ProcessLookupError):  # it is just ending
                        os.kill(pid, signal.SIGKILL)
                wait_until(lambda: not by_uid(uid), what='end')

                def gone():
                    kelvin('gc', '--ended')  # its keeper may write its report only now
                    return running_ids() == [p.vm]
                wait_until(gone, what='no trace')


def test_a_captive_that_lies_to_verbs():
    """They end in time, print nothing that a terminal obeys, and find the other VM as ever."""
    names = [n for n in attacks() if n.startswith('client-')]
    with prizes() as p, concurrent.futures.ThreadPoolExecutor(40) as pool:
        for n, name in enumerate(names):
            r = captive(p, name, 'loop', '--seccomp=off', '--detach', '--wait-ready', '--memory',
                        '16M', '--id', f'c{n}', last=[guest('echo')])
            assert r.code == 0, (name, r)

        def one(words):
            begin = time.monotonic()
            r = kelvin(*words, timeout=50)
            assert 'Sanitizer' not in r.err and r.code >= 0, (words, r)
            assert not re.search(r'[\x00-\x08\x0b-\x1f]', r.out + r.err), (words, r)
            return ' '.join(words), time.monotonic() - begin

        verbs = [('ps',), ('ps', '--json')] + [(v, f'c{n}') for v in ('inspect', 'stats', 'pause')
                                               for n in range(len(names))]
        slow = [t for t in pool.map(one, verbs) if t[1] > 40]
        assert not slow, slow
        rows = json.loads(ok('ps', '--json').out)
        wanted = {p.vm, *(f'c{n}' for n in range(len(names)))}
        assert len(rows) == len(wanted) and {v['id'] for v in rows} == wanted, rows
        assert all(v['pid'] == pid_of(v['id']) for v in rows), rows
        for n in range(len(names)):
            kelvin('kill', f'c{n}')  # it and the keeper may be in each other's way
        wait_until(lambda: running_ids() == [p.vm] or kelvin('gc', '--ended') is None,
                   what='their end')


def test_a_captive_that_will_not_end():
    """`kelvin kill` says that it has ended when it has, whatever it closed, answered or told."""
    with prizes() as p:
        for n, (name, *opts) in enumerate((['ghost'], ['ghost-that-unlocks', '--seccomp=off'],
                                           ['ghost-that-leaves', '--seccomp=off'])):
            uid = 0x60002000 + n
            r = captive(p, name, 'loop', *opts, '--id', 'ghost', '--detach', '--wait-ready',
                        '--jail-uid', uid, last=[guest('echo')])
            assert r.code == 0 and by_uid(uid), r
            if name != 'ghost-that-leaves':
                wait_until(lambda: not listens('ghost'), what='it to vanish')
                assert 'ghost' in [v['id'] for v in json.loads(ok('ps', '--json').out)]
                ok('gc')
            else:
                time.sleep(1)  # until it began
            begin = time.monotonic()
            ok('kill', 'ghost', timeout=30)
            assert not by_uid(uid), (name, opts)
            assert name != 'ghost-that-leaves' or time.monotonic() - begin > 0.5  # it did stay
            assert running_ids() == [p.vm]


def test_a_captive_that_tells_another_pid():
    """To `run --detach`, which ends a VM that is not ready in time."""
    with prizes() as p, subprocess.Popen(['sleep', '60']) as other:
        for n, pid in enumerate((other.pid, -other.pid)):
            env = dict(p.env, KELVIN_PRIZE_VM=str(pid))
            r = captive(p._replace(env=env), 'pid-told', 'loop', '--id', f'told{n}', '--detach',
                        '--timeout', '2s', '--wait-ready=300ms',
                        last=[guest('fault'), '--', 'ready=no', 'how=spin'])
            assert r.code == 1 and re.search('was not (ready|running)', r.err), r
            wait_until(lambda: running_ids() == [p.vm] or ok('gc', '--ended') and False,
                       what='its end')
            assert other.poll() is None, 'another process was killed'
        other.kill()


def test_a_captive_with_more_open_than_it_needs():
    with prizes() as p:
        for name, path in (('inherited', p.root), ('inherited-dir', '/')):
            fd = os.open(path, os.O_RDONLY)
            env = dict(p.env, KELVIN_PRIZE_FD=str(fd))
            seen = {}
            for mode in ('off',) if SANITIZED else ('on', 'off'):
                r = captive(p._replace(env=env), name, 'loop', f'--seccomp={mode}', pass_fds=[fd])
                seen[name, mode] = verdict(r, name, 'loop')
            os.close(fd)
            judge(seen, {})


def test_a_captive_with_a_tap():
    """Its tap is not one for another network."""
    with prizes() as p:
        if not os.path.exists('/dev/net/tun'):
            raise Skip('no /dev/net/tun')
        for mode in ('off',) if SANITIZED else ('on', 'off'):
            r = captive(p, 'tunsetiff', 'loop', f'--seccomp={mode}', '--net', 'tap=captive0')
            judge({('tunsetiff', mode): verdict(r, 'tunsetiff', 'loop')}, {})
            assert not os.path.exists('/sys/class/net/kelvin-x')


def test_a_captive_that_eats():
    """More memory than its cgroup gives, and more of /run, which is memory, by its log."""
    with prizes() as p, tempfile.TemporaryDirectory(dir='/dev/shm') as run_dir:
        if not cgroups(p.vm):
            raise Skip('no memory controller here')
        env = dict(p.env, KELVIN_RUN_DIR=run_dir)
        for name, mode in (('eat-memory', 'off'), ('fill-log', 'on')):
            r = captive(p._replace(env=env), name, 'loop', f'--seccomp={mode}', '--id', 'eater',
                        '--memory', '16M')
            assert r.code == 128 + signal.SIGKILL and f'attack {name} loop: begins' in r.err, r
            assert os.listdir(run_dir) == []
        # What stays of a detached one is little.
        captive(p._replace(env=env), 'fill-log', 'loop', '--id', 'eater', '--memory', '16M',
                '--detach')
        left = os.path.join(run_dir, 'eater')
        wait_until(lambda: os.path.exists(f'{left}/exit.json') and
                   not os.path.exists(f'{left}/pid'), seconds=30, what='its end')
        assert os.path.getsize(f'{left}/log') <= 4 << 20


def on_terminal(p, name, mode):
    """Runs a VM as a shell does, on a terminal. Returns what came and what was typed for us."""
    pid, terminal = pty.fork()
    if pid == 0:
        env = dict(p.env, KELVIN_ATTACK=name, KELVIN_ATTACK_THREAD='loop')
        done = subprocess.run([CAPTIVE, 'run', '--id', 'tty', f'--seccomp={mode}', guest('hello')],
                              env=env)
        os.set_blocking(0, False)
        flags = termios.tcgetattr(0)
        flags[3] &= ~termios.ICANON
        termios.tcsetattr(0, termios.TCSANOW, flags)
        try:
            typed = os.read(0, 100)
        except OSError:
            typed = b''
        os.write(1, b'\nstatus %d typed %r\n' % (done.returncode, typed))
        os._exit(0)
    got = b''
    try:
        while part := os.read(terminal, 4096):
            got += part
    except OSError:
        pass
    os.waitpid(pid, 0)
    os.close(terminal)
    return got.decode(errors='replace')


def test_a_captive_on_a_terminal():
    with prizes() as p:
        for name in ('tty-find', 'tiocsti', 'tiocsctty', 'tioclinux'):
            for mode in ('off',) if SANITIZED else ('on', 'off'):
                got = on_terminal(p, name, mode)
                assert f'attack {name} loop: begins' in got, got
                assert "typed b''" in got, got


def vm_name(error, n):
    return f's{n}-{error}'


def stepped(p, error, n):
    env = dict(p.env, KELVIN_ATTACK='report', KELVIN_ATTACK_THREAD='both')
    words = [STEP, error, 'child', n, CAPTIVE, 'run', '--id', vm_name(error, n), '--memory', '16M',
             '--seccomp=log', '--timeout', '5s', guest('hello')]
    return Result(subprocess.run(list(map(str, words)), env=env, capture_output=True, timeout=60,
                                 stdin=subprocess.DEVNULL))


def test_no_captive_is_in_half_a_jail():
    """Whatever system call of the VM's process fails: where the guest runs, all layers hold."""
    if SANITIZED:
        raise Skip('too many steps under sanitizers')
    with prizes() as p, concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        low, high = 1, 8192
        while low < high:  # the number of the first call that there is not
            middle = (low + high) // 2
            low, high = (low, middle) if stepped(p, 1, middle).code == 99 else (middle + 1, high)
        errors = (errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.ENOMEM)
        jobs = [(errors[(n + k) % len(errors)], n) for n in range(1, low) for k in (0, 2)]
        whole = failed = 0
        for (error, n), r in zip(jobs, pool.map(lambda j: stepped(p, *j), jobs)):
            found = re.findall(r'attack report (\w+): (GOT.*|denied.*)', r.err)
            bad = [f for f in found if f[1].startswith('GOT') and
                   (f[1], error) != ('GOT no Landlock', errno.ENOSYS)]  # a kernel without
            assert not bad, f'call {n} told {os.strerror(error)}: {bad}: {r}'
            whole += len(found) == 2
            failed += not found
            if 'is running already' in r.err:  # whatever its lock's error: not ours to remove
                shutil.rmtree(vm_path(vm_name(error, n)))
        print(f'# {low - 1} calls: {whole} whole jails, {failed} failed starts')
        assert whole > 20 and failed > 50, (whole, failed)
