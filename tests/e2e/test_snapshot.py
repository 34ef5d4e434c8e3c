# SPDX-License-Identifier: Apache-2.0
"""Snapshots: write, restore, clone, and what damaged ones get."""
import concurrent.futures
import contextlib
import json
import mmap
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import forge
from vm import *


def snap_of_echo(name='echo', requests=3):
    """A snapshot of an echo guest that has answered `requests` requests."""
    d = fresh_dir(name)
    id = start('echo')
    for i in range(requests):
        ask_once(id, f'r{i}')
    ok('snapshot', id, d, '--stop')
    return d


def test_vmgenid_comes_before_the_first_instruction():
    ok('run', '--detach', '--wait-ready', '--id', 'g', guest('acpi'), '--', 'how=genid')
    d = fresh_dir('genid')
    ok('snapshot', 'g', d, '--stop')
    for _ in range(20):
        r = kelvin('restore', d)
        assert r.code == 0, f'1: the GUID is the same; 2: the interrupt came late: {r}'
    # Two clones of one snapshot differ; so does what a clone of a clone begins with.
    ok('run', '--detach', '--wait-ready', '--id', 'g', guest('acpi'), '--', 'how=deaf')
    seen = set()
    for i in range(3):
        d = fresh_dir(f'genid{i}')
        ok('snapshot', 'g', d, '--stop')
        with open(os.path.join(d, 'memory'), 'rb') as f:
            f.seek(0xe0ff0)
            seen.add(f.read(16))
        ok('restore', '--detach', '--id', 'g', d)
    ok('kill', 'g')
    assert len(seen) == 3 and bytes(16) not in seen, seen


def test_restore_goes_on_where_it_was():
    d = snap_of_echo()
    id = ok('restore', '--detach', '--wait-ready', '--id', 'r', d).out.split()[0]
    assert id == 'r'
    f = fields(ask_once('r', 'hi'))
    assert f['count'] == '4' and f['generation'] == '1', f
    # A snapshot of the restored one counts on.
    d2 = fresh_dir('second')
    ok('snapshot', 'r', d2, '--stop')
    ok('restore', '--detach', '--wait-ready', '--id', 's', d2)
    f = fields(ask_once('s', 'hi'))
    assert f['count'] == '5' and f['generation'] == '2', f


def test_snapshot_leaves_the_vm_running_and_its_connections_alone():
    id = start('echo')
    d = fresh_dir('live')
    with connect(id) as s:
        assert fields(ask(s, 'a'))['count'] == '1'
        ok('snapshot', id, d)
        assert fields(ask(s, 'b'))['count'] == '2'
    ok('restore', '--detach', '--wait-ready', '--id', 'c', d)
    assert fields(ask_once('c', 'x'))['count'] == '2'
    assert fields(ask_once(id, 'x'))['count'] == '3'


