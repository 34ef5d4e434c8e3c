# SPDX-License-Identifier: Apache-2.0
"""Running programs of the system, and putting files in place whole."""
import contextlib
import os
import shutil
import subprocess
import tempfile

from . import Failure, Unavailable

# Programs that are not on every Debian, and the packages they come in.
PACKAGE_OF = {'apt-get': 'apt', 'apt-cache': 'apt', 'dpkg-deb': 'dpkg', 'mke2fs': 'e2fsprogs',
              'debugfs': 'e2fsprogs', 'e2fsck': 'e2fsprogs', 'zstd': 'zstd', 'lz4': 'lz4'}
SBIN = '/usr/local/sbin:/usr/sbin:/sbin'  # not in the PATH of people who are not root
TIMEOUT_S = 600


def find(name):
    path = shutil.which(name) or shutil.which(name, path=SBIN)
    if not path:
        raise Unavailable(f'{name} is not installed: it is in the package {PACKAGE_OF[name]}')
    return path


def output(cmd, **kw):
    """What a program prints. It must succeed."""
    cmd = [find(cmd[0])] + cmd[1:]
    if 'input' not in kw:
        kw['stdin'] = subprocess.DEVNULL
    kw.setdefault('stdout', subprocess.PIPE)
    try:
        return subprocess.run(cmd, check=True, stderr=subprocess.PIPE, timeout=TIMEOUT_S,
                              env=dict(os.environ, LC_ALL='C'), **kw).stdout
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as e:
        last = (e.stderr or b'').decode(errors='replace').strip().splitlines()[-1:]
        words = ' '.join([os.path.basename(cmd[0])] + cmd[1:3])
        raise Unavailable(f'{words} failed: {"".join(last) or e}') from None


@contextlib.contextmanager
def whole(dest):
    """A name to write to, which becomes dest when all went well: nobody sees half a file."""
    work = f'{dest}.{os.getpid()}.new'
    try:
        yield work
        os.replace(work, dest)
    except OSError as e:
        raise Failure(f'{dest}: cannot be written: {e.strerror}') from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(work)


@contextlib.contextmanager
def scratch(near):
    """A directory of ours on the file system of near; gone afterwards."""
    path = tempfile.mkdtemp(prefix='.work-', dir=near)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def copy(src, dest):
    with whole(dest) as work:
        try:
            shutil.copyfile(src, work)
        except OSError as e:
            raise Failure(f'{e.filename or dest}: {e.strerror}') from None
