#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: two edits of equal size within one tick of the clock leave the same stamps behind, and
# both are seen all the same: by the agent's scan, and by the server's look at what a run wrote. The
# second edit is made at the very moment at which the first one was read. And a clock that is set forward
# and back by days holds up neither a watcher nor a run; nor does a queue of events that is far too short.
# Where stamps tell writes apart (Linux since 6.13) there is nothing to confuse; in the guest of
# scripts/test-guest, with a tick of 4 ms, there is, and on a disk that keeps whole seconds, which root
# can mount in a mount namespace of its own.
[ -n "${GUEST:-}" ] || [ "$(id -u)" -ne 0 ] || [ -n "${TICKS_PRIVATE:-}" ] ||
    TICKS_PRIVATE=1 exec unshare --mount --propagation private bash "$0"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
DISK=$TMP/disk COARSE=
mkdir "$DISK"
seconds_disk() {
    truncate -s 256M "$TMP/disk.img" && mkfs.ext4 -q -I 128 "$TMP/disk.img" && mount -o loop "$TMP/disk.img" "$DISK"
}
if [ -n "${TICKS_PRIVATE:-}" ] && seconds_disk >"$TMP/disk.log" 2>&1; then
    COARSE=1 DATA=$DISK/data
    chmod 755 "$DISK"
fi
start_server
new_project disk/ticks

# Writes a number again and again until somebody has read it, then the last one at once.
cat >"$TMP/race.py" <<'P'
import ctypes, os, sys, time
name, libc, n = sys.argv[1], ctypes.CDLL(None), 0
fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
def write():
    global n
    n += 1
    os.pwrite(fd, b"%015d\n" % n, 0)
write()
events = libc.inotify_init1(os.O_NONBLOCK)
libc.inotify_add_watch(events, name.encode(), 1)
print("ready", flush=True)
end = time.monotonic() + 60
while time.monotonic() < end:
    write()
    try:
        os.read(events, 4096)
        break
    except BlockingIOError:
        time.sleep(0.0003)
before = os.fstat(fd).st_mtime_ns
write()
print("same" if os.fstat(fd).st_mtime_ns == before else "later", "%015d" % n)
P
cp "$TMP/race.py" race.py
silt sync >/dev/null 2>&1
ready() { grep -q ready "$1"; }
ROUNDS=3
[ -z "${GUEST:-}" ] || ROUNDS=4
# On a busy machine a second write may come a tick late, in all rounds: then there are some more.
MOST=$ROUNDS
[ -z "${GUEST:-}$COARSE" ] || MOST=30

racy=0 stale=''
for ((i = 0; i < ROUNDS || (i < MOST && racy == 0); i++)); do
    python3 "$TMP/race.py" "$PWD/file" >"$TMP/race.out" &
    writer=$!
    wait_until 60 ready "$TMP/race.out"
    silt sync >/dev/null 2>>"$TMP/sync.err"
    wait "$writer"
    read -r stamp last < <(tail -n 1 "$TMP/race.out")
    [ "$stamp" = same ] && racy=$((racy + 1))
    silt sync >/dev/null 2>>"$TMP/sync.err"
    got=$(cat "$(workspace)/file")
    [ "$got" = "$last" ] || stale+=" $i: $got for $last ($stamp)"
done
same "agent: $i second edits right after the first was read, $racy within its tick: all seen" '' "$stale"
[ -z "${GUEST:-}$COARSE" ] || check 'agent: some were within a tick' test "$racy" -gt 0

# Only a machine of our own has a clock that we may set, and a queue that we may shorten for everybody.
if [ -n "${GUEST:-}" ]; then
    queue=/proc/sys/fs/inotify/max_queued_events
    usual=$(cat "$queue")
    echo 16 >"$queue"
    start_silt "$TMP/watch.out" "$TMP/watch.err" --json watch
    wait_until 60 grep -qs '"event":"ready"' "$TMP/watch.out"
    echo "$usual" >"$queue"
    agrees() { diff -rq --no-dereference --exclude=.silt . "$(workspace)" >/dev/null 2>&1; }
    mkdir many && echo 0 >many/0
    wait_until 60 agrees
    kill -STOP "$SILT_PID"
    for ((i = 0; i < 300; i++)); do echo "$i" >"many/$i"; done
    kill -CONT "$SILT_PID"
    check 'more events than a queue of 16 holds: nothing is lost' wait_until 60 agrees
    echo more >many/more
    check 'nor is what comes later' wait_until 60 agrees
    arrived() { cmp -s set "$(workspace)/set"; }
    set_clock() { date -s "@$(($(date +%s) + $1 * 86400))" >/dev/null; }
    for days in 2 -4; do
        set_clock "$days"
        echo "print('clock by $days days')" >set
        check "clock set by $days days: a save arrives" wait_until 60 arrived
        echo "print('clock by $days DAYS')" >set
        check 'an edit of equal size, too' wait_until 60 arrived
    done
    # A file that stays open is sent once it was quiet for a while: in that while the clock goes back.
    for ms in 1 10 25; do
        python3 -c '
import os, sys, time
fd = os.open("open", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.write(fd, b"quiet\n")
time.sleep(int(sys.argv[1]) / 1000)
time.clock_settime(time.CLOCK_REALTIME, time.time() - 86400)
print("set", flush=True)
time.sleep(100)' "$ms" >"$TMP/held" &
        held=$!
        wait_until 20 grep -q set "$TMP/held"
        is_there() { cmp -s open "$(workspace)/open"; }
        check "clock set back $ms ms after a write: what was written arrives" wait_until 20 is_there
        kill "$held"
        set_clock 1
    done
    try silt run set
    same 'and runs' '0 clock by -4 DAYS' "$code $out"
    set_clock 2
    end_silt
fi

# The server reads while a run writes, because another run of the sandbox ends.
SB=$(sandbox)
hash_of() { rest GET "/v1/sandboxes/$SB/files" | jq -r ".items[] | select(.path == \"$1\") | .hash"; }
racy=0 stale=''
for ((i = 0; i < ROUNDS || (i < MOST && racy == 0); i++)); do
    run '{"command":["python3","race.py","made"],"detach":true}'
    racer=$(field id)
    started() { rest GET "/v1/runs/$racer/stdout" | grep -q ready; }
    wait_until 60 started
    run '{"command":["true"]}'
    call GET "/v1/runs/$racer?wait_ms=60000"
    read -r stamp last < <(rest GET "/v1/runs/$racer/stdout" | tail -n 1)
    [ "$stamp" = same ] && racy=$((racy + 1))
    put "copy" "$last"$'\n'
    [ "$(hash_of made)" = "$(hash_of copy)" ] || stale+=" $i: $(hash_of made), not $(hash_of copy), for $last ($stamp)"
done
same "server: $i second writes right after the first was read, $racy within its tick: all seen" '' "$stale"
[ -z "${GUEST:-}$COARSE" ] || check 'server: some were within a tick' test "$racy" -gt 0
if [ -n "$COARSE" ]; then
    stop_server
    cd "$TMP" && umount -l "$DISK"
fi
finish
