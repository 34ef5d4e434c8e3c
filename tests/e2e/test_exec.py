# SPDX-License-Identifier: Apache-2.0
"""kelvin exec with the agent as a host process: streams, statuses, signals, terminals, ends."""
import pty
import select
import termios
import tty

from agent_vm import *


def popen(*args, **kw):
    for stream in ('stdin', 'stdout', 'stderr'):
        kw.setdefault(stream, subprocess.PIPE)
    kw.setdefault('env', ENV)
    kw.setdefault('preexec_fn', lambda: [signal.signal(s, signal.SIG_DFL)
                                         for s in (signal.SIGINT, signal.SIGQUIT)])
    return subprocess.Popen([KELVIN, 'exec', *map(str, args)], **kw)


def test_exec_keeps_streams_and_status_apart():
    with AgentVM('x'):
        r = ok('exec', 'x', '--', 'echo', 'a b', '', '*')
        assert r.out == 'a b  *\n' and r.err == '', r
        r = kelvin('exec', 'x', '--', 'sh', '-c', 'echo out; echo err >&2; exit 7')
        assert (r.code, r.out, r.err) == (7, 'out\n', 'err\n'), r
        assert ok('exec', 'x', '--', 'cat', input=b'in\0\xff').out.startswith('in\0')
        assert ok('exec', 'x', '--', 'cat').out == ''  # /dev/null
        assert kelvin('exec', 'x', '--', 'sh', '-c', 'kill -9 $$').code == 128 + 9
        assert kelvin('exec', 'x', '--', 'sh', '-c', 'kill -PIPE $$').code == 128 + 13
        # An operand of the command is none of ours, whatever it looks like.
        assert ok('exec', 'x', '--', 'echo', '--help', '--', '-n').out == '--help -- -n\n'


def test_exec_says_what_went_wrong():
    with AgentVM('w'):
        r = refused('exec', 'w', '--', 'no-such-program', code=127, says='no-such-program')
        assert len(r.err.splitlines()) == 1 and 'No such file' in r.err, r
        r = refused('exec', 'w', '--', '/etc/passwd', code=126, says='denied')
        refused('exec', '--cwd', '/nowhere', 'w', '--', 'pwd', says='/nowhere')
        refused('exec', '--user', 'no-one-here', 'w', '--', 'id', says='no-one-here')
        refused('exec', '--user', 'root:no-group', 'w', '--', 'id', says='no-group')
        refused('exec', 'nobody', '--', 'id', says=['nobody', 'kelvin ps'])
        refused('exec', 'w', '--', 'echo', 'x' * 100000, 'y' * 100000, says='longer')
        for args in ((), ('w',), ('w', '--'), ('--tty', '--no-tty', 'w', '--', 'id'),
                     ('--env', '=x', 'w', '--', 'id')):
            refused('exec', *args, code=2)
        with open('/dev/full', 'w') as full:
            p = popen('w', '--', 'echo', 'x', stdout=full)
            _, err = p.communicate(timeout=20)
            assert p.returncode == 1 and b'cannot write stdout' in err, err
        refused('exec', 'w', '--', 'cat', stdin=os.open('/', os.O_RDONLY), says='stdin')


def test_exec_and_cp_say_that_a_guest_has_no_agent():
    start('vsock', id='n')
    for args in (('exec', 'n', '--', 'true'), ('cp', '/etc/passwd', 'n:/')):
        refused(*args, says=['cannot reach the agent', 'port 1023',
                             "need kelvin's agent in it (see guests/linux)"])


def test_exec_sets_the_scene():
    env = dict(ENV, OURS='from here')
    with AgentVM('s'):
        r = ok('exec', '--env', 'A=b c', '--env', 'OURS', '--env', 'NOT_SET', 's', '--', 'env',
               env=env)
        lines = r.out.splitlines()
        assert 'A=b c' in lines and 'OURS=from here' in lines and 'HOME=/root' in lines, r
        assert any(l.startswith('PATH=/usr/local/sbin:') for l in lines)
        assert not any(l.startswith(('SECRET=', 'NOT_SET', 'TERM=')) for l in lines), r
        assert ok('exec', '--env', 'PATH=/nowhere', 's', '--', '/bin/echo', 'hi').out == 'hi\n'
        assert ok('exec', '--cwd', '/usr', 's', '--', 'pwd').out == '/usr\n'
        assert ok('exec', 's', '--', 'pwd').out == '/root\n'
        assert ok('exec', '--user', 'nobody', 's', '--', 'id', '-un').out == 'nobody\n'
        assert ok('exec', '--user', '12345:daemon', '--cwd', '/', 's', '--', 'sh', '-c',
                  'id -u; id -g; id -G').out == '12345\n1\n1\n'
        # Nothing of the agent's is left open, no signal blocked or ignored.
        assert ok('exec', 's', '--', 'ls', '/proc/self/fd').out.split() == ['0', '1', '2', '3']
        r = ok('exec', 's', '--', 'grep', '^Sig[BI]', '/proc/self/status')
        assert all(int(l.split()[1], 16) == 0 for l in r.out.splitlines()), r


