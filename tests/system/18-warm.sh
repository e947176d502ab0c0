#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: containers that are made before they are needed. They are used when they fit, never twice, never
# for another sandbox, never with other limits; nothing reaches into one that waits; and none is left
# behind by a deletion, a stop, or a kill of the server.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"

waiting() { [ "$(containers | wc -l)" -eq "$1" ]; }
# A server that has just started asks each language for its version, in containers of their own.
calm() {
    local look
    for look in 1 2 3 4 5 6 7 8; do
        waiting 0 || return 1
        sleep 0.1
    done
}
# What a program sees of the container it is in: a namespace of its own, and what others left in /tmp.
LOOK='{"command":"readlink /proc/self/ns/mnt; ls /tmp; touch /tmp/marker /dev/shm/marker"}'
warm() { field runtime.warm; }

start_server
new_sandbox '{"language":"python"}'
check 'nothing waits for a sandbox without files' wait_until 60 calm
put main.py 'print("first")'
check 'a change set has a container made' wait_until 10 waiting 1
made=$(containers)
run "$LOOK"
same 'the first run finds it' true "$(warm)"
same 'and is in it, alone' "$made" "$(field stdout)"
check 'its memory is that of the program' test "$(field memory_peak_bytes)" -gt 0
check 'the next one is made when the run is over' wait_until 10 waiting 1
made=$(containers)
run "$LOOK"
same 'the second run is warm' true "$(warm)"
same 'in the other one, where nothing was left behind' "$made" "$(field stdout)"

# ---- what does not fit

check 'one waits' wait_until 10 waiting 1
run '{"command":["cat","/proc/self/limits"],"limits":{"memory_bytes":100663296,"pids":20}}'
same 'a run with other limits makes its own container' false "$(warm)"
check 'the one that waits is like it from then on' wait_until 10 waiting 1
run '{"code":"x = bytearray(200 << 20)","limits":{"memory_bytes":100663296,"pids":20}}'
same 'the same limits again: warm' true "$(warm)"
same 'and they hold' true "$(field oom_killed)"
check 'one waits' wait_until 10 waiting 1
run '{"code":"x = bytearray(200 << 20); print(len(x))"}'
same 'back to what is usual: cold' false "$(warm)"
same 'without the lower limit' 209715200 "$(field stdout)"
check 'one waits' wait_until 10 waiting 1
run '{"command":["sh","-c","echo $A; read x; echo $x; sleep 20"],"env":{"A":"b"},"stdin":"in\n","limits":{"wall_ms":300}}'
same 'time, environment and input are given at the start' true "$(warm)"
check 'one waits' wait_until 10 waiting 1
call PATCH "/v1/sandboxes/$SB" -d '{"limits":{"pids":50}}'
run '{"filename":"main.py"}'
same 'a sandbox whose limits were changed: cold' false "$(warm)"
call PATCH "/v1/sandboxes/$SB" -d '{"limits":{}}'

# ---- nothing reaches into it

run '{"filename":"main.py"}'
put attack.py 'import os, time
while not os.path.exists("go"):
    time.sleep(0.02)
me = os.getpid()
print(sorted(int(p) for p in os.listdir("/proc") if p.isdigit() and int(p) != me))
for pid in range(2, 70000):
    try:
        if pid != me:
            os.kill(pid, 9)
            print("killed", pid)
    except ProcessLookupError:
        pass
try:
    os.kill(-1, 9)
except OSError:
    pass
for name in os.listdir("/cache"):
    os.rename("/cache/" + name, "/cache/old-" + name)
