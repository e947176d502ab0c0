# SPDX-License-Identifier: MIT
# What the system scenarios share. A scenario is a file NN-topic.sh that sources this one, runs the real
# programs, and ends with `finish`. It prints one line per check: "ok - text" or "not ok - text"; what
# was expected and what came goes to standard error.
#
# BUILD names the folder with the programs (default: build). Everything a scenario makes lies in $TMP,
# which is removed at the end. Programs start with an empty environment, and only processes that were
# started here are ended, by their ids.
#
#     start_server [OPTION…]      siltd on a free port of loopback with the data directory $DATA; waits
#                                 until it serves. Sets SERVER_PID, SILT_SERVER (host:port) and URL. After
#                                 the first start the port stays, so a link survives a restart.
#     stop_server                 SIGTERM, then checks that nothing of it is left on the machine
#     kill_server                 SIGKILL
#     silt ARG…                   the agent, in the shell's directory
#     start_silt OUT ERR ARG…     the same in the background: SILT_PID; `end_silt [SIGNAL]` sets code
#     try COMMAND…                run it; its standard output, errors and exit code in $out $err $code
#     ok TEXT · not_ok TEXT       a result
#     check TEXT COMMAND…         ok when the command succeeds (`check TEXT not COMMAND…`: when it fails)
#     same TEXT EXPECTED ACTUAL · contains TEXT NEEDLE HAYSTACK · lacks TEXT NEEDLE HAYSTACK
#     below TEXT LIMIT ACTUAL     ok when ACTUAL is a number not above LIMIT
#     json FILE|- PATH            a member, by jq's path, whose first dot may be left out: json - 'runs[0].id'
#     rest METHOD PATH [CURL…]    a request to the server; prints the body, sets nothing
#     wait_until SECONDS COMMAND…
#     replace PATH TEXT           the file appears or changes at once: where a save is counted. A shell's own
#                                 `echo >PATH` empties it first, and may be held up before it writes.
#     new_project NAME            an empty folder $TMP/NAME with a pyproject.toml; goes there
#     sandbox · workspace         the sandbox of the project in this folder, and its folder on the server
#     same_tree TEXT [DIFF OPTION…]   the project here and its workspace hold the same
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
HERE=$PWD/tests/system

BUILD=${BUILD:-build}
[ -d "$BUILD" ] || { echo "no folder '$BUILD': run make first" >&2; exit 1; }
BUILD=$(cd "$BUILD" && pwd)
SILT=$BUILD/silt SILTD=$BUILD/siltd
PLAIN_PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
PATH=$PLAIN_PATH # a manager of versions puts a slow script before each interpreter
# A sanitised build needs more memory and time; scenarios that state a bound ask for this.
SANITISED=
grep -qa __asan_init "$SILT" && SANITISED=1

umask 022
TMP=$(mktemp -d "${TMPDIR:-/tmp}/silt-test.XXXXXX") || exit 1
chmod 755 "$TMP"
DATA=$TMP/data
CLIENT_HOME=$TMP/home SERVER_HOME=$TMP/server-home
mkdir -p "$CLIENT_HOME" "$SERVER_HOME"
SERVER_PID='' SILT_SERVER='' URL='' SILT_PID='' SERVER_LOG=$TMP/siltd.log
SERVER_STARTS=0 FAILED=0
OWN_PIDS='' # further processes of a scenario, ended by the trap
# The leak checker misreads the thread-local storage of libraries that are loaded late, and crashes by it.
SAN_OPTIONS=(ASAN_OPTIONS=detect_leaks=1:quarantine_size_mb=8:intercept_tls_get_addr=0
    UBSAN_OPTIONS=print_stacktrace=1)
# More variables for the agent: CLIENT_ENV=(SILT_TOKEN=…)
CLIENT_ENV=()

# ---- results

ok() { printf 'ok - %s\n' "$1"; }
not_ok() {
    FAILED=$((FAILED + 1))
    printf 'not ok - %s\n' "$1"
}
say() { printf '    %s\n' "$@" >&2; }
not() { ! "$@"; }

