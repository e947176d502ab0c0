#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: uploads that go on where they were cut off, the events of a sandbox as they happen and as they
# happened, and signatures of files, over plain REST.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
start_server --workspace-size 1073741824
cd "$TMP" || exit 1
new_sandbox
OTHER=$SB
new_sandbox '{"language":"python"}'
S=/v1/sandboxes/$SB
W=$DATA/workspaces/$SB
staged() { find "$DATA/staging/$1" -name 'st_*' | wc -l; }
new_stage() {
    call POST "$S/stages" -d "$1"
    STAGE=$(field id)
}
patch() { call PATCH "$S/stages/$1" -H "Upload-Offset: $2" "${@:3}"; }
apply() { call POST "$S/changes" -d "$1"; }
hash_of() { rest HEAD "/v1/sandboxes/$1/files/$2" --head | sed -n 's/^etag: "\(.*\)"\r$/\1/Ip'; }

# ---- 1. A file in two pieces
new_stage '{"size":10}'
expect 'a new stage' 201
check 'has an id' grep -qxE 'st_[a-z2-7]{26}' <<<"$STAGE"
same 'and nothing in it' '0 of 10' "$(field offset) of $(field size)"
same 'Location names it' "$S/stages/$STAGE" "$(header Location)"
check 'an answer ends with a newline' test "$(tail -c 1 "$TMP/body" | od -An -tx1)" = ' 0a'
patch "$STAGE" 0 --data-binary hello
expect 'the first piece' 200
same 'is counted' 5 "$(field offset)"
apply "{\"ops\":[{\"op\":\"put\",\"path\":\"a\",\"stage\":\"$STAGE\"}]}"
expect 'a set cannot take half of it' 409 offset_mismatch
patch "$STAGE" 3 --data-binary world
expect 'a wrong place' 409 offset_mismatch
same 'tells the right one' '5 5' "$(field error.details.offset) $(header Upload-Offset)"
patch "$STAGE" 5 --data-binary worldmore
expect 'more than was announced' 413 too_large
same 'is not taken' 5 "$(field error.details.offset)"
patch "$STAGE" 5 --data-binary world
same 'all is there' 10 "$(field offset)"
call HEAD "$S/stages/$STAGE"
same 'HEAD tells it' '200 10 10' "$status $(header Upload-Offset) $(header Upload-Length)"
apply "{\"ops\":[{\"op\":\"put\",\"path\":\"dir/a\",\"stage\":\"$STAGE\",\"base\":\"dir\"}]}"
expect 'a set that is refused' 409 base_mismatch
same 'says where the sandbox is' 0 "$(field error.details.generation)"
check 'and its epoch' grep -q '^ep_' <<<"$(field error.details.epoch)"
same 'and what is there' '{"exists":false,"path":"dir/a"}' "$(field 'error.details.conflicts[0]|tojson' | jq -cS .)"
call GET "$S/stages/$STAGE"
same 'gives the stage back' '200 10' "$status $(field offset)"
apply "{\"ops\":[{\"op\":\"put\",\"path\":\"dir/a\",\"stage\":\"$STAGE\",\"mode\":\"0755\"},{\"op\":\"copy\",\"path\":\"dir/a\",\"to\":\"b\"}]}"
expect 'a set that names it' 200
same 'it lies in the workspace' helloworld "$(cat "$W/dir/a")"
same 'with its mode' 755 "$(stat -c %a "$W/dir/a")"
same 'it belongs to the sandbox' "$(stat -c %u "$W")" "$(stat -c %u "$W/dir/a")"
same 'later operations of the set see it' helloworld "$(cat "$W/b")"
call GET "$S/stages/$STAGE"
expect 'a stage is used once' 404 stage_not_found
same 'nothing of it stays' 0 "$(staged "$SB")"
run '{"command":"cat dir/a"}'
same 'a program reads it' helloworld "$(field stdout)"
same 'and is not thought to have changed it' 0 "$(field files_changed_total)"