def test_exec_moves_much_and_both_ways():
    size = 64 << 20
    with AgentVM('m'):
        script = 'head -c %d /dev/urandom | tee >(sha256sum >&2) | "$0" exec m -- cat | sha256sum'
        p = subprocess.run(['bash', '-o', 'pipefail', '-c', script % size, KELVIN], env=ENV,
                           capture_output=True, timeout=120)
        assert p.returncode == 0 and p.stdout == p.stderr, p
        # stdout and stderr at once, neither starves.
        r = ok('exec', 'm', '--', 'sh', '-c',
               'head -c 3000000 /dev/zero & head -c 3000000 /dev/zero >&2; wait')
        assert len(r.out) == len(r.err) == 3000000
        # Input that nobody takes does not hinder the end.
        with open('/dev/zero', 'rb') as zero:
            assert ok('exec', 'm', '--', 'sh', '-c', 'sleep 0.2; echo done', stdin=zero).out == \
                'done\n'
            assert kelvin('exec', 'm', '--', 'sh', '-c', 'exec <&-; sleep 0.2; exit 3',
                          stdin=zero).code == 3


def test_exec_waits_for_a_slow_reader():
    with AgentVM('slow') as vm:
        p = popen('slow', '--', 'sh', '-c', 'head -c 20000000 /dev/zero; echo >&2 written')
        time.sleep(1)
        assert not select.select([p.stderr], [], [], 0)[0]  # it waits for us
        pids = vm.workers()
        rss = sum(int(l.split()[1]) for w in pids for l in open(f'/proc/{w}/status')
                  if l.startswith('VmRSS'))
        assert SANITIZED or rss < 2000, rss
        assert len(p.stdout.read()) == 20000000 and p.wait(20) == 0


def test_exec_passes_signals_on():
    with AgentVM('sig'):
        for sig, name in ((signal.SIGINT, 'INT'), (signal.SIGTERM, 'TERM')):
            p = popen('sig', '--', 'sh', '-c', f'trap "echo got {name}; exit 5" {name}; echo up; '
                      'while :; do sleep 0.05; done')
            assert p.stdout.readline() == b'up\n'
            p.send_signal(sig)
            assert p.stdout.read() == f'got {name}\n'.encode() and p.wait(20) == 5
        p = popen('sig', '--', 'sleep', '60')
        time.sleep(0.3)
        p.send_signal(signal.SIGTERM)
        assert p.wait(20) == 128 + 15
        # Behind input that nobody takes, too.
        with open('/dev/zero', 'rb') as zero:
            p = popen('sig', '--', 'sleep', '60', stdin=zero)
            time.sleep(0.5)
            p.send_signal(signal.SIGINT)
            assert p.wait(20) == 128 + 2
        # What does not listen to them is left by the third.
        p = popen('sig', '--', 'sh', '-c', 'trap "" TERM; echo up; sleep 3')
        assert p.stdout.readline() == b'up\n'
        for _ in range(3):
            p.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        assert p.wait(20) == 128 + 15


# No other run of these tests has sleepers of this length.
MARK = f'4242.{os.getpid()}'
SLEEP = f'sleep {MARK}'


def gone(mark):
    return not [p for p in os.listdir('/proc') if p.isdigit() and mark in cmdline(p)]


def cmdline(pid):
    try:
        return open(f'/proc/{pid}/cmdline').read()
    except OSError:
        return ''


def test_a_client_that_vanishes_ends_the_command():
    with AgentVM('v') as vm:
        for command in (SLEEP, f'trap "" HUP; {SLEEP} & wait; {SLEEP}',
                        f'{SLEEP} & head -c 100M /dev/zero; {SLEEP}'):
            p = popen('v', '--', 'sh', '-c', command)
            wait_until(lambda: not gone(MARK))
            p.kill()
            p.wait()
            p.stdout.close()
            wait_until(lambda: gone(MARK), what=f'the end of {command}')
            wait_until(lambda: not vm.workers(), what='no worker')
        assert ok('exec', 'v', '--', 'echo', 'still here').out == 'still here\n'


