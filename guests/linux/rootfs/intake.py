# SPDX-License-Identifier: Apache-2.0
"""Fills a tree from a tar, a directory, or Debian packages.

A tar may come from anywhere: each name is checked by tree.py, nothing is unpacked to the host, and
one that is damaged or cut short is refused. Contents are read from the tar when they are needed, so
a compressed one is first unpacked to a file, of at most half of the space that is free.
"""
import bz2
import gzip
import lzma
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
import zlib

from . import Failure
from .tools import find, output
from .tree import (BLOCK, CHAR, DIR, FIFO, FILE, LINK, Node, clean, directory, show, symlink, text)

PIECE = 1 << 20
BLOCK_LEN = 512  # of a tar
KEPT_XATTRS = ('security.capability', 'user.')
# What packages have for people to read, which is most of a small package.
LEFT_OUT = ('usr/share/doc/', 'usr/share/man/', 'usr/share/info/', 'usr/share/lintian/',
            'usr/share/locale/')
MERGED = ('bin', 'sbin', 'lib', 'lib64')  # links to those in usr, as Debian has it

UNPACKERS = ((b'\x1f\x8b', 'gzip', gzip.open), (b'\xfd7zXZ\0', 'xz', lzma.open),
             (b'BZh', 'bzip2', bz2.open), (b'\x28\xb5\x2f\xfd', 'zstd', None))


# ---- compressed files ----

def _copy_bounded(src, dst, most, what):
    done = 0
    while piece := src.read(PIECE):
        done += len(piece)
        if done > most:
            raise Failure(f'{what}: unpacks to more than {most >> 20} MiB, half of the space that '
                          'is free')
        dst.write(piece)


def _unzstd(path, dst, most, what):
    with open(path, 'rb') as src, subprocess.Popen(
            [find('zstd'), '-dc'], stdin=src, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE) as proc:
        try:
            _copy_bounded(proc.stdout, dst, most, what)
        except Failure:
            proc.kill()
            raise
        why = proc.stderr.read().decode(errors='replace').strip().splitlines()[-1:]
    if proc.returncode:
        raise Failure(f'{what}: damaged zstd data: {"".join(why)}')


def plain(path, what, work):
    """The file, opened; unpacked first where it is compressed. work: a directory of ours."""
    try:
        raw = open(path, 'rb')
        head = raw.read(8)
    except OSError as e:
        raise Failure(f'{what}: cannot be read: {e.strerror}') from None
    for magic, name, opener in UNPACKERS:
        if head.startswith(magic):
            raw.close()
            out, most = tempfile.TemporaryFile(dir=work), shutil.disk_usage(work).free // 2
            try:
                if opener:
                    with opener(path) as src:
                        _copy_bounded(src, out, most, what)
                else:
                    _unzstd(path, out, most, what)
                out.flush()
            except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as e:
                raise Failure(f'{what}: damaged {name} data: {e}') from None
            except OSError as e:
                raise Failure(f'{what}: damaged {name} data, or no space to unpack it: '
                              f'{e}') from None
            return out
    return raw


# ---- tars ----

def _members(tar):
    members, offset = [], -1
    while m := tar.next():
        if m.size < 0 or tar.offset <= offset:  # TarFile itself would go round for ever
            raise tarfile.ReadError('a member of negative size')
        offset = tar.offset
        members.append(m)
    return members


def open_tar(path, what, work):
    """(a TarFile, its members). Complete, or refused."""
    raw = plain(path, what, work)
    size = os.fstat(raw.fileno()).st_size
    raw.seek(0)
    head = raw.read(BLOCK_LEN)
    raw.seek(0)
    try:
        tar = tarfile.open(fileobj=raw, mode='r:', encoding='utf-8', errors='surrogateescape')
        members = _members(tar)
    except (tarfile.TarError, ValueError, OverflowError, IndexError, RecursionError) as e:
        if head[257:262] == b'ustar':
            raise Failure(f'{what}: a damaged tar archive: {e}') from None
        raise Failure(f'{what}: not a tar archive: it begins with bytes '
                      f'{head[:4].hex(" ") or "(none: it is empty)"}') from None
    raw.seek(tar.offset)
    end = raw.read(BLOCK_LEN)
    if end.strip(b'\0'):
        raise Failure(f'{what}: a damaged tar archive: no header at offset {tar.offset}')
    if not end or any(m.isreg() and not m.issparse() and m.offset_data + m.size > size
                      for m in members):
        raise Failure(f'{what}: a tar archive that was cut short: it has no end mark')
    return tar, members


def _pieces(tar, member):
    src = tar.extractfile(member)
    while piece := src.read(PIECE):
        yield piece


def _node(tar, m, what):
    """The inode a member of a tar stands for, but for hard links."""
    kinds = {tarfile.DIRTYPE: DIR, tarfile.SYMTYPE: LINK, tarfile.CHRTYPE: CHAR,
             tarfile.BLKTYPE: BLOCK, tarfile.FIFOTYPE: FIFO}
    node = Node(FILE if m.isreg() else kinds.get(m.type, 0), m.mode, m.uid, m.gid, m.mtime)
    if not node.kind:
        raise Failure(f'{what}: "{show(m.name)}": a member of unknown type {m.type!r}')
    if not (0 <= m.uid < 1 << 32 and 0 <= m.gid < 1 << 32):
        raise Failure(f'{what}: "{show(m.name)}": the owner {m.uid}:{m.gid} is impossible')
    if node.kind == FILE:
        node.size, node.pieces = m.size, lambda: _pieces(tar, m)
    elif node.kind == LINK:
        node.target = m.linkname
        if not m.linkname or '\0' in m.linkname or len(os.fsencode(m.linkname)) >= 4096:
            raise Failure(f'{what}: "{show(m.name)}": a symbolic link to an impossible name')
    elif node.kind in (CHAR, BLOCK):
        node.rdev = (m.devmajor, m.devminor)
    for key, value in m.pax_headers.items():
        name = key.removeprefix('SCHILY.xattr.')
        if name != key and name.startswith(KEPT_XATTRS):
            node.xattrs[name] = value.encode('utf-8', 'surrogateescape')
    return node


