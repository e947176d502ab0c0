# SPDX-License-Identifier: MIT
"""The operations: how one is written as a line, invented, and what it means.

An operation is a dict with "op" and its arguments; a line is `op key=value …` with values percent-coded.
Operations on the project are rows of `EFFECTS`: a function that changes the `Model` and returns what is
to be done on the disk, a list of (primitive, arguments…) for `disk.py`, or None where the operation has
no meaning in this tree: so any subset of a sequence can be played, which shrinking relies on. What
concerns the world around (faults, runs, second writers) is carried out by `play.py`.

`invent` makes a sequence from a seed. It plays it on a model of its own, so that most operations meet
something.
"""
import random
import urllib.parse

import content
from model import DIR, FIFO, FILE, LINK, Model, Node, parent, within

DEPTH = 5
PAGE = 3500          # versions that are written in place: within one page
LARGE = 1_500_000    # more than the agent holds in memory
FIXED = ('anchor', 'pyproject.toml', 'content.py', 'look.py', 'work.py')


# ---- lines

def to_line(op):
    words = [op['op']]
    for key, value in op.items():
        if key != 'op':
            coded = urllib.parse.quote(str(value), safe='/.+-', errors='surrogateescape')
            words.append('%s=%s' % (key, coded))
    return ' '.join(words)


def from_line(text):
    name, *words = text.split()
    op = {'op': name}
    for word in words:
        key, _, value = word.partition('=')
        value = urllib.parse.unquote(value, errors='surrogateescape')
        op[key] = int(value) if value.lstrip('-').isdigit() else value
    if name not in EFFECTS and name not in WORLD:
        raise ValueError('no such operation: %s' % name)
    return op


# ---- what operations on the project mean

def e_write(m, op):
    path = op['path']
    old = m.kind(path)
    if not m.can_hold(path) or old not in (None, FILE, LINK) or path in FIXED:
        return None
    name = path.rpartition('/')[2]
    if name[0] == 'p':
        data = content.make(op['v'], min(op['size'], PAGE))
        if old == FILE:
            m.rewrite(path, data)
            return [('overwrite', path, data)]
        m.set(path, Node(FILE, data, 0o644))
        return [('create', path, data)]
    if name[0] == 'l':
        return e_append(m, dict(op, count=1 + op['size'] % 50))
    m.set(path, Node(FILE, content.make(op['v'], op['size'], op['text'])))
    return [('place', path, m.nodes[path].data, op['how'])]


def e_resave(m, op):
    """The same size again and again, faster than a second."""
    path = op['path']
    if m.kind(path) != FILE or path.rpartition('/')[2][0] not in 'apx' or path in FIXED:
        return None
    if path.rpartition('/')[2][0] == 'p' and len(m.nodes[path].data) > PAGE + content.HEAD:
        return None  # it was pulled
    steps = []
    for v in range(op['v'], op['v'] + op['count']):
        data = content.resized_as(m.nodes[path].data, v)
        if path.rpartition('/')[2][0] == 'p' and len(m.nodes[path].data) >= content.HEAD:
            m.rewrite(path, data)
            steps.append(('overwrite', path, data))
        else:
            m.set(path, Node(FILE, data))
            steps.append(('place', path, data, op['how']))
        steps.append(('pause', op['gap']))
    return steps


def e_edit(m, op):
    path = op['path']
    if m.kind(path) != FILE or path.rpartition('/')[2][0] not in 'ax' or path in FIXED:
        return None
    data = content.edited(m.nodes[path].data, op['v'], op['at'], op['cut'], op['insert'])
    m.set(path, Node(FILE, data))
    return [('place', path, data, op['how'])]


def e_append(m, op):
    path = op['path']
    if not m.can_hold(path) or m.kind(path) not in (None, FILE) or path.rpartition('/')[2][0] != 'l':
        return None
    if m.kind(path) and not content.is_log(m.nodes[path].data):
        return None  # a version that was pulled
    lines = [content.line(op['v'] * 100 % 10**8 + i) for i in range(op['count'])]
    if m.kind(path) is None:
        m.set(path, Node(FILE))
    m.rewrite(path, m.nodes[path].data + b''.join(lines))
    pieces = [b''.join(lines)] if op.get('gap', 0) == 0 else lines
    return [step for piece in pieces for step in (('append', path, piece), ('pause', op.get('gap', 0)))]


