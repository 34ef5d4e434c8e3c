# SPDX-License-Identifier: Apache-2.0
"""The filters of a running VM, seen from outside. What each forbids: tests/unit/test_seccomp.c."""
import ctypes
import json
import os
import signal
import subprocess

from vm import ENV, KELVIN, Skip, alive, ask_once, exit_report, fields, fresh_dir, guest, not_under_tsan, ok, pid_of, \
    refused, start, vm_path, wait_until

PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_ATTACH, PTRACE_DETACH = 12, 13, 16, 17
WALL = 0x40000000  # of waitpid(): threads too
SYS_GETPPID, SYS_TGKILL = 110, 234


def status_lines(pid, key):
    """{name of the thread: value}"""
    found = {}
    for tid in os.listdir(f'/proc/{pid}/task'):
        with open(f'/proc/{pid}/task/{tid}/status') as f:
            lines = dict(l.split(':\t', 1) for l in f.read().splitlines() if ':\t' in l)
        found[f'{lines["Name"]}.{tid}'] = lines[key].strip()
    return found


def mode_of(id):
    return json.loads(ok('inspect', '--json', id).out)['seccomp']


def test_every_thread_has_a_filter():
    not_under_tsan()
    id = start('echo', opts=['--cpus', '3'])
    d = fresh_dir('filters')
    ok('snapshot', id, d)
    ok('restore', '--detach', '--wait-ready', '--id', 'r', d)
    for vm in (id, 'r'):
        seen = status_lines(pid_of(vm), 'Seccomp')
        # io_uring's workers are the kernel's own threads, and have what their maker has.
        assert len(seen) >= 4 and set(seen.values()) == {'2'}, seen
        filters = status_lines(pid_of(vm), 'Seccomp_filters')
        assert set(filters.values()) == {'1'}, filters
        assert set(status_lines(pid_of(vm), 'NoNewPrivs').values()) == {'1'}
        assert mode_of(vm) == 'on'
        assert 'seccomp              on' in ok('inspect', vm).out
    assert fields(ask_once('r', 'x'))['count'] == '1'


def test_the_writer_has_its_own():
    """Two: the loop's, under which it began, and the one it took."""
    not_under_tsan()
    id = start('fill', opts=['--memory', '1G'])
    d = fresh_dir('writer')
    p = subprocess.Popen([KELVIN, 'snapshot', id, d], env=ENV, stdout=subprocess.DEVNULL)
    seen = set()
    while p.poll() is None and '2' not in seen:
        seen |= set(status_lines(pid_of(id), 'Seccomp_filters').values())
    assert p.wait() == 0
    assert seen == {'1', '2'}, seen


def test_the_ring_is_restricted():
    id = start('echo')
    out = ok('stats', id).out
    assert 'io_uring             restricted' in out or 'io_uring             unrestricted' in out, out


def test_log_and_off():
    not_under_tsan()
    for mode, value in (('log', '2'), ('off', '0')):
        r = ok('run', '--detach', '--wait-ready=20s', '--id', mode, f'--seccomp={mode}',
               guest('echo'))
        assert ('may make any system call' in r.err) == (mode == 'off'), r
        assert set(status_lines(pid_of(mode), 'Seccomp').values()) == {value}
        assert mode_of(mode) == mode
        d = fresh_dir(f'mode-{mode}')
        ok('snapshot', mode, d, '--stop')
        ok('restore', '--detach', '--wait-ready', '--id', f'r-{mode}', f'--seccomp={mode}', d)
        assert set(status_lines(pid_of(f'r-{mode}'), 'Seccomp').values()) == {value}
    refused('run', '--seccomp', 'maybe', guest('hello'), code=2, says=['--seccomp', 'maybe'])


def test_bus_error_in_any_thread():
    """Only the main thread may remove files; the others hand over."""
    not_under_tsan()
    libc = ctypes.CDLL(None, use_errno=True)
    for n in range(2):  # the main thread, a vCPU
        id = start('echo', id=f'bus{n}')
        pid = pid_of(id)
        tid = sorted(int(t) for t in os.listdir(f'/proc/{pid}/task'))[n]
        assert libc.syscall(SYS_TGKILL, pid, tid, signal.SIGBUS) == 0
        wait_until(lambda: not alive(pid), what='end')
        report = exit_report(id)
        assert report['reason'] == 'bus-error' and report['status'] == 135, report
        assert not os.path.exists(vm_path(id, 'api.sock'))
        ok('kill', id)


class Registers(ctypes.Structure):
    """struct user_regs_struct"""
    _fields_ = [(r, ctypes.c_ulonglong) for r in (
        'r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss '
        'fs_base gs_base ds es fs gs').split()]


def make_call(tid, nr):
    """Has a thread that sleeps in a system call make another one, as somebody who took it over."""
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    regs = Registers()

    def do(request, data=None):
        if ptrace(request, tid, None, data) < 0:
            raise Skip(f'ptrace: {os.strerror(ctypes.get_errno())}')

    do(PTRACE_ATTACH)
    os.waitpid(tid, WALL)
    do(PTRACE_GETREGS, ctypes.addressof(regs))
    regs.rip -= 2  # the instruction `syscall` again
    regs.rax, regs.orig_rax = nr, ctypes.c_ulonglong(-1).value
    do(PTRACE_SETREGS, ctypes.addressof(regs))
    do(PTRACE_DETACH)


def test_a_violation_is_explained():
    not_under_tsan()
    for n in range(2):  # the main thread, a vCPU
        id = start('echo', id=f'sys{n}')
        pid = pid_of(id)
        make_call(sorted(int(t) for t in os.listdir(f'/proc/{pid}/task'))[n], SYS_GETPPID)
        wait_until(lambda: not alive(pid), what='end')
        report = exit_report(id)
        assert report['status'] == 128 + signal.SIGSYS, report
        assert 'system call' in report['text'] and '--seccomp=log' in report['text'], report
        ok('kill', id)


def test_log_mode_lets_it_go_on():
    id = start('echo', opts=['--seccomp=log'])
    make_call(pid_of(id), SYS_GETPPID)
    assert fields(ask_once(id, 'x'))['count'] == '1'
