# SPDX-License-Identifier: MIT
"""What should be where: the project's tree, and what the workspace may hold beside it.

Pure: no file is touched here. `Model` is changed by the operations as they are carried out, and
`differences` compares it with a listing of a real tree, `{path: Entry}`.

The rule for the workspace: everything of the project, exactly. Where somebody else wrote to a path of the
project after its last local write, that version may be there instead (`other`), until the project writes
the path again: the local one wins. Files that only the workspace has (`Product`s of runs and of second
writers) stay until somebody deletes them.
"""
import collections

import content

FILE, DIR, LINK, FIFO = 'file', 'dir', 'link', 'fifo'
Entry = collections.namedtuple('Entry', 'kind digest mode')
ABSENT = Entry('absent', '', 0)


class Node:
    """One file, folder or link; hard links of a file share one."""

    def __init__(self, kind, data=b'', mode=0o644):
        self.kind, self.data, self.mode = kind, data, mode

    def entry(self):
        if self.kind == DIR:
            return Entry(DIR, '', self.mode)
        if self.kind == LINK:
            return Entry(LINK, content.digest(self.data), 0)
        return Entry(FILE, content.digest(self.data), self.mode)


class Product:
    """A file that only the workspace has. `sure`: it was seen or must be there; else it may be."""

    def __init__(self, path, digest, sure):
        self.paths, self.digest, self.sure = {path}, digest, sure


def parent(path):
    return path.rpartition('/')[0]


def within(path, folder):
    return path == folder or path.startswith(folder + '/')


class Model:
    def __init__(self):
        self.nodes = {}       # path → Node, of the project
        self.outside = {}     # name → {path beneath: Node}, folders that were moved out
        self.other = {}       # path → set of Entry: what others made of a path of the project
        self.products = []
        self.lately = {}      # path → set of Entry: all that they made of it since the last quiet point
        self.writing = {}     # path → how many runs under way may write it
        self.made = set()     # digests of all that others ever made

    # ---- questions

    def kind(self, path):
        return self.nodes[path].kind if path in self.nodes else None

    def can_hold(self, path):
        """May something be called `path`? Its folder is there."""
        return not parent(path) or self.kind(parent(path)) == DIR

    def beneath(self, folder):
        return [p for p in self.nodes if within(p, folder)]

    def names_of(self, node):
        return [p for p, n in self.nodes.items() if n is node]

    # ---- what the project does

    def set(self, path, node):
        self.drop(path)
        self.nodes[path] = node
        self.products = [p for p in self.products if p.paths != {path}]
        self.written(path)

    def written(self, path):
        """The project wrote this path: what others made of it before is overruled."""
        if path not in self.writing:
            self.other.pop(path, None)

    def rewrite(self, path, data):
        """In place: under every name."""
        node = self.nodes[path]
        node.data = data
        for name in self.names_of(node):
            self.written(name)

    def drop(self, path):
        """Deleted, or moved away. What others made of it stays where the deletion was never due: the
        path may have come and gone here without ever having been sent."""
        for p in self.beneath(path):
            for entry in self.other.pop(p, set()) | self.lately.get(p, set()):
                if entry.kind == FILE:
                    self.products.append(Product(p, entry.digest, False))
            del self.nodes[p]

    def move(self, path, to):
        if path == to:
            return
        moved = {to + p[len(path):]: self.nodes[p] for p in self.beneath(path)}
        self.drop(path)
        self.drop(to)
        for p, node in moved.items():
            self.set(p, node)

    # ---- what others do to the workspace

    def others_made(self, path, entry, sure):
        """`entry` ABSENT: they deleted it."""
        self.made.add(entry.digest)
        if path in self.nodes:
            self.other.setdefault(path, set()).add(entry)
            self.lately.setdefault(path, set()).add(entry)
            return
        if sure:
            self.products = [p for p in self.products if path not in p.paths]
        for product in self.products:
            product.sure = product.sure and path not in product.paths
        if entry.kind == FILE:
            self.products.append(Product(path, entry.digest, sure))

    def begin_writing(self, path):
        self.writing[path] = self.writing.get(path, 0) + 1

    def end_writing(self, path):
        self.writing[path] -= 1
        if not self.writing[path]:
            del self.writing[path]

    def theirs(self):
        """The paths, at a quiet point, where the workspace has what the project has not: what a pull fetches."""
        fetched = {p for product in self.products for p in product.paths}
        return fetched | {p for p, entries in self.other.items() if any(e.kind == FILE for e in entries)}

    def adopt(self, path, there, read):
        """A file of theirs was pulled, with the folders that it needs; `read(path)` gives its content."""
        for end in [i for i, letter in enumerate(path) if letter == '/']:
            if path[:end] not in self.nodes:
                self.set(path[:end], Node(DIR, mode=there[path[:end]].mode))
        self.set(path, Node(FILE, read(path), there[path].mode))

    # ---- comparing

    def expected(self):
        return {p: n.entry() for p, n in self.nodes.items() if n.kind != FIFO}

    def differences(self, found, limit=8):
        """Sentences about what is not as it must be in a listing of the workspace."""
        lines, used = [], set()
        for path, want in sorted(self.expected().items()):
            used.add(path)
            have = found.get(path, ABSENT)
            if have != want and not any(have[:2] == o[:2] for o in self.other.get(path, ())):
                lines.append('%r: %s, not %s' % (path, show(have), show(want)))
        folders = set()
        for product in self.products:
            there = [p for p in product.paths if found.get(p, ABSENT).digest == product.digest]
            used.update(there)
            for p in there:
                while p:
                    p = parent(p)
                    folders.add(p)
            if product.sure and not there:
                lines.append('%r: the file that a run or second writer made is gone or another'
                             % '|'.join(sorted(product.paths)))
        for path in sorted(set(found) - used):
            if not (found[path].kind == DIR and path in folders):
                lines.append('%r: %s, not expected' % (path, show(found[path])))
        return lines[:limit]

    def learn(self, found):
        """After a comparison without differences: what was open is known now."""
        for path in list(self.other):
            if path in self.nodes and found.get(path) == self.nodes[path].entry():
                del self.other[path]
            else:
                self.other[path] = {o for o in self.other[path]
                                    if o[:2] == found.get(path, ABSENT)[:2]}
        self.lately.clear()
        for product in list(self.products):
            there = {p for p in product.paths
                     if p not in self.nodes and found.get(p, ABSENT).digest == product.digest}
            if there:
                product.paths, product.sure = there, True
            else:
                self.products.remove(product)


def show(entry):
    return '%s %s %s' % (entry.kind, entry.digest[:8] or '-', oct(entry.mode)[2:])
