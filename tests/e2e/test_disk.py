# SPDX-License-Identifier: Apache-2.0
"""Disks: what a guest writes is in the file, what is promised is kept, what is wrong is said."""
import hashlib
import json
import os
import random
import signal
import subprocess
import threading
import time

import forge
from vm import *

MIB = 1 << 20


def image(name, size=8 * MIB, fill=None):
    path = os.path.join(TMP, name + '.img')
    with open(path, 'wb') as f:
        if fill is not None:
            f.write(bytes([fill]) * size)
        f.truncate(size)
    return path


def content(path, off=0, n=None):
    with open(path, 'rb') as f:
        f.seek(off)
        return f.read() if n is None else f.read(n)


def serve(disk, id=None, *opts):
    """A guest that does to its disk what it is told over vsock."""
    return start('blk', 'op=serve', id=id, opts=['--disk', disk, *opts])


def told(s, line, expect='ok'):
    answer = ask(s, line)
    assert answer.split()[0] == expect, f'{line}: {answer}'
    return answer


def run_blk(disk, *words, status=0, opts=(), **kw):
    """A guest that works by itself and ends; its line of JSON."""
    r = kelvin('run', '--console', '--disk', disk, *opts, guest('blk'), '--', *words, **kw)
    assert r.code == status, r
    lines = [l for l in r.out.splitlines() if l.startswith('{')]
    return json.loads(lines[-1]) if lines else None


def drive(id, body):
    return http(id, 'PATCH', f'/drives/{body["drive_id"]}', body)


def test_disk_keeps_what_was_written():
    for sync in ('writeback', 'unsafe', 'direct'):
        path = image(f'keep-{sync}')
        r = run_blk(f'path={path},sync={sync}', 'op=fill', 'seed=5')
        assert r['errors'] == 0, r
        r = run_blk(f'path={path},sync={sync},ro', 'op=verify', 'seed=5')
        assert r['errors'] == 0 and r['bad'] == 0 and r['sectors'] == 8 * MIB // 512, r
        r = run_blk(f'path={path},sync={sync}', 'op=verify', 'seed=6', status=1)
        assert r['bad'] == 8 * MIB // 512, r


def test_disk_direct_in_odd_pieces():
    """512-byte requests against a disk of larger blocks, cut into pieces: the bounce buffer."""
    path = image('odd')
    run_blk(f'path={path},sync=direct', 'op=fill', 'seed=1', 'bs=512', 'range=256K', 'segs=3')
    run_blk(f'path={path},sync=direct', 'op=verify', 'seed=1', 'bs=1536', 'range=255K')
    run_blk(f'path={path}', 'op=verify', 'seed=1', 'range=256K')


def test_disk_commands():
    path = image('cmd', fill=0xee)
    id = serve(f'path={path},id=root-fs')
    with connect(id) as s:
        assert told(s, 'capacity') == f'ok {8 * MIB // 512}'
        assert told(s, 'id') == 'ok root-fs'
        told(s, 'write 8 16 3')
        told(s, 'verify 8 16 3')
        told(s, 'flush')
        assert content(path, 0, 8 * 512) == b'\xee' * 4096
        assert content(path, 24 * 512, 512) == b'\xee' * 512
        told(s, 'zeroes 16 4')
        assert content(path, 16 * 512, 4 * 512) == bytes(2048)
        told(s, 'verify 8 8 3')
        told(s, 'verify 20 4 3')
        told(s, 'zeroes 100 1 unmap')
        assert content(path, 99 * 512, 3 * 512) == b'\xee' * 512 + bytes(512) + b'\xee' * 512
        told(s, f'read {8 * MIB // 512} 1', 'error')
        told(s, 'read 0xffffffffffffffff 1', 'error')
    ok('stop', id)


