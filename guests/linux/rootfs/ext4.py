# SPDX-License-Identifier: Apache-2.0
"""Writes a tree as an ext4 image, without root and without mounting anything.

mke2fs copies a directory into a new file system, but with the owners and modes the files have on
this host, and with no devices unless root made some. So names and contents are staged in a private
directory, as plain files, and what is different is set right in the image by debugfs. The same is
done for root, so that no device or set-user-id file of somebody else's ever is on the host.
"""
import contextlib
import os
import re
import shutil
import subprocess

from . import Failure
from .tools import find, output, whole
from .tree import BLOCK, CHAR, DIR, FIFO, FILE, LINK, show

MIB = 1 << 20
INODE_LEN = 256
BYTES_PER_INODE = 16384  # of room beyond what is there, as mke2fs has it
JOURNAL_LEN = 16 * MIB   # at most, for what is small
FREE_LEN = 64 * MIB      # for the guest to write to, where nobody chose a size
LETTERS = {CHAR: 'c', BLOCK: 'b', FIFO: 'p'}


class _Stage:
    """The tree as files on the host, and the debugfs commands that make up the difference."""

    def __init__(self, base, side):
        self.base, self.side = base, side
        self.commands, self.seen, self.cwd = [], {}, None

    def quote(self, path):
        if re.search('[\0-\x1f\x7f]', path):
            raise Failure(f'"{show(path)}": a name with control characters, which debugfs cannot '
                          'be told')
        return '"' + path.replace('"', '""') + '"'

    def path(self, path):
        return os.path.join(self.base, path)

    def put(self, path, node):
        """Makes the file, with what of its metadata this host can show."""
        where, old = self.path(path), self.seen.get(id(node))
        if old is not None and node.kind not in LETTERS:
            os.link(self.path(old), where, follow_symlinks=False)
            return
        self.seen[id(node)] = path
        if node.kind == DIR:
            os.mkdir(where, 0o700)
        elif node.kind == LINK:
            os.symlink(node.target, where)
        elif node.kind == FILE:
            with open(where, 'xb') as f:
                for piece in node.pieces():
                    f.write(piece)
        if node.kind in LETTERS:
            self.device(path, node)
        else:
            self.settle(path, node)

    def settle(self, path, node):
        """Owner, mode, times. Of a directory this is done again when it is full."""
        where = self.path(path)
        if node.kind != LINK:
            os.chmod(where, node.mode & 0o777 | (0o700 if node.kind == DIR else 0o400))
        with contextlib.suppress(OverflowError):
            os.utime(where, (node.mtime, node.mtime), follow_symlinks=False)

    def device(self, path, node):
        cwd, name = os.path.split(path)
        if cwd != self.cwd:
            self.commands.append(f'cd {self.quote("/" + cwd)}')
            self.cwd = cwd
        numbers = '' if node.kind == FIFO else ' %d %d' % node.rdev
        self.commands.append(f'mknod {self.quote(name)} {LETTERS[node.kind]}{numbers}')

    def differ(self, path, node):
        """Commands for what the staged file does not show."""
        if node.kind in LETTERS:
            have = (-1, -1, -1)
        else:
            st = os.lstat(self.path(path))
            have = (st.st_mode & 0o7777, st.st_uid, st.st_gid)
        name = None
        for field, is_, want in zip(('mode', 'uid', 'gid'), have, (node.mode, node.uid, node.gid)):
            if is_ != want and not (field == 'mode' and node.kind == LINK):
                name = name or self.quote('/' + path)
                value = '0%o' % (node.kind | want) if field == 'mode' else want
                self.commands.append(f'sif {name} {field} {value}')
        if node.kind in LETTERS or not path:  # mke2fs makes the root itself
            name = self.quote('/' + path)
            self.commands += [f'sif {name} {t}time @{node.mtime}' for t in 'mac']
        for key, value in sorted(node.xattrs.items()):
            side = os.path.join(self.side, f'xattr{len(self.commands)}')
            with open(side, 'wb') as f:
                f.write(value)
            self.commands.append(f'ea_set -f {side} {self.quote("/" + path)} {self.quote(key)}')


def _stage(tree, base, side):
    stage = _Stage(base, side)
    os.mkdir(base, 0o700)
    entries = list(tree.walk())
    for path, node in entries:
        stage.put(path, node)
    done = set()
    for path, node in entries:
        if id(node) not in done or node.kind in LETTERS:
            stage.differ(path, node)
        done.add(id(node))
    stage.differ('', tree.root)
    for path, node in reversed(entries):
        if node.kind == DIR:
            stage.settle(path, node)
    return stage.commands


def _need(tree):
    """(bytes an image needs for what is in the tree, inodes)"""
    _, blocks, inodes = tree.sizes()
    return blocks + inodes * 512 + JOURNAL_LEN, inodes


def choose_size(tree):
    """For a tree, with some room to write."""
    need = _need(tree)[0] * 11 // 10 + FREE_LEN
    return (need + 16 * MIB - 1) // (16 * MIB) * 16 * MIB


def _make(stage, commands, dest, size, inodes):
    inodes = max(inodes * 5 // 4 + 1024, size // BYTES_PER_INODE)
    with open(dest, 'xb') as f:
        f.truncate(size)
    output(['mke2fs', '-q', '-F', '-t', 'ext4', '-b', '4096', '-I', str(INODE_LEN), '-m', '0',
            '-N', str(inodes), '-L', 'root', '-d', stage, '-E',
            'root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0', dest])
    script = stage + '.debugfs'
    with open(script, 'wb') as f:
        f.writelines(os.fsencode(c) + b'\n' for c in commands)
    # It goes on after an error and ends with 0, but says what it could not do.
    said = subprocess.run([find('debugfs'), '-w', '-f', script, dest], stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    bad = [line for line in said.stderr.decode(errors='replace').splitlines()
           if line and not line.startswith('debugfs 1.')]
    if bad:
        raise Failure(f'{dest}: debugfs could not set metadata: {bad[0]}')
    output(['e2fsck', '-f', '-n', dest])


def write(tree, dest, size, work):
    """size: bytes. work: a directory of ours, for files on the way."""
    total, _, _ = tree.sizes()
    need, inodes = _need(tree)
    least = (need * 21 // 20 + MIB - 1) // MIB
    if need > size + JOURNAL_LEN:
        raise Failure(f'{dest}: {total // MIB} MiB of files do not fit in {size // MIB} MiB: '
                      f'--size {least}M would do')
    if total > shutil.disk_usage(work).free:
        raise Failure(f'{dest}: {total // MIB} MiB of files: there is no space to make the image')
    stage = os.path.join(work, 'stage')
    try:
        commands = _stage(tree, stage, work)
    except OSError as e:
        name = show(str(e.filename or ''))[-80:]
        raise Failure(f'{dest}: cannot be made: {e.strerror}: {name}') from None
    with whole(dest) as file:
        try:
            _make(stage, commands, file, size, inodes)
        except Failure as e:
            if re.search('allocate|No space|too small|not enough', str(e)):
                raise Failure(f'{dest}: {total // MIB} MiB of files do not fit in {size // MIB} '
                              f'MiB: --size {max(least, size // MIB * 5 // 4)}M would do') from None
            raise