def clones(n):
    d = snap_of_echo(f'clones{n}', requests=5)
    begin = time.monotonic()
    ok('restore', '--count', n, '--wait-ready=60s', '--id', 'c', d, timeout=120)
    took = time.monotonic() - begin
    ids = [f'c-{i}' for i in range(n)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        got = [fields(a) for a in pool.map(lambda id: ask_once(id, 'x'), ids)]
    assert all(f['count'] == '6' for f in got), got
    assert all(f['generation'] == '1' for f in got), got
    assert len({f['random'] for f in got}) == n, 'two clones share their randomness'
    rows = json.loads(ok('ps', '--json').out)
    assert len(rows) == n, rows
    return took


def test_ten_clones():
    clones(10)


def test_hundred_clones():
    if SANITIZED:
        raise Skip('memory of 100 sanitized monitors')
    clones(100)


def test_fill_keeps_its_pattern():
    id = start('fill', 'mib=16', 'seed=7')
    assert ask_once(id, 'verify').startswith('ok'), 'before'
    d = fresh_dir('fill')
    ok('snapshot', id, d, '--stop')
    st = os.stat(os.path.join(d, 'memory'))
    assert st.st_size == 128 << 20
    assert st.st_blocks * 512 < 24 << 20, 'zero pages are not holes'
    ok('verify', d)
    ok('restore', '--detach', '--wait-ready', '--id', 'f', d)
    assert ask_once('f', 'verify').startswith('ok'), 'after'
    assert ask_once('f', 'fill 9') == 'filled 16'
    assert ask_once('f', 'verify').startswith('ok')
    ok('verify', d)  # a clone never writes into its snapshot


def test_irq_guest_after_restore():
    irqs_go_on_after_restore()


def test_restore_in_the_foreground_and_stay():
    id = start('first', 'stay')
    d = fresh_dir('first')
    ok('snapshot', id, d, '--stop')
    r = kelvin('restore', '--json', '--timeout', '1s', d)
    events = [json.loads(line) for line in r.out.splitlines()]
    assert sorted(e['event'] for e in events) == ['exit', 'ready', 'started'], r
    assert r.code == 192, r


def test_exists_and_force():
    id = start('echo')
    d = fresh_dir('force')
    ok('snapshot', id, d)
    old = open(os.path.join(d, 'state'), 'rb').read()
    refused('snapshot', id, d, says=[d, 'exists'])
    assert open(os.path.join(d, 'state'), 'rb').read() == old
    assert fields(ask_once(id, 'x'))['count'] == '1', 'the VM goes on'
    ok('snapshot', id, d, '--force')
    assert open(os.path.join(d, 'state'), 'rb').read() != old
    # A directory that is no snapshot is never replaced.
    other = fresh_dir('other')
    os.mkdir(other)
    open(os.path.join(other, 'precious'), 'w').write('x')
    refused('snapshot', id, other, '--force', says=[other])
    assert os.listdir(other) == ['precious']
    # Onto the very snapshot it was restored from.
    ok('restore', '--detach', '--wait-ready', '--id', 'self', d)
    ok('snapshot', 'self', d, '--force')
    ok('verify', d)
    assert fields(ask_once('self', 'x'))['count'] == '2'
    ok('restore', '--detach', '--wait-ready', '--id', 'again', d)
    assert fields(ask_once('again', 'x'))['generation'] == '2'


def test_unwritable_places():
    id = start('echo')
    refused('snapshot', id, '/nowhere/at/all', says='/nowhere/at')
    refused('snapshot', id, '/proc/x', says='/proc')
    refused('snapshot', '--stop', id, '/nowhere/at/all', says='/nowhere/at')
    assert 'paused' not in open(vm_path(id, 'log')).read(), 'it was paused before it was clear'
    assert fields(ask_once(id, 'x'))['count'] == '1', 'the VM goes on'


def test_disk_full():
    if os.geteuid() != 0:
        raise Skip('mounting a small tmpfs needs root')
    m = fresh_dir('small')
    os.mkdir(m)
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', m], check=True)
    try:
        id = start('fill', 'mib=8')
        d = os.path.join(m, 's')
        refused('snapshot', id, d, says='No space left')
        assert os.listdir(m) == [], 'something was left behind'
        assert ask_once(id, 'verify').startswith('ok')
        e = start('echo')
        ok('snapshot', e, d)
        ok('verify', d)
        refused('snapshot', id, d, '--force', says='No space left')
        assert os.listdir(m) == ['s']
        ok('verify', d)
    finally:
        kill_all()
        subprocess.run(['umount', m], check=True)


def test_damaged_snapshots_are_refused():
    d = snap_of_echo('whole', requests=1)
    rng = random.Random(1)
    state = open(os.path.join(d, 'state'), 'rb').read()

    def damaged(change):
        c = fresh_dir('damaged')
        os.mkdir(c)
        os.link(os.path.join(d, 'memory'), os.path.join(c, 'memory'))
        change(c)
        r = refused('restore', '--id', 'x', '--timeout', '1s', c, says=c)
        assert running_ids() == [], 'something was left behind'
        return r

    def write_state(data):
        def change(c):
            with open(os.path.join(c, 'state'), 'wb') as f:
                f.write(data)
        return change

    for _ in range(30):
        damaged(write_state(state[:rng.randrange(len(state))]))
    for _ in range(60):
        at, bit = rng.randrange(len(state)), 1 << rng.randrange(8)
        damaged(write_state(state[:at] + bytes([state[at] ^ bit]) + state[at + 1:]))
    damaged(write_state(state + b'x'))
    damaged(write_state(b''))
    damaged(lambda c: None)

    for size in (0, 4096, (128 << 20) - 4096, (128 << 20) + 4096):
        def resized(c):
            write_state(state)(c)
            os.unlink(os.path.join(c, 'memory'))
            with open(os.path.join(c, 'memory'), 'wb') as f:
                f.truncate(size)
        r = damaged(resized)
        assert 'memory' in r.err, r
    refused('restore', os.path.join(TMP, 'none'), says='none')
    refused('restore', guest('echo'), says='echo')


def test_verify_finds_a_flipped_bit_in_memory():
    d = snap_of_echo('flip', requests=1)
    ok('verify', d)
    with open(os.path.join(d, 'memory'), 'r+b') as f:
        at = os.lseek(f.fileno(), 0, os.SEEK_DATA) + 77
        f.seek(at)
        b = f.read(1)
        f.seek(at)
        f.write(bytes([b[0] ^ 4]))
    refused('verify', d, says=['memory', 'offset'])
    with open(os.path.join(d, 'memory'), 'r+b') as f:
        f.seek(100 << 20)  # in a hole
        f.write(b'x')
    refused('verify', d, says='memory')


def test_forging_changes_nothing_by_itself():
    d = snap_of_echo('plain', requests=1)
    c = forge.forged(d, fresh_dir('resealed'), lambda tag, content: content)
    assert open(os.path.join(c, 'state'), 'rb').read() == \
        open(os.path.join(d, 'state'), 'rb').read()


def test_cpu_features_this_host_lacks_are_refused_by_name():
    d = snap_of_echo('cpu', requests=1)
    # Of CPUID leaf 7, edx; no processor has all of them.
    known = {24: 'amx_tile', 2: 'avx512_4vnniw', 8: 'avx512_vp2intersect', 23: 'avx512_fp16'}
    with open('/proc/cpuinfo') as f:
        here = f.read().split()
    lacking = [bit for bit, name in known.items() if name not in here]
    if not lacking:
        raise Skip('this processor has all that the test knows')
    bit = lacking[0]

    def with_more(tag, content):
        if tag != 'vcpu0':
            return content
        at = content.index(struct.pack('<II', 7, 0))  # CPUID leaf 7: function, index
        edx = struct.unpack_from('<I', content, at + 24)[0]
        return content[:at + 24] + struct.pack('<I', edx | 1 << bit) + content[at + 28:]

    c = forge.forged(d, fresh_dir('more'), with_more)
    refused('restore', c, says=[known[bit]])
    assert running_ids() == []


def test_h08_forged_sections_are_refused_or_harmless():
    d = snap_of_echo('h08', requests=1)
    rng = random.Random(8)
    tags = [t for t, _, _ in forge.sections(open(os.path.join(d, 'state'), 'rb').read())]
    for tag in tags:
        for _ in range(6 if SANITIZED else 15):
            def spoil(t, content):
                if t != tag:
                    return content
                data = bytearray(content)
                for _ in range(rng.randrange(1, 5)):
                    data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7f, 0x80, 0xff))
                if rng.random() < 0.2:
                    data = data[:rng.randrange(len(data))]
                return bytes(data)
            c = forge.forged(d, fresh_dir('spoiled'), spoil)
            r = kelvin('restore', '--timeout', '100ms', c, timeout=20)
            # Refused in one line, or a guest that runs, or ends, or dies: never the monitor.
            assert r.code >= 0, (tag, r)
            assert r.code != 1 or len(r.err.strip().splitlines()) == 1, (tag, r)
            assert running_ids() == [], tag


