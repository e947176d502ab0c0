#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: a client that sends nothing, or asks for a lot, keeps no others from being served and costs the
# server no more than its bounds: bodies that stop coming, and many readers of a big output at once.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
start_server
new_sandbox
MINE=$SB
new_sandbox
cat >"$TMP/stall.py" <<'P'
import socket, sys, time
head = f"PUT {sys.argv[3]} HTTP/1.1\r\nHost: {sys.argv[1]}\r\nContent-Length: 4000000\r\n\r\n"
held = []
for _ in range(400):
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    s.sendall(head.encode() + b"x")
    held.append(s)
print("stalled", flush=True)
time.sleep(120)
P
python3 "$TMP/stall.py" "${SILT_SERVER%:*}" "${SILT_SERVER##*:}" "/v1/sandboxes/$SB/files/stalled" >"$TMP/stalled" &
OWN_PIDS="$OWN_PIDS $!"
STALLING=$!
check '400 bodies stop after one byte' wait_until 30 grep -qs stalled "$TMP/stalled"
call GET /v1/info --max-time 20
expect 'a request without a body is answered meanwhile' 200
SB=$MINE
call PUT "/v1/sandboxes/$SB/files/f" --max-time 20 -d small
expect 'a small one, too' 201
head -c 3000000 /dev/zero >"$TMP/long"
call PUT "/v1/sandboxes/$SB/files/long" --max-time 20 -T "$TMP/long"
expect 'and a long one to another sandbox' 201
run '{"command":"echo fine"}'
same 'and a run' fine "$(field stdout)"
kill "$STALLING"

# What it prints takes 8 MB in each answer, and several times that while it is built.
run '{"command":"head -c 4000000 /dev/zero | tr \"\\\\0\" y; echo","limits":{"output_bytes":16000000}}'
same 'a run prints 4 MB' 4000001 "$(field stdout_bytes)"
RUN=$(field id)
echo 5 >"/proc/$SERVER_PID/clear_refs"
readers=''
for i in $(seq 16); do
    rest GET "/v1/runs/$RUN" | md5sum >"$TMP/sum.$i" &
    readers="$readers $!"
done
wait $readers
same '16 readers at once get the same answer' 1 "$(cat "$TMP"/sum.* | sort -u | wc -l)"
same 'which is the whole one' 4000001 "$(rest GET "/v1/runs/$RUN" | json - '.stdout|length')"
[ -n "$SANITISED" ] ||
    below 'and the server needs memory for few of them (KiB)' 120000 \
        "$(awk '$1 == "VmHWM:" {print $2}' "/proc/$SERVER_PID/status")"
finish
