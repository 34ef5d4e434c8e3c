# SPDX-License-Identifier: Apache-2.0
"""Life cycle: requests that overlap, VMs that come and go at once, and what is left of them."""
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

from vm import *


def api(id):
    """A connection to api.sock that the VM has accepted."""
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(vm_path(id, 'api.sock'))
    ask_api(s, 'GET', '/')
    return s


def send_api(s, method, path, body=None, length=0):
    data = json.dumps(body).encode().ljust(length) if body is not None else b''
    s.sendall(f'{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n'.encode()
              + data)


def status_of(s):
    """Reads a reply and returns its status."""
    got = b''
    while b'\r\n\r\n' not in got:
        part = s.recv(65536)
        assert part, 'the API hung up'
        got += part
    head, _, body = got.partition(b'\r\n\r\n')
    for line in head.split(b'\r\n'):
        if line.startswith(b'Content-Length:'):
            while len(body) < int(line.split(b':')[1]):
                body += s.recv(65536)
    return int(head.split()[1])


def ask_api(s, *request):
    send_api(s, *request)
    return status_of(s)


def all_at_once(id, requests):
    """Sends them on connections of their own, so that one turn of the VM's loop sees all."""
    socks = [api(id) for _ in requests]
    pid = pid_of(id)
    os.kill(pid, signal.SIGSTOP)
    for s, r in zip(socks, requests):
        send_api(s, *r)
    os.kill(pid, signal.SIGCONT)
    return socks


def state(id):
    return json.loads(http(id, 'GET', '/')[1])['state']


def test_standard_descriptors_may_be_closed():
    for closed in ('<&-', '>&-', '2>&-', '<&- >&-', '<&- >&- 2>&-'):
        r = subprocess.run(['sh', '-c', f'exec "$0" run --detach --id c "$1" {closed}', KELVIN,
                            guest('echo')], env=ENV, capture_output=True)
        assert r.returncode == 0, (closed, r)
        assert fields(ask_once('c', 'x'))['count'] == '1', closed
        ok('stop', 'c')


def test_what_was_open_for_us_is_closed():
    """A pipe or a lock of the script that starts VMs in the background ends with the script."""
    for opts in ([], ['--no-jail']):
        out, into = os.pipe()
        ok('run', '--detach', '--wait-ready', '--id', 'o', *opts, guest('echo'), pass_fds=[into])
        os.close(into)
        os.set_blocking(out, False)
        assert os.read(out, 1) == b''
        os.close(out)
        ok('stop', 'o')


def test_clones_hold_no_pipes_of_each_other():
    start('echo', id='p')
    d = fresh_dir('pipes')
    ok('snapshot', 'p', d, '--stop')
    ok('restore', '--count', 6, '--wait-ready', '--id', 'q', d)
    for i in range(6):
        fds = f'/proc/{pid_of(f"q-{i}")}/fd'
        pipes = [f for f in os.listdir(fds) if os.readlink(f'{fds}/{f}').startswith('pipe:')]
        assert len(pipes) <= 1, (i, pipes)


def test_pause_asked_with_a_snapshot_that_fails():
    """The snapshot fails at once and lets the VM go on; who asked for a pause still gets one."""
    start('echo', id='f', opts=['--no-jail'])
    # Bodies of one size are complete in the same turn of the loop.
    a, b = all_at_once('f', [('PUT', '/kelvin/snapshot', {'dir': '/' + 'x' * 5000}, 6000),
                             ('PATCH', '/vm', {'state': 'Paused'}, 6000)])
    assert status_of(a) == 400
    assert status_of(b) == 204
    assert state('f') == 'Paused'
    assert ask_api(b, 'PATCH', '/vm', {'state': 'Resumed'}) == 204
    assert fields(ask_once('f', 'x'))['count'] == '1'


