# SPDX-License-Identifier: Apache-2.0
"""The two machines, lean and pc: which one a kernel gets, and guests of ours in a pc."""
import json
import struct

import forge
from vm import *


def machine_of(id):
    return json.loads(ok('inspect', '--json', id).out)['machine']


def without_note(name):
    """A guest that does not say it is one of ours."""
    data = open(guest(name), 'rb').read()
    assert data.count(b'kelvin\0') >= 1
    path = os.path.join(TMP, name + '-stranger.elf')
    with open(path, 'wb') as f:
        f.write(data.replace(b'\x07\0\0\0\x04\0\0\0\x01\0\0\0kelvin\0', b'\x07\0\0\0\x04\0\0\0\x01\0\0\0strngr\0'))
    return path


def test_auto_tells_kernels_apart():
    stranger = without_note('echo')
    for path, machine in ((guest('echo'), 'lean'), (stranger, 'pc')):
        assert json.loads(ok('inspect', '--json', path).out)['machine'] == machine
        assert f'machine              {machine}' in ok('inspect', path).out
        ok('run', '--detach', '--wait-ready=20s', '--id', machine, path)
        assert machine_of(machine) == machine
        assert fields(ask_once(machine, 'x'))['count'] == '1'


def test_the_operator_has_the_last_word():
    stranger = without_note('echo')
    ok('run', '--detach', '--wait-ready=20s', '--machine', 'lean', '--id', 'a', stranger)
    assert machine_of('a') == 'lean'
    start('echo', id='b', opts=['--machine', 'pc'])
    assert machine_of('b') == 'pc'
    refused('run', '--machine', 'mac', guest('hello'), code=2, says=['--machine', 'mac'])


def test_exit_status_disk_and_console():
    assert kelvin('run', '--machine', 'pc', guest('hello'), '--', 'status=7').code == 7
    disk = os.path.join(TMP, 'pc.img')
    with open(disk, 'wb') as f:
        f.truncate(4 << 20)
    r = ok('run', '--console', '--machine', 'pc', '--disk', f'path={disk}', guest('blk'), '--',
           'op=fill', 'seed=5')
    assert r.out, r
    ok('run', '--machine', 'pc', '--disk', f'path={disk},ro', guest('blk'), '--', 'op=verify',
       'seed=5')


def pc_snapshot(name):
    id = start('echo', opts=['--machine', 'pc', '--cpus', '2'])
    ask_once(id, 'a')
    d = fresh_dir(name)
    ok('snapshot', id, d, '--stop')
    return d


def test_snapshot_and_restore():
    d = pc_snapshot('pc')
    ok('verify', d)
    assert json.loads(ok('inspect', '--json', d).out)['machine']['machine'] == 'pc'
    ok('restore', '--detach', '--wait-ready', '--count', '3', '--id', 'c', d)
    for i in range(3):
        f = fields(ask_once(f'c-{i}', 'x'))
        assert f['count'] == '2' and f['generation'] == '1', f
        assert machine_of(f'c-{i}') == 'pc'
    again = fresh_dir('pc2')
    ok('snapshot', 'c-0', again, '--stop')
    ok('restore', '--detach', '--wait-ready', '--id', 'd', again)
    assert fields(ask_once('d', 'x'))['count'] == '3'


def test_interrupts_through_kvms_ioapic():
    irqs_go_on_after_restore('--machine', 'pc')


def changed(tag, change):
    """For forge.forged(): what change(content) gives for that section, the others as they are."""
    return lambda t, content: change(content) if t == tag else content


def test_h08_forged_chips():
    d = pc_snapshot('pc')
    base_at = 2 * 16  # after two PICs of 16 bytes: where the IOAPIC says it is

    def over_ram(content):
        return content[:base_at] + struct.pack('<Q', 0x100000) + content[base_at + 8:]

    cases = (('chips', over_ram, ['section chips', 'IOAPIC: base_address is 0x100000']),
             ('chips', lambda c: c[:4] + b'\x09' + c[5:], ['section chips', 'priority_add is 0x9']),
             ('chips', lambda c: c[:-1], ['section chips', 'wrong length']),
             ('cmos', lambda c: b'\xff\0', ['section cmos', 'index']),
             ('i8042', lambda c: b'\0', ['section i8042', '1 bytes']))
    for tag, change, says in cases:
        bad = forge.forged(d, fresh_dir('bad-chips'), changed(tag, change))
        refused('restore', bad, says=says)
        refused('verify', bad, says=says)
    refused('restore', forge.forged(d, fresh_dir('none'), changed('chips', lambda c: None)),
            says='chips')
    xt = changed('machine', lambda c: c.replace(b'"machine":"pc"', b'"machine":"xt"'))
    refused('restore', forge.forged(d, fresh_dir('kind'), xt), says=['section machine', '"xt"'])
