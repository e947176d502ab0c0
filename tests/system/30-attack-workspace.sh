#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: whatever a program puts into its workspace and its cache, the server reads and writes nothing
# outside of them, answers every request, and can remove all of it. Numbers in brackets are the cases
# of the list of attacks that the design was made against.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
start_server
new_sandbox '{"language":"python"}'

# Outside: a folder and a file that anybody on this machine may write. No run may leave a trace there.
OUTSIDE=$TMP/outside
mkdir -p "$OUTSIDE/pyc/workspace"
echo SECRET >"$OUTSIDE/file"
echo SECRET >"$OUTSIDE/pyc/workspace/mod.cpython-311.pyc"
chmod -R a+rwX "$OUTSIDE"
outside() { find "$OUTSIDE" -printf '%P %m %s %U %T@ %C@\n' | sort; }
BEFORE=$(outside)

# [1][2][3][35] Symlinks at every place, swapped without pause while the server works on the same names
cat >"$TMP/swap.py" <<P
import ctypes, os, time
libc = ctypes.CDLL(None)
out = "$OUTSIDE"
links = {"d1": out, "e1": out, "f1": out + "/file", "up": "../" * 12 + out[1:], "root": "/proc/self/root"}
def again():
    for n in ("d", "d/e", ".x", ".x/dir"):
        try: os.makedirs(n)
        except OSError: pass
    for n in ("leaf", "d/e/file", "d/file"):
        try: open(n, "x").write("inside")
        except OSError: pass
    for n, to in links.items():
        try: os.symlink(to, ".x/" + n)
        except OSError: pass
def swap(a, b): libc.renameat2(-100, a.encode(), -100, b.encode(), 2)
print("go", flush=True)
for i in range(1 << 40):
    if i % 32 == 0: again()
    swap("d", ".x/d1"); swap("leaf", ".x/f1"); swap("d/e", ".x/e1"); swap("d/e/file", ".x/f1")
    swap("d", ".x/up"); swap("d", ".x/root"); swap("leaf", ".x/dir"); swap("d/file", "leaf")
P
rest PUT "/v1/sandboxes/$SB/files/swap.py" --data-binary @"$TMP/swap.py" >/dev/null
run '{"filename":"swap.py","detach":true,"limits":{"wall_ms":50000}}'
RUN=$(field id)
swapping() { [ "$(rest GET "/v1/runs/$RUN" | json - stdout)" = go ]; }
check 'the swapping program runs' wait_until 10 swapping
assail() {
    local p base=/v1/sandboxes/$SB
    for _ in $(seq "$1"); do
        for p in d/e/file d/file leaf d/new .x/d1/file d/pyc/workspace/mod.cpython-311.pyc; do
            rest GET "$base/files/$p"
            rest PUT "$base/files/$p" -d WRITTEN
            rest POST "$base/changes" -d "{\"ops\":[{\"op\":\"put\",\"path\":\"$p\",\"text\":\"WRITTEN\",\"mode\":\"0777\"}]}"
            rest POST "$base/changes" -d "{\"ops\":[{\"op\":\"chmod\",\"path\":\"$p\",\"mode\":\"0700\"}]}"
            rest POST "$base/changes" -d "{\"ops\":[{\"op\":\"move\",\"path\":\"$p\",\"to\":\"moved\"},{\"op\":\"delete\",\"path\":\"moved\",\"recursive\":true}]}"
            rest POST "$base/changes" -d "{\"ops\":[{\"op\":\"edit\",\"path\":\"$p\",\"old\":\"SECRET\",\"new\":\"WRITTEN\"}]}"
            rest DELETE "$base/files/$p"
            rest POST "$base/changes" -d '{"ops":[{"op":"delete","path":"d","recursive":true}]}'
        done
    done >"$2" 2>&1
}
assail 6 "$TMP/answers.1" &
OWN_PIDS="$OWN_PIDS $!"
FIRST=$!
assail 6 "$TMP/answers.2"
wait "$FIRST"
check '[35] nothing outside was read' not grep -q SECRET "$TMP/answers.1" "$TMP/answers.2"
same '[1][2][3] nothing outside was touched' "$BEFORE" "$(outside)"
same '[3] a swapped name is no failure of the server' '' \
    "$(grep -haoE '"code": *"internal".{0,200}' "$TMP/answers.1" "$TMP/answers.2" | head -n 3)"
call DELETE "/v1/sandboxes/$SB"
expect '[31] a sandbox is deleted while its program swaps' 204
same '[31] and nothing outside with it' "$BEFORE" "$(outside)"

