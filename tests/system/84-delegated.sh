#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: an ordinary user to whom a cgroup was given (Delegate=yes of systemd, or chown) gets limits per
# container as root does, and nothing is left of them when the server was killed; one who has none gets
# the softer limits, and is told so and how to mend it. So does root in a container of its own, whose
# cgroup looks like the root of all. Needs the guest of scripts/test-guest.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
WALL=120000
engine() { rest GET /v1/info | json - ".engine$1"; }
program() { # LIMITS, the program on standard input
    run "$(jq -n --arg code "$(cat)" --argjson limits "$1" '{code: $code, limits: $limits}')"
}
hit() { field 'limits_hit|join(" ")'; }

if [ "${GUEST:-}" = v2 ] && [ "$(id -u)" -eq 0 ]; then
    OWN_CGROUP=/sys/fs/cgroup/container-$$
    beside=''
    in_own_cgroup() { # COMMAND…, as the first process of a container
        mkdir -p "$OWN_CGROUP"
        echo "$BASHPID" >"$OWN_CGROUP/cgroup.procs"
        exec unshare -Cm sh -c 'umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup || exit; '"$beside"' exec "$@"' - "$@"
    }
    # All there are, as under Docker: the runtime turns on more of them than siltd asks for.
    sed 's/\<[a-z]/+&/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
    start_server
    new_sandbox '{"language":"python"}'
    same 'root in a container: limits by cgroup' 'true v2 true true null' "$(engine '|"\(.root) \(.cgroups) \(.limits_memory) \(.limits_pids) \(.note)"')"
    program "{\"memory_bytes\":50331648,\"wall_ms\":$WALL}" <<<'x = []
while True: x.append(bytearray(1 << 20))'
    same 'memory' 'memory SIGKILL container' "$(hit) $(field signal) $(field limits.memory)"
    run "{\"command\":\"while :; do sleep 600 & done\",\"limits\":{\"pids\":24,\"wall_ms\":$WALL}}"
    same 'a bomb of processes' 'pids failed' "$(hit) $(field status)"
    stop_server 'a stopped server leaves the cgroup as it was'
    beside='sleep 600 &'
    start_server
    contains 'beside others: the reason' 'other processes live in its cgroup: limits hold per process' "$(engine .note)"
    run '{"command":"echo fine"}'
    same 'it runs all the same' 'fine process' "$(field stdout) $(field limits.memory)"
    while read -r pid; do kill "$pid"; done < <(grep -vx "$SERVER_PID" "$OWN_CGROUP/cgroup.procs")
    finish
fi
if [ -z "${GUEST_OWN:-}" ]; then
    ok 'skipped: only in the guest, as delegated'
    finish
fi
start_server --cpus 1
new_sandbox '{"language":"python"}'
same 'not root, and limits by cgroup' 'false v2 true true' "$(engine '|"\(.root) \(.cgroups) \(.limits_memory) \(.limits_pids)"')"
contains 'the server says where' "in the cgroup ${OWN_CGROUP#/sys/fs/cgroup}" "$(engine .note)"
same 'it lives in a leaf of its own' "0::${OWN_CGROUP#/sys/fs/cgroup}/silt-server" "$(cat "/proc/$SERVER_PID/cgroup")"
program "{\"memory_bytes\":50331648,\"wall_ms\":$WALL}" <<<'import os
for i in range(40):
    if os.fork() == 0:
        x = bytearray(2 << 20)
        import time; time.sleep(600)
os.wait()
print("one was killed")'
same 'memory of many processes together' 'memory container' "$(hit) $(field limits.memory)"
program "{\"memory_bytes\":50331648,\"wall_ms\":$WALL}" <<<'x = []
while True: x.append(bytearray(1 << 20))'
same 'memory of one' 'memory SIGKILL true' "$(hit) $(field signal) $(field oom_killed)"
run "{\"command\":\"while :; do sleep 600 & done\",\"limits\":{\"pids\":24,\"wall_ms\":$WALL}}"
same 'a bomb of processes' 'pids failed' "$(hit) $(field status)"
program "{\"cpu_ms\":1000,\"wall_ms\":$WALL}" <<<'import os
for i in range(3): os.fork()
while True: pass'
same 'CPU of many processes together' cpu "$(hit)"
# Two processes on two CPUs, whatever they were pinned to: one CPU's time.
program "{\"wall_ms\":$WALL}" <<<'import os, time
end = time.monotonic() + 4
os.sched_setaffinity(0, {0 if os.fork() else 1})
while time.monotonic() < end: pass
print(len(os.sched_getaffinity(0)))'
check 'as much time as one CPU has' test "$(field '. | .cpu_ms < 1.3 * .wall_ms and (.stdout | startswith("1"))')" = true
run '{"command":"find / -maxdepth 4 -name \"cgroup.*\" 2>/dev/null; ls /sys/fs; echo seen"}'
same 'a program sees no cgroup' seen "$(field stdout)"
check 'the peak is what a small program takes' test "$(field memory_peak_bytes)" -gt 100000 -a "$(field memory_peak_bytes)" -lt 64000000

# Killed in the middle of a run, with a process that nobody ends in a cgroup of its own.
run '{"command":"sleep 600","detach":true}'
parent=$(server_cgroups)
check 'containers have a cgroup each' test "$(find "$parent" -mindepth 1 -type d | wc -l)" -gt 0
mkdir "$parent/left"
sleep 600 &
left=$!
disown
echo "$left" >"$parent/left/cgroup.procs"
kill_server
start_server
same 'after a kill the next server has the same cgroup' "0::${OWN_CGROUP#/sys/fs/cgroup}/silt-server" "$(cat "/proc/$SERVER_PID/cgroup")"
check 'what was left is killed' wait_until 30 ended "$left"
check 'and its cgroup is gone' test ! -d "$parent/left"
run '{"command":"echo fine"}'
same 'and the next run is fine' 'fine succeeded' "$(field stdout) $(field status)"
stop_server 'a stopped server leaves the cgroup as it was'

# The same server among other processes.
alone=$OWN_CGROUP OWN_CGROUP=''
start_server
same 'in a cgroup with others: no limits by cgroup' 'none false' "$(engine '|"\(.cgroups) \(.limits_memory)"')"
contains 'the reason' 'other processes live in its cgroup' "$(engine .note)"
contains 'and the command' 'systemd-run --user --scope -p Delegate=yes siltd' "$(engine .note)"
run '{"command":"true"}'
same 'the run says it, too' process "$(field limits.memory)"
(OWN_CGROUP=$alone; in_own_cgroup "$SILTD" doctor --data-dir "$TMP/other" --listen 127.0.0.1:0) >"$TMP/doctor.out" 2>&1
contains 'alone the doctor is content' 'v2, given to this user' "$(grep '^ok *cgroups ' "$TMP/doctor.out")"
contains 'and a container works' 'ok    container' "$(cat "$TMP/doctor.out")"
check 'it leaves nothing behind' rmdir "$alone"
finish
