# SPDX-License-Identifier: Apache-2.0
"""vsock under load while the VM is paused, resumed, snapshot and restored all the time.

KELVIN_SOAK is how many seconds each test goes on (3).
"""
import random
import statistics
import threading

from vm import *

SECONDS = float(os.environ.get('KELVIN_SOAK', 3))
DATA = os.urandom(4 << 20)
BLOCK = 65536


class Gone(Exception):
    """The connection was reset, as a restore does."""


class Load:
    """Clients in threads, until stop(); the first of them that fails says why."""

    def __init__(self):
        self.stopping = threading.Event()
        self.failed = None
        self.threads = []

    def go(self, f, *args):
        def body():
            try:
                f(*args)
            except Exception as e:
                self.failed = self.failed or traceback.format_exc()
                self.stopping.set()
                raise SystemExit from e

        t = threading.Thread(target=body, daemon=True)
        t.start()
        self.threads.append(t)

    def stop(self):
        self.stopping.set()
        for t in self.threads:
            t.join(60)
            assert not t.is_alive(), 'a client hangs'
        assert not self.failed, self.failed


class Mirror:
    """Bulk to port 5005, which sends it back: every byte is compared with the one sent."""

    def __init__(self, load, id, seed):
        self.load, self.id = load, id
        self.random = random.Random(seed)
        self.bytes = self.connections = 0

    def run(self):
        while not self.load.stopping.is_set():
            try:
                self.one_connection()
            except (OSError, Gone):
                if not self.may_reset:
                    raise
                time.sleep(0.01)

    may_reset = False

    def one_connection(self):
        s = connect(self.id, 5005, timeout=60)
        self.connections += 1
        start = self.random.randrange(len(DATA))
        sent = [0]
        sender = threading.Thread(target=self.send, args=(s, start, sent), daemon=True)
        sender.start()
        try:
            got = self.receive(s, start)
        finally:
            s.close() if self.may_reset else None
            sender.join(60)
        s.close()
        if not self.may_reset:
            assert got == sent[0], f'{got} of {sent[0]} bytes came back'

    def send(self, s, start, sent):
        try:
            while not self.load.stopping.is_set():
                at = (start + sent[0]) % len(DATA)
                sent[0] += s.send(memoryview(DATA)[at:at + BLOCK])
            s.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def receive(self, s, start):
        got = 0
        while True:
            part = s.recv(1 << 18)
            if not part:
                return got
            while part:
                at = (start + got) % len(DATA)
                n = min(len(part), len(DATA) - at)
                assert part[:n] == DATA[at:at + n], f'wrong bytes near {got}'
                part = part[n:]
                got += n
                self.bytes += n


def ping(load, id, times):
    """A question and its answer, again and again, beside all the bulk."""
    s = connect(id, 5002, timeout=60)
    n = 0
    while not load.stopping.is_set():
        text = b'%063d\n' % n
        begin = time.monotonic()
        s.sendall(text)
        assert s.recv(64, socket.MSG_WAITALL) == text
        times.append(time.monotonic() - begin)
        n += 1
    s.close()


def test_vsock_soak_pause_and_resume():
    start('vsock', id='p')
    load, times = Load(), []
    mirrors = [Mirror(load, 'p', i) for i in range(3)]
    for m in mirrors:
        load.go(m.run)
    load.go(ping, load, 'p', times)
    end = time.monotonic() + SECONDS
    rounds = 0
    while time.monotonic() < end and not load.stopping.is_set():
        assert http('p', 'PATCH', '/vm', {'state': 'Paused'})[0] == 204
        time.sleep(0.02)
        assert http('p', 'PATCH', '/vm', {'state': 'Resumed'})[0] == 204
        time.sleep(0.08)
        rounds += 1
        if rounds % 10 == 0:  # it goes on with the connections it has
            ok('snapshot', 'p', fresh_dir('vsock-soak'))
    load.stop()
    moved = [m.bytes for m in mirrors]
    print(f'# {rounds} pauses, {sum(moved) >> 20} MiB, {len(times)} round trips')
    assert all(m.connections == 1 for m in mirrors)
    assert rounds > SECONDS and min(moved) > 1 << 20 and len(times) > rounds, (moved, len(times))


