#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: an interpreter that was started before a run like the last one is used for just that run: it runs
# what is saved by then, with this run's id; anything else is started anew; nothing is prepared where
# that is switched off.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"

waiting() { [ "$(containers | wc -l)" -ge 1 ]; }
prepared() { field runtime.prepared; }

start_server
new_sandbox '{"language":"python"}'
put main.py 'import os, sys; print("one", sys.argv[1:], os.environ.get("A"), os.environ["SILT_RUN"])'
run '{"filename":"main.py"}'
same 'the first run is a new start' false "$(prepared)"

stale=0 ids=0 used=0
for i in 1 2 3 4 5 6; do
    wait_until 20 waiting
    put main.py "import os; print('state $i', os.environ['SILT_RUN'])" # the same size each time
    run '{"filename":"main.py"}'
    out=$(field stdout)
    case $out in "state $i "*) ;; *) stale=$((stale + 1)) ;; esac
    case $out in *" $(field id)") ids=$((ids + 1)) ;; esac
    [ "$(prepared)" = true ] && used=$((used + 1))
done
same 'what is saved is what runs' 0 "$stale"
same 'each run has its own id' 6 "$ids"
check 'the interpreter was there before' test "$used" -ge 4
check 'time and memory are of the run' test "$(field memory_peak_bytes)" -gt 0

put main.py 'import os, sys; print(sys.argv[1:], os.environ.get("A"), sys.stdin.read())'
for request in '{"filename":"main.py","args":["x"]}' '{"filename":"main.py","env":{"A":"b"}}' \
    '{"filename":"main.py","stdin":"in"}' '{"command":["python3","main.py","y"]}' \
    '{"code":"print(1)"}' '{"filename":"main.py","tty":true}'; do
    wait_until 20 waiting
    run "$request"
    same "something else is a new start: $request" false "$(prepared)"
done
run '{"filename":"main.py","args":["x"],"env":{"A":"b"},"stdin":"in"}'
same 'and gets what it asks for' "['x'] b in" "$(field stdout)"

put bad.py 'import sys
def f(): return 1 / 0
f()'
run '{"filename":"bad.py"}'
first=$(field stderr) code=$(field exit_code)
wait_until 20 waiting
run '{"filename":"bad.py"}'
same 'a traceback is the same' "$first" "$(field stderr)"
same 'and so is the exit code' "$code" "$(field exit_code)"

# A pipe that nobody writes to, as scripts and AI tools leave standard input: the next run has one, too.
put fed.py 'import os, stat, sys; print(stat.S_ISFIFO(os.fstat(0).st_mode), repr(sys.stdin.read()))'
fed() { # TEXT
    wait_until 20 waiting
    run '{"filename":"fed.py","stdin_stream":true,"detach":true}'
    local id
    id=$(field id)
    [ -z "$1" ] || call POST "/v1/runs/$id/stdin" -d "$1"
    call POST "/v1/runs/$id/stdin?eof=true"
    call GET "/v1/runs/$id?wait_ms=20000"
}
fed one
same 'a pipe as input: the first is a new start' "false True 'one'" "$(prepared) $(field stdout)"
again=0 right=0
for text in two '' three; do
    fed "$text"
    [ "$(prepared)" = true ] && again=$((again + 1))
    [ "$(field stdout)" = "True '$text'" ] && right=$((right + 1))
done
check 'the next ones were there before' test "$again" -ge 2
same 'and read what comes' 3 "$right"
wait_until 20 waiting
run '{"filename":"fed.py"}'
same 'a run without input is not given the pipe' "false False ''" "$(prepared) $(field stdout)"
wait_until 20 waiting
fed four
same 'and none with one /dev/null' "false True 'four'" "$(prepared) $(field stdout)"
call DELETE "/v1/sandboxes/$SB"
stop_server

start_server --prepare none
new_sandbox '{"language":"python"}'
put main.py 'print(1)'
for i in 1 2 3; do
    run '{"filename":"main.py"}'
    wait_until 20 waiting
done
same 'switched off: a warm container without a program' "true false" "$(field runtime.warm) $(prepared)"
stop_server
try env -i PATH="$PLAIN_PATH" HOME="$SERVER_HOME" "$SILTD" --data-dir "$DATA" --listen 127.0.0.1:0 --prepare cobol
contains 'a language that is not known is named' "cobol" "$err"
finish
