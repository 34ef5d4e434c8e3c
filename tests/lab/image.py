# SPDX-License-Identifier: Apache-2.0
"""What the lab boots: Debian's cloud kernel and two initial RAM disks, made from its packages.

Nothing is installed: packages are downloaded and unpacked into a cache directory, once for each
version. Raises Unavailable, with a reason, where that cannot be done.
"""
import glob
import lzma
import os
import re
import shutil
import stat
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
META = 'linux-image-cloud-amd64'
META_GENID = 'linux-image-amd64'  # has the driver for VMGenID, which the cloud kernel has not
MODULES = ['kvm-amd', 'tun', 'virtio_net']
GUEST_MODULES = ['virtio_mmio', 'virtio_blk', 'vmw_vsock_virtio_transport', 'button', 'evdev']
PAYLOAD_OFFSET, PAYLOAD_LENGTH, SETUP_SECTS = 0x248, 0x24c, 0x1f1  # of a bzImage's header


class Unavailable(Exception):
    """The lab cannot be built here; one line says why."""


def output(cmd, **kw):
    try:
        return subprocess.run(cmd, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=300, **kw).stdout
    except FileNotFoundError:
        raise Unavailable(f'{cmd[0]} is not installed') from None
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as e:
        last = (e.stderr or b'').decode(errors='replace').strip().splitlines()[-1:]
        raise Unavailable(f'{" ".join(cmd[:3])} failed: {"".join(last)}') from None


def package(cache, name):
    """Where the package is unpacked; the version is in the directory's name."""
    show = output(['apt-cache', 'show', '--no-all-versions', name]).decode()
    version = re.search(r'^Version: (\S+)', show, re.M)
    if not version:
        raise Unavailable(f'apt knows no package {name}')
    place = os.path.join(cache, f'{name}_{version[1].replace(":", "%")}')
    if os.path.isdir(place):
        return place
    for old in glob.glob(os.path.join(cache, f'{name}_*')):
        shutil.rmtree(old)
    work = place + '.new'
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    output(['apt-get', 'download', f'{name}={version[1]}'], cwd=work)
    output(['dpkg-deb', '-x', glob.glob(work + '/*.deb')[0], work])
    os.rename(work, place)
    return place


def kernel_package(meta=META):
    found = re.search(r'Depends: (linux-image-\S+)', output(['apt-cache', 'depends', meta]).decode())
    if not found:
        raise Unavailable(f'apt knows no package {meta}: run apt-get update')
    return found[1]


def vmlinux(bzimage, dest):
    """The ELF in a bzImage whose payload is LZ4 or xz, as Debian's are."""
    with open(bzimage, 'rb') as f:
        data = f.read()
    at = (data[SETUP_SECTS] + 1) * 512 + int.from_bytes(data[PAYLOAD_OFFSET:][:4], 'little')
    payload = data[at:at + int.from_bytes(data[PAYLOAD_LENGTH:][:4], 'little') - 4]
    if payload[:4] == b'\x02\x21\x4c\x18':
        elf = output(['lz4', '-dc'], input=payload)
    elif payload[:6] == b'\xfd7zXZ\0':
        elf = lzma.LZMADecompressor().decompress(payload)
    else:
        raise Unavailable(f'{bzimage}: its payload is neither LZ4 nor xz')
    with open(dest + '.new', 'wb') as f:
        f.write(elf)
    os.rename(dest + '.new', dest)


def modules(root, names):
    """Paths of these modules and all they need, in the order to load them."""
    files = {os.path.basename(p)[:-3].replace('-', '_'): p
             for p in glob.glob(root + '/lib/modules/*/kernel/**/*.ko', recursive=True)}
    order = []

    def visit(name):
        path = files.get(name.replace('-', '_'))
        if not path:
            raise Unavailable(f'the kernel package has no module {name}')
        if path in order:
            return
        with open(path, 'rb') as f:
            needs = re.search(rb'\0depends=([^\0]*)\0', f.read())
        for n in needs[1].decode().split(',') if needs and needs[1] else []:
            visit(n)
        order.append(path)

    for name in names:
        visit(name)
    return order


class Cpio:
    """An initial RAM disk ("newc"; Documentation/driver-api/early-userspace in Linux)."""

    def __init__(self):
        self.parts = []
        self.dirs = set()
        self.ino = 0

    def entry(self, path, mode, data=b'', rdev=(0, 0)):
        self.ino += 1
        name = path.encode() + b'\0'
        head = [self.ino, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(name), 0]
        head = b'070701' + b''.join(b'%08x' % n for n in head) + name
        self.parts += [head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)]

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
        with open(dest + '.new', 'wb') as f:
            f.writelines(self.parts)
        os.rename(dest + '.new', dest)


def ramdisk(busybox, init, kernel_modules):
    """What both have: busybox, /init, a console, modules to be loaded in the order of names."""
    c = Cpio()
    for d in ('proc', 'sys', 'dev', 'run', 'tmp', 'bin'):
        c.directory(d)
    c.entry('dev/console', stat.S_IFCHR | 0o600, rdev=(5, 1))
    c.copy('bin/busybox', busybox)
    c.entry('bin/sh', stat.S_IFLNK | 0o777, b'busybox')
    c.copy('init', init)
    for i, path in enumerate(kernel_modules):
        c.copy(f'modules/{i:02}-{os.path.basename(path)}', path)
    return c


def kernel(cache, meta):
    """Where the kernel of a package is unpacked; its ELF is vmlinux there."""
    root = package(cache, kernel_package(meta))
    elf = os.path.join(root, 'vmlinux')
    if not os.path.exists(elf):
        vmlinux(glob.glob(root + '/boot/vmlinuz-*')[0], elf)
    return root


def build(build_dir, checks):
    """Makes what these checks need under build_dir/lab. Returns (kernel, initrd) for QEMU."""
    cache = os.path.join(build_dir, 'lab')
    os.makedirs(cache, exist_ok=True)
    root = kernel(cache, META)
    busybox = os.path.join(package(cache, 'busybox-static'), 'bin/busybox')
    bzimage = glob.glob(root + '/boot/vmlinuz-*')[0]
    inner = os.path.join(cache, 'guest.cpio')
    ramdisk(busybox, os.path.join(HERE, 'guest-init'), modules(root, GUEST_MODULES)).write(inner)

    c = ramdisk(busybox, os.path.join(HERE, 'init'), modules(root, MODULES))
    c.copy('lab/kelvin', os.path.join(build_dir, 'monitor/kelvin'))
    for path in glob.glob(os.path.join(build_dir, 'guests/*.elf')):
        c.copy('lab/' + os.path.basename(path), path)
    c.copy('lab/vmlinux', os.path.join(root, 'vmlinux'))
    if 'vmgenid' in checks:
        c.copy('lab/vmlinux-genid', os.path.join(kernel(cache, META_GENID), 'vmlinux'))
    c.copy('lab/guest.cpio', inner)
    c.copy('lab/talk', os.path.join(HERE, 'talk'))
    for path in sorted(glob.glob(os.path.join(HERE, 'checks/*'))):
        c.copy('lab/checks/' + os.path.basename(path), path)
    initrd = os.path.join(cache, 'lab.cpio')
    c.write(initrd)
    return bzimage, initrd