def test_two_snapshots_at_once():
    start('fill', 'mib=16', id='two', opts=['--no-jail'])
    d = [fresh_dir(f'two{i}') for i in range(2)]
    socks = all_at_once('two', [('PUT', '/kelvin/snapshot', {'dir': x}) for x in d])
    codes = sorted(status_of(s) for s in socks)
    assert codes == [200, 400], codes
    done = [x for x in d if os.path.exists(x)]
    assert len(done) == 1
    ok('verify', done[0])
    assert state('two') == 'Running' and ask_once('two', 'verify').startswith('ok')


def test_stop_races_with_everything():
    """All asked in one turn of the loop, in both orders: everybody is answered or hung up on, and
    the VM is gone."""
    stop = ('PUT', '/kelvin/stop', {})
    d = fresh_dir('race-stop')
    others = [('PATCH', '/vm', {'state': 'Paused'}), ('PATCH', '/vm', {'state': 'Resumed'}),
              ('PUT', '/kelvin/snapshot', {'dir': d}), ('PUT', '/kelvin/kill', {}), stop]
    for other in others:
        for paused in (False, True):
            for order in (0, 1):
                id = start('echo', opts=['--no-jail'])
                pid = pid_of(id)
                if paused:
                    ok('pause', id)
                socks = all_at_once(id, [stop, other][::-1 if order else 1])
                for s in socks:
                    assert status_of(s) in (200, 204, 400), (other, paused, order)
                wait_until(lambda: not alive(pid), what=f'end after {other} {paused} {order}')
                assert running_ids() == [], (other, paused, order)
                if os.path.exists(d):
                    ok('verify', d)
                    shutil.rmtree(d)


def test_sigterm_during_a_snapshot():
    """The snapshot is finished, answered, and whole; then the VM ends."""
    not_under_tsan()
    start('fill', 'mib=64', id='term')
    pid = pid_of('term')
    d = fresh_dir('term')
    p = subprocess.Popen([KELVIN, 'snapshot', 'term', d], env=ENV, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)

    def written():  # the monitor is at it: the client makes empty files
        return any(os.stat(m).st_size for m in glob.glob(os.path.join(TMP, '.term*', 'memory')))
    wait_until(lambda: written() or p.poll() is not None, what='the writer')
    os.kill(pid, signal.SIGTERM)
    out, err = p.communicate(timeout=20)
    assert p.returncode == 0, err
    ok('verify', d)
    wait_until(lambda: not alive(pid), what='end')
    assert running_ids() == []


def test_client_gone_during_a_snapshot():
    start('fill', 'mib=32', id='gone', opts=['--no-jail'])
    d = fresh_dir('gone')
    s = api('gone')
    send_api(s, 'PUT', '/kelvin/snapshot', {'dir': d})
    s.close()
    wait_until(lambda: os.path.exists(d), what='the snapshot')
    wait_until(lambda: state('gone') == 'Running', what='going on')
    ok('verify', d)
    assert ask_once('gone', 'verify').startswith('ok')


