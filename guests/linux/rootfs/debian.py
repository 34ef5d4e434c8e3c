# SPDX-License-Identifier: Apache-2.0
"""Debian's packages, downloaded by apt and unpacked. Nothing is installed, no script of theirs runs.

A cache directory keeps each package, by name and version; two processes may share it.
"""
import glob
import gzip
import lzma
import os
import re
import shutil
import subprocess
import tempfile

from . import Failure, Unavailable
from .tools import find, output

KERNEL = 'linux-image-cloud-amd64'  # depends on the kernel of the day


def _show(names):
    """name -> fields of the package apt would take. Names it does not know are left out."""
    done = subprocess.run([find('apt-cache'), 'show', '--no-all-versions', *names], check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    found = {}
    for block in done.stdout.decode(errors='replace').split('\n\n'):
        fields = dict(re.findall(r'^([\w-]+): (.*)$', block, re.M))
        if 'Package' in fields:
            found.setdefault(fields['Package'], fields)
    return found


def _version(name):
    if not re.fullmatch(r'[a-z0-9][a-z0-9.+-]*', name):
        raise Failure(f'"{name}" is no name of a package')
    found = _show([name])
    if name not in found:
        raise Unavailable(f'apt knows no package "{name}": is it spelt right? '
                          'If so, run apt-get update')
    return found[name]['Version']


def _download(work, name, version):
    output(['apt-get', 'download', '-q', '-o', 'APT::Sandbox::User=root', f'{name}={version}'],
           cwd=work)
    return glob.glob(work + '/*.deb')[0]


def _fetch(cache, name, version, suffix, make):
    """The cached thing of this package, made with make(work directory) if need be."""
    place = os.path.join(cache, f'{name}_{version.replace(":", "%")}{suffix}')
    if os.path.exists(place):
        return place
    os.makedirs(cache, mode=0o700, exist_ok=True)
    work = tempfile.mkdtemp(prefix='.new-', dir=cache)
    try:
        made = make(work)
        for old in glob.glob(os.path.join(cache, f'{name}_*{suffix}')):
            shutil.rmtree(old) if os.path.isdir(old) else os.unlink(old)
        try:
            os.rename(made, place)
        except OSError:  # another process was faster
            if not os.path.exists(place):
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return place


def deb(cache, name, version):
    """The package's file."""
    return _fetch(cache, name, version, '.deb', lambda work: _download(work, name, version))


def package(cache, name):
    """The directory where the package is unpacked."""
    version = _version(name)

    def make(work):
        into = os.path.join(work, 'tree')
        output(['dpkg-deb', '-x', _download(work, name, version), into])
        os.chmod(into, 0o700)
        return into

    return _fetch(cache, name, version, '', make)


def kernel_package(name=KERNEL):
    """The name of today's kernel package, which this one depends on."""
    _version(name)
    text = output(['apt-cache', 'depends', name]).decode()
    found = re.search(r'Depends: (linux-image-\S+)', text)
    if not found:
        raise Unavailable(f'the package {name} depends on no kernel: run apt-get update')
    return found[1]


def kernel_image(root):
    """The bzImage in an unpacked kernel package."""
    return glob.glob(root + '/boot/vmlinuz-*')[0]


# ---- kernel modules ----

def module_bytes(path):
    """An unpacked module."""
    with open(path, 'rb') as f:
        data = f.read()
    if path.endswith('.gz'):
        return gzip.decompress(data)
    if path.endswith('.xz'):
        return lzma.decompress(data)
    if path.endswith('.zst'):
        return output(['zstd', '-dc'], input=data)
    return data


def _module_name(path):
    return re.sub(r'\.ko(\.\w+)?$', '', os.path.basename(path)).replace('-', '_')


def modules(root, names, optional=()):
    """Paths of these modules and all they need, in the order to load them.

    root holds lib/modules/VERSION, or is that. Those that are built into the kernel need no file;
    the optional ones may be neither.
    """
    base = root if os.path.exists(root + '/modules.builtin') else root + '/lib/modules/*'
    files = {_module_name(p): p for p in glob.glob(base + '/kernel/**/*.ko*', recursive=True)}
    if not files:
        raise Unavailable(f'{root}: no kernel modules: lib/modules/VERSION is expected there')
    builtin = {_module_name(line) for path in glob.glob(base + '/modules.builtin')
               for line in open(path, encoding='ascii').read().split()}
    order = []

    def visit(name):
        path = files.get(name.replace('-', '_'))
        if not path:
            if name.replace('-', '_') in builtin:
                return
            raise Unavailable(f'{root}: the kernel has no module {name}')
        if path in order:
            return
        needs = re.search(rb'\0depends=([^\0]*)\0', module_bytes(path))
        for n in needs[1].decode().split(',') if needs and needs[1] else []:
            visit(n)
        order.append(path)

    for name in names:
        visit(name)
    for name in optional:
        if name.replace('-', '_') in files:
            visit(name)
    return order


# ---- which packages a package needs ----

def _needs(fields):
    """Lists of alternatives, one of each list being needed."""
    return [[re.sub(r'[ (:\[].*', '', a.strip()) for a in group.split('|')]
            for key in ('Pre-Depends', 'Depends') if key in fields
            for group in fields[key].split(',')]


def _gives(fields):
    return {re.sub(r'[ (].*', '', p.strip()) for p in fields.get('Provides', '').split(',')}


def _provider(name):
    """A package that provides a virtual one."""
    text = output(['apt-cache', 'showpkg', name]).decode()
    found = re.findall(r'^(\S+) ', text.partition('Reverse Provides:')[2], re.M)
    return min(found) if found else None


def closure(names):
    """These packages and all they depend on: name -> version. Recommendations are left out.

    Of alternatives, the first that apt knows is taken, as apt does itself.
    """
    chosen, provided = {}, set()
    for name in names:
        _version(name)
    wanted = [[n] for n in names]
    while wanted:
        known = _show(sorted({a for group in wanted for a in group}))
        news = {}
        for group in wanted:
            have = set(chosen) | set(news) | provided
            if have.isdisjoint(group):
                name = _choose(group, known)
                news[name] = known.get(name) or _show([name])[name]
                provided |= _gives(news[name])
        chosen.update(news)
        wanted = [group for fields in news.values() for group in _needs(fields)]
    return {n: chosen[n]['Version'] for n in sorted(chosen)}


def _choose(group, known):
    for name in group:
        if name in known:
            return name
    for name in group:
        found = _provider(name)
        if found:
            return found
    raise Unavailable(f'apt knows no package "{group[0]}", which another one needs')
