# SPDX-License-Identifier: Apache-2.0
"""A VM that is none: its directory, its vsock.sock, and behind that the Linux agent as a process of
this machine. For exec and cp where no Linux guest can boot."""
import struct
import threading

from vm import *

AGENT = os.path.join(BUILD, 'guests', 'linux', 'agent-hosted' if SANITIZED else 'agent')
PORT = 1023
HEAD = struct.Struct('<BBHI')
EXEC, PUT, GET, TIME, NET, SYNC, INFO = range(1, 8)
OK, ERROR, NOTE = 16, 17, 18
STDIN, STDIN_END, RESIZE, SIGNAL, STDOUT, STDERR, STDIN_ACK, EXIT = range(32, 40)
FILE, DATA, FILE_END, DIR, UP, LINK, TREE_END = range(48, 55)


def splice(a, b):
    """Bytes from a to b until a ends, or b takes no more."""
    try:
        while part := a.recv(1 << 16):
            b.sendall(part)
    except OSError:
        pass
    for s, how in ((b, socket.SHUT_WR), (a, socket.SHUT_RD)):
        try:
            s.shutdown(how)
        except OSError:
            pass


class AgentVM:
    """With one: `with AgentVM('id') as vm`. All it started has ended afterwards."""

    def __init__(self, id, identity=None, prefix=()):
        self.id = id
        self.dir = vm_path(id)
        os.makedirs(self.dir)
        self.sock = os.path.join(self.dir, 'agent.sock')
        words = [*prefix, AGENT, '--serve', '--unix', self.sock]
        if identity:
            words += ['--identity', identity.page, '--doorbell', identity.door]
        self.agent = subprocess.Popen(words, stdin=subprocess.DEVNULL, env={'SECRET': 'host'})
        wait_until(lambda: os.path.exists(self.sock), what='the agent')
        with open(os.path.join(self.dir, 'pid'), 'w') as f:
            f.write(str(self.agent.pid))
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(os.path.join(self.dir, 'vsock.sock'))
        self.server.listen(64)
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.agent.terminate()
        code = self.agent.wait(20)
        assert code == 0, f'the agent ended with {code}'
        shutil.rmtree(self.dir)

    def accept(self):
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with client:
            line = read_line(client)
            if line != f'CONNECT {PORT}':
                return
            with socket.socket(socket.AF_UNIX) as guest:
                guest.connect(self.sock)
                client.sendall(b'OK 1073741824\n')
                back = threading.Thread(target=splice, args=(guest, client))
                back.start()
                splice(client, guest)
                back.join()

    def workers(self):
        return open(f'/proc/{self.agent.pid}/task/{self.agent.pid}/children').read().split()

    def raw(self):
        """A connection of our own to the agent."""
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(20)
        s.connect(self.sock)
        return s


def frame(type, data=b'', version=1, length=None):
    return HEAD.pack(type, version, 0, len(data) if length is None else length) + data


def receive(s):
    """(type, bytes), or None at the end."""
    head = b''
    while len(head) < 8:
        part = s.recv(8 - len(head))
        if not part:
            return None
        head += part
    type, _, _, length = HEAD.unpack(head)
    data = b''
    while len(data) < length:
        part = s.recv(length - len(data))
        assert part
        data += part
    return type, data


def texts(*words):
    return b''.join(w.encode() + b'\0' for w in words)


def exec_request(*argv, flags=0, user='', cwd='', env=()):
    return frame(EXEC, struct.pack('<QIHHHH', 0, flags, 24, 80, len(argv), len(env)) +
                 texts(user, cwd, *argv, *env))
