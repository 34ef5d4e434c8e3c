# SPDX-License-Identifier: Apache-2.0
"""Networks: a guest on a TAP in a network namespace of this process's own, and on passt."""
import ctypes
import json
import os
import shutil
import socket
import struct
import subprocess
import threading
import time

from vm import *

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
have_namespace = None


def ip(*args, check=True):
    done = subprocess.run(['ip', *map(str, args)], capture_output=True, text=True)
    assert not check or done.returncode == 0, f'ip {args}: {done.stderr}'
    return done.stdout


def need_namespace():
    """Moves this process, and so all it starts, into an empty network namespace, once."""
    global have_namespace
    if have_namespace is None:
        have_namespace = bool(shutil.which('ip')) and os.path.exists('/dev/net/tun') and \
            libc.unshare(CLONE_NEWNET) == 0
        if have_namespace:
            ip('link', 'set', 'lo', 'up')
    if not have_namespace:
        raise Skip('needs root, ip and /dev/net/tun')


made = []


def tap(name, address='10.0.0.1/24', *flags):
    """A TAP of the namespace. Those of earlier tests go: they have the same addresses."""
    need_namespace()
    while made and address == '10.0.0.1/24':
        ip('link', 'del', made.pop(), check=False)
    made.append(name)
    ip('tuntap', 'add', name, 'mode', 'tap', 'vnet_hdr', *flags)
    ip('addr', 'add', address, 'dev', name)
    ip('link', 'set', name, 'up')
    return name


def answerer(net, *words, id=None, opts=()):
    return start('net', *words, id=id, opts=['--net', net, *opts])


def udp(timeout=5):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(timeout)
    return s


def echoes(address, data=b'hello', tries=5):
    with udp(1) as s:
        for _ in range(tries):
            s.sendto(data, (address, 7))
            try:
                got = s.recv(65536)
            except socket.timeout:
                continue
            assert got == data, (len(got), len(data))
            return True
    return False


def told(id, line):
    answer = ask_once(id, line)
    assert answer.startswith('ok'), f'{line}: {answer}'
    return fields(answer)


def stats_of(id, device='net0'):
    r = json.loads(ok('stats', '--json', id).out)
    return next(d for d in r['devices'] if d['id'] == device)


def test_net_answers():
    tap('t0')
    id = answerer('tap=t0,mac=02:00:00:00:00:09,mtu=1400', 'ip=10.0.0.2')
    assert echoes('10.0.0.2')
    who = told(id, 'who')
    assert who['mac'] == '02:00:00:00:00:09' and who['mtu'] == '1400', who
    assert '02:00:00:00:00:09' in ip('neigh', 'show', 'dev', 't0')
    for n in (0, 1, 100, 1372):
        assert echoes('10.0.0.2', bytes(n)), n
    if shutil.which('ping'):
        done = subprocess.run(['ping', '-c', '3', '-i', '0.2', '10.0.0.2'], capture_output=True)
        assert done.returncode == 0, done.stdout
    st = stats_of(id)
    assert st['rx_frames'] > 4 and st['tx_frames'] > 4 and st['tx_spoofed'] == 0, st
    ok('stop', id)


def test_net_made_by_us():
    """A TAP that is not there is made, and gone afterwards."""
    need_namespace()
    id = answerer('tap=fresh0', 'ip=10.9.0.2')
    assert 'fresh0' in ip('link', 'show')
    ip('addr', 'add', '10.9.0.1/24', 'dev', 'fresh0')
    ip('link', 'set', 'fresh0', 'up')
    assert echoes('10.9.0.2')
    ok('stop', id)
    wait_until(lambda: 'fresh0' not in ip('link', 'show'), what='the end of the TAP')


