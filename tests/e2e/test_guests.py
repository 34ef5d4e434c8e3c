# SPDX-License-Identifier: Apache-2.0
"""The workload guests themselves: a guest that finds no fault must be one that could have.

Those that need a disk run on QEMU here, where it is installed: its disk is not the one on trial.
"""
import json
import os
import shutil
import socket
import subprocess
import threading
import time

from vm import (TMP, Skip, ask_once, connect, fields, fresh_dir, guest, kelvin, ok, read_line,
                start)

QEMU = 'qemu-system-x86_64'
SECTOR = 512
RANGE = 1 << 20


def pattern(length):
    return (bytes((i * 7 + 3) & 255 for i in range(256)) * (length // 256 + 1))[:length]


def fnv1a(data):
    total = 0xcbf29ce484222325
    for byte in data:
        total = (total ^ byte) * 0x100000001b3 & (1 << 64) - 1
    return total


def read_all(s):
    data = b''
    while part := s.recv(1 << 16):
        data += part
    return data


def send_all(s, data):
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)


def use_vsock_ports(id, length):
    data = pattern(length)
    with connect(id, 5000) as s:
        send_all(s, data)
        assert read_line(s) == f'bytes={length}'
    with connect(id, 5003) as s:
        send_all(s, data)
        assert read_line(s) == f'bytes={length} sum={fnv1a(data):016x}'
    for port in 5001, 5004:
        with connect(id, port) as s:
            s.sendall(b'%d\n' % length)
            assert read_all(s) == data, f'port {port}'
    with connect(id, 5002) as s:
        for n in range(20):
            s.sendall(b'%064d' % n)
            assert s.recv(64, socket.MSG_WAITALL) == b'%064d' % n
    with connect(id, 5005) as s:
        sender = threading.Thread(target=send_all, args=(s, data))
        sender.start()
        assert read_all(s) == data
        sender.join()


def test_vsock_guest_moves_bytes():
    start('vsock', id='v')
    use_vsock_ports('v', 300001)


def test_vsock_guest_of_every_size():
    for n, words in enumerate((['slots=8', 'payload=64', 'credit=4K'], ['slots=128', 'credit=4M'],
                               ['payload=4K', 'nospin'], ['noeventidx', 'poll'])):
        start('vsock', *words, id=f'v{n}')
        use_vsock_ports(f'v{n}', 70001)
        kelvin('kill', f'v{n}')


def test_workload_guests_without_a_device_say_so():
    for name, words, says in (('blk', ['op=read'], 'blk: no such disk'),
                              ('blk', ['op=dance'], 'blk: no op=dance'),
                              ('net', [], 'net: no such card'),
                              ('net', ['mode=dance'], 'net: no mode=dance')):
        r = kelvin('run', '--console', '--timeout', '10s', guest(name), '--', *words)
        assert r.code == 2 and says in r.out, r


class Qemu:
    """One guest with a disk on QEMU's microvm. Lines of its console, JSON at the end, status."""

    def __init__(self, disk, *words):
        self.p = subprocess.Popen(
            [QEMU, '-M', 'microvm,pic=off,pit=off,rtc=off,acpi=off', '-accel', 'kvm',
             '-cpu', 'host,-arch-capabilities', '-global', 'virtio-mmio.force-legacy=false',
             '-m', '128', '-nodefaults', '-display', 'none', '-serial', 'stdio', '-no-reboot',
             '-device', 'isa-debug-exit,iobase=0xf4',
             '-drive', f'id=d,file={disk},format=raw,if=none',
             '-device', 'virtio-blk-device,drive=d,serial=trial',
             '-kernel', guest('blk'), '-append', ' '.join(words)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def lines(self):
        for line in self.p.stdout:
            yield line.rstrip()

    def result(self, timeout=60):
        out, _ = self.p.communicate(timeout=timeout)
        return json.loads(out.splitlines()[-1]), self.p.returncode >> 1

    def kill(self):
        self.p.kill()
        self.p.wait()


def new_disk(name):
    if not shutil.which(QEMU):
        raise Skip(f'no {QEMU}')
    path = os.path.join(TMP, name)
    with open(path, 'wb') as f:
        f.truncate(RANGE)
    return path


def blk(disk, *words):
    return Qemu(disk, *words).result()


def change(disk, sector, data):
    with open(disk, 'r+b') as f:
        f.seek(sector * SECTOR)
        old = f.read(SECTOR)
        f.seek(sector * SECTOR)
        f.write(data(old))


def test_blk_guest_finds_a_bad_sector():
    disk = new_disk('bad')
    assert blk(disk, 'op=fill', 'seed=5')[1] == 0
    assert blk(disk, 'op=verify', 'seed=5', 'bs=4K', 'segs=3')[1] == 0
    for sector, data in ((77, lambda old: old[:300] + bytes([old[300] ^ 1]) + old[301:]),
                         (78, lambda old: bytes(SECTOR))):
        change(disk, sector, data)
    r, status = blk(disk, 'op=verify', 'seed=5')
    assert status == 1 and r['bad'] == 2 and r['first_bad'] == 77 and r['errors'] == 0, r
    r, status = blk(disk, 'op=verify', 'seed=6')
    assert status == 1 and r['bad'] == RANGE // SECTOR, r


def test_blk_guest_finds_a_lost_write():
    """The checker of G01, on a log that was ended by SIGKILL."""
    disk = new_disk('log')
    q = Qemu(disk, 'op=log', 'flush=8', 'qd=16')
    durable = 0
    for line in q.lines():
        if line.startswith('durable '):
            durable = int(line.split()[1])
        if durable > RANGE // SECTOR + 100:
            break
    q.kill()
    r, status = blk(disk, 'op=check', f'durable={durable}')
    assert status == 0 and r['bad'] == 0 and r['highest'] >= durable, r
    with open(disk, 'rb') as f:
        old_log = f.read()

    r, status = blk(disk, 'op=log', f'start={durable + 1}', f'count={RANGE // SECTOR}', 'flush=8')
    assert status == 0 and r['durable'] > durable, r
    durable = r['durable']
    assert blk(disk, 'op=check', f'durable={durable}')[1] == 0
    # One write that never came about, and one sector of rubbish.
    lost = durable - 50
    at = (lost - 1) % (RANGE // SECTOR)
    change(disk, at, lambda old: old_log[at * SECTOR:(at + 1) * SECTOR])
    change(disk, (at + 5) % (RANGE // SECTOR), lambda old: b'\xff' * SECTOR)
    r, status = blk(disk, 'op=check', f'durable={durable}')
    assert status == 1 and r['lost'] == 1 and r['bad'] == 2, r


def test_blk_guest_soaks():
    disk = new_disk('soak')
    r, status = blk(disk, 'op=soak', 'count=3000', 'qd=16', 'seed=3')
    assert status == 0 and r['ops'] >= 3000 and r['bad'] == r['errors'] == 0, r
    q = Qemu(disk, 'op=soak', 'count=20000', 'range=128K')
    while q.p.poll() is None:
        change(disk, 100, lambda old: old[:-1] + b'x')
        time.sleep(0.001)
    r, status = q.result()
    assert status == 1 and r['bad'] > 0, r


def test_disk_soak_over_pauses_and_snapshots():
    """Deep random I/O against a model, on kelvin's disk; the disk goes with the guest."""
    disk = os.path.join(TMP, 'soaked')
    with open(disk, 'wb') as f:
        f.truncate(8 << 20)
    start('blk', 'op=soak', 'qd=16', id='s0', opts=['--disk', f'path={disk}'])
    for _ in range(10):
        time.sleep(0.05)
        ok('pause', 's0')
        ok('resume', 's0')
    for i in range(5):
        time.sleep(0.1)
        d = fresh_dir('soak-snapshot')
        ok('snapshot', f's{i}', d, '--stop')
        ok('restore', '--detach', '--wait-ready', '--id', f's{i + 1}', d)
    before = 0
    for _ in range(2):
        r = fields(ask_once('s5', 'stats'))
        assert r['bad'] == r['errors'] == '0' and r['generation'] == '5', r
        assert int(r['ops']) > before, r
        before = int(r['ops'])
        time.sleep(0.2)


def test_blk_guest_counts_errors():
    """A disk that is read-only fails writes; reads go on."""
    disk = new_disk('ro')
    os.chmod(disk, 0o444)
    q = Qemu(disk + ',readonly=on', 'op=rw', 'count=100', 'qd=4', 'pattern=rand')
    r, status = q.result()
    assert status == 1 and r['errors'] == 50 and r['ops'] == 100, r
    assert 0 < r['p50'] <= r['p99'] <= r['max'] <= r['cycles'], r
