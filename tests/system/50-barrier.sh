#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: over a slow link a save and a run cost one round trip, with a watcher and without one: the run
# leaves beside its change set and waits for it on the server. The same when something else changed the
# workspace meanwhile; a set that is refused is repaired, and what runs is what was saved last. A deadline
# that passes names what is pending. A proxy that delays both ways counts the round trips; nothing here
# asserts a time.
. "$(dirname "$0")/lib.sh"

start_server
direct=$SILT_SERVER
python3 tests/system/slow_proxy.py "$TMP/proxy.address" "$direct" 150 "$TMP/link.log" 2>"$TMP/proxy.err" &
proxy=$!
OWN_PIDS="$OWN_PIDS $proxy"
check "the slow link" wait_until 60 test -s "$TMP/proxy.address"
SILT_SERVER=$(cat "$TMP/proxy.address")

# rounds: how many round trips the link's log tells of since `mark`.
mark() { marked=$(wc -l <"$TMP/link.log"); }
since() { tail -n +$((marked + 1)) "$TMP/link.log"; }
rounds() { since | awk '$1 == "up" && last != "up" { n++ } $1 == "up" || $1 == "down" { last = $1 } END { print n + 0 }'; }
requests() { since | grep -c "^request .*$1"; }
opened() { since | grep -c ^open; }

new_project far
echo 'print("v0")' >main.py
mark
same "the first run" v0 "$(silt run main.py 2>"$TMP/first.err")"
same "a sandbox, its lease, and the set with the run: three round trips" 3 "$(rounds)"

mark
replace main.py 'print("v1")'
same "without a watcher: a save and a run" v1 "$(silt run main.py)"
same "one change set" 1 "$(requests /changes)"
same "one run" 1 "$(requests /exec)"
same "in one round trip" 1 "$(rounds)"

try silt watch -d
same "a watcher" 0 "$code"
silt sync --verify >"$TMP/verify.out" 2>&1 # the comparison of its start is over
# Its second connection: it has none when a set was answered before the run left.
apart() { since | awk '/^request .*\/changes/ { set = $2 } /^request .*\/exec/ { run = $2 } END { exit !(set && run && set != run) }'; }
for i in 1 2 3 4 5 6 7 8; do
    mark
    replace main.py "print('v2 $i')"
    silt run main.py >>"$TMP/warm.out" 2>&1
    apart && break
done
check "which has two connections" apart
mark
replace main.py 'print("v3")'
same "with a watcher: a save and a run" v3 "$(silt run main.py)"
same "one change set of the watcher" 1 "$(requests /changes)"
same "one run of the watcher" 1 "$(requests /exec)"
same "in one round trip of the watcher" 1 "$(rounds)"
same "over connections that were open" 0 "$(opened)"

# Several sets that are under way keep their order.
mark
for i in 1 2 3 4 5; do
    echo "print('in order $i')" >main.py
    echo "$i" >"other$i"
    sleep 0.05
done
echo 'print("last")' >main.py
same "sets under way keep their order: the run sees the last" last "$(silt run main.py)"
check "several were sent" test "$(requests /changes)" -ge 2

# Somebody writes all the time, so that something is always on its way: it is told all the same.
told() { grep -c ' ~' .silt/watch.log; }
is_told() { [ "$(told)" -ge "$1" ]; }
silt sync >/dev/null
before=$(told)
python3 -c '
import os, sys, time
n, end = 0, time.monotonic() + 60
while time.monotonic() < end and not os.path.exists(sys.argv[1]):
    n += 1
    with open("never.txt", "w") as f:
        f.write(f"{n}\n")
    time.sleep(0.005)' "$TMP/enough" &
writer=$!
OWN_PIDS="$OWN_PIDS $writer"
check "one that never stops is told of while it goes on" wait_until 20 is_told $((before + 4))
touch "$TMP/enough"
wait "$writer"
OWN_PIDS=${OWN_PIDS/ $writer/}
rm never.txt
silt sync >/dev/null

# Another run that changes files ends in between.
sb=$(sandbox)
start_silt "$TMP/long.out" "$TMP/long.err" run -- sh -c 'echo started; sleep 1; echo made >made.txt; echo print\(8\) >byrun.py'
wait_until 20 grep -qs started "$TMP/long.out"
echo 'print("beside a run")' >main.py
same "a save and a run beside a run that writes" "beside a run" "$(silt run main.py)"
await_silt
same "that run ended well" 0 "$code"
mark
replace main.py 'print("after it")'
same "and after it" "after it" "$(silt run main.py)"
same "in one round trip too" 1 "$(rounds)"

# A second writer changed the same file: the set is refused, the run fails at once on the server and is
# repeated when the set was repaired. The local version wins.
curl -sS -X PUT "http://$direct/v1/sandboxes/$sb/files/main.py" --data-binary 'print("theirs")' >/dev/null
echo 'print("mine")' >main.py
same "a second writer: the local version runs" mine "$(silt run main.py 2>"$TMP/second.err")"
curl -sS -X PUT "http://$direct/v1/sandboxes/$sb/files/main.py" --data-binary 'print("theirs")' >/dev/null
silt stop >/dev/null
echo 'print("mine alone")' >main.py
same "the same without a watcher" "mine alone" "$(silt run main.py 2>"$TMP/alone.err")"

# A deadline that passes is a typed error and names what is pending: the server takes the connection and
# says nothing.
rm -f other* byrun.py made.txt
silt sync --timeout 30s >/dev/null 2>&1
kill -STOP "$SERVER_PID"
echo 'print("unsent")' >pending.py
try silt --json sync --timeout 1s
same "without a watcher: a typed error" timeout "$(json - error.code <<<"$err")"
contains "that names what is pending" pending.py "$err"
# Who sits at a terminal is told before that.
client_environment
python3 -c '
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
said = b""
try:
    while b"has not answered" not in said and (piece := os.read(fd, 4096)):
        said += piece
except OSError:
    pass
os.kill(pid, 9)
print(said.decode())' "${CLIENT[@]}" "$SILT" sync --timeout 60s >"$TMP/said" 2>&1
contains "at a terminal: that the server has not answered" "$SILT_SERVER has not answered for 3 s" "$(cat "$TMP/said")"
kill -CONT "$SERVER_PID"
silt sync --timeout 30s >/dev/null
# A watcher that begins meanwhile watches: what it asks the server keeps it from nothing.
kill -STOP "$SERVER_PID"
try silt watch -d
same "a watcher begins while the server says nothing" 0 "$code"
echo 'print("unsent too")' >pending.py
try silt --json sync --timeout 1s
same "with a watcher: a typed error" timeout "$(json - error.code <<<"$err")"
contains "that names what is pending, too" pending.py "$err"
try silt flush
same "a flush only waits until it is on its way" 0 "$code"
contains "and names what is not acknowledged" pending.py "$out"
kill -CONT "$SERVER_PID"
try silt sync --timeout 30s
same "when the server answers again everything goes through" 0 "$code"
silt stop >/dev/null
finish
