#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: a large file goes on where it was cut off: by a broken connection, a killed server, a killed agent or
# a killed watcher, the bytes on the wire stay near its size, and what arrives is the file. One that changes
# meanwhile is sent as it is then.
[ ! -w /dev/shm ] || export TMPDIR=/dev/shm
. "$(dirname "$0")/lib.sh"

# A proxy that counts the client's bytes into the file "count" and closes the connection (or, with "hang",
# holds it until the file "cut.let-go" is there) once as many crossed it as the file "cut" says; then that file
# is gone. What was on its way to the server at that moment has to be sent again: beside the server's window it is
# what lies in the sockets, which grow to megabytes before a server that is slow to read, as the kernel likes. So
# that this is not measured, the cut waits until the stage is as long as what crossed: from then on no byte of the
# file is needed twice.
cat >"$TMP/proxy.py" <<'PY'
import asyncio, os, re, sys

listen_file, upstream, cut_file, count_file, staging = sys.argv[1:6]
host, port = upstream.rsplit(":", 1)
count = 0


def put(path, text):
    with open(path + ".new", "w") as f:
        f.write(text)
    os.rename(path + ".new", path)


def due():
    try:
        words = open(cut_file).read().split()
    except FileNotFoundError:
        return []
    return words if words and count >= int(words[0]) else []


def is_kept(length):
    stages = [os.path.join(d, f) for d, _, files in os.walk(staging) for f in files if f.startswith("st_")]
    return length in [os.stat(path).st_size for path in stages]


async def serve(reader, writer):
    try:
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return writer.transport.abort()

    async def up():
        global count
        stage = None  # how long it is when the server has written all that crossed
        while data := await reader.read(65536):
            count += len(data)
            put(count_file, str(count))
            up_writer.write(data)
            await up_writer.drain()
            if head := re.match(rb"PATCH .*?\r\nUpload-Offset: (\d+)\r\n.*?\r\n\r\n", data, re.S):
                stage = int(head[1]) - head.end()
            elif re.match(rb"[A-Z]+ /v1/", data):
                stage = None
            if stage is not None:
                stage += len(data)
            if words := due():
                while stage is not None and not is_kept(stage) and not up_reader.at_eof():
                    await asyncio.sleep(0.02)
                os.unlink(cut_file)
                while words[1:] == ["hang"] and not os.path.exists(cut_file + ".let-go"):
                    await asyncio.sleep(0.02)
                break
        up_writer.transport.abort()
        writer.transport.abort()

    async def down():
        while data := await up_reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.transport.abort()

    await asyncio.gather(up(), down(), return_exceptions=True)


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=65536)
    address = server.sockets[0].getsockname()
    put(listen_file, f"{address[0]}:{address[1]}\n")
    await server.serve_forever()


asyncio.run(main())
PY
start_server
python3 "$TMP/proxy.py" "$TMP/proxy" "$LISTEN" "$TMP/cut" "$TMP/count" \
    "$DATA/staging" 2>"$TMP/proxy.log" &
OWN_PIDS="$OWN_PIDS $!"
wait_until 20 test -s "$TMP/proxy"
through() { SILT_SERVER=$(cat "$TMP/proxy"); }
crossed() { cat "$TMP/count" 2>/dev/null || echo 0; }
was_cut() { ! [ -e "$TMP/cut" ]; }
SIZE=$((64 * 1024 * 1024))
through
new_project large
silt sync >/dev/null 2>&1
there=$(workspace)
# large BYTES [HANG]: another content in the file `blob`, to be cut off when so much of it crossed.
large() {
    head -c "$SIZE" /dev/urandom >"$TMP/new" && mv "$TMP/new" blob
    before=$(crossed)
    rm -f "$TMP/cut.let-go"
    echo "$((before + $1)) ${2:-}" >"$TMP/cut"
}
sent_once() {
    below "$1: hardly more than its size crossed the wire" $((SIZE * 11 / 10)) "$(($(crossed) - before))"
    check "$1: it is the same there" cmp -s blob "$there/blob"
    check "$1: nothing is left of the way" not test -e .silt/upload
    same "$1: nor on the server" '' "$(find "$DATA/staging" -name 'st_*')"
}