def test_background_processes_do_not_hold_exec():
    with AgentVM('b'):
        begin = time.monotonic()
        r = ok('exec', 'b', '--', 'sh', '-c', f'{SLEEP} & echo started')
        assert r.out == 'started\n' and time.monotonic() - begin < 10
        assert not gone(MARK)
        subprocess.run(['pkill', '-f', f'^{SLEEP}$'], check=True)


def test_many_at_once():
    with AgentVM('many') as vm:
        many = [popen('many', '--', 'sh', '-c', f'read x; echo $x {i}; exit {i}') for i in range(40)]
        for i, p in enumerate(many):
            out, err = p.communicate(b'line %d\n' % i, timeout=60)
            assert (p.returncode, out, err) == (i, b'line %d %d\n' % (i, i), b''), (i, out, err)
        wait_until(lambda: not vm.workers(), what='no worker')
        fds = os.listdir(f'/proc/{vm.agent.pid}/fd')
        assert len(fds) < 10, fds


class Terminal:
    """kelvin exec on a terminal of ours."""

    def __init__(self, *args):
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (30, 100))
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.p = popen(*args, stdin=slave, stdout=slave, stderr=subprocess.PIPE,
                       env=dict(ENV, TERM='vt100'), start_new_session=True)
        self.seen = b''

    def type(self, text):
        os.write(self.master, text)

    def until(self, text, seconds=20):
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert select.select([self.master], [], [], max(0, end - time.monotonic()))[0], self.seen
            self.seen += os.read(self.master, 65536)

    def finish(self):
        code = self.p.wait(20)
        after = termios.tcgetattr(self.slave)
        assert after == self.before, 'the terminal is not as it was'
        os.close(self.master)
        os.close(self.slave)
        return code


def test_exec_on_a_terminal():
    with AgentVM('t'):
        t = Terminal('t', '--', 'sh', '-c', 'tty; stty size; echo $TERM; '
                     'trap "echo winch; stty size" WINCH; '
                     'while read x; do echo "<$x>"; done; exit 9')
        t.until(b'/dev/pts/')
        t.until(b'30 100')
        t.until(b'vt100')
        t.type(b'hello\r')
        t.until(b'<hello>')
        termios.tcsetwinsize(t.slave, (40, 120))
        t.p.send_signal(signal.SIGWINCH)
        t.until(b'winch')
        t.type(b'\r')
        t.until(b'40 120')
        t.type(b'\x04')
        assert t.finish() == 9
        # Control-C is the command's.
        t = Terminal('t', '--', 'sh', '-c', 'trap "echo got it; exit 4" INT; echo up; '
                     'while :; do sleep 0.05; done')
        t.until(b'up')
        t.type(b'\x03')
        t.until(b'got it')
        assert t.finish() == 4
        # --no-tty, and a command that fails before it runs.
        t = Terminal('--no-tty', 't', '--', 'sh', '-c', 'test -t 0 || echo none')
        t.until(b'none')
        assert t.finish() == 0
        assert Terminal('t', '--', 'no-such-program').finish() == 127
        # --tty without a terminal here.
        r = ok('exec', '--tty', 't', '--', 'sh', '-c', 'test -t 1 && stty size && cat',
               input=b'text\n')
        assert r.out.count('text') == 2, r  # echoed, and said
        t = Terminal('t', '--', 'sh', '-c', 'echo last words')
        t.until(b'last words')
        assert t.finish() == 0


def hostile(vm, data, says=None, hold=False):
    """Sends raw bytes; the agent answers FR_ERROR or ends, and lives."""
    with vm.raw() as s:
        s.sendall(data)
        if not hold:
            s.shutdown(socket.SHUT_WR)
        got = []
        try:
            while f := receive(s):
                got.append(f)
        except OSError:
            pass
        if says:
            assert got and got[-1][0] == ERROR and says in got[-1][1].decode(), (data[:40], got)
        return got