def test_net_by_descriptor():
    import fcntl
    need_namespace()
    fd = os.open('/dev/net/tun', os.O_RDWR)
    fcntl.ioctl(fd, 0x400454ca, struct.pack('16sH22x', b'byfd', 0x5002))  # TAP|NO_PI|VNET_HDR
    os.set_inheritable(fd, True)
    ip('addr', 'add', '10.8.0.1/24', 'dev', 'byfd')
    ip('link', 'set', 'byfd', 'up')
    r = ok('run', '--detach', '--wait-ready', '--net', f'fd={fd}', guest('net'), '--',
           'ip=10.8.0.2', pass_fds=[fd])
    id = r.out.split()[0]
    assert echoes('10.8.0.2')
    d = fresh_dir('byfd')
    ok('snapshot', id, d, '--stop')
    refused('restore', d, says=['net0', '--net id=net0'])
    wait_until(lambda: not running_ids(), what='end')
    id = ok('restore', '--detach', '--wait-ready', '--net', f'fd={fd}', d,
            pass_fds=[fd]).out.split()[0]
    assert echoes('10.8.0.2')
    ok('stop', id)
    os.close(fd)


def test_net_mistakes():
    need_namespace()
    refused('run', '--net', 'tap=lo', guest('hello'), says=['net0', 'lo'])
    null = os.open('/dev/null', os.O_RDWR)
    refused('run', '--net', f'fd={null}', guest('hello'), says=['net0'], pass_fds=[null])
    refused('run', '--net', 'fd=777', guest('hello'), says=['net0', '777'])
    refused('run', '--net', 'passt=/no/such', guest('hello'), says=['/no/such'])
    tap('busy0')
    id = answerer('tap=busy0')
    refused('run', '--net', 'tap=busy0', guest('hello'), says=['busy0', 'usy'])
    ok('stop', id)
    for bad, says in (('mtu=1500', 'one of tap='), ('tap=a,user', 'one of tap='),
                      ('tap=t,mac=1', 'is not like'), ('tap=t,rate=5', 'unknown key "rate"'),
                      ('tap=waytoolongforaninterface', 'longer than 15')):
        refused('run', '--net', bad, guest('hello'), code=2, says=says)


def test_n09_flood_with_no_buffers():
    """The guest takes nothing while the host floods: the tap waits, and goes on when it is read."""
    tap('fl0')
    id = answerer('tap=fl0', 'ip=10.0.0.2')
    assert echoes('10.0.0.2')
    ok('pause', id)
    with udp() as s:
        for _ in range(5000):
            try:
                s.sendto(b'x' * 1000, ('10.0.0.2', 9999))
            except OSError:
                break
    ok('resume', id)
    assert echoes('10.0.0.2')
    ok('stop', id)


def test_net_data_survives_pauses():
    """Numbered and checksummed datagrams go around while the VM is paused and resumed."""
    tap('pa0')
    id = answerer('tap=pa0', 'ip=10.0.0.2')
    assert echoes('10.0.0.2')
    stop = threading.Event()
    wrong, seen = [], [0]

    def traffic():
        n = 0
        with udp(0.5) as s:
            while not stop.is_set():
                n += 1
                data = struct.pack('<Q', n) + bytes((n + i) & 255 for i in range(n % 1400))
                s.sendto(data, ('10.0.0.2', 7))
                try:
                    got = s.recv(65536)
                    while struct.unpack_from('<Q', got)[0] < n:  # a late one
                        got = s.recv(65536)
                except socket.timeout:
                    continue
                if got != data:
                    wrong.append((n, len(got), len(data)))
                seen[0] += 1

    t = threading.Thread(target=traffic)
    t.start()
    end = time.monotonic() + float(os.environ.get('KELVIN_SOAK_S', '3'))
    while time.monotonic() < end:
        ok('pause', id)
        ok('resume', id)
        time.sleep(0.05)
    stop.set()
    t.join()
    assert not wrong and seen[0] > 20, (wrong[:3], seen)
    ok('stop', id)


