# SPDX-License-Identifier: Apache-2.0
"""kelvin cp with the agent as a host process: files and trees both ways, and what goes wrong."""
import hashlib
import stat

from agent_vm import *

BIG = (16 if SANITIZED else 200) << 20


def make(path, data=b'x', mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'wb') as f:
        f.write(data)
    os.chmod(path, mode)
    return path


def read(path):
    with open(path, 'rb') as f:
        return f.read()


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def picture(top):
    """Everything below top: relative path -> (mode, content or target, whole seconds of mtime)."""
    seen = {}
    for base, dirs, files in os.walk(top):
        for n in dirs + files:
            path = os.path.join(base, n)
            st = os.lstat(path)
            if stat.S_ISLNK(st.st_mode):
                seen[os.path.relpath(path, top)] = os.readlink(path)
            else:
                seen[os.path.relpath(path, top)] = (
                    oct(st.st_mode), int(st.st_mtime),
                    hashlib.sha256(read(path)).hexdigest() if stat.S_ISREG(st.st_mode) else '')
    return seen


def no_leftovers(top):
    return not [n for _, _, names in os.walk(top) for n in names if n.startswith('.kelvin-cp')]


def test_cp_keeps_files_as_they_are():
    top = fresh_dir('cp-files')
    with AgentVM('f'):
        src = make(f'{top}/src', os.urandom(100001), 0o751)
        os.utime(src, ns=(0, 1234567890123456789))
        ok('cp', src, f'f:{top}/there')
        ok('cp', f'f:{top}/there', f'{top}/back')
        for copy in ('there', 'back'):
            assert read(f'{top}/{copy}') == read(src) and mode_of(f'{top}/{copy}') == 0o751
            assert os.stat(f'{top}/{copy}').st_mtime_ns == 1234567890123456789
        make(f'{top}/empty', b'', 0o600)
        ok('cp', f'{top}/empty', f'f:{top}/empty2')
        assert read(f'{top}/empty2') == b'' and mode_of(f'{top}/empty2') == 0o600
        # Into a directory; over a file; what has no size in advance; a link that is named.
        os.mkdir(f'{top}/dir')
        ok('cp', src, f'f:{top}/dir')
        ok('cp', src, f'f:{top}/empty2')
        assert read(f'{top}/dir/src') == read(f'{top}/empty2') == read(src)
        ok('cp', 'f:/proc/version', f'{top}/dir/')
        assert read(f'{top}/dir/version') == read('/proc/version')
        os.symlink('src', f'{top}/link')
        ok('cp', f'f:{top}/link', f'{top}/of-link')
        assert not os.path.islink(f'{top}/of-link') and read(f'{top}/of-link') == read(src)
        # A link in the way is replaced, what it points to is not touched.
        ok('cp', f'{top}/empty', f'f:{top}/link')
        assert not os.path.islink(f'{top}/link') and len(read(src)) == 100001
        # Names with a colon or a space; the working directory.
        make(f'{top}/a:b', b'colon')
        ok('cp', './a:b', f'f:{top}/c d', cwd=top)
        ok('cp', f'f:{top}/c d', 'e', cwd=top)
        assert read(f'{top}/e') == b'colon'
        # A set-user-id bit goes into the guest, but does not come out.
        make(f'{top}/suid', b'x', 0o4755)
        ok('cp', f'{top}/suid', f'f:{top}/suid2')
        ok('cp', f'f:{top}/suid2', f'{top}/suid3')
        assert mode_of(f'{top}/suid2') == 0o4755 and mode_of(f'{top}/suid3') == 0o755
        assert no_leftovers(top)


def test_cp_keeps_big_files_intact():
    top = fresh_dir('cp-big')
    with AgentVM('big'):
        block = os.urandom((1 << 20) - 4093)
        make(f'{top}/big', block * (BIG >> 20))
        r = ok('cp', '--json', f'{top}/big', f'big:{top}/there')
        facts = json.loads(r.out)
        assert facts == {'files': 1, 'directories': 0, 'links': 0,
                         'bytes': os.path.getsize(f'{top}/big')}, facts
        ok('cp', f'big:{top}/there', f'{top}/back')
        assert subprocess.run(['cmp', f'{top}/big', f'{top}/there']).returncode == 0
        assert subprocess.run(['cmp', f'{top}/big', f'{top}/back']).returncode == 0
    shutil.rmtree(top)


def make_tree(top):
    make(f'{top}/a', os.urandom(70000), 0o600)
    make(f'{top}/sub/deep/er/b', b'b', 0o755)
    make(f'{top}/sub/c', b'', 0o444)
    os.makedirs(f'{top}/none')
    os.symlink('../a', f'{top}/sub/rel')
    os.symlink('/nowhere/at/all', f'{top}/broken')
    for i in range(300):
        make(f'{top}/many/{i:03}' + 'n' * 200, b'%d' % i)
    os.chmod(f'{top}/sub/deep', 0o555)
    os.utime(f'{top}/sub/deep', (10, 1000000000))
    os.utime(f'{top}/none', (10, 1000000001))


