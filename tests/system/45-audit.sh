#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: both sides can be proved to be the same. `silt sync --verify` reads every file again and asks the
# server for a hash of its tree; what got lost on either side is found and set right, with a watcher and
# without one, and what runs made or changed is no difference.
. "$(dirname "$0")/lib.sh"

start_server
new_project audit
mkdir -p src/deep empty
for i in $(seq 40); do echo "V = $i" >"src/m$i.py"; done
echo 'print("hello")' >main.py
ln -s main.py link
chmod 755 main.py
silt sync >/dev/null 2>&1
there=$(workspace) id=$(sandbox)
verified() { json - '"\(.verified.repaired) \(.verified.by_runs)"' <<<"$out"; }

try silt sync --verify
same "silt sync --verify succeeds" 0 "$code"
contains "and says so in words" "both sides hold the same 46 entries" "$out"
try silt sync --verify --json
same "and in JSON" "46 0 0" "$(json - '"\(.verified.entries) \(.verified.repaired) \(.verified.by_runs)"' <<<"$out")"

# lose WHAT: the workspace loses and changes files by other ways than a run or this project.
lose() {
    rest DELETE "/v1/sandboxes/$id/files/src/m7.py" >/dev/null
    rest PUT "/v1/sandboxes/$id/files/src/m8.py" --data-binary "V = 'lost'" >/dev/null
    rest POST "/v1/sandboxes/$id/changes" -H 'Content-Type: application/json' \
        -d '{"ops":[{"op":"chmod","path":"main.py","mode":"0644"},{"op":"delete","path":"empty"}]}' >/dev/null
}
# blind_edits FILE: for each line on standard input a store through one mapping, which makes no event. The
# first gives the file a new time, the others do not: nothing but reading it tells.
blind_edits() {
    python3 -c "
import mmap, os, sys
m = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 0)
m[0:1] = m[0:1]
for line in sys.stdin:
    m[0:1] = line[0:1].encode()
    print('stored', flush=True)" "$1"
}

try silt run -- sh -c 'echo out >result.txt; mkdir made; echo x >made/x; echo "V = 0" >src/m9.py'
try silt sync --verify --json
same "files that a run made are no difference, one that it changed is named" "0 1" "$(verified)"
check "and left alone" grep -q 'V = 0' "$there/src/m9.py"
try silt sync --verify
contains "also in words" "1 entries were changed by runs" "$out"
lose
silt sync >/dev/null
check "a sync without it finds nothing: nothing changed here" not test -e "$there/src/m7.py"
try silt sync --verify --json
same "what was lost there is found" "4 1" "$(verified)"
same "and set right" "V = 7 V = 8 755 dir" \
    "$(cat "$there/src/m7.py") $(cat "$there/src/m8.py") $(stat -c %a "$there/main.py") $([ -d "$there/empty" ] && echo dir)"
same "a version that is given up is counted as a conflict" 1 "$(json - conflicts <<<"$out")"
try silt sync --verify --json
same "once" "0 1" "$(verified)"
check "what the run made is still there" test -e "$there/made/x" -a -e "$there/result.txt"

# ---- with a watcher

start_silt "$TMP/watch.out" "$TMP/watch.err" --json watch
wait_until 20 grep -qs '"event":"ready"' "$TMP/watch.out"
try silt sync --verify --json
same "a watcher verifies" "0 1" "$(verified)"
lose
try silt sync --verify --json
same "and finds what was lost" "4 1" "$(verified)"
same "and sets it right before it answers" "V = 7 V = 8 755 dir" \
    "$(cat "$there/src/m7.py") $(cat "$there/src/m8.py") $(stat -c %a "$there/main.py") $([ -d "$there/empty" ] && echo dir)"
contains "it says so" "an audit found 4 paths" "$(cat "$TMP/watch.out")"
echo 'V = 123' >src/m9.py
silt sync >/dev/null
try silt sync --verify --json
same "a file that was sent again since is no longer the run's" "0 0" "$(verified)"
coproc BLIND { blind_edits src/m5.py; }
echo U >&"${BLIND[1]}" && read -r _ <&"${BLIND[0]}"
sleep 0.1 # the time stamp must be older than the look at it
try silt sync --verify --json
same "a store through a mapping, of which no event tells, is found" "U = 5" "$(cat "$there/src/m5.py")"
times=$(stat -c '%y %z %s' src/m5.py)
echo W >&"${BLIND[1]}" && read -r _ <&"${BLIND[0]}"
if [ "$times" = "$(stat -c '%y %z %s' src/m5.py)" ]; then
    silt sync >/dev/null
    same "one that leaves size and times as they were is nothing to look at" "U = 5" "$(cat "$there/src/m5.py")"
    try silt sync --verify --json
    same "but --verify reads it" "W = 5" "$(cat "$there/src/m5.py")"
fi
exec {BLIND[1]}>&-
silt sync --verify >/dev/null
kill_server
try silt sync --verify --timeout 2s
check "without a server nothing is proved" test "$code" -ne 0
start_server
try silt sync --verify --json --timeout 60s
same "a server that was killed is asked again when it is back" "0 0" "$(verified)"
end_silt
finish
