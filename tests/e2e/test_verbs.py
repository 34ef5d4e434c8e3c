# SPDX-License-Identifier: Apache-2.0
"""The command line: facts, mistakes, and what they leave behind (nothing)."""
import bz2
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time

from vm import *


def verbs():
    """All that `kelvin --help` lists."""
    found = re.findall(r'^  ([a-z]+) +\S', ok('--help').out, re.M)
    assert len(found) > 15 and 'exec' in found, found
    return found


def test_every_verb_has_help_with_examples():
    overview = ok('--help').out
    assert max(map(len, overview.splitlines())) <= 80, overview
    for v in verbs():
        text = ok(v, '--help').out
        assert 'usage: kelvin ' + v in text and 'kelvin ' + v in text.split('xample')[-1], text
        refused(v, '--no-such-option', code=2)
        assert ok('help', v).out == text, v
        assert max(map(len, text.splitlines())) <= 80, text
    assert ok('-h').out == ok('help').out == overview
    refused('frobnicate', code=2, says='frobnicate')
    refused('help', 'frobnicate', code=2, says='frobnicate')
    assert kelvin().code == 2


def test_version():
    text = ok('version').out
    assert text.startswith('kelvin ')
    for word in ('--version', '-v', '-V'):
        assert ok(word).out == text, word
    assert 'version' in json.loads(ok('version', '--json').out)


def test_ps_and_inspect():
    assert json.loads(ok('ps', '--json').out) == []
    start('echo', id='one')
    start('echo', id='two', opts=['--memory', '256M'])
    ok('pause', 'two')
    rows = {r['id']: r for r in json.loads(ok('ps', '--json').out)}
    assert rows['one']['state'] == 'running' and rows['two']['state'] == 'paused', rows
    assert rows['two']['memory'] == 256 << 20
    text = ok('ps').out
    assert 'one' in text and 'paused' in text and 'ID' in text.splitlines()[0]
    facts = json.loads(ok('inspect', 'one', '--json').out)
    assert facts['pid'] == pid_of('one') and facts['memory'] == 128 << 20
    assert 'echo.elf' in ok('inspect', 'one').out
    # Thread ids are the host's, whoever tells them.
    tid = facts['threads'][0]['tid']
    assert os.path.exists(f'/proc/{pid_of("one")}/task/{tid}'), tid
    for told in (rows['one'], json.loads(ok('stats', '--json', 'one').out)):
        assert told['threads'][0]['tid'] == tid, told


def test_inspect_of_a_name_that_is_many_things():
    """A VM's name is the VM, whatever lies about in this directory; ./NAME never is."""
    start('echo', id='web')
    os.makedirs(os.path.join(TMP, 'here'))
    here = {'cwd': os.path.join(TMP, 'here')}
    ok('snapshot', 'web', 'web', **here)
    shutil.copy(guest('echo'), os.path.join(TMP, 'here', 'k'))

    def inspect(name):
        return json.loads(ok('inspect', '--json', name, **here).out)

    assert inspect('web')['pid'] == pid_of('web') and inspect('./web')['dir'] == './web'
    assert inspect('k')['format'] == 'ELF64', inspect('k')
    start('echo', id='k')
    assert inspect('k')['pid'] == pid_of('k') and inspect('./k')['format'] == 'ELF64'
    ok('kill', 'web', 'k')
    assert inspect('web')['dir'] == 'web' and inspect('k')['format'] == 'ELF64'


