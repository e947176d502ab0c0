#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: `silt watch --run` runs again after every change that is one, and only then; an obsolete run is
# ended; a second one works beside the first; Ctrl-C stops the run, then leaves; --on narrows.
. "$(dirname "$0")/lib.sh"

start_server
new_project live
mkdir src
echo 'print("take 1")' >main.py
echo 'A = 1' >src/a.py
echo 'out/' >.gitignore

shown() { grep -c "$1" "$TMP/$2"; }
shows() { [ "$(shown "$1" "$2" 2>/dev/null)" -ge "${3:-1}" ] 2>/dev/null; }
start_silt "$TMP/one.out" "$TMP/one.err" watch --run main.py
one=$SILT_PID
check "it runs at once" wait_until 30 shows 'take 1' one.out
check "and says how it ended" wait_until 20 shows 'exit 0' one.err
same "standard output is the program's alone" 'take 1' "$(cat "$TMP/one.out")"

start_silt "$TMP/two.out" "$TMP/two.err" watch --on '*.txt' --on src/ --run main.py
two=$SILT_PID
check "a second one runs through the first one's watcher" wait_until 30 shows 'take 1' two.out
contains "and says so" "watcher that is there" "$(cat "$TMP/two.err")"

replace main.py 'print("take 2")'
check "a change runs again" wait_until 20 shows 'take 2' one.out
contains "and is named" "main.py · changed" "$(cat "$TMP/one.err")"
echo 'A = 2' >src/a.py
check "--on: a folder that is named" wait_until 20 shows 'take 2' two.out
echo x >note.txt
check "--on: a name that is named" wait_until 20 shows 'take 2' two.out 2
same "--on: no other change" 2 "$(shown 'take 2' two.out)"

# What is no change: a touch, what is ignored, what the run itself writes.
runs() { rest GET "/v1/runs?sandbox=$(sandbox)&limit=200" | json - 'items | length'; }
replace main.py $'open("made.txt", "a").write("x")\nprint("take 3")'
check "a program that writes files" wait_until 20 shows 'take 3' one.out
wait_until 20 shows 'exit 0' one.err 4
before=$(runs)
touch main.py && mkdir -p out && echo x >out/x && chmod 644 src/a.py
silt sync >/dev/null
replace main.py 'print("take 4")'
check "the next change runs again" wait_until 20 shows 'take 4' one.out
same "what was none did not" $((before + 1)) "$(runs)"

replace main.py $'import time\nprint("take long", flush=True)\ntime.sleep(100)'
check "a run that goes on" wait_until 20 shows 'take long' one.out
replace main.py 'print("take 5")'
check "is replaced by the next" wait_until 20 shows 'take 5' one.out
none_runs() { [ "$(rest GET "/v1/runs?sandbox=$(sandbox)&status=running" | json - 'items | length')" = 0 ]; }
check "and does not go on" wait_until 20 none_runs

replace main.py $'import time\nprint("take slow", flush=True)\ntime.sleep(100)'
check "a run that is to be stopped" wait_until 20 shows 'take slow' one.out
kill -INT "$one"
check "Ctrl-C stops it" wait_until 20 shows 'Ctrl-C leaves' one.err
check "on the server too" wait_until 20 none_runs
check "silt goes on" not ended "$one"
ends=$(shown 'exit 0' one.err)
replace main.py 'print("take 6")'
check "and runs again" wait_until 20 shows 'take 6' one.out
# Before that Ctrl-C would stop the run.
check "to the end" wait_until 20 shows 'exit 0' one.err $((ends + 1))

stop_server
ends=$(shown 'exit 0' one.err)
replace main.py 'print("take 7")'
check "a change while the server is away cannot be run" wait_until 30 shows 'no server answers' one.err
start_server
check "it is once the server is back" wait_until 30 shows 'take 7' one.out
check "to the end as well" wait_until 20 shows 'exit 0' one.err $((ends + 1))
SILT_PID=$one
end_silt INT
same "Ctrl-C without a run leaves" 0 "$code"

# The watcher went with the first; the second makes one of its own.
echo 'B = 1' >src/b.py
check "the second goes on by itself" wait_until 30 shows 'take 7' two.out
silt stop >/dev/null
SILT_PID=$two
await_silt
same "silt stop ends it as well" 0 "$code"
check "no watcher is left" not test -e .silt/control

try silt watch -d --run main.py
same "-d and --run are refused" 1 "$code"
bounded() { local CLIENT; client_environment; timeout 20 "${CLIENT[@]}" "$SILT" "$@"; }
bounded watch --run main.py >out.txt 2>"$TMP/try.err"
same "output into the project, which would run again: refused" 1 "$?"
contains "and says what to do" "outside of the project" "$(cat "$TMP/try.err")"
try silt watch main.py
contains "a FILE without --run: it says how" "watch --run main.py" "$err"
start_silt "$TMP/three.out" "$TMP/three.err" watch --json -- sh -c 'echo args "$@"' sh a b
check "a command; --json prints run objects" wait_until 30 grep -qs '"stdout":"args a b' "$TMP/three.out"
end_silt TERM
same "SIGTERM ends it" 0 "$code"
finish
