#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: with `silt watch` the workspace follows the project by itself, whatever way files are changed in:
# saves of editors, checkouts, renamed folders, chains of new folders. No temporary name ever shows up on
# the server, the other commands go through the watcher, and a watcher that was killed is no obstacle.
. "$(dirname "$0")/lib.sh"

start_server
new_project live
mkdir -p pkg/inner
echo 'print("v1")' >main.py
echo 'A = 1' >pkg/inner/a.py
touch pkg/__init__.py pkg/inner/__init__.py
git init -q . && git add -A && git -c user.name=x -c user.email=x@example.org commit -qm one

# count EVENT: how often the watcher told of it.
count() { grep -cs "\"event\":\"$1\"" "$TMP/watch.out"; }
is_said() { [ "$(count "$1")" -ge "${2:-1}" ]; }
start_silt "$TMP/watch.out" "$TMP/watch.err" --json watch
check "silt watch --json says when it is ready" wait_until 20 is_said ready
there=$(workspace)
same_tree "then everything is there" --exclude=.git
arrived() { cmp -s "$1" "$there/$1"; }
gone() { ! [ -e "$there/$1" ] && ! [ -L "$there/$1" ]; }

sent=$(count sent)
echo 'print("v2")' >main.py
check "a save arrives by itself" wait_until 10 arrived main.py
check "and is told about" wait_until 10 is_said sent $((sent + 1))
event=$(grep '"event":"sent"' "$TMP/watch.out" | tail -n 1)
same "the event has its figures" "number number number" "$(json - '"\(.generation | type) \(.updated | type) \(.bytes_sent | type)"' <<<"$event")"

# ---- the other commands go through it

try silt status --json
same "silt status shows the watcher" "$SILT_PID" "$(json - watcher.pid <<<"$out")"
echo 'print("v3")' >main.py
try silt run main.py
same "silt run sees what was saved just now" v3 "$out"
late=0
for i in $(seq 15); do
    echo "print('run $i')" >main.py
    [ "$(silt run main.py 2>/dev/null)" = "run $i" ] || late=$((late + 1))
done
same "15 saves and runs in a row: none is late" 0 "$late"
echo 'B = 1' >pkg/inner/b.py
try silt flush
same "silt flush succeeds" 0 "$code"
check "and prints a client and a number" test "$(json - '.seq > 0 and (.client | length) > 0' <<<"$out")" = true
for i in $(seq 50); do echo "$i" >"burst$i.txt"; done
try silt sync --json
same "silt sync goes through the watcher" 0 "$code"
same_tree "after it both sides agree" --exclude=.git
try silt watch
same "a second watcher is refused" 1 "$code"
contains "with a sentence" "watched already" "$err"
try silt watch -d
same "silt watch -d finds it" 0 "$code"

# ---- editors

# Names that appear in the workspace, as the kernel tells them.
cat >"$TMP/spy.py" <<'PY'
import ctypes, os, struct, sys
libc = ctypes.CDLL(None)
fd = libc.inotify_init1(0)
for folder in sys.argv[2:]:
    assert libc.inotify_add_watch(fd, folder.encode(), 0x100 | 0x80) >= 0  # created, moved to
with open(sys.argv[1], "w", buffering=1) as log:
    log.write("ready\n")
    while True:
        data = os.read(fd, 65536)
        at = 0
        while at < len(data):
            _, mask, _, length = struct.unpack_from("iIII", data, at)
            log.write(data[at + 16:at + 16 + length].split(b"\0")[0].decode(errors="replace") + "\n")
            at += 16 + length
PY
python3 "$TMP/spy.py" "$TMP/spied" "$there" "$there/pkg/inner" &
spy=$!
OWN_PIDS="$OWN_PIDS $spy"
wait_until 10 grep -qs ready "$TMP/spied"
rm burst*.txt
save() { check "$1" wait_until 10 arrived "$2"; }
sed -i 's/A = 1/A = 2/' pkg/inner/a.py
save "sed -i" pkg/inner/a.py
if command -v vim >/dev/null; then
    for mode in yes no auto; do
        vim -es -u NONE -c "set backupcopy=$mode writebackup swapfile" -c "%s/print.*/print('vim $mode')/" -c wq main.py </dev/null >/dev/null 2>&1
        save "vim with backupcopy=$mode" main.py
        same "what vim wrote" "print('vim $mode')" "$(cat "$there/main.py")"
    done
    vim -es -u NONE -c "set backup backupcopy=no" -c "%s/print.*/print('vim backup')/" -c wq main.py </dev/null >/dev/null 2>&1
    save "vim that keeps backups" main.py
fi
echo 'print("atomic")' >.main.py.swp && mv .main.py.swp main.py
save "written beside and renamed over" main.py
cp main.py main.py~ && echo 'print("emacs")' >'#main.py#' && ln -sf nobody@here.1 '.#main.py' && cat '#main.py#' >main.py &&
    rm '#main.py#' '.#main.py' main.py~
