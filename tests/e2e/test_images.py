# SPDX-License-Identifier: Apache-2.0
"""guests/linux/build: what it makes of tars, directories, container images and packages. No VMs."""
import glob
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile

from vm import *

SCRIPT = os.path.join(ROOT, 'guests/linux/build')
PATH = os.environ['PATH'] + ':/usr/sbin:/sbin'
CAPABILITY = bytes.fromhex('0100000200200000000000000000000000000000')
ODD = ('a b', 'quo"te', 'ünïcode', '#hash', "it's", '-dash', os.fsdecode(b'not\xffutf8'))


# ---- making inputs ----

def member(name, data=b'', **kw):
    """(TarInfo, contents); a keyword is one of TarInfo's fields."""
    m = tarfile.TarInfo(name)
    m.size, m.mode, m.mtime = len(data), 0o644, 1600000000
    for key, value in kw.items():
        setattr(m, key, value)
    return m, data


def folder(name, **kw):
    return member(name, type=tarfile.DIRTYPE, **{'mode': 0o755, **kw})


def link(name, target):
    return member(name, type=tarfile.SYMTYPE, linkname=target, mode=0o777)


def tar_bytes(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w', format=tarfile.PAX_FORMAT,
                      errors='surrogateescape') as tar:
        for m, data in members:
            tar.addfile(m, io.BytesIO(data))
    return out.getvalue()


def put_file(name, data):
    path = os.path.join(TMP, name)
    with open(path, 'wb') as f:
        f.write(data)
    return path


def rich_tar():
    """Something of all that a container's root may hold."""
    return tar_bytes(
        folder('./', mode=0o750, uid=7), folder('./bin', uid=0),
        member('./bin/su', b'#!su', mode=0o4755),
        member('./bin/big', b'x' * 100000, uid=1000, gid=100),
        member('./bin/far', b'', uid=70000, gid=80001, mode=0o600),
        member('./bin/again', type=tarfile.LNKTYPE, linkname='./bin/big'),
        link('./bin/sh', 'su'), link('./abs', '/bin/su'), link('./dangling', '../../nowhere'),
        folder('./tmp', mode=0o1777), folder('./locked', mode=0),
        member('./locked/secret', b's', mode=0),
        member('./null', type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        member('./bin/disk', type=tarfile.BLKTYPE, devmajor=254, devminor=300, mode=0o660, gid=6),
        member('./pipe', type=tarfile.FIFOTYPE, mode=0o640),
        member('./bin/ping', b'ping', pax_headers={
            'SCHILY.xattr.security.capability': CAPABILITY.decode('utf-8', 'surrogateescape')}),
        *(member('./odd/' + name, name.encode('utf-8', 'surrogateescape')) for name in ODD))


# ---- running it, reading what it made ----

def build(*args, code=0, user=None, **kw):
    agent = put_file('agent', b'#!/bin/sh\n')
    cmd = [sys.executable, SCRIPT, '--agent', agent, *map(str, args)]
    if user:
        cmd = ['setpriv', f'--reuid={user}', f'--regid={user}', '--clear-groups', *cmd]
    r = Result(subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300,
                              env=dict(ENV, PATH=PATH, COLUMNS='80',
                                       PYTHONDONTWRITEBYTECODE='1'), **kw))
    assert r.code == code, f'{" ".join(cmd)}: {r}'
    return r


def made(*args, **kw):
    """Builds without a kernel. Returns the directory."""
    out = fresh_dir('image')
    build('--out', out, '--kernel', 'none', *args, **kw)
    return out


def refuses(*args, says):
    out = fresh_dir('refused')
    r = build('--out', out, '--kernel', 'none', *args, code=1)
    lines = r.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith('guests/linux/build: '), r
    for word in [says] if isinstance(says, str) else says:
        assert word in r.err, f'"{word}" is not in: {r.err}'
    left = [f for f in os.listdir(out) if f != 'initramfs.cpio'] if os.path.isdir(out) else []
    assert not left, f'left behind: {left}'


