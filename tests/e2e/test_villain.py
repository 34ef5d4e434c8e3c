# SPDX-License-Identifier: Apache-2.0
"""Hostile cases from inside a guest: each case of guests/villain in a VM of its own.

The guest says how the device took the case; here is checked what the guest cannot see: that the
monitor lived until the guest powered off, and kept its log, descriptors and memory bounded; and
that the disk holds what it should. The cases come from the guest itself (`list`), so there is
nothing to register. They run a few at a time; each is one TAP line, villain.DEVICE.CASE.
"""
import atexit
import concurrent.futures
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from villain_host import Disk, Net, Peers
from vm import ENV, KELVIN, SANITIZED, Skip, guest

DEVICE = {'blk': '--disk', 'net': '--net', 'net-rx': '--net', 'vsock': '--vsock',
          'vsock-rx': '--vsock'}
VERDICTS = {0: 'pass', 10: 'reject', 20: 'wedged', 30: 'fail', 40: 'skip'}
LIMIT_S = 60 if SANITIZED else 10   # of the guest; the monitor must end it then
LOG_MAX = 4096
FDS_MAX = 32                        # without those of connections the case makes
RSS_MAX_KIB = 8 << 10                # guest RAM that was touched included
WORKERS = max(2, min(8, os.cpu_count() or 1))


class Wedged(AssertionError):
    """Not a wrong answer, but none."""


class Sampler(threading.Thread):
    """The largest number of descriptors and the peak memory of each process watched; and how long
    the whole machine stood still, which is nobody's fault here."""

    def __init__(self):
        super().__init__(daemon=True)
        self.lock = threading.Lock()
        self.seen = {}
        self.lost_s = 0.0

    def watch(self, pid):
        with self.lock:
            self.seen[pid] = [0, 0]

    def done(self, pid):
        with self.lock:
            return self.seen.pop(pid)

    def run(self):
        last = time.monotonic()
        while True:
            now = time.monotonic()
            if now - last > 0.5:
                self.lost_s += now - last
            last = now
            with self.lock:
                pids = list(self.seen)
            for pid in pids:
                try:
                    fds = len(os.listdir(f'/proc/{pid}/fd'))
                    with open(f'/proc/{pid}/status') as f:
                        peak = [int(l.split()[1]) for l in f if l.startswith('VmHWM:')]
                except OSError:
                    continue
                with self.lock:
                    if pid in self.seen:
                        old = self.seen[pid]
                        self.seen[pid] = [max(old[0], fds), max([old[1]] + peak)]
            time.sleep(0.005)


def threads(pid):
    """Where each thread of a process is, as far as the kernel tells."""
    text = ''
    for task in sorted(os.listdir(f'/proc/{pid}/task')):
        text += f'thread {task}:'
        for name in ('stat', 'wchan', 'syscall', 'stack'):
            with contextlib.suppress(OSError), open(f'/proc/{pid}/task/{task}/{name}') as f:
                text += f' {name}: {f.read().strip()};'
        text += '\n'
    return text


class Case:
    def __init__(self, line, dev, kind=''):
        self.id = line['case']
        self.dev = dev
        self.kind = kind
        self.expect = line['expect']
        self.needs = dict(w.partition('=')[::2] for w in line['needs'].split())
        self.name = f'villain.{dev}{"-" * bool(kind)}{kind}.{self.id}'
        self.future = None


