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
    local method=$1 path=$2 answer=''
    shift 2
    [ "$method" = HEAD ] && set -- --head "$@"
    set -- -D "$TMP/head" -o "$TMP/body" --max-time "${GUEST:+2}60" "$@"
    if ask http "$PWD" "$BASHPID" "$URL" "$method" "$path" "$@"; then
        read -r _ status _ <<<"$answer"
        body=''
        IFS= read -r -d '' body <"$ASKED" || true
    else
        status=$(curl -sS -X "$method" -w '%{http_code}' "$@" "$URL$path")
        body=$(tr -d '\0' <"$TMP/body" 2>/dev/null)
    fi
}
field() { json - "$1" <<<"$body"; }
header() {
    local line name value=''
    while IFS= read -r line; do
        name=${line%%: *}
        [ "${name,,}" != "${1,,}" ] || value=${line#*: }
    done <"$TMP/head"
    printf '%s\n' "${value%$'\r'}"
}
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
