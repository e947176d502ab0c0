#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: siltd doctor says whether this machine has what siltd needs with these settings: nothing that
# works is called bad, what is missing is named with its cost and the command that mends it, nothing is
# left behind, and a server that runs is not disturbed.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"

doctor() { env -i PATH="$PLAIN_PATH" HOME="$SERVER_HOME" "${SAN_OPTIONS[@]}" "$SILTD" doctor "$@"; }
row() { jq -r --arg c "$1" '.checks[] | select(.check == $c) | .'"$2" <<<"$out"; }
FREE=(--listen 127.0.0.1:0 --data-dir "$TMP/data/x")
mkdir "$TMP/data"

try doctor "${FREE[@]}"
same 'where the scenarios run, nothing fails' 0 "$code"
contains 'a container was made' 'ok    container   one was made' "$out"
lacks 'and nothing is bad' 'BAD' "$out"
same 'nothing is said beside it' '' "$err"
same 'nothing is left behind' "$TMP/data" "$(find "$TMP/data")"
try doctor --json "${FREE[@]}"
same 'as JSON: good' true "$(json - good <<<"$out")"
contains 'the languages have versions' 'python 3.' "$(row languages text)"
same 'the container works' ok "$(row container verdict)"

try doctor --json "${FREE[@]}" --runtime "$TMP/no-crun"
same 'without a runtime: exit code 1' 1 "$code"
same 'the runtime is what is missing' fail "$(row runtime verdict)"
contains 'and how to get one' 'apt-get install crun' "$(row runtime mend)"
same 'no container is spoken of' '' "$(row container verdict)"
same 'silt-init is fine' ok "$(row silt-init verdict)"

try doctor --json "${FREE[@]}" --init "$TMP/no-init"
same 'without silt-init: exit code 1' 1 "$code"
same 'silt-init is what is missing' fail "$(row silt-init verdict)"
same 'the runtime is fine' ok "$(row runtime verdict)"
same 'no container is spoken of' '' "$(row container verdict)"
try doctor --json "${FREE[@]}" --init /bin/cat
contains 'an init that needs libraries is found' 'not static' "$(row silt-init text)"

mkdir -p "$TMP/images/good" "$TMP/images/bad"
ln -s / "$TMP/images/bad/proc"
try doctor --json "${FREE[@]}" --images "$TMP/images"
same 'an image that cannot be used: a warning' 'warn 0' "$(row images verdict) $code"
contains 'by its name' 'not usable: bad' "$(row images text)"
try doctor --json --data-dir /proc/here --listen 0.0.0.0:0 --runtime "$TMP/no-crun"
same 'other machines without a token: bad' 'fail 1' "$(row access verdict) $code"
same 'a data directory that cannot be made: bad' 'fail 1' "$(row data verdict) $code"
try doctor --jason
same 'a mistake in the options is none of the machine' 2 "$code"
try doctor --help
contains 'the help names it' 'siltd doctor [--json]' "$out"

start_server
try doctor --json --listen "$LISTEN" --data-dir "$DATA"
same 'beside a server that serves this data: fine' 'ok 0' "$(row address verdict) $code"
try doctor --json --listen "$LISTEN" --data-dir "$TMP/data/x" --runtime "$TMP/no-crun"
same 'its address for other data: taken' 'fail 1' "$(row address verdict) $code"
call POST /v1/sandboxes -d '{}'
expect 'the server serves on' 201
SB=$(field id)
call POST "/v1/sandboxes/$SB/exec" -d '{"command":"echo here"}'
same 'and runs programs' succeeded "$(field status)"
stop_server

if [ "$(id -u)" -eq 0 ]; then
    mkdir "$TMP/user" "$TMP/bin"
    cp "$SILTD" "$BUILD/silt-init" "$TMP/bin/"
    chown nobody "$TMP/user"
    try setpriv --reuid=nobody --regid=nogroup --clear-groups env -i PATH="$PLAIN_PATH" HOME="$TMP/user" \
        "${SAN_OPTIONS[@]}" "$TMP/bin/siltd" doctor --json --listen 127.0.0.1:0
    same 'an ordinary user is told what that costs' warn "$(row user verdict)"
    contains 'memory, where it has no cgroup of its own' 'per process' "$(row cgroups cost)"
    same 'and has containers' 'ok 0' "$(row container verdict) $code"
    same 'nothing is left behind' "$TMP/user" "$(find "$TMP/user")"
else
    try doctor --json "${FREE[@]}"
    same 'an ordinary user is told what that costs' warn "$(row user verdict)"
fi
finish
