# SPDX-License-Identifier: Apache-2.0
"""A VM in the foreground is a job: Ctrl-Z, bg, fg and Ctrl-C, as its shell and its terminal see them.

Each test plays the shell, in a process that leads a session of its own on a terminal of its own.
"""
import contextlib
import fcntl
import os
import select
import signal
import subprocess
import termios
import traceback

from vm import *


class Terminal:
    """Of the calling process, which becomes the leader of a session."""

    def __init__(self):
        self.keys, self.line = os.openpty()
        os.setsid()
        fcntl.ioctl(self.line, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)

    def front(self, pid):
        os.tcsetpgrp(self.line, pid)

    def job(self, *words, front=True):
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            if front:
                os.tcsetpgrp(self.line, os.getpid())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
            for fd in (0, 1, 2):
                os.dup2(self.line, fd)
            os.execve(KELVIN, [KELVIN, *words], ENV)
        return pid

    def press(self, key):
        os.write(self.keys, key)


def in_a_shell(script):
    pid = os.fork()
    if pid == 0:
        terminal = Terminal()
        signal.signal(signal.SIGALRM, lambda *_: 1 / 0)
        signal.alarm(30)
        try:
            script(terminal)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            kill_all()
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def stopped_by(pid):
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), status
    return os.WSTOPSIG(status)


def is_stopped(id):
    return stat_of(pid_of(id))[0] == 'T'


def answers(id):
    return 'count=' in ask_once(id, 'hi')


def hears(id):
    try:
        return http(id, 'GET', '/')[0] == 200
    except (FileNotFoundError, ConnectionRefusedError):
        return False


def wait_for(id):
    wait_until(lambda: hears(id), what=f'{id} to be there')
    assert answers(id)


def ends(t, pid):
    """By Ctrl-C."""
    t.press(b'\x03')
    _, status = os.waitpid(pid, 0)
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 128 + signal.SIGINT, status


def console_input(t, id, line):
    """What comes to the VM when that is typed; it is stopped, for it would take it."""
    pid = pid_of(id)
    pipe = os.open(f'/proc/{pid}/fd/0', os.O_RDONLY)
    # More than once: its keeper may be about to continue it.
    wait_until(lambda: os.kill(pid, signal.SIGSTOP) or is_stopped(id), what='a stop')
    try:
        t.press(line)
        return os.read(pipe, 100)
    finally:
        os.close(pipe)
        os.kill(pid, signal.SIGCONT)


def leaves_a_line_to_us(t, pid, id):
    """It is in the background, and would read the line: so it stops."""
    t.press(b'for the shell\n')
    assert stopped_by(pid) == signal.SIGTTIN
    wait_until(lambda: is_stopped(id), what='a stop')
    assert os.read(t.line, 100) == b'for the shell\n'


def goes_on_in_front(t, pid, id):
    t.front(pid)
    os.killpg(pid, signal.SIGCONT)
    assert answers(id)


def console_job(t):
    pid = t.job('run', '--console', '--id', 'job-console', guest('echo'))
    wait_for('job-console')
    assert console_input(t, 'job-console', b'for the guest\n') == b'for the guest\n'
    t.press(b'\x1a')
    assert stopped_by(pid) == signal.SIGTSTP
    wait_until(lambda: is_stopped('job-console'), what='a stop')
    t.front(os.getpid())
    for _ in range(3):  # bg: it goes on, until it would read what is typed
        os.killpg(pid, signal.SIGCONT)
        wait_until(lambda: not is_stopped('job-console'), what='a start')
        assert answers('job-console')
        leaves_a_line_to_us(t, pid, 'job-console')
    goes_on_in_front(t, pid, 'job-console')
    assert console_input(t, 'job-console', b'for the guest\n') == b'for the guest\n'
    ends(t, pid)


def test_a_job_with_a_console():
    in_a_shell(console_job)


