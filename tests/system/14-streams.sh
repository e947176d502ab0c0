#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: output arrives while the program runs, as SSE and as lines of JSON; a stream can be replayed and
# joined; a client that leaves ends its run, one that reads slowly does not hold it up.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
start_server
new_sandbox '{"language":"python"}'
X=/v1/sandboxes/$SB/exec

leave() {
    kill -KILL "$STREAM"
    wait "$STREAM" 2>/dev/null
}

# Live: the program waits for a file that this script makes after it saw the first line.
put live.py 'import os, sys, time
sys.stdout.write("first\n")
for _ in range(600):
    if os.path.exists("go"): break
    time.sleep(0.05)
sys.stderr.write("second\n")'
start_stream() { # OUT CURL…
    local out=$1
    shift
    curl -sN --max-time 60 "$@" "$URL$X" >"$out" &
    STREAM=$!
    OWN_PIDS="$OWN_PIDS $STREAM"
}
: >"$TMP/sse.head"
start_stream "$TMP/sse" -D "$TMP/sse.head" -d '{"filename":"live.py","stream":true}'
check 'the run id comes at once' wait_until 10 grep -qi '^Silt-Run-Id: run_' "$TMP/sse.head"
check 'the first line comes while the program runs' wait_until 10 grep -q '"text":"first' "$TMP/sse"
check 'the second is not there yet' not grep -q second "$TMP/sse"
put go ''
wait "$STREAM"
same 'it is an event stream' text/event-stream "$(sed -n 's/^content-type: //Ip' "$TMP/sse.head" | tr -d '\r')"
same 'start, stdout, stderr, exit' 'start stdout stderr exit' "$(sed -n 's/^event: //p' "$TMP/sse" | tr '\n' ' ' | sed 's/ $//')"
same 'each with its id' '1 2 3 4' "$(sed -n 's/^id: //p' "$TMP/sse" | tr '\n' ' ' | sed 's/ $//')"
last=$(sed -n 's/^data: //p' "$TMP/sse" | tail -n 1)
same 'exit carries the run' succeeded "$(json - run.status <<<"$last")"
same 'without its output' null "$(json - run.stdout <<<"$last")"
check 'the change in between is told' test "$(json - run.changed_during_run <<<"$last")" = true
id=$(json - run.id <<<"$last")

call GET "/v1/runs/$id/events"
same 'a finished run is replayed' "$(cat "$TMP/sse")" "$body"
call GET "/v1/runs/$id/events" -H 'Last-Event-ID: 2'
same 'from where one left' 'stderr exit' "$(sed -n 's/^event: //p' <<<"$body" | tr '\n' ' ' | sed 's/ $//')"
call GET "/v1/runs/$id/events" -H 'Accept: application/x-ndjson'
same 'or as lines of JSON' '["start","stdout","stderr","exit"]' "$(jq -sc 'map(.event)' <<<"$body")"
call GET "/v1/runs/$id/events" -H 'Last-Event-ID: x'
expect 'a Last-Event-ID that is none' 422 invalid_value

# Lines of JSON, bytes, characters cut in two
# What is no character comes only after the one before it was read: read together they would be one event.
start_stream "$TMP/pieces" -H 'Accept: application/x-ndjson' \
    -d '{"command":"printf \"\\303\"; sleep 0.2; printf \"\\274\"; until [ -e more ]; do sleep 0.02; done; printf \"\\377\""}'
check 'a character that was written in two pieces' wait_until 30 grep -q '"text":"ü"' "$TMP/pieces"
put more ''
wait "$STREAM"
same 'is one' '["ü"]' "$(jq -sc 'map(select(.event=="stdout" and .text)|.text)' "$TMP/pieces")"
same 'a byte that is no character' '["/w=="]' "$(jq -sc 'map(select(.base64)|.base64)' "$TMP/pieces")"
call POST "$X" -H 'Accept: application/x-ndjson' -d '{"command":"for i in $(seq 1 500); do echo out $i; echo err $i >&2; done"}'
same 'nothing is lost, in order' "$(seq -f 'out %g' 500)" "$(jq -sr 'map(select(.event=="stdout").text)|join("")' <<<"$body")"

# Errors before the program starts
call POST "$X" -H 'Accept: application/x-ndjson' -d '{"filename":"nosuch.py"}'
expect 'what is known at once is no stream' 404 file_not_found
call POST "$X" -H 'Accept: application/x-ndjson' -d '{"filename":"nosuch.py","changes":{"ops":[]}}'
same 'what shows later is an error event' '["start","error"]' "$(jq -sc 'map(.event)' <<<"$body")"
same 'with its code' file_not_found "$(jq -sr '.[1].error.code' <<<"$body")"

# A client that leaves
state() { [ "$(rest GET "/v1/runs/$1" | json - status)" = "$2" ]; }
start_stream "$TMP/left" -D "$TMP/left.head" -d '{"command":"echo x; sleep 60","stream":true}'
wait_until 10 grep -q '"text":"x' "$TMP/left"
id=$(sed -n 's/^silt-run-id: //Ip' "$TMP/left.head" | tr -d '\r')
leave
check 'its run is cancelled' wait_until 10 state "$id" cancelled
start_stream "$TMP/left2" -d '{"command":"echo waiting; sleep 60"}'
wait_until 10 eval 'id=$(rest GET "/v1/runs?status=running" | json - "items[0].id"); [ "$id" != null ]'
leave
check 'also without a stream' wait_until 10 state "$id" cancelled
start_stream "$TMP/left3" -D "$TMP/left3.head" -d '{"command":"echo x; sleep 2; echo y","stream":true,"detach":true}'
wait_until 10 grep -q '"text":"x' "$TMP/left3"
id=$(sed -n 's/^silt-run-id: //Ip' "$TMP/left3.head" | tr -d '\r')
leave
check 'a detached run goes on' wait_until 10 state "$id" succeeded
same 'to its end' '"x\ny\n"' "$(rest GET "/v1/runs/$id" | json - 'stdout|tojson')"

# Joining
run '{"command":"echo one; until [ -e two ]; do sleep 0.02; done; echo two","detach":true}'
id=$(field id)
curl -sN --max-time 60 -H 'Accept: application/x-ndjson' "$URL/v1/runs/$id/events" >"$TMP/joined" &
STREAM=$!
OWN_PIDS="$OWN_PIDS $STREAM"
wait_until 30 grep -q '"text":"one' "$TMP/joined"
put two ''
wait "$STREAM"
same 'one can join a run that goes on' '["one\n","two\n"]' "$(jq -sc 'map(select(.text).text)' "$TMP/joined")"

# A slow reader: the program writes 20 MB, far more than any buffer, and must end long before the client
# has read it.
mkfifo "$TMP/slow"
curl -sN --max-time 60 -H 'Accept: application/x-ndjson' "$URL$X" \
    -d '{"command":"head -c 20000000 /dev/zero | tr \"\\0\" a; touch done","limits":{"output_bytes":30000000}}' >"$TMP/slow" &
STREAM=$!
OWN_PIDS="$OWN_PIDS $STREAM"
exec 9<"$TMP/slow"
check 'a slow client does not hold up the program' wait_until 30 test -e "$DATA/workspaces/$SB/done"
same 'and misses nothing' 20000000 "$(jq -r 'select(.text).text' <&9 | tr -d '\n' | wc -c)"
exec 9<&-
wait "$STREAM"
finish
