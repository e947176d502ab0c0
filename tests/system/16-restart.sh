#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: sandboxes and records outlive the server; a stop ends what runs and leaves nothing; after a kill
# the next start cleans up; an interrupted upload leaves no trace; two servers do not share a folder.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
start_server
new_sandbox '{"language":"python","name":"kept"}'
put main.py 'print("still here")'
run '{"filename":"main.py"}'
first=$(field id)
epoch=$(rest GET "/v1/sandboxes/$SB" | json - epoch)

"$SILTD" --listen 127.0.0.1:0 --data-dir "$DATA" >"$TMP/second.out" 2>&1
same 'a second server on the same folder ends' 1 $?
contains 'with a sentence' 'another siltd is running' "$(cat "$TMP/second.out")"
"$SILTD" --listen "$SILT_SERVER" --data-dir "$TMP/data2" >"$TMP/third.out" 2>&1
same 'as does one on the same port' 1 $?
contains 'with what to do' '--listen' "$(cat "$TMP/third.out")"

# A clean stop, in the middle of a run
curl -sS --max-time 30 "$URL/v1/sandboxes/$SB/exec" -d '{"command":"echo begun; sleep 60"}' >"$TMP/waiting" &
waiting=$!
OWN_PIDS="$OWN_PIDS $waiting"
running() { [ "$(rest GET '/v1/runs?status=running' | json - 'items|length')" = 1 ]; }
wait_until 10 running
stop_server 'a stop in the middle of a run leaves nothing behind'
wait "$waiting"
same 'whoever waited got an answer' cancelled "$(json "$TMP/waiting" status)"
same 'with the output so far' begun "$(json "$TMP/waiting" stdout)"

start_server
call GET "/v1/sandboxes/$SB"
expect 'the sandbox is there again' 200
same 'with its name' kept "$(field name)"
same 'after a clean stop its epoch is the same' "$epoch" "$(field epoch)"
run '{"filename":"main.py"}'
same 'and its files' 'still here' "$(field stdout)"
call GET "/v1/runs/$first"
same 'records outlive a restart' 'still here' "$(field stdout)"

# An upload that is cut off
(printf 'POST /v1/sandboxes/%s/files HTTP/1.1\r\nHost: %s\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 5000000\r\n\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="cut.bin"\r\n\r\n' "$SB" "$SILT_SERVER"
    head -c 1000000 /dev/zero) >"/dev/tcp/${SILT_SERVER%:*}/${SILT_SERVER##*:}" 2>/dev/null
nothing_staged() { [ -z "$(staging_leftovers)" ]; }
check 'an interrupted upload leaves nothing staged' wait_until 20 nothing_staged
check 'nor in the workspace' test ! -e "$DATA/workspaces/$SB/cut.bin"

# A kill in the middle of a run
run '{"command":"echo begun; sleep 300","detach":true}'
id=$(field id)
wait_until 10 running
curl -sS --max-time 60 "$URL/v1/sandboxes/$SB/exec" -d '{"command":"sleep 300"}' >/dev/null 2>&1 &
OWN_PIDS="$OWN_PIDS $!"
# The ids of those that run come from memory; what a kill leaves is in the database.
waited_for() { rest GET '/v1/runs?status=running' | jq -r --arg id "$id" '.items[].id | select(. != $id)'; }
recorded() { other=$(waited_for) && [ -n "$other" ] && cat "$DATA"/silt.db* | grep -qa "$other"; }
check 'a run whose client waits is recorded too, if it takes its time' wait_until 10 recorded
on_disk() { find "$DATA/runs" -type f -path "*$id*" -exec cat {} + | grep -qa begun; }
check 'what it printed reaches the disk while it runs' wait_until 30 on_disk
kill_server
start_server
call GET "/v1/runs/$id"
same 'a run of a killed server ended in an error' error "$(field status)"
contains 'that says so' 'the server stopped' "$(field reason)"
same 'so did the one that was waited for' error "$(rest GET "/v1/runs/$other" | json - status)"
call GET "/v1/runs/$id"
same 'with the output that was there' begun "$(field stdout)"
check 'its container is gone' wait_until 10 eval '[ -z "$(containers)" ]'
call GET "/v1/sandboxes/$SB"
check 'after a kill the epoch is new' test "$(field epoch)" != "$epoch"
run '{"filename":"main.py"}'
same 'and everything works' 'still here' "$(field stdout)"
stop_server
check 'no address file is left' test ! -e "$DATA/address"
"$SILTD" --max-rums 3 >"$TMP/typo.out" 2>&1
same 'a misspelt option' 2 $?
contains 'is corrected' '--max-runs' "$(cat "$TMP/typo.out")"
finish