def test_cp_keeps_trees():
    top = fresh_dir('cp-tree')
    make_tree(f'{top}/src')
    with AgentVM('t'):
        facts = json.loads(ok('cp', '--json', f'{top}/src', f't:{top}/in').out)
        assert facts['files'] == 303 and facts['directories'] == 6 and facts['links'] == 2, facts
        assert picture(f'{top}/in') == picture(f'{top}/src')
        ok('cp', f't:{top}/in/', f'{top}/out')
        assert picture(f'{top}/out') == picture(f'{top}/src')
        # Into a directory under its name; what is in it; over what is there.
        os.mkdir(f'{top}/into')
        ok('cp', f'{top}/src', f't:{top}/into')
        assert picture(f'{top}/into/src') == picture(f'{top}/src')
        os.mkdir(f'{top}/merged')
        make(f'{top}/merged/keep', b'kept')
        ok('cp', f't:{top}/src/.', f'{top}/merged')
        os.rename(f'{top}/merged/keep', f'{top}/kept')
        os.utime(f'{top}/merged', (10, 10))
        assert picture(f'{top}/merged') == picture(f'{top}/src') and read(f'{top}/kept') == b'kept'
        ok('cp', f'{top}/src', f't:{top}/into/')
        assert picture(f'{top}/into/src').keys() == picture(f'{top}/src').keys()
        # What is no file, directory or link is left out, and named.
        os.mkdir(f'{top}/odd')
        os.mkfifo(f'{top}/odd/pipe')
        make(f'{top}/odd/file')
        for src, dst in ((f'{top}/odd', f't:{top}/odd2'), (f't:{top}/odd', f'{top}/odd3')):
            r = ok('cp', src, dst)
            assert 'pipe is left out' in r.err and r.err.count('\n') == 1, r
            assert os.listdir(dst.split(':')[-1]) == ['file']
        assert no_leftovers(top)


def test_cp_says_what_went_wrong():
    top = fresh_dir('cp-wrong')
    make(f'{top}/file', b'data')
    os.makedirs(f'{top}/dir/file')
    os.mkfifo(f'{top}/pipe')
    with AgentVM('w'):
        refused('cp', f'{top}/none', f'w:{top}/x', says=['none', 'No such file'])
        refused('cp', f'w:{top}/none', f'{top}/x', says=['none', 'No such file'])
        refused('cp', f'{top}/file', f'w:{top}/no/such', says=['No such file'])
        refused('cp', f'w:{top}/file', f'{top}/no/such', says=['No such file'])
        refused('cp', f'{top}/file', f'w:{top}/no/', says='directory')
        refused('cp', f'w:{top}/file', f'{top}/no/', says='directory')
        refused('cp', f'{top}/file', f'w:{top}/dir', says='no file')  # a directory is in its way
        refused('cp', f'{top}/dir', f'w:{top}/file', says='file')
        refused('cp', f'{top}/pipe', f'w:{top}/x', says='no file')
        refused('cp', f'w:{top}/pipe', f'{top}/x', says='no file')
        refused('cp', f'{top}/file', 'w:/proc/version', says='cannot make version')
        refused('cp', f'{top}/file', 'w:/dev/null', says='null')
        refused('cp', f'{top}/file', 'nobody:/x', says=['nobody', 'kelvin ps'])
        for args in ((), ('a',), ('a', 'b'), ('w:/a', 'w:/b'), ('w:', 'x'), ('x', 'w:'),
                     ('a', 'b', 'w:/c')):
            refused('cp', *args, code=2)
        assert stat.S_ISCHR(os.stat('/dev/null').st_mode)
        assert read(f'{top}/file') == b'data' and no_leftovers(top) and no_leftovers('/dev')


def test_cp_leaves_no_partial_file():
    """The disk fills up, on either side; a file cannot be read to its end."""
    top = fresh_dir('cp-full')
    os.makedirs(f'{top}/small')
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1M', 'small', f'{top}/small'],
                      stderr=subprocess.DEVNULL).returncode:
        raise Skip('cannot mount a tmpfs')
    try:
        make(f'{top}/big', bytes(5 << 20))
        make(f'{top}/small/there', b'before')
        with AgentVM('p') as vm:
            for src, dst in ((f'{top}/big', f'p:{top}/small/there'),
                             (f'p:{top}/big', f'{top}/small/there')):
                r = refused('cp', src, dst, says='No space left')
                assert len(r.err.splitlines()) == 1, r
                assert os.listdir(f'{top}/small') == ['there']
                assert read(f'{top}/small/there') == b'before'
            refused('cp', 'p:/proc/self/mem', f'{top}/mem', says='mem')
            assert sorted(os.listdir(top)) == ['big', 'small']
            wait_until(lambda: not vm.workers(), what='no worker')
    finally:
        subprocess.run(['umount', f'{top}/small'], check=True)


