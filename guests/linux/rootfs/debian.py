# SPDX-License-Identifier: Apache-2.0
"""Debian's packages, downloaded by apt and unpacked. Nothing is installed, no script of them runs.

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


def kernel_image(root):
    """The bzImage in an unpacked kernel package."""
    return glob.glob(root + '/boot/vmlinuz-*')[0]


# ---- packages ----

def _needs(fields):
    """Lists of alternatives, one of each list being needed."""
    return [[re.sub(r'[ (:\[].*', '', a.strip()) for a in group.split('|')]
            for key in ('Pre-Depends', 'Depends') if key in fields
            for group in fields[key].split(',')]


def _gives(fields):
    return {re.sub(r'[ (].*', '', p.strip()) for p in fields.get('Provides', '').split(',')}


class Archive:
    """Debian's archive as apt knows it, and a directory of what was downloaded from it."""

    def __init__(self, cache):
        self.cache = cache
        os.makedirs(cache, mode=0o700, exist_ok=True)
        # apt's own index, which is made anew by each call where the system keeps none.
        self.apt = ['-q', '-o', f'Dir::Cache::pkgcache={os.path.abspath(cache)}/pkgcache.bin']

    def _ask(self, *words):
        """What apt-cache prints, which fails where it does not know some of the names."""
        done = subprocess.run([find('apt-cache'), *self.apt, *words], check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL)
        return done.stdout.decode(errors='replace')

    def _show(self, names):
        """name -> fields of the package apt would take. Names it does not know are left out."""
        found = {}
        for block in self._ask('show', '--no-all-versions', *names).split('\n\n'):
            fields = dict(re.findall(r'^([\w-]+): (.*)$', block, re.M))
            if 'Package' in fields:
                found.setdefault(fields['Package'], fields)
        return found

    def _version(self, name):
        if not re.fullmatch(r'[a-z0-9][a-z0-9.+-]*', name):
            raise Failure(f'"{name}" is no name of a package')
        found = self._show([name])
        if name not in found:
            raise Unavailable(f'apt knows no package "{name}": is it spelt right? '
                              'If so, run apt-get update')
        return found[name]['Version']

    def _download(self, work, name, version):
        output(['apt-get', 'download', *self.apt, '-o', 'APT::Sandbox::User=root',
                f'{name}={version}'], cwd=work)
        return glob.glob(work + '/*.deb')[0]

    def _fetch(self, name, version, suffix, make):
        """The cached thing of this package, made with make(work directory) if need be."""
        place = os.path.join(self.cache, f'{name}_{version.replace(":", "%")}{suffix}')
        if os.path.exists(place):
            return place
        work = tempfile.mkdtemp(prefix='.new-', dir=self.cache)
        try:
            made = make(work)
            try:
                os.rename(made, place)
            except OSError:  # another process was faster
                if not os.path.exists(place):
                    raise
            for old in glob.glob(os.path.join(self.cache, f'{name}_*')):
                if old != place and old.endswith('.deb') == place.endswith('.deb'):
                    shutil.rmtree(old) if os.path.isdir(old) else os.unlink(old)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return place

    def deb(self, name, version):
        """The package's file."""
        return self._fetch(name, version, '.deb', lambda work: self._download(work, name, version))

    def package(self, name):
        """The directory where the package is unpacked."""
        version = self._version(name)

        def make(work):
            into = os.path.join(work, 'tree')
            output(['dpkg-deb', '-x', self._download(work, name, version), into])
            os.chmod(into, 0o700)
            return into

        return self._fetch(name, version, '', make)

    def kernel_package(self, name=KERNEL):
        """The name of today's kernel package, which this one depends on."""
        self._version(name)
        found = re.search(r'Depends: (linux-image-\S+)', self._ask('depends', name))
        if not found:
            raise Unavailable(f'the package {name} depends on no kernel: run apt-get update')
        return found[1]

    def closure(self, names):
        """These packages and all they depend on: name -> version. Recommendations are left out.

        Of alternatives, the first that apt knows is taken, as apt does itself.
        """
        chosen, provided = {}, set()
        for name in names:
            self._version(name)
        wanted = [[n] for n in names]
        while wanted:
            known = self._show(sorted({a for group in wanted for a in group}))
            news = {}
            for group in wanted:
                if (set(chosen) | set(news) | provided).isdisjoint(group):
                    name = self._choose(group, known)
                    news[name] = known.get(name) or self._show([name])[name]
                    provided |= _gives(news[name])
            chosen.update(news)
            wanted = [group for fields in news.values() for group in _needs(fields)]
        return {n: chosen[n]['Version'] for n in sorted(chosen)}

    def _choose(self, group, known):
        for name in group:
            if name in known:
                return name
        for name in group:
            text = self._ask('showpkg', name).partition('Reverse Provides:')[2]
            found = re.findall(r'^(\S+) ', text, re.M)
            if found:
                return min(found)
        raise Unavailable(f'apt knows no package "{group[0]}", which another one needs')
