#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: `silt run` behaves like running the program here: exit codes, arguments, environment, working
# directory, the two output streams as they are written, Ctrl-C, pipes and terminals; and every refusal
# has the exit code that shells use and a sentence that helps.
. "$(dirname "$0")/lib.sh"

start_server
new_project app
mkdir -p sub/deep
printf 'import sys\nsys.exit(int(sys.argv[1]))\n' >exit.py
printf 'import json, sys\nprint(json.dumps(sys.argv[1:]))\n' >args.py
printf 'import json, os, sys\nprint(json.dumps({k: os.environ.get(k) for k in sys.argv[1:]}))\n' >env.py
printf 'import os\nprint(os.getcwd(), os.path.relpath(__file__))\n' >where.py
cp where.py sub/deep/prog.py
printf 'import os, signal, sys, time\nos.kill(os.getpid(), int(sys.argv[1]))\ntime.sleep(10)\n' >die.py

# ---- exit codes

for wanted in 0 3 255; do
    try silt run exit.py "$wanted"
    same "exit code $wanted passes through" "$wanted" "$code"
done
same "a plain non-zero exit is not commented on" '' "$err"
try silt run exti.py
same "a file that is not there: 127" 127 "$code"
contains "the message names what resembles it" exit.py "$err"
try silt run -- no-such-program
same "a command that is not there: 127" 127 "$code"
contains "and the message names it" no-such-program "$err"
printf '#!/opt/no/such/interpreter\n' >odd.tool && chmod 755 odd.tool
try silt run odd.tool
same "an interpreter that is not there: 126" 126 "$code"
contains "and the message names it" /opt/no/such/interpreter "$err"
try silt run sub
same "a folder: 126" 126 "$code"
contains "and the message says what to name" "name the file inside it" "$err"
printf 'import time\nprint("begun", flush=True)\ntime.sleep(60)\n' >slow.py
try silt run --timeout 500ms slow.py
same "a time-out: 124" 124 "$code"
same "what was printed before it is there" begun "$out"
for signal in 9 15 11; do
    try silt run die.py "$signal"
    same "a program that dies of signal $signal: $((128 + signal))" $((128 + signal)) "$code"
done
contains "the signal is named" SIGSEGV "$err"
printf 'x = []\nwhile True:\n    x.append(bytearray(1 << 20))\n' >hog.py
try silt run --memory 96M hog.py
check "a program above its memory limit fails" test "$code" -ne 0
contains "and the message says that it was memory" memory "${err,,}"
try silt run
same "silt run without a file: 125" 125 "$code"
try silt run --no-such-option exit.py
same "an unknown option: 125" 125 "$code"

# ---- arguments

try silt run args.py 'a b' "it's" '"q"' -x --json -- '' 'ü€😀' '*' '$HOME' 'back\slash' $'tab\tnl\n' --help -C
same "arguments pass as they are" \
    '["a b","it'"'"'s","\"q\"","-x","--json","--","","ü€😀","*","$HOME","back\\slash","tab\tnl\n","--help","-C"]' \
    "$(jq -c . <<<"$out")"
try silt run -- sh -c 'printf "%s|" "$0" "$@"; exit 5' 'one 1' '' '-e'
same "a command's arguments too" 'one 1||-e|' "$out"
same "and its exit code" 5 "$code"
try silt run ./sub/../args.py x
same "FILE may be written in a roundabout way" '["x"]' "$out"
try silt run "$PWD/args.py" y
same "or absolute" '["y"]' "$out"

# ---- environment

printf '# comment\n\nFROM_FILE=1\nexport QUOTED="two words"\nBOTH=file\n' >"$TMP/vars"
try silt run -e A=1 -e 'B=x y=z' --env=C= --env-file "$TMP/vars" -e BOTH=option env.py A B C FROM_FILE QUOTED BOTH SILT_SERVER
same "variables: -e, --env-file, and nothing of the shell's" \
    '{"A":"1","B":"x y=z","C":"","FROM_FILE":"1","QUOTED":"two words","BOTH":"option","SILT_SERVER":null}' "$(jq -c . <<<"$out")"