def test_kill_9_during_snapshot_leaves_old_or_new():
    d = fresh_dir('kill9')
    id = start('fill', 'mib=8', 'seed=1')
    ok('snapshot', id, d)
    rng = random.Random(2)
    rounds = 6 if SANITIZED else 25
    for i in range(rounds):
        ok('restore', '--detach', '--wait-ready', '--id', f'k{i}', d)
        p = subprocess.Popen([KELVIN, 'snapshot', f'k{i}', d, '--force'], env=ENV,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.random() * 0.06)
        os.kill(pid_of(f'k{i}'), signal.SIGKILL)
        p.wait(20)
        ok('verify', d)
    # Whatever dead writers left is swept by the next snapshot.
    ok('snapshot', id, d, '--force')
    left = [n for n in os.listdir(TMP) if n.startswith('.kill9')]
    assert left == [], left
    ok('restore', '--detach', '--wait-ready', '--id', 'last', d)
    assert ask_once('last', 'verify').startswith('ok')


def test_kill_9_of_the_client_leaves_old_or_new():
    """Whoever makes the directory dies; the VM has the files, and goes on, with --stop too."""
    start('fill', 'mib=8', id='c')
    rng = random.Random(3)
    seen = set()
    for i in range(8 if SANITIZED else 40):
        d = fresh_dir(f'client{i}')
        p = subprocess.Popen([KELVIN, 'snapshot', 'c', d, *(['--stop'] if i % 2 else [])], env=ENV,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.random() * 0.06)
        os.kill(p.pid, signal.SIGKILL)
        p.wait(20)
        seen.add(os.path.exists(d))
        if os.path.exists(d):
            ok('verify', d)
            if not os.path.isdir(vm_path('c')) or not alive(pid_of('c')):  # it was told to end
                start('fill', 'mib=8', id='c')
        wait_until(lambda: json.loads(http('c', 'GET', '/')[1])['state'] == 'Running',
                   what='going on')
        assert ask_once('c', 'verify').startswith('ok')
    fds = os.listdir(f'/proc/{pid_of("c")}/fd')
    assert len(fds) < 60, fds
    # What dead clients left is swept by the next snapshot of the name.
    d = fresh_dir('client0')
    ok('snapshot', 'c', d)
    assert [n for n in os.listdir(TMP) if n.startswith('.client0.')] == []