os.chmod("/workspace", 0o700)'
check 'one waits' wait_until 10 waiting 1
run '{"filename":"attack.py","detach":true}'
attack=$(field id)
check 'the attacker is in its own container' wait_until 10 waiting 1
attacker=$(containers)
put other.py 'print("still here")'
check 'another one is made beside it' wait_until 10 waiting 2
made=$(containers | grep -vxF "$attacker")
put go ''
call GET "/v1/runs/$attack?wait_ms=20000"
same 'it sees process 1 and itself only, and kills nobody' '[1]' "$(field stdout)"
check 'the container that waited still waits' wait_until 10 eval '[ "$(containers)" = "$made" ]'
run '{"filename":"other.py"}'
same 'and is of use' 'true still here' "$(warm) $(field stdout)"

# ---- one of another sandbox

mine=$SB
new_sandbox '{"language":"python"}'
put main.py 'print("second sandbox")'
check 'each sandbox has its own' wait_until 10 waiting 2
run '{"filename":"main.py"}'
same 'and gets its own' 'true second sandbox' "$(warm) $(field stdout)"
check 'two wait' wait_until 10 waiting 2
call DELETE "/v1/sandboxes/$SB"
expect 'a sandbox for which one waits is deleted' 204
same 'when that is answered its container is gone' 1 "$(containers | wc -l)"
check 'and its folder' not test -e "$DATA/workspaces/$SB"
new_sandbox '{"language":"python"}'
put main.py 'print(1)' && run '{"filename":"main.py"}' && call DELETE "/v1/sandboxes/$SB"
same 'the same right after a run' 1 "$(containers | wc -l)"
SB=$mine

# ---- the workspace was moved away

check 'one waits' wait_until 10 waiting 1
mv "$DATA/workspaces/$SB" "$DATA/workspaces/moved"
mkdir "$DATA/workspaces/$SB"
run '{"filename":"other.py"}'
lacks 'a moved root does not run what was there before' 'still here' "$body"
rmdir "$DATA/workspaces/$SB" && mv "$DATA/workspaces/moved" "$DATA/workspaces/$SB"
run '{"filename":"other.py"}'
same 'moved back, it runs' 'still here' "$(field stdout)"

# ---- many

ROUNDS=200
[ -z "$SANITISED" ] || ROUNDS=40
stale='' shared='' seen='' hits=0
for ((i = 0; i < ROUNDS; i++)); do
    put main.py "import os
print($i, os.readlink('/proc/self/ns/mnt'), os.listdir('/tmp'))
open('/tmp/marker', 'w')"
    run '{"filename":"main.py"}'
    read -r number space left <<<"$(field stdout)"
    [ "$number" = "$i" ] || stale+=" $i:$number"
    [ "$left" = '[]' ] || shared+=" $i:$left"
    [ "$(warm)" = true ] && hits=$((hits + 1))
done
same "$ROUNDS runs with an edit before each: none is stale" '' "$stale"
same 'none finds what another one left' '' "$shared"
check 'nearly all were warm' test "$hits" -gt $((ROUNDS * 8 / 10))

# ---- the end of the server

put main.py 'print("again")'
check 'one waits' wait_until 10 waiting 1
kill_server
check 'it ends by itself when the server is killed' wait_until 10 waiting 0
start_server
run '{"filename":"main.py"}'
same 'the next server runs' again "$(field stdout)"
check 'one waits' wait_until 10 waiting 1
stop_server 'a stop leaves none'

start_server --max-warm 0
run '{"filename":"main.py"}'
run '{"filename":"main.py"}'
same 'switched off, each run makes its own' false "$(warm)"
check 'and none waits' wait_until 60 calm
stop_server
start_server --max-warm 1
run '{"filename":"main.py"}'
new_sandbox '{"language":"python"}'
put main.py 'print(1)'
run '{"filename":"main.py"}'
check 'no more wait than allowed' wait_until 10 waiting 1
stop_server
start_server --warm-time 1s
SB=$mine
run '{"filename":"main.py"}'
check 'one that nobody needs' wait_until 10 waiting 1
check 'goes in time' wait_until 10 waiting 0
run '{"filename":"main.py"}'
same 'the run after it is right' again "$(field stdout)"
finish
