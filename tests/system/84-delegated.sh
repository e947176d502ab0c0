#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: an ordinary user to whom a cgroup was given (Delegate=yes of systemd, or chown) gets limits per
# container as root does, and nothing is left of them when the server was killed; one who has none gets
# the softer limits, and is told so and how to mend it. Needs the guest of scripts/test-guest.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
if [ -z "${GUEST_OWN:-}" ]; then
    ok 'skipped: only in the guest, as delegated'
    finish
fi
WALL=120000
start_server --cpus 1
new_sandbox '{"language":"python"}'
engine() { rest GET /v1/info | json - ".engine$1"; }
program() { # LIMITS, the program on standard input
    run "$(jq -n --arg code "$(cat)" --argjson limits "$1" '{code: $code, limits: $limits}')"
}
hit() { field 'limits_hit|join(" ")'; }

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