def add_tar(tree, tar, members, what, *, skip=lambda parts: False, packaged=False):
    """packaged: by dpkg's rules, where a link to a directory stays one."""
    for m in members:
        parts = clean(m.name, what)
        if skip(parts):
            continue
        if m.islnk():
            tree.link(parts, clean(m.linkname, what), what)
        else:
            tree.put(parts, _node(tar, m, what), what, through_links=packaged)


# ---- directories ----

def _file_pieces(path, size):
    left = size
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, 'rb') as f:
            while piece := f.read(PIECE):
                left -= len(piece)
                yield piece
    except OSError as e:
        raise Failure(f'{show(path)}: cannot be read: {e.strerror}') from None
    if left:
        raise Failure(f'{show(path)}: changed while it was read')


def _stat_node(path, st):
    """An inode like one of the host. What belongs to a caller who is not root becomes root's."""
    me = os.geteuid()
    node = Node(stat.S_IFMT(st.st_mode), st.st_mode,
                0 if me and st.st_uid == me else st.st_uid,
                0 if me and st.st_gid == os.getegid() else st.st_gid, st.st_mtime)
    if node.kind == FILE:
        node.size, node.pieces = st.st_size, lambda: _file_pieces(path, st.st_size)
    elif node.kind == LINK:
        node.target = os.readlink(path)
    elif node.kind in (CHAR, BLOCK):
        node.rdev = (os.major(st.st_rdev), os.minor(st.st_rdev))
    for name in os.listxattr(path, follow_symlinks=False):
        if name.startswith(KEPT_XATTRS):
            node.xattrs[name] = os.getxattr(path, name, follow_symlinks=False)
    return node


def add_directory(tree, path):
    if not os.path.isdir(path):
        raise Failure(f'{path}: {"not a directory" if os.path.exists(path) else "is not there"}')
    seen = {}  # (device, inode) -> node, of files with several names

    def scan(where, parts):
        """Puts what is in a directory; yields the directories in there."""
        for e in os.scandir(where):
            st = e.stat(follow_symlinks=False)
            if stat.S_ISSOCK(st.st_mode):
                continue
            key = (st.st_dev, st.st_ino)
            node = seen.get(key) or _stat_node(e.path, st)
            if st.st_nlink > 1 and node.kind != DIR:
                seen[key] = node
            tree.put(parts + [e.name], node, path)
            if node.kind == DIR:
                yield e.path, parts + [e.name]

    try:
        tree.put([], _stat_node(path, os.stat(path)), path)
        todo = [(path, [])]
        while todo:
            todo += scan(*todo.pop())
    except OSError as e:
        raise Failure(f'{show(e.filename or path)}: cannot be read: {e.strerror}') from None


# ---- Debian packages ----

def _left_out(parts):
    path = '/'.join(parts) + '/'
    return path.startswith(LEFT_OUT) and not path.endswith('/copyright/')


def _etc(tree):
    """What the scripts of base-files and base-passwd would have made."""
    for path, lines in (
            ('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\n'
                           'nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n'),
            ('etc/group', 'root:x:0:\ntty:x:5:\nnogroup:x:65534:\n'),
            ('etc/hosts', '127.0.0.1 localhost\n::1 localhost\n')):
        if not tree.has(path):
            tree.add(path, text(lines.encode()))


def _busybox(tree, path):
    """Links for the commands of busybox that no package brought."""
    applets = output([path, '--list-full']).decode().split()
    for applet in applets + ['bin/sh']:
        where = applet if applet.startswith('usr/') else 'usr/' + applet
        if not tree.has(where) and not where.endswith('linuxrc'):
            tree.add(where, symlink('/bin/busybox'))


def add_packages(tree, names, archive, work):
    """These, all they need, and busybox. Returns name -> version. No script of theirs runs."""
    for name in MERGED:
        tree.add('usr/' + name, directory())
        tree.add(name, symlink('usr/' + name))
    for name, mode in (('dev', 0o755), ('etc', 0o755), ('home', 0o755), ('mnt', 0o755),
                       ('proc', 0o555), ('root', 0o700), ('run', 0o755), ('sys', 0o555),
                       ('tmp', 0o1777), ('var/tmp', 0o1777)):
        tree.add(name, directory(mode))
    chosen = archive.closure(list(dict.fromkeys([*names, 'busybox-static'])))
    for name, version in chosen.items():
        path = archive.deb(name, version)
        with tempfile.NamedTemporaryFile(dir=work) as data:
            output(['dpkg-deb', '--fsys-tarfile', path], stdout=data)
            tar, members = open_tar(data.name, name, work)
            add_tar(tree, tar, members, name, skip=_left_out, packaged=True)
    with tempfile.TemporaryDirectory(dir=work) as d:
        exe = os.path.join(d, 'busybox')
        with open(exe, 'wb') as f:
            f.writelines(tree.find(['usr', 'bin', 'busybox']).pieces())
        os.chmod(exe, 0o700)
        _busybox(tree, exe)
    _etc(tree)
    return chosen
