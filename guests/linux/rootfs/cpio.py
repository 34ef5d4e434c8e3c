# SPDX-License-Identifier: Apache-2.0
"""Initial RAM disks ("newc"; Documentation/driver-api/early-userspace in Linux)."""
import os
import stat

from .tools import whole

COPY_LEN = 1 << 20
SIZE_MAX = 0xffffffff  # of a file: the length has 8 digits


class Cpio:
    """An archive under construction. Parents of what is added are made. Files keep their order."""

    def __init__(self):
        self.parts = []
        self.dirs = set()
        self.ino = 0

    def entry(self, path, mode, data=b'', rdev=(0, 0), uid=0, gid=0, links=1, ino=None, mtime=0):
        """data: bytes, or (length, function that yields pieces). ino: of an earlier hard link."""
        if ino is None:
            self.ino += 1
            ino = self.ino
        length, pieces = (len(data), lambda: [data]) if isinstance(data, bytes) else data
        name = os.fsencode(path) + b'\0'
        head = [ino, mode, uid, gid, links, mtime, length, 0, 0, *rdev, len(name), 0]
        head = b'070701' + b''.join(b'%08x' % n for n in head) + name
        self.parts += [head + bytes(-len(head) % 4), pieces, bytes(-length % 4)]
        return ino

    def directory(self, path):
        if path and path not in self.dirs:
            self.directory(os.path.dirname(path))
            self.dirs.add(path)
            self.entry(path, stat.S_IFDIR | 0o755)

    def add(self, path, data, mode=0o755):
        self.directory(os.path.dirname(path))
        self.entry(path, stat.S_IFREG | mode, data)

    def copy(self, path, src):
        with open(src, 'rb') as f:
            self.add(path, f.read())

    def write(self, dest):
        self.entry('TRAILER!!!', 0)
        with whole(dest) as work, open(work, 'wb') as f:
            for part in self.parts:
                if isinstance(part, bytes):
                    f.write(part)
                else:
                    f.writelines(part())
