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
    refused('run', write('text', b'hello\n'), says='not an ELF file')
    refused('inspect', write('text', b'hello\n'), says='not an ELF file')
    refused('run', '--kernel-cache', '', good, code=2, says='--kernel-cache')
