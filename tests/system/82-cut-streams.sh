#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: whoever follows a run over a line that breaks again and again gets every event once and in order:
# live and afterwards, with `silt logs -f` and by Last-Event-ID, also across a restart of the server.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
start_server
new_project app

# A proxy that cuts each connection of a stream behind some bytes of the answer, a few more each time.
python3 - "$SILT_SERVER" "$TMP/proxy" "$TMP/cuts" <<'P' &
import socket, sys, threading
host, port = sys.argv[1].rsplit(":", 1)
listen = socket.create_server(("127.0.0.1", 0))
open(sys.argv[2], "w").write("127.0.0.1:%d" % listen.getsockname()[1])
cuts = 0
def pump(a, b, left):
    try:
        while left != 0 and (data := a.recv(65536 if left is None else left)):
            b.sendall(data)
            if left is not None: left -= len(data)
    except OSError: pass
    for s in (a, b):
        try: s.shutdown(socket.SHUT_RDWR)
        except OSError: pass
def serve(c):
    global cuts
    try: s = socket.create_connection((host, int(port)))
    except OSError: return c.close()
    head, limit = c.recv(65536), None
    if b"/events" in head.split(b"\r\n")[0]:
        cuts += 1
        limit = 700 + 611 * cuts
        open(sys.argv[3], "w").write(str(cuts))
    s.sendall(head)
    threading.Thread(target=pump, args=(c, s, None), daemon=True).start()
    pump(s, c, limit)
while True:
    c, _ = listen.accept()
    threading.Thread(target=serve, args=(c,), daemon=True).start()
P
OWN_PIDS="$OWN_PIDS $!"
wait_until 10 test -s "$TMP/proxy"
SILT_SERVER=$(cat "$TMP/proxy")

cat >print.py <<'P'
import sys, time
for i in range(150):
    print("out", i); sys.stdout.flush()
    print("err", i, "ü" * (i % 7), file=sys.stderr)
    if i % 10 == 0: time.sleep(0.05)
sys.stdout.buffer.write(bytes(range(256)))
P
wanted_out=$(python3 print.py 2>/dev/null | sha256sum) wanted_err=$(python3 print.py 2>&1 >/dev/null | sha256sum)
id=$(silt run -d print.py 2>/dev/null)
check "the run has begun" test -n "$id"
silt logs -f "$id" >"$TMP/live.out" 2>"$TMP/live.err"
same "live: all of standard output, once" "$wanted_out" "$(sha256sum <"$TMP/live.out")"
same "live: all of standard error, once" "$wanted_err" "$(sha256sum <"$TMP/live.err")"
cuts=$(cat "$TMP/cuts")
check "the line broke $cuts times" test "$cuts" -gt 5
silt logs -f "$id" >"$TMP/after.out" 2>"$TMP/after.err"
same "afterwards: the same" "$wanted_out $wanted_err" "$(sha256sum <"$TMP/after.out") $(sha256sum <"$TMP/after.err")"
silt --json logs -f "$id" >"$TMP/events" 2>&1
same "--json: ids from 1 on, without a gap or a repeat" "$(jq -s length "$TMP/events")" "$(jq -s 'map(.id) | unique | length' "$TMP/events")"
same "--json: the last is the end" "exit $(jq -s length "$TMP/events")" "$(tail -n 1 "$TMP/events" | jq -r '"\(.event) \(.id)"')"

# The same by hand: an SSE client that goes on behind the last whole event.
cat >"$TMP/sse.py" <<'P'
import json, sys, urllib.request
url, last, out, tries = sys.argv[1], 0, b"", 0
while tries < 500:
    tries += 1
    r = urllib.request.Request(url, headers={"Last-Event-ID": str(last)} if last else {})
    try:
        text, part = urllib.request.urlopen(r, timeout=30), b""
        for line in text:
            part += line
            if not part.endswith(b"\n\n"): continue
            fields = dict(l.split(": ", 1) for l in part.decode().split("\n") if ": " in l)
            part = b""
            if not fields: continue
            assert int(fields["id"]) == last + 1, (fields, last)
            last = int(fields["id"])
            event = json.loads(fields["data"])
            if event["event"] == "stdout":
                import base64
                out += event["text"].encode() if "text" in event else base64.b64decode(event["base64"])
            if event["event"] == "exit":
                sys.stdout.buffer.write(out); sys.exit(0)
    except (OSError, ValueError): pass
    except Exception as e:
        if "IncompleteRead" not in type(e).__name__: raise
P
rm -f "$TMP/cuts"
id=$(silt run -d print.py 2>/dev/null)
same "by Last-Event-ID" "$wanted_out" "$(python3 "$TMP/sse.py" "http://$(cat "$TMP/proxy")/v1/runs/$id/events" | sha256sum)"
# A server that is restarted meanwhile ends the run; who follows is told so.
printf 'import time\nprint("begun", flush=True)\ntime.sleep(100)\n' >long.py
id=$(silt run -d long.py 2>/dev/null)
start_silt "$TMP/restart.out" "$TMP/restart.err" logs -f "$id"
check "a follower is there" wait_until 20 grep -qs begun "$TMP/restart.out"
kill_server
start_server
SILT_SERVER=$(cat "$TMP/proxy")
await_silt 40
same "after a restart the follower ends" 0 "$code"
same "having told everything once" begun "$(cat "$TMP/restart.out")"
try silt logs -f run_00000000000000000000000000
check "a run that never was is refused at once" test "$code" -ne 0
finish