def test_one_id_many_takers():
    """However many start, stop and look at once: one VM has the name, and nothing is left."""
    end = time.monotonic() + 4
    wrong = []

    def taker():
        while time.monotonic() < end:
            r = kelvin('run', '--detach', '--id', 'same', guest('echo'))
            if r.code and 'running already' not in r.err and 'ending' not in r.err:
                wrong.append(r)
            kelvin('stop', 'same')

    def looker():
        while time.monotonic() < end:
            if kelvin('ps').code:
                wrong.append('ps')

    threads = [threading.Thread(target=t) for t in (taker, taker, taker, looker)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    kelvin('kill', 'same')
    assert not wrong, wrong[:3]
    assert running_ids() == []


def test_a_socket_of_a_dead_vm_is_taken_over():
    path = os.path.join(TMP, 'taken-over.sock')
    opts = ['--vsock', f'path={path}']
    start('echo', id='a', opts=opts)
    kill_with_keeper('a')
    wait_until(lambda: json.loads(ok('ps', '--json').out)[0]['state'] == 'dead', what='death')
    start('echo', id='a', opts=opts)
    assert fields(ask_once('a', 'x'))['count'] == '1'
    ok('stop', 'a')
    assert not os.path.exists(path)


def test_a_socket_of_another_vm_is_left_alone():
    path = os.path.join(TMP, 'others.sock')
    opts = ['--vsock', f'path={path}']
    for end in ('stop', 'kill ended', 'kill dead'):
        start('echo', id='a', opts=opts)
        if end == 'kill ended':
            os.kill(pid_of('a'), signal.SIGKILL)
            wait_until(lambda: not os.path.exists(path), what='its keeper to clean up')
        else:
            if end == 'kill dead':
                kill_with_keeper('a')
            os.unlink(path)
        start('echo', id='b', opts=opts)
        ok(end.split()[0], 'a')
        assert os.path.exists(path), f'{end}: the socket of another VM was removed'
        assert fields(ask_once('b', 'x'))['count'] == '1'
        ok('stop', 'b')
        assert not os.path.exists(path)


def test_paths_that_are_not_utf8():
    path = os.path.join(TMP.encode(), b'k\xff.elf')
    shutil.copy(guest('echo'), path)
    r = Result(subprocess.run([KELVIN, 'run', path], env=ENV, capture_output=True))
    assert r.code == 2 and 'UTF-8' in r.err, r
    r = Result(subprocess.run([KELVIN, 'run', '--vsock', b'path=/tmp/\xff', guest('echo')],
                              env=ENV, capture_output=True))
    assert r.code == 2 and 'UTF-8' in r.err, r


def test_h09_memory_file_cut_under_a_vm():
    """No crash that leaves things behind: it ends, says why, and frees its name."""
    start('fill', 'mib=16', id='t')
    d = fresh_dir('cut')
    ok('snapshot', 't', d, '--stop')
    for detach in (False, True):
        c = fresh_dir('cut-copy')
        shutil.copytree(d, c)
        args = [KELVIN, 'restore', '--id', 'cut', *(['--detach'] if detach else []), c]
        p = subprocess.Popen(args, env=ENV, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL)
        wait_until(lambda: listens('cut'), what='start')
        assert http('cut', 'GET', '/')[0] == 200  # it runs
        pid = pid_of('cut')
        os.truncate(os.path.join(c, 'memory'), 4096)
        try:
            ask_once('cut', 'verify')
        except (AssertionError, OSError):
            pass
        wait_until(lambda: not alive(pid), what='end')
        err = p.communicate(timeout=20)[1].decode()
        if detach:
            report = exit_report('cut')
            assert report['status'] in (135, 198) and report['text'], report
            assert 'ended: ' in open(vm_path('cut', 'log')).read()
            ok('kill', 'cut')
        else:
            assert p.returncode in (135, 198) and err.startswith('kelvin: cut: '), err
        assert running_ids() == []


def test_run_directory_of_somebody_else():
    """/run/kelvin as a link into /dev/shm that outlived its target, which another user made."""
    if os.geteuid() != 0:
        raise Skip('mounting needs root')
    script = '''mount -t tmpfs none /dev/shm && mkdir "$3" && mount --bind "$3" /run &&
        ln -s /dev/shm/kelvin /run/kelvin && mkdir -m 777 /dev/shm/kelvin &&
        chown 65534 /dev/shm/kelvin && "$1" run "$2"; echo $?; "$1" ps; ls /dev/shm/kelvin'''
    env = {k: v for k, v in ENV.items() if k != 'KELVIN_RUN_DIR'}
    r = Result(subprocess.run(['unshare', '-m', 'sh', '-c', script, 'sh', KELVIN, guest('hello'),
                               fresh_dir('run-on-disk')], env=env, capture_output=True,
                              stdin=subprocess.DEVNULL))
    assert r.out == '1\n' and r.err.count('/run/kelvin can be written by others') == 2, r