def test_b10_discard_stays_in_its_range():
    """A discard frees whole blocks and never touches a byte outside of what it names."""
    path = image('discard', fill=0x77)
    id = serve(f'path={path}')
    with connect(id) as s:
        for sector, n in ((0, 1), (9, 3), (15, 2), (64, 64), (201, 99), (1000, 2048)):
            told(s, f'discard {sector} {n}')
            data = content(path)
            for a, b in ((0, sector), (sector + n, 8 * MIB // 512)):
                part = data[a * 512:b * 512]
                # Earlier discards made zeroes; nothing else may have changed.
                assert set(part) <= {0, 0x77}, (sector, n)
            assert data[(sector + n) * 512:(sector + n + 1) * 512] == b'\x77' * 512, (sector, n)
        before = os.stat(path).st_blocks
        told(s, 'discard 8192 8192')
        assert os.stat(path).st_blocks <= before - 8000
        assert os.stat(path).st_size == 8 * MIB
    ok('stop', id)


def test_b07_read_only_is_read_only():
    path = image('ro', fill=1)
    before = hashlib.sha256(content(path)).hexdigest()
    id = serve(f'path={path},ro')
    with connect(id) as s:
        told(s, 'write 0 8 1', 'error')
        told(s, 'discard 0 8', 'error')
        told(s, 'zeroes 0 8', 'error')
        told(s, 'read 0 8')
        told(s, 'flush')
    ok('stop', id)
    assert hashlib.sha256(content(path)).hexdigest() == before


def test_two_vms_cannot_write_one_image():
    path = image('shared')
    id = serve(f'path={path}', 'writer')
    refused('run', '--disk', f'path={path}', guest('hello'), says=[path, 'disk "disk0"'])
    refused('run', '--disk', f'path={path},ro', guest('hello'), says=path)
    refused('run', '--disk', f'path={path},overlay={path}.o', guest('hello'), says=path)
    refused('run', '--disk', f'path={path}', guest('hello'),
            says=f'process {pid_of(id)} has it locked (VM "{id}")')
    ok('stop', id)
    a, b = serve(f'path={path},ro', 'r1'), serve(f'path={path},ro', 'r2')
    refused('run', '--disk', f'path={path}', guest('hello'), says=path)
    for id in (a, b):
        with connect(id) as s:
            told(s, 'read 0 8')
        ok('stop', id)


def test_a_file_that_is_given_twice():
    path = image('twice')
    os.link(path, path + '.link')
    os.symlink(path, path + '.sym')
    for other in (path, path + '.link', path + '.sym'):
        refused('run', '--disk', f'path={path}', '--disk', f'path={other}', guest('hello'),
                says=['disk "disk1"', 'is given twice'])
    refused('run', '--disk', f'path={path},overlay={path}.link', guest('hello'),
            says='is given twice')
    for other in (path, path + '.sym'):
        refused('run', '--disk', f'path={path},overlay={other}', guest('hello'), code=2,
                says='cannot be its own overlay')
    top = path + '.top'
    id = serve(f'path={path},overlay={top}', 'twice')
    refused('run', '--disk', f'path={path},overlay={top}', guest('hello'),
            says=[top, '(VM "twice")'])
    ok('stop', id)


def test_disk_mistakes():
    refused('run', '--disk', 'path=/no/such', guest('hello'), says=['/no/such', 'No such file'])
    refused('run', '--disk', f'path={TMP}', guest('hello'), says=[TMP])
    refused('run', '--disk', 'path=/dev/null', guest('hello'), says=['/dev/null'])
    small = image('small', 511)
    refused('run', '--disk', f'path={small}', guest('hello'), says=[small])
    fifo = os.path.join(TMP, 'fifo')
    os.mkfifo(fifo)
    refused('run', '--disk', f'path={fifo}', guest('hello'), says=[fifo])
    for bad, says in (('ro', 'path= is missing'), ('path=x,colour=red', 'unknown key "colour"'),
                      ('path=x,sync=no', 'writeback, unsafe or direct'), ('path=x,ops=0', 'ops'),
                      ('path=x,ro=1', 'on or off'), ('path=x,id=a.b', 'id "a.b"'),
                      ('path=x,path=y', 'given twice')):
        refused('run', '--disk', bad, guest('hello'), code=2, says=says)
    refused('run', '--disk', 'path=x,id=a', '--disk', 'path=y,id=a', guest('hello'), code=2,
            says='is taken')


def test_disk_limits_hold():
    path = image('limit')
    begin = time.monotonic()
    run_blk(f'path={path},ops=200,burst=50ms', 'op=read', 'count=110', 'qd=8')
    took = time.monotonic() - begin
    assert 0.45 <= took < 5, took
    begin = time.monotonic()
    run_blk(f'path={path},bytes=4M,burst=100ms', 'op=write', 'bs=64K', 'count=48', 'qd=4')
    took = time.monotonic() - begin
    assert 0.55 <= took < 5, took


def test_disk_limit_changes_while_it_runs():
    path = image('relimit')
    id = serve(f'path={path},ops=1')
    code, _ = drive(id, {'drive_id': 'disk0', 'rate_limiter': {'ops': None}})
    assert code == 204
    with connect(id) as s:
        begin = time.monotonic()
        for _ in range(20):
            told(s, 'read 0 1')
        assert time.monotonic() - begin < 5
    config = json.loads(http(id, 'GET', '/vm/config')[1])
    assert config['drives'][0]['path_on_host'] == path
    ok('stop', id)


def test_disk_grows_and_is_swapped():
    path, other = image('grow', fill=1), image('other', 16 * MIB, fill=2)
    id = serve(f'path={path}', None, '--no-jail')
    with connect(id) as s:
        with open(path, 'ab') as f:
            f.truncate(12 * MIB)
        assert drive(id, {'drive_id': 'disk0', 'path_on_host': path})[0] == 204
        wait_until(lambda: told(s, 'capacity') == f'ok {12 * MIB // 512}', what='the new size')
        told(s, f'write {10 * MIB // 512} 8 9')
        assert drive(id, {'drive_id': 'disk0', 'path_on_host': other})[0] == 204
        wait_until(lambda: told(s, 'capacity') == f'ok {16 * MIB // 512}', what='the new disk')
        told(s, 'write 0 8 4')
        told(s, 'verify 0 8 4')
        # The next one is handed over open, and path_on_host is what it is called.
        third = image('third', 4 * MIB)
        with open(third, 'r+b') as f:
            change = {'drive_id': 'disk0', 'path_on_host': '/third', 'files': ['path_on_host']}
            code, body = http(id, 'PATCH', '/drives/disk0', change, [f.fileno()])
            assert code == 204, body
            wait_until(lambda: told(s, 'capacity') == f'ok {4 * MIB // 512}', what='the third')
            told(s, 'write 0 8 5')
            assert content(third, 0, 512) != bytes(512)
        refused('run', '--disk', f'path={third}', guest('hello'), says=third)
        with open(third, 'rb') as f:
            code, body = http(id, 'PATCH', '/drives/disk0', change, [f.fileno()])
            assert code == 400 and 'not open for reading and writing' in body, body
        assert drive(id, {'drive_id': 'disk0', 'path_on_host': other})[0] == 204
        wait_until(lambda: told(s, 'capacity') == f'ok {16 * MIB // 512}', what='the new disk')
        code, body = drive(id, {'drive_id': 'disk0', 'path_on_host': '/no/such'})
        assert code == 400 and '/no/such' in body, body
        told(s, 'verify 0 8 4')
    assert content(path, 0, 512) == b'\x01' * 512 and content(other, 0, 512) != b'\x02' * 512
    # The old one is free for others, the new one is not.
    refused('run', '--disk', f'path={other}', guest('hello'), says=other)
    ok('run', '--disk', f'path={path}', guest('hello'))
    ok('stop', id)


def test_overlay_leaves_the_base_alone():
    base = image('base', fill=0x5a)
    before = hashlib.sha256(content(base)).hexdigest()
    tops = [os.path.join(TMP, f'top{i}') for i in range(2)]
    ids = [serve(f'path={base},overlay={t}') for t in tops]
    for n, id in enumerate(ids):
        with connect(id) as s:
            told(s, f'write 3 5 {n}')
            told(s, f'verify 3 5 {n}')
            told(s, 'discard 4096 64')
            told(s, f'write 9000 100 {n}')
            told(s, 'flush')
        ok('stop', id)
    assert hashlib.sha256(content(base)).hexdigest() == before
    assert os.stat(tops[0]).st_blocks * 512 < MIB, 'an overlay is sparse'
    for n, top in enumerate(tops):
        id = serve(f'path={base},overlay={top}')
        with connect(id) as s:
            told(s, f'verify 3 5 {n}')
            told(s, f'verify 9000 100 {n}')
        ok('stop', id)


def test_overlay_of_another_base():
    a, b, top = image('base-a'), image('base-b', 16 * MIB), os.path.join(TMP, 'top-ab')
    ok('run', '--disk', f'path={a},overlay={top}', guest('hello'))
    refused('run', '--disk', f'path={b},overlay={top}', guest('hello'), says=[top])
    copy = a + '.copy'
    shutil.copy(a, copy)
    refused('run', '--disk', f'path={copy},overlay={top}', guest('hello'), says=[top, 'moved'])
    ok('run', '--disk', f'path={copy},overlay={top},moved', guest('hello'))
    ok('run', '--disk', f'path={copy},overlay={top}', guest('hello'))
    with open(top, 'r+b') as f:
        f.write(b'not an overlay')
    refused('run', '--disk', f'path={a},overlay={top}', guest('hello'), says=[top])


def test_snapshot_with_a_disk():
    path, d = image('snap', fill=3), fresh_dir('disk-snap')
    id = serve(f'path={path},id=data', 'snap')
    with connect(id) as s:
        told(s, 'write 0 64 1')
        told(s, 'flush')
    ok('snapshot', id, d, '--stop')
    id = ok('restore', '--detach', '--wait-ready', d).out.split()[0]
    with connect(id) as s:
        assert told(s, 'ping') == 'ok 1'
        told(s, 'verify 0 64 1')
        told(s, 'write 100 8 2')
        told(s, 'flush')
    ok('stop', id)
    # Now the disk is ahead of the memory: that must be said by whoever wants it so.
    refused('restore', d, says=['disk "data"', 'was written since', f'--disk id=data,path={path}'])
    id = ok('restore', '--detach', '--wait-ready', '--disk', f'id=data,path={path}',
            d).out.split()[0]
    with connect(id) as s:
        told(s, 'verify 0 64 1')
        told(s, 'verify 100 8 2')
    ok('stop', id)
    smaller = image('snap-small', 4 * MIB)
    refused('restore', '--disk', f'path={smaller}', d, says='capacity')
    os.rename(path, path + '.gone')
    refused('restore', d, says=[f'disk "data": {path} is not there any more',
                                '--disk id=data,path=FILE'])
    refused('restore', '--disk', f'id=data,path={path}', d, says=[path, 'No such file'])
    moved = ok('restore', '--detach', '--wait-ready', '--disk', f'id=data,path={path}.gone', d)
    ok('kill', moved.out.split()[0])
    refused('restore', '--disk', 'id=other,path=x', d, code=2, says='no disk "other"')
    refused('restore', '--disk', 'ro', d, code=2, says='stays writable')


def test_snapshot_while_the_disk_is_busy():
    """Requests are in flight at every pause; none is lost, and none comes twice."""
    path, top = image('busy', 32 * MIB), os.path.join(TMP, 'busy-top')
    id = start('blk', 'op=rw', 'bs=4K', 'qd=32', 'count=2000000', 'pattern=rand', id='busy',
               opts=['--disk', f'path={path},overlay={top}'])
    d = fresh_dir('busy')
    for i in range(3):
        ok('snapshot', id, d, '--force')
        ok('verify', d)
        clone = ok('restore', '--detach', '--id', f'busy{i}', d).out.split()[0]
        before = stats_of(clone, 'disk0')['reads']
        wait_until(lambda: stats_of(clone, 'disk0')['reads'] > before + 100, what='going on')
        st = stats_of(clone, 'disk0')
        assert st['failed'] == 0 and st['needs_reset'] == 0, st
        ok('kill', clone)
        assert stats_of(id, 'disk0')['failed'] == 0
    ok('kill', id)


def stats_of(id, device):
    r = json.loads(ok('stats', '--json', id).out)
    return next(d for d in r['devices'] if d['id'] == device)


def test_overlay_travels_with_a_snapshot():
    base, d = image('travel', fill=7), fresh_dir('travel')
    before = hashlib.sha256(content(base)).hexdigest()
    id = serve(f'path={base},overlay={TMP}/travel-top,id=root', 'tr')
    with connect(id) as s:
        told(s, 'write 8 64 1')
        told(s, 'discard 1024 64')
    ok('snapshot', id, d)
    with connect(id) as s:
        told(s, 'write 8 64 2')  # after the snapshot: no clone sees it
    ok('stop', id)
    os.unlink(f'{TMP}/travel-top')
    assert os.path.exists(f'{d}/disk.root')
    ok('verify', d)
    out = ok('restore', '--count', 3, '--id', 'cl', '--wait-ready', d).out
    ids = [l.split()[0] for l in out.splitlines()]
    assert len(ids) == 3, out
    for n, id in enumerate(ids):
        with connect(id) as s:
            told(s, 'verify 8 64 1')
            told(s, f'write 500 16 {n}')
            told(s, f'verify 500 16 {n}')
    for n, id in enumerate(ids):
        with connect(id) as s:
            told(s, f'verify 500 16 {n}')
    # A clone's snapshot has all layers in it.
    d2 = fresh_dir('travel2')
    ok('snapshot', ids[2], d2)
    for id in ids:
        ok('stop', id)
    shutil.rmtree(d)
    id = ok('restore', '--detach', '--wait-ready', '--disk', f'overlay={TMP}/travel3',
            d2).out.split()[0]
    with connect(id) as s:
        told(s, 'verify 8 64 1')
        told(s, 'verify 500 16 2')
    ok('stop', id)
    assert os.path.exists(f'{TMP}/travel3')
    assert hashlib.sha256(content(base)).hexdigest() == before
    with open(f'{d2}/disk.root', 'r+b') as f:
        f.seek(-1, 2)
        byte = f.read(1)
        f.seek(-1, 2)
        f.write(bytes([byte[0] ^ 1]))
    refused('verify', d2, says='disk.root')


def test_clones_need_disks_of_their_own():
    path, d = image('many'), fresh_dir('many')
    id = serve(f'path={path}', 'many')
    ok('snapshot', id, d, '--stop')
    refused('restore', '--count', 2, d, says=['--count', 'disk0', 'overlay'])


def test_untrusted_snapshot_names_no_disks():
    path, d = image('trust'), fresh_dir('trust')
    id = serve(f'path={path},id=root', 'trust')
    ok('snapshot', id, d, '--stop')
    os.chmod(d, 0o777)
    refused('restore', d, says=['not yours alone', '--disk id=root,path=FILE'])
    id = ok('restore', '--detach', '--wait-ready', '--disk', f'id=root,path={path}',
            d).out.split()[0]
    ok('stop', id)


def machine_of(d, change):
    """A copy of snapshot d in whose "machine" change(object) was made, as by its own VM."""
    def forge_it(tag, content):
        if tag != 'machine':
            return content
        machine = json.loads(content)
        change(machine)
        return json.dumps(machine).encode()
    return forge.forged(d, fresh_dir('forged'), forge_it)


def restored(*args):
    id = ok('restore', '--detach', '--wait-ready', *args).out.split()[0]
    ok('stop', id)


def test_a_vm_does_not_choose_what_its_restore_opens():
    path, other, d = image('mine'), image('other'), fresh_dir('mine')
    id = serve(f'path={path},id=root', 'mine')
    assert json.load(open(vm_path(id, 'devices.json')))['disks'][0]['path'] == path
    assert os.stat(vm_path(id, 'devices.json')).st_mode & 0o777 == 0o600
    ok('snapshot', id, d, '--stop')
    st = os.stat(other)

    def another_file(m):
        m['disks'][0].update(path=other, identity=[st.st_dev, st.st_ino, st.st_size,
                                                   st.st_mtime_ns])

    def another_disk(m):
        m['disks'].append(dict(m['disks'][0], id='more', path=other))

    def another_id(m):
        m['disks'][0].update(id='other')

    def a_network(m):
        m['nets'].append({'id': 'n', 'way': 'user', 'tap': '', 'sock': '', 'spoof': False,
                          'mac': '02:00:00:00:00:01', 'mtu': 0, 'queues': 1,
                          'rx': m['disks'][0]['limit'], 'tx': m['disks'][0]['limit']})

    says = 'file host, which says what a restore may open'
    for change, name in ((another_file, '--disk id=root,path=FILE'), (a_network, '--net id=n,tap='),
                         (another_disk, '--disk id=more,path=FILE'),
                         (another_id, '--disk id=other,path=FILE')):
        refused('restore', machine_of(d, change), says=[says, name])
    restored('--disk', f'id=root,path={path}', machine_of(d, another_file))
    restored(machine_of(d, lambda m: None))
    # Written by an older kelvin, or by hand.
    c = machine_of(d, lambda m: None)
    os.unlink(f'{c}/host')
    ok('verify', c)
    refused('restore', c, says=['no file host', '--disk id=root,path=FILE'])
    restored('--disk', f'id=root,path={path}', c)
    restored(d)


def test_a_vm_does_not_choose_what_its_restore_writes():
    path, d = image('shared'), fresh_dir('shared')
    for options in ('ro', f'overlay={TMP}/shared-top'):
        id = serve(f'path={path},id=root,{options}', 'shared')
        ok('snapshot', id, d, '--stop', '--force')
        c = machine_of(d, lambda m: m['disks'][0].update(ro=False, overlay=False))
        refused('restore', c, says='disk "root": file host says otherwise')
        restored(d)


def test_a_vm_does_not_choose_how_much_its_restore_gets():
    """Nor whether it reads and writes the terminal of who restores it."""
    d = fresh_dir('share')
    ok('snapshot', start('echo', id='share'), d, '--stop')
    for key, value in (('vcpus', 2), ('console', True)):
        refused('restore', machine_of(d, lambda m: m.update({key: value})),
                says=f"file host says otherwise about the VM's {key}")
    restored(d)


def test_forged_files_named_host():
    path, d = image('host'), fresh_dir('host')
    id = serve(f'path={path},id=root', 'host')
    ok('snapshot', id, d, '--stop')
    c = machine_of(d, lambda m: None)
    for text in (b'', b'{', b'[]', b'{}', b'\0', b'[' * 100000, b'"\n\n', b'{"disks": 1, "nets": []}',
                 b'{"disks": [{"id": "\n\x1b[2J"}], "nets": []}', b'x' * (2 << 20)):
        os.unlink(f'{c}/host')
        with open(f'{c}/host', 'wb') as f:
            f.write(text)
        for verb in ('restore', 'verify'):
            refused(verb, c, says='file host')
    ok('restore', '--timeout', '100ms', '--detach', d)


def test_snapshot_of_a_swapped_disk():
    """The host's own words are of what it knows: a path it was told later, not a descriptor."""
    first, second = image('swap1'), image('swap2')
    for opts in (['--no-jail'], []):
        d = fresh_dir('swapped')
        id = serve(f'path={first},id=root', 'swapped', *opts)
        with open(second, 'r+b') as f:
            how = ({}, ()) if opts else ({'files': ['path_on_host']}, [f.fileno()])
            change = {'drive_id': 'root', 'path_on_host': second, **how[0]}
            code, body = http(id, 'PATCH', '/drives/root', change, how[1])
            assert code == 204, body
        ok('snapshot', id, d, '--stop')
        if opts:
            restored(d)
        else:
            refused('restore', d, says=['file host', '--disk id=root,path=FILE'])
            restored('--disk', f'id=root,path={second}', d)


def test_names_that_somebody_else_may_have_written_down():
    path = image('notes')
    for name in ('', 'devices.json'):
        d = fresh_dir('notes')
        id = serve(f'path={path},id=root', 'notes')
        os.chown(vm_path(id, name), 12345, -1)
        ok('snapshot', id, d)
        assert sorted(os.listdir(d)) == ['memory', 'state'], name
        os.chown(vm_path(id, name), 0, -1)
        with open(vm_path(id, 'devices.json'), 'w') as f:
            f.write('{')
        refused('snapshot', '--force', id, d, says=['devices.json', 'not JSON'])
        ok('stop', id)
        assert not os.path.exists(vm_path(id))
        refused('restore', d, says='no file host')


def test_names_of_another_vm():
    """Of one whose directory it is by now. Who answers may be the one that had it before."""
    d = fresh_dir('another')
    one = serve(f'path={image("one")},id=root', 'one')
    other = serve(f'path={image("other")},id=root', 'other')
    sock = vm_path(other, 'api.sock')
    os.rename(sock, sock + '.kept')
    os.link(vm_path(one, 'api.sock'), sock)
    ok('snapshot', other, d)
    os.rename(sock + '.kept', sock)
    assert sorted(os.listdir(d)) == ['memory', 'state']
    for id in one, other:
        ok('snapshot', '--force', id, d)
        assert sorted(os.listdir(d)) == ['host', 'memory', 'state']
        ok('stop', id)


def test_snapshot_by_path_names_disks_too():
    path, d = image('bypath'), fresh_dir('bypath')
    id = serve(f'path={path},id=root', 'bypath', '--no-jail')
    code, body = http(id, 'PUT', '/kelvin/snapshot', {'dir': d})
    assert code == 200, body
    ok('stop', id)
    restored(d)


def test_g01_kill_9_loses_nothing_that_was_flushed():
    """Sectors with sequence numbers, flushed; the monitor is killed at random times."""
    rounds = int(os.environ.get('KELVIN_G01_ROUNDS', '6'))
    for i in range(rounds):
        mode = ('writeback', 'direct', 'overlay')[i % 3]
        path = image(f'g01-{i}', 4 * MIB)
        disk = f'path={path},overlay={path}.top' if mode == 'overlay' else \
            f'path={path},sync={mode}'
        id = start('blk', 'op=log', 'listen', 'flush=8', 'range=1M', id=f'g01-{i}',
                   opts=['--disk', disk])
        pid = pid_of(id)
        durable = 0
        with connect(id) as s:
            end = time.monotonic() + random.uniform(0.05, 0.4)
            lines = s.makefile('r')
            while time.monotonic() < end:
                durable = int(lines.readline().split()[1])
            os.kill(pid, signal.SIGKILL)
            for line in lines:  # what was on its way was acknowledged too
                if line.startswith('durable ') and line.endswith('\n'):
                    durable = int(line.split()[1])
        wait_until(lambda: not alive(pid), what='death')
        assert durable > 0
        r = run_blk(disk, 'op=check', f'durable={durable}', 'range=1M')
        assert r['errors'] == 0, (mode, durable, r)
        ok('kill', id)


def test_many_disks():
    disks = []
    for i in range(4):
        disks += ['--disk', f'path={image(f"m{i}")}']
    id = start('blk', 'op=serve', 'disk=3', opts=[*disks, '--cpus', 2])
    with connect(id) as s:
        told(s, 'write 0 8 1')
    ok('stop', id)
    assert content(os.path.join(TMP, 'm3.img'), 0, 512) != bytes(512)
    assert content(os.path.join(TMP, 'm0.img'), 0, 512) == bytes(512)
    refused('run', *(['--disk', 'path=x'] * 11), guest('hello'), code=2, says='there can be 10')


def test_disk_queues():
    path = image('mq')
    r = run_blk(f'path={path}', 'op=fill', 'seed=2', 'queues=4', opts=['--cpus', '4'])
    assert r['errors'] == 0, r
    run_blk(f'path={path}', 'op=verify', 'seed=2', 'queues=2', opts=['--cpus', '2'])


def test_loop_device():
    """A block device instead of a file."""
    path = image('loop')
    done = subprocess.run(['losetup', '--find', '--show', path], capture_output=True, text=True)
    if done.returncode:
        raise Skip('no loop devices here')
    dev = done.stdout.strip()
    try:
        r = run_blk(f'path={dev}', 'op=fill', 'seed=3')
        assert r['errors'] == 0, r
        run_blk(f'path={dev},sync=direct,ro', 'op=verify', 'seed=3')
        id = serve(f'path={dev}', 'loop')
        refused('run', '--disk', f'path={dev}', guest('hello'), says=dev)
        with connect(id) as s:
            told(s, 'discard 1024 64')
            told(s, 'zeroes 2048 8')
            told(s, 'flush')
        ok('stop', id)
    finally:
        subprocess.run(['losetup', '-d', dev])
