#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: what befalls a project's folder as a whole, and its clock: it is moved away and back, replaced,
# mounted over and unmounted; stamps go backwards or into the future; the watcher sleeps meanwhile.
# Nothing of it empties the workspace, and afterwards both sides hold the same.
. "$(dirname "$0")/lib.sh"

if [ "$(id -u)" -ne 0 ]; then
    echo "ok - only root can mount over a folder"
    exit 0
fi
# In a mount namespace of its own nothing is left, whatever happens.
cd - >/dev/null || exit 1
[ -n "${ROOTS_PRIVATE:-}" ] || { rm -rf "$TMP"; trap - EXIT; ROOTS_PRIVATE=1 exec unshare --mount --propagation private bash "tests/system/${0##*/}"; }

start_server
new_project shop
for i in 1 2 3 4 5 6; do mkdir -p "d$i" && echo "print($i)" >"d$i/f.py"; done
silt sync >/dev/null
WS=$(workspace) ALL=$(find . -path ./.silt -prune -o -type f -print | wc -l)
held() { [ "$(find "$WS" -type f | wc -l)" -eq "$ALL" ]; }
is_said() { grep -q "\"$1\"" "$TMP/watch.out"; }
status() { silt status --json; }

start_silt "$TMP/watch.out" "$TMP/watch.err" --json watch
check "it watches" wait_until 20 is_said ready

# ---- the folder

cd "$TMP" && mv shop elsewhere
check "moved away: the watcher ends" wait_until 20 ended "$SILT_PID"
await_silt
contains "and says why" "was moved or deleted: the watcher ends" "$(cat "$TMP/watch.err")"
check "the workspace stays" held
mkdir shop && cp -a elsewhere/.silt shop/ && echo 'print("a stranger")' >shop/stranger.py
(cd shop && silt sync) >/dev/null 2>"$TMP/stranger.err"
check "another one in its place: the workspace stays" held
check "and gets nothing of it" not test -e "$WS/stranger.py"
contains "for it is no longer the folder that was linked" "is a copy of a linked folder" "$(cat "$TMP/stranger.err")"
rm -r shop && mv elsewhere shop && cd shop
echo 'print("after it came back")' >d1/f.py
try silt flush
same "moved back: it goes on" 0 "$code"
same_tree "and both sides hold the same"

start_silt "$TMP/watch.out" "$TMP/watch.err" --json watch
check "it is watched" wait_until 20 is_said ready
exec 9<"$TMP/shop"
mount -t tmpfs silt-test "$TMP/shop"
echo 'print("a stranger")' >"$TMP/shop/stranger.py"
echo 'print("beneath the mount")' >/proc/self/fd/9/d1/f.py
check "mounted over: the watcher ends" wait_until 20 ended "$SILT_PID"
await_silt
contains "and says why" "was moved or replaced" "$(cat "$TMP/watch.err")"
check "the workspace stays" held
check "and gets nothing of either" not grep -rqE 'stranger|beneath' "$WS"
exec 9<&-
umount -l "$TMP/shop"
cd "$TMP/shop" || exit 1
echo 'print("after the mount")' >d2/f.py
try silt flush
same "unmounted: it goes on" 0 "$code"
same_tree "and both sides hold the same again"
mount -t tmpfs silt-test "$TMP/shop" && mkdir "$TMP/shop/.silt"
(cd "$TMP/shop" && silt sync >/dev/null 2>&1)
check "a sync in an empty mount deletes nothing" held
umount -l "$TMP/shop"
cd "$TMP/shop" || exit 1

# ---- the clock

: >"$TMP/watch.out"
start_silt "$TMP/watch.out" "$TMP/watch.err" --json watch
check "it watches again" wait_until 20 is_said ready
echo 'print("past!!")' >d3/f.py && touch -d '2001-01-01' d3/f.py
echo 'print("future")' >d4/f.py && touch -d '2101-01-01' d4/f.py
silt flush >/dev/null
same_tree "stamps from the past and the future"
echo 'print("again!")' >d3/f.py && touch -d '2001-01-01' d3/f.py
echo 'print("as old")' >d4/f.py && touch -d '2101-01-01' d4/f.py
silt flush >/dev/null
same_tree "and again, of the same size with the same stamp"
end_silt
echo 'print("third!")' >d3/f.py && touch -d '2001-01-01' d3/f.py
silt sync >/dev/null
same_tree "without a watcher, too"

# ---- sleep

: >"$TMP/watch.out"
start_silt "$TMP/watch.out" "$TMP/watch.err" --json watch
check "it watches once more" wait_until 20 is_said ready
kill -STOP "$SILT_PID"
for i in 1 2 3 4 5 6; do echo "print('asleep $i')" >"d$i/f.py"; done
mkdir -p new/deep && echo 'print("new")' >new/deep/f.py && rm -r d6 && mv d5 d7
sleep 2
kill -CONT "$SILT_PID"
try silt flush
same "after sleep: what happened meanwhile is sent" 0 "$code"
same_tree "and both sides hold the same after it"
end_silt
stop_server
finish