check() {
    local text=$1
    shift
    if "$@"; then ok "$text"; else not_ok "$text"; say "failed: $*"; fi
}
same() {
    if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1"; say "expected: $2" "but got:  $3"; fi
}
contains() {
    case $3 in *"$2"*) ok "$1" ;; *) not_ok "$1"; say "expected to find: $2" "in: $3" ;; esac
}
lacks() {
    case $3 in *"$2"*) not_ok "$1"; say "did not expect: $2" "in: $3" ;; *) ok "$1" ;; esac
}
below() {
    if [[ $3 =~ ^[0-9]+$ ]] && [ "$3" -le "$2" ]; then ok "$1"; else not_ok "$1"; say "at most: $2" "but got: $3"; fi
}

# pause SECONDS: a sleep that starts no process: nothing is ever written to this pipe.
mkfifo "$TMP/never"
pause() { read -rt "$1" <>"$TMP/never" || true; }

wait_until() {
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -le "$until" ] || return 1
        pause 0.03
    done
}

# ---- requests and JSON: by http.py, or by curl and jq, which cost a process for each

ASK_PORT='' ASK_KEY=''
ask_begin() {
    [ -z "$ASK_KEY" ] || return 0
    read -r ASK_KEY </proc/sys/kernel/random/uuid
    mkdir -p "$TMP/ask"
    ASK_KEY=$ASK_KEY python3 -SEs "$HERE/http.py" "$TMP/ask/port" </dev/null >/dev/null 2>"$TMP/ask/errors" &
    OWN_PIDS="$OWN_PIDS $!"
    disown
}
# ask KIND WORD…: http.py's line in $answer, what is long in $ASKED; fails when it does not do this one.
ask() {
    local fd kind=$1
    shift
    ASKED=$TMP/ask/$BASHPID
    [ -n "$ASK_PORT" ] && { exec {fd}<>"/dev/tcp/127.0.0.1/$ASK_PORT"; } 2>/dev/null || return 1
    printf '%s\0' "$ASK_KEY" $(($# + 2)) "$kind" "$ASKED" "$@" >&"$fd"
    IFS= read -r -u "$fd" answer || answer=pass # not from "<&$fd": http.py may look at what is 0
    exec {fd}>&-
    [ "$answer" != pass ]
}

json() {
    local path=$2 answer='' text=''
    case $path in [.\"]*) ;; *) path=.$path ;; esac
    if [ "$1" != - ]; then
        json - "$path" <"$1"
    elif ask json "$BASHPID" - "$path"; then
        IFS= read -r -d '' text <"$ASKED"
        printf '%s\n' "$text"
    elif [ -s "$ASKED" ]; then
        jq -r "$path" "$ASKED"
    else
        jq -r "$path"
    fi
}

rest() {
    local method=$1 path=$2 answer='' code form text=''
    shift 2
    if ! ask http "$PWD" "$BASHPID" "$URL" "$method" "$path" "$@"; then
        curl -sS -X "$method" "$URL$path" "$@"
        return
    fi
    read -r code _ form <<<"$answer"
    case $form in
    text) IFS= read -r -d '' text <"$ASKED"; printf '%s' "$text" ;;
    binary) cat "$ASKED" ;;
    esac
    [ "$code" -eq 0 ] || say "$method $path failed, as curl's exit code $code says"
    return "$code"
}

# ---- the server

# One for all starts, so that a project's link finds the server again after a restart.
LISTEN=127.0.0.1:0

# In the guest of scripts/test-guest: a folder of cgroups that was given to this user. Each server gets
# one of it, alone. One that starts again where another was killed finds what that left.
OWN_CGROUP=${GUEST_OWN:+$GUEST_OWN/test-$$.scope}
in_own_cgroup() { # COMMAND…
    if [ -n "$OWN_CGROUP" ]; then
        mkdir -p "$OWN_CGROUP"
        local into=$OWN_CGROUP
        [ ! -d "$into/silt-server" ] || into=$into/silt-server
        echo "$BASHPID" >"$into/cgroup.procs"
    fi
    exec "$@"
}

serves() { [ -s "$DATA/address" ] && kill -0 "$SERVER_PID" 2>/dev/null; }
start_server() {
    ask_begin
    rm -f "$DATA/address"
    SERVER_STARTS=$((SERVER_STARTS + 1))
    in_own_cgroup env -i PATH="$PLAIN_PATH" HOME="$SERVER_HOME" "${SAN_OPTIONS[@]}" \
        "$SILTD" --listen "$LISTEN" --data-dir "$DATA" "$@" >>"$SERVER_LOG" 2>&1 &
    SERVER_PID=$!
    if ! wait_until 30 serves; then
        not_ok "the server starts"
        tail -n 20 "$SERVER_LOG" >&2
        exit 1
    fi
    wait_until 30 test -s "$TMP/ask/port" && read -r ASK_PORT <"$TMP/ask/port"
    LISTEN=$(cat "$DATA/address")
    SILT_SERVER=$LISTEN URL=http://$LISTEN
}

ended() { # PID; none has ended
    local line=''
    [ -n "$1" ] || return 0
    { read -r line <"/proc/$1/stat"; } 2>/dev/null
    case ${line##*) } in '' | Z*) return 0 ;; *) return 1 ;; esac
}

# Processes of anybody whose command line, working directory or mounts lie in the data directory: the
# server, its helpers, and containers, since a workspace is mounted into each.
server_leftovers() {
    local p words
    {
        grep -lsF -- "${TMP##*/}/data/" /proc/[0-9]*/mountinfo
        find /proc/[0-9]* -maxdepth 1 -name cwd -lname "$DATA*" 2>/dev/null
        for p in /proc/[0-9]*; do
            { mapfile -d '' -t words <"$p/cmdline"; } 2>/dev/null || continue
            [[ "${words[0]:-} ${words[*]:1}" == *siltd*" $DATA"* ]] && echo "$p/cmdline"
        done
    } | cut -d/ -f3 | sort -u | while read -r p; do
        { mapfile -d '' -t words <"/proc/$p/cmdline"; } 2>/dev/null && echo "process $p: ${words[*]}"
    done
}

# The server's own cgroup, named by a hash (FNV-1a) of the folder in which its engine keeps its lock.
server_cgroups() {
    local lock path hash i byte
    while read -r lock; do
        path=$(dirname "$lock") hash=2166136261
        for ((i = 0; i < ${#path}; i++)); do
            printf -v byte '%d' "'${path:i:1}"
            hash=$((((hash ^ byte) * 16777619) & 0xffffffff))
        done
        find /sys/fs/cgroup -maxdepth 6 -type d -name "$(printf 'silt-%08x' "$hash")" 2>/dev/null
    done < <(find "$DATA" -maxdepth 2 -name lock 2>/dev/null)
}

# Uploads that go on after a restart are none.
staging_leftovers() { find "$DATA"/staging "$DATA"/workspaces/.silt/staging -mindepth 2 ! -name 'st_*' 2>/dev/null; }

# Containers of this server that exist now, those of runs and those that wait for one: a mount namespace
# for each.
containers() {
    local p
    for p in $(grep -lsE -- "${TMP##*/}/data/.* /workspace " /proc/[0-9]*/mountinfo); do
        readlink "${p%/mountinfo}/ns/mnt" 2>/dev/null
    done | sort -u
}

leftovers=''
nothing_left() {
    leftovers=$(server_leftovers; server_cgroups; staging_leftovers; grep -F -- "$DATA" /proc/self/mountinfo)
    [ -z "$leftovers" ]
}

stop_server() {
    local status what=${1:-"a stopped server leaves nothing behind"}
    [ -n "$SERVER_PID" ] || return 0
    kill -TERM "$SERVER_PID" 2>/dev/null
    if ! wait_until 30 ended "$SERVER_PID"; then
        not_ok "the server stops when told to"
        kill -KILL "$SERVER_PID"
    fi
    wait "$SERVER_PID" 2>/dev/null
    status=$?
    SERVER_PID=''
    [ "$status" -eq 0 ] || { not_ok "the server ends with exit code 0"; say "it was $status"; tail -n 30 "$SERVER_LOG" >&2; }
    wait_until 30 nothing_left
    [ -z "$OWN_CGROUP" ] || leftovers+=$(rmdir "$OWN_CGROUP" 2>&1)
    same "$what" '' "$leftovers"
}

kill_server() {
    [ -n "$SERVER_PID" ] || return 0
    kill -KILL "$SERVER_PID" 2>/dev/null
    wait "$SERVER_PID" 2>/dev/null
    SERVER_PID=''
}

# ---- the agent

client_environment() {
    CLIENT=(env -i --default-signal=INT,TERM,PIPE PATH="$PLAIN_PATH" HOME="$CLIENT_HOME" XDG_STATE_HOME="$CLIENT_HOME/state"
        XDG_CONFIG_HOME="$CLIENT_HOME/config" LANG=C.UTF-8 SILT_SERVER="$SILT_SERVER" "${SAN_OPTIONS[@]}" "${CLIENT_ENV[@]}")
}
silt() {
    local CLIENT
    client_environment
    "${CLIENT[@]}" "$SILT" "$@"
}
start_silt() {
    local CLIENT out=$1 err=$2
    shift 2
    client_environment
    "${CLIENT[@]}" "$SILT" "$@" >"$out" 2>"$err" </dev/null &
    SILT_PID=$!
    OWN_PIDS="$OWN_PIDS $SILT_PID"
}
end_silt() {
    kill -"${1:-TERM}" "$SILT_PID" 2>/dev/null
    await_silt
}
await_silt() {
    wait_until "${1:-20}" ended "$SILT_PID" || { not_ok "silt ends"; kill -KILL "$SILT_PID"; }
    wait "$SILT_PID" 2>/dev/null
    code=$?
    OWN_PIDS=${OWN_PIDS/ $SILT_PID/}
    SILT_PID=''
}
out='' err='' code=0
try() {
    "$@" >"$TMP/try.out" 2>"$TMP/try.err"
    code=$?
    out=$(cat "$TMP/try.out") err=$(cat "$TMP/try.err")
}

replace() { printf '%s\n' "$2" >"$TMP/saved" && mv "$TMP/saved" "$1"; }

new_project() {
    mkdir -p "$TMP/$1"
    cd "$TMP/$1" || exit 1
    printf '[project]\nname = "%s"\nversion = "1"\n' "$1" >pyproject.toml
}
sandbox() { json "${1:-.}/.silt/link.json" sandbox; }
workspace() { echo "$DATA/workspaces/$(sandbox "${1:-.}")"; }
same_tree() {
    local text=$1 difference
    shift
    difference=$(diff -r --no-dereference --exclude=.silt "$@" . "$(workspace)" 2>&1 | head -n 20)
    same "$text" '' "$difference"
}

# ---- the end

end_all() {
    local pid
    trap - EXIT
    for pid in $OWN_PIDS $SERVER_PID; do
        kill -TERM "$pid" 2>/dev/null
    done
    for pid in $OWN_PIDS $SERVER_PID; do
        wait_until 10 ended "$pid" || kill -KILL "$pid" 2>/dev/null
    done
    # Only after a failure is anything of this left: a killed server's cgroups, or what outlived it.
    server_leftovers | sed -n 's/^process \([0-9]*\):.*/\1/p' | xargs -r kill -KILL 2>/dev/null
    server_cgroups | while read -r pid; do find "$pid" -depth -type d -exec rmdir {} + 2>/dev/null; done
    cd / && rm -rf "$TMP"
}
trap end_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# What a sanitiser says is a failure even if a program went on.
sanitiser_report() { grep -hE -A 15 'ERROR: .*Sanitizer|runtime error:' "$SERVER_LOG" "$TMP"/*.err 2>/dev/null; }

finish() {
    local log
    cd "$TMP" || exit 1
    for log in $(find "$TMP" -name watch.log 2>/dev/null); do cat "$log" >>"$TMP/watchers.err"; done
    stop_server
    log=$(sanitiser_report)
    [ -z "$log" ] || { not_ok "no sanitiser reports anything"; say "$log"; }
    if [ "$FAILED" -gt 0 ]; then
        printf '\n%d failed; the end of the server'\''s log:\n' "$FAILED" >&2
        tail -n 15 "$SERVER_LOG" >&2 2>/dev/null
    fi
    end_all
    [ "$FAILED" -eq 0 ]
    exit
}