def test_net_snapshot_and_clones():
    tap('s0')
    id = answerer('tap=s0,mac=02:00:00:00:00:0a', 'ip=10.0.0.2', id='net')
    assert echoes('10.0.0.2')
    d = fresh_dir('net')
    ok('snapshot', id, d, '--stop')
    wait_until(lambda: not running_ids(), what='end')
    id = ok('restore', '--detach', '--wait-ready', d).out.split()[0]
    assert echoes('10.0.0.2')
    assert int(told(id, 'stats')['announced']) >= 1
    ok('stop', id)
    refused('restore', '--count', 2, d, says=['--count', 'tap=NAME%d'])
    ip('link', 'del', 's0')
    for n in range(2):
        tap(f'c{n}', f'10.1.{n}.1/24')
        ip('addr', 'del', f'10.1.{n}.1/24', 'dev', f'c{n}')
    out = ok('restore', '--count', 2, '--wait-ready', '--id', 'c', '--net',
             'id=net0,tap=c%d,mac=random', d).out
    macs = {told(l.split()[0], 'who')['mac'] for l in out.splitlines()}
    assert len(macs) == 2 and '02:00:00:00:00:0a' not in macs, macs
    for n in range(2):
        ip('addr', 'add', '10.0.0.1/24', 'dev', f'c{n}')
        assert echoes('10.0.0.2'), n
        ip('addr', 'del', '10.0.0.1/24', 'dev', f'c{n}')
        ok('stop', f'c-{n}')


def test_net_limits():
    tap('l0')
    id = answerer('tap=l0,rx-frames=50,burst=20ms', 'ip=10.0.0.2')
    assert echoes('10.0.0.2')
    begin, n = time.monotonic(), 0
    while time.monotonic() - begin < 1:
        n += echoes('10.0.0.2', tries=3)
    assert n <= 60, n
    code, _ = http(id, 'PATCH', '/network-interfaces/net0',
                   {'iface_id': 'net0', 'rx_rate_limiter': {'ops': None}})
    assert code == 204
    begin = time.monotonic()
    for _ in range(100):
        assert echoes('10.0.0.2')
    assert time.monotonic() - begin < 1.5
    ok('stop', id)


def test_net_queues():
    need_namespace()
    ip('link', 'del', 'mq0', check=False)
    ip('tuntap', 'add', 'mq0', 'mode', 'tap', 'vnet_hdr', 'multi_queue')
    ip('addr', 'add', '10.7.0.1/24', 'dev', 'mq0')
    ip('link', 'set', 'mq0', 'up')
    id = answerer('tap=mq0,queues=2', 'ip=10.7.0.2', 'queues=2', opts=['--cpus', '2'])
    for _ in range(20):
        assert echoes('10.7.0.2')
    ok('stop', id)


def test_net_big_frames():
    """64 KiB of UDP come in one piece where offloads are agreed upon, and go back so."""
    tap('g0')
    id = answerer('tap=g0', 'ip=10.0.0.2')
    assert echoes('10.0.0.2')
    features = int(told(id, 'who')['features'], 16)
    assert features & (1 << 15), 'MRG_RXBUF'
    assert features & (1 << 11) and features & (1 << 12), 'HOST_TSO4 and HOST_TSO6'
    assert features & (1 << 7) and features & (1 << 8), 'GUEST_TSO4 and GUEST_TSO6'
    r = kelvin('run', '--console', '--net', f'tap={tap("g1", "10.2.0.1/24")}', guest('net'), '--',
               'mode=tx', 'frames=2000', 'gso=65000', 'ip=10.2.0.2')
    assert r.code == 0, r
    ok('stop', id)


def test_net_passt():
    if not shutil.which('passt'):
        raise Skip('passt is not installed')
    tap('up0', '192.0.2.1/24')  # what passt shows its guest as the outside
    ip('route', 'add', 'default', 'via', '192.0.2.254', check=False)
    id = answerer('user', 'ip=192.0.2.1')
    children = subprocess.run(['pgrep', '-f', 'passt'], capture_output=True, text=True).stdout
    assert children.strip(), 'passt runs'
    st = stats_of(id)
    assert st['needs_reset'] == 0
    ok('stop', id)
