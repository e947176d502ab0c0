# SPDX-License-Identifier: MIT
"""What a program does to whoever reads about it on a terminal."""
from base import case

ESCAPE = b"\x1b]0;taken\x07"


@case("name of a file that writes to the user's terminal", "terminal")
def terminal_name(t):
    folder = t.base + "/terminal"
    made = "import os; open(os.fsdecode(%r), 'w').close()" % (b"a" + ESCAPE + b"\n# all is well")
    said = t.client(folder, "run", "--", "python3", "-c", made)
    if b"error" in said.lower():
        raise RuntimeError("the client could not run: %s" % said[:300])
    said += t.client(folder, "status") + t.client(folder, "pull", "--dry-run")
    if b"taken" not in said:
        raise RuntimeError("nobody tells of the file: %s" % said[:600])
    return ESCAPE in said or b"\n# all is well" in said

