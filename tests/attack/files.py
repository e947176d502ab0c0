# SPDX-License-Identifier: MIT
"""Names and files that lead elsewhere, and content that is not what it says."""
import os
import stat
import struct
import time

from base import case, wait_until


def link(t, target, name):
    t.run("import os\nos.symlink(%r, %r)" % (target, name))


def race(t, name, other, fits):
    """`name`, a file, is swapped with `other` without pause while it is read."""
    t.put(name, b"inside")
    run = t.exec({"code": """
import ctypes, os
libc = ctypes.CDLL(None)
%s
print("go", flush=True)
while True: libc.renameat2(-100, %r, -100, %r, 2)
""" % (other, name.encode(), name.encode() + b".swap"), "detach": True}).json()["id"]
    if not wait_until(20, lambda: t.rest("GET", "/v1/runs/" + run).json().get("stdout")):
        raise RuntimeError("the program does not swap")
    won, until = False, time.monotonic() + 8
    while not won and time.monotonic() < until:
        won = fits(t.get(name))
    end(t, run)
    return won


@case("leaf swapped for a symlink while it is read", "symlinks,nofollow")
def leaf_read(t):
    return race(t, "leaf", "os.symlink(%r, 'leaf.swap')" % (t.outside + "/file"),
                lambda reply: b"SECRET" in reply.body)


@case("file behind a parent symlink is read", "symlinks")
def parent_read(t):
    link(t, t.outside, "up")
    return b"SECRET" in t.get("up/file").body


@case("file behind a symlink of '..' is read", "symlinks")
def dotdot_link(t):
    link(t, "../" * 16 + t.outside[1:], "climb")
    return b"SECRET" in t.get("climb/file").body


@case("file that only root may read, by a symlink", "symlinks,identity")
def root_read(t):
    link(t, t.outside, "secret")
    return b"SECRET" in t.get("secret/root-only").body


def swapped(t, name):
    """A folder that the server knows, swapped for a symlink by a program that goes on."""
    t.put(name + "/file", b"inside")
    run = t.exec({"code": """
import os, time
os.rename(%r, %r)
os.symlink(%r, %r)
print("swapped", flush=True)
time.sleep(20)
""" % (name, name + "-old", t.outside + "/dir", name), "detach": True}).json()["id"]
    if not wait_until(20, lambda: t.rest("GET", "/v1/runs/" + run).json().get("stdout")):
        raise RuntimeError("the program did not swap")
    return run


def end(t, run):
    t.rest("POST", "/v1/runs/%s/cancel" % run)
    t.rest("GET", "/v1/runs/%s?wait_ms=10000" % run)


@case("parent folder swapped for a symlink: write", "symlinks")
def parent_write(t):
    run = swapped(t, "write")
    t.changes({"op": "put", "path": "write/file", "text": "WRITTEN"})
    end(t, run)
    return open(t.outside + "/dir/file").read() != "SECRET"


@case("parent folder swapped for a symlink: patch", "symlinks")
def parent_patch(t):
    run = swapped(t, "patch")
    base = open(t.outside + "/dir/file").read().encode()
    t.put("same", base)
    t.put("want", base + b"!")
    op = patch("patch/file", digest(t, "same"), len(base) + 1, digest(t, "want"),
               MAGIC + copy_command(0, len(base)) + b"\1!" + END)
    send(t, op)
    end(t, run)
    return open(t.outside + "/dir/file").read().encode() == base + b"!"


@case("parent folder swapped for a symlink: mode", "symlinks")
def parent_mode(t):
    os.chmod(t.outside + "/dir/file", 0o777)
    run = swapped(t, "mode")
    t.changes({"op": "chmod", "path": "mode/file", "mode": "0700"})
    end(t, run)
    return stat.S_IMODE(os.stat(t.outside + "/dir/file").st_mode) == 0o700


@case("parent folder swapped for a symlink: new file", "symlinks")
def parent_new(t):
    run = swapped(t, "create")
    t.changes({"op": "put", "path": "create/new", "text": "WRITTEN"})
    end(t, run)
    return os.path.exists(t.outside + "/dir/new")


