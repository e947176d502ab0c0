#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: sandboxes over plain REST, as somebody with curl alone meets them: create, list, change, delete;
# and what the server says about mistakes.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
start_server

call POST /v1/sandboxes -d '{"language":"python"}'
expect 'curl -d creates a sandbox, whatever type it says' 201
SB=$(field id)
check 'its id is sb_ and 26 characters' grep -qxE 'sb_[a-z2-7]{26}' <<<"$SB"
same 'Location names it' "/v1/sandboxes/$SB" "$(header Location)"
same 'it has its language' python "$(field language)"
same 'it is ready' ready "$(field status)"
same 'it begins at generation 0' 0 "$(field generation)"
check 'created_at is RFC 3339 with microseconds' grep -qxE '[0-9-]{10}T[0-9:]{8}\.[0-9]{6}Z' <<<"$(field created_at)"
check 'it has a folder on disk' test -d "$DATA/workspaces/$SB"

call POST /v1/sandboxes -d '{"language":"py","name":"n","env":{"A":"1"},"labels":{"k":"v"},"limits":{"pids":40},"idle_ttl_s":3600,"network":{"mode":"none"}}'
expect 'all properties' 201
OTHER=$(field id)
same 'an alias becomes the language' python "$(field language)"
same 'name' n "$(field name)"
same 'env' 1 "$(field env.A)"
same 'labels' v "$(field labels.k)"
same 'limits' 40 "$(field limits.pids)"
same 'the other limits are the usual ones' 60000 "$(field limits.wall_ms)"
same 'idle_ttl_s' 3600 "$(field idle_ttl_s)"
call POST /v1/sandboxes
expect 'an empty body is an empty object' 201
THIRD=$(field id)

call GET "/v1/sandboxes/$OTHER"
expect 'one can be read' 200
same 'it is the same one' "$OTHER" "$(field id)"
call GET '/v1/sandboxes?limit=2'
same 'a list has at most limit items' 2 "$(field 'items|length')"
first=$(field 'items[0].id')
call GET "/v1/sandboxes?limit=2&cursor=$(field next_cursor)"
same 'next_cursor leads to the rest' 1 "$(field 'items|length')"
same 'and there it ends' null "$(field next_cursor)"
same 'oldest first' "$SB" "$first"

call PATCH "/v1/sandboxes/$OTHER" -d '{"name":"m","env":{"B":"2"},"idle_ttl_s":0}'
expect 'PATCH' 200
same 'the name is new' m "$(field name)"
same 'env is replaced' '{"B":"2"}' "$(field 'env|tojson')"
same 'what was not named stays' v "$(field labels.k)"
same 'no ttl' null "$(field idle_ttl_s)"
call PATCH "/v1/sandboxes/$OTHER" -d '{"writer":{"link":"lk_a","machine":"laptop"}}'
expect 'the writer lease is taken' 200
same 'and shown' lk_a "$(field writer.link)"
call PATCH "/v1/sandboxes/$OTHER" -d '{"writer":{"link":"lk_b","machine":"desk"}}'
expect 'another link is refused' 409 linked_elsewhere
contains 'with the machine that holds it' laptop "$(field error.message)"
call PATCH "/v1/sandboxes/$OTHER" -d '{"writer":{"link":"lk_b","machine":"desk","steal":true}}'
expect 'unless it steals the lease' 200
same 'which is its own now' lk_b "$(field writer.link)"

# Mistakes
refused() {
    call POST /v1/sandboxes -d "$2"
    expect "$1" "$3" "$4"
    [ $# -lt 5 ] || contains "$1: says what to do" "$5" "$(field error.message)"
}
refused 'no JSON' '{"language":' 400 bad_json 'line 1'
refused 'a member given twice' '{"name":"a","name":"b"}' 400 bad_json
refused 'no object' '[]' 422 invalid_value
refused 'an unknown member' '{"langage":"python"}' 422 invalid_value "did you mean 'language'"
refused 'an unknown language' '{"language":"pyton"}' 422 unknown_language python
check 'the known languages are listed' grep -q '"python"' <<<"$(field 'error.details.known|tojson')"
refused 'an unknown image' '{"image":"nosuch"}' 422 unknown_image
refused 'a wrong type' '{"name":7}' 422 invalid_value "'name' must be a text"
refused 'a network' '{"network":{"mode":"host"}}' 422 invalid_value 'no network'
refused 'a limit beyond the most' '{"limits":{"pids":99999999}}' 422 invalid_value "'pids'"
refused 'a bad variable' '{"env":{"A=B":"x"}}' 422 invalid_value
same 'errors carry the request id' req_ "$(field error.request_id | cut -c1-4)"
same 'and say whether to try again' false "$(field error.retryable)"

call GET /v1/sandbox
expect 'an unknown path' 404 not_found
contains 'names its neighbour' /v1/sandboxes "$(field error.message)"
call PUT /v1/sandboxes
expect 'a wrong method' 405 method_not_allowed
check 'Allow lists the right ones' grep -q POST <<<"$(header Allow)"
call GET /mcp
expect 'a reserved path' 404 not_found
contains 'says that it is reserved' reserved "$(field error.message)"
call GET /v1/sandboxes/sb_aaaaaaaaaaaaaaaaaaaaaaaaaa
expect 'a sandbox that never was' 404 sandbox_not_found
call GET /v1/sandboxes -H 'Silt-Protocol: 2'
expect 'a newer protocol' 426 upgrade_required
contains 'says who must upgrade' server "$(field error.message)"
call POST /v1/sandboxes -H 'Origin: http://evil.example' -d '{}'
expect 'a foreign web page' 403 forbidden_origin
call GET /v1/sandboxes -H 'Host: evil.example'
expect 'a foreign name (DNS rebinding)' 403 forbidden_origin

# What describes the server
call GET /healthz
same 'healthz' ok "$(field status)"
call GET /v1/info
same 'info knows python' true "$(field 'languages|map(select(.name=="python"))[0].installed')"
call GET /openapi.json
same 'openapi.json is version 3' 3.0.3 "$(field openapi)"
check 'and knows exec' grep -q '/v1/sandboxes/{id}/exec' <<<"$body"
call GET /metrics
check 'metrics count sandboxes' grep -qx 'silt_sandboxes 3' <<<"$body"

# The end
call DELETE "/v1/sandboxes/$SB"
expect 'DELETE' 204
check 'its folder is gone' test ! -e "$DATA/workspaces/$SB"
check 'its cache is gone' test ! -e "$DATA/cache/$SB"
call GET "/v1/sandboxes/$SB"
expect 'it existed: 410' 410 sandbox_deleted
for id in "$OTHER" "$THIRD"; do call DELETE "/v1/sandboxes/$id"; done
call GET /v1/sandboxes
same 'nothing is left' '[]' "$(field 'items|tojson')"

# One that nobody uses
new_sandbox '{"idle_ttl_s":1}'
gone() { [ ! -e "$DATA/workspaces/$SB" ]; }
check 'a sandbox that is idle too long is deleted' wait_until 20 gone
finish