def e_truncate(m, op):
    path = op['path']
    if m.kind(path) != FILE or path.rpartition('/')[2][0] != 'l' or not content.is_log(m.nodes[path].data):
        return None
    size = len(m.nodes[path].data) // content.LINE * op['part'] // 100 * content.LINE
    if size < len(m.nodes[path].data):  # else it is a touch: nothing is sent for it
        m.rewrite(path, m.nodes[path].data[:size])
    return [('truncate', path, size)]


def e_remove(m, op):
    if m.kind(op['path']) in (None, DIR) or op['path'] in FIXED:
        return None
    m.drop(op['path'])
    return [('remove', op['path'])]


def e_rmtree(m, op):
    if m.kind(op['path']) != DIR:
        return None
    m.drop(op['path'])
    return [('rmtree', op['path'])]


def e_mkdir(m, op):
    if not m.can_hold(op['path']) or m.kind(op['path']) is not None:
        return None
    m.set(op['path'], Node(DIR, mode=0o755))
    return [('mkdir', op['path'])]


def e_chain(m, op):
    """mkdir -p of a deep chain, written into at once."""
    path, steps = op['path'], []
    if not m.can_hold(path) or m.kind(path) not in (None, DIR):
        return None
    for i in range(op['depth']):
        if m.kind(path) is None:
            m.set(path, Node(DIR, mode=0o755))
            steps.append(('mkdir', path))
        elif m.kind(path) != DIR:
            return steps or None
        file = path + '/a%d' % (i % 2)
        if m.kind(file) in (None, FILE):
            m.set(file, Node(FILE, content.make(op['v'] + i, op['size'])))
            steps.append(('place', file, m.nodes[file].data, 'direct' if i % 2 else 'swp'))
        path += '/d%d' % (i % 3)
    return steps


def e_move(m, op):
    path, to = op['path'], op['to']
    kind, there = m.kind(path), m.kind(to)
    if kind is None or path in FIXED or to in FIXED or within(to, path) or within(path, to):
        return None
    if not m.can_hold(to) or there == FIFO or (kind == DIR) != (there == DIR) and there is not None:
        return None
    if kind == FILE and there == FILE and m.nodes[path] is m.nodes[to]:
        return None  # rename(2) of two names of one file does nothing
    steps = [('rename', path, to)]
    if kind == DIR and there == DIR:
        if op.get('over') != 'yes':
            return None
        steps.insert(0, ('rmtree', to))
    m.move(path, to)
    return steps


def e_swap(m, op):
    a, b = op['path'], op['to']
    if m.kind(a) != DIR or m.kind(b) != DIR or within(a, b) or within(b, a):
        return None
    m.move(a, 'd9')
    m.move(b, a)
    m.move('d9', b)
    return [('exchange', a, b)]


def e_out(m, op):
    path = op['path']
    if m.kind(path) != DIR or op['name'] in m.outside:
        return None
    m.outside[op['name']] = {p[len(path):]: m.nodes[p] for p in m.beneath(path)}
    m.drop(path)
    return [('out', path, op['name'])]


def e_in(m, op):
    path = op['path']
    if op['name'] not in m.outside or not m.can_hold(path) or m.kind(path) is not None:
        return None
    for p, node in sorted(m.outside.pop(op['name']).items()):
        m.set(path + p, node)
    return [('in', path, op['name'])]


def e_churn(m, op):
    """A folder that is deleted and made again, with a file in it."""
    path = op['path']
    if not m.can_hold(path) or m.kind(path) is not None:
        return None
    m.set(path, Node(DIR, mode=0o755))
    m.set(path + '/a0', Node(FILE, content.make(op['v'], 200)))
    return [('churn', path, m.nodes[path + '/a0'].data, op['count'])]


def e_chmod(m, op):
    node = m.nodes.get(op['path'])
    if node is None or node.kind not in (FILE, DIR) or op['path'] in FIXED:
        return None
    node.mode = int(str(op['mode']), 8) | (0o700 if node.kind == DIR else 0o400)
    return [('chmod', op['path'], node.mode)]


def e_symlink(m, op):
    path = op['path']
    if not m.can_hold(path) or m.kind(path) not in (None, LINK, FILE) or path in FIXED:
        return None
    m.set(path, Node(LINK, op['target'].encode('utf-8', 'surrogateescape')))
    return [('symlink', path, op['target'])]


def e_link(m, op):
    path, to = op['path'], op['to']
    if m.kind(path) != FILE or m.kind(to) is not None or not m.can_hold(to) or path in FIXED:
        return None
    m.set(to, m.nodes[path])
    return [('link', path, to)]