# Symlinks in the cache, where the server itself forgets bytecode
new_sandbox '{"language":"python"}'
put mod.py 'x = 1'
put dir/mod.py 'x = 1'
run "{\"command\":\"rm -rf /cache/*; for n in pyc home go npm pip; do ln -s $OUTSIDE/pyc /cache/\$n; done\"}"
same 'the cache is planted' succeeded "$(field status)"
put mod.py 'x = 22'
call DELETE "/v1/sandboxes/$SB/files/dir?recursive=true"
run '{"code":"print(1)"}'
same 'a run after that works' 1 "$(field stdout)"
same 'a planted cache leads nowhere' "$BEFORE" "$(outside)"

# [8][30] A program owns the folders that are mounted for it, and locks everybody out
run '{"command":"chmod 000 /workspace /cache"}'
run '{"command":"echo fine"}'
same '[8] a run after the workspace was locked' fine "$(field stdout)"
run '{"command":"chmod 000 /workspace; echo locked; sleep 30","detach":true}'
LOCKING=$(field id)
locked() { [ "$(rest GET "/v1/runs/$LOCKING" | json - stdout)" = locked ]; }
check 'a program locks the workspace and goes on' wait_until 10 locked
call PUT "/v1/sandboxes/$SB/files/while-locked" -d x
expect '[8] a file is written meanwhile' 201
rest POST "/v1/runs/$LOCKING/cancel" >/dev/null
call GET "/v1/runs/$LOCKING?wait_ms=10000"
run '{"command":"chmod 777 /workspace /cache"}'
same '[30] nobody else is let in' '700 700' "$(stat -c %a "$DATA/workspaces/$SB" "$DATA/cache/$SB" | xargs)"
same 'the database is the server'\''s own' 600 "$(stat -c %a "$DATA/silt.db")"

# [5][6][7][8][17] Entries that are no ordinary files, and names that are no ordinary names
cat >"$TMP/odd.py" <<'P'
import os, socket
os.mkfifo("fifo")
socket.socket(socket.AF_UNIX).bind("socket")
for n in (b"a\nb", b"\x1b[2Jx", b"\xff\xfe", b"-rf", b"n" * 255, b'"q\\', b"...", b"$(id)", b"<b>"):
    open(n, "wb").write(b"1")
open("sparse", "w").truncate(256 << 20)
os.makedirs("locked/in")
open("locked/in/f", "w").write("x")
os.chmod("locked/in/f", 0)
os.chmod("locked/in", 0)
os.chmod("locked", 0)
open("suid", "w").write("x")
os.chmod("suid", 0o6777)
os.symlink(".", "loop")
open("/cache/x", "w").write("cache")
for source in ("/cache/x", "/usr/bin/su"):
    try: os.link(source, "hard")
    except OSError as e: print(e.strerror)
for what, how in (("null", 0o20666), ("disk", 0o60666)):
    try: os.mknod(what, how, 0x103)
    except OSError as e: print(e.strerror)
P
rest PUT "/v1/sandboxes/$SB/files/odd.py" --data-binary @"$TMP/odd.py" >/dev/null
run '{"filename":"odd.py"}'
same '[5][29] no hard links out, no devices' \
    'Invalid cross-device link Invalid cross-device link Operation not permitted Operation not permitted' "$(field stdout | xargs)"
same '[6][8] what it left was found' 'succeeded false' "$(field status) $(field files_changed_incomplete)"
for name in fifo socket; do
    call GET "/v1/sandboxes/$SB/files/$name"
    expect "[6] reading a $name" 404 file_not_found
    call PUT "/v1/sandboxes/$SB/files/$name" -d x
    expect "[6] writing over a $name" 200
done
call GET "/v1/sandboxes/$SB/files/locked/in/f"
same '[8] a file of mode 000 in folders of mode 000' '200 x' "$status $body"
call GET "/v1/sandboxes/$SB/files/loop/suid"
expect '[4] a path through a symlink' 404 file_not_found
call GET "/v1/sandboxes/$SB/files/%ff%fe"
same '[17] a name that is not UTF-8' '200 1' "$status $body"
call GET "/v1/sandboxes/$SB/files"
check '[17] the list is JSON whatever the names' jq -e '.items|length > 10' "$TMP/body" >/dev/null
check '[17] and holds no control character as it is' not grep -q $'\x1b' "$TMP/body"

# [8] Ten thousand folders in each other
run '{"code":"import os\nfor i in range(10000):\n os.mkdir(\"d\")\n os.chdir(\"d\")","limits":{"wall_ms":30000}}'
same '[8] 10,000 deep' succeeded "$(field status)"
call DELETE "/v1/sandboxes/$SB/files/d?recursive=true"
expect '[8] and removed' 204
check '[8] from the disk too' not test -e "$DATA/workspaces/$SB/d"
call DELETE "/v1/sandboxes/$SB"
expect 'the sandbox goes' 204
check 'with all of its folders' not test -e "$DATA/workspaces/$SB" -o -e "$DATA/cache/$SB" -o -e "$DATA/staging/$SB"
finish