def test_the_agent_survives_malformed_frames():
    with AgentVM('h') as vm:
        wall = bytes(8)
        hostile(vm, b'')
        hostile(vm, b'\x01')
        hostile(vm, os.urandom(4096))
        hostile(vm, frame(EXEC, version=2), says='version')
        hostile(vm, frame(EXEC, length=0xffffffff), says='no frame', hold=True)
        hostile(vm, frame(EXEC, length=131073), says='no frame', hold=True)
        hostile(vm, frame(EXEC, b'x' * 100, length=200))  # truncated
        hostile(vm, frame(99, wall), says='does not know')
        hostile(vm, frame(STDIN, wall), says='does not know')
        for type in range(1, 8):
            hostile(vm, frame(type), says='too short')
            hostile(vm, frame(type, b'x' * 7), says='too short')
        for n in (8, 12, 19):
            hostile(vm, frame(EXEC, bytes(n)), says='too short')
        good = exec_request('true')
        for n in range(20, len(good) - 8):  # every text cut
            hostile(vm, frame(EXEC, good[8:8 + n]), says='makes no sense')
        hostile(vm, frame(EXEC, good[8:] + b'\0'), says='makes no sense')
        for argc, envc in ((0, 0), (65535, 0), (1, 65535), (2, 0), (4097, 0)):
            data = struct.pack('<QIHHHH', 0, 0, 0, 0, argc, envc) + texts('', '', 'true')
            hostile(vm, frame(EXEC, data), says='makes no sense')
        hostile(vm, frame(EXEC, struct.pack('<QIHHHH', 0, 0xfe, 0, 0, 1, 0) +
                          texts('', '', 'true')), says='makes no sense')
        # In the middle of a command.
        for bad in (frame(EXEC), frame(99), frame(RESIZE, b'x'), frame(SIGNAL, bytes(4)),
                    frame(SIGNAL, b'\xff' * 4), frame(STDIN_END, b'x'), frame(OK),
                    frame(STDIN_END) + frame(STDIN, b'late'), frame(STDIN, length=1 << 20),
                    frame(STDIN, b'x' * 65536) * 6):  # more than the window
            hostile(vm, exec_request('sleep', '4343') + bad, says='does not belong', hold=True)
        wait_until(lambda: gone('4343'), what='the end of the commands')
        # Trees.
        put = frame(PUT, wall + texts(TMP, 'h-tree'))
        head = struct.pack('<IQ', 0o755, 0)
        file = struct.pack('<IQQ', 0o644, 0, 4)
        for bad in (frame(PUT, wall + texts('')), frame(PUT, wall + texts('', 'x')),
                    frame(PUT, wall + texts('/tmp', '../x')), frame(PUT, wall + texts('/tmp', '')),
                    frame(GET, wall + b'no end'), frame(GET, wall + texts('')),
                    put + frame(UP), put + frame(TREE_END), put + frame(DATA, b'x'),
                    put + frame(FILE, b'short'), put + frame(DIR, head), put + frame(LINK, b'a\0'),
                    put + frame(DIR, head + b'top\0') + frame(DIR, head + b'../up\0'),
                    put + frame(DIR, head + b'top\0') + frame(DIR, head + b'..\0'),
                    put + frame(DIR, head + b'top\0') + frame(FILE, file + b'a/b\0'),
                    put + frame(DIR, head + b'top\0') + frame(FILE, file + b'\0'),
                    put + frame(DIR, head + b'top\0') + frame(LINK, b'/x\0y\0'),
                    put + frame(DIR, head + b'top\0') + frame(UP) + frame(UP),
                    put + frame(DIR, head + b'd\0') * 300,
                    put + frame(FILE, file + b'f\0') + frame(DATA, b'12') +
                    frame(FILE_END, struct.pack('<Q', 4)),
                    put + frame(FILE, file + b'f\0') + frame(UP)):
            hostile(vm, bad, says='', hold=True)
        left = [n for _, _, names in os.walk(TMP) for n in names if n.startswith('.kelvin-cp')]
        assert not left and not os.path.exists(os.path.join(TMP, 'up')), left
        shutil.rmtree(os.path.join(TMP, 'h-tree'), ignore_errors=True)
        wait_until(lambda: not vm.workers(), what='no worker')
        assert ok('exec', 'h', '--', 'echo', 'alive').out == 'alive\n'


class Identity:
    """An identity page and a doorbell page, as files."""

    def __init__(self, name):
        self.page, self.door = os.path.join(TMP, name + '.page'), os.path.join(TMP, name + '.door')
        with open(self.door, 'wb') as f:
            f.write(bytes(4096))
        with open(self.page, 'wb') as f:
            f.write(bytes(4096))

    def write(self, generation, *hints, wall_ns=1):
        text = ''.join(h + '\n' for h in hints).encode()
        page = b'KELVINID' + struct.pack('<IIQQ', 1, generation, wall_ns, 0) + os.urandom(80) + \
            struct.pack('<I', len(text)) + text
        with open(self.page, 'r+b') as f:
            f.write(page.ljust(4096, b'\0'))

    def rang(self):
        """Whether ready was rung since the last call that said so."""
        with open(self.door, 'r+b') as f:
            if struct.unpack('<I', f.read(4))[0] != 123:
                return False  # and not written to: it may be rung right now
            f.seek(0)
            f.write(bytes(4))
        return True


