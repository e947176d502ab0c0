#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: somebody fills the server's disk to the last byte. What needs no space is answered: lists, reads,
# deletions, runs; a change that finds no room says so; and once there is room everything goes on by
# itself, with no change and no record lost.
if [ "$(id -u)" -ne 0 ]; then
    echo "ok - skipped: only root can mount a small disk"
    exit 0
fi
# In a mount namespace of its own nothing is left, whatever happens.
[ -n "${FULL_DISK_PRIVATE:-}" ] || FULL_DISK_PRIVATE=1 exec unshare --mount --propagation private bash "$0"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"

mkdir "$TMP/disk"
mount -t tmpfs -o mode=755,size=64m silt-test "$TMP/disk"
DATA=$TMP/disk/data
mkdir "$DATA"
start_server --min-free 0
new_project full
echo 'print("before")' >main.py
try silt run main.py
same "before" before "$out"
try silt watch -d
OWN_PIDS="$OWN_PIDS $(silt status --json | json - watcher.pid)"
SB=$(sandbox)
for i in $(seq 12); do put "made-$i" "$i"; done

cannot_write() { ! cp main.py "$TMP/disk/more" 2>/dev/null; }
cat /dev/zero >"$TMP/disk/ballast" 2>/dev/null
check "the disk is full" cannot_write

# ---- what needs no room

call GET "/v1/sandboxes/$SB/files"
expect "the list of files" 200
call GET "/v1/sandboxes/$SB/files/main.py"
expect "a file" 200
refused=0
for i in $(seq 12); do
    call DELETE "/v1/sandboxes/$SB/files/made-$i"
    [ "$status" = 204 ] || [ "$status" = 200 ] || refused=$((refused + 1))
done
same "every deletion" 0 "$refused"
run '{"command":["cat","main.py"]}'
expect "a run" 200
same "sees the workspace" 'print("before")' "$(field stdout)"
first=$(field id)
call GET "/v1/runs/$first"
expect "its record" 200
cat /dev/zero >>"$TMP/disk/ballast" 2>/dev/null # what the deletions gave back
run '{"command":"head -c 600000 /dev/zero | tr \"\\\\0\" x"}'
expect "a run with much output" 200
same "gives all of it" 600000 "$(field stdout_bytes)"
second=$(field id)
try silt run --no-sync main.py
same "silt run --no-sync" before "$out"

# ---- what needs some

# Sets are on their way when these begin: the run learns of the refusal, and does not wait for room.
head -c 20000 /dev/urandom >blob
silt flush >/dev/null 2>&1
bounded() { local CLIENT; client_environment; timeout 40 "${CLIENT[@]}" "$SILT" "$@"; }
try bounded run main.py
check "silt run ends while sets are refused" test "$code" -ne 124
echo "print('after' * 3000)" | tee main.py >/dev/null
head -c 100000 /dev/urandom >blob
told() { silt status | grep -qi space; }
check "silt status says that there is no space" wait_until 20 told
try silt run main.py
check "silt run fails" test "$code" -ne 0
contains "and says why" space "$err"
try silt sync --timeout 2s
check "as does silt sync" test "$code" -ne 0

rm "$TMP/disk/ballast" "$TMP/disk/more"
arrived() { cmp -s main.py "$(workspace)/main.py" && cmp -s blob "$(workspace)/blob"; }
check "with room again the changes arrive by themselves" wait_until 30 arrived
try silt run main.py
same "and a run sees them" "$(python3 main.py)" "$out"
same_tree "the workspace is the project"
silt stop >/dev/null
kept() { rest GET "/v1/runs/$1" | json - status; }
output() { rest GET "/v1/runs/$1/stdout" | wc -c; }
stop_server
start_server --min-free 0
same "the records of the runs outlive a restart" "succeeded succeeded" "$(kept "$first") $(kept "$second")"
same "with their output" 16 "$(output "$first")"
same "or with the word that it was cut" true "$(rest GET "/v1/runs/$second" | json - stdout_truncated)"
stop_server
umount -l "$TMP/disk"
finish
