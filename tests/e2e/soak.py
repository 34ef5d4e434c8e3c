# SPDX-License-Identifier: Apache-2.0
"""Soak: random operations on many VMs, and what they leave behind: nothing.

    tests/e2e/soak.py [--minutes N] [--seed N]

Keepers are VMs that live from beginning to end and are paused, resumed, asked, written, snapshot,
limited and sent nonsense; mortals come by run, restore and clone and go by stop, kill, kill -9 and
at the end of their guest. Now and then all stands still and is counted: descriptors, threads and
memory of each keeper; processes, run directories, temporary files and cgroups of the machine. After
a warm-up (a fifth of the time) these must stay flat. Prints what was done, a table and TAP. The
same seed gives the same choices; what they meet depends on the machine.
"""
import argparse
import collections
import contextlib
import random
import socket

from vm import *

OURS = f's{os.getpid()}-'  # how all ids begin, so that they are known from those of others
KEEPERS = {OURS + id: guest for id, guest in (
    ('e0', 'echo'), ('e1', 'echo'), ('d0', 'blk'), ('d1', 'blk'), ('v0', 'vsock'))}
MORTALS_MAX = 6
VSOCK_ECHO = 5002       # of the vsock guest
OPS_BETWEEN_LOOKS = 10
LOOKS_MIN = 6
GROWTH_KIB = 16384 if SANITIZED else 256  # of a keeper's memory; freed blocks wait in ASan
RAM_KIB = 64 << 10      # a mapping of so much is guest RAM, or ASan's shadow
SETTLE_S = 5
TELL_S = 60
NONSENSE = [b'', b'\r\n\r\n', b'GET', b'GET / HTTP/9\r\n\r\n', b'\0' * 100,
            b'POST / HTTP/1.1\r\n\r\n', b'GET /nothing HTTP/1.1\r\n\r\n',
            b'PATCH /vm HTTP/1.1\r\nContent-Length: 5\r\n\r\n{"sta',
            b'GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n', b'X' * 20000,
            b'PUT /kelvin/snapshot HTTP/1.1\r\nContent-Length: 2\r\n\r\n[]']
BAD_BODIES = [{}, [], {'state': 'Odd'}, {'state': 1}, {'state': 'Paused', 'more': 1}]
BAD_WORDS = [['run'], ['run', '--memory', '1', 'x'], ['restore', '/nowhere'], ['frobnicate'],
             ['snapshot', 'none', '/nowhere'], ['pause', 'none'], ['run', '--disk', 'path', 'x'],
             ['stats', '../x'], ['run', '--net', 'tap=a,fd=3', 'x'], ['kill', 'none']]


def slurp(path):
    with open(path) as f:
        return f.read()


def own_kib(pid):
    """What a monitor has written in memory of its own, guest RAM apart."""
    total = 0
    for line in slurp(f'/proc/{pid}/smaps').splitlines():
        name, _, rest = line.partition(':')
        if name == 'Size':
            counts = int(rest.split()[0]) < RAM_KIB
        elif name == 'Anonymous' and counts:
            total += int(rest.split()[0])
    return total


def threads(pid):
    """Ours, without the kernel's workers for a ring, which come and go."""
    count = 0
    for task in os.listdir(f'/proc/{pid}/task'):
        with contextlib.suppress(OSError):
            count += not slurp(f'/proc/{pid}/task/{task}/comm').startswith('iou-')
    return count


def our_processes():
    """Monitors, and whatever they started: those with our run directory or an id of ours."""
    marks = f'KELVIN_RUN_DIR={RUN_DIR}'.encode(), OURS.encode()
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            text = b''
            for name in ('environ', 'cmdline'):
                with open(f'/proc/{pid}/{name}', 'rb') as f:
                    text += f.read()
            comm = slurp(f'/proc/{pid}/comm')
        except OSError:
            continue
        if comm.startswith('kelvin') and any(m in text for m in marks) and alive(int(pid)):
            found.append(int(pid))
    return found