large 30000000
try silt sync
same "a connection that is cut: the same sync goes on" 0 "$code"
check "it was cut" was_cut
sent_once "cut"
SIZE=$((24 * 1024 * 1024))

large 15000000 hang
start_silt "$TMP/sync.out" "$TMP/sync.err" sync
check "an agent that is killed" wait_until 60 was_cut
end_silt KILL
check "leaves a note" test -s .silt/upload
# To the server its connection is still open.
try silt sync
same "the next sync goes on, though the server still waits for the old one" 0 "$code"
touch "$TMP/cut.let-go"
sent_once "agent killed"

large 9000000 hang
start_silt "$TMP/sync.out" "$TMP/sync.err" sync
check "a server that is killed" wait_until 60 was_cut
kill_server
touch "$TMP/cut.let-go"
start_server
through
await_silt 60
same "and started again: the same sync goes on" 0 "$code"
sent_once "server killed"

# A delta is cut again and again, each time earlier than its end.
python3 -c '
import os
with open("blob", "r+b") as f:
    for i in range(16):
        f.seek(i * 1500000)
        f.write(os.urandom(800000))'
before=$(crossed)
cutter() {
    while [ ! -e "$TMP/enough" ]; do
        [ -e "$TMP/cut" ] || echo "$(($(crossed) + 9500000))" >"$TMP/cut"
        sleep 0.05
    done
}
cutter &
cutter=$!
OWN_PIDS="$OWN_PIDS $cutter"
wait_until 20 test -e "$TMP/cut"
try silt sync
same "a delta that is cut: the same sync goes on, and comes to an end" 0 "$code"
touch "$TMP/enough"
wait "$cutter"
OWN_PIDS=${OWN_PIDS/ $cutter/}
check "it is there" cmp -s blob "$there/blob"
check "it was cut more than once" test "$(($(crossed) - before))" -gt 20000000
rm -f "$TMP/cut"

# ---- with a watcher

start_silt "$TMP/watch.out" "$TMP/watch.err" --json watch
wait_until 60 grep -qs '"event":"ready"' "$TMP/watch.out"
arrived() { cmp -s blob "$there/blob"; }
large 12000000
check "a watcher goes on" wait_until 60 arrived
silt sync --timeout 60s >/dev/null
check "after it was cut off" was_cut
sent_once "watcher"
large 6000000 hang
wait_until 60 was_cut
kill_server
touch "$TMP/cut.let-go"
start_server
through
check "also with a server that was killed" wait_until 60 arrived
silt sync --timeout 60s >/dev/null
sent_once "watcher, server killed"
large 20000000
try silt run -- sh -c 'cksum <blob'
same "a run that needs it waits for it" "0 $(cksum <blob)" "$code $out"
sent_once "run"

# ---- another content meanwhile

large 12000000 hang
wait_until 60 was_cut
stages() { find "$DATA/staging" -name 'st_*'; }
old=$(stages)
end_silt KILL
touch "$TMP/cut.let-go"
head -c 10000000 /dev/urandom >"$TMP/new" && mv "$TMP/new" blob
try silt sync
same "a file that is another by now" 0 "$code"
check "is sent as it is now" arrived
check "the old one's stage is dropped" not test -e "$old"
same "and no other is left" '' "$(stages)"
python3 - <<'PY' &
import os, time
with open("grows", "wb") as f:
    for _ in range(20):
        f.write(os.urandom(1 << 20)); f.flush(); time.sleep(0.02)
PY
writer=$!
is_large() { [ "$(stat -c %s grows 2>/dev/null || echo 0)" -gt 9000000 ]; }
wait_until 20 is_large
silt sync >/dev/null 2>&1
wait "$writer"
try silt sync
same "a file that grows all the while" 0 "$code"
same_tree "is there in the end as it is"
yes 'a line that shrinks' | head -c "$SIZE" >blob
before=$(crossed)
try silt sync
same "text" 0 "$code"
check "arrives" arrived
below "and is compressed on its way" $((SIZE / 20)) "$(($(crossed) - before))"
finish