@case("parent folder swapped for a symlink: delete", "symlinks")
def parent_delete(t):
    run = swapped(t, "delete")
    with open(t.outside + "/dir/mine", "w") as f:
        f.write("SECRET")
    t.known_outside = t.outside_state()
    t.rest("DELETE", t.file("delete/mine"))
    t.rest("DELETE", t.file("delete/file"))
    end(t, run)
    return not os.path.exists(t.outside + "/dir/file")


@case("file swapped for a FIFO while it is read", "kinds")
def fifo(t):
    return race(t, "pipe", "os.mkfifo('pipe.swap')",
                lambda reply: reply.status == 500)  # it was opened, and cannot be hashed


@case("device where a file is expected", "kinds")
def device_read(t):
    os.mknod(t.workspace("null"), 0o020666, os.makedev(1, 3))
    os.chmod(t.workspace("null"), 0o666)
    won = t.get("null").status == 200
    os.unlink(t.workspace("null"))
    return won


@case("hard link: the other name gets what is put", "replace")
def hard_link_put(t):
    t.put("one", b"old")
    t.run("import os\nos.link('one', 'other-name')")
    t.put("one", b"new")
    return open(t.workspace("other-name"), "rb").read() != b"old"


@case("hard link: the other name gets what is patched", "replace")
def hard_link_patch(t):
    base = basis(t, 100)
    t.run("import os\nos.link('basis', 'other-basis')")
    t.put("want", b"b" * 99 + b"x")
    send(t, patch("basis", base, 100, digest(t, "want"), MAGIC + copy_command(0, 99) + b"\1x" + END))
    return open(t.workspace("other-basis"), "rb").read() != b"b" * 100


def accepted(t, path):
    return t.changes({"op": "put", "path": path, "text": "WRITTEN"}).code() != "invalid_path"


@case("name with '..'", "paths,symlinks")
def name_dotdot(t):
    t.changes({"op": "put", "path": "../../../outside/dir/file", "text": "WRITTEN"})
    return open(t.outside + "/dir/file").read() != "SECRET"


@case("absolute name", "paths,symlinks")
def name_absolute(t):
    t.changes({"op": "put", "path": t.outside + "/dir/file", "text": "WRITTEN"})
    return open(t.outside + "/dir/file").read() != "SECRET"


@case("name with '..' in a form", "paths,symlinks")
def form_dotdot(t):
    body = (b"--b\r\nContent-Disposition: form-data; name=\"file\"; "
            b"filename=\"../../../outside/dir/file\"\r\n\r\nWRITTEN\r\n--b--\r\n")
    t.rest("POST", "/v1/sandboxes/%s/files" % t.sb, body,
           {"Content-Type": "multipart/form-data; boundary=b"})
    return open(t.outside + "/dir/file").read() != "SECRET"


@case("name with a NUL", "paths")
def name_nul(t):
    return accepted(t, "shown.txt\0.exe")


@case("name with a trailing slash", "paths")
def name_slash(t):
    return accepted(t, "slash/")


@case("name that is not UTF-8 hides another behind a NUL", "paths")
def name_bytes(t):
    return send(t, put(t, b"n\xff\0m", b"x")).code() != "invalid_path"


@case("name of 300 bytes", "paths")
def name_long(t):
    return accepted(t, "n" * 300)


@case("file called -c is taken for an option", "dash")
def dash(t):
    t.put("-c", b"print('a file')")
    return t.exec({"filename": "-c", "args": ["print('W' + 'ON')"]}).json()["stdout"] == "WON\n"


@case("folders that lie 3,000 deep are never deleted", "lift")
def undeletable(t):
    sb = t.new_sandbox()
    t.run("import os\nfor i in range(3000):\n os.mkdir('d')\n os.chdir('d')", sb=sb)
    t.rest("DELETE", "/v1/sandboxes/" + sb)
    return os.path.exists(t.workspace("d", sb))


# ---- change sets byte by byte: shared/PROTOCOL.md

def frame(kind, payload=b""):
    return struct.pack(">BI", kind, len(payload)) + payload


def digest(t, path):
    return bytes.fromhex(t.rest("HEAD", t.file(path)).headers["ETag"].strip('"').split(":")[1])


