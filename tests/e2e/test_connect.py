# SPDX-License-Identifier: Apache-2.0
"""kelvin connect as a pipe: what goes in comes out, how it ends, and what it says about that."""
import hashlib
import pty
import threading

from vm import *

BIG = (64 if SANITIZED else 256) << 20
SOURCE = bytes((i * 7 + 3) & 255 for i in range(256))  # what port 5001 sends


def vsock_guest(id):
    return start('vsock', id=id)


def popen(*args, **kw):
    for stream in ('stdin', 'stdout', 'stderr'):
        kw.setdefault(stream, subprocess.PIPE)
    kw.setdefault('env', ENV)
    # A shell's background jobs, and so their children, ignore SIGINT.
    kw.setdefault('preexec_fn', lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    return subprocess.Popen([KELVIN, 'connect', *map(str, args)], **kw)


def big_file(name):
    """BIG bytes, all values, not periodic in any power of two. Returns path and SHA-256."""
    path, h, left = os.path.join(TMP, name), hashlib.sha256(), BIG
    block = os.urandom((1 << 20) - 4093)
    with open(path, 'wb') as f:
        while left:
            part = block[:left]
            h.update(part)
            left -= f.write(part)
    return path, h.hexdigest()


def test_connect_keeps_big_files_intact():
    vsock_guest('big')
    data, digest = big_file('data')
    # From a file, then through pipes; the second time two at once.
    for feed, clients in (('exec < "$1"', 1), ('exec < <(cat "$1")', 2)):
        script = feed + '; "$0" connect big 5005 | sha256sum'
        done = [subprocess.Popen(['bash', '-o', 'pipefail', '-c', script, KELVIN, data], env=ENV,
                                 stdout=subprocess.PIPE) for _ in range(clients)]
        for p in done:
            out, _ = p.communicate(timeout=120)
            assert p.returncode == 0 and out.split()[0].decode() == digest, (p.returncode, out)
    os.unlink(data)


def test_connect_passes_half_closes_on():
    vsock_guest('h')
    # Ours: the guest answers after the end of its input.
    p = popen('h', 5000)
    p.stdin.write(b'x' * 1000)
    p.stdin.close()
    assert p.stdout.read() == b'bytes=1000\n' and p.wait(20) == 0
    # The guest's: it is done, and we end though stdin stays open.
    p = popen('h', 5001)
    p.stdin.write(b'10\n')
    p.stdin.flush()
    assert p.stdout.read() == SOURCE[:10] and p.wait(20) == 0
    p.stdin.close()


def test_connect_takes_any_kind_of_stdin():
    vsock_guest('in')
    with open(os.path.join(TMP, 'in'), 'wb+') as f:
        f.write(b'y' * 100000)
        f.seek(0)
        assert ok('connect', 'in', 5000, stdin=f).out == 'bytes=100000\n'
    assert ok('connect', 'in', 5000).out == 'bytes=0\n'  # /dev/null
    r = Result(subprocess.run(['sh', '-c', 'exec "$0" connect in 5000 <&-', KELVIN], env=ENV,
                              capture_output=True, timeout=20))
    assert r.code == 0 and r.out == 'bytes=0\n', r
    a, b = socket.socketpair()
    p = popen('in', 5002, stdin=b, stdout=b)
    b.close()
    a.sendall(b'there')
    assert a.recv(5, socket.MSG_WAITALL) == b'there'
    a.shutdown(socket.SHUT_WR)
    assert a.recv(1) == b'' and p.wait(20) == 0
    # A terminal, ended by control-D.
    master, slave = pty.openpty()
    p = popen('in', 5000, stdin=slave)
    os.close(slave)
    os.write(master, b'typed\n\x04')
    assert p.stdout.read() == b'bytes=6\n' and p.wait(20) == 0
    os.close(master)
    refused('connect', 'in', 5000, stdin=os.open('/', os.O_RDONLY), says=['stdin', 'directory'])


def test_connect_says_what_went_wrong():
    vsock_guest('w')
    refused('connect', 'nobody', 1024, says=['nobody', 'kelvin ps'])
    refused('connect', 'w', 9, says=['does not listen', '9'])
    for args in (('w',), ('w', 'x'), ('w', '-1'), ('w', 4294967295), ('w', 1, 2), ()):
        refused('connect', *args, code=2)
    with open('/dev/full', 'w') as full:
        p = popen('w', 5001, stdout=full)
        _, err = p.communicate(b'10\n', timeout=20)
        assert p.returncode == 1 and b'cannot write stdout' in err, err


def cut_off(id, port, feed):
    """The VM is killed while data moves; how connect ends."""
    p = popen(id, port)

    def write():
        try:
            while True:
                p.stdin.write(feed)
                p.stdin.flush()
        except OSError:
            pass

    threading.Thread(target=write, daemon=True).start()
    if port == 5001:
        assert p.stdout.read(1 << 20)
    else:
        time.sleep(0.2)
    os.kill(pid_of(id), signal.SIGKILL)
    p.stdout.read()
    err = p.stderr.read()
    assert p.wait(20) == 1, err
    assert err.count(b'\n') == 1 and b'cut off' in err, err


def test_connect_fails_when_the_vm_dies():
    vsock_guest('d1')
    cut_off('d1', 5001, b'100G\n')
    vsock_guest('d2')
    cut_off('d2', 5000, b'z' * 65536)
    # All input was taken and answered, and still it is no good end.
    vsock_guest('d3')
    p = popen('d3', 5002)
    p.stdin.write(b'hello')
    p.stdin.flush()
    assert p.stdout.read(5) == b'hello'
    os.kill(pid_of('d3'), signal.SIGKILL)
    assert p.wait(20) == 1 and b'cut off' in p.stderr.read()


def test_connect_fails_when_the_guest_is_replaced():
    vsock_guest('s')
    p = popen('s', 5001)
    p.stdin.write(b'100G\n')
    p.stdin.flush()
    assert p.stdout.read(1 << 20)
    ok('snapshot', 's', fresh_dir('s'), '--stop')
    p.stdout.read()
    assert p.wait(20) == 1 and b'cut off' in p.stderr.read()


def test_connect_and_signals():
    vsock_guest('sig')
    p = popen('sig', 5001)
    p.stdin.write(b'100G\n')
    p.stdin.flush()
    p.stdout.read(100)
    p.stdout.close()  # as head does
    assert p.wait(20) == -signal.SIGPIPE and p.stderr.read() == b''
    p = popen('sig', 5002)
    p.stdin.write(b'x')
    p.stdin.flush()
    p.stdout.read(1)
    p.send_signal(signal.SIGINT)
    assert p.wait(20) == -signal.SIGINT and p.stderr.read() == b''
    # The guest is none the worse for it.
    assert ok('connect', 'sig', 5002, input=b'again').out == 'again'


def test_connect_loses_nothing_to_a_slow_reader():
    """The guest has long closed when the reader begins, and more is under way than sockets hold."""
    vsock_guest('slow')
    size = 1200 * 1024
    s = connect('slow', 5001)
    s.sendall(b'%d\n' % size)
    time.sleep(3)
    got = bytearray()
    while part := s.recv(1 << 16):
        got += part
    assert got == SOURCE * (size // 256), len(got)
    s.close()


def test_connect_says_that_a_vm_is_paused():
    vsock_guest('p')
    ok('pause', 'p')
    for args in ((), ('--timeout', '100ms'), ('--wait', '1200ms')):
        refused('connect', *args, 'p', 5000, says='VM "p" is paused (kelvin resume p)')
    for args in (('exec', 'p', '--', 'true'), ('cp', '/etc/passwd', 'p:/')):
        refused(*args, says='cannot reach the agent: VM "p" is paused (kelvin resume p)')
    ok('resume', 'p')
    assert ok('connect', 'p', 5000, input=b'abc').out == 'bytes=3\n'


def test_connect_says_that_a_snapshot_is_being_written():
    """That takes a while for large VMs only, so here is one that is none."""
    os.makedirs(vm_path('s'))
    listeners = []

    def answer(name, reply):
        listener = socket.create_server(vm_path('s', name), family=socket.AF_UNIX)
        listeners.append(listener)

        def serve():
            with listener.accept()[0] as client:
                client.recv(4096)
                client.sendall(reply)
        threading.Thread(target=serve, daemon=True).start()

    body = b'{"state": "snapshotting"}'
    answer('vsock.sock', b'')
    answer('api.sock', b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s' % (len(body), body))
    refused('connect', 's', 9, says='VM "s" stands still: a snapshot of it is being written')
    for listener in listeners:
        listener.close()
    shutil.rmtree(vm_path('s'))


def test_connect_waits_for_a_vm():
    begin = time.monotonic()
    refused('connect', '--wait', '300ms', 'later', 5000, says=['later'])
    assert 0.3 <= time.monotonic() - begin < 10
    p = popen('--wait', '20s', 'later', 5000)
    time.sleep(0.2)
    vsock_guest('later')
    assert p.communicate(b'abc', timeout=20)[0] == b'bytes=3\n' and p.returncode == 0
    begin = time.monotonic()
    refused('connect', '--wait', '1500ms', 'later', 9, says=['does not listen'])
    assert 1.5 <= time.monotonic() - begin < 10


def test_what_a_guest_sent_before_it_ended_arrives():
    path = os.path.join(TMP, 'last.sock')
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path + '_77')
        server.listen(1)
        server.settimeout(20)
        for i in range(20):
            p = subprocess.Popen([KELVIN, 'run', '--vsock', f'path={path}', guest('vsock'), '--',
                                  'send=77'], env=ENV, stdin=subprocess.DEVNULL)
            peer, _ = server.accept()
            if i % 2:
                assert p.wait(20) == 0  # it is over before we read
            got = bytearray()
            while part := peer.recv(1 << 16):
                got += part
            peer.close()
            assert got == SOURCE * 4096, (i, len(got))
            assert p.wait(20) == 0
