# SPDX-License-Identifier: Apache-2.0
"""A VM in the foreground is a job: Ctrl-Z, bg, fg and Ctrl-C, as its shell and its terminal see them.

Each test plays the shell, in a process that leads a session of its own on a terminal of its own.
"""
import fcntl
import os
import signal
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
        self.jobs = []

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
        self.jobs.append(pid)
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
            for job in terminal.jobs:
                os.kill(job, signal.SIGKILL)
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def stopped_by(pid):
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), status
    return os.WSTOPSIG(status)


def is_stopped(id):
    with open(f'/proc/{pid_of(id)}/stat') as f:
        return f.read().rpartition(')')[2].split()[0] == 'T'


def answers(id):
    return 'count=' in ask_once(id, 'hi')


def wait_for(id):
    wait_until(lambda: os.path.exists(vm_path(id, 'api.sock')), what=f'{id} to be there')
    http(id, 'GET', '/')
    assert answers(id)


def ends(t, pid):
    """By Ctrl-C."""
    t.press(b'\x03')
    _, status = os.waitpid(pid, 0)
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 128 + signal.SIGINT, status


def console_job(t):
    pid = t.job('run', '--console', '--id', 'job-console', guest('echo'))
    wait_for('job-console')
    assert not is_stopped('job-console')
    t.press(b'\x1a')
    assert stopped_by(pid) == signal.SIGTSTP
    wait_until(lambda: is_stopped('job-console'), what='a stop')
    t.front(os.getpid())
    for _ in range(3):  # bg: it would read what is typed for us
        os.killpg(pid, signal.SIGCONT)
        assert stopped_by(pid) == signal.SIGTTIN
        wait_until(lambda: is_stopped('job-console'), what='a stop')
    t.front(pid)
    os.killpg(pid, signal.SIGCONT)
    assert answers('job-console')
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


def test_a_job_without_a_console_goes_on_in_the_background():
    in_a_shell(plain_job)


def background_job(t):
    t.front(os.getpid())
    pid = t.job('run', '--console', '--id', 'job-back', guest('echo'), front=False)
    assert stopped_by(pid) == signal.SIGTTIN
    assert not os.path.exists(vm_path('job-back', 'api.sock'))
    t.front(pid)
    os.killpg(pid, signal.SIGCONT)
    wait_for('job-back')
    ends(t, pid)


def test_a_console_does_not_begin_in_the_background():
    in_a_shell(background_job)
