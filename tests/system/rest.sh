# SPDX-License-Identifier: MIT
# For the scenarios that talk to the server with curl alone. Source after lib.sh.
#     call METHOD PATH [CURL…]   a request; its status in $status, its body in $body, headers in $TMP/head
#     field PATH                 a member of $body, by jq's path without the first dot
#     header NAME                a header of the answer to the last call
#     new_sandbox [JSON]         the id of a new sandbox, in $SB
#     put PATH CONTENT           a file into $SB
#     run JSON                   POST …/exec in $SB
#     expect TEXT STATUS [CODE]  the last call had this status (and this error code)
status='' body='' SB=''

call() {
    local method=$1 path=$2
    shift 2
    [ "$method" = HEAD ] && set -- --head "$@"
    status=$(curl -sS -X "$method" -D "$TMP/head" -o "$TMP/body" -w '%{http_code}' --max-time 60 "$@" "$URL$path")
    body=$(tr -d '\0' <"$TMP/body" 2>/dev/null)
}
field() { printf '%s' "$body" | json - "$1"; }
header() { sed -n "s/^$1: //Ip" "$TMP/head" | tr -d '\r' | tail -n 1; }
new_sandbox() {
    call POST /v1/sandboxes -d "${1:-{\}}"
    SB=$(field id)
}
put() { printf '%s' "$2" | rest PUT "/v1/sandboxes/$SB/files/$1" --data-binary @- >/dev/null; }
run() { call POST "/v1/sandboxes/$SB/exec" -d "$1"; }
expect() {
    same "$1: status" "$2" "$status"
    [ $# -lt 3 ] || same "$1: code" "$3" "$(field error.code)"
}
