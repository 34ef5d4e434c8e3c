# SPDX-License-Identifier: Apache-2.0
"""Packed kernels and bzImages, the kernel cache, default command lines."""
import glob
import gzip
import json
import lzma
import os
import struct

from vm import *


def write(name, data):
    path = os.path.join(TMP, name)
    with open(path, 'wb') as f:
        f.write(data)
    return path


def bzimage(name, elf, payload=None):
    """A bzImage as the boot protocol wants it, around a kernel."""
    size = os.path.getsize(elf)
    packed = payload or gzip.compress(open(elf, 'rb').read())
    head = bytearray(2048)
    head[0x1f1] = 3
    head[0x202:0x206] = b'HdrS'
    struct.pack_into('<H', head, 0x206, 0x20f)
    head[0x211] = 1
    struct.pack_into('<H', head, 0x236, 1)
    struct.pack_into('<II', head, 0x248, 64, len(packed))
    struct.pack_into('<I', head, 0x260, size + (1 << 20))
    return write(name, bytes(head) + bytes(64) + packed)


def test_packed_kernels_boot():
    hello = open(guest('hello'), 'rb').read()
    for name, data in (('hello.gz', gzip.compress(hello)),
                       ('hello.xz', lzma.compress(hello, check=lzma.CHECK_CRC32))):
        path = write(name, data)
        for _ in range(2):  # unpacked, and from the cache
            assert kelvin('run', path, '--', 'status=5').code == 5, name
        assert kelvin('run', '--memfd', path, '--', 'status=6').code == 6, name
        assert kelvin('run', '--kernel-cache', 'off', path, '--', 'status=7').code == 7, name
    assert len(glob.glob(os.path.join(TMP, 'kelvin', '*.vmlinux'))) == 2


def test_bzimage_boots_by_both_protocols():
    path = bzimage('bz', guest('hello'))
    for boot in ('pvh', 'linux64'):
        assert kelvin('run', '--boot', boot, path, '--', 'status=4').code == 4


def test_cache_in_a_named_directory():
    path = bzimage('bz', guest('hello'))
    cache = fresh_dir('cache')
    ok('run', '--kernel-cache', cache, path)
    assert len(os.listdir(cache)) >= 1
    os.chmod(cache, 0o777)
    refused('run', '--kernel-cache', cache, path, says=[cache, 'others can write it'])
    refused('run', '--kernel-cache', os.path.join(cache, 'a', 'b'), path, says='cannot make')


def test_a_mapped_kernel_survives_a_snapshot():
    path = write('echo.gz', gzip.compress(open(guest('echo'), 'rb').read()))
    ok('run', '--detach', '--wait-ready=20s', '--id', 'one', path)
    ok('kill', 'one')
    ok('run', '--detach', '--wait-ready=20s', '--id', 'two', path)  # mapped from the cache
    assert fields(ask_once('two', 'x'))['count'] == '1'
    snap = fresh_dir('snap')
    ok('snapshot', 'two', snap)
    ok('kill', 'two')
    for entry in glob.glob(os.path.join(TMP, 'kelvin', '*')):
        os.unlink(entry)  # the snapshot needs none of it
    ok('restore', '--detach', '--id', 'three', snap)
    assert fields(ask_once('three', 'x'))['count'] == '2'


def cmdline_of(id):
    return json.loads(ok('inspect', '--json', id).out)['cmdline']


def test_default_command_lines():
    """Linux gets words unless the operator gives some; others get none."""
    start('echo', id='kit')
    assert 'panic' not in cmdline_of('kit')
    out = ok('inspect', guest('echo')).out
    assert 'kit guest' in out and '(none)' in out, out
    facts = json.loads(ok('inspect', '--json', bzimage('bz', guest('echo'))).out)
    assert facts['format'] == 'bzImage' and facts['packed'] == 'gzip' and facts['pvh']
    assert facts['cmdline'] == ''


def test_l01_other_architectures():
    """Each is told what it is, packed or not."""
    def elf(machine, bits=2, order=1):
        head = b'\x7fELF' + bytes([bits, order, 1]) + bytes(9)
        return head + struct.pack('<HHI' if order == 1 else '>HHI', 2, machine, 1) + bytes(1000)

    arm64 = b'MZ' + bytes(0x36) + b'ARM\x64' + bytes(1000)
    for name, kernel, says in (('arm64', elf(183), 'for aarch64'), ('i386', elf(3, 1), 'for i386'),
                               ('s390', elf(22, 2, 2), 'for s390'), ('x32', elf(62, 1), '64-bit'),
                               ('Image', arm64, 'a kernel image for aarch64')):
        says = [name] + [says] + (['this machine is x86-64'] if name != 'x32' else [])
        refused('run', write(name, kernel), says=says)
        refused('run', write(name + '.gz', gzip.compress(kernel)), says=says)


def test_l01_initrd_and_command_line():
    """What does not fit is measured."""
    path = bzimage('bz', guest('hello'))
    initrd = write('initrd', b'')
    os.truncate(initrd, 200 << 20)
    refused('run', '--memory', '64M', '--initrd', initrd, path, says=[
        initrd, 'the initrd of 200 MiB does not fit in 64 MiB of RAM', 'at least 20'])
    os.truncate(initrd, 4 << 30)
    refused('run', '--initrd', initrd, path, says=[initrd, 'does not fit below 3 GiB'])
    os.truncate(initrd, 0)
    refused('run', '--initrd', initrd, path, says=[initrd, 'is empty'])
    refused('run', '--initrd', TMP, path, says=[TMP, 'not a regular file'])
    refused('run', '--initrd', TMP + '/none', path, says=['the initrd', 'No such file'])
    refused('run', guest('hello'), '--', 'x' * 4096, code=2, says='longer than 4095')
    refused('run', guest('hello'), '--', 'x' * 4090, says=['words that announce', '4095'])
    data = bytearray(open(path, 'rb').read())
    struct.pack_into('<I', data, 0x238, 100)
    refused('run', write('short', bytes(data)), '--', 'x' * 101, says=[
        'characters, with the words for devices', 'at most 100 fit in this kernel'])


def test_l01_kernels_that_are_none():
    good = bzimage('bz', guest('hello'))
    data = open(good, 'rb').read()
    refused('run', write('cut-kernel', data[:-1]), says='cut short')
    refused('run', write('head-kernel', data[:600]), says='cut short')
    i386 = bytearray(data)
    i386[0x236] = 0
    refused('run', write('i386', bytes(i386)), says='for i386')
    refused('run', bzimage('bad', guest('hello'), gzip.compress(bytes(1 << 24))),
            says='says that it unpacks')
    refused('run', write('zeros.gz', gzip.compress(bytes(1 << 24))), says='not an ELF file')
    for verb in ('run', 'inspect'):
        refused(verb, write('text', b'hello\n'),
                says=['not a kernel: neither an ELF file nor a bzImage', '68 65 6c 6c'])
    cut = write('third', data[:len(data) // 3])
    refused('run', cut, says=[cut, 'cut short: the kernel inside needs', 'the file has'])
    refused('run', TMP + '/none', says=['cannot open the kernel', 'none', 'No such file'])
    refused('run', TMP, says=[TMP, 'a directory, not a kernel'])
    refused('run', '--kernel-cache', '', good, code=2, says='--kernel-cache')