save "emacs' way" main.py
echo 'print("gtk")' >.goutputstream-A1B2C3 && mv .goutputstream-A1B2C3 main.py
save "GTK's way" main.py
echo 'print("jetbrains")' >main.py___jb_tmp___ && mv main.py main.py___jb_old___ && mv main.py___jb_tmp___ main.py && rm main.py___jb_old___
save "JetBrains' way" main.py
python3 -c "
import os
f = open('main.py', 'r+'); f.write('print(\"in place\")\n'); f.truncate(); f.flush(); os.fsync(f.fileno()); f.close()"
save "written in place" main.py
: >main.py && echo 'print("emptied first")' >>main.py
save "emptied and written" main.py
silt sync --timeout 30s >/dev/null
same "no temporary name was ever on the server" '' "$(sort -u "$TMP/spied" | grep -vxE 'ready|main\.py|a\.py|b\.py')"
kill "$spy" && wait "$spy" 2>/dev/null
OWN_PIDS=${OWN_PIDS/ $spy/}

# ---- folders

mkdir -p deep/er/and/deeper && echo leaf >deep/er/and/deeper/leaf.txt && echo twig >deep/er/twig.txt
check "a chain of new folders, written to at once" wait_until 10 arrived deep/er/and/deeper/leaf.txt
check "all of it" wait_until 10 arrived deep/er/twig.txt
mv deep moved
check "a renamed folder" wait_until 10 arrived moved/er/and/deeper/leaf.txt
check "leaves its old name" wait_until 10 gone deep
echo more >moved/er/and/deeper/more.txt
check "it is still watched under its new name" wait_until 10 arrived moved/er/and/deeper/more.txt
mv moved "$TMP/outside"
check "a folder that is moved out is gone" wait_until 10 gone moved
mv "$TMP/outside" back
check "moved in again it is there" wait_until 10 arrived back/er/and/deeper/more.txt
echo x >back/er/and/deeper/x.txt
check "and watched" wait_until 10 arrived back/er/and/deeper/x.txt
rm -r back
check "a deleted folder is gone" wait_until 10 gone back
echo one >name1 && ln name1 name2 && ln name1 name3
silt flush >/dev/null
kill -STOP "$SILT_PID" # it looks when all is done
echo 'written through the second' >name2 && rm name2
kill -CONT "$SILT_PID"
check "written through a name that is gone" wait_until 10 arrived name1
kill -STOP "$SILT_PID"
echo 'through the third, longer' >name3 && echo another >name3.new && mv name3.new name3
kill -CONT "$SILT_PID"
check "written through a name that is another file's" wait_until 10 arrived name1
rm name1 name3
ln -s main.py alias
is_link() { [ "$(readlink "$there/alias")" = "$1" ]; }
check "a new symlink" wait_until 10 is_link main.py
ln -sfn pkg alias
check "a changed one" wait_until 10 is_link pkg
chmod 755 main.py
has_mode() { [ "$(stat -c %a "$there/main.py")" = 755 ]; }
check "a changed mode" wait_until 10 has_mode
rm alias
echo 'skip.txt' >.gitignore && echo x >skip.txt && echo y >take.txt
check "a new rule counts at once" wait_until 10 arrived take.txt
silt sync --timeout 30s >/dev/null
check "for what it leaves out" gone skip.txt
git checkout -q -- . 2>/dev/null
rm -f .gitignore skip.txt take.txt
# The new file sets off a scan of everything, and its rule is there before what it leaves out is.
python3 -c "
import os
for i in range(3000):
    os.makedirs(f'large/d{i % 60}', exist_ok=True)
    open(f'large/d{i % 60}/f{i}', 'w').close()
os.mkdir('last')"
silt sync --timeout 30s >/dev/null
early=0
for i in $(seq 10); do
    python3 -c "
import sys, time
with open('.gitignore', 'w') as rules:
    time.sleep(int(sys.argv[1]) * 0.004)
    rules.write('*.key\n')
open('last/secret.key', 'w').write('SECRET')" "$i"
    silt sync --timeout 30s >/dev/null
    gone last/secret.key || early=$((early + 1))
    rm .gitignore last/secret.key
    silt sync --timeout 30s >/dev/null
done
same "a file that was never without a rule is never sent, whatever is scanned meanwhile" 0 "$early"
rm -r large last

# ---- a checkout

git -c advice.detachedHead=false checkout -q -b other
python3 -c "
import os
for i in range(300):
    os.makedirs(f'gen/d{i % 20}', exist_ok=True)
    open(f'gen/d{i % 20}/f{i}.py', 'w').write(f'N = {i}\n' * 20)
