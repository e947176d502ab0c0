#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: runs over plain REST: a file, a command, a piece of code; what the program finds; how it ends;
# every mistake a caller can make before it starts.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
start_server
new_sandbox '{"language":"python","env":{"FROM":"sandbox","BOTH":"sandbox"}}'
W=$DATA/workspaces/$SB

# A file
put main.py 'import sys
print("hello", *sys.argv[1:])
print("warn", file=sys.stderr)'
run '{"filename":"main.py"}'
expect 'a file runs' 200
same 'it succeeded' succeeded "$(field status)"
same 'exit code' 0 "$(field exit_code)"
same 'stdout' hello "$(field stdout)"
same 'stderr' warn "$(field stderr)"
same 'output holds both' '"hello\nwarn\n"' "$(field 'output|tojson')"
same 'its sandbox' "$SB" "$(field sandbox)"
same 'its generation' 1 "$(field generation)"
same 'its language' python "$(field runtime.language)"
same 'its id is in a header' "$(field id)" "$(header Silt-Run-Id)"
same 'no signal' null "$(field signal)"
check 'it took some time' test "$(field 'wall_ms*1000|floor')" -gt 0
check 'it used some CPU' test "$(field 'cpu_ms*1000|floor')" -gt 0
run '{"filename":"./main.py","args":["a b","-c"]}'
same 'arguments arrive as they are' 'hello a b -c' "$(field stdout)"
put main.py 'import helper
print("two", helper.x)'
put helper.py 'x = 5'
run '{"filename":"main.py"}'
same 'after a change the new file runs' 'two 5' "$(field stdout)"
put helper.py 'x = 6'
run '{"filename":"main.py"}'
same 'also a change of the same size within a second' 'two 6' "$(field stdout)"
put src/where.py 'import os; print(os.getcwd(), open("data").read())'
put src/data here
run '{"filename":"src/where.py","cwd":"src"}'
same 'cwd' '/workspace/src here' "$(field stdout)"

# Commands and code
run '{"command":["printf","%s|","a b","$HOME"]}'
same 'an array is argv, without a shell' 'a b|$HOME|' "$(field stdout)"
run '{"command":"echo $HOME | tr a-z A-Z; exit 3"}'
same 'a text is a shell command' /CACHE/HOME "$(field stdout)"
same 'its exit code' 3 "$(field exit_code)"
same 'its status' failed "$(field status)"
contains 'its reason' 'code 3' "$(field reason)"
run '{"code":"import helper\nprint(helper.x * 7)"}'
same 'code imports what lies in the workspace' 42 "$(field stdout)"
run '{"command":"cat; echo; cat","stdin":"in\n"}'
same 'stdin ends' in "$(field stdout)"
run '{"command":"od -An -tx1","stdin_base64":"AP8="}'
same 'stdin may be bytes' ' 00 ff' "$(field stdout)"
run '{"command":"cat"}'
same 'without stdin it is at its end' succeeded "$(field status)"
run '{"command":"printf \"\\377\\376\"; printf ok >&2"}'
same 'output that is no UTF-8 is told exactly' '//4=' "$(field stdout_base64)"
same 'beside a readable form' base64 "$(field encoding)"
same 'the other stream is text' ok "$(field stderr)"

# What a program finds
run '{"command":"env","env":{"FROM_REQUEST":"1","BOTH":"request"}}'
env=$(field stdout)
for line in HOME=/cache/home LANG=C.UTF-8 TZ=UTC PATH=/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 \
    PYTHONPYCACHEPREFIX=/cache/pyc "SILT_SANDBOX=$SB" "SILT_RUN=$(field id)" FROM=sandbox BOTH=request FROM_REQUEST=1; do
    check "environment: ${line%%=*}" grep -qx -- "$line" <<<"$env"
done
lacks 'nothing of the server'\''s environment' "$SERVER_HOME" "$env"
run '{"command":"id -u; id -g; umask; pwd; cat /etc/hostname; touch /x; touch /workspace/w /tmp/t /cache/c /dev/shm/s && echo wrote; ls -A /home /root /var 2>/dev/null; ls /proc | grep -c \"^[0-9]\""}'
same 'uid, gid, umask, cwd' '1000 1000 0022 /workspace' "$(field stdout | head -n 4 | tr '\n' ' ' | sed 's/ $//')"
contains 'its places can be written' wrote "$(field stdout)"
contains 'the root cannot' 'Read-only file system' "$(field stderr)"
same 'what it wrote is told' 'w created' "$(field 'files_changed[0]|.path+" "+.change')"
check 'and takes a generation' test "$(field generation_after)" -gt "$(field generation)"
run '{"command":"echo b >/dev/stdout; echo c >/dev/stderr; cat /cache/c && ls /tmp"}'
same '/dev/stdout can be opened' b "$(field stdout)"
same 'the cache stays, /tmp does not' '' "$(field stdout | tail -n +2)"
run '{"command":"rm w; echo new >main2.py; echo x >>helper.py"}'
same 'created, modified, deleted' 'helper.py modified,main2.py created,w deleted' "$(field 'files_changed|map(.path+" "+.change)|join(",")')"
run '{"command":"(sleep 60; echo late >late) & echo early"}'
same 'what it leaves running ends with it' early "$(field stdout)"
check 'at once' test "$(field 'wall_ms|floor')" -lt 30000
run '{"command":"test -t 1 && echo terminal; stty size <&1; printf \"a\\nb\\n\"","tty":{"rows":31,"cols":99}}'
same 'a terminal' '"terminal\n31 99\na\nb\n"' "$(field 'stdout|tojson')"
run '{"command":"curl -s --max-time 5 http://1.1.1.1/ || wget -T5 -qO- http://1.1.1.1/ || cat </dev/tcp/1.1.1.1/80"}'
same 'there is no network' failed "$(field status)"