try silt run env.py HOME LANG TZ PATH PYTHONUNBUFFERED SILT_SANDBOX
same "the environment that is promised" \
    '{"HOME":"/cache/home","LANG":"C.UTF-8","TZ":"UTC","PATH":"/usr/local/bin:/usr/bin:/bin","PYTHONUNBUFFERED":"1","SILT_SANDBOX":"'"$(sandbox)"'"}' \
    "$(jq -c . <<<"$out")"
try silt run -e NOEQUALS env.py
same "a malformed variable is refused" 125 "$code"
try silt run --env-file /no/such/file env.py
same "an --env-file that is not there is refused" 125 "$code"

# ---- where

cd sub/deep || exit 1
try silt run prog.py
same "in a subfolder FILE is relative to it, and the program starts there" "/workspace/sub/deep prog.py" "$out"
try silt run ../../where.py
same "a file above it is found, too" "/workspace/sub/deep ../../where.py" "$out"
try silt run -- pwd
same "a command starts there as well" /workspace/sub/deep "$out"
cd ../..
try silt -C sub/deep run prog.py
same "-C acts as if started there" "/workspace/sub/deep prog.py" "$out"
try silt run /etc/hostname
same "a file outside of the project: 127" 127 "$code"
contains "the sentence names the project" "$TMP/app" "$err"
try silt run ../../etc/hostname
same "also when it is named by a relative path" 127 "$code"

# ---- streams

printf 'import sys\nprint(repr(sys.stdin.read()))\n' >stdin.py
out=$(echo typed | silt run stdin.py)
same "standard input is passed on" "'typed\n'" "$out"
printf 'import sys\nfor i in range(3):\n    print("o", i)\n    print("e", i, file=sys.stderr)\n' >both.py
try silt run both.py
same "standard output is separate" $'o 0\no 1\no 2' "$out"
same "standard error is separate" $'e 0\ne 1\ne 2' "$err"
printf 'import sys\nsys.stdout.buffer.write(bytes(range(256)) * 300)\n' >binary.py
silt run binary.py >"$TMP/binary.out" 2>/dev/null
same "bytes that are no text pass unchanged" \
    "$(python3 -c 'import sys; sys.stdout.buffer.write(bytes(range(256)) * 300)' | sha256sum)" "$(sha256sum <"$TMP/binary.out")"
printf 'import sys\nprint("x" * 100000)\n' >long.py
try silt run --max-output 1000 long.py
contains "cut output is told about" --max-output "$err"

printf 'import os, time\nprint("one")\nwhile not os.path.exists("go"):\n    time.sleep(0.02)\nprint("two")\n' >live.py
start_silt "$TMP/live.out" "$TMP/live.err" run live.py
check "a line arrives while the program still runs" wait_until 15 grep -qs one "$TMP/live.out"
check "what it has not printed does not" not grep -q two "$TMP/live.out"
rest PUT "/v1/sandboxes/$(sandbox)/files/go" --data-binary x -o /dev/null
await_silt
same "then the rest comes" $'one\ntwo' "$(cat "$TMP/live.out")"
rest DELETE "/v1/sandboxes/$(sandbox)/files/go" -o /dev/null

printf 'import time\nprint("a")\ntime.sleep(1)\nprint("b")\n' >second.py
stamps=$(silt run second.py 2>/dev/null | while read -r _; do date +%s%N; done)
gap=$(($(sed -n 2p <<<"$stamps") - $(sed -n 1p <<<"$stamps")))
check "two prints a second apart do not arrive together" test "$gap" -gt 500000000

# ---- --json

try silt run --json exit.py 3
same "--json: the exit code is still the program's" 3 "$code"
same "--json prints the run object" "failed 3" "$(json - '"\(.status) \(.exit_code)"' <<<"$out")"
for member in id sandbox status exit_code signal timed_out oom_killed stdout stderr output stdout_bytes generation \
    generation_after changed_during_run created_at started_at finished_at queue_ms barrier_ms start_ms wall_ms cpu_ms \
    memory_peak_bytes files_changed limits runtime diagnosis links; do
    same "the run object has $member" true "$(json - ". | has(\"$member\")" <<<"$out")"
done
try silt --json run exti.py
same "--json: errors are an object on standard error" file_not_found "$(json - error.code <<<"$err")"
same "and nothing is printed on standard output" '' "$out"