def cgroups():
    return sum(OURS in name for _, dirs, _ in os.walk('/sys/fs/cgroup') for name in dirs)


class Soak:
    def __init__(self, seed):
        self.rnd = random.Random(seed)
        self.paused = set()
        self.mortals = {}  # id: guest
        self.snapshots = {}  # directory: guest
        self.names = 0
        self.done = collections.Counter()
        self.looks = []
        self.strange = []  # run directories that should not be there
        self.told = time.monotonic()
        self.ops = [(f, weight) for f, weight in (
            (self.ask_it, 30), (self.pause, 8), (self.resume, 8), (self.snapshot, 5),
            (self.restore, 5), (self.clone, 2), (self.look_at, 8), (self.run_hello, 3),
            (self.run_mortal, 4), (self.stop, 4), (self.kill, 3), (self.kill_9, 2),
            (self.limit, 6), (self.nonsense, 6), (self.bad_request, 6), (self.bad_command, 3),
            (self.bad_vsock, 4), (self.verify, 2))]

    # ---- helpers ----

    def keeper(self, guest=None):
        return self.rnd.choice([id for id, g in KEEPERS.items() if not guest or g == guest])

    def anyone(self):
        return self.rnd.choice(list(KEEPERS) + list(self.mortals))

    def guest_of(self, id):
        return KEEPERS.get(id) or self.mortals[id]

    def name(self):
        self.names += 1
        return f'{OURS}m{self.names}'

    def patch_state(self, id, word):
        """By the API or by the verb."""
        if self.rnd.random() < 0.5:
            code, text = http(id, 'PATCH', '/vm', {'state': word + 'd'})
            assert code == 204, (id, word, code, text)
        else:
            ok(word.lower(), id)

    # ---- operations ----

    def begin(self):
        for id, name in KEEPERS.items():
            if name == 'blk':
                image = os.path.join(TMP, f'{id}.img')
                with open(image, 'wb') as f:
                    f.truncate(4 << 20)
                start('blk', 'op=serve', id=id, opts=['--disk', f'path={image}'])
            else:
                start(name, id=id)

    def ask_it(self):
        id = self.anyone()
        if id in self.paused:
            return
        guest = self.guest_of(id)
        if guest == 'echo':
            assert ask_once(id, 'hi').startswith('hi count=')
        elif guest == 'blk':
            sector, seed = self.rnd.randrange(8000), self.rnd.randrange(1000)
            with connect(id) as s:
                assert ask(s, f'write {sector} 16 {seed}') == 'ok'
                assert ask(s, f'verify {sector} 16 {seed}') == 'ok'
                assert self.rnd.random() < 0.8 or ask(s, 'flush') == 'ok'
        else:
            with connect(id, VSOCK_ECHO) as s:
                data = os.urandom(self.rnd.randrange(1, 20000))
                s.sendall(data)
                assert s.recv(len(data), socket.MSG_WAITALL) == data

    def pause(self):
        id = self.keeper()
        if id not in self.paused:
            self.patch_state(id, 'Pause')
            self.paused.add(id)

    def resume(self):
        if self.paused:
            id = self.rnd.choice(sorted(self.paused))
            self.patch_state(id, 'Resume')
            self.paused.discard(id)

    def snapshot(self):
        id = self.keeper(self.rnd.choice(['echo', 'vsock']))
        path = os.path.join(TMP, f'snap{self.rnd.randrange(3)}')
        ok('snapshot', '--force', id, path)
        self.snapshots[path] = KEEPERS[id]

    def restore(self):
        if self.snapshots and len(self.mortals) < MORTALS_MAX:
            path, id = self.rnd.choice(sorted(self.snapshots)), self.name()
            ok('restore', '--detach', '--wait-ready', '--id', id, path)
            self.mortals[id] = self.snapshots[path]

    def clone(self):
        if self.snapshots and len(self.mortals) + 3 <= MORTALS_MAX:
            path, id = self.rnd.choice(sorted(self.snapshots)), self.name()
            ok('restore', '--count', 3, '--wait-ready', '--id', id, path)
            self.mortals.update({f'{id}-{n}': self.snapshots[path] for n in range(3)})

    def run_mortal(self):
        if len(self.mortals) < MORTALS_MAX:
            id = self.name()
            start('echo', id=id)
            self.mortals[id] = 'echo'

    def run_hello(self):
        status = self.rnd.randrange(100)
        r = kelvin('run', guest('hello'), '--', f'status={status}')
        assert r.code == status, r

    def end(self, verb):
        if self.mortals:
            id = self.rnd.choice(sorted(self.mortals))
            del self.mortals[id]
            verb(id)

    def stop(self):
        self.end(lambda id: ok('stop', id))

    def kill(self):
        self.end(lambda id: ok('kill', id))

    def kill_9(self):
        def verb(id):
            pid = pid_of(id)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not alive(pid), what='the end of a killed monitor')
            wait_until(lambda: kelvin('kill', id) and id not in running_ids(),
                       what='the sweep of what a killed monitor left')

        self.end(verb)

    def look_at(self):
        id = self.anyone()
        self.rnd.choice([lambda: ok('stats', '--json', id), lambda: ok('inspect', id),
                         lambda: ok('ps', '--json'),
                         lambda: http(id, 'GET', '/kelvin/facts'),
                         lambda: http(id, 'GET', '/vm/config')])()

    def limit(self):
        id = self.keeper('blk')
        size = self.rnd.choice([0, 1 << 20, 1 << 30])
        code, text = http(id, 'PATCH', '/drives/disk0', {'drive_id': 'disk0', 'rate_limiter': {
            'bandwidth': {'size': size, 'refill_time': 100}}})
        assert code == 204, (code, text)

    def nonsense(self):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(vm_path(self.keeper(), 'api.sock'))
            s.sendall(self.rnd.choice(NONSENSE))
            if self.rnd.random() < 0.5:
                s.shutdown(socket.SHUT_WR)
                while s.recv(4096):
                    pass

    def bad_request(self):
        method, path = self.rnd.choice([('PATCH', '/vm'), ('PATCH', '/drives/none'),
                                        ('PUT', '/snapshot/create'), ('GET', '/nothing')])
        code, _ = http(self.keeper(), method, path,
                       None if method == 'GET' else self.rnd.choice(BAD_BODIES))
        assert 400 <= code < 500, code

    def bad_command(self):
        assert kelvin(*self.rnd.choice(BAD_WORDS)).code in (1, 2)

    def bad_vsock(self):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(vm_path(self.keeper(), 'vsock.sock'))
            s.sendall(self.rnd.choice([b'', b'HELLO\n', b'CONNECT 99999999999\n', b'CONNECT 9\n',
                                       b'CONNECT', b'\0' * 64]))

    def verify(self):
        if self.snapshots:
            ok('verify', self.rnd.choice(sorted(self.snapshots)))

    # ---- counting ----

    def count(self):
        row = {}
        for id in KEEPERS:
            pid = pid_of(id)
            row[id, 'fds'] = len(os.listdir(f'/proc/{pid}/fd'))
            row[id, 'threads'] = threads(pid)
            row[id, 'own_kib'] = own_kib(pid)
        expected = len(KEEPERS) + len(self.mortals)
        row['machine', 'processes'] = len(our_processes()) - self.processes_each * expected
        self.strange = sorted(set(running_ids()) - set(KEEPERS) - set(self.mortals))
        row['machine', 'run dirs'] = len(self.strange)
        row['machine', 'temporary files'] = len(
            [n for n in os.listdir(TMP) if not n.startswith('snap') or '.' in n])
        row['machine', 'cgroups'] = cgroups() - self.cgroups_each * expected
        return row

    def look(self):
        """Counts once nothing is under way: the least of some looks."""
        while self.paused:
            self.resume()
        least = self.count()
        end = time.monotonic() + SETTLE_S
        best = self.looks[0] if self.looks else {}
        while time.monotonic() < end:
            time.sleep(0.1)
            row = self.count()
            least = {k: min(v, least[k]) for k, v in row.items()}
            if all(least[k] <= best.get(k, -1) for k in least if k[1] != 'own_kib'):
                break
        self.looks.append(least)
        if time.monotonic() > self.told + TELL_S:  # who is silent for long is killed
            self.told = time.monotonic()
            print(f'# {sum(self.done.values())} operations, {len(self.looks)} looks; not known: '
                  f'{self.strange}', flush=True)

    def go(self, seconds):
        self.begin()
        self.processes_each = len(our_processes()) // len(KEEPERS)
        self.cgroups_each = cgroups() // len(KEEPERS)
        ops, weights = zip(*self.ops)
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(self.looks) < LOOKS_MIN:
            for _ in range(OPS_BETWEEN_LOOKS):
                op = self.rnd.choices(ops, weights)[0]
                op()
                self.done[op.__name__] += 1
            self.look()