def test_descriptors_that_are_no_files_of_a_snapshot():
    start('echo', id='f')
    pid = pid_of('f')

    def open_fds():
        return len(os.listdir(f'/proc/{pid}/fd'))

    names = json.loads(http('f', 'GET', '/kelvin/snapshot')[1])['files']
    assert names == ['state', 'memory'], names
    body = {'dir': '/x', 'files': names}
    time.sleep(0.3)  # our own connection counts no more
    before = open_fds()
    a, b = (open(os.path.join(TMP, n), 'w+b') for n in 'ab')
    r, w = os.pipe()
    here = os.open(TMP, os.O_RDONLY)
    null = os.open('/dev/null', os.O_RDWR)
    for fds in ([a.fileno(), r], [w, b.fileno()], [a.fileno(), here], [null, b.fileno()],
                [a.fileno(), a.fileno()], [a.fileno()], [a.fileno(), b.fileno(), r],
                [a.fileno()] * 17, [a.fileno()] * 100):
        code, text = http('f', 'PUT', '/kelvin/snapshot', body, fds)
        assert code == 400, (fds, text)
        assert json.loads(http('f', 'GET', '/')[1])['state'] == 'Running'
        wait_until(lambda: open_fds() == before, what='closing them')
    for path in ('/kelvin/kill', '/snapshot/create', '/nothing'):
        assert http('f', 'PUT', path, {}, [a.fileno(), b.fileno()])[0] == 400
    wait_until(lambda: open_fds() == before, what='closing them')
    assert os.fstat(a.fileno()).st_size == os.fstat(b.fileno()).st_size == 0
    code, text = http('f', 'PUT', '/kelvin/snapshot', body, [a.fileno(), b.fileno()])
    assert code == 200 and json.loads(text)['state'] == 'running', text
    assert os.fstat(a.fileno()).st_size > 0 and os.fstat(b.fileno()).st_size == 128 << 20
    # In place they are a snapshot.
    d = fresh_dir('by-hand')
    os.mkdir(d, 0o700)
    os.rename(a.name, os.path.join(d, 'state'))
    os.rename(b.name, os.path.join(d, 'memory'))
    ok('verify', d)
    wait_until(lambda: open_fds() == before, what='closing them')
    assert fields(ask_once('f', 'x'))['count'] == '1'


class FakeMonitor:
    """A VM in its guest's hands: says that a snapshot is written, and keeps of it what keep(fds) does.

    keep() gets the descriptors and returns what is to live on."""
    def __init__(self, id, keep, names=('state', 'memory')):
        os.makedirs(vm_path(id))
        self.keep, self.names, self.kept = keep, names, None
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(vm_path(id, 'api.sock'))
        self.listener.listen(4)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        s, _ = self.listener.accept()
        with s, contextlib.suppress(BrokenPipeError):
            while True:
                data, fds, _, _ = socket.recv_fds(s, 65536, 16)
                if not data:
                    return
                answer = {'files': self.names}
                if data.startswith(b'PUT /kelvin/snapshot'):
                    self.kept = self.keep(fds)
                    answer = {'dir': '/x', 'bytes': 0, 'data_bytes': 0, 'state': 'running'}
                text = json.dumps(answer).encode()
                s.sendall(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n'
                          b'Content-Length: %d\r\n\r\n' % len(text) + text)

    def end(self, id):
        self.thread.join(20)
        self.listener.close()
        shutil.rmtree(vm_path(id))


def keeps_one(fds):
    os.close(fds[0])
    return open(fds[1], 'wb', buffering=0)


def keeps_a_mapping(fds):
    os.ftruncate(fds[2], 4096)
    kept = mmap.mmap(fds[2], 4096)  # has a descriptor of its own, too
    for fd in fds:
        os.close(fd)
    return kept


