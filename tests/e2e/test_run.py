# SPDX-License-Identifier: Apache-2.0
"""Booting guests, and every way they end."""
import json
import os
import signal
import socket
import subprocess
import time

from vm import *


def test_hello_exits_with_the_guests_status():
    assert ok('run', guest('hello')).out == ''
    assert kelvin('run', guest('hello'), '--', 'status=42').code == 42
    assert running_ids() == []


def test_hello_prints_on_the_console():
    r = ok('run', '--console', guest('hello'))
    assert 'hello' in r.out.lower(), r


def test_both_boot_protocols_and_both_backings():
    for boot in ('pvh', 'linux64', 'auto'):
        assert kelvin('run', '--boot', boot, guest('hello'), '--', 'status=7').code == 7, boot
    assert kelvin('run', '--memfd', guest('hello'), '--', 'status=8').code == 8
    assert kelvin('run', '--memory', '4G', guest('hello'), '--', 'status=9').code == 9
    for huge in ('auto', 'thp', 'off'):
        assert kelvin('run', '--huge', huge, guest('hello'), '--', 'status=6').code == 6, huge
    refused('run', '--huge', 'yes', guest('hello'), code=2, says='--huge')
    refused('run', '--huge', '2M', '--memfd', guest('hello'), code=2, says='--memfd')
    refused('run', '--huge', '2M', '--memory', '4100K', guest('hello'), says='multiple of 2M')
    # No pool is so large.
    refused('run', '--huge', '2M', '--memory', '512G', guest('hello'), says='nr_hugepages')
    for boot in ('pvh', 'linux64'):
        id = start('echo', opts=['--boot', boot])
        assert fields(ask_once(id, 'x'))['count'] == '1'


def test_json_events():
    r = ok('run', '--json', guest('hello'))
    events = [json.loads(line) for line in r.out.splitlines()]
    # A quick guest may be ready before its start is told.
    assert sorted(e['event'] for e in events[:2]) == ['ready', 'started'], r
    assert [e['event'] for e in events[2:]] == ['exit'], r
    ready = [e for e in events if e['event'] == 'ready'][0]
    assert events[2]['reason'] == 'power-off' and events[2]['status'] == 0
    assert 0 < ready['us'] < 5_000_000


def test_faults_have_names_statuses_and_registers():
    for how, status, word in (('triple-fault', 193, 'triple-fault'), ('halt', 194, 'halted'),
                              ('run-hole', 195, 'kvm-internal-error')):
        r = kelvin('run', guest('fault'), '--', f'how={how}')
        assert r.code == status, r
        assert word.split('-')[0] in r.err.lower() and 'rip' in r.err.lower(), r
        r = kelvin('run', '--json', guest('fault'), '--', f'how={how}')
        end = json.loads(r.out.splitlines()[-1])
        assert end['reason'] == word and end['status'] == status, r


def test_json_and_the_console_do_not_mix():
    r = ok('run', '--json', '--console', guest('hello'))
    assert [json.loads(line)['event'] for line in r.out.splitlines()][-1] == 'exit', r
    assert 'hello from' in r.err and 'hello from' not in r.out, r


def test_a_reboot_is_not_a_power_off():
    for how in ('reset-acpi', 'reset-port'):
        r = kelvin('run', guest('fault'), '--', f'how={how}')
        assert r.code == 191, r
        assert r.err == f'kelvin: {r.err.split()[1]} the guest asked for a reboot ' \
            '(with --console it can say why)\n', r
        r = kelvin('run', '--json', guest('fault'), '--', f'how={how}')
        end = json.loads(r.out.splitlines()[-1])
        assert end['reason'] == 'reboot' and end['status'] == 191, r


def test_a_panic_is_told_as_one():
    r = kelvin('run', '--console', guest('fault'), '--', 'how=panic')
    said = "the guest's kernel panicked: Kernel panic - not syncing: played"
    assert r.code == 199 and len(r.err.splitlines()) == 1 and r.err.endswith(said + '\n'), r
    ok('run', '--detach', '--console', '--id', 'p', guest('fault'), '--', 'how=panic')
    end = exit_report('p')
    assert end['reason'] == 'kernel-panic' and end['status'] == 199 and end['text'] == said, end
    assert end['console'].endswith('not syncing: played\n[    0.2] Call Trace:\n'), end
    assert 'Call Trace' in open(vm_path('p', 'log')).read()
    # Nobody heard it; and who powers off has not panicked, whatever it prints.
    r = kelvin('run', guest('fault'), '--', 'how=panic')
    assert r.code == 193 and 'with --console it can say why' in r.err, r
    ok('run', '--console', guest('fault'), '--', 'how=panic-power')


