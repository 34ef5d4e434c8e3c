# SPDX-License-Identifier: Apache-2.0
"""What the lab boots: Debian's cloud kernel and two initial RAM disks, made from its packages.

Nothing is installed: packages are downloaded and unpacked into a cache directory, once for each
version. Raises Unavailable, with a reason, where that cannot be done.
"""
import glob
import gzip
import io
import json
import lzma
import os
import stat
import subprocess
import sys
import tarfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, 'guests/linux'))
from rootfs import Unavailable, debian  # noqa: E402
from rootfs.cpio import Cpio  # noqa: E402
from rootfs.tools import output, whole  # noqa: E402

KERNEL_GENID = 'linux-image-amd64'  # has the driver for VMGenID, which the cloud kernel has not
MODULES = ['kvm-amd', 'tun', 'virtio_net']
TOOLS = ['pauser', 'stream']  # of this folder, in C
GUEST_MODULES = ['virtio_mmio', 'virtio_blk', 'vmw_vsock_virtio_transport', 'button', 'evdev']
PAYLOAD_OFFSET, PAYLOAD_LENGTH, SETUP_SECTS = 0x248, 0x24c, 0x1f1  # of a bzImage's header


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
    with whole(dest) as work, open(work, 'wb') as f:
        f.write(elf)


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


def container_tar(dest, busybox):
    """What docker export might give: a small root, with owners and devices."""
    with tarfile.open(dest, 'w') as tar:
        def add(name, kind=tarfile.REGTYPE, data=b'', **fields):
            m = tarfile.TarInfo(name)
            m.type, m.size, m.mode = kind, len(data), 0o755
            for key, value in fields.items():
                setattr(m, key, value)
            tar.addfile(m, io.BytesIO(data))

        with open(busybox, 'rb') as f:
            add('usr/bin/busybox', data=f.read())
        add('bin', tarfile.SYMTYPE, linkname='usr/bin')
        for applet in ('sh', 'stat', 'cat', 'id', 'df', 'mount', 'uname'):
            add('usr/bin/' + applet, tarfile.LNKTYPE, linkname='usr/bin/busybox')
        add('etc/secret', data=b'seen by 1234 only\n', uid=1234, gid=99, mode=0o640)
        add('usr/bin/up', data=b'', mode=0o4755)
        add('srv/zero', tarfile.CHRTYPE, devmajor=1, devminor=5, mode=0o666)
        add('tmp', tarfile.DIRTYPE, mode=0o1777)


def guest_images(cache, build_dir, busybox, c, checks):
    """Puts what guests/linux/build makes into the lab: one directory for each check image-*."""
    tar = os.path.join(cache, 'container.tar')
    container_tar(tar, busybox)
    for name, words in (('initramfs', ['--from-packages']),
                        ('ext4', ['--ext4', '--size', '32M', '--from-packages', 'hostname',
                                  '--hostname', 'box']),
                        ('tar', ['--ext4', '--size', '16M', '--from-tar', tar])):
        if 'image-' + name not in checks:
            continue
        out = os.path.join(cache, 'image-' + name)
        done = subprocess.run([sys.executable, os.path.join(ROOT, 'guests/linux/build'), '--json',
                               '--console', '--out', out, '--cache', cache, *words], check=False,
                              env=dict(os.environ, KELVIN_BUILD=build_dir),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise Unavailable(f'guests/linux/build, for image-{name}: {done.stderr.strip()}')
        made = json.loads(done.stdout)
        c.copy(f'lab/image/{name}/initramfs.cpio', made['initramfs'])
        if 'root' in made:
            with open(made['root'], 'rb') as f:
                c.add(f'lab/image/{name}/root.ext4.gz', gzip.compress(f.read(), 1))
        # The words after the kernel, with what the lab's QEMU needs; a check adds to them.
        words = made['command']
        words = words[words.index('--') + 1:] if '--' in words else []
        c.add(f'lab/image/{name}/words', ' '.join(words).encode())


def with_vmlinux(root):
    """An unpacked kernel package, with its ELF as vmlinux in there."""
    elf = os.path.join(root, 'vmlinux')
    if not os.path.exists(elf):
        vmlinux(debian.kernel_image(root), elf)
    return root


def build(build_dir, checks, own=(), files=()):
    """Makes what these checks need under build_dir/lab. Returns (kernel, initrd) for QEMU.

    `own` are scripts beside those of the repository; `files` are for them, in /lab/files.
    """
    cache = os.path.join(build_dir, 'lab')
    os.makedirs(cache, exist_ok=True)
    archive = debian.Archive(cache)
    root = with_vmlinux(archive.package(archive.kernel_package()))
    busybox = os.path.join(archive.package('busybox-static'), 'bin/busybox')
    bzimage = debian.kernel_image(root)
    inner = os.path.join(cache, 'guest.cpio')
    c = ramdisk(busybox, os.path.join(HERE, 'guest-init'), debian.modules(root, GUEST_MODULES))
    for path in sorted(glob.glob(os.path.join(HERE, 'guest/*'))):
        c.copy('do/' + os.path.basename(path), path)
    c.write(inner)

    agent = os.path.join(cache, 'agent.cpio')
    ramdisk(busybox, os.path.join(build_dir, 'guests/linux/agent'),
            debian.modules(root, GUEST_MODULES + ['virtio_net'])).write(agent)

    c = ramdisk(busybox, os.path.join(HERE, 'init'), debian.modules(root, MODULES))
    c.copy('lab/kelvin', os.path.join(build_dir, 'monitor/kelvin'))
    for path in glob.glob(os.path.join(build_dir, 'guests/*.elf')):
        c.copy('lab/' + os.path.basename(path), path)
    for name in TOOLS:
        c.copy('lab/' + name, os.path.join(build_dir, 'tests/lab/lab-' + name))
    c.copy('lab/vmlinuz', bzimage)
    c.copy('lab/vmlinux', os.path.join(root, 'vmlinux'))
    if 'vmgenid' in checks:
        other = with_vmlinux(archive.package(archive.kernel_package(KERNEL_GENID)))
        c.copy('lab/vmlinux-genid', os.path.join(other, 'vmlinux'))
    c.copy('lab/guest.cpio', inner)
    c.copy('lab/agent.cpio', agent)
    c.copy('lab/talk', os.path.join(HERE, 'talk'))
    guest_images(cache, build_dir, busybox, c, checks)
    for path in sorted(glob.glob(os.path.join(HERE, 'checks/*'))) + list(own):
        c.copy('lab/checks/' + os.path.basename(path), path)
    for path in files:
        c.copy('lab/files/' + os.path.basename(path), path)
    initrd = os.path.join(cache, 'lab.cpio')
    c.write(initrd)
    return bzimage, initrd
