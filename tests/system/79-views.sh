#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: a run with a snapshot sees one generation whatever lands meanwhile, and what it writes is kept as
# one generation or not at all: never, if it succeeded, if nobody changed the same; several at once;
# whatever a hostile program leaves; across a kill of the server; within the sandbox's share of the disk.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
start_server
new_sandbox '{"language":"python"}'
W=$DATA/workspaces/$SB
tried() { field '"\(.status) \(.exit_code) \(.kept)"'; }
changed() { field 'files_changed|map(.path+" "+.change)|join(" ")'; }
generation() { rest GET "/v1/sandboxes/$SB" | json - generation; }
state() { (cd "$W" && find . -printf '%p %y %m %s %T@ %i %l\n' | sort; find . -type f -exec md5sum {} + | sort; generation); }
views() { find "$DATA/staging/$SB/views" -mindepth 1 -maxdepth 1 -regextype egrep -regex '.*/run_.*' 2>/dev/null; }
a_view() { [ -n "$(views)" ]; }
no_views() { [ -z "$(views)" ]; }
# A run that goes on until the file `go` appears in the cache, which all runs of the sandbox share.
printed() { rest GET "/v1/runs/$RUN/stdout" | grep -q "$1"; }
go() { run "{\"command\":\"touch /cache/home/$1\"}"; call GET "/v1/runs/$RUN?wait_ms=30000"; }
hold='until [ -e /cache/home/go ]; do sleep 0.02; done'
started() { run "$(jq -n --arg c "rm -f /cache/home/go; $1; echo begun; $hold; $2" --argjson more "${3:-{\}}" '{command:$c, detach:true} + $more')"
    RUN=$(field id)
    wait_until 20 printed begun; }

# ---- what it sees
put a.txt old
put dir/b.txt b
for view in live snapshot; do
    put a.txt old
    started 'cat a.txt' 'cat a.txt; ls' "{\"view\":\"$view\"}"
    put a.txt new
    put late.txt late
    go go
    want='oldbegun newa.txt dir late.txt'
    [ $view = live ] || want='oldbegun olda.txt dir'
    same "$view: what it sees of an edit that lands" "$want" "$(field stdout | xargs)"
    same "$view: its view" "$view always true" "$(field '"\(.view) \(.keep) \(.kept)"')"
    call DELETE "/v1/sandboxes/$SB/files/late.txt"
done

# ---- what becomes of what it writes
before=$(state)
run '{"command":"rm -rf dir; echo x >a.txt; mkdir n; ln -s /etc n/l; mv a.txt c.txt; ls","keep":"never"}'
same 'keep never: the program sees its own' 'c.txt n' "$(field stdout | xargs)"
same 'keep never: it is told' 'snapshot false' "$(field '"\(.view) \(.kept)"')"
same 'keep never: what it changed is told' 'a.txt deleted c.txt created dir/b.txt deleted n/l created' "$(changed)"
same 'keep never: the workspace is byte for byte what it was' "$before" "$(state)"
run '{"command":"echo tried >a.txt; exit 1","keep":"on_success"}'
same 'keep on_success, exit 1' 'failed 1 false' "$(tried)"
contains 'it says why' on_success "$(field kept_reason)"
same 'the workspace is byte for byte what it was' "$before" "$(state)"
g=$(generation)
run '{"command":"rm -rf dir; echo x >a.txt; mkdir -p n/m; ln -s a.txt n/l; chmod 750 n; echo y >n/m/y; mv a.txt c.txt","keep":"on_success"}'
same 'keep on_success, exit 0' 'succeeded 0 true' "$(tried)"
same 'it is one generation' "$((g + 1)) $((g + 1))" "$(field generation_after) $(generation)"
same 'and is there' 'x y a.txt 750' "$(cat "$W/c.txt") $(cat "$W/n/m/y") $(readlink "$W/n/l") $(stat -c %a "$W/n")"
same 'what is gone is gone' 'c.txt n' "$(ls -x "$W" | xargs)"
call GET "/v1/sandboxes/$SB/files"
same 'the manifest says the same' 'c.txt n n/l n/m n/m/y' "$(field 'items|map(.path)|join(" ")')"
run '{"command":"rm -rf n && mkdir n && echo z >n/z; chmod +x c.txt; rm -f c.txt.x","view":"snapshot"}'
same 'a folder made anew and a mode' 'c.txt modified n/l deleted n/m/y deleted n/z created' "$(changed)"
same 'are there' 'z 755' "$(ls "$W/n") $(stat -c %a "$W/c.txt")"
run '{"command":"touch c.txt; cat c.txt >t; cat t >c.txt; rm t","view":"snapshot"}'
same 'a file that is written with what it had is no change' "0 $(generation)" "$(field files_changed_total) $(field generation_after)"

