# SPDX-License-Identifier: Apache-2.0
"""Helpers of the end-to-end tests: run kelvin, talk to guests, clean up."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get('KELVIN_BUILD', os.path.join(ROOT, 'build'))
KELVIN = os.path.join(BUILD, 'monitor', 'kelvin')
SANITIZED = os.path.basename(BUILD).endswith(('asan', 'tsan'))
TSAN = os.path.basename(BUILD).endswith('tsan')
TMP = tempfile.mkdtemp(prefix='kelvin-e2e-')
RUN_DIR = os.path.join(TMP, 'run')
ENV = dict(os.environ, KELVIN_RUN_DIR=RUN_DIR, XDG_CACHE_HOME=TMP, ASAN_OPTIONS='detect_leaks=0')


def not_under_tsan():
    if TSAN:
        raise Skip('the sanitizer has a thread and system calls of its own')


def guest(name):
    return os.path.join(BUILD, 'guests', name + '.elf')


class Result:
    def __init__(self, done):
        self.code = done.returncode
        self.out = done.stdout.decode(errors='replace')
        self.err = done.stderr.decode(errors='replace')

    def __repr__(self):
        return f'exit {self.code}\nstdout: {self.out}\nstderr: {self.err}'


def kelvin(*args, timeout=60, stdin=subprocess.DEVNULL, input=None, **kw):
    io = {'input': input} if input is not None else {'stdin': stdin}
    kw.setdefault('env', ENV)
    return Result(subprocess.run([KELVIN, *map(str, args)], stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, timeout=timeout, **io, **kw))


def ok(*args, **kw):
    r = kelvin(*args, **kw)
    assert r.code == 0, f'kelvin {" ".join(map(str, args))}: {r}'
    return r


def refused(*args, code=1, says=(), **kw):
    """The command fails with one line on stderr that names what is wrong."""
    r = kelvin(*args, **kw)
    assert r.code == code, f'kelvin {" ".join(map(str, args))}: {r}'
    lines = r.err.strip().splitlines()
    if code == 1:
        assert len(lines) == 1, f'not one line: {r}'
    assert lines and lines[0].startswith('kelvin'), r
    for word in ([says] if isinstance(says, str) else says):
        assert word in r.err, f'"{word}" is not in: {r.err}'
    return r


def start(name, *words, id=None, opts=()):
    """A detached VM that is ready. Returns its id."""
    args = ['run', '--detach', '--wait-ready=20s', *opts]
    if id:
        args += ['--id', id]
    r = ok(*args, guest(name), *(['--', *words] if words else []))
    return r.out.split()[0]


def vm_path(id, name=''):
    return os.path.join(RUN_DIR, id, name) if name else os.path.join(RUN_DIR, id)


def connect(id, port=1024, timeout=20):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(timeout)
    s.connect(vm_path(id, 'vsock.sock'))
    s.sendall(b'CONNECT %d\n' % port)
    line = read_line(s)
    assert line.startswith('OK '), f'vsock answered {line!r}'
    return s


def read_line(s):
    data = b''
    while not data.endswith(b'\n'):
        byte = s.recv(1)
        if not byte:
            break
        data += byte
    return data.decode(errors='replace').rstrip('\n')


def ask(s, text):
    s.sendall(text.encode() + b'\n')
    return read_line(s)


def ask_once(id, text, port=1024):
    with connect(id, port) as s:
        return ask(s, text)


def fields(answer):
    """'hi count=1 generation=0 random=ab' -> dict"""
    return dict(w.split('=', 1) for w in answer.split() if '=' in w)


def exit_report(id):
    """What a detached VM left. It is whole when the pid file is gone, which goes last."""
    wait_until(lambda: os.path.exists(vm_path(id, 'exit.json')) and
               not os.path.exists(vm_path(id, 'pid')), what=f'the report of {id}')
    with open(vm_path(id, 'exit.json')) as f:
        return json.load(f)


def listens(id):
    """Whether api.sock is there and taken calls from: between the two is a moment."""
    with socket.socket(socket.AF_UNIX) as s:
        return s.connect_ex(vm_path(id, 'api.sock')) == 0


def http(id, method, path, body=None, files=()):
    """One request on api.sock, with these descriptors. Returns (status, body text)."""
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(vm_path(id, 'api.sock'))
    data = json.dumps(body).encode() if isinstance(body, (dict, list)) else (body or b'')
    head = f'{method} {path} HTTP/1.1\r\nHost: x\r\n'
    if data:
        head += f'Content-Type: application/json\r\nContent-Length: {len(data)}\r\n'
    request = head.encode() + b'\r\n' + data
    socket.send_fds(s, [request], files) if files else s.sendall(request)
    got = b''
    while b'\r\n\r\n' not in got:
        part = s.recv(65536)
        if not part:
            break
        got += part
    head, _, rest = got.partition(b'\r\n\r\n')
    length = 0
    for line in head.split(b'\r\n'):
        if line.lower().startswith(b'content-length:'):
            length = int(line.split(b':')[1])
    while len(rest) < length:
        rest += s.recv(65536)
    s.close()
    return int(head.split()[1]), rest.decode()


def pid_of(id):
    with open(vm_path(id, 'pid')) as f:
        return int(f.read())


def stat_of(pid):
    """What the kernel tells of a process after its name: state, parent, ..."""
    with open(f'/proc/{pid}/stat') as f:
        return f.read().rsplit(')', 1)[1].split()


def keeper_of(id):
    """The process outside the jail that keeps the VM."""
    return int(stat_of(pid_of(id))[1])


def kill_with_keeper(id):
    """Nobody is left who could clean up."""
    pid, keeper = pid_of(id), keeper_of(id)
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: not alive(pid), what='death')


def alive(pid):
    try:
        return stat_of(pid)[0] != 'Z'
    except OSError:
        return False


def wait_until(condition, seconds=10, what='condition'):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError(f'{what} did not come true within {seconds} s')


def running_ids():
    if not os.path.isdir(RUN_DIR):
        return []
    return sorted(os.listdir(RUN_DIR))


def kill_all():
    for id in running_ids():
        try:
            os.kill(pid_of(id), signal.SIGKILL)
        except (OSError, ValueError):
            pass
        shutil.rmtree(vm_path(id), ignore_errors=True)


def fresh_dir(name):
    path = os.path.join(TMP, name)
    if os.path.isfile(path):
        os.unlink(path)
    shutil.rmtree(path, ignore_errors=True)
    return path


def irqs_go_on_after_restore(*opts):
    """The guest that lives on interrupts takes them in a restored VM, too."""
    id = start('irq', opts=opts)
    with connect(id) as s:
        before = int(fields(ask(s, 'a'))['irqs'])
    d = fresh_dir('irq')
    ok('snapshot', id, d, '--stop')
    ok('restore', '--detach', '--wait-ready', '--id', 'i', d)
    with connect('i') as s:
        ask(s, 'a')
        time.sleep(0.05)
        assert int(fields(ask(s, 'b'))['irqs']) > before


class Skip(Exception):
    pass


def run_all(tests):
    """Runs every test_* function, prints TAP, returns the exit status."""
    if not os.access('/dev/kvm', os.R_OK | os.W_OK):
        print('# no usable /dev/kvm')
        return 77
    only = sys.argv[1:]
    failed = number = 0
    try:
        for name, f in tests:
            if only and not any(o in name for o in only):
                continue
            number += 1
            begin = time.monotonic()
            try:
                f()
                print(f'ok {number} - {name[5:]} # {time.monotonic() - begin:.2f} s', flush=True)
            except Skip as e:
                print(f'ok {number} - {name[5:]} # SKIP {e}', flush=True)
            except Exception:
                failed += 1
                print(f'not ok {number} - {name[5:]}', flush=True)
                print('# ' + traceback.format_exc().replace('\n', '\n# '), flush=True)
                for id in running_ids():
                    log = vm_path(id, 'log')
                    if os.path.isfile(log):
                        print(f'# log of {id}: ' + open(log).read()[-1500:].replace('\n', '\n# '))
            finally:
                kill_all()
    finally:
        kill_all()
        shutil.rmtree(TMP, ignore_errors=True)
    return 1 if failed else 0
