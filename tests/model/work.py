# SPDX-License-Identifier: MIT
"""Runs in the workspace: work.py PATH NUMBER SIZE HOW … makes files, then prints what it made. PATH is
percent-encoded, for a request carries no argument that is not UTF-8.

HOW: `place` writes a temporary and renames it, `write` writes in place, `delete` deletes, `late` waits
a moment first and then does like `place`."""
import json
import os
import sys
import time
import urllib.parse

import content

made = []
for path, number, size, how in zip(*[iter(sys.argv[1:])] * 4):
    path = urllib.parse.unquote(path, errors='surrogateescape')
    if how == 'late':
        time.sleep(0.15)
    try:
        if how == 'delete':
            os.unlink(path)
        else:
            temporary = path if how == 'write' else os.path.join(os.path.dirname(path), 'o0w')
            with open(temporary, 'wb') as f:
                f.write(content.make(int(number), int(size)))
            if temporary != path:
                os.replace(temporary, path)
        made.append(path)
    except OSError:
        pass
print(json.dumps(made))
