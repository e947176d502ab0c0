#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: whoever follows a run over a line that breaks again and again gets every event once and in order:
# live and afterwards, with `silt logs -f` and by Last-Event-ID, also across a restart of the server; `silt
# run` and `silt watch --run` survive a cut; and no program goes on for longer than its client said.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
start_server
new_project app

# A proxy that cuts each connection of a stream behind some bytes of the answer, a few more each time, while
# there is a file "cuts.on"; and all of them, new ones as well, while there is "away".
cat >"$TMP/line.py" <<'P'
import os, socket, sys, threading, time
host, port = sys.argv[1].rsplit(":", 1)
listen = socket.create_server(("127.0.0.1", 0))
open(sys.argv[2] + ".new", "w").write("127.0.0.1:%d" % listen.getsockname()[1])
os.rename(sys.argv[2] + ".new", sys.argv[2])
counted, away = sys.argv[3], sys.argv[4]
cuts, pairs = 0, set()
def shut(*ends):
    for s in ends:
        try: s.shutdown(socket.SHUT_RDWR)
        except OSError: pass
def up(c, s, limit):
    global cuts
    try:
        while data := c.recv(65536):
            if b"/exec HTTP" in data: limit[0] = 3000
            if b"/events?" in data or b"/events HTTP" in data:
                cuts += 1
                limit[0] = 700 + 311 * cuts
                open(counted, "w").write(str(cuts))
            s.sendall(data)
    except OSError: pass
    shut(c, s)
def down(s, c, limit):
    try:
        while data := s.recv(65536):
            if limit[0] is not None and os.path.exists(counted + ".on"):
                data = data[:limit[0]]
                limit[0] -= len(data)
            c.sendall(data)
            if limit[0] == 0: break
    except OSError: pass
    shut(c, s)
    pairs.discard((c, s))
def watch():
    while True:
        time.sleep(0.02)
        if os.path.exists(away):
            for pair in list(pairs): shut(*pair)
threading.Thread(target=watch, daemon=True).start()
while True:
    c, _ = listen.accept()
    try:
        if os.path.exists(away): raise OSError
        s = socket.create_connection((host, int(port)))
    except OSError:
        c.close(); continue
    limit = [None]
    pairs.add((c, s))
    threading.Thread(target=up, args=(c, s, limit), daemon=True).start()
    threading.Thread(target=down, args=(s, c, limit), daemon=True).start()
P
python3 "$TMP/line.py" "$SILT_SERVER" "$TMP/proxy" "$TMP/cuts" "$TMP/away" &
OWN_PIDS="$OWN_PIDS $!"
wait_until 10 test -s "$TMP/proxy"
DIRECT=$SILT_SERVER
SILT_SERVER=$(cat "$TMP/proxy")
touch "$TMP/cuts.on"

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

# ---- silt run

same "silt run: all of standard output, once" "$wanted_out" "$(silt run print.py 2>"$TMP/run.err" | sha256sum)"
same "silt run: all of standard error, and no word of silt's" "$wanted_err" "$(sha256sum <"$TMP/run.err")"
head -c 1000000 /dev/urandom >"$TMP/big"
cat >input.py <<'P'
import hashlib, sys, time
for i in range(40):
    print("line", i); time.sleep(0.02)
print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())
sys.exit(3)
P
silt run input.py <"$TMP/big" >"$TMP/input.out" 2>"$TMP/input.err"
same "its exit code is the program's" 3 "$?"
same "and its input is whole" "$(sha256sum <"$TMP/big" | cut -d' ' -f1)" "$(tail -n 1 "$TMP/input.out")"
same "each line once" 41 "$(sort -u "$TMP/input.out" | wc -l)"
rm "$TMP/cuts.on"

cat >wait.py <<'P'
import os, sys, time
print("begun", flush=True)
for i in range(600):
    if os.path.exists("over"): break
    time.sleep(0.1)