def cpio(path):
    """name -> (mode, uid, gid, links, mtime, ino, data, rdev)"""
    data, at, found = open(path, 'rb').read(), 0, {}
    while True:
        f = [int(data[at + 6 + 8 * i:][:8], 16) for i in range(13)]
        assert data[at:at + 6] == b'070701', f'no header at {at}'
        name = os.fsdecode(data[at + 110:at + 110 + f[11] - 1])
        body = (at + 110 + f[11] + 3) & ~3
        if name == 'TRAILER!!!':
            return found
        assert name not in found, name
        found[name] = (f[1], f[2], f[3], f[4], f[5], f[0], data[body:body + f[6]], tuple(f[9:11]))
        at = (body + f[6] + 3) & ~3


def debugfs(image, command):
    return subprocess.run(['debugfs', '-R', command, image], check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, env=dict(ENV, PATH=PATH)).stdout


def quoted(path):
    return '"' + path.replace('"', '""') + '"'


def stat_ext4(image, path):
    text = debugfs(image, 'stat ' + quoted(path)).decode(errors='replace')
    field = dict(re.findall(r'(Inode|Type|Mode|User|Group|Links): +([\w ]+?) *(?= {2,}|\n|$)',
                            text))
    assert 'Inode' in field, f'{path}: {text}'
    field['mtime'] = int(re.search(r' mtime: 0x(\w+)', text)[1], 16)
    field['text'] = text
    return field


def read_ext4(image, path):
    return debugfs(image, 'cat ' + quoted(path))


def check_fs(image):
    subprocess.run(['e2fsck', '-fn', image], check=True, stdout=subprocess.PIPE,
                   stderr=subprocess.STDOUT, env=dict(ENV, PATH=PATH))


def owner(s):
    return int(s['User']), int(s['Group'])


# ---- everything is kept ----

def check_rich_ext4(image):
    check_fs(image)
    for path, mode, who in (('/', '0750', (7, 0)), ('/bin/su', '04755', (0, 0)),
                            ('/bin/big', '0644', (1000, 100)), ('/bin/far', '0600', (70000, 80001)),
                            ('/tmp', '01777', (0, 0)), ('/locked', '0000', (0, 0)),
                            ('/locked/secret', '0000', (0, 0)), ('/null', '0666', (0, 0)),
                            ('/bin/disk', '0660', (0, 6)), ('/pipe', '0640', (0, 0))):
        s = stat_ext4(image, path)
        assert int(s['Mode'], 8) == int(mode, 8) and owner(s) == who, f'{path}: {s}'
        assert s['mtime'] == 1600000000, f'{path}: {s}'
    assert stat_ext4(image, '/null')['Type'] == 'character special'
    assert re.search(r'01:03', stat_ext4(image, '/null')['text'])
    assert re.search(r'254:300|fe:12c', stat_ext4(image, '/bin/disk')['text'])
    assert stat_ext4(image, '/pipe')['Type'] == 'FIFO'
    assert 'Fast link dest: "su"' in stat_ext4(image, '/bin/sh')['text']
    assert 'Fast link dest: "../../nowhere"' in stat_ext4(image, '/dangling')['text']
    big, again = stat_ext4(image, '/bin/big'), stat_ext4(image, '/bin/again')
    assert big['Inode'] == again['Inode'] and big['Links'] == '2', (big, again)
    assert read_ext4(image, '/bin/big') == b'x' * 100000
    assert 'security.capability' in stat_ext4(image, '/bin/ping')['text']
    value = debugfs(image, 'ea_get -x /bin/ping security.capability').decode()
    assert re.sub(r'\W', '', value.partition('=')[2]) == CAPABILITY.hex(), value
    for name in ODD:
        assert read_ext4(image, '/odd/' + name) == os.fsencode(name), name
    stat_ext4(image, '/proc')  # a place to mount it


