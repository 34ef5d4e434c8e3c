# SPDX-License-Identifier: Apache-2.0
"""The default jail, seen from outside: what a VM's process has, and what is left of it.

J01-J15 of the jailer's command line are in test_jailer.py; what a process in here can do to the
host is tried by test_captive.py.
"""
import glob
import json
import os
import signal
import stat
import subprocess

from vm import *

ID_FIRST, ID_COUNT = 0x70000000, 0x10000
NAMESPACES = ('mnt', 'pid', 'ipc', 'uts', 'net')


def status(pid):
    with open(f'/proc/{pid}/status') as f:
        return dict(line.rstrip('\n').split(':\t', 1) for line in f if ':\t' in line)


def tasks(pid):
    return [int(t) for t in os.listdir(f'/proc/{pid}/task')]


def jail_of(id):
    return json.loads(ok('inspect', '--json', id).out)['jail']


def cgroups(id):
    return [d for d in glob.glob(f'/sys/fs/cgroup/*/kelvin/{id}.*') +
            glob.glob(f'/sys/fs/cgroup/kelvin/{id}.*')]


def check_process(pid):
    for task in tasks(pid):
        s = status(task)
        ids = s['Uid'].split() + s['Gid'].split()
        assert len(set(ids)) == 1 and ID_FIRST <= int(ids[0]) < ID_FIRST + ID_COUNT, ids
        assert s['Groups'].strip() == '', s['Groups']
        for cap in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'):
            assert int(s[cap], 16) == 0, (cap, s[cap])
        assert s['NoNewPrivs'] == '1'
        assert s['NSpid'].split()[-1] == ('1' if task == pid else s['NSpid'].split()[-1])
        assert len(s['NSpid'].split()) == 2, s['NSpid']
    for ns in NAMESPACES:
        assert os.readlink(f'/proc/{pid}/ns/{ns}') != os.readlink(f'/proc/self/ns/{ns}'), ns
    with open(f'/proc/{pid}/mountinfo') as f:
        mounts = f.read().splitlines()
    assert len(mounts) == 1 and mounts[0].split()[4] == '/', mounts
    assert {'ro', 'nosuid', 'nodev', 'noexec'} <= set(mounts[0].split()[5].split(',')), mounts
    assert os.listdir(f'/proc/{pid}/root/') == []
    with open(f'/proc/{pid}/limits') as f:
        limits = f.read()
    assert 'Max core file size        0                    0 ' in limits, limits


def check_descriptors(pid):
    """J04: no directory, no /proc, no device but KVM, and nothing of ours that is not the VM's."""
    for fd in os.listdir(f'/proc/{pid}/fd'):
        path = f'/proc/{pid}/fd/{fd}'
        mode, to = os.stat(path).st_mode, os.readlink(path)
        assert not stat.S_ISDIR(mode), (fd, to)
        if stat.S_ISCHR(mode):
            assert to in ('/kvm', '/dev/kvm', '/dev/null', '/null', '/net/tun', '/dev/net/tun') \
                or int(fd) < 3, (fd, to)


def test_j04_j06_every_thread_of_a_vm():
    disk = os.path.join(TMP, 'jail.img')
    with open(disk, 'wb') as f:
        f.truncate(1 << 20)
    start('echo', id='j', opts=['--cpus', 3, '--disk', f'path={disk},overlay={disk}.top'])
    ask_once('j', 'x')
    check_process(pid_of('j'))
    check_descriptors(pid_of('j'))
    d = fresh_dir('jailed')
    ok('snapshot', 'j', d, '--stop')
    ok('restore', '--detach', '--wait-ready', '--id', 'r', d)
    ask_once('r', 'x')
    check_process(pid_of('r'))
    check_descriptors(pid_of('r'))
    assert open(f'/proc/{pid_of("r")}/comm').read() == 'kelvin\n'


def test_no_two_vms_share_a_user():
    start('echo', id='a')
    d = fresh_dir('users')
    ok('snapshot', 'a', d)
    ok('restore', '--count', 8, '--wait-ready', '--id', 'c', d)
    uids = [status(pid_of(i))['Uid'].split()[0] for i in running_ids()]
    assert len(uids) == 9 and len(set(uids)) == 9, uids


def test_inspect_says_what_is_in_force():
    start('echo', id='i')
    j = jail_of('i')
    assert j['uid'] == int(status(pid_of('i'))['Uid'].split()[0])
    assert {'pid namespace', 'mount namespace', 'net namespace', 'empty root', 'own user id',
            'no capabilities', 'resource limits'} <= set(j['in_force']), j
    assert 'landlock' in j['in_force'] + j['not_in_force']
    assert 'own user id' in ok('inspect', 'i').out


def test_no_jail_warns_and_is_none():
    r = ok('run', '--detach', '--wait-ready', '--no-jail', '--id', 'n', guest('echo'))
    assert 'warning' in r.err and '--no-jail' in r.err and len(r.err.splitlines()) == 1, r
    assert status(pid_of('n'))['Uid'].split()[0] == '0'
    assert 'none' in jail_of('n')
    assert fields(ask_once('n', 'x'))['count'] == '1'
    ok('stop', 'n')
    refused('run', '--no-jail', '--jail-uid', 5, guest('hello'), code=2, says='--jail-uid')
    refused('run', '--jail-uid', 0, guest('hello'), code=2, says='--jail-uid')


def test_a_user_of_the_operators_choice():
    start('echo', id='u', opts=['--jail-uid', 12345])
    assert status(pid_of('u'))['Uid'].split() == ['12345'] * 4
    assert status(pid_of('u'))['Gid'].split() == ['12345'] * 4


