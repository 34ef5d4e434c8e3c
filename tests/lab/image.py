# SPDX-License-Identifier: Apache-2.0
"""What the lab boots: Debian's cloud kernel and two initial RAM disks, made from its packages.

Nothing is installed: packages are downloaded and unpacked into a cache directory, once for each
version. Raises Unavailable, with a reason, where that cannot be done.
"""
import glob
import lzma
import os
import stat
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, 'guests/linux'))
from rootfs import Unavailable, debian  # noqa: E402
from rootfs.cpio import Cpio  # noqa: E402
from rootfs.tools import output, whole  # noqa: E402

KERNEL_GENID = 'linux-image-amd64'  # has the driver for VMGenID, which the cloud kernel has not
MODULES = ['kvm-amd', 'tun', 'virtio_net']
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


def with_vmlinux(root):
    """An unpacked kernel package, with its ELF as vmlinux in there."""
    elf = os.path.join(root, 'vmlinux')
    if not os.path.exists(elf):
        vmlinux(debian.kernel_image(root), elf)
    return root


def build(build_dir, checks):
    """Makes what these checks need under build_dir/lab. Returns (kernel, initrd) for QEMU."""
    cache = os.path.join(build_dir, 'lab')
    os.makedirs(cache, exist_ok=True)
    root = with_vmlinux(debian.package(cache, debian.kernel_package()))
    busybox = os.path.join(debian.package(cache, 'busybox-static'), 'bin/busybox')
    bzimage = debian.kernel_image(root)
    inner = os.path.join(cache, 'guest.cpio')
    ramdisk(busybox, os.path.join(HERE, 'guest-init'),
            debian.modules(root, GUEST_MODULES)).write(inner)

    c = ramdisk(busybox, os.path.join(HERE, 'init'), debian.modules(root, MODULES))
    c.copy('lab/kelvin', os.path.join(build_dir, 'monitor/kelvin'))
    for path in glob.glob(os.path.join(build_dir, 'guests/*.elf')):
        c.copy('lab/' + os.path.basename(path), path)
    c.copy('lab/vmlinux', os.path.join(root, 'vmlinux'))
    if 'vmgenid' in checks:
        other = with_vmlinux(debian.package(cache, debian.kernel_package(KERNEL_GENID)))
        c.copy('lab/vmlinux-genid', os.path.join(other, 'vmlinux'))
    c.copy('lab/guest.cpio', inner)
    c.copy('lab/talk', os.path.join(HERE, 'talk'))
    for path in sorted(glob.glob(os.path.join(HERE, 'checks/*'))):
        c.copy('lab/checks/' + os.path.basename(path), path)
    initrd = os.path.join(cache, 'lab.cpio')
    c.write(initrd)
    return bzimage, initrd