def test_images_ext4_keeps_everything():
    out = made('--ext4', '--size', '32M', '--from-tar', put_file('rich.tar', rich_tar()))
    assert os.path.getsize(out + '/root.ext4') == 32 << 20
    check_rich_ext4(out + '/root.ext4')
    small = cpio(out + '/initramfs.cpio')
    assert small['init'][6] == b'#!/bin/sh\n' and 'bin' not in small, small


def test_images_ext4_without_root():
    """The same from a user who owns nothing in it and could make none of it."""
    if os.geteuid():
        raise Skip('the other test is this one')
    path = put_file('rich.tar', rich_tar())
    out = fresh_dir('theirs')
    os.mkdir(out)
    os.chown(out, 65534, 65534)
    os.chmod(TMP, 0o711)
    if not os.access(SCRIPT, os.X_OK) or subprocess.run(
            ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', 'test', '-r', SCRIPT],
            check=False).returncode:
        raise Skip('nobody but root can read this checkout')
    build('--out', out, '--kernel', 'none', '--ext4', '--from-tar', path, user=65534)
    check_rich_ext4(out + '/root.ext4')


def test_images_initramfs_keeps_everything():
    c = cpio(made('--from-tar', put_file('rich.tar', rich_tar())) + '/initramfs.cpio')
    for path, mode, uid, gid in (('bin/su', stat.S_IFREG | 0o4755, 0, 0),
                                 ('bin/big', stat.S_IFREG | 0o644, 1000, 100),
                                 ('bin/far', stat.S_IFREG | 0o600, 70000, 80001),
                                 ('tmp', stat.S_IFDIR | 0o1777, 0, 0),
                                 ('null', stat.S_IFCHR | 0o666, 0, 0),
                                 ('bin/disk', stat.S_IFBLK | 0o660, 0, 6),
                                 ('pipe', stat.S_IFIFO | 0o640, 0, 0),
                                 ('bin/sh', stat.S_IFLNK | 0o777, 0, 0),
                                 ('init', stat.S_IFREG | 0o755, 0, 0),
                                 ('dev/console', stat.S_IFCHR | 0o600, 0, 0)):
        assert c[path][:3] == (mode, uid, gid), f'{path}: {c[path]}'
    assert c['null'][7] == (1, 3) and c['bin/disk'][7] == (254, 300)
    assert c['bin/sh'][6] == b'su' and c['abs'][6] == b'/bin/su'
    first, second = c['bin/again'], c['bin/big']
    assert first[5] == second[5] and first[3] == second[3] == 2
    assert first[6] == b'x' * 100000 and second[6] == b''  # contents come with the first name
    for name in ODD:
        assert c['odd/' + name][6] == os.fsencode(name)
    names = list(c)
    for name in names:  # Linux makes no parents
        assert '/' not in name or names.index(os.path.dirname(name)) < names.index(name), name


def test_images_packed_tars():
    data = tar_bytes(member('etc/it', b'is here'))
    packed = {'gz': gzip.compress(data), 'xz': lzma.compress(data), 'plain': data}
    if shutil.which('zstd'):
        packed['zst'] = subprocess.run(['zstd', '-qc'], input=data, check=True,
                                       stdout=subprocess.PIPE).stdout
    for name, body in packed.items():
        path = put_file('packed.' + name, body)
        assert cpio(made('--from-tar', path) + '/initramfs.cpio')['etc/it'][6] == b'is here', name
        if name != 'plain':
            refuses('--from-tar', put_file('cut', body[:-20]), says=['cut', 'damaged'])
    out = made('--from-tar', '-', stdin=open(path, 'rb'))
    assert cpio(out + '/initramfs.cpio')['etc/it'][6] == b'is here'
    out = made('--from-tar', path, '--compress', 'gzip', '--hostname', 'box')
    open(out + '/plain', 'wb').write(gzip.open(out + '/initramfs.cpio.gz').read())
    assert cpio(out + '/plain')['etc/hostname'][6] == b'box\n'


# ---- hostile tars ----

