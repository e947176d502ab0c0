#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: programs that take all they can get, each of one thing, end at that limit while the server and a
# neighbour go on: memory also behind tmpfs and without swap, processes, threads, CPU, open files,
# inodes of /tmp, sparse files. Runs the same on cgroups of version 1 and, in a guest, of version 2.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
start_server --tmp-size 64M --open-files 64
new_sandbox '{"language":"python"}'
limited() { rest GET /v1/info | jq -e ".engine.$1" >/dev/null; }
program() { # LIMITS, the program on standard input
    run "$(jq -n --arg code "$(cat)" --argjson limits "$1" '{code: $code, limits: $limits}')"
}
hit() { field 'limits_hit|join(" ")'; }
WALL=120000 BOMB=${GUEST:+1}3000 # an emulated processor is slow

layout=${GUEST:-}
[ "$layout" != hybrid ] || layout=v1 # crun takes nothing else there
[ "$(id -u)" -eq 0 ] || [ -n "${GUEST_OWN:-}" ] || layout=none
if [ -n "${GUEST:-}" ]; then same 'the layout that was asked for' "$layout" "$(rest GET /v1/info | json - engine.cgroups)"; fi
if limited limits_memory; then
    check 'there is swap that could be taken' test "$(awk 'NR > 1 { n += $3 } END { print n + 0 }' /proc/swaps)" -ge "$([ -n "${GUEST:-}" ] && echo 1 || echo 0)"
    program "{\"memory_bytes\":50331648,\"wall_ms\":$WALL}" <<<'x = []
while True: x.append(bytearray(1 << 20))'
    same 'memory' 'memory SIGKILL' "$(hit) $(field signal)"
    program "{\"memory_bytes\":50331648,\"wall_ms\":$WALL}" <<<'import os
for i in range(200):
    if os.fork() == 0:
        x = bytearray(2 << 20)
        import time; time.sleep(600)
os.wait()
print("one was killed")'
    same 'memory of many processes together' memory "$(hit)"
    program "{\"memory_bytes\":50331648,\"wall_ms\":$WALL}" <<<'f = open("/dev/shm/x", "wb")
g = open("/tmp/x", "wb")
while True: f.write(bytes(1 << 16)); g.write(bytes(1 << 16)); f.flush(); g.flush()'
    check 'memory behind /tmp and /dev/shm' grep -qE 'memory|^$' <<<"$(hit)"
    same 'which does not succeed' failed "$(field status)"
    program "{\"wall_ms\":$WALL}" <<<'print("small")'
    check 'the peak is what a small program takes' test "$(field memory_peak_bytes)" -gt 1000000 -a "$(field memory_peak_bytes)" -lt 64000000
fi
for place in /tmp /dev/shm; do
    program "{\"wall_ms\":$WALL}" <<<"n = 0
with open('$place/x', 'wb', 0) as f:
    try:
        while True: n += f.write(bytes(1 << 16))
    except OSError as e: print(e.errno, n <= 64 << 20)"
    same "$place is full at its size" '28 True' "$(field stdout)"
done
if limited limits_pids; then
    program "{\"pids\":24,\"wall_ms\":$BOMB}" <<<'import os
while True:
    try: os.fork()
    except OSError: pass'
    same 'a bomb of processes' 'pids wall' "$(hit | tr ' ' '\n' | sort | xargs)"
    program "{\"pids\":24,\"wall_ms\":$WALL}" <<<'import threading, time
n = 0
try:
    while True: threading.Thread(target=time.sleep, args=(600,), daemon=True).start(); n += 1
except RuntimeError: print(n < 24, flush=True)
import os; os._exit(0)'
    same 'threads' 'True pids' "$(field stdout) $(hit)"
fi
program "{\"cpu_ms\":1000,\"wall_ms\":$WALL}" <<<'import os
for i in range(7): os.fork()
while True: pass'
same 'CPU of many processes together' cpu "$(hit)"
check 'user and system time are told apart' test "$(field '. | ((.user_ms + .system_ms - .cpu_ms) | fabs) < 0.01')" = true
program "{\"wall_ms\":$WALL}" <<<'print(sum(range(20_000_000)))'
check 'most of it the program'\''s own, where it only counts' test "$(field '. | .user_ms > .system_ms')" = true
program "{\"wall_ms\":$WALL}" <<<'import os
n = 0
try:
    while True: os.dup(0); n += 1
except OSError as e: print(e.errno, n < 64)'
same 'open files' '24 True' "$(field stdout)"
run "{\"command\":\"yes | head -c 30000000\",\"limits\":{\"output_bytes\":1000,\"wall_ms\":$WALL}}"
same 'output' 'output 1000 30000000' "$(hit) $(field 'stdout|length') $(field stdout_bytes)"

# A file with nothing in it is not read for minutes after the run: it is told as not looked at.
program "{\"wall_ms\":$WALL}" <<<'for i in range(4): open(f"sparse{i}", "wb").truncate(15 << 30)
open("dense", "w").write("seen")
print("made")'
same 'sparse files' 'made true' "$(field stdout) $(field files_changed_incomplete)"
contains 'what was written beside them is found' dense "$(field 'files_changed|map(.path)|join(" ")')"
program "{\"wall_ms\":$WALL}" <<<'open("hole", "wb").truncate(100 << 20)
import os
for i in range(4): os.unlink(f"sparse{i}")'
same 'a hole of usual size is read' 'false hole' "$(field files_changed_incomplete) $(field 'files_changed|map(.path)|join(" ")')"
run '{"command":"echo fine"}'
same 'and the next run is fine' 'fine succeeded' "$(field stdout) $(field status)"
finish
