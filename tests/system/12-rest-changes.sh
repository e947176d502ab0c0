#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: change sets as JSON: each operation, all or nothing, conditions, order per client, repeats.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
start_server
new_sandbox '{"language":"python"}'
W=$DATA/workspaces/$SB
changes() { call POST "/v1/sandboxes/$SB/changes" -H 'Content-Type: application/json' -d "$1"; }
generation() { rest GET "/v1/sandboxes/$SB" | json - generation; }

changes '{"ops":[{"op":"put","path":"a.py","text":"x = 1\n"},{"op":"put","path":"bin/b","base64":"AAEC","mode":"0755"},
    {"op":"mkdir","path":"empty"},{"op":"symlink","path":"link","target":"a.py"}]}'
expect 'put, mkdir and symlink' 200
same 'one set, one generation' 1 "$(field generation)"
same 'what it created, the folder on the way included' 5 "$(field created)"
same 'text' 'x = 1' "$(cat "$W/a.py")"
same 'bytes' 000102 "$(od -An -tx1 "$W/bin/b" | tr -d ' ')"
check 'mode' test -x "$W/bin/b"
check 'folder' test -d "$W/empty"
same 'symlink' a.py "$(readlink "$W/link")"

changes '{"ops":[{"op":"edit","path":"a.py","old":"x = 1","new":"x = 2"},{"op":"move","path":"bin","to":"tools"},
    {"op":"copy","path":"a.py","to":"copy.py"},{"op":"chmod","path":"tools/b","mode":"0644"},{"op":"delete","path":"empty"}]}'
expect 'edit, move, copy, chmod and delete' 200
same 'edit' 'x = 2' "$(cat "$W/a.py")"
check 'move of a folder' test -f "$W/tools/b"
check 'nothing is left where it was' test ! -e "$W/bin"
check 'chmod' test ! -x "$W/tools/b"
check 'copy' test -f "$W/copy.py"
check 'delete' test ! -e "$W/empty"
changes '{"ops":[]}'
same 'an empty set takes no generation' 2 "$(field generation)"
changes '{"ops":[{"op":"put","path":"tmp","text":"1"},{"op":"move","path":"tmp","to":"final"},{"op":"delete","path":"copy.py"}]}'
expect 'operations are simulated in order' 200
check 'a path that came and went' test ! -e "$W/tmp"
same 'its net effect' 1 "$(cat "$W/final")"

# All or nothing
before=$(cd "$W" && find . | sort)
refused() {
    changes "$2"
    expect "$1" "$3" "$4"
}
refused 'edit without a match' '{"ops":[{"op":"put","path":"new1","text":""},{"op":"edit","path":"a.py","old":"nope","new":""}]}' 409 edit_no_match
refused 'edit with two matches' '{"ops":[{"op":"put","path":"a.py","text":"y y"},{"op":"edit","path":"a.py","old":"y","new":"z"}]}' 409 edit_ambiguous
refused 'a wrong base' '{"ops":[{"op":"put","path":"new2","text":""},{"op":"put","path":"a.py","text":"","base":"absent"}]}' 409 base_mismatch
same 'the path is named' a.py "$(field 'error.details.conflicts[0].path')"
check 'with what is there' grep -q xxh3 <<<"$(field 'error.details.conflicts[0].hash')"
refused 'a wrong generation' '{"ops":[{"op":"put","path":"new3","text":""}],"if_generation":1}' 409 generation_mismatch
refused 'a wrong epoch' '{"ops":[{"op":"put","path":"new4","text":""}],"epoch":"ep_other"}' 409 epoch_mismatch
refused 'a wrong hash' '{"ops":[{"op":"put","path":"new5","text":"x","hash":"xxh3-128:00000000000000000000000000000000"}]}' 409 hash_mismatch
refused 'an unknown operation' '{"ops":[{"op":"put","path":"new6","text":""},{"op":"touch","path":"x"}]}' 422 invalid_value
contains 'is named by its number' 'operation 2' "$(field error.message)"
refused 'a path that leaves' '{"ops":[{"op":"put","path":"../x","text":""}]}' 422 invalid_path
refused 'a missing content' '{"ops":[{"op":"put","path":"x"}]}' 422 invalid_value
refused 'a file as a folder' '{"ops":[{"op":"put","path":"a.py/x","text":""}]}' 409 path_conflict
refused 'no ops' '{}' 422 invalid_value
refused 'a misspelt member' '{"opps":[]}' 422 invalid_value
same 'the refused sets left nothing' "$before" "$(cd "$W" && find . | sort)"
same 'and took no generation' 3 "$(generation)"
call POST "/v1/sandboxes/$SB/changes" -H 'Content-Type: text/plain' -d x
expect 'another type' 415 unsupported_media_type
call POST "/v1/sandboxes/$SB/changes" -H 'Content-Type: application/vnd.silt.changes.v1' -d 'no change set'
expect 'a framed body that is none' 400 bad_changes
changes '{"ops":[{"op":"put","path":"ok","text":""}],"if_generation":3}'
expect 'the right generation' 200

# Order and repeats per client
set1='{"client":"lk_a.1","seq":1,"ops":[{"op":"put","path":"n","text":"1"}]}'
changes "$set1"
expect 'a numbered set' 200
taken=$(field generation)
changes "$set1"
expect 'the same again' 200
same 'is answered from memory' true "$(field repeated)"
same 'with the same generation' "$taken" "$(field generation)"
changes '{"client":"lk_a.1","seq":1,"ops":[{"op":"put","path":"n","text":"other"}]}'
expect 'another content under the same number' 409 seq_conflict
changes '{"client":"lk_a.1","seq":2,"ops":[{"op":"edit","path":"n","old":"nope","new":""}]}'
expect 'a set that is refused' 409 edit_no_match
changes '{"client":"lk_a.1","seq":3,"ops":[{"op":"put","path":"n","text":"3"}]}'
expect 'refuses the one built on it' 409 predecessor_refused
changes '{"client":"lk_a.1","seq":4,"parent":1,"ops":[{"op":"put","path":"n","text":"4"}]}'
expect 'one that builds on the last good one' 200
changes '{"client":"lk_b.1","seq":1,"ops":[]}'
expect 'another link does not write' 409 linked_elsewhere

# The barrier
run '{"command":"cat n","after":{"client":"lk_a.1","seq":4}}'
same 'a run after a set that is there' 4 "$(field stdout)"
run '{"command":"cat n","after":{"client":"lk_a.1","seq":2}}'
expect 'a run after a set that was refused' 409 barrier_refused
run '{"command":"cat n","after":{"client":"lk_a.1","seq":5},"detach":true}'
id=$(field id)
sleep 1
rest POST "/v1/sandboxes/$SB/changes" -d '{"client":"lk_a.1","seq":5,"ops":[{"op":"put","path":"n","text":"5"}]}' >/dev/null
call GET "/v1/runs/$id?wait_ms=60000"
same 'a run waits for a set that is on its way' 5 "$(field stdout)"
check 'and says how long' test "$(field 'barrier_ms|floor')" -ge 100
run '{"filename":"late.py","changes":{"ops":[{"op":"put","path":"late.py","text":"print(6)"}]}}'
same 'a run brings its own changes' 6 "$(field stdout)"
run '{"filename":"late.py","changes":{"ops":[{"op":"edit","path":"late.py","old":"nope","new":""}]}}'
expect 'which may be refused' 409 edit_no_match
finish