def test_images_hostile_names():
    """Names that lead out of the archive: refused by name, and nothing outside is touched."""
    victim = put_file('victim', b'untouched')
    outside = os.path.dirname(victim)
    evil = member('x', b'evil')
    for what, says, *members in (
            ('dots', '"../../victim"', member('../../victim', b'evil')),
            ('inner', '"a/../../victim"', member('a/../../victim', b'evil')),
            ('absolute', f'"{victim}"', member(victim, b'evil')),
            ('link', '"out/victim"', link('out', outside), member('out/victim', b'evil')),
            ('up', '"up/victim"', link('up', '../..'), member('up/victim', b'evil')),
            ('chain', '"b/victim"', link('a', '..'), link('b', 'a'), member('b/victim', b'evil')),
            ('loop', 'circles', link('a', 'b'), link('b', 'a'), member('a/victim', b'evil')),
            ('hard', '"../victim"', member('h', type=tarfile.LNKTYPE, linkname='../victim')),
            ('hardabs', f'"{victim}"', member('h', type=tarfile.LNKTYPE, linkname=victim)),
            ('hardnone', '"nowhere"', member('h', type=tarfile.LNKTYPE, linkname='nowhere')),
            ('harddir', 'a directory', folder('d'),
             member('h', type=tarfile.LNKTYPE, linkname='d')),
            ('file', 'no directory', member('f', b''), member('f/victim', b'evil')),
            ('long', 'too long', member('n' * 256, b'evil')),
            ('newline', 'a\\nb"', member('a\nb', b'', uid=5)),
            ('type', 'unknown type', member('odd', type=b'V'))):
        path = put_file(what + '.tar', tar_bytes(*members, evil))
        mode = ['--ext4'] if what == 'newline' else []
        refuses('--from-tar', path, *mode, says=[says] + ([] if mode else [what + '.tar']))
    assert open(victim, 'rb').read() == b'untouched'


def test_images_deep():
    """As deep as can be, and deeper; a disk image is staged below another path."""
    name = 'd/' * 255 + 'leaf'
    path = put_file('deep.tar', tar_bytes(member(name, b'deep')))
    assert cpio(made('--from-tar', path) + '/initramfs.cpio')[name][6] == b'deep'
    assert read_ext4(made('--from-tar', path, '--ext4') + '/root.ext4', '/' + name) == b'deep'
    path = put_file('deep.tar', tar_bytes(member('d/' + name, b'')))
    refuses('--from-tar', path, '--ext4', says='more than 256 directories deep')
    path = put_file('deep.tar', tar_bytes(member('/'.join(['d' * 254] * 16) + '/leaf', b'')))
    refuses('--from-tar', path, '--ext4', says='name too long')


def test_images_links_inside_are_followed():
    c = cpio(made('--from-tar', put_file('in.tar', tar_bytes(
        folder('usr/lib'), link('lib', 'usr/lib'), link('deep', 'usr/../lib'),
        member('lib/a', b'a'), member('deep/b', b'b')))) + '/initramfs.cpio')
    assert c['usr/lib/a'][6] == b'a' and c['usr/lib/b'][6] == b'b'
    assert stat.S_ISLNK(c['lib'][0])


def test_images_what_is_no_tar():
    good = tar_bytes(member('a', b'x' * 5000), member('b', b'y'))
    cut = 'cut short'
    for name, data, says in (
            ('text', b'hello\n', ['not a tar', '68 65 6c 6c']), ('empty', b'', 'empty'),
            ('data', good[:3000], ['damaged', 'end of data']),
            ('header', good[:6000], 'tar archive'),
            ('noend', good[:6656], cut), ('middle', good[:6144] + b'!' * 4096, 'damaged'),
            ('sum', good[:148] + b'7777777' + good[155:], 'damaged'),
            ('gz', gzip.compress(b'hello'), 'not a tar'),
            ('negative', negative_size(), ['damaged', 'negative'])):
        refuses('--from-tar', put_file(name, data), says=[name] + ([says] if isinstance(says, str)
                                                                  else says))
    refuses('--from-tar', TMP, says=[TMP, 'directory'])
    refuses('--from-tar', TMP + '/none', says=['none', 'No such file'])