def count_lines(load, id, seen):
    """Every answered line is counted once, over all restores; an answer that never came may be."""
    while not load.stopping.is_set():
        try:
            with connect(id, timeout=60) as s:
                while not load.stopping.is_set():
                    answer = ask(s, 'line')
                    if not answer.startswith('line ') or 'random=' not in answer:
                        raise Gone
                    seen.append(fields(answer))
        except (OSError, Gone, AssertionError):
            time.sleep(0.005)


def source(load, id, seed, moved):
    """What port 1026 sends is right up to where it is cut off."""
    want = bytes((i * 7 + 3) & 255 for i in range(256)) * 1025
    r = random.Random(seed)
    while not load.stopping.is_set():
        size, got = r.randrange(1, 8 << 20), 0
        try:
            with connect(id, 1026, timeout=60) as s:
                s.sendall(b'%d\n' % size)
                while part := s.recv(BLOCK):
                    assert part == want[got % 256:got % 256 + len(part)], f'wrong near {got}'
                    got += len(part)
                    moved[0] += len(part)
        except (OSError, AssertionError) as e:
            if 'wrong' in str(e):
                raise
            time.sleep(0.005)
        assert got <= size


def test_vsock_soak_snapshot_and_restore():
    start('echo', id='r')
    load, seen, moved = Load(), [], [0]
    load.go(count_lines, load, 'r', seen)
    for i in range(2):
        load.go(source, load, 'r', i, moved)
    end = time.monotonic() + SECONDS
    rounds = 0
    while time.monotonic() < end and not load.stopping.is_set():
        time.sleep(0.1)
        d = fresh_dir(f'soak{rounds % 2}')
        ok('snapshot', 'r', d, '--stop')
        ok('restore', '--detach', '--wait-ready', '--id', 'r', d)
        rounds += 1
    wait_until(lambda: int(seen[-1]['generation']) == rounds, what='an answer of the last restore')
    load.stop()
    counts = [int(f['count']) for f in seen]
    assert counts == sorted(set(counts)), 'an answered line was forgotten'
    print(f'# {rounds} restores, {len(seen)} lines, {moved[0] >> 20} MiB')
    assert rounds >= 3 and moved[0] > 1 << 20, (rounds, moved)


def test_vsock_is_fair():
    """
    20 bulk connections to the guest and one that asks: they share, and an answer waits for a few
    turns of theirs, not for all they have to say. Bytes are the clock here: a busy host is slow.
    """
    start('vsock', id='f')
    load, waits = Load(), []
    sent = [0] * 20

    def bulk(i):
        s = connect('f', 5000, timeout=60)
        while not load.stopping.is_set():
            sent[i] += s.send(DATA[:BLOCK])
        s.close()

    def ask_again():
        s = connect('f', 5002, timeout=60)
        while not load.stopping.is_set():
            before = sum(sent)
            s.sendall(b'?' * 64)
            assert s.recv(64, socket.MSG_WAITALL) == b'?' * 64
            waits.append(sum(sent) - before)
        s.close()

    for i in range(20):
        load.go(bulk, i)
    load.go(ask_again)
    time.sleep(SECONDS)
    load.stop()
    p99 = statistics.quantiles(waits, n=100)[98]
    print(f'# {sum(sent) >> 20} MiB, {len(waits)} round trips, '
          f'behind {statistics.median(waits) / 1e6:.1f} MB, p99 {p99 / 1e6:.1f} MB')
    assert min(sent) > 1 << 20 and max(sent) < 2 * min(sent), sent
    assert len(waits) > 10 and p99 < 16e6, p99
