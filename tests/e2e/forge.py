# SPDX-License-Identifier: Apache-2.0
"""Takes a snapshot's state file apart and seals it again with valid checksums.

Checksums guard against damage, not against forgery: what a forged section says must be refused, or
harmless, by whoever decodes it. The layout is drawn in snapshot/format.h.
"""
import os
import struct

HEADER, HEAD, TRAILER = 48, 40, 16


def _table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ (0x82f63b78 if n & 1 else 0)
        table.append(n)
    return table


TABLE = _table()


def crc32c(data):
    c = 0xffffffff
    for b in data:
        c = (c >> 8) ^ TABLE[(c ^ b) & 0xff]
    return c ^ 0xffffffff


def sections(state):
    """[(tag, version, content)], the memory map last."""
    out, at = [], HEADER
    count = struct.unpack_from('<I', state, 20)[0]
    for _ in range(count):
        tag = state[at + 8:at + 24].rstrip(b'\0').decode()
        version, = struct.unpack_from('<H', state, at + 24)
        length, = struct.unpack_from('<Q', state, at + 32)
        out.append((tag, version, bytes(state[at + HEAD:at + HEAD + length])))
        at += HEAD + length + -length % 8
    return out


def seal(state, parts):
    """A state file like `state`, with these sections."""
    body = b''
    for tag, version, content in parts:
        head = struct.pack('<I16sHHIQ', crc32c(content), tag.encode(), version, 0, 0, len(content))
        body += struct.pack('<I', crc32c(head)) + head + content + b'\0' * (-len(content) % 8)
    arch, = struct.unpack_from('<I', state, 16)
    created = state[24:32]
    rest = struct.pack('<II', arch, len(parts)) + created
    rest += struct.pack('<QQ', HEADER + len(body) + TRAILER, 0)
    out = state[:12] + struct.pack('<I', crc32c(rest)) + rest + body
    out += b'KELVEND\0' + struct.pack('<I', 0)
    return out + struct.pack('<I', crc32c(out))


def forged(d, out, change):
    """A copy of snapshot `d`, in `out`, in which change(tag, content) replaced sections, sealed again.

    A section for which it gives None is left out."""
    os.mkdir(out)
    for name in os.listdir(d):
        if name != 'state':
            os.link(os.path.join(d, name), os.path.join(out, name))
    with open(os.path.join(d, 'state'), 'rb') as f:
        state = f.read()
    parts = [(t, v, change(t, x)) for t, v, x in sections(state)]
    with open(os.path.join(out, 'state'), 'wb') as f:
        f.write(seal(state, [p for p in parts if p[2] is not None]))
    return out
