# SPDX-License-Identifier: MIT
"""Contents that carry their own proof: whoever reads a file can tell a whole version from a torn one.

A version is a line with its number, the length and the digest of what follows, and a payload. A log is
a file of lines, each with its number and digest, so every state that appending whole lines can leave is
whole. The first letter of a file's name says what may be demanded of it (see `fault`). This module is
also put into the projects that are synced: the programs that run there make their files with it.
"""
import hashlib
import random

HEAD = 60  # bytes of the first line
LINE = 26  # bytes of a line of a log


def digest(data):
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def version(number, payload):
    return b'silt %010d %010d %s\n' % (number, len(payload), digest(payload).encode()) + payload


def payload(number, size, text=True):
    """`size` bytes that only this number has; `text`: such that deltas and compression have work."""
    source = random.Random(number)
    if not text:
        return source.randbytes(size)
    words = [b'%08x' % source.getrandbits(32) for _ in range(64)]
    lines, length = [], 0
    while length < size:
        line = b'%d %s\n' % (source.getrandbits(20), b' '.join(source.choices(words, k=5)))
        lines.append(line)
        length += len(line)
    return b''.join(lines)[:size]


def make(number, size, text=True):
    return version(number, payload(number, size, text))


def edited(data, number, at, cut, insert):
    """The next version of `data`: `cut` bytes at a place (in thousandths) give way to new ones."""
    body = data[HEAD:]
    place = len(body) * at // 1000
    return version(number, body[:place] + payload(number, insert) + body[place + cut:])


def resized_as(data, number):
    """Another version with exactly the size of `data`."""
    return make(number, max(len(data) - HEAD, 0))


def line(number):
    text = b'%08d' % number
    return text + b' ' + digest(text)[:16].encode() + b'\n'


def is_version(data):
    if len(data) < HEAD:
        return False
    words = data[:HEAD].split()
    return (len(words) == 4 and words[0] == b'silt' and int(words[2]) == len(data) - HEAD
            and words[3].decode('ascii', 'replace') == digest(data[HEAD:]))


def is_log(data):
    lines = [data[i:i + LINE] for i in range(0, len(data), LINE)]
    return all(part[:8].isdigit() and part == line(int(part[:8])) for part in lines)


def fault(name, data):
    """What is wrong with a file of this name and content, or None.

    a, x     replaced as a whole: always a version
    p        written in place, at most a page at once: a version, or empty
    l        appended to: whole lines; others make versions of it
    others   of fixed content, made by programs, or a temporary (t) that is still being written
    """
    kind = name[:1] if name[1:2].isdigit() else 'o'
    if kind in 'ax' and not is_version(data):
        return 'is no whole version'
    if kind == 'p' and data and not is_version(data):
        return 'is no whole version and not empty'
    if kind == 'l' and not is_log(data) and not is_version(data):
        return 'is neither a sequence of whole lines nor a version'
    return None