def test_the_keeper_cleans_up_after_a_killed_vm():
    start('echo', id='k')
    was = cgroups('k')
    os.kill(pid_of('k'), signal.SIGKILL)
    report = exit_report('k')
    assert report['status'] == 137 and report['reason'] == 'killed' and 'signal 9' in report['text']
    assert not os.path.exists(vm_path('k', 'pid'))
    wait_until(lambda: not any(map(os.path.exists, was)), what='the end of its cgroups')
    rows = json.loads(ok('ps', '--json', '--all').out)
    assert [(v['id'], v['state']) for v in rows] == [('k', 'ended')], rows
    ok('gc')
    assert running_ids() == ['k']
    assert 'k' in ok('gc', '--ended').out
    assert running_ids() == []


def foreground(*opts):
    p = subprocess.Popen([KELVIN, 'run', '--id', 'f', *opts, guest('echo')], env=ENV,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    wait_until(lambda: listens('f'), what='start')
    assert http('f', 'GET', '/')[0] == 200  # it is in its jail, and its keeper knows
    return p


def test_a_vm_killed_in_the_foreground():
    p = foreground()
    assert keeper_of('f') == p.pid
    os.kill(pid_of('f'), signal.SIGKILL)
    out, err = p.communicate(timeout=20)
    assert p.returncode == 137 and b'killed by signal 9' in err and err.count(b'\n') == 1, err
    assert running_ids() == []
    p = foreground('--json')
    os.kill(pid_of('f'), signal.SIGKILL)
    out, err = p.communicate(timeout=20)
    last = json.loads(out.splitlines()[-1])
    assert last['event'] == 'exit' and last['status'] == 137 and not err, (out, err)


def test_signals_reach_the_vm_through_its_keeper():
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        p = foreground()
        p.send_signal(sig)
        p.communicate(timeout=20)
        assert p.returncode == 128 + sig, (sig, p.returncode)
        assert running_ids() == []


def test_nobody_outlives_the_keeper_and_gc_removes_the_rest():
    start('echo', id='g')
    was = cgroups('g')
    kill_with_keeper('g')
    rows = json.loads(ok('ps', '--json').out)
    assert [(v['id'], v['state']) for v in rows] == [('g', 'dead')], rows
    would = json.loads(ok('gc', '--dry-run', '--json').out)
    assert {'kind': 'directory', 'name': 'g', 'removed': False} in would, would
    assert running_ids() == ['g']
    # Its cgroups are empty only when the kernel is done with its memory.
    wait_until(lambda: not any(open(f'{d}/cgroup.procs').read() for d in was), what='its end')
    out = ok('gc').out
    assert 'directory  g  removed' in out, out
    assert not was or 'cgroup' in out
    assert running_ids() == [] and not any(map(os.path.exists, was))
    refused('gc', 'g', code=2, says='kill')


def test_cgroup_limits():
    start('echo', id='c', opts=['--memory', '64M', '--cpus', 2])
    was = cgroups('c')
    if not was:
        raise Skip('no memory and pids controllers here')
    found = {}
    for d in was:
        for name in ('memory.limit_in_bytes', 'memory.max', 'pids.max'):
            if os.path.exists(f'{d}/{name}'):
                found[name.split('.')[0]] = int(open(f'{d}/{name}').read())
        assert str(pid_of('c')) in open(f'{d}/cgroup.procs').read().split(), d
    assert 64 << 20 < found['memory'] < 256 << 20 and 3 < found['pids'] < 1000, found
    for d in was:
        for name, most in (('memory.swap.max', 0), ('memory.memsw.limit_in_bytes', found['memory'])):
            assert not os.path.exists(f'{d}/{name}') or int(open(f'{d}/{name}').read()) == most
    ok('stop', 'c')
    wait_until(lambda: not any(map(os.path.exists, was)), what='the end of its cgroups')
    start('echo', id='m', opts=['--cgroup', 'memory.max=100M', '--cgroup', 'pids.max=50'])
    limits = [open(f).read() for d in cgroups('m') for f in glob.glob(f'{d}/memory.max') +
              glob.glob(f'{d}/memory.limit_in_bytes')]
    assert limits and int(limits[0]) == 100 << 20, limits
    start('echo', id='none', opts=['--cgroup', 'none'])
    assert cgroups('none') == [] and jail_of('none')['cgroup'] == 'none'
    refused('run', '--cgroup', 'memory.max=lots', guest('hello'), says=['memory', 'lots'])
    refused('run', '--cgroup', '../x=1', guest('hello'), code=2, says='--cgroup')
    refused('run', '--cgroup', 'none', '--cgroup', 'pids.max=3', guest('hello'), code=2,
            says='--cgroup')


def test_a_guest_that_eats_more_than_its_cgroup_gives_is_killed():
    if not glob.glob('/sys/fs/cgroup/memory/*') and not os.path.exists(
            '/sys/fs/cgroup/cgroup.controllers'):
        raise Skip('no memory controller here')
    r = kelvin('run', '--detach', '--wait-ready', '--cgroup', 'memory.max=20M', guest('fill'), '--',
               'mib=64')
    assert r.code == 1 and 'killed by signal 9' in r.err and 'more memory than its cgroup' in r.err, r


def test_two_starts_at_once_take_two_users():
    ps = [subprocess.Popen([KELVIN, 'run', '--detach', '--id', f's{i}', guest('echo')], env=ENV,
                           stdout=subprocess.DEVNULL) for i in range(6)]
    assert [p.wait(30) for p in ps] == [0] * 6
    uids = [status(pid_of(f's{i}'))['Uid'].split()[0] for i in range(6)]
    assert len(set(uids)) == 6, uids

