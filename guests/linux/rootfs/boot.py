# SPDX-License-Identifier: Apache-2.0
"""The initial RAM disk around kelvin's agent, and the command that boots it."""
import gzip
import os
import shutil
import subprocess

from . import Failure, debian
from .cpio import SIZE_MAX, Cpio
from .tools import find, whole
from .tree import CHAR, DIR, FILE, LINK, Node, Tree, directory, show, text

# The devices of a kelvin VM; what they depend on comes along.
MODULES = ['virtio_mmio', 'virtio_blk', 'virtio_net', 'vmw_vsock_virtio_transport']
# Modules of some kernels. button and evdev: how the agent hears of the power button.
OPTIONAL = ['ext4', 'vmgenid', 'virtio_rng', 'button', 'evdev']
PACKERS = ('none', 'gzip', 'zstd')
SEARCHED = ('usr/local/sbin', 'usr/local/bin', 'usr/sbin', 'usr/bin', 'sbin', 'bin')
MIB = 1 << 20
KERNEL_MIB = 128  # RAM of a Debian kernel with little to do
# What kelvin gives Linux by itself, where there are no words; then without and with a console.
WORDS = ['panic=-1', 'reboot=a', 'cryptomgr.notests']
QUIET, LOUD = ['8250.nr_uarts=0'], ['8250.nr_uarts=1', 'console=ttyS0']


def _text_of(path):
    with open(path, 'rb') as f:
        return text(f.read(), 0o755)


def add_places(tree):
    """Where a running Linux mounts things."""
    for name in ('dev', 'proc', 'sys', 'run', 'tmp'):
        if not tree.has(name):
            tree.add(name, directory(0o1777 if name == 'tmp' else 0o755))


def _furnish(tree, agent, modules):
    """What the agent finds when it starts: itself, a console, modules to load."""
    if tree.has('init'):
        raise Failure('the root has a file /init of its own, where the agent must be: use --ext4')
    add_places(tree)
    if not tree.has('dev/console'):
        console = Node(CHAR, 0o600)
        console.rdev = (5, 1)
        tree.add('dev/console', console)
    tree.add('init', _text_of(agent))
    for i, path in enumerate(modules):
        name = os.path.basename(path).partition('.ko')[0]
        tree.add(f'modules/{i:02}-{name}.ko', text(debian.module_bytes(path)))


def _write(tree, dest):
    """Hard links have their contents at the first name, where Linux takes them from."""
    cpio, seen = Cpio(), {}
    names = {}
    for _, node in tree.walk():
        names[id(node)] = names.get(id(node), 0) + 1
    for path, node in tree.walk():
        if node.size > SIZE_MAX:
            raise Failure(f'"{show(path)}": larger than 4 GiB, which no initial RAM disk can hold: '
                          'use --ext4')
        links = names[id(node)] if node.kind != DIR else 1
        data = b''
        if node.kind == LINK:
            data = os.fsencode(node.target)
        elif node.kind == FILE and id(node) not in seen:
            data = (node.size, node.pieces)
        seen[id(node)] = cpio.entry(
            path, node.kind | node.mode, data, node.rdev, node.uid, node.gid, links,
            seen.get(id(node)), min(node.mtime, SIZE_MAX))
    cpio.write(dest)


def _pack(src, dest, packer):
    with whole(dest) as work, open(work, 'wb') as out:
        if packer == 'zstd':
            subprocess.run([find('zstd'), '-qc', src], stdout=out, check=True)
        else:
            with open(src, 'rb') as f, gzip.GzipFile('', 'wb', 6, out, 0) as z:
                shutil.copyfileobj(f, z, MIB)
    os.unlink(src)


def initramfs(dest, agent, modules, root, packer):
    """Writes it, with the root's tree in it where there is one. Returns its name."""
    tree = root or Tree()
    _furnish(tree, agent, modules)
    _write(tree, dest)
    if packer == 'none':
        return dest
    _pack(dest, dest + {'gzip': '.gz', 'zstd': '.zst'}[packer], packer)
    return dest + {'gzip': '.gz', 'zstd': '.zst'}[packer]


def memory(made):
    """MiB of RAM that will do: an initial RAM disk is there twice while it is unpacked."""
    need = KERNEL_MIB + 2 * os.path.getsize(made['initramfs']) // MIB
    return (need + 63) // 64 * 64


def _word(word):
    """As Linux reads words of its command line: double quotes hold spaces, nothing holds those."""
    if '"' in word or not word.isascii() or not word.isprintable():
        raise Failure(f'"{show(word)}" cannot be said on a kernel command line')
    return f'"{word}"' if ' ' in word or not word else word


def program(tree, name):
    """Where in the root the guest finds a program."""
    places = [''] if '/' in name else [d + '/' for d in SEARCHED]
    for place in places:
        if tree.has((place + name).lstrip('/')):
            return '/' + (place + name).lstrip('/')
    raise Failure(f'the root has no program "{show(name)}"')


def command(made, args):
    """The words of the command that boots it."""
    words = ['kelvin.root=/dev/vda', 'kelvin.rootfstype=ext4'] if 'root' in made else []
    if args.hostname:
        words.append('hostname=' + args.hostname)  # since Linux 6.0
    if args.init:
        words.append('kelvin.init=' + _word(args.init))
    if args.run:
        words += ['--', *map(_word, args.run)]
    out = ['kelvin', 'run', *([] if args.run else ['--detach', '--wait-ready']),
           *(['--console'] if args.console else []), '--memory', f'{memory(made)}M', '--initrd', made['initramfs']]
    if 'root' in made:
        out += ['--disk', 'path=' + made['root']]
    out.append(made.get('kernel', 'KERNEL'))
    return out + (['--', *WORDS, *(LOUD if args.console else QUIET), *words] if words else [])