def judge(looks):
    """(name, first, last, most, verdict) of each thing counted, the warm-up apart."""
    warm = looks[len(looks) // 5:]
    half = max(1, len(warm) // 3)
    rows = []
    for key in warm[0]:
        seen = [row[key] for row in warm]
        # Of a leak, the least of the last third is above the most of the first.
        first, last = max(seen[:half]), min(seen[-half:])
        room = GROWTH_KIB if key[1] == 'own_kib' else 0
        good = last <= first + room
        if key[1] in ('processes', 'run dirs'):
            good = max(seen) <= 0  # beyond those that should be there
        rows.append((key, seen[0], seen[-1], max(seen), good))
    return rows


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--minutes', type=float, default=5)
    ap.add_argument('--seed', type=int, default=random.randrange(1 << 32))
    args = ap.parse_args()
    if not os.access('/dev/kvm', os.R_OK | os.W_OK):
        print('# no usable /dev/kvm')
        return 77
    soak = Soak(args.seed)
    print(f'# seed {args.seed}', flush=True)
    failed = 0
    try:
        soak.go(60 * args.minutes)
        print('ok 1 - operations', flush=True)
    except Exception:
        print('not ok 1 - operations')
        print('# ' + traceback.format_exc().replace('\n', '\n# '), flush=True)
        failed = 1
    print(f'# {sum(soak.done.values())} operations, {soak.names} VMs or groups of clones came and '
          'went: ' + ', '.join(f'{n} {c}' for n, c in sorted(soak.done.items())))
    number = 1
    if len(soak.looks) >= LOOKS_MIN:
        print(f'# {len(soak.looks)} looks; after the warm-up:')
        print(f'# {"":24} {"first":>8} {"last":>8} {"most":>8}')
        for (who, what), first, last, most, good in judge(soak.looks):
            who = who.removeprefix(OURS)
            number += 1
            failed += not good
            print(f'# {who + " " + what:24} {first:8} {last:8} {most:8}')
            print(f'{"ok" if good else "not ok"} {number} - {who}.{what.replace(" ", "_")}')
    for id in running_ids():
        kelvin('kill', id)
    end = time.monotonic() + SETTLE_S  # an id is free before its monitor is all gone
    while our_processes() and time.monotonic() < end:
        time.sleep(0.1)
    left = running_ids() + our_processes()
    kill_all()
    print(f'{"not ok" if left else "ok"} {number + 1} - nothing_left{f" # {left}" if left else ""}')
    shutil.rmtree(TMP, ignore_errors=True)
    print(f'1..{number + 1}')
    return 1 if failed or left else 0


sys.exit(main())
