# SPDX-License-Identifier: MIT
"""The trees and files that bench-sync works on, and what happens to them. All made from seeds."""
import os
import random
import shutil
import subprocess

FILES, TREE_BYTES = 5764, 25 << 20
WORDS = ["return", "value", "self", "import", "def", "class", "for", "item", "in", "range", "\n    "]
GIT_ENV = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8", "GIT_CONFIG_NOSYSTEM": "1",
           "GIT_AUTHOR_NAME": "bench", "GIT_AUTHOR_EMAIL": "bench@localhost", "GIT_AUTHOR_DATE": "1700000000 +0000",
           "GIT_COMMITTER_NAME": "bench", "GIT_COMMITTER_EMAIL": "bench@localhost", "GIT_COMMITTER_DATE": "1700000000 +0000"}


def text(rng, size):
    """Words and numbers: compresses like code does."""
    count = size // 9 + 16
    numbers, body = rng.randbytes(count * 3).hex(), []
    for i, word in enumerate(rng.choices(WORDS, k=count)):
        body.append(word)
        body.append(numbers[6 * i: 6 * i + 6])
    return " ".join(body).encode()[:size]


def make_tree(path, files=FILES, size=TREE_BYTES, seed=1):
    """Sizes as in a source tree, most small, few large."""
    rng = random.Random(seed)
    sizes = [rng.lognormvariate(0, 1.6) for _ in range(files)]
    scale = size / sum(sizes)
    for i, relative in enumerate(sizes):
        folder = os.path.join(path, f"pkg{i % 97:02d}", f"mod{i // 97 % 11}")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"f{i}.py"), "wb") as f:
            f.write(text(rng, max(1, int(relative * scale))))


def copy(source, target):
    """With its time stamps."""
    subprocess.run(["cp", "-a", source, target], check=True)


def make_many(path, files, folders=500):
    """Many small files."""
    for i in range(folders):
        os.makedirs(os.path.join(path, f"d{i % 20:02d}", f"e{i}"))
    for i in range(files):
        with open(os.path.join(path, f"d{i % folders % 20:02d}", f"e{i % folders}", f"f{i}"), "wb") as f:
            f.write(b"%d\n" % i)


def make_big(name, size, rng):
    with open(name, "wb") as f:
        for _ in range(size >> 20):
            f.write(rng.randbytes(1 << 20))


def insert(name, rng, count=4096):
    """Random bytes at a random offset that is no multiple of anything, in a new file that replaces the old one."""
    at = rng.randrange(os.path.getsize(name)) | 1
    with open(name, "rb") as old, open(name + ".new", "wb") as new:
        left = at
        while left:
            piece = old.read(min(left, 1 << 20))
            new.write(piece)
            left -= len(piece)
        new.write(rng.randbytes(count))
        shutil.copyfileobj(old, new, 1 << 20)
    os.rename(name + ".new", name)


def append(name, rng):
    with open(name, "ab") as f:
        f.write(rng.randbytes(200).hex().encode() + b"\n")


def git(repo, *args):
    return subprocess.run(["git", "-C", repo, *args], env=GIT_ENV, capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout


def make_repo(path, files=4000, seed=3):
    """Two commits, tagged a and b, that differ in half of the files: edits, renames, additions, deletions.
    Returns [{path: content} of a, of b]."""
    rng = random.Random(seed)
    states = [{f"src/p{i % 61:02d}/q{i // 61 % 7}/f{i}.c": text(rng, int(rng.lognormvariate(7.6, 1))) for i in range(files)}]
    later = dict(states[0])
    names = sorted(later)
    rng.shuffle(names)
    edit, rename, delete = files * 3 // 10, files // 12, files // 16
    for name in names[:edit]:
        at = rng.randrange(len(later[name]) + 1)
        later[name] = later[name][:at] + b"\nint changed;\n" + later[name][at:]
    for name in names[edit: edit + rename]:
        later[name.replace("src/", "lib/", 1)] = later.pop(name)
    for name in names[edit + rename: edit + rename + delete]:
        del later[name]
    for i in range(delete):
        later[f"new/r{i % 13}/g{i}.c"] = text(rng, 2000)
    states.append(later)
    os.makedirs(path)
    git(path, "init", "-q")
    before = {}
    for tag, state in zip("ab", states):
        for name in before.keys() - state.keys():
            os.unlink(os.path.join(path, name))
        for name, content in state.items():
            if before.get(name) != content:
                os.makedirs(os.path.join(path, os.path.dirname(name)), exist_ok=True)
                with open(os.path.join(path, name), "wb") as f:
                    f.write(content)
        git(path, "add", "-A")
        git(path, "commit", "-q", "-m", tag)
        git(path, "tag", tag)
        before = state
    git(path, "checkout", "-q", "a")
    return states