def test_what_is_shown_fits_a_terminal():
    """79 columns, but for a value without blanks; and no limit that nobody set."""
    for i in range(3):
        with open(os.path.join(TMP, f'd{i}'), 'wb') as f:
            f.truncate(1 << 20)
    limits = ('', ',ops=1000', ',bytes=2M')
    start('echo', id='wide',
          opts=[f'--disk=path={TMP}/d{i},id=d{i}{x}' for i, x in enumerate(limits)])
    snap = fresh_dir('wide')
    ok('snapshot', 'wide', snap)
    shown = {words: ok(*words).out for words in (('inspect', snap), ('inspect', 'wide'),
                                                 ('stats', 'wide'), ('ps', '--all'))}
    for words, out in shown.items():
        for line in out.splitlines():
            assert len(line) <= 79 or ' ' not in line[21:], (words, line)
    text = shown['inspect', snap]
    words = 'cmdline              virtio_mmio.device=4K@0xc0001000:5\n' + ' ' * 21 + 'virtio_mmio.'
    assert words in text and words in shown['inspect', 'wide'], text
    assert re.search(r'memory map +0 +\[-\.+\]\n +64M +\[\.+\]\n +one cell is 2M', text), text
    disks = [part.split('identity')[0].split('sync')[1] for part in text.split('  id   ')[1:4]]
    assert 'limit' not in disks[0], text
    assert 'ops\n' in disks[1] and 'bytes' not in disks[1], text
    assert 'ops' not in disks[2], text
    assert re.search(r'bytes\n +size +204.8K\n +refill +100 ms\n', disks[2]), text
    told = json.loads(ok('inspect', '--json', snap).out)['machine']['disks'][0]
    assert told['limit']['ops'] == {'size': 0, 'refill_ns': 0, 'burst': 0}, told


def test_the_log_says_who_asked():
    """A client outside of the VM's pid namespace has no pid there."""
    for opts in (), ('--no-jail',):
        id = start('echo', opts=opts)
        ok('pause', id)
        line = [s for s in open(vm_path(id, 'log')) if 'api: PATCH /vm ' in s][0]
        says = r'from (pid [1-9]\d*, )?uid %d: 204$' % os.geteuid()
        assert re.search(says, line) and ('pid' in line or not opts), line
        ok('kill', id)


def test_pause_stops_and_resume_goes_on():
    start('echo', id='p')
    with connect('p') as s:
        ask(s, 'a')
        ok('pause', 'p')
        ok('pause', 'p')
        s.settimeout(0.4)
        s.sendall(b'b\n')
        try:
            got = s.recv(1)
            raise AssertionError(f'a paused guest answered {got!r}')
        except TimeoutError:
            pass
        s.settimeout(20)
        ok('resume', 'p')
        ok('resume', 'p')
        assert fields(read_line(s))['count'] == '2'
    ok('pause', 'p')
    ok('stop', 'p')  # C05: stop while paused
    refused('stop', 'p', says='p')


def test_dead_vms_are_shown_and_cleaned():
    start('echo', id='d')
    kill_with_keeper('d')
    rows = json.loads(ok('ps', '--json').out)
    assert rows[0]['id'] == 'd' and rows[0]['state'] == 'dead', rows
    refused('snapshot', 'd', fresh_dir('dead'), says='d')
    assert not os.path.exists(os.path.join(TMP, 'dead'))
    refused('pause', 'd', says='d')
    ok('kill', 'd')
    assert running_ids() == []


def test_directories_that_are_no_vms():
    """What lies among the VMs and is none is not listed, not swept, and no VM to any verb."""
    start('echo', id='v')
    ok('snapshot', 'v', vm_path('snap'), '--stop')
    for id, name in ('notes', 'log'), ('born', None):
        os.mkdir(vm_path(id))
        if name:
            open(vm_path(id, name), 'w').close()
            open(vm_path(id, 'mine'), 'w').close()
    was = {id: sorted(os.listdir(vm_path(id))) for id in ('born', 'notes', 'snap')}
    r = ok('ps', '--all')
    assert r.out.count('\n') == 1 and r.err == '', r
    swept = json.loads(kelvin('gc', '--ended', '--json').out)
    assert not [s for s in swept if s['kind'] == 'directory'], swept
    for args in (('kill', 'snap'), ('inspect', 'notes'), ('stats', 'born')):
        refused(*args, says=f'no VM called "{args[1]}"')
    assert was == {id: sorted(os.listdir(vm_path(id))) for id in was}
    ok('run', '--id', 'born', guest('hello'))
    assert running_ids() == ['notes', 'snap']
    for id in ('notes', 'snap'):
        shutil.rmtree(vm_path(id))


