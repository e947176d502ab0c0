#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: however an editor saves, it is one update of one file, and no temporary name is ever seen on the
# server: vim with each backupcopy, nano and sed -i as they are; emacs, VS Code, JetBrains, GNOME and programs
# that write beside a file and rename, by the calls that they make.
. "$(dirname "$0")/lib.sh"

start_server
new_project editors
echo 'print(0)' >main.py
silt sync >/dev/null 2>&1
there=$(workspace)
start_silt "$TMP/watch.out" "$TMP/watch.err" --json watch
wait_until 60 grep -qs '"event":"ready"' "$TMP/watch.out"

# Every name that comes or goes in the workspace, by inotify, a line each.
python3 - "$there" >"$TMP/names" <<'PY' &
import ctypes, os, struct, sys
libc = ctypes.CDLL(None)
fd = libc.inotify_init()
libc.inotify_add_watch(fd, sys.argv[1].encode(), 0x40 | 0x80 | 0x100 | 0x200)  # moved, created, deleted
print("watching", flush=True)
while True:
    data = os.read(fd, 65536)
    while data:
        _, mask, _, length = struct.unpack_from("iIII", data)
        name = data[16:16 + length].rstrip(b"\0").decode()
        print("gone" if mask & 0x240 else "came", name, flush=True)
        data = data[16 + length:]
PY
OWN_PIDS="$OWN_PIDS $!"
wait_until 60 grep -qs watching "$TMP/names"

cat >"$TMP/save.py" <<'PY'
import os, sys
how, name, text = sys.argv[1], sys.argv[2], sys.argv[3].encode() + b"\n"
def write(path, flags=os.O_CREAT | os.O_TRUNC):
    fd = os.open(path, os.O_WRONLY | flags, 0o644)
    for i in range(0, len(text), 8):
        os.write(fd, text[i:i + 8])
    os.fsync(fd)
    os.close(fd)
def emacs():
    os.symlink("me@here.1:2", ".#" + name)
    write(f"#{name}#")
    os.rename(name, name + "~")
    write(name)
    os.chmod(name, 0o644)
    os.unlink(f"#{name}#")
    os.unlink(".#" + name)
def code():
    write(name, os.O_TRUNC)
def jetbrains():
    write(name + "___jb_tmp___")
    os.rename(name, name + "___jb_old___")
    os.rename(name + "___jb_tmp___", name)
    os.unlink(name + "___jb_old___")
def beside(temporary):
    write(temporary, os.O_CREAT | os.O_EXCL)
    os.chmod(temporary, 0o644)
    os.rename(temporary, name)
ways = {
    "emacs": emacs,
    "code": code,
    "jetbrains": jetbrains,
    "gnome": lambda: beside(".goutputstream-K3X7B2"),
    "pid": lambda: beside(f"{name}.tmp.{os.getpid()}.1766000000000"),
    "tmp": lambda: beside(f"{name}.tmp"),
    "mkstemp": lambda: beside(f".{name}.aB3xY9"),
    "anew": lambda: (os.unlink(name), write(name)),
}
ways[how]()
PY
# nano by its keys: all of the text goes, the new one comes, write out, leave.
cat >"$TMP/nano.py" <<'PY'
import os, pty, select, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm"
    os.execlp("nano", "nano", "--ignorercfiles", sys.argv[1])
def wait(text):
    seen, end = b"", time.time() + 60
    while text not in seen and time.time() < end:
        if select.select([fd], [], [], 1)[0]:
            seen += os.read(fd, 4096)
wait(b"Help")
os.write(fd, b"\x0b" + sys.argv[2].encode())
os.write(fd, b"\x0f")
wait(b"Write")
os.write(fd, b"\r")
wait(b"Wrote")
os.write(fd, b"\x18")
try:
    while os.read(fd, 4096):
        pass
except OSError:
    pass
os.waitpid(pid, 0)
PY

generation() { rest GET "/v1/sandboxes/$(sandbox)" | json - generation; }
updates() { grep -c 'came main.py$' "$TMP/names"; }
arrived() { cmp -s main.py "$there/main.py"; }
vi() { vim -Nu NONE -es -c "set backup writebackup backupcopy=$1" -c "call setline(1, '$2')" -c wq main.py; }
# one TEXT COMMAND…: saved by the command with a number as its last word. A machine under load may stop an
# editor in the middle for longer than anybody waits: what is wrong must be wrong five times.
number=0
one() {
    local text=$1 round before begun lines found=''
    shift
    for round in 1 2 3 4 5; do
        silt sync --timeout 60s >/dev/null 2>&1
        before=$(updates) number=$((number + 1)) begun=$(generation)
        lines=$(wc -l <"$TMP/names")
        "$@" "print($number)" >/dev/null 2>&1
        check_there "$text" || return
        silt sync --timeout 60s >/dev/null 2>&1
        found="$(($(updates) - before)) update, $(($(generation) - begun)) generation; others: $(tail -n +$((lines + 1)) "$TMP/names" | grep -v ' main.py$' | sort -u | tr '\n' ' ')"
        [ "$found" = '1 update, 1 generation; others: ' ] && break
    done
    same "$text is one update of one file" '1 update, 1 generation; others: ' "$found"
}
check_there() {
    wait_until 60 arrived && grep -q "print($number)" main.py && return
    not_ok "$1 arrives"
    return 1
}

one "vim, backupcopy=yes" vi yes
one "vim, backupcopy=no" vi no
one "vim, backupcopy=auto" vi auto
one "nano" python3 "$TMP/nano.py" main.py
in_place() { sed -i "1s/.*/$1/" main.py; }
one "sed -i" in_place
one "emacs" python3 "$TMP/save.py" emacs main.py
one "VS Code" python3 "$TMP/save.py" code main.py
one "a JetBrains editor" python3 "$TMP/save.py" jetbrains main.py
one "a GNOME editor" python3 "$TMP/save.py" gnome main.py
one "a program that writes NAME.tmp.PID.TIME" python3 "$TMP/save.py" pid main.py
one "one that writes NAME.tmp" python3 "$TMP/save.py" tmp main.py
one "one that uses mkstemp" python3 "$TMP/save.py" mkstemp main.py
one "a file that is deleted and written anew" python3 "$TMP/save.py" anew main.py
end_silt
finish
