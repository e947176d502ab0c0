# SPDX-License-Identifier: MIT
"""scripts/model: random operations against a model. DESIGN.md in this folder says what it is for."""
import argparse
import os
import random
import sys
import tempfile
import time

import operations
import shrink
from play import play

HERE = os.path.dirname(os.path.abspath(__file__))


def arguments():
    p = argparse.ArgumentParser(prog='scripts/model', description='Plays random sequences of operations '
                                'against real silt and siltd and compares with a model.')
    p.add_argument('--minutes', type=float, default=1, help='how long (default: 1)')
    p.add_argument('--seed', type=int, help='the first seed (default: by chance)')
    p.add_argument('--seeds', type=int, help='at most so many sequences')
    p.add_argument('--ops', type=int, default=60, help='operations in a sequence (default: 60)')
    p.add_argument('--without', default='', help='operations that are left out, by commas')
    p.add_argument('--more', default='', help='operations that are played ten times as often, by commas')
    p.add_argument('--replay', metavar='FILE', help='play this sequence, one operation a line')
    p.add_argument('--times', type=int, default=1, help='play it so often, or until it fails')
    p.add_argument('--shrink-minutes', type=float, default=5, help='how long a failure is shrunk (default: 5)')
    p.add_argument('--keep', action='store_true', help='keep the folders of a failure')
    p.add_argument('--verbose', action='store_true', help='print each operation before it is played')
    p.add_argument('--build', default=os.environ.get('BUILD', 'build'), help='folder with silt and siltd')
    return p.parse_args()


def private_mounts():
    """As root: a mount namespace of our own, so that a small disk can be mounted and nothing of it is
    left whatever happens."""
    if os.geteuid() == 0 and 'SILT_MODEL_PRIVATE' not in os.environ:
        os.environ['SILT_MODEL_PRIVATE'] = '1'
        os.execvp('unshare', ['unshare', '--mount', '--propagation', 'private', sys.executable, '-B', '-X', 'utf8',
                              HERE, *sys.argv[1:]])


def read_script(path):
    with open(path, encoding='utf-8') as f:
        return [operations.from_line(text) for text in f if text.strip() and not text.startswith('#')]


def write_script(path, ops, title):
    with open(path, 'w', encoding='utf-8', errors='backslashreplace') as f:
        f.write('# %s\n# play it: scripts/model --replay FILE\n' % title.replace('\n', '\n# '))
        f.writelines(operations.to_line(op) + '\n' for op in ops)


def report(ops, failure, title, args, build):
    print('not ok - %s: at operation %d: %s' % (title, failure.index, failure.text), flush=True)
    ops = ops[:failure.index + 1]
    until = time.monotonic() + 60 * args.shrink_minutes
    if args.shrink_minutes > 0:
        last = [failure]

        def fails(candidate):
            found = play(candidate, build)[1]
            if found:
                last[0] = found
            return found is not None
        ops = shrink.shrink(ops, shrink.repeated(fails, 3), until)
        failure = last[0]
    path = 'model-%s.ops' % title.replace(' ', '-')
    path = os.path.join(tempfile.gettempdir(), path)
    write_script(path, ops, '%s: %s' % (title, failure.text))
    print('shrunk to %d operations, in %s:' % (len(ops), path))
    with open(path, encoding='utf-8') as f:
        print(f.read(), flush=True)


def main():
    args = arguments()
    private_mounts()
    os.umask(0o022)
    build = os.path.abspath(args.build)
    log = (lambda text: print(text, flush=True)) if args.verbose else (lambda text: None)
    if args.replay:
        ops = read_script(args.replay)
        for _ in range(args.times):
            _, failure = play(ops, build, log, args.keep)
            if failure:
                print('not ok - at operation %d: %s' % (failure.index, failure.text))
                return 1
        print('ok - %d operations' % len(ops))
        return 0
    for name in filter(None, args.without.split(',')):
        operations.WEIGHTS.pop(name)
    for name in filter(None, args.more.split(',')):
        operations.WEIGHTS[name] *= 10
    seed = args.seed if args.seed is not None else random.randrange(10**6)
    first, total, until = seed, 0, time.monotonic() + 60 * args.minutes
    while time.monotonic() < until and (args.seeds is None or seed < first + args.seeds):
        ops = operations.invent(seed, args.ops)
        done, failure = play(ops, build, log, args.keep)
        total += done
        if failure:
            report(ops, failure, 'seed %d' % seed, args, build)
            print('%d operations in %d sequences before it' % (total - done, seed - first))
            return 1
        seed += 1
    print('ok - %d operations in %d sequences, seeds %d to %d' % (total, seed - first, first, seed - 1))
    return 0


sys.exit(main())