# Languages the project way
put go/main.go 'package main
import "fmt"
func main() { fmt.Println(twice(21)) }'
put go/twice.go 'package main
func twice(x int) int { return 2 * x }'
run '{"filename":"go/main.go","limits":{"wall_ms":120000}}'
same 'Go runs the package of the folder' 42 "$(field stdout)"
put c/main.c 'int twice(int); int printf(const char *, ...);
int main(void) { printf("%d\n", twice(21)); }'
put c/twice.c 'int twice(int x) { return 2 * x; }'
run '{"filename":"c/main.c"}'
same 'C builds the sources of the folder' 42 "$(field stdout)"
put tool '#!/usr/bin/env perl
print "perl @ARGV\n";'
run '{"filename":"tool","args":["x"]}'
same 'a #! line is honoured' 'perl x' "$(field stdout)"

# How a program ends
run '{"command":"kill -SEGV $$"}'
same 'a signal is told apart from a code' 'SIGSEGV null' "$(field '.signal+" "+(.exit_code|tojson)')"
same 'and explained' crashed "$(field diagnosis.code)"
run '{"command":["nosuchprogram"]}'
same 'a program that does not exist' 127 "$(field 'exit_code|tostring')"
contains 'is named' nosuchprogram "$(field reason)"
run '{"command":["/etc/passwd"]}'
same 'one that cannot be executed' 126 "$(field exit_code)"
put boom.py 'import numpy_of_nobody'
run '{"filename":"boom.py"}'
same 'a missing module is diagnosed' 'missing_module numpy_of_nobody boom.py 1' \
    "$(field 'diagnosis|.code+" "+.subject+" "+.file+" "+(.line|tostring)')"

# Mistakes before it starts
refused() {
    run "$2"
    expect "$1" "$3" "$4"
}
refused 'a file that is not there' '{"filename":"mian.py"}' 404 file_not_found
contains 'with its neighbour' main.py "$(field error.message)"
refused 'nothing to run' '{}' 422 invalid_value
refused 'two things to run' '{"filename":"main.py","command":"ls"}' 422 invalid_value
refused 'an unknown member' '{"filename":"main.py","arg":["x"]}' 422 invalid_value
refused 'a path that leaves' '{"filename":"../../etc/passwd"}' 422 invalid_path
refused 'a working directory that leaves' '{"command":"ls","cwd":".."}' 422 invalid_path
refused 'a folder' '{"filename":"src"}' 422 not_runnable
put notes.txt 'just text'
call PATCH "/v1/sandboxes/$SB" -d '{"language":""}'
refused 'a file that nothing can run' '{"filename":"notes.txt"}' 422 not_runnable
refused 'code without a language' '{"code":"print(1)"}' 422 unknown_language
call POST /v1/sandboxes/sb_aaaaaaaaaaaaaaaaaaaaaaaaaa/exec -d '{"command":"ls"}'
expect 'no such sandbox' 404 sandbox_not_found

# Records
run '{"command":"echo kept; echo err >&2; exit 4"}'
id=$(field id)
call GET "/v1/runs/$id"
expect 'a run can be read afterwards' 200
same 'with its output' kept "$(field stdout)"
same 'and its end' 4 "$(field exit_code)"
call GET "/v1/runs/$id/stdout"
same 'raw stdout' kept "$body"
call GET "/v1/runs/$id/output" -H 'Range: bytes=2-3'
expect 'a part of it' 206
same 'the part' pt "$body"
call GET "/v1/runs?sandbox=$SB&limit=1"
same 'the list begins with the newest' "$id" "$(field 'items[0].id')"
call GET "/v1/runs?status=succeeded"
same 'the list can be filtered' succeeded "$(field 'items|map(.status)|unique|join(",")')"
call GET "/v1/runs?status=perfect"
expect 'by what there is' 422 invalid_value
call DELETE "/v1/runs/$id"
expect 'a record can be deleted' 204
call GET "/v1/runs/$id"
expect 'then it is gone' 404 run_not_found
call GET /v1/runs/nonsense
expect 'an id that is none' 404 run_not_found
run '{"command":"sleep 60","detach":true}'
expect 'detached' 202
id=$(field id)
call DELETE "/v1/runs/$id"
expect 'a run that goes on has no record to delete' 409 run_active
call POST "/v1/runs/$id/cancel"
expect 'cancel' 202
call GET "/v1/runs/$id?wait_ms=20000"
same 'it was cancelled' cancelled "$(field status)"
call POST "/v1/runs/$id/cancel"
expect 'once more does no harm' 200
run '{"command":"until [ -e go-on ]; do sleep 0.02; done; echo done","wait_ms":100}'
check 'wait_ms answers with what there is' grep -qE 'running|queued' <<<"$(field status)"
id=$(field id)
put go-on ''
call GET "/v1/runs/$id?wait_ms=20000"
same 'and one can wait again' done "$(field stdout)"

# Deleting a sandbox ends what runs in it
run '{"command":"sleep 60","detach":true}'
id=$(field id)
call DELETE "/v1/sandboxes/$SB"
expect 'deleting the sandbox of a run' 204
check 'removes it' test ! -e "$W"
call GET "/v1/runs/$id"
expect 'and its records' 404 run_not_found
finish
