#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: a server that stops, is killed, or whose connections are cut under a watcher costs time only:
# changes are kept, sent when it is back, each content once, each change applied once; status and the
# watcher say away and back.
. "$(dirname "$0")/lib.sh"

# A proxy whose connections can be cut. The file "cut" holds what happens once: "up N": the next
# connection that has sent N bytes from then on is closed; "answer": the next answer is swallowed and its
# connection closed. While the server is away it takes what comes, adds its size to the file "swallowed", and
# answers 502, as those do that stand in front of a server.
cat >"$TMP/proxy.py" <<'PY'
import asyncio, os, sys

listen_file, upstream, cut_file = sys.argv[1:4]
host, port = upstream.rsplit(":", 1)


def order():
    try:
        with open(cut_file) as f:
            return f.read().split()
    except FileNotFoundError:
        return []


async def stand_in(reader, writer):
    swallowed = 0
    try:
        while data := await asyncio.wait_for(reader.read(65536), 0.1):
            swallowed += len(data)
    except asyncio.TimeoutError:
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
    writer.close()
    with open(cut_file + ".swallowed", "a") as f:
        f.write(f"{swallowed}\n")


async def serve(reader, writer):
    try:
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return await stand_in(reader, writer)

    def cut():
        os.unlink(cut_file)
        writer.transport.abort()
        up_writer.transport.abort()

    async def up():
        sent = 0
        while data := await reader.read(16384):
            sent = sent + len(data) if order()[:1] == ["up"] else 0
            if sent and sent >= int(order()[1]):
                return cut()
            up_writer.write(data)
            await up_writer.drain()
        up_writer.transport.abort()

    async def down():
        while data := await up_reader.read(65536):
            if order()[:1] == ["answer"]:
                return cut()
            writer.write(data)
            await writer.drain()
        writer.transport.abort()

    await asyncio.gather(up(), down(), return_exceptions=True)


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    with open(listen_file + ".new", "w") as f:
        f.write(f"{address[0]}:{address[1]}\n")
    os.rename(listen_file + ".new", listen_file)
    await server.serve_forever()


asyncio.run(main())
PY

start_server

FILES=0
burst() { # COUNT: new files of 100,000 bytes that nothing makes smaller
    python3 - "$FILES" "$1" <<'PY'
import os, sys
first, count = int(sys.argv[1]), int(sys.argv[2])
for i in range(first, first + count):
    with open(f"f{i}.bin", "wb") as f:
        f.write(os.urandom(100_000))
PY
    FILES=$((FILES + $1))
}
said() { jq -s "[.[] | select(.event == \"sent\") | .$1] | add // 0" "$TMP/watch.out"; }
says() { grep -qs "\"event\":\"$1\"" "$TMP/watch.out"; }
is_state() { [ "$(silt status --json 2>/dev/null | jq -r .watcher.state)" = "$1" ]; }
all_there() { [ "$(said created)" -ge "$FILES" ] && is_state idle; }
once() { # TEXT [FILES]: what was sent so far is each content once, and those of so many files once more
    local bytes
    bytes=$(said bytes_sent)
    below "$1: nothing that was acknowledged was sent again" $(((FILES + ${2:-0}) * 110000)) "$bytes"
    check "$1: and all of it" test "$bytes" -ge $((FILES * 100000))
}

new_project burst
silt sync >/dev/null 2>&1
start_silt "$TMP/watch.out" "$TMP/watch.err" watch --json
check "the watcher is ready" wait_until 30 says ready

# ---- the server is stopped, and comes back

burst 10
check "a burst arrives" wait_until 30 all_there
stop_server
burst 10
check "the watcher is away" wait_until 20 is_state away
check "and says so" says away
try silt status
contains "silt status says it, too" away "$out"
same "and what waits" true "$(silt status --json 2>/dev/null | jq '.watcher.pending > 0')"
start_server
check "what was written meanwhile arrives by itself" wait_until 40 all_there
check "it says that the server is back" wait_until 10 says back
once "stopped"
same_tree "stopped: both sides are the same"

# ---- it is killed after it acknowledged: another epoch, nothing is sent again

burst 10
check "another burst arrives" wait_until 30 all_there
kill_server
burst 5
check "away again" wait_until 20 is_state away
start_server
check "killed: the rest arrives" wait_until 40 all_there
# What waited was written for the old epoch, is refused, and goes again after comparing.
once "killed" 5
same_tree "killed: both sides are the same"

# ---- by a proxy that cuts connections

end_silt
python3 "$TMP/proxy.py" "$TMP/proxy" "$LISTEN" "$TMP/cut" 2>"$TMP/proxy.log" &
OWN_PIDS="$OWN_PIDS $!"
wait_until 20 test -s "$TMP/proxy"
SILT_SERVER=$(cat "$TMP/proxy")
new_project tunnel
silt sync >/dev/null 2>&1
FILES=0
start_silt "$TMP/watch.out" "$TMP/watch.err" watch --json
check "another watcher is ready" wait_until 30 says ready

# ---- the answer is lost: the same number is answered from memory

echo answer >"$TMP/cut"
burst 1
check "an answer that was lost" wait_until 40 all_there
check "was lost" not test -e "$TMP/cut"
same "is not applied twice" "$FILES" "$(said created)"
same_tree "lost answer: both sides are the same"

# ---- the connection is cut in the middle of a set

before=$(said bytes_sent)
echo up 300000 >"$TMP/cut"
burst 20
check "a connection that was cut" wait_until 40 all_there
check "was cut" not test -e "$TMP/cut"
same "nothing was applied twice" "$FILES" "$(said created)"
# What was under way goes again: two sets, of which the proxy let pass less than what it counts.
below "only what was under way was sent again" $((2 * 20 * 100000 + 300000)) "$(($(said bytes_sent) - before))"
same_tree "cut: both sides are the same"
try silt --json sync
same "and nothing is left to send" "0 0 0" "$(json - '"\(.created) \(.updated) \(.deleted)"' <<<"$out")"

# ---- a proxy that answers for a server that is away

stop_server
burst 20
tried() { [ "$(cat "$TMP/cut.swallowed" 2>/dev/null | wc -l)" -ge "$1" ]; }
check "a proxy that answers for the server" wait_until 60 tried 6
below "gets what waits once, and questions after it" $((20 * 100000 + 200000)) "$(awk '{ n += $1 } END { print n }' "$TMP/cut.swallowed")"
start_server
SILT_SERVER=$(cat "$TMP/proxy")
check "what waited arrives when it is back" wait_until 40 all_there
same_tree "proxy: both sides are the same"

# ---- agents that are killed at any moment: what is there in the end is the project

end_silt
for round in 1 2 3 4 5 6; do
    case $((round % 2)) in
    0) start_silt "$TMP/k.out" "$TMP/k.err" watch ;;
    1) start_silt "$TMP/k.out" "$TMP/k.err" sync ;;
    esac
    for i in 1 2 3 4 5; do
        echo "$round $i $RANDOM" >"k$i.txt"
        echo "$round $RANDOM" >"k$round-$i.txt"
        mv "k$round-$i.txt" "m$round-$i.txt"
        [ "$i" -ne 3 ] || rm -f "m$((round - 1))-1.txt" f"$round".bin
        sleep "0.0$((RANDOM % 10))"
    done
    end_silt KILL
done
try silt sync
same "killed agents: the next sync is fine" 0 "$code"
same_tree "killed agents: both sides are the same"
finish