# ---- 2. A connection that breaks
head -c 8000000 /dev/urandom >large
call PUT "/v1/sandboxes/$OTHER/files/large" --data-binary @large
HASH=$(field hash)
new_stage "{\"size\":8000000,\"hash\":\"$HASH\"}"
curl -sS -X PATCH -H 'Upload-Offset: 0' --limit-rate 4M --max-time 1 --data-binary @large "$URL$S/stages/$STAGE" >/dev/null 2>&1
same 'an upload is cut off' 28 $?
settled() {
    call GET "$S/stages/$STAGE"
    [ "$(field offset)" = "${before:-}" ] && return 0
    before=$(field offset)
    pause 0.2
    return 1
}
wait_until 20 settled
offset=$(field offset)
check 'what arrived is kept' test "$offset" -gt 0 -a "$offset" -lt 8000000
tail -c +$((offset + 1)) large >rest
free() { patch "$STAGE" "$offset" --data-binary @rest && [ "$status" != 429 ]; }
wait_until 20 free
expect 'the rest follows' 200
same 'and completes it' 8000000 "$(field offset)"
apply "{\"ops\":[{\"op\":\"put\",\"path\":\"large\",\"stage\":\"$STAGE\",\"hash\":\"$HASH\"}]}"
expect 'a set takes it' 200
check 'it is the same file' cmp -s large "$W/large"

# ---- 3. Another content than was announced
new_stage "{\"size\":5,\"hash\":\"$HASH\"}"
patch "$STAGE" 0 --data-binary wrong
expect 'a wrong hash' 409 hash_mismatch
same 'empties the stage' 0 "$(field error.details.offset)"
apply "{\"ops\":[{\"op\":\"put\",\"path\":\"x\",\"stage\":\"$STAGE\"}]}"
expect 'so that no set can take it' 409 offset_mismatch
new_stage '{"size":5}'
patch "$STAGE" 0 --data-binary wrong
apply "{\"ops\":[{\"op\":\"put\",\"path\":\"x\",\"stage\":\"$STAGE\",\"hash\":\"$HASH\"}]}"
expect 'the set may know the hash, too' 409 hash_mismatch
check 'nothing was placed' test ! -e "$W/x"
call DELETE "$S/stages/$STAGE"
expect 'a stage is given up' 204
call DELETE "$S/stages/$STAGE"
expect 'once' 404 stage_not_found

# ---- 4. What is none
for bad in st_ 'st_..%2f..%2fsilt.db' '%2e%2e%2fsilt.db' ST_aaaaaaaaaaaaaaaaaaaaaaaaaa; do
    call GET "$S/stages/$bad" --path-as-is
    expect "GET $bad" 404 stage_not_found
    call DELETE "$S/stages/$bad" --path-as-is
    expect "DELETE $bad" 404 stage_not_found
done
apply '{"ops":[{"op":"put","path":"x","stage":"../../silt.db"}]}'
expect 'a path for a stage' 422 invalid_value
apply '{"ops":[{"op":"put","path":"x","stage":"st_aaaaaaaaaaaaaaaaaaaaaaaaaa"}]}'
expect 'one that never was' 404 stage_not_found
apply '{"ops":[{"op":"put","path":"x","stage":"st_aaaaaaaaaaaaaaaaaaaaaaaaaa","text":""}]}'
expect 'two contents' 422 invalid_value
new_stage '{"size":3}'
patch "$STAGE" 0 --data-binary abc
call POST "/v1/sandboxes/$OTHER/changes" -d "{\"ops\":[{\"op\":\"put\",\"path\":\"x\",\"stage\":\"$STAGE\"}]}"
expect 'the stage of another sandbox' 404 stage_not_found
call GET "/v1/sandboxes/$OTHER/stages/$STAGE"
expect 'is not seen there' 404 stage_not_found
apply "{\"ops\":[{\"op\":\"put\",\"path\":\"../x\",\"stage\":\"$STAGE\"}]}"
expect 'it leads out of no workspace' 422 invalid_path
for bad in '' '{"size":-1}' '{"size":"1"}' '{"size":1,"hash":"md5:1"}' '{"size":1,"offset":1}'; do
    call POST "$S/stages" -d "$bad"
    expect "a new stage by '$bad'" 422 invalid_value
done
call PATCH "$S/stages/$STAGE" --data-binary abc
expect 'PATCH without Upload-Offset' 422 invalid_value
new_stage '{"size":1073741824}'
expect 'more than a workspace may hold' 507 no_space

# ---- 5. Bounds, and the end
call GET "$S/stages/$STAGE"
count=$(staged "$SB")
while [ "$count" -lt 16 ]; do
    new_stage '{"size":1}'
    count=$((count + 1))