# In the container that waits, over the workspace that is mounted there, and never with a program that was
# prepared in it.
put w.py 'open("probe", "a").write("x"); print(len(open("probe").read()))'
waits() { run "{\"filename\":\"w.py\"$1}"; [ "$(field runtime.warm)" = true ]; }
check 'a container waits' wait_until 20 waits ''
n=$(field stdout | xargs)
check 'a run with a snapshot takes it' wait_until 20 waits ',"keep":"never"'
same 'but no prepared program' false "$(field runtime.prepared)"
same 'what it writes is above the workspace' "$((n + 1)) $n" "$(field stdout | xargs) $(stat -c %s "$W/probe")"
run '{"command":"echo z >probe; for p in /proc/[0-9]*; do cat $p/cwd/probe $p/root/workspace/probe; done 2>/dev/null | grep -c x; umount /workspace 2>&1 | wc -l; unshare -rm umount /workspace 2>&1 | wc -l; echo y >>/proc/self/cwd/probe","keep":"never"}'
same 'no way leads beneath it' "0 1 1 $n" "$(field stdout | xargs) $(stat -c %s "$W/probe")"
call DELETE "/v1/sandboxes/$SB/files/w.py"
call DELETE "/v1/sandboxes/$SB/files/probe"

# ---- changes that are tried
put m.py 'answer = 0'
# None ends before all have begun: later there would be nothing to edit any more.
put test.py 'import m, os, sys, time
open("/cache/candidate%d" % m.answer, "w").close()
for _ in range(1000):
    if len([f for f in os.listdir("/cache") if f.startswith("candidate")]) == 3: break
    time.sleep(0.02)
print(m.answer)
sys.exit(m.answer != 2)'
before=$(state)
for n in 1 2 3; do
    curl -sS "$URL/v1/sandboxes/$SB/exec" -d "{\"filename\":\"test.py\",\"keep\":\"on_success\",\"changes\":{\"ops\":[{\"op\":\"edit\",\"path\":\"m.py\",\"old\":\"0\",\"new\":\"$n\"},{\"op\":\"put\",\"path\":\"new/only$n\",\"text\":\"$n\"}]}}" >"$TMP/candidate$n" &
    pids[n]=$!
done
wait "${pids[@]}"
for n in 1 2 3; do
    want="$n 1 false"
    [ $n != 2 ] || want='2 0 true'
    same "candidate $n of three at once" "$want" "$(json "$TMP/candidate$n" '"\(.stdout) \(.exit_code) \(.kept)"' | xargs)"
done
same 'the one that passes is kept' 'answer = 2 only2' "$(cat "$W/m.py") $(ls "$W/new")"
run '{"filename":"made.py","view":"snapshot","keep":"never","changes":{"ops":[{"op":"put","path":"made.py","text":"import os; print(sorted(os.listdir()))"},{"op":"delete","path":"n","recursive":true},{"op":"move","path":"c.txt","to":"k/moved"},{"op":"copy","path":"m.py","to":"copy.py"}]}}'
same 'a file of the changes can be run, and others go' "['copy.py', 'k', 'm.py', 'made.py', 'new', 'test.py']" "$(field stdout)"
for bad in '{"ops":[{"op":"edit","path":"m.py","old":"nothing","new":"x"}]} edit_no_match' '{"ops":[{"op":"move","path":"n","to":"other"}]} path_conflict' '{"ops":[],"if_generation":1} invalid_value'; do
    run "{\"command\":\"true\",\"keep\":\"never\",\"changes\":${bad% *}}"
    same "changes that cannot be tried: ${bad##* }" "${bad##* }" "$(field error.code)"
done
before=$(state)

