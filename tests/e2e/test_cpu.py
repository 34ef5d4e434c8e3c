# SPDX-License-Identifier: Apache-2.0
"""Several vCPUs, their threads' names and places, and what guests are shown of the processor."""
import json
import os
import re
import subprocess

from vm import *


def threads(id):
    """name -> (tid, list of processors) of the threads of a VM."""
    base = f'/proc/{pid_of(id)}/task'
    found = {}
    for tid in os.listdir(base):
        with open(f'{base}/{tid}/status') as f:
            text = f.read()
        name = re.search(r'^Name:\t(.*)$', text, re.M)[1]
        allowed = re.search(r'^Cpus_allowed_list:\t(.*)$', text, re.M)[1]
        found[name] = (int(tid), allowed)
    return found


def vcpu_threads(id, n):
    """Those of all n vCPUs; a thread names itself a moment after it began."""
    names = [f'kelvin-vcpu{i}' for i in range(n)]
    wait_until(lambda: set(names) <= set(threads(id)), what=f'threads of {n} vCPUs')
    return threads(id)


def facts(id):
    return json.loads(ok('inspect', '--json', id).out)


def processors():
    return sorted(os.sched_getaffinity(0))


def template(name, value):
    path = os.path.join(TMP, name)
    with open(path, 'w') as f:
        f.write(value if isinstance(value, str) else json.dumps(value))
    return path


def mask(leaf, reg, bitmap, sub='0'):
    return {'leaf': leaf, 'subleaf': sub, 'flags': 0,
            'modifiers': [{'register': reg, 'bitmap': bitmap}]}


def test_many_vcpus():
    for n in (2, 3, 8, 32):
        id = start('echo', id=f'n{n}', opts=['--cpus', n])
        names = {t for t in vcpu_threads(id, n) if t.startswith('kelvin-vcpu')}
        assert names == {f'kelvin-vcpu{i}' for i in range(n)}, names
        told = facts(id)['threads']
        assert {t['name']: t['tid'] for t in told} == \
            {k: v[0] for k, v in threads(id).items() if k in names}
        assert 'kelvin-vcpu1 ' in ok('stats', id).out
        assert fields(ask_once(id, 'x'))['count'] == '1'
        ok('pause', id)
        ok('resume', id)
        ok('kill', id)


def test_ps_shows_the_names():
    id = start('echo', id='named', opts=['--cpus', 2])
    vcpu_threads(id, 2)
    out = subprocess.run(['ps', '-T', '-o', 'comm=', '-p', str(pid_of(id))],
                         stdout=subprocess.PIPE, check=True).stdout.decode().split()
    assert out[0] == 'kelvin' and 'kelvin-vcpu0' in out and 'kelvin-vcpu1' in out, out


def test_second_vcpu_runs():
    """A guest that starts its second one; villain needs both for a race."""
    for cpus, code in ((1, 40), (2, 0), (4, 0)):  # 40: "no second processor starts here"
        r = kelvin('run', '--cpus', cpus, guest('villain'), '--', 'case=T16', 'dev=vsock')
        assert r.code == code, r


def test_waiting_vcpus_travel():
    id = start('echo', id='few', opts=['--cpus', 32])
    ask_once(id, 'x')
    snap = fresh_dir('snap32')
    ok('snapshot', id, snap, '--stop')
    ok('restore', '--count', 2, '--wait-ready', '--id', 'r', snap)
    for i in range(2):
        assert fields(ask_once(f'r-{i}', 'x'))['count'] == '2'
        vcpu_threads(f'r-{i}', 32)


def test_pins():
    cpus = processors()
    a, b = cpus[0], cpus[-1]
    id = start('echo', id='p', opts=['--cpus', 4, '--cpu-pin', f'{b},{a}'])
    t = vcpu_threads(id, 4)
    assert [t[f'kelvin-vcpu{i}'][1] for i in range(4)] == [str(b), str(a), str(b), str(a)], t
    every = t['kelvin'][1]
    assert [x['pinned_to'] for x in facts(id)['threads']] == [b, a, b, a]
    # Not kept: a restore says anew.
    snap = fresh_dir('pinned')
    ok('snapshot', id, snap, '--stop')
    ok('restore', '--detach', '--wait-ready', '--id', 'free', snap)
    t = vcpu_threads('free', 4)
    assert all(t[f'kelvin-vcpu{i}'][1] == every for i in range(4)), t
    assert 'pinned_to' not in facts('free')['threads'][0]
    ok('restore', '--detach', '--wait-ready', '--id', 'again', '--cpu-pin', f'{a},loop={b}', snap)
    t = vcpu_threads('again', 4)
    assert t['kelvin'][1] == str(b) and t['kelvin-vcpu3'][1] == str(a), t
    assert fields(ask_once('again', 'x'))['count'] == '1'
    # The loop alone: vCPUs do not inherit it.
    start('echo', id='loop', opts=['--cpu-pin', f'loop={a}'])
    t = vcpu_threads('loop', 1)
    assert t['kelvin'][1] == str(a) and t['kelvin-vcpu0'][1] == every, t