def negative_size():
    """A member whose size, in base 256, leads back to itself."""
    head = bytearray(tar_bytes(member('a'), member('b'))[:2048])
    head[512 + 124:512 + 136] = b'\xff' * 10 + b'\xfe\x00'  # -512
    head[512 + 148:512 + 156] = b' ' * 8
    head[512 + 148:512 + 156] = b'%06o\0 ' % sum(head[512:1024])
    return bytes(head)


# ---- container images ----

def blob(base, data):
    digest = hashlib.sha256(data).hexdigest()
    os.makedirs(base + '/blobs/sha256', exist_ok=True)
    with open(f'{base}/blobs/sha256/{digest}', 'wb') as f:
        f.write(data)
    return {'digest': 'sha256:' + digest, 'size': len(data)}


def layers():
    """Three, with whiteouts. What is left is keep, dir/new, old/2."""
    return (tar_bytes(member('keep', b'1'), member('gone', b'1'), folder('dir'),
                      member('dir/old', b'1'), folder('old'), member('old/1', b'1'),
                      link('l', 'dir')),
            gzip.compress(tar_bytes(member('.wh.gone'), folder('dir'), member('dir/new', b'2'),
                                    member('dir/.wh..wh..opq'))),
            tar_bytes(member('.wh.old'), folder('old'), member('old/2', b'3'), member('l', b'3')))


def layout(name, digests=1):
    base = fresh_dir(name)
    config = blob(base, json.dumps({'config': {'Cmd': ['/bin/app'], 'Env': ['A=b']}}).encode())
    manifest = {'config': config, 'layers': [blob(base, l) for l in layers()]}
    entry = blob(base, json.dumps(manifest).encode())
    entry['platform'] = {'os': 'linux', 'architecture': 'amd64'}
    index = blob(base, json.dumps({'manifests': [entry] * digests}).encode())
    with open(base + '/index.json', 'w') as f:
        json.dump({'manifests': [index]}, f)
    with open(base + '/oci-layout', 'w') as f:
        f.write('{"imageLayoutVersion": "1.0.0"}')
    return base, manifest


def check_layers(out):
    c = cpio(out + '/initramfs.cpio')
    ours = {n: c[n][6] for n in c if stat.S_ISREG(c[n][0]) and n != 'init'}
    assert ours == {'keep': b'1', 'dir/new': b'2', 'old/2': b'3', 'l': b'3'}, ours


def test_images_oci():
    base, manifest = layout('oci')
    check_layers(made('--from-dir', base))
    path = os.path.join(TMP, 'oci.tar')
    with tarfile.open(path, 'w') as tar:
        tar.add(base, '.')
    check_layers(made('--from-tar', path))
    first = base + '/blobs/sha256/' + manifest['layers'][0]['digest'][7:]
    with open(first, 'ab') as f:
        f.write(b'!')
    refuses('--from-dir', base, says=['oci', 'is damaged'])
    os.unlink(first)
    refuses('--from-dir', base, says=['oci', 'No such file'])
    refuses('--from-dir', layout('two', 2)[0], says='2 images')
    with open(base + '/index.json', 'w') as f:
        f.write('{"manifests": [{"digest": "sha256:../../../etc/passwd"}]}')
    refuses('--from-dir', base, says=['"sha256:../../../etc/passwd"'])
    with open(base + '/index.json', 'w') as f:
        f.write('[' * 100000)
    refuses('--from-dir', base, says=['index.json', 'no JSON'])


def test_images_docker_save():
    files = [member(f'{i}/layer.tar', l) for i, l in enumerate(layers())]
    manifest = [{'Config': 'c.json', 'Layers': ['0/layer.tar', '1/layer.tar', '2/layer.tar']}]
    config = member('c.json', b'{"config": {}}')
    saved = tar_bytes(*files, config, member('manifest.json', json.dumps(manifest).encode()))
    check_layers(made('--from-tar', put_file('saved.tar', saved)))
    manifest[0]['Layers'].append('../../../etc/passwd')
    refuses('--from-tar', put_file('saved.tar', tar_bytes(
        *files, config, member('manifest.json', json.dumps(manifest).encode()))),
            says='"../../../etc/passwd"')
    refuses('--from-tar', put_file('saved.tar', tar_bytes(
        *files, member('manifest.json', json.dumps(manifest * 2).encode()))), says='2 images')