done
expect 'sixteen stages' 201
new_stage '{"size":1}'
expect 'one more' 429 busy
same 'sixteen files' 16 "$(staged "$SB")"
new_sandbox
call POST "/v1/sandboxes/$SB/stages" -d '{"size":4}'
call DELETE "/v1/sandboxes/$SB"
check 'stages go with their sandbox' test ! -e "$DATA/staging/$SB"

# ---- 6. Events
new_sandbox '{"language":"python"}'
S=/v1/sandboxes/$SB
follow() { # OUT ARG…
    curl -sSN "${@:2}" "$URL$S/events" >"$TMP/$1" 2>&1 &
    OWN_PIDS="$OWN_PIDS $!"
    FOLLOWER=$!
}
has() { [ "$(cat "$TMP/$1" 2>/dev/null | grep -c "$2")" -ge "${3:-1}" ]; }
lines() { grep -v '^$' "$TMP/$1"; }
follow sse
follow ndjson -H 'Accept: application/x-ndjson'
check 'a stream begins at once' wait_until 10 has sse '^event: start'
check 'in both forms' wait_until 10 has ndjson '"start"'
apply '{"client":"lk_a.1","seq":1,"ops":[{"op":"put","path":"w.py","text":"open(\"made\",\"w\").write(\"1\")"}]}'
run '{"filename":"w.py"}'
RUN=$(field id)
same 'a program changed something' succeeded "$(field status)"
check 'its end is told' wait_until 10 has ndjson succeeded
lines ndjson | jq -c 'del(.at,.id,.epoch,.sandbox)' >told
same 'what happened, in order' "$(jq -c . <<END
{"event":"start","generation":0}
{"event":"generation","generation":1,"by":"changes","client":"lk_a.1","seq":1,"run":null}
{"event":"run","run":"$RUN","status":"queued"}
{"event":"run","run":"$RUN","status":"running"}
{"event":"generation","generation":2,"by":"run","client":null,"seq":null,"run":"$RUN"}
{"event":"run","run":"$RUN","status":"succeeded"}
END
)" "$(cat told)"
same 'ids go up by one' true "$(lines ndjson | jq -s '[.[].id] as $i|$i==[range($i[0];$i[0]+($i|length))]')"
check 'server-sent events say the same' wait_until 10 has sse '"succeeded"'
same 'the same' "$(lines ndjson)" "$(sed -n 's/^data: //p' sse)"
same 'with their ids' "$(lines ndjson | jq .id)" "$(sed -n 's/^id: //p' sse)"
id=$(lines ndjson | jq -s '.[2].id')
follow later -H 'Accept: application/x-ndjson' -H "Last-Event-ID: $id"
check 'Last-Event-ID goes on behind it' wait_until 10 has later succeeded
same 'and repeats nothing' "$(lines ndjson | tail -n +4)" "$(lines later)"
follow whole -H 'Accept: application/x-ndjson' -G -d after=0
check 'after=0 tells all' wait_until 10 has whole succeeded
same 'from the beginning' "$(lines ndjson | tail -n +2)" "$(lines whole)"
call HEAD "$S/events"
same 'HEAD has an end' '200 text/event-stream' "$status $(header Content-Type)"
call GET "$S/events?after=x"
expect 'an id that is none' 422 invalid_value
follow old -H 'Accept: application/x-ndjson' -G -d after=17
check 'one of another time is a gap' wait_until 10 has old '"gap"'
for ((i = 1; i <= 300; i++)); do
    printf 'url = "%s"\ndata = "{\\"ops\\":[{\\"op\\":\\"put\\",\\"path\\":\\"n\\",\\"text\\":\\"%d\\"}]}"\nnext\n' "$URL$S/changes" "$i"
done >batch
curl -sS -K batch >/dev/null 2>&1
check 'one who follows gets all of many' wait_until 20 has ndjson '"generation":302,'
same 'each once' 302 "$(lines ndjson | jq -r 'select(.event=="generation").generation' | sort -n | uniq | wc -l)"
follow lost -H 'Accept: application/x-ndjson' -G -d "after=$id"
check 'one who was away for long' wait_until 10 has lost '"generation":302,"epoch":"[^"]*","by"'
same 'is told that some are lost' gap "$(lines lost | head -n 1 | jq -r .event)"
same 'and where the sandbox is' 302 "$(lines lost | head -n 1 | jq .generation)"
same 'and gets the last 256' 256 "$(lines lost | tail -n +2 | wc -l)"
if [ -z "$SANITISED" ]; then
    sleep 10.5
    check 'a heartbeat' grep -qx : sse
    check 'an empty line in ndjson' grep -qx '' ndjson