# ---- somebody else changed the same
started true 'echo mine >m.py; echo more >more.txt' '{"view":"snapshot"}'
put m.py 'answer = 9'
g=$(generation)
go go
same 'a conflict: nothing is kept' 'succeeded 0 false' "$(tried)"
same 'and it is told what' 'm.py' "$(field 'kept_conflicts|map(.path)|join(" ")')"
contains 'in words' "'m.py'" "$(field kept_reason)"
same 'the workspace has what others wrote' "answer = 9 $g" "$(cat "$W/m.py") $(generation)"
check 'and nothing of the run' test ! -e "$W/more.txt"
started true 'echo mine >m.py' '{"view":"snapshot"}'
put other.txt other
go go
same 'another file changed meanwhile' 'succeeded 0 true true' "$(tried) $(field changed_during_run)"
same 'both are there' 'mine other' "$(cat "$W/m.py") $(cat "$W/other.txt")"

# ---- a hostile upper layer
cat >"$TMP/hostile.py" <<'P'
import os, socket, errno
os.symlink("/etc/passwd", "link"); os.symlink("/etc", "dir"); os.mkfifo("fifo"); os.remove("m.py"); os.mkfifo("m.py")
socket.socket(socket.AF_UNIX).bind("sock")
open("suid", "w").write("x"); os.chmod("suid", 0o6755)
open("one", "w").write("1"); os.link("one", "two")
open(b"bad\xff\n", "w").write("b")
os.mkdir("locked"); open("locked/in", "w").write("l"); os.chmod("locked", 0)
open("secret", "w").write("s"); os.chmod("secret", 0)
for what in (lambda: os.mknod("white", 0o20644, os.makedev(0, 0)), lambda: os.mknod("null", 0o20644, os.makedev(1, 3)),
             lambda: os.setxattr("new", "trusted.overlay.opaque", b"y"), lambda: os.rename("new", "renamed")):
    try: what(); print("done", what)
    except OSError as e: print(errno.errorcode[e.errno], end=" ")
os.chmod(".", 0o500)
P
put hostile.py "$(cat "$TMP/hostile.py")"
run '{"filename":"hostile.py","view":"snapshot"}'
same 'a hostile program is refused what would matter' 'EPERM EPERM EPERM EXDEV' "$(field stdout | xargs)"
same 'what it leaves is kept as of a live run' 'succeeded 0 true' "$(tried)"
same 'special files are no files' '' "$(cd "$W" && find . ! -type f ! -type d ! -type l; ls m.py fifo sock white 2>/dev/null)"
same 'links are links' '/etc/passwd /etc' "$(readlink "$W/link") $(readlink "$W/dir")"
same 'no set-id bits, and everything can be read' '755 400 700 l 1 1' "$(stat -c %a "$W/suid" "$W/secret" "$W/locked" | xargs) $(cat "$W/locked/in") $(cat "$W/one") $(cat "$W/two")"
same 'a name of bytes' b "$(cat "$W"/bad*)"
before=$(state)
run '{"command":"for i in 1 2; do truncate -s 600M s$i || exit 1; done","view":"snapshot"}'
same 'what cannot be read in full is not kept' 'succeeded 0 false true' "$(tried) $(field files_changed_incomplete)"
contains 'and it is told' 'too large' "$(field kept_reason)"
run '{"code":"import os\nfor i in range(400):\n    os.mkdir(\"d\"); os.chdir(\"d\")","view":"snapshot"}'
same 'nor a tree that is too deep' 'succeeded 0 false' "$(tried)"
same 'the workspace is as it was' "$before" "$(state)"
check 'nothing of a run is left' wait_until 10 no_views
run '{"command":"true","view":"live","keep":"never"}'
expect 'a live run cannot be thrown away' 422 invalid_value
run '{"command":"true","view":"frozen"}'
expect 'an unknown view' 422 invalid_value