# ---- directories ----

def test_images_from_directories():
    base = fresh_dir('bundle')
    os.makedirs(base + '/rootfs/sub')
    with open(base + '/rootfs/sub/a', 'wb') as f:
        f.write(b'data')
    os.chmod(base + '/rootfs/sub/a', 0o751)
    os.link(base + '/rootfs/sub/a', base + '/rootfs/b')
    os.symlink('/etc/passwd', base + '/rootfs/passwd')
    os.mkfifo(base + '/rootfs/fifo')
    open(base + '/config.json', 'w').close()
    image = made('--ext4', '--from-dir', base) + '/root.ext4'
    check_fs(image)
    s = stat_ext4(image, '/sub/a')
    assert s['Mode'] == '0751' and owner(s) == (0, 0) and s['Links'] == '2', s
    assert read_ext4(image, '/b') == b'data'
    assert '"/etc/passwd"' in stat_ext4(image, '/passwd')['text']
    assert stat_ext4(image, '/fifo')['Type'] == 'FIFO'
    refuses('--from-dir', base + '/config.json', says='not a directory')
    refuses('--from-dir', base + '/none', says='not there')


# ---- sizes, usage ----

def test_images_that_do_not_fit():
    path = put_file('fat.tar', tar_bytes(member('fat', b'\1' * (24 << 20))))
    r = build('--out', fresh_dir('fat'), '--kernel', 'none', '--ext4', '--size', '16M',
              '--from-tar', path, code=1)
    assert '24 MiB of files do not fit in 16 MiB' in r.err, r
    made('--ext4', '--size', re.search(r'--size (\d+M)', r.err)[1], '--from-tar', path)
    many = put_file('many.tar', tar_bytes(*(member(f'd/{i}', b'') for i in range(9000))))
    image = made('--ext4', '--from-tar', many) + '/root.ext4'
    check_fs(image)
    stat_ext4(image, '/d/8999')


def test_images_usage():
    path = put_file('in.tar', tar_bytes(member('a')))
    out = fresh_dir('usage')
    for args, says in (([], '--out'), (['--out', out], 'one of the arguments'),
                       (['--out', out, '--size', '64M', '--from-tar', path], '--ext4 is missing'),
                       (['--out', out, '--ext4', '--size', '1', '--from-tar', path], 'no size'),
                       (['--out', out, '--hostname', 'a b', '--from-tar', path], 'no host name')):
        assert says in build(*args, code=2).err, says
    text = build('--help').out
    assert 'examples:' in text and max(map(len, text.splitlines())) <= 80, text
    refuses('--from-tar', path, '--agent', TMP + '/none', says='no agent')
    refuses('--from-tar', put_file('own.tar', tar_bytes(member('init', b''))), says='use --ext4')
    assert 'none: No such file' in build('--out', out, '--from-tar', path, '--kernel',
                                         TMP + '/none', code=1).err
    facts = json.loads(build('--out', out, '--kernel', 'none', '--ext4', '--from-tar', path,
                             '--json').out)
    assert facts['command'][0] == 'kelvin' and facts['root'] == out + '/root.ext4', facts
    r = build('--out', out, '--kernel', 'none', '--ext4', '--from-tar', path)
    assert r.out.endswith('-- panic=-1 reboot=a cryptomgr.notests 8250.nr_uarts=0 '
                          'kelvin.root=/dev/vda kelvin.rootfstype=ext4\n'), r
    r = build('--out', out, '--kernel', 'none', '--ext4', '--console', '--from-tar', path)
    assert 'run --detach --wait-ready --console ' in r.out and ' console=ttyS0 ' in r.out, r
    refuses('--from-tar', path, '--run', 'app x', says='no program "app"')
    refuses('--from-tar', path, '--run', '/a \'"\'', says='cannot be said')
    run = tar_bytes(link('bin', 'usr/bin'), member('usr/bin/app', b'', mode=0o755))
    command = json.loads(build('--out', out, '--kernel', 'none', '--json', '--from-tar', put_file(
        'app.tar', run), '--run', "app 'two words' ''").out)['command']
    assert command[-4:] == ['--', '/usr/bin/app', '"two words"', '""'], command


