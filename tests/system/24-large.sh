#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: a small change of a large file is a small transfer, whatever kind of change it is, and what the
# server then holds is the same to the last byte. Memory stays bounded however large the file is.
. "$(dirname "$0")/lib.sh"

start_server
new_project big
python3 - <<'PY'
import random
random.seed(7)
words = [("".join(random.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(random.randint(3, 9)))) for _ in range(4000)]
with open("text.txt", "w") as f:
    size = 0
    while size < 10_000_000:
        line = " ".join(random.choice(words) for _ in range(12)) + "\n"
        size += len(line)
        f.write(line)
random.seed(8)
open("noise.bin", "wb").write(random.randbytes(10_000_000))
PY
# edit FILE PYTHON: PYTHON changes the bytearray b.
edit() {
    python3 -c "
import sys, random
random.seed(9)
b = bytearray(open('$1', 'rb').read())
$2
open('$1', 'wb').write(b)"
}
# sent TEXT FILE LIMIT: one sync, at most LIMIT bytes, and the same file there.
sent() {
    try silt sync --json
    same "$1: silt sync succeeds" 0 "$code"
    below "$1: few bytes are sent" "$3" "$(json - bytes_sent <<<"$out")"
    check "$1: the server's copy is identical" cmp -s "$2" "$(workspace)/$2"
}

try silt sync --json
same "the first sync succeeds" 0 "$code"
same_tree "large files arrive"
# 20.0 MB as they are; to a server on the same machine the compressor's fast level is used.
below "text is compressed" 18500000 "$(json - bytes_sent <<<"$out")"

edit text.txt 'i = b.index(b"\n", 5_000_000) + 1; j = b.index(b"\n", i); b[i:j] = b"Z" * (j - i)'
sent "a changed line of equal length" text.txt 12000
edit text.txt 'i = b.index(b"\n", 4_000_000) + 1; j = b.index(b"\n", i); b[i:j] = b"a line of another length than before, with more words in it"'
sent "a changed line of another length" text.txt 12000
edit text.txt 'b[0:5] = b"first"'
sent "the first bytes" text.txt 12000
edit text.txt 'b += b"one more line at the end\n"'
sent "an appended line" text.txt 12000
edit text.txt 'b[3_333_333:3_333_333] = random.randbytes(4096)'
sent "4 KiB inserted" text.txt 12000
edit text.txt 'del b[2_000_000:2_100_000]'
sent "100 KB cut out" text.txt 12000
edit text.txt 'del b[7_000_000:]'
sent "truncated" text.txt 12000
edit text.txt 'b[1_000_000:1_000_100] = b"x" * 100; b[6_000_000:6_000_050] = b"y" * 60; b[3_000_000:3_000_001] = b""'
sent "three places at once" text.txt 16000
edit text.txt 'for at in (1_000_007, 2_000_003, 3_000_001, 4_000_009, 5_000_005): b[at:at] = random.randbytes(90 + at % 7)'
sent "five insertions of different length" text.txt 12000
edit noise.bin 'b[5_000_000] ^= 1'
sent "one byte of a file that does not compress" noise.bin 12000
edit noise.bin 'b[5_000_000:5_000_000] = random.randbytes(4096)'
sent "4 KiB inserted into it" noise.bin 12000
cp noise.bin copy.bin
sent "a copy of it" copy.bin 12000
head -c 5000000 /dev/urandom >copy.bin && silt sync >/dev/null && cp noise.bin copy.bin
sent "a file that got the content of another" copy.bin 12000
mv noise.bin renamed.bin && edit renamed.bin 'b[100] ^= 1'
sent "renamed and changed" renamed.bin 12000
mkdir deeper && mv renamed.bin deeper/ && python3 -c "
import os
b = bytearray(open('deeper/renamed.bin', 'rb').read()); b[9_000_000:9_000_000] = os.urandom(4096)
open('deeper/x', 'wb').write(b); os.rename('deeper/x', 'deeper/renamed.bin')"
sent "moved and written anew with a change" deeper/renamed.bin 12000
edit deeper/renamed.bin 'b[20:120] = random.randbytes(100); b[-120:-20] = random.randbytes(100)'
sent "changed at both ends" deeper/renamed.bin 12000
touch deeper/renamed.bin
sent "touched" deeper/renamed.bin 1000
rm deeper/renamed.bin copy.bin && silt sync >/dev/null
mkdir many && head -c 3000000 /dev/urandom >many/a && cp many/a many/b && cp many/a many/c
sent "equal new files travel once" many/c 3010000
cp -r many other
sent "a copied folder does not travel" other/b 2000
rm -r many other deeper
edit text.txt 'del b[:]'
sent "emptied" text.txt 12000