class Player:
    """Plays all cases that are wanted, in the background, from the first one asked for."""

    def __init__(self):
        place = '/dev/shm' if os.access('/dev/shm', os.W_OK) else None
        self.tmp = tempfile.mkdtemp(prefix='kelvin-villain-', dir=place)
        self.env = dict(ENV, KELVIN_RUN_DIR=os.path.join(self.tmp, 'run'))
        self.cases = []
        self.pool = None
        self.lock = threading.Lock()
        self.sampler = Sampler()
        atexit.register(self.close)

    def close(self):
        if self.pool:
            self.pool.shutdown(wait=True, cancel_futures=True)
            self.peers.close()
            self.nets.close()
        shutil.rmtree(self.tmp, ignore_errors=True)

    def list(self):
        done = subprocess.run([KELVIN, 'run', '--console', guest('villain'), '--', 'list'],
                              env=self.env, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=60)
        assert done.returncode == 0, f'villain list: {done.stdout}{done.stderr}'
        usage = subprocess.run([KELVIN, 'run', '--help'], capture_output=True, text=True).stdout
        cases = []
        for line in map(json.loads, done.stdout.splitlines()):
            for dev in line['on']:
                if DEVICE[dev] not in usage:
                    continue
                cases.append(Case(line, dev))
                if dev == 'blk' and line['case'].startswith(Disk.WORTH):
                    cases += [Case(line, dev, k) for k, word in Disk.KINDS.items()
                              if word in usage and not (k == 'overlay' and line['needs'] == 'ro')]
        return cases

    def start(self):
        with self.lock:
            if self.pool:
                return
            self.disk = Disk()
            self.nets = Net(WORKERS)
            self.peers = Peers(self.tmp)
            self.sampler.start()
            self.pool = concurrent.futures.ThreadPoolExecutor(WORKERS)
            for n, case in enumerate(self.cases):
                case.future = self.pool.submit(self.play, n, case)

    def result(self, case):
        self.start()
        case.future.result()

    def play(self, n, case):
        lost_s = self.sampler.lost_s
        try:
            self.play_once(n, case)
        except Wedged:
            if self.sampler.lost_s - lost_s < 1:
                raise
            self.play_once(n, case)

    def play_once(self, n, case):
        place = os.path.join(self.tmp, str(n))
        os.mkdir(place)
        try:
            with self.nets.lend(case) as net:
                self.run(case, place, net)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def command(self, case, place, net):
        opts, words = [], [f'case={case.id}', f'dev={case.dev}']
        for name in ('memory', 'cpus'):
            if name in case.needs:
                opts += [f'--{name}', case.needs[name]]
        if case.dev == 'blk':
            opts += ['--disk', self.disk.make(place, case)]
        elif case.dev.startswith('net'):
            opts += ['--net', f'tap={net.name}']
            words += [f'ip={net.ip}'] + ['flood'] * ('flood' in case.needs)
        else:
            opts += ['--vsock', 'path=' + self.peers.link(place)]
        return [KELVIN, 'run', '--console', '--timeout', f'{LIMIT_S}s', '--id',
                os.path.basename(place), *opts, guest('villain'), '--', *words]

    def run(self, case, place, net):
        p = subprocess.Popen(self.command(case, place, net), env=self.env,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        self.sampler.watch(p.pid)
        try:
            out, err = p.communicate(timeout=3 * LIMIT_S)
        except subprocess.TimeoutExpired:
            where = threads(p.pid)
            p.kill()
            out, err = p.communicate()
            raise Wedged(f'wedged: the monitor does not end\n{where}{out[-500:]}{err[-2000:]}')
        finally:
            fds, rss_kib = self.sampler.done(p.pid)
        out, err = out.decode(errors='replace'), err.decode(errors='replace')
        self.judge(case, p.returncode, out, err, fds, rss_kib)
        if case.dev == 'blk':
            self.disk.check(place, case)

    def judge(self, case, code, out, err, fds, rss_kib):
        said = f'\n{out[-1000:]}{err[-3000:]}exit {code}, {fds} descriptors, {rss_kib} KiB'
        assert code >= 0, f'the monitor died by signal {-code}{said}'
        if code == 192:
            raise Wedged(f'wedged: the case did not end within {LIMIT_S} s{said}')
        assert code in VERDICTS, f'no verdict{said}'
        line = json.loads(out.splitlines()[-1])
        verdict = line['verdict']
        assert verdict == VERDICTS[code], f'status and verdict differ{said}'
        assert line['why'] != 'there is no such device', f'the device is not there{said}'
        if verdict == 'skip':
            raise Skip(line['why'])
        want = ('pass', 'reject') if case.expect == 'either' else (case.expect,)
        assert verdict in want, f'{verdict} instead of {" or ".join(want)}: {line["why"]}{said}'
        assert len(err) <= LOG_MAX, f'a log of {len(err)} bytes{said}'
        assert fds <= FDS_MAX + int(case.needs.get('fds', 0)), f'too many descriptors{said}'
        assert SANITIZED or rss_kib <= RSS_MAX_KIB, f'too much memory{said}'


def more_tests():
    """(name, function) of every case this kelvin has the device for; see all.py."""
    if not os.access('/dev/kvm', os.R_OK | os.W_OK):
        return []
    only = sys.argv[1:]
    player = Player()
    tests = []
    for case in player.list():
        if only and not any(o in case.name for o in only):
            continue
        player.cases.append(case)
        tests.append((f'test_{case.name}', lambda case=case: player.result(case)))
    return tests