# ---- in the background: -d, ps, logs, kill

printf 'import time\nprint("started")\ntime.sleep(120)\n' >forever.py
try silt run -d forever.py
run=$out
check "-d prints the run's id at once" grep -qE '^run_[0-9a-z]{26}$' <<<"$run"
try silt ps
contains "silt ps lists it" "$run" "$out"
has_started() { silt logs "$run" 2>/dev/null | grep -qs started; }
check "silt logs prints what it has printed so far" wait_until 10 has_started
try silt ps
contains "then it is listed as running" running "$(grep -F "$run" <<<"$out")"
start_silt "$TMP/follow.out" "$TMP/follow.err" logs -f "$run"
check "silt logs -f prints it" wait_until 10 grep -qs started "$TMP/follow.out"
check "and stays" not ended "$SILT_PID"
try silt kill "$run"
same "silt kill succeeds" 0 "$code"
await_silt
same "silt logs -f ends with the run" 0 "$code"
is_over() { [ "$(rest GET "/v1/runs/$run" | json - status)" = cancelled ]; }
check "the run is cancelled" wait_until 10 is_over
try silt logs
contains "silt logs without a run prints the latest" started "$out"
try silt kill run_00000000000000000000000000
check "an unknown run is refused" test "$code" -ne 0
try silt kill nonsense
contains "and what is no run id" "silt ps" "$err"

# ---- Ctrl-C, closed pipes

start_silt "$TMP/int.out" "$TMP/int.err" run forever.py
wait_until 15 grep -qs started "$TMP/int.out"
end_silt INT
same "Ctrl-C: 130" 130 "$code"
latest() { rest GET "/v1/runs?sandbox=$(sandbox)&limit=1" | json - "items[0].$1"; }
none_runs() { [ "$(rest GET "/v1/runs?sandbox=$(sandbox)&status=running" | json - 'items | length')" = 0 ]; }
check "the run has ended on the server" wait_until 5 none_runs
same "as cancelled" cancelled "$(latest status)"
printf 'i = 0\nwhile True:\n    print("line", i)\n    i += 1\n' >endless.py
silt run endless.py 2>"$TMP/pipe.err" | head -n 1 >"$TMP/pipe.out"
status=${PIPESTATUS[0]}
same "a reader that has had enough gets its line" "line 0" "$(cat "$TMP/pipe.out")"
same "silt ends as a program in a closed pipe does" 141 "$status"
same "without a word" '' "$(cat "$TMP/pipe.err")"
check "the run does not go on" wait_until 10 none_runs
start_silt "$TMP/gone.out" "$TMP/gone.err" run forever.py
wait_until 15 grep -qs started "$TMP/gone.out"
end_silt HUP
check "a run whose terminal has gone ends" wait_until 15 none_runs

# ---- terminals

printf 'import sys\nprint(sys.stdout.isatty(), sys.stderr.isatty())\nprint("\\x1b[31mred\\x1b[0m") if sys.stdout.isatty() else print("plain")\n' >tty.py
try silt run tty.py
same "without a terminal the program sees none" $'False False\nplain' "$out"
try silt run missing.py
lacks "without a terminal no colour codes" $'\x1b' "$out$err"
client_environment
printf '%q ' "${CLIENT[@]}" TERM=xterm "$SILT" run tty.py >"$TMP/command"
script -qec "sh $TMP/command" /dev/null >"$TMP/tty.out" 2>&1 </dev/null
contains "with a terminal the program sees one" "True True" "$(cat "$TMP/tty.out")"
contains "and colours arrive" $'\x1b[31mred\x1b[0m' "$(cat "$TMP/tty.out")"
printf '%q ' "${CLIENT[@]}" TERM=xterm "$SILT" run exit.py 7 >"$TMP/command"
script -qec "sh $TMP/command" /dev/null >/dev/null 2>&1 </dev/null
same "with a terminal the exit code passes, too" 7 "$?"

# ---- --no-sync

printf 'print("old")\n' >version.py
silt sync >/dev/null 2>&1
printf 'print("new")\n' >version.py
try silt run --no-sync version.py
same "--no-sync runs what the workspace holds" old "$out"
try silt run version.py
same "without it the newest" new "$out"
finish
