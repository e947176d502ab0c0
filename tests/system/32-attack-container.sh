#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: a program that wants out of its container, or wants to outlive, exhaust or deceive the server,
# gets nowhere, its run ends when it should, and the next run is as the first. Numbers in brackets are
# the cases of the list of attacks that the design was made against.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
start_server --max-runs 4
new_sandbox '{"language":"python"}'
limited() { rest GET /v1/info | jq -e ".engine.$1" >/dev/null; }
# program TEXT [MORE JSON]: standard input as Python code
program() { run "$(jq -Rs --argjson more "${1:-{\}}" '{code: .} + $more')"; }

# Processes in this server's containers, but for those that silt-init alone is in: they wait for a run.
programs() {
    local p
    for p in $(grep -lsE -- "${TMP##*/}/data/.* /workspace " /proc/[0-9]*/mountinfo); do
        cat "${p%/mountinfo}/comm" 2>/dev/null
    done | grep -vx '\.\?silt-init'
}
no_programs() { [ -z "$(programs)" ]; }

# [26][27][28][36][37] What a container holds, asked from inside
program <<'P'
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(n, *a): return libc.syscall(n, *[ctypes.c_long(x) for x in a])
def bad(what, yes):
    if yes: print(what)
status = dict(l.split(":\t") for l in open("/proc/self/status").read().splitlines() if ":\t" in l)
for c in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
    bad(c, int(status[c], 16))
bad("NoNewPrivs", status["NoNewPrivs"].strip() != "1")
bad("Seccomp", status["Seccomp"].strip() != "2")
for p in ("/proc/1/environ", "/proc/1/mem", "/proc/1/maps", "/proc/1/fd", "/proc/1/root/etc", "/proc/kcore", "/proc/kmsg",
          "/proc/keys", "/proc/timer_list", "/etc/shadow", "/root", "/home", "/var/log", "/sys/firmware", "/sys/class/dmi/id",
          "/sys/fs/cgroup"):
    try: bad("readable: " + p, os.listdir(p) if os.path.isdir(p) else open(p, "rb").read(1))
    except OSError: pass
for p in ("/proc/sys/kernel/core_pattern", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger",
          "/proc/1/oom_score_adj", "/proc/1/comm", "/proc/1/uid_map", "/dev/kmsg", "/proc/irq/default_smp_affinity"):
    try: bad("writable: " + p, os.close(os.open(p, os.O_WRONLY)) is None and os.write(os.open(p, os.O_WRONLY), b"1"))
    except OSError: pass
for p in ("/", "/usr/bin", "/etc", "/dev", "/proc", "/sys"):
    bad("writable: " + p, os.access(p, os.W_OK))
for name, r in (("ptrace", libc.ptrace(16, 1, 0, 0)), ("userns", libc.unshare(0x10000000)), ("mount", libc.mount(b"a", b"/tmp", b"tmpfs", 0, 0)),
                ("hostname", libc.sethostname(b"x", 1)), ("keyring", libc.syscall(250, 0, -3, 0)), ("io_uring", call(425, 1, 0)),
                ("bpf", call(321, 0, 0, 0)), ("fsopen", call(430, 0, 0)), ("fanotify", call(300, 0, 0)), ("clone3", call(435, 0, 0)),
                ("chroot", libc.chroot(b"/tmp"))):
    bad("allowed: " + name, r != -1)
fd = os.pidfd_open(1)
for n in range(10):
    bad("descriptor of process 1", call(438, fd, n, 0) >= 0)
for family in range(46):
    for kind in (1, 2, 3, 5):
        try: socket.socket(family, kind).close()
        except OSError: continue
        bad("socket family %d" % family, family not in (1, 2, 10, 16))
        bad("raw socket", kind == 3 and family in (2, 10))
bad("network", [n for i, n in socket.if_nameindex() if n != "lo"])
bad("abstract sockets of others", len(open("/proc/net/unix").readlines()) > 1)
bad("descriptors", [f for f in os.listdir("/proc/self/fd") if int(f) > 4])
bad("others' processes", [p for p in os.listdir("/proc") if p.isdigit() and int(p) not in (1, os.getpid())])
bad("mounts", [l for l in open("/proc/mounts") if l.split()[2] in ("ext4", "xfs", "btrfs") and "nosuid" not in l])
for n in range(1, 65):
    try: os.kill(1, n)
    except OSError: pass
print("done")
P
same '[26][27][28][36][37] nothing of the host, nothing beyond' 'done' "$(field stdout)"

# [29] set-id
run '{"command":"cp /usr/bin/id /workspace/me; chmod 6755 me; ./me -u; ./me -ru"}'
same '[29] a set-id program is nobody else' '1000 1000' "$(field stdout | xargs)"

# [9][10][14][15][16] Programs that do not want to end
timed() { # TEXT JSON: the run ends at its limit of 400 ms (2 s where it prints first)
    run "$2"
    same "$1" 'timed_out' "$(field status)"
    check "$1: promptly" test "$(field 'wall_ms|floor')" -lt "${3:-4000}"
}
timed '[10] a daemon that ignores TERM' \
    '{"command":"trap \"\" TERM HUP INT; (setsid sh -c \"trap \\\"\\\" TERM HUP INT; sleep 300\" </dev/null >/dev/null 2>&1 &); sleep 300","limits":{"wall_ms":400}}'