"
rm -r pkg && mkdir pkg && echo 'new' >pkg/new.py
git add -A && git -c user.name=x -c user.email=x@example.org commit -qm two
git checkout -q -f master 2>/dev/null || git checkout -q -f main
silt sync --timeout 30s >/dev/null
same_tree "checking out a branch with 300 files fewer" --exclude=.git
git checkout -q other
try silt run -- sh -c 'cat gen/d7/f7.py | wc -l; ls pkg'
same "a run right after the checkout of one with 300 more sees it whole" $'20\nnew.py' "$out"
silt sync --timeout 30s >/dev/null
same_tree "both sides agree" --exclude=.git
main=$(git branch --format='%(refname:short)' | grep -v other)
late=0
for _ in 1 2 3 4 5 6; do
    for branch in "$main" other "$main" other; do
        git checkout -q "$branch"
    done
    silt sync --timeout 20s >/dev/null 2>>"$TMP/flips.err" || late=$((late + 1))
done
same "also after going there and back twelve times, in time" 0 "$late"
same_tree "and completely" --exclude=.git
same "no problem was told meanwhile: the project was never empty" '' "$(grep '"event":"problem"' "$TMP/watch.out")"

# ---- what happened while the server was away

kill_server
echo 'print("while away")' >main.py
check "the watcher says that the server is away" wait_until 20 is_said away
start_server
check "and that it is back" wait_until 40 is_said back
check "what was saved meanwhile arrives" wait_until 20 arrived main.py
silt sync --timeout 30s >/dev/null
same_tree "both sides agree after the server's death" --exclude=.git

# ---- ends

end_silt TERM
same "a watcher that is told to stop ends with 0" 0 "$code"
check "its socket is gone" not test -e .silt/control
try silt stop
same "silt stop without a watcher is no error" 0 "$code"
contains "but says so" "not watched" "$out"

# ---- a run that waits for a set which the server refuses

start_silt "$TMP/watch.out" "$TMP/watch.err" --json watch
wait_until 20 is_said ready
for i in 1 2 3 4; do
    echo "print('theirs $i')" | rest PUT "/v1/sandboxes/$(sandbox)/files/main.py" --data-binary @- >/dev/null
    echo "print('mine $i')" >main.py
    # So that it is the run's flush which has the change sent.
    kill -STOP "$SILT_PID"
    silt run main.py >"$TMP/run.out" 2>&1 &
    run=$!
    sleep 0.2
    kill -CONT "$SILT_PID"
    wait "$run"
    same "conflict $i: the watcher repairs the set, then it runs" "0 mine $i" "$? $(cat "$TMP/run.out")"
done
end_silt

# ---- flushing while a command syncs

flock .silt/lock sleep 0.5 &
syncing=$!
wait_until 5 not flock -n .silt/lock true
try silt flush
same "silt flush waits for a command that syncs" 0 "$code"
wait "$syncing"

# ---- beginning while a command syncs

flock .silt/lock sleep 0.5 &
syncing=$!
wait_until 5 not flock -n .silt/lock true
: >"$TMP/watch.out"
start_silt "$TMP/watch.out" "$TMP/watch.err" --json watch
check "a watcher that begins while a command syncs waits for it" wait_until 20 is_said ready
wait "$syncing"
try silt watch
contains "while another watches it is told who is there" "watched already" "$err"
end_silt KILL
echo 'print("after the kill")' >main.py
try silt run main.py
same "a killed watcher's socket and lock are no obstacle" "after the kill" "$out"
try silt watch -d
same "silt watch -d starts another" 0 "$code"
pid=$(silt status --json | json - watcher.pid)
OWN_PIDS="$OWN_PIDS $pid"
echo 'print("in the background")' >main.py
check "which syncs" wait_until 10 arrived main.py
try silt stop
same "silt stop ends it" 0 "$code"
check "really" wait_until 10 ended "$pid"
OWN_PIDS=${OWN_PIDS/ $pid/}

# ---- watch --run

echo 'print("take 1")' >main.py
start_silt "$TMP/rerun.out" "$TMP/rerun.err" watch --run main.py
check "watch --run runs at once" wait_until 20 grep -qs 'take 1' "$TMP/rerun.out"
for i in 2 3 4; do
    echo "print('take $i')" >main.py
    check "save $i runs again, with the new output" wait_until 20 grep -q "take $i" "$TMP/rerun.out"
done
printf 'import time\nprint("take long", flush=True)\ntime.sleep(100)\n' >main.py
check "a run that goes on" wait_until 20 grep -qs 'take long' "$TMP/rerun.out"
echo 'print("take last")' >main.py
check "is replaced by the next" wait_until 20 grep -qs 'take last' "$TMP/rerun.out"
none_runs() { [ "$(rest GET "/v1/runs?sandbox=$(sandbox)&status=running" | json - 'items | length')" = 0 ]; }
check "and does not go on" wait_until 15 none_runs
end_silt INT
check "Ctrl-C ends it" test "$code" -eq 0
finish