fi
curl -sS -X DELETE "$URL$S"
check 'the deletion is told' wait_until 10 has ndjson '"deleted"'
check 'it ends the stream' wait_until 10 ended "$FOLLOWER"
call GET "$S/events"
expect 'of a sandbox that is gone' 410 sandbox_deleted

# ---- 7. Events of a run: the same ways to go on
new_sandbox '{"language":"python"}'
S=/v1/sandboxes/$SB
run '{"command":["echo","1"]}'
RUN=$(field id)
wait_recorded() { rest GET "/v1/runs/$RUN/events?after=$1" -H 'Accept: application/x-ndjson' | jq -r .event | tr '\n' ' '; }
same 'after= goes on behind an event' 'exit ' "$(wait_recorded 2)"
same 'ids of a run begin at 1' 'stdout exit ' "$(wait_recorded 1)"
call POST "/v1/runs/$RUN/cancel"
same 'cancelling what has ended is no error' '200 succeeded' "$status $(field status)"

# ---- 8. Signatures
head -c 300000 /dev/urandom >old
call PUT "$S/files/some/old" --data-binary @old
call GET "$S/signature?path=some/old"
expect 'a signature' 200
same 'has the ETag of the file' "\"$(hash_of "$SB" some/old)\"" "$(header ETag)"
same 'and the form of librsync' '72 73 01 47' "$(head -c 4 "$TMP/body" | od -An -tx1 | sed 's/^ //')"
same 'twelve bytes, and some for each block' 0 "$((($(stat -c %s "$TMP/body") - 12) % 293))"
if command -v rdiff >/dev/null; then
    cp "$TMP/body" signature
    { head -c 1000 /dev/zero; cat old; } >new
    rdiff delta signature new delta && rdiff patch old delta back
    check 'rdiff makes a small delta from it' test "$(stat -c %s delta)" -lt 5000
    check 'which leads to the new file' cmp -s new back
fi
call GET "$S/signature?path=some/old" -H "If-None-Match: $(header ETag)"
expect 'known' 304
call GET "$S/signature?path=some/od"
expect 'of a file that is not there' 404 file_not_found
same 'with its neighbour' some/old "$(field 'error.details.near[0]')"
call GET "$S/signature?path=some"
expect 'of a folder' 409 path_conflict
call GET "$S/signature"
expect 'of nothing' 422 invalid_path
call GET "$S/signature?path=../../silt.db"
expect 'of what is none of its business' 422 invalid_path
call PUT "$S/files/empty" --data-binary ''
call GET "$S/signature?path=empty"
same 'of an empty file' '200 12' "$status $(stat -c %s "$TMP/body")"

# ---- 9. Followers do not hold the end up, and stages outlive it, and a crash
new_stage '{"size":9}'
patch "$STAGE" 0 --data-binary one
follow last
check 'somebody follows' wait_until 10 has last start
begin=$SECONDS
stop_server
below 'the server stops at once' 8 $((SECONDS - begin))
check 'and ends the stream' ended "$FOLLOWER"
start_server
call GET "$S/stages/$STAGE"
same 'a stage outlives a stop of the server' '200 3' "$status $(field offset)"
patch "$STAGE" 3 --data-binary two
kill_server
start_server
patch "$STAGE" 6 --data-binary six
same 'and a crash' '200 9' "$status $(field offset)"
apply "{\"ops\":[{\"op\":\"put\",\"path\":\"kept\",\"stage\":\"$STAGE\",\"hash\":\"$(printf onetwosix >"$TMP/kept" && call PUT "$S/files/same" --data-binary @"$TMP/kept" && hash_of "$SB" same)\"}]}"
expect 'with all that came' 200
same "in order" onetwosix "$(rest GET "$S/files/kept")"
new_stage '{"size":9}'
call DELETE "$S/stages/$STAGE"
finish