def keeps_in_a_message(fds):
    """On its way in a socket that nobody reads."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    socket.send_fds(pair[0], [b'x'], fds[:1])
    for fd in fds:
        os.close(fd)
    return pair


def keeps_nothing(fds):
    for fd in fds:
        os.close(fd)


def keeps_for_a_moment(fds):
    threading.Timer(0.03, keeps_nothing, [fds]).start()


def test_a_snapshot_that_its_vm_can_still_write_is_not_published():
    for keep in (keeps_one, keeps_a_mapping, keeps_in_a_message):
        d = fresh_dir('kept')
        fake = FakeMonitor('fake', keep, ['state', 'memory', 'disk.a'])
        refused('snapshot', 'fake', d,
                says='the monitor of VM "fake" keeps files of its snapshot open for writing')
        assert [n for n in os.listdir(TMP) if 'kept' in n] == [], keep
        fake.end('fake')
    for keep in (keeps_nothing, keeps_for_a_moment):
        d = fresh_dir('kept')
        fake = FakeMonitor('fake', keep)
        ok('snapshot', 'fake', d)
        assert sorted(os.listdir(d)) == ['memory', 'state'], keep
        fake.end('fake')
        shutil.rmtree(d)


def writes(first, pieces=0):
    """So many bytes, and then one every 50 ms, each in a block of its own."""
    def keep(fds):
        os.pwrite(fds[1], b'x' * first, 0)
        for i in range(pieces):
            time.sleep(0.05)
            os.pwrite(fds[1], b'x', first + (i << 16))
        keeps_nothing(fds)
    return keep


def test_a_vm_that_does_not_finish_its_snapshot():
    """It has time for what it writes, and no more."""
    for keep in (writes(0, 400), writes(100, 400)):
        d = fresh_dir('slow')
        fake = FakeMonitor('fake', keep)
        begin = time.monotonic()
        refused('snapshot', '--timeout', '500ms', 'fake', d, says='takes too long: given up with')
        assert time.monotonic() - begin < 10
        assert [n for n in os.listdir(TMP) if 'slow' in n] == []
        fake.end('fake')
    d = fresh_dir('slow')
    fake = FakeMonitor('fake', writes(4 << 20, 30))
    ok('snapshot', '--timeout', '500ms', 'fake', d)
    fake.end('fake')
    refused('snapshot', '--timeout', 'soon', 'fake', d, code=2, says='--timeout')


def test_a_snapshot_that_is_interrupted():
    for sig in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        d = fresh_dir('interrupted')
        fake = FakeMonitor('fake', writes(100, 400))
        p = subprocess.Popen([KELVIN, 'snapshot', 'fake', d], env=ENV, stderr=subprocess.PIPE,
                             preexec_fn=lambda: signal.signal(sig, signal.SIG_DFL))
        wait_until(lambda: [n for n in os.listdir(TMP) if n.startswith('.interrupted')])
        p.send_signal(sig)
        assert p.wait(10) == -sig and b'interrupted: no snapshot' in p.stderr.read(), sig
        assert [n for n in os.listdir(TMP) if 'interrupted' in n] == [], sig
        fake.end('fake')


def test_a_vm_is_not_handed_the_file_host():
    for names in (['state', 'memory', 'host'], ['host'], ['state', '../host'], ['state', 'state']):
        d = fresh_dir('asked')
        fake = FakeMonitor('fake', keeps_nothing, names)
        refused('snapshot', 'fake', d, says='snapshot')
        assert fake.kept is None and [n for n in os.listdir(TMP) if 'asked' in n] == [], names
        fake.end('fake')


def test_two_writers_of_one_name():
    a, b = start('echo'), start('echo')
    d = fresh_dir('race')
    p = [subprocess.Popen([KELVIN, 'snapshot', id, d], env=ENV, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) for id in (a, b)]
    codes = sorted(x.wait(20) for x in p)
    assert codes == [0, 1], codes
    ok('verify', d)


def test_clones_share_the_page_cache():
    id = start('fill', 'mib=32')
    d = fresh_dir('share')
    ok('snapshot', id, d, '--stop')
    ok('restore', '--count', 4, '--wait-ready', '--id', 's', d)
    for i in range(4):
        assert ask_once(f's-{i}', 'verify').startswith('ok')
    private = 0
    for i in range(4):
        with open(f'/proc/{pid_of(f"s-{i}")}/smaps') as f:
            inside = False
            for line in f:
                if '-' in line.split()[0] and 'kB' not in line:
                    inside = line.rstrip().endswith('/memory')
                elif inside and line.startswith('Anonymous:'):
                    private += int(line.split()[1])
    assert private < 4 * 2048, f'{private} kB of RAM were copied by four clones that only read'
