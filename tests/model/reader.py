# SPDX-License-Identifier: MIT
"""Looks at a workspace all the time: whatever stands there must be whole and have a name of ours.

    reader.py WORKSPACE REPORT

Walks WORKSPACE until it is ended, and appends one line to REPORT for each thing that must not be seen.
A file that was looked at is not read again while its inode, times and size stay the same.
"""
import os
import re
import sys
import time

import content

# Names that operations give. A name of an editor's temporary or of the server's own would be another.
NAMES = re.compile(r'(?:[adflopstx][0-9][^/]{0,3}|anchor|look\.py|work\.py|content\.py|pyproject\.toml)\Z')


def read(path):
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(fd, 'rb') as f:
        return f.read()


def look(folder, seen, report):
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if not NAMES.match(entry.name):
            report(entry.path, 'has a name that nobody gave')
        try:
            st = entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                look(entry.path, seen, report)
            elif entry.is_file(follow_symlinks=False):
                state = (st.st_ino, st.st_ctime_ns, st.st_mtime_ns, st.st_size)
                if seen.get(entry.path) == state:
                    continue
                data = read(entry.path)
                seen[entry.path] = state
                fault = content.fault(entry.name, data)
                if fault:
                    report(entry.path, '%s: %d bytes, %r' % (fault, len(data), data[:80]))
        except OSError:
            pass  # gone or replaced meanwhile


def main():
    workspace, target = sys.argv[1:]
    seen, told = {}, set()
    with open(target, 'a', encoding='utf-8', errors='backslashreplace') as out:
        def report(path, text):
            if (path, text) not in told:
                told.add((path, text))
                out.write('%s %s\n' % (os.path.relpath(path, workspace), text))
                out.flush()
        while True:
            look(workspace, seen, report)
            time.sleep(0.004)


main()