def plain_job(t):
    pid = t.job('run', '--id', 'job-plain', guest('echo'))
    wait_for('job-plain')
    t.press(b'\x1a')
    assert stopped_by(pid) == signal.SIGTSTP
    wait_until(lambda: is_stopped('job-plain'), what='a stop')
    t.front(os.getpid())
    os.killpg(pid, signal.SIGCONT)  # bg
    assert answers('job-plain')
    t.front(pid)
    ends(t, pid)


def test_a_job_without_a_console():
    in_a_shell(plain_job)


def background_job(t):
    t.front(os.getpid())
    pid = t.job('run', '--console', '--id', 'job-back', guest('echo'), front=False)
    wait_for('job-back')
    leaves_a_line_to_us(t, pid, 'job-back')
    goes_on_in_front(t, pid, 'job-back')
    ends(t, pid)


def test_a_job_of_the_background():
    in_a_shell(background_job)


def orphan(t):
    """Nobody would continue it: the line is the shell's, and the console's input ends."""
    t.front(os.getpid())
    middle = os.fork()
    if middle == 0:
        t.job('run', '--console', '--id', 'job-orphan', guest('echo'), front=False)
        os._exit(0)
    os.waitpid(middle, 0)
    wait_for('job-orphan')
    assert console_input(t, 'job-orphan', b'for the shell\n') == b''
    assert os.read(t.line, 100) == b'for the shell\n'
    assert answers('job-orphan')
    ok('stop', 'job-orphan')


def test_a_job_without_a_shell():
    in_a_shell(orphan)


def output_job(t):
    """In order and whole, also where the VM ends at once, or cannot be made."""
    for words, wanted in ((('--console', guest('hello')), b'hello'),
                          (('--memory', '1G', '/no/such/kernel'), b'/no/such/kernel'),
                          ((guest('fault'), '--', 'how=triple-fault'), b'triple-faulted')):
        pid = t.job('run', '--id', 'job-out', *words)
        os.waitpid(pid, 0)
        assert select.select([t.keys], [], [], 5)[0], words
        said = os.read(t.keys, 4096)
        assert wanted in said, (words, said)


def test_a_job_that_prints():
    in_a_shell(output_job)


def terminals_of(pid):
    found = []
    for f in os.listdir(f'/proc/{pid}/fd'):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            path = os.readlink(f'/proc/{pid}/fd/{f}')
            found += [path] if path.startswith(('/dev/pts', '/dev/tty')) else []
    return found


def plain_fds(t):
    for opts in ([], ['--console']):
        pid = t.job('run', '--id', 'job-fds', *opts, guest('echo'))
        wait_for('job-fds')
        assert terminals_of(pid_of('job-fds')) == []
        assert terminals_of(pid) != []
        ends(t, pid)


def test_a_vm_has_no_terminal():
    in_a_shell(plain_fds)


def restores(t):
    d = os.path.join(TMP, 'job-snap')
    pid = t.job('restore', '--id', 'job-re', d)
    wait_for('job-re')
    ends(t, pid)
    os.unlink(f'{d}/host')  # then only the VM says that it has a console
    pid = t.job('restore', '--id', 'job-re', d)
    assert os.waitpid(pid, 0)[1] == 1 << 8
    while b'--detach keeps it from your terminal' not in os.read(t.keys, 4096):
        pass
    ok('restore', '--detach', '--wait-ready', '--id', 'job-re', d)
    ok('stop', 'job-re')


def test_a_job_that_restores():
    start('echo', id='job-old', opts=['--console'])
    ok('snapshot', 'job-old', os.path.join(TMP, 'job-snap'), '--stop')
    in_a_shell(restores)


def test_nohup():
    p = subprocess.Popen([KELVIN, 'run', '--id', 'job-nohup', guest('echo')], env=ENV,
                         stdin=subprocess.DEVNULL,
                         preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    wait_for('job-nohup')
    for pid in (p.pid, pid_of('job-nohup')):
        os.kill(pid, signal.SIGHUP)
    assert answers('job-nohup')
    ok('stop', 'job-nohup')
    assert p.wait() == 0