def test_pins_that_cannot_be():
    absent = next(c for c in range(1023, 0, -1) if c not in processors())
    for where in ([], ['--detach']):
        refused('run', *where, '--cpu-pin', absent, guest('hello'),
                says=[f'processor {absent}', 'vCPU 0'])
    refused('run', '--cpu-pin', f'loop={absent}', guest('hello'), says=['the event loop cannot', str(absent)])
    refused('run', '--cpus', 2, '--cpu-pin', '0,0,0', guest('hello'),
            says='names 3 processors, but there are 2 vCPUs')
    for bad in ('', 'x', '3-1', '0,', '2000', 'loop=', 'loop=0,loop=0', '0-33'):
        refused('run', f'--cpu-pin={bad}', guest('hello'), code=2, says='--cpu-pin')
    id = start('echo', id='kept', opts=[])
    snap = fresh_dir('kept')
    ok('snapshot', id, snap, '--stop')
    refused('restore', '--cpu-pin', absent, snap, says=f'processor {absent}')
    refused('restore', '--cpu-pin', '0,0', snap, says='names 2 processors')


def test_default_cpu_is_told():
    id = start('echo', id='host')
    cpu = facts(id)['processor']
    assert cpu['template'] == 'host' and 'family' in cpu['model'], cpu
    snap = fresh_dir('told')
    ok('snapshot', id, snap, '--stop')
    assert json.loads(ok('inspect', '--json', snap).out)['machine']['cpu_template'] == 'host'


def test_h06_levels_or_what_is_missing():
    """KVM here may offer less than the level: then the features are named."""
    for level in ('baseline-v2', 'baseline-v3'):
        r = kelvin('run', '--cpu', level, guest('hello'), '--', 'status=5')
        if r.code == 5:
            id = start('echo', id='level', opts=['--cpu', level])
            assert facts(id)['processor']['template'] == level
            ok('kill', id)
            continue
        assert r.code == 1 and f'is not {level}: it lacks ' in r.err, r
        assert len(r.err.strip().splitlines()) == 1 and re.search(r'lacks \w+', r.err), r
    refused('run', '--cpu', 'baseline-v3', '--memory', '1T', guest('hello'), code=2,
            says='address bits')


def saved_features(id):
    snap = fresh_dir('features')
    ok('snapshot', id, snap, '--stop')
    cpu = json.loads(ok('inspect', '--json', snap).out)
    return cpu['machine']['cpu_template'], re.split(r'[:,] ', cpu['cpu'])[1:], snap


def test_masks_from_a_file():
    id = start('echo', id='plain')
    _, before, _ = saved_features(id)
    assert 'clflush' in before
    path = template('noclflush.json', {
        'kvm_capabilities': ['0', '!56'],
        'cpuid_modifiers': [mask('0x1', 'edx', '0bxxxxxxxxxxxx0xxx_xxxxxxxxxxxxxxxx')],
        'msr_modifiers': [{'addr': '0xc0000081', 'bitmap': '0b' + '1' + 'x' * 32}]})
    id = start('echo', id='masked', opts=['--cpu', path, '--cpus', 2])
    assert facts(id)['processor']['template'] == path
    name, after, snap = saved_features(id)
    assert name == path and set(before) - set(after) == {'clflush'}, (before, after)
    os.unlink(path)  # the snapshot has all that matters
    ok('restore', '--detach', '--wait-ready', '--id', 'back', snap)
    assert facts('back')['processor']['template'] == path
    assert fields(ask_once('back', 'x'))['count'] == '1'


def test_h06_templates_that_cannot_be():
    hello = guest('hello')
    refused('run', '--cpu', template('vmx.json', {
        'cpuid_modifiers': [mask('1', 'ecx', '0b1xxxxx')]}), hello, says='vmx')
    refused('run', '--cpu', template('leaf.json', {
        'cpuid_modifiers': [mask('0x77', 'eax', '0b1')]}), hello, says='leaf 0x77.0')
    refused('run', '--cpu', template('msr.json', {
        'msr_modifiers': [{'addr': '0xdeadbeef', 'bitmap': '0b1'}]}), hello, says='0xdeadbeef')
    refused('run', '--detach', '--cpu', template('cap.json', {
        'kvm_capabilities': ['424242']}), hello, says='capability 424242')
    for text, says in (('{', 'not JSON'), ('[]', 'not an object'), ({'x': 1}, '"x"'),
                       ({'reg_modifiers': [{}]}, 'reg_modifiers[0]: is for arm'),
                       ({'vcpu_features': [{}]}, 'vcpu_features[0]: is for arm'),
                       ({'cpuid_modifiers': [mask('1', 'ecx', '0b1y')]}, "'y'")):
        path = template('bad.json', text)
        refused('run', '--cpu', path, hello, code=2, says=[path, says])
    refused('run', '--cpu', 'baseline-v4', hello, code=2, says='none of host, baseline-v2')
    refused('run', '--cpu', TMP, hello, code=2, says='not a file')
    refused('run', '--cpu', os.path.join(TMP, 'missing.json'), hello, code=2, says='missing.json')