# ---- from the command line
new_project tried
echo 'open("made", "w"); import sys; sys.exit(len(sys.argv) - 1)' >make.py
try silt run --keep on-success make.py fails
same 'silt run --keep on-success: a program that fails' "1 " "$code $(ls "$(workspace)" | grep made)"
contains 'silt says what became of it' 'nothing of what it wrote is kept' "$err"
try silt run --keep on-success make.py
same 'and one that does not' '0 made ' "$code $(ls "$(workspace)" | grep made) $err"
try silt run --json --view snapshot --keep never -- rm made
same 'silt run --view snapshot --keep never' '0 snapshot never false made' "$code $(json - '"\(.view) \(.keep) \(.kept)"' <<<"$out") $(ls "$(workspace)" | grep made)"
try silt run --keep sometimes make.py
same 'an unknown word' 125 "$code"
contains 'says which there are' 'always, on-success or never' "$err"

# ---- a server that is killed
put many.sh 'for i in $(seq 60); do echo $1 >f$i; done; rm -rf s$(($1 - 1)); mkdir s$1; echo $1 >s$1/in'
run '{"command":"sh many.sh 1","view":"snapshot"}'
same 'many files' 'succeeded 0 true' "$(tried)"
for n in 2 3; do
    curl -sS "$URL/v1/sandboxes/$SB/exec" -d "{\"command\":\"sh many.sh $n\",\"view\":\"snapshot\"}" >"$TMP/killed" 2>/dev/null &
    pid=$!
    # As soon as something of it is in the workspace, or a little sooner or later.
    case $n in
    2) wait_until 20 a_view ;;
    3) wait_until 20 grep -q 3 "$W/f1" ;;
    esac
    kill_server
    wait $pid
    start_server
    run '{"command":"cat f* s*/in | sort -u; ls -d s?","keep":"never"}'
    whole=$(field stdout | xargs)
    last=${whole%% *}
    same "killed at $n: the old generation or the new one" "$last s$last" "$whole"
    [ "$n" = 2 ] || [ "$last" = "$n" ] || [ "$last" = $((n - 1)) ] || not_ok "killed at $n: it is none of both: $last"
    run "{\"command\":\"sh many.sh $n\",\"view\":\"snapshot\"}"
    same "killed at $n: the next is kept" 'succeeded 0 true' "$(tried)"
done
check 'nothing of the killed ones is left' wait_until 10 no_views
call DELETE "/v1/sandboxes/$SB"
check 'with the sandbox everything is gone' test ! -e "$DATA/staging/$SB"
stop_server

# ---- a share of the disk
start_server --workspace-size 8M
new_sandbox
W=$DATA/workspaces/$SB
head -c 3M /dev/urandom >"$TMP/big"
rest PUT "/v1/sandboxes/$SB/files/big" --data-binary "@$TMP/big" >/dev/null
run '{"command":"head -c 2M /dev/zero | tr 0 x >more; ls","view":"snapshot","keep":"never"}'
same 'a workspace with its snapshot' 'big more' "$(field stdout | xargs)"
none_kept() { [ -z "$(ls "$DATA/staging/$SB/views")" ]; }
check 'one that takes too much is not kept for the next' wait_until 10 none_kept
run '{"command":"head -c 20M /dev/zero >more && sleep 60; sleep 60","keep":"never"}'
same 'what a run writes above it counts' workspace "$(field 'limits_hit|join(" ")')"
rest PUT "/v1/sandboxes/$SB/files/big2" --data-binary "@$TMP/big" >/dev/null
run '{"command":"true","keep":"never"}'
same 'a workspace with no room for another' no_space "$(field error.code)"
contains 'is told what to do' "'view': 'live'" "$(field error.message)"
run '{"command":"ls"}'
same 'and runs live' 'big big2' "$(field stdout | xargs)"
# ---- why it failed

new_sandbox '{"language":"python"}'
put app.py 'import sys; print(sys.version)'
run '{"filename":"try.py","keep":"never","changes":{"ops":[{"op":"put","path":".python-version","text":"2.7\n"},{"op":"put","path":"try.py","text":"import sys\nraise ValueError(1)\n"}]}}'
same 'what a run alone has is looked at: a version file' 'version_mismatch .python-version' "$(field 'diagnosis|.code+" "+.file')"
contains 'and a source' '(try.py, line 2)' "$(field diagnosis.hint)"
put .python-version '2.7'
run '{"command":["python3","-c","raise ValueError(1)"],"view":"snapshot","changes":{"ops":[{"op":"delete","path":".python-version"}]}}'
same 'and what it alone has not' exception "$(field diagnosis.code)"
finish
