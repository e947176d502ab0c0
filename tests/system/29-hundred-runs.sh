#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: a hundred runs (good ones, failing, killed, timed out, cancelled, in parallel), and then nothing is
# left of them: no container, no process, no mount, no temporary file, no cgroup, no descriptor.
. "$(dirname "$0")/lib.sh"

start_server
new_project many
cat >work.py <<'PY'
import os, subprocess, sys, tempfile, time
what = sys.argv[1]
open(tempfile.mkstemp()[1], "w").write("x" * 100000)
open("/dev/shm/x", "w").write("y" * 1000)
if what == "orphan":
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
if what == "kill":
    os.kill(os.getpid(), 9)
if what == "slow":
    time.sleep(1000)
print(what)
sys.exit(3 if what == "fail" else 0)
PY
silt run work.py warm >/dev/null 2>&1

# What the server holds: descriptors, threads, containers, bundles.
bundles() {
    local fd
    for fd in "/proc/$SERVER_PID"/fd/*; do
        case $(readlink "$fd") in mnt:*) nsenter --mount="$fd" sh -c 'find / -xdev -maxdepth 6 -path "*/bundles/*" -prune -print' 2>/dev/null ;; esac
    done | sort -u
}
held() {
    sleep 0.5 # the container that waits for the next run is made behind the answer
    echo "$(ls "/proc/$SERVER_PID/fd" | wc -l) $(ls "/proc/$SERVER_PID/task" | wc -l) $(containers | wc -l)"
}
# The server's worker threads are started when they are first needed, and stay: have them all before
# counting, by more requests at a time than come later.
for i in $(seq 40); do
    silt run --no-sync -- sleep 0.2 >/dev/null 2>&1 &
    OWN_PIDS="$OWN_PIDS $!"
    pids[i]=$!
done
for i in $(seq 40); do wait "${pids[i]}"; done
silt run work.py good >/dev/null 2>&1
read -r fds_before tasks_before containers_before <<<"$(held)"

bad=0
expect() {
    local wanted=$1 got
    shift
    silt "$@" >/dev/null 2>&1 </dev/null
    got=$?
    [ "$got" -eq "$wanted" ] || { bad=$((bad + 1)); say "silt $*: expected $wanted, got $got"; }
}
for _ in $(seq 15); do
    expect 0 run work.py good
    expect 3 run work.py fail
    expect 137 run work.py kill
    expect 0 run work.py orphan
done
for _ in $(seq 5); do expect 124 run --timeout 300ms work.py slow; done
same "65 runs of five kinds end as they should" 0 "$bad"

# In parallel, more than the server runs at a time.
for i in $(seq 20); do
    silt run --no-sync -- sh -c "echo $i" >"$TMP/par$i.out" 2>"$TMP/par$i.err" &
    OWN_PIDS="$OWN_PIDS $!"
    pids[i]=$!
done
bad=0
for i in $(seq 20); do
    wait "${pids[i]}" || bad=$((bad + 1))
    [ "$(cat "$TMP/par$i.out")" = "$i" ] || bad=$((bad + 1))
    OWN_PIDS=${OWN_PIDS/ ${pids[i]}/}
done
same "20 runs at once" 0 "$bad"
bad=0
for i in $(seq 13); do
    run=$(silt run -d --no-sync work.py slow)
    silt kill "$run" >/dev/null || bad=$((bad + 1))
done
same "13 runs that are killed" 0 "$bad"
counted() { rest GET "/v1/runs?sandbox=$(sandbox)&limit=1000" | json - "items | length"; }
same "140 runs are on record" 140 "$(counted)"
none_runs() { [ "$(rest GET "/v1/runs?sandbox=$(sandbox)&status=running" | json - 'items | length')" = 0 ]; }
check "none is running" wait_until 10 none_runs

few() { [ "$(containers | wc -l)" -le "${containers_before:-0}" ]; }
check "no container but the one that waits (before: $containers_before)" wait_until 10 few
calm() {
    read -r fds tasks _ <<<"$(held)"
    [ "$fds" -le $((fds_before + 8)) ] && [ "$tasks" -le $((tasks_before + 4)) ]
}
check "no descriptors and threads are left (before: $fds_before, $tasks_before)" wait_until 20 calm
below "no more bundles than containers" "$(containers | wc -l)" "$(bundles | wc -l)"
same "no orphan of a program" '' "$(pgrep -f 'sleep 1000' -P 1 | head -n 1)"
none_staged() { [ -z "$(staging_leftovers)" ]; }
check "nothing is staged" wait_until 10 none_staged
same "no cgroup but those of containers" '' "$(server_cgroups | while read -r dir; do
    [ "$(find "$dir" -mindepth 1 -maxdepth 1 -type d | wc -l)" -le "$(containers | wc -l)" ] || echo "$dir"
done)"
same "no file of a run in the server's temporary places" '' "$(find "$SERVER_HOME" /dev/shm/x -mindepth 0 -type f 2>/dev/null)"
same_tree "the workspace holds the project and nothing else"

silt rm --yes >/dev/null
same "a deleted sandbox leaves nothing on disk" '' "$(find "$DATA" -mindepth 2 -name 'sb_*' 2>/dev/null)"
stop_server "after the stop no process, mount, cgroup or staged file is left"
finish