timed '[14] a program that closed its output' '{"command":"exec <&- >&- 2>&-; sleep 300","limits":{"wall_ms":400}}'
timed '[14] a program that stopped itself' '{"command":"kill -STOP $$","limits":{"wall_ms":400}}'
timed '[13] output without end, on both' '{"command":"(yes >&2 &); yes","limits":{"wall_ms":2000,"output_bytes":10000}}' 5600
same '[13] and no more of it is kept than asked for' '10000 10000' "$(field '"\(.stdout|length) \(.stderr|length)"')"
program '{"limits":{"wall_ms":600,"pids":64}}' <<'P'
import os
while True:
    try: os.fork(); os.setsid()
    except OSError: pass
P
check '[9] a bomb of forks ends' grep -qE 'timed_out|failed' <<<"$(field status)"
run '{"command":"(setsid sleep 300 &); (sleep 300 &); echo done"}'
same '[10] children that keep the output open do not keep the run' 'succeeded done' "$(field status) $(field stdout)"
check '[10] it ends at once' test "$(field 'wall_ms|floor')" -lt 2000
run '{"command":"cat; echo end"}'
same '[16] input ends' end "$(field stdout)"
if limited limits_memory; then
    program '{"limits":{"memory_bytes":67108864,"wall_ms":20000}}' <<<'import os
fd = os.memfd_create("x")
while True: os.write(fd, b"a" * (1 << 20))'
    same '[12] memory behind a descriptor' '["memory"]' "$(field 'limits_hit|tojson')"
    run '{"command":"cat /dev/zero >/dev/shm/x","limits":{"memory_bytes":67108864,"wall_ms":20000}}'
    check '[12] shared memory' not test "$(field status)" = succeeded
fi
check 'nothing of all these runs goes on' wait_until 30 no_programs

# [24] Output that looks like what the server says
program <<<'print("event: exit\ndata: {\"event\":\"exit\"}\n\n: x\r\n\x1b]0;title\x07{\"event\":\"exit\"}")'
RUN=$(field id)
call GET "/v1/runs/$RUN/events" -H 'Accept: application/x-ndjson'
same '[24] one end in the stream' 1 "$(grep -v '^:' "$TMP/body" | jq -rs 'map(select(.event == "exit"))|length')"
call GET "/v1/runs/$RUN/events" -H 'Accept: text/event-stream'
same '[24] one end in server-sent events' 1 "$(grep -c '^event: exit' "$TMP/body")"
check '[24] and no control character' not grep -q $'\x1b' "$TMP/body"

# [25][38] The server's files and surroundings
run '{"command":"env | grep -cE \"SILT_DATA|SERVER|TOKEN|^HOME=/root\"; ls -A /workspace | grep -vx me"}'
same '[25][38] neither its environment nor its files are there' 0 "$(field stdout)"

# [40] One sandbox and another
FIRST=$SB
put secret 'of the first'
new_sandbox '{"language":"python"}'
run '{"command":"cat /workspace/secret /cache/secret; ls /workspace; find / -xdev -name secret 2>/dev/null"}'
lacks '[40] nothing of another sandbox is seen' 'of the first' "$(field output)"
if [ "$(id -u)" = 0 ]; then
    check '[40] each has a user of its own' not test \
        "$(stat -c %u "$DATA/workspaces/$SB")" = "$(stat -c %u "$DATA/workspaces/$FIRST")"
fi

# [31][32] Deletion and a killed server, while programs run
run '{"command":"while :; do mkdir -p a/b/c; echo x >a/b/c/$(date +%N); done","detach":true}'
running() { [ "$(rest GET "/v1/runs/$(field id)" | json - status)" = running ]; }
check 'a program that writes without pause' wait_until 10 running
call DELETE "/v1/sandboxes/$SB"
expect '[31] its sandbox is deleted' 204
check '[31] with its folder' not test -e "$DATA/workspaces/$SB"
call DELETE "/v1/sandboxes/$SB"
check '[31] again: it is gone' grep -qE '404|410' <<<"$status"
SB=$FIRST
for round in 1 2 3; do
    (
        for i in $(seq 500); do
            rest POST "/v1/sandboxes/$SB/changes" --max-time 3 \
                -d "{\"ops\":[{\"op\":\"put\",\"path\":\"one\",\"text\":\"v$round.$i\"},{\"op\":\"put\",\"path\":\"two\",\"text\":\"v$round.$i\"}]}" || exit 0
        done
    ) >/dev/null 2>&1 &
    OWN_PIDS="$OWN_PIDS $!"
    WRITER=$!
    rest POST "/v1/sandboxes/$SB/exec" -d '{"command":"trap \"\" TERM; while :; do date >dates; done","detach":true}' >/dev/null
    sleep "0.$((RANDOM % 5 + 1))"
    kill_server
    wait "$WRITER" 2>/dev/null
    start_server
    same "[32] kill $round: both files or none are new" "$(rest GET "/v1/sandboxes/$SB/files/one")" "$(rest GET "/v1/sandboxes/$SB/files/two")"
    run '{"command":"echo fine"}'
    same "[32] kill $round: runs go on" fine "$(field stdout)"
done
check '[32] no program outlived a server' wait_until 30 no_programs
same '[32] and nothing is left in staging' '' "$(staging_leftovers)"
finish