def test_cp_that_is_cut_off():
    top = fresh_dir('cp-cut')
    os.makedirs(top)
    os.mkdir(f'{top}/dst')
    with open(f'{top}/huge', 'wb') as f:
        f.truncate(100 << 30)
    with AgentVM('c') as vm:
        def start(*args):
            p = subprocess.Popen([KELVIN, 'cp', *args], env=ENV, stderr=subprocess.PIPE)
            wait_until(vm.workers)
            time.sleep(0.3)  # it is in the middle of it
            return p

        ways = (f'{top}/huge', f'c:{top}/dst/x'), (f'c:{top}/huge', f'{top}/dst/x')
        for args in ways:
            for sig in (signal.SIGINT, signal.SIGKILL):  # our end goes
                p = start(*args)
                p.send_signal(sig)
                p.communicate(timeout=20)
                wait_until(lambda: not vm.workers(), what='the end of the copy')
                assert not os.listdir(f'{top}/dst'), (args, sig)
        for args in ways:  # the guest's goes
            p = start(*args)
            os.kill(int(vm.workers()[0]), signal.SIGKILL)
            err = p.communicate(timeout=20)[1]
            assert p.returncode == 1 and err.count(b'\n') == 1 and b'cut off' in err, err
            assert not os.listdir(f'{top}/dst'), args
    os.unlink(f'{top}/huge')


class FakeAgent:
    """A hostile guest: what it sends to a request is given."""

    def __init__(self, id, *frames):
        os.makedirs(vm_path(id))
        self.frames = b''.join(frames)
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(vm_path(id, 'vsock.sock'))
        self.server.listen(4)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        client, _ = self.server.accept()
        with client:
            read_line(client)
            client.sendall(b'OK 1\n')
            receive(client)
            client.sendall(frame(OK) + self.frames)
            try:
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
            except OSError:
                pass
        self.server.close()


def test_cp_distrusts_the_guest():
    top = fresh_dir('cp-evil')
    make(f'{top}/outside', b'safe')
    head = struct.pack('<IQ', 0o777, 0)
    file = struct.pack('<IQQ', 0o777, 0, 1)
    body = frame(DATA, b'!') + frame(FILE_END, struct.pack('<Q', 1))
    evil = [
        frame(DIR, head + b'd\0') + frame(FILE, file + b'../outside\0') + body,
        frame(DIR, head + b'd\0') + frame(FILE, file + f'{top}/outside\0'.encode()) + body,
        frame(DIR, head + b'd\0') + frame(LINK, texts('l', top)) +
        frame(DIR, head + b'l\0') + frame(FILE, file + b'outside\0') + body,
        frame(DIR, head + b'd\0') + frame(LINK, texts('l', f'{top}/outside')) +
        frame(FILE, file + b'l\0') + frame(DATA, b'!') + frame(FILE_END, struct.pack('<Q', 2)),
        frame(DIR, head + b'd\0') + frame(UP) + frame(UP) + frame(FILE, file + b'outside\0') + body,
        frame(DIR, head + b'd\0') + frame(DIR, head + b'..\0'),
        frame(LINK, texts('l', 'x')),
        frame(DATA, b'x'), frame(FILE, b''), frame(77), frame(FILE, length=1 << 30),
        frame(FILE, file + b'f\0') + frame(DATA, b'xx') + frame(FILE_END, struct.pack('<Q', 1)),
        frame(FILE, file + b'f\0') + body + frame(FILE, file + b'g\0') + body,
        frame(ERROR, b'\1\0\0\0two\nlines \x1b[31m'), frame(ERROR), frame(OK),
    ]
    for i, frames in enumerate(evil):
        FakeAgent(f'evil{i}', frames)
        r = refused('cp', f'evil{i}:/x', f'{top}/dst', says='kelvin: ')
        assert '\x1b' not in r.err, r
        assert read(f'{top}/outside') == b'safe' and no_leftovers(top), i
        assert sorted(os.listdir(top)) in (['outside'], ['dst', 'outside']), (i, os.listdir(top))
        shutil.rmtree(f'{top}/dst', ignore_errors=True)
        if os.path.exists(f'{top}/dst'):
            os.unlink(f'{top}/dst')
    # A guest that talks nonsense to exec.
    for i, frames in enumerate((frame(77), frame(EXIT), frame(STDIN_ACK, b'\1\0\0\0'),
                                frame(STDOUT, b'x', version=9), b'', frame(STDERR, length=1 << 28),
                                frame(ERROR, b'\0\0\0\0no status'))):
        FakeAgent(f'bad{i}', frames)
        refused('exec', f'bad{i}', '--', 'true', says='bad')