def test_vms_of_others_are_not_passed_over_in_silence():
    if os.geteuid() != 0:
        raise Skip('being somebody else needs root')
    mine = fresh_dir('others')
    os.mkdir(mine)
    shutil.copy(KELVIN, mine)
    os.chmod(TMP, 0o755)
    start('echo', id='one')

    def nobody(*args):
        return Result(subprocess.run([os.path.join(mine, 'kelvin'), *args], user=65534, group=65534,
                                     extra_groups=[], capture_output=True, env=ENV,
                                     stdin=subprocess.DEVNULL))

    for args in ('ps',), ('ps', '--json'):
        r = nobody(*args)
        assert r.code == 0 and r.err == 'kelvin: 1 VM of another user cannot be seen\n', r
        assert 'one' not in r.out and ok(*args).err == '', r
    start('echo', id='two')
    assert nobody('ps').err == 'kelvin: 2 VMs of another user cannot be seen\n'
    assert 'ermission' in nobody('inspect', 'one').err
    assert nobody('kill', 'one').code == 1 and alive(pid_of('one'))
    os.chmod(RUN_DIR, 0o700)
    r = nobody('ps')
    assert r.code == 1 and 'ermission' in r.err and len(r.err.splitlines()) == 1, r
    os.chmod(RUN_DIR, 0o755)


def end_of(id):
    """How ps and inspect show that a VM ended, each as text and as JSON."""
    wait_until(lambda: not os.path.exists(vm_path(id, 'pid')), what='its end')
    rows = [r for r in json.loads(ok('ps', '--all', '--json').out) if r['id'] == id]
    lines = [line for line in ok('ps', '--all').out.splitlines() if line.startswith(id + ' ')]
    facts = json.loads(ok('inspect', '--json', id).out)
    assert len(rows) == len(lines) == 1 and rows[0]['state'] == facts['state'] == 'ended', rows
    assert facts == {**rows[0], 'dir': vm_path(id)}, facts
    assert not ok('ps').out.startswith(id) and json.loads(ok('ps', '--json').out) == []
    return lines[0], ok('inspect', id).out, facts


def test_how_a_vm_ended_is_told():
    ok('run', '--detach', '--console', '--id', 'p', guest('fault'), '--', 'how=panic')
    line, text, facts = end_of('p')
    said = "the guest's kernel panicked: Kernel panic - not syncing: played"
    assert (facts['reason'], facts['status'], facts['text']) == ('kernel-panic', 199, said), facts
    assert 'Call Trace' in facts['console'] and 'Call Trace' in text, text
    assert line.endswith('  kernel-panic (199)'), line
    head = ok('ps', '--all').out.splitlines()[0]
    assert head.index('END') == line.index('kernel-panic'), (head, line)
    assert 'reason               kernel-panic\nstatus               199\ntext   ' in text, text
    assert said in ' '.join(text.split()), text


def test_reports_of_the_guests_choice():
    ok('run', '--detach', '--id', 'p', guest('fault'), '--', 'how=triple-fault')
    end_of('p')
    evil = {'reason': 'x\x1b[31m', 'status': -1, 'text': 'a\x1b]0;b\x07\n\x9bc', 'state': 'running',
            'id': 'another', 'pid': 1}
    for left in (json.dumps(evil), '{', '[]', '\0' * 100, '\x1b', '{"text": "' + 'x' * 20000 + '"}'):
        with open(vm_path('p', 'exit.json'), 'w') as f:
            f.write(left)
        line, text, facts = end_of('p')
        assert '\x1b' not in line + text and '\x9b' not in text and 'pid' not in facts, (line, text)
        assert line.split()[-2:] == ['?' if 'reason' in left else '-', '(-)'], line
    os.unlink(vm_path('p', 'exit.json'))
    os.mkfifo(vm_path('p', 'exit.json'))
    assert end_of('p')[2] == {'id': 'p', 'state': 'ended', 'dir': vm_path('p')}
    ok('kill', 'p')


def test_unknown_ids():
    for args in (('pause', 'nobody'), ('resume', 'nobody'), ('stop', 'nobody'), ('kill', 'nobody'),
                 ('connect', 'nobody', '1'), ('inspect', 'nobody'),
                 ('snapshot', 'nobody', fresh_dir('n'))):
        refused(*args, says='nobody')
    refused('run', '--id', '../x', guest('hello'), code=2, says='--id')
    refused('run', '--id', 'a' * 65, guest('hello'), code=2, says='--id')
    r = refused('run', '--id', 'a\n\x1b[31mb', guest('hello'), code=2, says='a??[31mb')
    assert len(r.err.splitlines()) == 1, r
    refused('run', 'no\nfile\x1b[1m\xe9', says='no?file?[1m\xe9')