def info(vm):
    with vm.raw() as s:
        s.sendall(frame(INFO, bytes(8)))
        type, text = receive(s)
        assert type == OK
        return dict(l.split('=', 1) for l in text.decode().splitlines())


def test_the_agent_becomes_who_the_identity_page_says():
    if subprocess.run(['unshare', '-n', '-u', 'true'], stderr=subprocess.DEVNULL).returncode:
        raise Skip('cannot make namespaces')
    ident = Identity('i')
    ident.write(0, 'hostname=first', 'address=10.9.8.7/24', 'gateway=10.9.8.1')
    with AgentVM('i', ident, prefix=['unshare', '-n', '-u', '--']) as vm:
        # In a network namespace of its own, which has no card yet.
        wait_until(ident.rang, what='ready')
        assert ok('exec', 'i', '--', 'hostname').out == 'first\n'
        assert info(vm)['generation'] == '0' and info(vm)['identity'] == 'yes'
        assert not ident.rang()
        made = kelvin('exec', 'i', '--', 'ip', 'link', 'add', 'other', 'type', 'veth',
                      'peer', 'name', 'eth0')
        if made.code:
            raise Skip('no veth: ' + made.err)
        # A restore: with the next connection it is another.
        ident.write(1, 'hostname=clone', 'address=10.1.2.3/20', 'gateway=10.1.0.1',
                    'mac=02:00:00:00:ab:CD', 'mtu=1400', 'unknown=key')
        shown = ok('exec', 'i', '--', 'sh', '-c', 'hostname; ip addr show eth0; ip route').out
        for text in ('clone\n', 'inet 10.1.2.3/20 ', 'mtu 1400', '02:00:00:00:ab:cd',
                     'default via 10.1.0.1 '):
            assert text in shown, (text, shown)
        assert ident.rang() and info(vm)['generation'] == '1'
        # Without a connection, too: where the kernel says that a card changed, as it does when
        # virtio-net is asked to announce itself.
        ident.write(2, 'address=10.1.2.9/20', 'gateway=10.1.0.2')
        net = f'/proc/{vm.agent.pid}/ns/net'
        subprocess.run(['nsenter', f'--net={net}', 'ip', 'link', 'set', 'other', 'up'], check=True)
        wait_until(ident.rang, what='ready')
        shown = ok('exec', 'i', '--', 'sh', '-c', 'ip addr show eth0; ip route').out
        assert 'inet 10.1.2.9/20 ' in shown and '10.1.2.3' not in shown, shown
        assert shown.count('default via') == 1 and 'via 10.1.0.2' in shown, shown
        # Or where a connection was reset, and its process ended.
        p = popen('i', '--', 'sh', '-c', 'echo up $$; exec sleep 60')
        up, sleeper = p.stdout.readline().split()
        assert up == b'up'  # before that it would try once more
        wait_until(lambda: len(vm.workers()) == 1, what='one worker')
        ident.write(3)
        os.kill(int(vm.workers()[0]), signal.SIGKILL)
        wait_until(ident.rang, what='ready')
        assert p.wait(20) == 1
        os.kill(int(sleeper), signal.SIGKILL)
        # Hints that make no sense change nothing, and end nothing.
        for i, bad in enumerate(('address=300.1.1.1', 'address=1.2.3', 'address=1.2.3.4/33', 'mac=xy',
                                 'address=', 'gateway=none', 'mtu=-1', 'hostname=' + 'x' * 100)):
            ident.write(4 + i, bad)
            assert '10.1.2.9/20' in ok('exec', 'i', '--', 'ip', 'addr', 'show', 'eth0').out
            with vm.raw() as s:
                s.sendall(frame(NET, bytes(8) + bad.encode()))
                type, text = receive(s)
                assert type == (OK if bad[0] == 'h' else ERROR), (bad, text)
        # Told by the host.
        with vm.raw() as s:
            s.sendall(frame(NET, bytes(8) + b'address=10.3.0.1/16\nhostname=told\n'))
            assert receive(s) == (OK, b'')
        shown = ok('exec', 'i', '--', 'sh', '-c', 'hostname; ip addr show eth0').out
        assert 'told' in shown and '10.3.0.1/16' in shown, shown


def test_the_clock_is_left_alone_where_it_is_right():
    with AgentVM('c') as vm:
        for wall in (0, time.time_ns(), (1 << 64) - 1):
            with vm.raw() as s:
                s.sendall(frame(TIME, struct.pack('<Q', wall)))
                assert receive(s) == (OK, b'')
        assert abs(float(info(vm)['wall']) - time.time()) < 1
        with vm.raw() as s:
            s.sendall(frame(SYNC, bytes(8)))
            assert receive(s) == (OK, b'')
