# SPDX-License-Identifier: Apache-2.0
"""What villain's cases need of the host: a disk image, a network, peers for vsock connections."""
import contextlib
import fcntl
import os
import queue
import select
import shutil
import socket
import struct
import subprocess
import threading
import time

from vm import Skip

SIOCGIFFLAGS, IFF_RUNNING = 0x8913, 0x40
DISK_BYTES = 1 << 20
SCRATCH = DISK_BYTES // 4 * 3  # from here on a case that says "writes" may write
SOURCE = bytes(i % 251 for i in range(1 << 18))


def pattern(size):
    """What guests/villain/blk.h calls blk_word()."""
    words = ((i + 1) * 0x9e3779b97f4a7c15 & (1 << 64) - 1 for i in range(size // 8))
    return struct.pack(f'<{size // 8}Q', *words)


class Disk:
    """A copy of one image for each case, looked at afterwards."""

    # Other ways to keep the sectors, and the cases that are worth playing on them, too.
    KINDS = {'direct': 'sync=', 'overlay': 'overlay='}
    WORTH = ('B', 'Q03', 'Q07', 'Q09', 'Q10', 'Q14', 'Q36', 'T15')

    def __init__(self):
        self.content = pattern(DISK_BYTES)

    def make(self, place, case):
        path = os.path.join(place, 'disk')
        with open(path, 'wb') as f:
            f.write(self.content)
        words = [f'path={path}']
        if 'ro' in case.needs:
            words.append('ro')
        if case.kind == 'overlay':
            words.append(f'overlay={path}.overlay')
        if case.kind == 'direct':
            words.append('sync=direct')
        return ','.join(words)

    def check(self, place, case):
        with open(os.path.join(place, 'disk'), 'rb') as f:
            now = f.read()
        assert len(now) == DISK_BYTES, f'the image has {len(now)} bytes now'
        end = SCRATCH if 'writes' in case.needs and case.kind != 'overlay' else DISK_BYTES
        if now[:end] == self.content[:end]:
            return
        at = next(i for i in range(end) if now[i] != self.content[i])
        raise AssertionError(f'the image was written at byte {at}, sector {at // 512}')


class Tap:
    def __init__(self, n):
        unique = os.getpid() % 16384
        self.name = f'vill{unique}x{n}'
        self.ip = f'10.{224 + n % 16}.{unique // 64}.{unique % 64 * 4 + 1}'
        self.ip_cmd('tuntap', 'add', self.name, 'mode', 'tap', 'vnet_hdr')
        with open(f'/proc/sys/net/ipv6/conf/{self.name}/disable_ipv6', 'w') as f:
            f.write('1')
        self.ip_cmd('addr', 'add', f'{self.ip}/30', 'dev', self.name)
        self.ip_cmd('link', 'set', self.name, 'up', 'multicast', 'off')

    def ip_cmd(self, *args):
        done = subprocess.run(['ip', *args], capture_output=True, text=True)
        assert done.returncode == 0, f'ip {" ".join(args)}: {done.stderr}'

    def wait_free(self):
        """The kernel lets go of a descriptor that was in an io_uring a moment after its process.

        Asked by ioctl: /sys/class/net may be that of another network namespace."""
        end = time.monotonic() + 5
        request = struct.pack('16sh22x', self.name.encode(), 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            while time.monotonic() < end:
                answer = fcntl.ioctl(s, SIOCGIFFLAGS, request)
                if not struct.unpack('16xh22x', answer)[0] & IFF_RUNNING:
                    return
                time.sleep(0.001)
        raise AssertionError(f'{self.name} is still in use')

    def flood(self, stop):
        """More frames for everybody than a guest with few buffers can take."""
        frame = b'\xff' * 6 + b'\x02' + b'\0' * 5 + b'\x88\xb5' + bytes(1000)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
            s.bind((self.name, 0))
            s.setblocking(False)
            while not stop.wait(0.001):
                with contextlib.suppress(OSError):
                    for _ in range(64):
                        s.send(frame)

    def close(self):
        subprocess.run(['ip', 'link', 'del', self.name], capture_output=True)


class Net:
    """Lends each case a tap of its own; there are as many as workers, made when first wanted."""

    def __init__(self, count):
        self.free = queue.Queue()
        self.taps = []
        self.left = count
        self.lock = threading.Lock()

    def take(self):
        with self.lock:
            if self.free.empty() and self.left:
                self.taps.append(Tap(len(self.taps)))
                self.left -= 1
                return self.taps[-1]
        return self.free.get()

    @contextlib.contextmanager
    def lend(self, case):
        if not case.dev.startswith('net'):
            yield None
            return
        if os.geteuid() or not os.path.exists('/dev/net/tun') or not shutil.which('ip'):
            raise Skip('a TAP wants root, /dev/net/tun and ip')
        tap = self.take()
        stop = threading.Event()
        flood = threading.Thread(target=tap.flood, args=(stop,), daemon=True)
        try:
            tap.wait_free()
            if 'flood' in case.needs:
                flood.start()
            yield tap
        finally:
            stop.set()
            if flood.ident:
                flood.join()
            self.free.put(tap)

    def close(self):
        for tap in self.taps:
            tap.close()


class Peers:
    """The host's side of vsock connections: one server a kind, shared by all VMs by links."""

    KINDS = {5001: 'sink', 5002: 'stuck', 5003: 'source', 5004: 'gauge',
             5005: 'closer'}

    def __init__(self, tmp):
        self.dir = os.path.join(tmp, 'peers')
        os.mkdir(self.dir)
        self.servers = []
        self.held = []
        for port, kind in self.KINDS.items():
            s = socket.socket(socket.AF_UNIX)
            s.bind(os.path.join(self.dir, str(port)))
            s.listen(4096)
            self.servers.append(s)
            threading.Thread(target=self.serve, args=(s, getattr(self, kind)),
                             daemon=True).start()

    def link(self, place):
        """Makes the sockets that a guest's connections reach; returns the path of its own."""
        path = os.path.join(place, 'v.sock')
        for port in self.KINDS:
            os.symlink(os.path.join(self.dir, str(port)), f'{path}_{port}')
        return path

    def serve(self, server, kind):
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            if kind == self.stuck:
                self.stuck(peer)
            else:
                threading.Thread(target=kind, args=(peer,), daemon=True).start()

    def close(self):
        for s in self.servers:
            s.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def sink(self, peer):
        """Takes everything, and ends when the guest does."""
        with contextlib.suppress(OSError), peer:
            while peer.recv(1 << 16):
                pass

    def stuck(self, peer):
        """Never reads; closed once the guest has ended, when next somebody comes."""
        self.held.append(peer)
        poll = select.poll()
        for p in self.held:
            poll.register(p, 0)  # only POLLHUP and POLLERR are told
        gone = {fd for fd, _ in poll.poll(0)} if len(self.held) % 64 == 0 else ()
        for p in [p for p in self.held if p.fileno() in gone]:
            self.held.remove(p)
            p.close()

    def source(self, peer):
        """Sends SOURCE, and ends when the guest does."""
        with contextlib.suppress(OSError), peer:
            peer.sendall(SOURCE)
            while peer.recv(1 << 16):
                pass

    def gauge(self, peer):
        """For each byte: descriptors, memory and time of the monitor, as struct gauge of vs.h."""
        cred = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid = struct.unpack('3i', cred)[0]
        with contextlib.suppress(OSError), peer:
            while peer.recv(1):
                fds = len(os.listdir(f'/proc/{pid}/fd'))
                with open(f'/proc/{pid}/status') as f:
                    rss = [int(l.split()[1]) for l in f if l.startswith('VmRSS:')][0]
                with open(f'/proc/{pid}/schedstat') as f:  # its first thread's: the loop
                    loop_ns = int(f.read().split()[0])
                peer.sendall(struct.pack('<2IQ', fds, rss, loop_ns))

    def closer(self, peer):
        """Closes when something was received, and much may be on its way."""
        with contextlib.suppress(OSError), peer:
            peer.recv(1)