# ---- memory: the peak of the client, and of the server

# peak COMMAND…: run it; its peak resident set in KB in $peak, its output in $TMP/peak.out.
peak() {
    peak=$(python3 -c '
import resource, subprocess, sys
with open(sys.argv[1], "wb") as out:
    status = subprocess.run(sys.argv[2:], stdout=out).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss if status == 0 else -1)' "$TMP/peak.out" "$@")
}
# Measured: 19 MB at most, with 4 GiB too.
limit=32768
[ -n "$SANITISED" ] && limit=700000
truncate -s 100M sparse.img
edit_sparse() { python3 -c "
f = open('sparse.img', 'r+b')
f.seek($1); f.write(b'$2')"; }
edit_sparse 50000000 middle
client_environment
peak "${CLIENT[@]}" "$SILT" sync --json
check "a 100 MB sparse file is sent" cmp -s sparse.img "$(workspace)/sparse.img"
below "its zeros are not" 2000000 "$(json "$TMP/peak.out" bytes_sent)"
below "silt's memory is bounded (KB)" "$limit" "$peak"
edit_sparse 50000003 changed
peak "${CLIENT[@]}" "$SILT" sync --json
check "a change in it arrives" cmp -s sparse.img "$(workspace)/sparse.img"
below "with few bytes" 12000 "$(json "$TMP/peak.out" bytes_sent)"
below "silt's memory is bounded here, too (KB)" "$limit" "$peak"
below "and the server's was at all times (KB)" "$limit" "$(awk '/^VmHWM/ {print $2}' "/proc/$SERVER_PID/status")"
rm sparse.img
silt sync >/dev/null

# By hand, a size that truncate understands: LARGE=4G bash tests/system/24-large.sh
if [ -n "${LARGE:-}" ]; then
    : >huge.img
    truncate -s "$LARGE" huge.img
    python3 - <<'PY'
import os
size = os.stat("huge.img").st_size
with open("huge.img", "r+b") as f:
    for i in range(200):  # noise at 200 places, zeros between
        f.seek(size // 200 * i)
        f.write(os.urandom(100_000))
PY
    peak "${CLIENT[@]}" "$SILT" sync --json
    check "$LARGE are sent" cmp -s huge.img "$(workspace)/huge.img"
    below "silt's memory is bounded (KB)" 65536 "$peak"
    echo "# silt $peak KB, $(json "$TMP/peak.out" bytes_sent) bytes"
    python3 -c "
import os
size = os.stat('huge.img').st_size
with open('huge.img', 'r+b') as f:
    for i in range(1, 6):
        f.seek(size // 7 * i + 11)
        f.write(os.urandom(4096))
    f.seek(0, 2)
    f.write(os.urandom(5000))"
    peak "${CLIENT[@]}" "$SILT" sync --json
    check "five changes and more at the end arrive" cmp -s huge.img "$(workspace)/huge.img"
    below "with few bytes" 1000000 "$(json "$TMP/peak.out" bytes_sent)"
    below "silt's memory is bounded (KB)" 65536 "$peak"
    echo "# silt $peak KB, $(json "$TMP/peak.out" bytes_sent) bytes"
    hwm=$(awk '/^VmHWM/ {print $2}' "/proc/$SERVER_PID/status")
    below "and the server's was (KB)" 65536 "$hwm"
    echo "# siltd $hwm KB"
fi
finish