def test_stop_of_a_guest_without_a_power_button_does_not_wait():
    for how in ('spin', 'wait'):
        id = start('fault', f'how={how}')
        begin = time.monotonic()
        ok('stop', '--wait', '30s', id)
        assert time.monotonic() - begin < 5
    id = start('echo')
    begin = time.monotonic()
    ok('stop', id)
    assert time.monotonic() - begin < 5
    refused('stop', '--wait', 'soon', 'x', code=2, says='--wait')
    refused('kill', '--wait', '1s', 'x', code=2, says='wait')


def test_stop_presses_the_power_button():
    ok('run', '--detach', '--wait-ready', '--id', 'b', guest('acpi'), '--', 'how=button')
    begin = time.monotonic()
    ok('stop', '--wait', '30s', 'b')
    assert time.monotonic() - begin < 10
    # It ended with a status of its own, so it was no operator who ended it.
    p = subprocess.Popen([KELVIN, 'run', '--json', '--id', 'b', guest('acpi'), '--', 'how=button'],
                         env=ENV, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    while b'ready' not in p.stdout.readline():
        pass
    wait_until(lambda: listens('b'), what='api.sock')
    ok('stop', 'b')
    end = json.loads(p.communicate()[0].splitlines()[-1])
    assert end['reason'] == 'power-off' and end['status'] == 5 and p.returncode == 5, end


def test_stop_ends_a_guest_that_does_not_power_off():
    def deaf(id):
        ok('run', '--detach', '--wait-ready', '--id', id, guest('acpi'), '--', 'how=deaf')
        return time.monotonic()

    begin = deaf('d')
    ok('stop', '--wait', '700ms', 'd')
    assert 0.7 <= time.monotonic() - begin < 10
    for args in (('stop', '--wait', '0'), ('kill',)):
        begin = deaf('d')
        ok(*args, 'd')
        assert time.monotonic() - begin < 5, args
    # Paused: nobody there could do anything.
    begin = deaf('d')
    ok('pause', 'd')
    ok('stop', '--wait', '30s', 'd')
    assert time.monotonic() - begin < 5
    # While one stop waits, another may be in more of a hurry.
    begin = deaf('d')
    status, text = http('d', 'PUT', '/kelvin/stop', {'wait_ms': 30000})
    assert status == 204, text
    assert running_ids() == ['d']
    ok('stop', '--wait', '0', 'd')
    assert time.monotonic() - begin < 10
    # The button goes with a snapshot; a restored guest is pressed as the first was.
    deaf('d')
    d = fresh_dir('deaf')
    ok('snapshot', 'd', d, '--stop')
    ok('restore', '--detach', '--id', 'e', d)
    begin = time.monotonic()
    ok('stop', '--wait', '700ms', 'e')
    assert 0.7 <= time.monotonic() - begin < 10


def test_fault_of_a_detached_vm_leaves_its_log():
    ok('run', '--detach', '--id', 'f', guest('fault'), '--', 'how=triple-fault')
    assert exit_report('f')['reason'] == 'triple-fault'
    log = open(vm_path('f', 'log')).read()
    assert 'triple-faulted' in log and 'rip' in log.lower(), log
    # Its name is free again.
    start('echo', id='f')
    assert not os.path.exists(vm_path('f', 'exit.json'))


def test_a_detached_vm_that_ends_badly_unasked_leaves_a_report():
    ok('run', '--detach', '--id', 'b3', guest('hello'), '--', 'status=3')
    assert (exit_report('b3')['reason'], exit_report('b3')['status']) == ('power-off', 3)
    start('echo', id='bt', opts=('--timeout', '2s'))
    assert exit_report('bt')['status'] == 192
    assert {'b3', 'bt'} <= {vm['id'] for vm in json.loads(ok('ps', '--all', '--json').out)}
    # What went well, or was asked for, leaves nothing.
    ok('run', '--detach', '--id', 'b0', guest('hello'))
    start('echo', id='bs')
    start('echo', id='bk')
    ok('stop', 'bs')
    ok('kill', 'bk')
    for id in ('b0', 'bs', 'bk'):
        wait_until(lambda: not os.path.exists(vm_path(id)), what=f'the end of {id}')
    ok('kill', 'b3', 'bt')
    assert not os.path.exists(vm_path('b3'))


def test_exceptions_in_ring_3_end_the_guest():
    for how in ('ud', 'pf'):
        r = kelvin('run', guest('fault'), '--', f'how={how}')
        assert 0 < r.code < 256 and r.code not in (1, 2), (how, r)


def test_timeout():
    begin = time.monotonic()
    r = kelvin('run', '--timeout', '300ms', guest('fault'), '--', 'how=spin')
    assert r.code == 192 and 'timeout' in r.err, r
    assert 0.3 <= time.monotonic() - begin < 5


def test_signals_end_it_with_128_plus_n():
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        p = subprocess.Popen([KELVIN, 'run', '--json', guest('echo')], env=ENV,
                             stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        while b'ready' not in p.stdout.readline():
            pass
        p.send_signal(sig)
        assert p.wait(10) == 128 + sig
        p.stdout.close()
    assert running_ids() == []


def test_echo_counts_and_knows_who_it_is():
    id = start('echo')
    with connect(id) as s:
        first = ask(s, 'one')
        assert first.startswith('one '), first
        assert fields(first)['count'] == '1' and fields(first)['generation'] == '0', first
        assert fields(ask(s, 'two'))['count'] == '2'
    assert fields(ask_once(id, 'three'))['count'] == '3'
    ok('stop', id)
    assert running_ids() == []


def test_guest_connects_to_the_host():
    ok('run', '--detach', '--id', 'g', guest('hello'), '--', 'status=0')  # the directory appears
    wait_until(lambda: running_ids() == [], what='end of hello')
    path = os.path.join(TMP, 'v.sock')
    server = socket.socket(socket.AF_UNIX)
    server.bind(path + '_77')
    server.listen(1)
    server.settimeout(20)
    start('echo', 'connect=77', opts=['--vsock', f'path={path}'], id='g')
    peer, _ = server.accept()
    peer.settimeout(20)
    assert read_line(peer) != ''
    peer.close()
    server.close()
    ok('kill', 'g')
    assert not os.path.exists(path), 'the vsock socket was left behind'


def test_irq_guest_takes_interrupts():
    id = start('irq')
    with connect(id) as s:
        ask(s, 'a')
        time.sleep(0.05)
        assert int(fields(ask(s, 'b'))['irqs']) >= 1


def test_bulk_through_connect_both_ways():
    id = start('echo')
    size = 8 << 20
    data = os.urandom(1 << 20) * (size >> 20)
    h = 0xcbf29ce484222325
    # FNV-1a of repeated data is slow in Python: check 1 MiB of it, and the count of all.
    for b in data[:1 << 20]:
        h = ((h ^ b) * 0x100000001b3) & 0xffffffffffffffff
    r = ok('connect', id, 1025, input=data[:1 << 20])
    assert fields(r.out) == {'bytes': str(1 << 20), 'sum': f'{h:016x}'}, r
    r = ok('connect', id, 1025, input=data)
    assert fields(r.out)['bytes'] == str(size), r
    with connect(id, 1026) as s:
        s.sendall(b'%d\n' % size)
        got = bytearray()
        while len(got) < size:
            part = s.recv(1 << 20)
            assert part, f'ended after {len(got)} bytes'
            got += part
    want = bytes((i * 7 + 3) & 0xff for i in range(256))
    assert got == bytearray(want * (size // 256))


def test_many_connections():
    id = start('echo')
    socks = [connect(id) for _ in range(40)]
    counts = [int(fields(ask(s, 'x'))['count']) for s in socks]
    assert counts == list(range(1, 41)), counts
    for s in socks:
        s.close()
    assert fields(ask_once(id, 'x'))['count'] == '41'


def test_connect_waits_for_a_listener_and_says_when_there_is_none():
    id = start('echo', opts=['--vsock', 'wait=200ms'])
    begin = time.monotonic()
    refused('connect', id, 9, says=['9'])
    assert time.monotonic() - begin < 5


def test_idle_guest_uses_no_cpu():
    not_under_tsan()
    id = start('echo')
    pid = pid_of(id)

    def switches():
        total = 0
        for task in os.listdir(f'/proc/{pid}/task'):
            with open(f'/proc/{pid}/task/{task}/status') as f:
                total += sum(int(line.split()[1]) for line in f if 'ctxt_switches' in line)
        return total

    ask_once(id, 'x')
    time.sleep(3.0)  # one last look at whether the guest can run again
    before = switches()
    time.sleep(2.0)
    assert switches() == before, 'an idle VM wakes up'


def test_hints_reach_the_log_not_the_monitor():
    id = start('echo', opts=['--hint', 'name=web', '--hint', 'addr=10.0.0.2'])
    assert fields(ask_once(id, 'x'))['count'] == '1'
