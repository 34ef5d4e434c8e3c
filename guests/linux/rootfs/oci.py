# SPDX-License-Identifier: Apache-2.0
"""Container images: OCI layouts (a directory or a tar) and what docker save writes.

By the OCI image specification (image-layout, manifest, layer). Layers are put on top of one
another, with their whiteouts. A blob must have the digest it is named by.
"""
import hashlib
import json
import os
import re
import shutil
import tempfile

from . import Failure
from .intake import add_tar, open_tar
from .tree import clean

JSON_MAX = 4 << 20
WHITEOUT, OPAQUE = '.wh.', '.wh..wh..opq'


class _Dir:
    """An image layout in a directory."""

    def __init__(self, path):
        self.what = path

    def open(self, name):
        try:
            return open(os.path.join(self.what, *clean(name, self.what)), 'rb')
        except OSError as e:
            raise Failure(f'{self.what}: {name}: {e.strerror}') from None


class _Tar:
    """An image in a tar."""

    def __init__(self, tar, members, what):
        self.tar, self.what = tar, what
        self.member = {'/'.join(clean(m.name, what)): m for m in members}

    def open(self, name):
        member = self.member.get('/'.join(clean(name, self.what)))
        try:
            found = member and self.tar.extractfile(member)
        except (KeyError, RecursionError):
            found = None
        if not found:
            raise Failure(f'{self.what}: an image without its file {name}')
        return found


def is_layout(path):
    return os.path.isfile(os.path.join(path, 'oci-layout'))


def is_image(members):
    names = {m.name.removeprefix('./') for m in members}
    return 'manifest.json' in names or {'oci-layout', 'index.json'} <= names


def _json(src, name):
    with src.open(name) as f:
        data = f.read(JSON_MAX + 1)
    try:
        if len(data) > JSON_MAX:
            raise ValueError('too long')
        return json.loads(data)
    except (ValueError, RecursionError) as e:
        raise Failure(f'{src.what}: {name}: no JSON: {e}') from None


def _blob(src, entry):
    """The name of the file a descriptor stands for."""
    digest = str(entry.get('digest'))
    if not re.fullmatch('sha256:[0-9a-f]{64}', digest):
        raise Failure(f'{src.what}: the digest "{digest[:80]}" is not of the form sha256:HEX')
    return 'blobs/sha256/' + digest[7:]


def _manifest(src, entries, depth=0):
    """The manifest for Linux on x86-64, down through indexes."""
    fit = [e for e in entries if isinstance(e, dict) and 'attestation' not in json.dumps(e)]
    if len(fit) > 1:
        fit = [e for e in fit if e.get('platform', {}).get('architecture') == 'amd64'
               and e['platform'].get('os') == 'linux']
    if len(fit) != 1 or depth > 3:
        raise Failure(f'{src.what}: has {len(fit)} images for Linux on amd64; one is needed')
    found = _json(src, _blob(src, fit[0]))
    if 'manifests' in found:
        return _manifest(src, found['manifests'], depth + 1)
    return found


def _layers(src):
    """(files of the layers, lowest first; the image's configuration)"""
    try:
        if isinstance(src, _Tar) and 'manifest.json' in src.member:
            found = _json(src, 'manifest.json')
            if len(found) != 1:
                raise Failure(f'{src.what}: holds {len(found)} images; one is needed')
            return found[0]['Layers'], _json(src, found[0]['Config'])
        found = _manifest(src, _json(src, 'index.json')['manifests'])
        return [_blob(src, e) for e in found['layers']], _json(src, _blob(src, found['config']))
    except (KeyError, TypeError, AttributeError) as e:
        raise Failure(f'{src.what}: an image without {e}') from None


def _fetch(src, name, work):
    """A layer as a file of ours, its digest checked."""
    with src.open(name) as f, tempfile.NamedTemporaryFile(dir=work, delete=False) as out:
        shutil.copyfileobj(f, out, 1 << 20)
    if name.startswith('blobs/sha256/'):
        with open(out.name, 'rb') as f:
            digest = hashlib.file_digest(f, 'sha256').hexdigest()
        if digest != name[13:]:
            raise Failure(f'{src.what}: {name} is damaged: its contents have the digest {digest}')
    return out.name


def _apply(tree, path, what, work):
    tar, members = open_tar(path, what, work)
    marks = []
    for m in members:
        parts = clean(m.name, what)
        if not parts or not parts[-1].startswith(WHITEOUT):
            continue
        marks.append(m)
        if parts[-1] == OPAQUE:
            tree.clear(parts[:-1])
        elif parts[-1][len(WHITEOUT):] not in ('', '.', '..'):
            tree.remove(parts[:-1] + [parts[-1][len(WHITEOUT):]])
    add_tar(tree, tar, [m for m in members if m not in marks], what)


def _add(tree, src, work):
    layers, config = _layers(src)
    for name in layers:
        path = _fetch(src, name, work)
        _apply(tree, path, f'{src.what}: {name}', work)
        os.unlink(path)
    return config.get('config') or {}


def add_layout(tree, path, work):
    """Returns the image's configuration: Entrypoint, Cmd, Env..."""
    return _add(tree, _Dir(path), work)


def add_image(tree, tar, members, what, work):
    return _add(tree, _Tar(tar, members, what), work)
