#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: everything that works on a project shares its watcher: ten commands at once, runs of every kind
# through it (Ctrl-C, exit codes, --json, -d, output that nobody reads), two watchers that start at the same
# time, a watcher that was killed. silt status tells how quick it was.
. "$(dirname "$0")/lib.sh"

start_server
new_project shared
echo 'print("one")' >main.py
start_silt "$TMP/a.out" "$TMP/a.err" watch
first=$SILT_PID
wait_until 30 grep -qs watching "$TMP/a.out"

pids=''
for i in $(seq 10); do
    case $((i % 3)) in
    0) silt run -- echo "many $i" >"$TMP/many$i.out" 2>"$TMP/many$i.err" & ;;
    1) silt sync --json >"$TMP/many$i.out" 2>"$TMP/many$i.err" & ;;
    2) silt flush >"$TMP/many$i.out" 2>"$TMP/many$i.err" & ;;
    esac
    pids="$pids $!"
done
bad=0
for pid in $pids; do wait "$pid" || bad=$((bad + 1)); done
same "ten commands at once all succeed" 0 "$bad"
same "a run among them" "many 9" "$(cat "$TMP/many9.out")"
try silt status --json
same "one process watches" "$first" "$(json - watcher.pid <<<"$out")"
same "one set of watches" 1 "$(json - watcher.watched_directories <<<"$out")"

# ---- runs through it
libraries() { # of the command that runs it, while it waits
    start_silt "$TMP/lib.out" "$TMP/lib.err" run -- sh -c 'echo up; sleep 30'
    wait_until 20 grep -qs up "$TMP/lib.out"
    grep -c "$1" "/proc/$SILT_PID/maps"
}
libraries libcurl >"$TMP/count"
same "a command beside a watcher needs no HTTP client" 0 "$(cat "$TMP/count")"
end_silt INT
same "Ctrl-C: 130" 130 "$code"
none_runs() { [ "$(rest GET "/v1/runs?sandbox=$(sandbox)&status=running" | json - 'items | length')" = 0 ]; }
check "and the program has ended" wait_until 20 none_runs
start_silt "$TMP/killed.out" "$TMP/killed.err" run -- sh -c 'echo up; sleep 30'
wait_until 20 grep -qs up "$TMP/killed.out"
end_silt KILL 2>/dev/null
check "a run whose command was killed ends" wait_until 20 none_runs
try silt run -- sh -c 'echo out; echo err >&2; exit 7'
same "the exit code" 7 "$code"
same "standard output" out "$out"
same "standard error" err "$err"
try silt run --json -- sh -c 'echo hi; exit 4'
same "--json" $'4\nhi' "$code"$'\n'"$(json - stdout <<<"$out")"
try silt run -d -- true
contains "-d" run_ "$out"
same "bytes that are no text" "$(printf '\377\000\376' | od -An -tx1)" "$(silt run -- printf '\377\000\376' | od -An -tx1)"
try silt run nowhere.py
same "a file that is not there" 127 "$code"
# Two commands: one reads nothing of a lot of output, the other is not kept waiting.
mkfifo "$TMP/unread"
silt run -- sh -c 'yes 0123456789abcdef | head -c 6000000' >"$TMP/unread" 2>"$TMP/unread.err" &
slow=$!
OWN_PIDS="$OWN_PIDS $slow"
exec 8<"$TMP/unread"
same "beside one that is not read another runs" quick "$(silt run -- echo quick)"
same "and what was not read is all there" 6000000 "$(wc -c <&8)"
exec 8<&-
wait "$slow"
OWN_PIDS=${OWN_PIDS/ $slow/}

# ---- status
echo 'print("two")' >main.py
silt run main.py >/dev/null
try silt status --json
check "status --json knows the times of saves" test "$(json - '.watcher.times.saves | .count > 0 and .p50_ms > 0 and .p99_ms >= .p50_ms' <<<"$out")" = true
check "and of runs" test "$(json - '.watcher.times | .first_outputs.count > 0 and .results.count > 0 and .first_outputs.p50_ms <= .results.p99_ms' <<<"$out")" = true
try silt status
contains "for people: saves" "saves      last" "$out"
contains "runs" "runs       last" "$out"
contains "watches in use" "watches    1 of" "$out"
echo '*.log' >.gitignore && touch a.log b.log .env
silt sync >/dev/null
try silt status
contains "what is left out, and why" "ignored    " "$out"
contains "by rule" "2 by git's rules" "$out"

# ---- the ends
try silt watch
same "a second watcher is refused" 1 "$code"
contains "with a sentence" "watched already" "$err"
kill -KILL "$first" && await_silt 2>/dev/null
check "a killed watcher leaves its socket" test -S .silt/control
start_silt "$TMP/b.out" "$TMP/b.err" watch
b=$SILT_PID
start_silt "$TMP/c.out" "$TMP/c.err" watch
c=$SILT_PID
either() { grep -qs watching "$TMP/b.out" "$TMP/c.out" && grep -qs 'watched already' "$TMP/b.err" "$TMP/c.err"; }
check "of two that start at once one watches, the other says so" wait_until 30 either
same "through it a run goes" two "$(silt run main.py)"
# Read while its stamp was young, so that a scan looks again; but nothing about it changed.
echo 'print("sent as it was saved")' >young.py
silt flush >/dev/null
try silt stop
same "silt stop ends it" 0 "$code"
both() { ended "$b" && ended "$c"; }
check "really" wait_until 20 both
wait "$b" "$c" 2>/dev/null
OWN_PIDS=${OWN_PIDS/ $b/} OWN_PIDS=${OWN_PIDS/ $c/}
check "its socket is gone" not test -e .silt/control
same "nothing is pending after it" 0 "$(silt status --json | json - pending)"
echo 'print("else")' >young.py
same "and then one change is" 1 "$(silt status --json | json - pending)"
finish
