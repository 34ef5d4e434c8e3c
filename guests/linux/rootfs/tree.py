# SPDX-License-Identifier: Apache-2.0
"""A file system in memory: names and metadata. Contents are read from where they came, at the end.

Everything an archive says happens in here, never on the host's own file system: a name that leads
out of the archive has nowhere to lead to, and is refused so that the operator learns of it. Owners,
modes and devices are numbers here, so nobody needs to be root.
"""
import os
import stat

from . import Failure

NAME_MAX, PATH_MAX = 255, 4095
DEPTH_MAX = 256  # names in a path: deep trees are hard to remove again, and nobody has them
LINKS_MAX = 40  # symbolic links followed for one name, as in Linux

DIR, FILE, LINK, CHAR, BLOCK, FIFO = (
    stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO)


class Node:
    """One inode. Two names with the same node are hard links."""

    def __init__(self, kind, mode, uid=0, gid=0, mtime=0):
        self.kind, self.mode = kind, mode & 0o7777
        self.uid, self.gid, self.mtime = uid, gid, max(0, int(mtime))
        self.children = {}        # of a directory: name -> Node
        self.size = 0             # of a file
        self.pieces = lambda: ()  # of a file: yields its contents
        self.target = ''          # of a symbolic link
        self.rdev = (0, 0)        # of a device
        self.xattrs = {}          # name -> bytes


def directory(mode=0o755):
    return Node(DIR, mode)


def symlink(target):
    node = Node(LINK, 0o777)
    node.target = target
    return node


def text(data, mode=0o644):
    """A file with these bytes."""
    node = Node(FILE, mode)
    node.size, node.pieces = len(data), lambda: (data,)
    return node


def clean(name, what):
    """The parts of an archive's name for something. Refuses those that lead out of it."""
    parts = [p for p in name.split('/') if p not in ('', '.')]
    if name.startswith('/'):
        raise Failure(f'{what}: "{show(name)}": an absolute name; names in an archive are relative')
    if '..' in parts:
        raise Failure(f'{what}: "{show(name)}": a name with ".." leads out of the archive')
    if '\0' in name:
        raise Failure(f'{what}: "{show(name)}": a name with a zero byte')
    if len(os.fsencode(name)) > PATH_MAX or any(len(os.fsencode(p)) > NAME_MAX for p in parts):
        raise Failure(f'{what}: "{show(name)[:80]}...": the name is too long')
    return parts


def show(name):
    """A name for a message: one line, whatever it holds."""
    return os.fsencode(name).decode(errors='backslashreplace').encode('unicode_escape').decode()


class Tree:
    def __init__(self):
        self.root = directory()

    def _enter(self, parts, what, name='', make=True):
        """The directory of that name. Links are followed, inside the tree only.

        Where it is missing it is made, or the answer is None. name: of what is looked for in there.
        """
        stack, todo, links = [self.root], list(parts), 0
        while todo:
            part = todo.pop(0)
            if part == '..':
                if len(stack) == 1:
                    raise Failure(f'{what}: "{show(name)}": lies below a symbolic link that leads '
                                  'out of the archive')
                stack.pop()
                continue
            if not make and part not in stack[-1].children:
                return None
            node = stack[-1].children.setdefault(part, directory())
            if node.kind == LINK:
                links += 1
                if node.target.startswith('/') or links > LINKS_MAX:
                    why = 'links that go in circles' if links > LINKS_MAX else \
                        f'the symbolic link "{show(part)}" to "{show(node.target)}", which leads ' \
                        'out of the archive'
                    raise Failure(f'{what}: "{show(name)}": lies below {why}')
                todo[:0] = [p for p in node.target.split('/') if p not in ('', '.')]
            elif node.kind == DIR:
                stack.append(node)
            else:
                raise Failure(f'{what}: "{show(name)}": "{show(part)}" in it is no directory')
        return stack[-1]

    def put(self, parts, node, what, through_links=False):
        """Puts a node in place. What was there goes, but a directory keeps what is in it.

        through_links: a directory's name may be that of a link to one, as with dpkg.
        """
        if not parts:
            if node.kind != DIR:
                raise Failure(f'{what}: its root is no directory')
            node.children = self.root.children
            self.root = node
            return
        if len(parts) > DEPTH_MAX:
            raise Failure(f'{what}: "{show("/".join(parts[:9]))}/...": lies more than {DEPTH_MAX} '
                          'directories deep')
        parent = self._enter(parts[:-1], what, '/'.join(parts))
        old = parent.children.get(parts[-1])
        if old and old.kind == DIR and node.kind == DIR:
            node.children = old.children
        elif old and old.kind == LINK and node.kind == DIR and through_links:
            return
        parent.children[parts[-1]] = node

    def link(self, parts, target, what):
        """Another name for what target (parts) names."""
        node = self.find(target)
        if not node or node.kind == DIR:
            raise Failure(f'{what}: "{show("/".join(parts))}": a hard link to '
                          f'"{show("/".join(target))}", which is '
                          f'{"a directory" if node else "not in the archive before it"}')
        self.put(parts, node, what)

    def find(self, parts):
        """The node of that name, or None. Links to directories are followed as in _enter()."""
        node = self.root
        for at, part in enumerate(parts):
            if node.kind == LINK:
                try:
                    node = self._enter(parts[:at], '', make=False)
                except Failure:
                    return None
            node = node and node.children.get(part)
            if not node:
                return None
        return node

    def has(self, path):
        return self.find(path.split('/')) is not None

    def add(self, path, node):
        """Puts something of ours in place."""
        self.put(path.split('/'), node, path)

    def remove(self, parts):
        parent = self.find(parts[:-1])
        if parent:
            parent.children.pop(parts[-1], None)

    def clear(self, parts):
        node = self.find(parts)
        if node:
            node.children.clear()

    def walk(self):
        """Yields (path, node) of all below the root, sorted, a directory before its files."""
        todo = [('', self.root)]
        while todo:
            path, node = todo.pop()
            if path:
                yield path, node
            for name in sorted(node.children, key=os.fsencode, reverse=True):
                todo.append((f'{path}/{name}' if path else name, node.children[name]))

    def sizes(self):
        """(bytes of files, bytes of files in whole 4 KiB blocks, inodes)"""
        nodes = {id(n): n for _, n in self.walk()}.values()
        return (sum(n.size for n in nodes), sum((n.size + 4095) // 4096 * 4096 for n in nodes),
                len(nodes))