def e_fifo(m, op):
    if not m.can_hold(op['path']) or m.kind(op['path']) is not None:
        return None
    m.set(op['path'], Node(FIFO))
    return [('fifo', op['path'])]


def e_touch(m, op):
    if m.kind(op['path']) != FILE:
        return None
    return [('touch', op['path'])]


def e_storm(m, op):
    """More events than the kernel keeps for a watcher that does not read."""
    if m.kind('p9') is not None:
        return None
    return [('storm', 'p9', op['count'])]


# ---- inventing

class Inventor:
    def __init__(self, seed):
        self.r = random.Random(seed)
        self.m = Model()
        self.v = 0

    def name(self, letters):
        text = self.r.choice(letters) + str(self.r.randrange(4))
        if text[0] in 'ad' and self.r.random() < 0.06:
            text += self.r.choice(['\u2603', '\n', '\udcff', ' "', "'"])
        return text

    def folder(self):
        folders = [p for p, n in self.m.nodes.items() if n.kind == DIR and p.count('/') < DEPTH]
        return self.r.choice(folders + [''] * (2 + len(folders) // 3))

    def new(self, letters):
        folder = self.folder()
        return (folder + '/' if folder else '') + self.name(letters)

    def known(self, letters, kinds=(FILE,)):
        found = [p for p, n in self.m.nodes.items()
                 if n.kind in kinds and p.rpartition('/')[2][0] in letters]
        return self.r.choice(found) if found and self.r.random() < 0.9 else self.new(letters)

    def size(self):
        return self.r.choice([0, 10, 300, 3000, 20_000, 20_000, 100_000, 400_000, LARGE])

    def how(self):
        return self.r.choice(['swp', 'swp', 'sed', 'temp', 'direct'])

    def make(self, name):
        r = self.r
        self.v += 100
        return dict({'op': name}, **INVENT[name](self, r))

    def sequence(self, count, weights):
        names, chances = zip(*weights.items())
        ops = []
        while len(ops) < count:
            op = self.make(self.r.choices(names, chances)[0])
            if op['op'] in EFFECTS and EFFECTS[op['op']](self.m, op) is None and self.r.random() < 0.9:
                continue
            ops.append(op)
            if self.r.random() < 0.25:
                ops.append({'op': 'pause', 'ms': self.r.choice([1, 5, 12, 20, 35, 60, 170])})
        return ops


def same_class(i, path, fresh=0.7):
    letter = path.rpartition('/')[2][0]
    return i.new(letter) if i.r.random() < fresh else i.known(letter, (FILE, DIR, LINK))


def v_move(i, r):
    path = i.known('aplx', (FILE,)) if r.random() < 0.6 else i.known('dx', (DIR,))
    return {'path': path, 'to': same_class(i, path), 'over': r.choice(['yes', 'no'])}


def v_link(i, r):
    path = i.known('apl')
    return {'path': path, 'to': same_class(i, path, 1)}


INVENT = {
    'write': lambda i, r: {'path': i.new('aaapplx') if r.random() < 0.6 else i.known('aplx'), 'v': i.v,
                           'size': i.size(), 'text': int(r.random() < 0.7), 'how': i.how()},
    'resave': lambda i, r: {'path': i.known('apx'), 'v': i.v, 'count': r.randrange(2, 8),
                            'gap': r.choice([0, 0, 1, 4, 11, 40]), 'how': i.how()},
    'edit': lambda i, r: {'path': i.known('ax'), 'v': i.v, 'at': r.randrange(1000),
                          'cut': r.choice([0, 0, 1, 500]), 'insert': r.choice([0, 7, 900, 5000]),
                          'how': i.how()},
    'append': lambda i, r: {'path': i.known('l'), 'v': i.v, 'count': r.randrange(1, 60),
                            'gap': r.choice([0, 0, 0, 3])},
    'truncate': lambda i, r: {'path': i.known('l'), 'part': r.randrange(101)},
    'remove': lambda i, r: {'path': i.known('aplxsf', (FILE, LINK, FIFO))},
    'rmtree': lambda i, r: {'path': i.known('dx', (DIR,))},
    'mkdir': lambda i, r: {'path': i.new('dddx')},
    'chain': lambda i, r: {'path': i.new('d'), 'depth': r.randrange(2, 9), 'v': i.v,
                           'size': r.choice([10, 300, 20_000])},
    'move': v_move,
    'swap': lambda i, r: {'path': i.known('d', (DIR,)), 'to': i.known('d', (DIR,))},
    'out': lambda i, r: {'path': i.known('d', (DIR,)), 'name': 'n%d' % r.randrange(2)},
    'in': lambda i, r: {'path': i.new('d'), 'name': 'n%d' % r.randrange(2)},
    'churn': lambda i, r: {'path': i.new('d'), 'v': i.v, 'count': r.choice([3, 20, 60])},
    'chmod': lambda i, r: {'path': i.known('apldx', (FILE, DIR)),
                           'mode': r.choice([644, 755, 600, 700, 744])},
    'symlink': lambda i, r: {'path': i.new('ssx'), 'target': r.choice(['a0', 'd0', 'a1', 'nowhere', 'd0/a0'])},
    'link': v_link,
    'fifo': lambda i, r: {'path': i.new('f')},
    'touch': lambda i, r: {'path': i.known('apl')},
    'storm': lambda i, r: {'count': 9000},
    # the world
    'flush': lambda i, r: {},
    'quiet': lambda i, r: {},
    'status': lambda i, r: {},
    'run': lambda i, r: {},
    'large': lambda i, r: {'path': r.choice('ax') + str(r.randrange(4)), 'v': i.v, 'size': r.randrange(2, 6) * 1_000_000, 'text': 0,
                           'how': i.how(), 'ms': r.choice([0, 0, 1, 3])},
    'pull': lambda i, r: {},
    'pull-conflicts': lambda i, r: {},
    'make': lambda i, r: {'path': i.new('o'), 'v': i.v, 'size': r.choice([10, 3000, 60_000]),
                          'how': r.choice(['place', 'write'])},
    'alter': lambda i, r: {'path': i.known('apl'), 'v': i.v, 'size': r.choice([10, 3000]),
                           'how': r.choice(['place', 'place', 'delete'])},
    'later': lambda i, r: {'path': i.known('apl') if r.random() < 0.5 else i.new('o'), 'v': i.v,
                           'size': r.choice([10, 3000]), 'how': 'late'},
    'await': lambda i, r: {},
    'put': lambda i, r: {'path': i.new('o') if r.random() < 0.5 else i.known('apl'), 'v': i.v,
                         'size': r.choice([10, 300, 20_000]), 'how': r.choice(['put', 'json'])},
    'delete': lambda i, r: {'path': i.known('apl')},
    'kill-server': lambda i, r: {},
    'server-down': lambda i, r: {},
    'server-up': lambda i, r: {},
    'kill-agent': lambda i, r: {},
    'start-agent': lambda i, r: {},
    'end-agent': lambda i, r: {},
    'stop-agent': lambda i, r: {},
    'cont-agent': lambda i, r: {},
    'cut': lambda i, r: {},
    'slow': lambda i, r: {'ms': r.choice([0, 0, 2, 20])},
    'budget': lambda i, r: {'bytes': r.choice([1, 400, 2000, 30_000]), 'count': r.randrange(1, 4)},
    'fill': lambda i, r: {},
    'free': lambda i, r: {},
    'lose-index': lambda i, r: {},
}

EFFECTS = {name[2:]: f for name, f in globals().items() if name.startswith('e_')}
WORLD = {name for name in INVENT if name not in EFFECTS} | {'pause'}

# How often each is chosen.
WEIGHTS = {
    'write': 16, 'resave': 8, 'edit': 8, 'append': 6, 'truncate': 2, 'remove': 5, 'rmtree': 4, 'mkdir': 4,
    'chain': 3, 'move': 9, 'swap': 1, 'out': 1, 'in': 2, 'churn': 1, 'chmod': 4, 'symlink': 2, 'link': 3,
    'fifo': 1, 'touch': 2, 'storm': 0.7,
    'flush': 3, 'quiet': 3, 'status': 0.5, 'run': 4, 'large': 4, 'pull': 1, 'pull-conflicts': 0.5, 'make': 2, 'alter': 2, 'later': 2, 'await': 1, 'put': 4,
    'delete': 1, 'kill-server': 1.2, 'server-down': 0.7, 'server-up': 2, 'kill-agent': 1.2, 'start-agent': 3,
    'end-agent': 0.5, 'stop-agent': 1, 'cont-agent': 2, 'cut': 2, 'slow': 1, 'budget': 1, 'fill': 0.5,
    'free': 1, 'lose-index': 0.3,
}


def invent(seed, count):
    return Inventor(seed).sequence(count, WEIGHTS)