def test_ids_and_sockets_that_are_taken():
    start('echo', id='t')
    refused('run', '--id', 't', guest('echo'), says=['t', 'running'])
    assert fields(ask_once('t', 'x'))['count'] == '1', 'the running VM was harmed'
    path = os.path.join(TMP, 'taken.sock')
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    refused('run', '--id', 'u', '--vsock', f'path={path}', guest('echo'), says=[path])
    assert os.path.exists(path), 'somebody else\'s socket was removed'
    s.close()
    os.unlink(path)
    refused('run', '--vsock', 'path=/' + 'x' * 107, guest('echo'), code=2, says='path')
    refused('run', '--vsock', 'path=' + os.path.join(TMP, 'y' * (100 - len(TMP))), guest('echo'))
    env = dict(ENV, KELVIN_RUN_DIR=os.path.join(TMP, 'z' * 100))
    refused('run', guest('echo'), env=env, says='long')
    assert running_ids() == ['t']


def write(name, data):
    path = os.path.join(TMP, name)
    with open(path, 'wb') as f:
        f.write(data)
    return path


def test_kernels_that_are_none():
    elf = open(guest('echo'), 'rb').read()
    machine = bytearray(elf)
    machine[18:20] = struct.pack('<H', 183)
    cases = [
        (os.path.join(TMP, 'missing.elf'), 'missing.elf'),
        (TMP, TMP),
        (write('empty', b''), 'empty'),
        (write('text', b'#!/bin/sh\necho hi\n'), 'text'),
        (write('bz2', bz2.compress(elf)), 'bzip2'),
        (write('short', elf[:100]), 'short'),
        (write('cut-elf', elf[:len(elf) // 2]), 'cut-elf'),
        (write('arm', bytes(machine)), 'aarch64'),
        ('/dev/null', '/dev/null'),
    ]
    for path, word in cases:
        refused('run', '--id', 'k', path, says=word)
        assert running_ids() == [], path
    phoff = struct.unpack_from('<Q', elf, 32)[0]
    for i in range(struct.unpack_from('<H', elf, 56)[0]):
        at = phoff + 56 * i
        if struct.unpack_from('<I', elf, at)[0] == 1:
            big = bytearray(elf)
            struct.pack_into('<Q', big, at + 40, 300 << 20)
    refused('run', write('huge', bytes(big)), says=['huge', 'RAM'])
    refused('run', '--initrd', os.path.join(TMP, 'noinitrd'), guest('echo'), says='noinitrd')
    big = write('big-initrd', b'')
    os.truncate(big, 200 << 20)
    refused('run', '--initrd', big, guest('echo'), says='initrd')


def test_a_log_that_cannot_be_opened_stops_it_before_the_guest_runs():
    r = refused('run', '--console', '--log', '/nowhere/log', guest('hello'), says='/nowhere/log')
    assert r.out == '', 'the guest ran'
    assert running_ids() == []


def test_bad_numbers():
    for opt, value in (('--memory', '0'), ('--memory', '-1'), ('--memory', '12Q'), ('--memory', ''),
                       ('--memory', '99999999999999999999G'), ('--cpus', '0'), ('--cpus', '33'),
                       ('--timeout', '5x'), ('--timeout', '0'), ('--boot', 'grub'),
                       ('--vsock', 'cid=2'), ('--vsock', 'cid=4294967295'), ('--vsock', 'x=1'),
                       ('--hint', 'novalue')):
        r = kelvin('run', opt, value, guest('hello'))
        assert r.code in (1, 2) and r.err.startswith('kelvin'), (opt, value, r)
    refused('run', guest('hello'), 'stray', code=2, says='stray')
    refused('run', code=2)
    refused('restore', code=2)
    refused('restore', '--count', '0', TMP, code=2)
    for size in ('1M', '1', '2000000', '5000G'):
        refused('run', '--memory', size, guest('hello'), code=2,
                says=[f'--memory {size}: ', 'from 2M'])
    refused('run', '--memory', '256', guest('hello'), code=2, says='did you mean 256M?')
    refused('run', '--timeout', '5x', guest('hello'), code=2, says='2, which is seconds')
    refused('run', '--vsock', 'cid=2', guest('hello'), code=2, says='cid')
    for shared in ('--vsock=path=/tmp/x.sock', '--log=/tmp/x.log'):
        refused('restore', '--count', '2', shared, TMP, code=2, says='--count')


def test_no_kvm_and_no_permission():
    if os.geteuid() != 0:
        raise Skip('hiding /dev/kvm needs root')
    if subprocess.run(['unshare', '-m', 'true'], capture_output=True).returncode:
        raise Skip('no mount namespaces here')
    cmd = ['unshare', '-m', 'sh', '-c',
           'mount -t tmpfs none /dev && exec "$0" run "$1"', KELVIN, guest('hello')]
    r = Result(subprocess.run(cmd, env=ENV, capture_output=True, stdin=subprocess.DEVNULL))
    assert r.code == 1 and '/dev/kvm' in r.err and len(r.err.splitlines()) == 1, r
    assert running_ids() == []
    cmd[4] = 'mount --bind /dev/null /dev/kvm && exec "$0" run "$1"'
    r = Result(subprocess.run(cmd, env=ENV, capture_output=True, stdin=subprocess.DEVNULL))
    assert r.code == 1 and '/dev/kvm' in r.err, r
    if os.stat('/dev/kvm').st_mode & 0o006 == 0:
        mine = os.path.join(TMP, 'nobody')
        os.mkdir(mine)
        os.chmod(TMP, 0o755)
        for name in ('kelvin', 'hello.elf'):
            shutil.copy(KELVIN if name == 'kelvin' else guest('hello'), os.path.join(mine, name))
        os.chown(mine, 65534, 65534)
        r = Result(subprocess.run([os.path.join(mine, 'kelvin'), 'run',
                                   os.path.join(mine, 'hello.elf')], user=65534, group=65534,
                                  extra_groups=[], capture_output=True, stdin=subprocess.DEVNULL,
                                  env=dict(ENV, KELVIN_RUN_DIR=os.path.join(mine, 'run'))))
        assert r.code == 1 and '/dev/kvm' in r.err and 'ermission' in r.err, r


def test_wait_ready_gives_up():
    r = refused('run', '--detach', '--wait-ready=300ms', '--id', 'w', guest('fault'), '--',
                'how=spin', 'ready=no', says=['"w"', 'ready within 300 ms'])
    assert running_ids() == [], r
    refused('run', '--detach', '--wait-ready', '--id', 'w', guest('fault'), '--', 'how=power',
            'status=3', 'ready=no', says=['"w"', 'before it was ready', 'status 3', vm_path('w')])
    ok('kill', 'w')
    assert running_ids() == []
    refused('run', '--detach', '--wait-ready', '--id', 'w', guest('fault'), '--',
            'how=triple-fault', 'ready=no', says=['"w"', 'ready', 'triple', vm_path('w')])


def test_what_is_printed_gets_there():
    """A detached VM says its id and no more; output that is lost is an error."""
    for i in range(10):
        assert ok('run', '--detach', '--id', f'o{i}', guest('first'), '--', 'stay').out == f'o{i}\n'
    with open('/dev/full', 'w') as full:
        for args in (('--help',), ('ps',), ('version',), ('run', '--detach', guest('echo'))):
            r = subprocess.run([KELVIN, *args], env=ENV, stdin=subprocess.DEVNULL, stdout=full,
                               stderr=subprocess.PIPE)
            assert r.returncode == 1 and b'stdout' in r.stderr, (args, r)


def test_connect_without_stdin():
    start('echo', id='s')
    r = Result(subprocess.run(['sh', '-c', 'exec "$0" connect s 1024 <&-', KELVIN], env=ENV,
                              capture_output=True, timeout=20))
    assert r.code == 0 and not r.out, r


def test_giving_up_a_wait_ends_the_vms():
    p = subprocess.Popen([KELVIN, 'run', '--detach', '--wait-ready=60s', '--id', 'w',
                          guest('fault'), '--', 'how=spin', 'ready=no'], env=ENV,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    wait_until(lambda: listens('w'), what='start')
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=20)
    assert p.returncode == 130 and b'interrupted' in err, (p.returncode, err)
    assert running_ids() == []


def test_ready_means_that_verbs_work():
    # All of it on one processor: what is told first is seen first.
    for i in range(40):
        ok('run', '--detach', '--wait-ready', '--id', f'r{i}', guest('first'), '--', 'stay',
           preexec_fn=lambda: os.sched_setaffinity(0, {0}))
        assert os.path.exists(vm_path(f'r{i}', 'api.sock')), i
        assert http(f'r{i}', 'GET', '/')[0] == 200
        os.kill(pid_of(f'r{i}'), signal.SIGKILL)


def test_api_speaks_firecracker():
    start('echo', id='a', opts=['--no-jail'])
    code, body = http('a', 'GET', '/')
    info = json.loads(body)
    assert code == 200 and info['id'] == 'a' and info['state'] == 'Running', body
    code, body = http('a', 'GET', '/vm/config')
    config = json.loads(body)
    assert config['machine-config']['mem_size_mib'] == 128, body
    assert config['vsock']['guest_cid'] == 3 and 'virtio_mmio.device' in \
        config['boot-source']['boot_args']
    assert http('a', 'PATCH', '/vm', {'state': 'Paused'})[0] == 204
    assert json.loads(http('a', 'GET', '/')[1])['state'] == 'Paused'
    d = fresh_dir('api')
    code, body = http('a', 'PUT', '/snapshot/create', {
        'snapshot_path': os.path.join(d, 'state'), 'mem_file_path': os.path.join(d, 'memory')})
    assert code == 204, body
    ok('verify', d)
    assert http('a', 'PATCH', '/vm', {'state': 'Resumed'})[0] == 204
    code, body = http('a', 'PUT', '/snapshot/create', {
        'snapshot_path': os.path.join(d, 'state'), 'mem_file_path': os.path.join(d, 'memory')})
    assert code == 400 and 'fault_message' in body, body
    for bad in ({'state': 'Flying'}, {'state': 1}, {}, {'state': 'Paused', 'x': 1}, b'{', b'[]'):
        code, body = http('a', 'PATCH', '/vm', bad)
        assert code == 400 and 'fault_message' in json.loads(body), (bad, code, body)
    code, body = http('a', 'PUT', '/foo', {'a': 1})
    assert code == 400 and 'Invalid request method and/or path' in body, body
    assert fields(ask_once('a', 'x'))['count'] == '1'


def test_hostile_api_bytes_do_not_harm_the_vm():
    start('echo', id='h')
    for junk in (b'\0' * 4096, b'GET / HTTP/0.9\r\n\r\n', b'A' * 100000, b'GET ' + b'/' * 5000,
                 b'PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n',
                 b'PUT / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n',
                 b'PUT /vm HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}',
                 b'PATCH /vm HTTP/1.1\r\nContent-Length: 60000\r\n\r\n' + b'[' * 60000):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(5)
        s.connect(vm_path('h', 'api.sock'))
        try:
            s.sendall(junk)
            s.recv(4096)
        except OSError:
            pass
        s.close()
    assert http('h', 'GET', '/')[0] == 200
    assert fields(ask_once('h', 'x'))['count'] == '1'


def test_a_hundred_pauses_under_load():
    start('echo', id='l')
    with connect('l') as s:
        for i in range(100):
            s.sendall(b'x\n')
            ok('pause', 'l')
            ok('resume', 'l')
            assert fields(read_line(s))['count'] == str(i + 1)


def test_monitor_memory():
    if SANITIZED:
        raise Skip('sanitizers use memory of their own')
    start('echo', id='m')
    ask_once('m', 'x')
    total = guest_ram = 0
    size = pss = 0
    with open(f'/proc/{pid_of("m")}/smaps') as f:
        for line in f:
            if line.startswith('Size:'):
                size = int(line.split()[1])
            elif line.startswith('Pss:'):
                pss = int(line.split()[1])
                total += pss
                if size == 128 << 10:
                    guest_ram += pss
    with open(f'/proc/{keeper_of("m")}/smaps_rollup') as f:
        total += sum(int(line.split()[1]) for line in f if line.startswith('Pss:'))
    assert guest_ram > 0
    assert total - guest_ram <= 2048, f'{total - guest_ram} kB beyond guest RAM'