def test_images_missing_tools():
    """Without e2fsprogs the package is named."""
    path = put_file('in.tar', tar_bytes(member('a')))
    agent = put_file('agent', b'')
    done = subprocess.run([sys.executable, '-c', 'import runpy, shutil\n'
                           'shutil.which = lambda *a, **kw: None\n'
                           f'runpy.run_path({SCRIPT!r}, run_name="__main__")',
                           '--out', fresh_dir('bare'), '--kernel', 'none', '--agent', agent,
                           '--ext4', '--from-tar', path],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 1 and b'in the package e2fsprogs' in done.stderr, Result(done)


# ---- packages ----

def debian():
    sys.path.insert(0, os.path.join(ROOT, 'guests/linux'))
    from rootfs import Unavailable, debian as module
    try:
        cache = os.path.join(BUILD, 'lab')
        archive = module.Archive(cache)
        archive.package(archive.kernel_package())
        for name, version in archive.closure(['busybox-static', 'hostname']).items():
            archive.deb(name, version)
    except Unavailable as e:
        raise Skip(str(e)) from None
    return cache


def test_images_from_packages():
    cache = debian()
    out = fresh_dir('debian')
    build('--out', out, '--ext4', '--from-packages', 'hostname', '--cache', cache)
    small = cpio(out + '/initramfs.cpio')
    modules = [n[11:-3].replace('-', '_') for n in small if n.startswith('modules/')]
    for needs, module in (('virtio', 'virtio_mmio'), ('virtio_ring', 'virtio_blk'),
                          ('net_failover', 'virtio_net'),
                          ('vsock', 'vmw_vsock_virtio_transport')):
        assert needs not in modules or modules.index(needs) < modules.index(module), modules
        assert module in modules, modules
    with open(out + '/vmlinuz', 'rb') as f:
        assert f.read(0x206)[0x202:] == b'HdrS'
    assert json.loads(ok('inspect', '--json', out + '/vmlinuz').out)['format'] == 'bzImage'
    image = out + '/root.ext4'
    check_fs(image)
    assert '"/bin/busybox"' in stat_ext4(image, '/usr/bin/sh')['text']
    assert stat_ext4(image, '/usr/bin/hostname')['Type'] == 'regular'  # not busybox's
    stat_ext4(image, '/usr/lib/x86_64-linux-gnu/libc.so.6')
    assert b'root:x:0:0' in read_ext4(image, '/etc/passwd')
    root = glob.glob(cache + '/linux-image-*-cloud-amd64_*')[0]
    out = fresh_dir('own')
    build('--out', out, '--kernel', out + '/../debian/vmlinuz', '--modules',
          glob.glob(root + '/lib/modules/*')[0], '--from-packages', '--cache', cache)
    assert [n for n in cpio(out + '/initramfs.cpio') if n.startswith('modules/')] == [
        n for n in small if n.startswith('modules/')]
    refuses('--modules', TMP, '--from-packages', '--cache', cache, says='no kernel modules')
    assert 'apt knows no package "no-such-package"' in build(
        '--out', out, '--cache', cache, '--from-packages', 'no-such-package', code=1).err
    assert 'no name of a package' in build('--out', out, '--cache', cache,
                                           '--from-packages=-o/x', code=1).err


if SANITIZED:  # nothing of it is built with sanitizers
    for name in [n for n in globals() if n.startswith('test_')]:
        del globals()[name]