print("end")
sys.exit(4)
P
ends_as() { [ "$(silt --json ps | jq -r '.items[0].status')" = "$1" ]; }
over() { touch "$(workspace)/over"; }
begin() { # NAME ARG…
    rm -f "$(workspace)/over"
    start_silt "$TMP/$1.out" "$TMP/$1.err" "${@:2}"
    check "$1: begun" wait_until 20 grep -qs begun "$TMP/$1.out"
}
long_cut() { # NAME: longer than a second
    touch "$TMP/away"
    check "$1: a cut of more than a second is told" wait_until 20 grep -qs 'connection is cut' "$TMP/$1.err"
    rm "$TMP/away"
    check "$1: and its end, too" wait_until 20 grep -qs 'connected again' "$TMP/$1.err"
}
short_cut() {
    touch "$TMP/away"
    sleep 0.3
    rm "$TMP/away"
}
begin alone run wait.py
long_cut alone
over
await_silt
same "alone: exit code and output" "4 begun end" "$code $(xargs <"$TMP/alone.out")"
begin away run wait.py
touch "$TMP/away"
over
check "away: the program may end meanwhile" wait_until 20 grep -qs 'connection is cut' "$TMP/away.err"
rm "$TMP/away"
await_silt
same "away: exit code and output" "4 begun end" "$code $(xargs <"$TMP/away.out")"
begin ctrlc run wait.py
short_cut
end_silt INT
same "Ctrl-C ends the program, also then" 130 "$code"
check "as a cancelled one" ends_as cancelled
begin leave run wait.py
end_silt TERM
check "who leaves ends it at once" wait_until 10 ends_as cancelled
silt run -- sh -c 'yes | head -n 100000; sleep 60' 2>/dev/null | head -n 1 >"$TMP/pipe.out"
check "and so does a reader that goes" wait_until 10 ends_as cancelled

# ---- through a watcher

silt watch -d >/dev/null 2>&1
begin watched run wait.py
short_cut
over
await_silt
same "watched: exit code and output" "4 begun end" "$code $(xargs <"$TMP/watched.out")"
same "watched: and no word of a short cut" '' "$(cat "$TMP/watched.err")"
begin killed run wait.py
end_silt KILL 2>/dev/null
check "a command that is killed ends its run at once" wait_until 10 ends_as cancelled
begin again watch --run wait.py
long_cut again
echo '# changed' >>wait.py
check "a change ends the run that came back" wait_until 20 grep -qs stopped "$TMP/again.err"
twice() { [ "$(grep -c begun "$TMP/again.out")" -eq 2 ]; }
check "and starts the next" wait_until 20 twice
short_cut
over
check "again: the program's end is told" wait_until 20 grep -qs 'exit 4' "$TMP/again.err"
same "again: each line once" "begun begun end" "$(xargs <"$TMP/again.out")"
rm "$(workspace)/over"
echo '# changed' >>wait.py
check "again: once more" wait_until 20 eval '[ "$(grep -c begun "$TMP/again.out")" -eq 3 ]'
end_silt TERM
check "which ends with its command" wait_until 10 ends_as cancelled
none_runs() { [ "$(silt --json ps | jq '[.items[] | select(.status == "running")] | length')" -eq 0 ]; }
check "and none goes on" none_runs
silt stop >/dev/null 2>&1

# ---- the route

SB=$(sandbox)
hold() { # a run of curl's, which is ended when it has printed something; its id in $id
    curl -sN "$URL/v1/sandboxes/$SB/exec" -D "$TMP/hold.head" -d "$1" >"$TMP/hold.out" &
    local pid=$!
    wait_until 20 grep -q '"text":"x' "$TMP/hold.out"
    id=$(sed -n 's/^silt-run-id: //Ip' "$TMP/hold.head" | tr -d '\r')
    kill "$pid"
    wait "$pid" 2>/dev/null
}
state() { [ "$(rest GET "/v1/runs/$id" | json - status)" = "$1" ]; }
hold '{"command":"echo x; sleep 60","stream":true,"grace_ms":1000}'
check "a client that does not come back ends its run after the grace" wait_until 20 state cancelled
check "and the run says so" grep -q 'none came back within 1 s' <<<"$(rest GET "/v1/runs/$id" | json - reason)"
hold '{"command":"echo x; sleep 5; echo y","stream":true,"grace_ms":3000}'
call GET "/v1/runs/$id/events?after=2&attach=true" -H 'Accept: application/x-ndjson'
same "one that does keeps it, and goes on behind what it had" '[3,"y\n",4,"succeeded"]' \
    "$(jq -sc 'map(.id, (.text // .run.status))' <<<"$body")"
hold '{"command":"echo x; sleep 60","stream":true,"grace_ms":600000}'
call POST "/v1/runs/$id/cancel"
check "it can be ended before" wait_until 10 state cancelled
run '{"command":"true","grace_ms":600001}'
expect "a grace that is too long" 422 invalid_value
touch "$TMP/cuts.on"

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
