#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: a workspace that was lost, or whose server lost its numbers, is refilled by the next sync or the
# watcher, also when nothing was changed here; a restored .silt of yesterday loses nothing; a sandbox that
# is gone is said to be gone, with the command that goes on.
. "$(dirname "$0")/lib.sh"

start_server
new_project epochs
mkdir lib
for i in $(seq 30); do echo "$i" >"lib/f$i.txt"; done
silt sync >/dev/null 2>&1
sb=$(sandbox)

# The workspace is lost while the server is down; its database is not.
lose() {
    kill_server
    find "$DATA/workspaces/$sb" -mindepth 1 -delete
    start_server
}
lose
try silt sync --json
same "a sync with nothing to send refills a lost workspace" 0 "$code"
same_tree "all of it"
below "and the next one is one short request" 1000 "$(silt sync --json | json - '.bytes_sent + .bytes_received')"

# Only something of it.
kill_server
rm -r "$DATA/workspaces/$sb/lib/f1.txt"
echo changed >"$DATA/workspaces/$sb/lib/f2.txt"
start_server
try silt sync
same_tree "what differs is mended"

# ---- beside a watcher

start_silt "$TMP/watch.out" "$TMP/watch.err" --json watch
wait_until 20 grep -q '"ready"' "$TMP/watch.out"
lose
try silt sync --json
same "a watcher refills it when asked to sync: 0" 0 "$code"
same_tree "beside a watcher too"
end_silt

# ---- yesterday's .silt

cp -a .silt "$TMP/old.silt"
echo new >lib/new.txt
rm lib/f3.txt
echo edited >lib/f4.txt
silt sync >/dev/null
rm -rf .silt
cp -a "$TMP/old.silt" .silt
rm lib/f5.txt
try silt sync
same "a restored older .silt: 0" 0 "$code"
same_tree "and both sides are the same"

# ---- the sandbox is gone

rest DELETE "/v1/sandboxes/$sb" >/dev/null
try silt sync
same "a deleted sandbox: 1" 1 "$code"
contains "the sentence says how to go on" "silt init" "$err"
check "nothing was deleted here" test -e lib/f6.txt
try silt init
try silt sync
same "a new one is filled" 0 "$code"
same_tree "whole"

# A server that lost everything.
stop_server
rm -rf "$DATA"
start_server
try silt sync
same "a server that knows nothing: 1" 1 "$code"
contains "the same sentence" "silt init" "$err"
finish