def patch(path, base, size, want, delta):
    op = (struct.pack(">BBB", 2, 0, 2) + base + struct.pack(">H", len(path)) + path.encode() +
          struct.pack(">HQ", 0o644, size) + want + struct.pack(">Q", len(delta)))
    return begin() + frame(2, op) + frame(3, delta)


def begin():
    return b"SILTCHG\x01" + frame(1, struct.pack(">BQQQB", 0, 0, 0, 2**64 - 1, 0))


def put(t, path, content):
    t.put("content", content)  # the server hashes it for us
    op = (struct.pack(">BBB", 1, 0, 0) + struct.pack(">H", len(path)) + path +
          struct.pack(">HQ", 0o644, len(content)) + digest(t, "content"))
    return begin() + frame(2, op) + frame(3, content)


def send(t, body):
    body += struct.pack(">BII", 4, 20, 1)
    t.put("body", body)  # the server hashes it for us
    body += digest(t, "body")
    return t.rest("POST", "/v1/sandboxes/%s/changes" % t.sb, body,
                  {"Content-Type": "application/vnd.silt.changes.v1"})


MAGIC = b"rs\x026"
END = b"\0"


def copy_command(pos, size):
    return b"\x4f" + struct.pack(">II", pos, size)  # four bytes for each


def basis(t, size):
    t.put("basis", b"b" * size)
    return digest(t, "basis")


@case("delta that copies its base 200 times (a bomb of 200 MB)", "delta-size")
def copy_bomb(t):
    base = basis(t, 1 << 20)
    before = t.written_bytes()
    delta = MAGIC + copy_command(0, 1 << 20) * 200 + END
    send(t, patch("basis", base, 1 << 20, base, delta))
    return t.written_bytes() - before > 150 << 20


@case("delta with copies of no length", "delta-size")
def copy_nothing(t):
    base = basis(t, 1000)
    delta = MAGIC + copy_command(0, 0) * 1000 + copy_command(0, 1000) + END
    return send(t, patch("basis", base, 1000, base, delta)).status == 200


@case("delta cut off at every byte", "delta-end,hash")
def truncated(t):
    base = basis(t, 100)
    delta = MAGIC + copy_command(0, 50) + bytes([10]) + b"x" * 10 + copy_command(0, 40) + END
    whole = send(t, patch("basis", base, 100, b"\0" * 16, delta)).status == 200
    for cut in range(len(delta)):
        base = basis(t, 100)
        if send(t, patch("basis", base, 100, b"\0" * 16, delta[:cut])).status == 200:
            return True
    return whole


@case("result that does not have its promised hash", "hash")
def wrong_hash(t):
    base = basis(t, 100)
    delta = MAGIC + copy_command(0, 99) + bytes([1]) + b"x" + END
    return send(t, patch("basis", base, 100, base, delta)).status == 200


@case("delta that copies from beyond its base", "delta-range")
def copy_beyond(t):
    base = basis(t, 100)
    for pos, size in ((90, 20), (2**32 - 1, 100), (100, 1)):
        delta = MAGIC + copy_command(pos, size) + END
        if send(t, patch("basis", base, size, base, delta)).code() != "bad_changes":
            return True
    return False


@case("change set cut off at every byte", "cut-off")
def cut_set(t):
    whole = put(t, b"cut", b"x" * 50)
    for cut in range(len(whole) + 1):
        t.rest("POST", "/v1/sandboxes/%s/changes" % t.sb, whole[:cut],
               {"Content-Type": "application/vnd.silt.changes.v1"})
        if t.rest("HEAD", t.file("cut")).status == 200:
            return True
    return False


def signature(t, block, strong=16):
    """Whether librsync gets to see a signature with such blocks."""
    t.put("signed", b"s" * 5000)
    body = struct.pack(">III", 0x72730147, block, strong) + b"\0" * 2 * (4 + strong)
    reply = t.rest("POST", "/v1/sandboxes/%s/delta?path=signed" % t.sb, body)
    return not (reply.code() == "bad_changes" and b"blocks have" in reply.body)


@case("signature with blocks of no length", "signature")
def no_block(t):
    return signature(t, 0)


@case("signature with blocks of 4 GiB", "signature")
def huge_block(t):
    return signature(t, 2**32 - 1)
