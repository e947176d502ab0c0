#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: a watcher that cannot be fooled: chains of new folders written to at once, also while it begins;
# folders renamed over each other; one folder made and deleted a thousand times; more events than the
# kernel keeps; the folder of its cookies removed; too few inotify watches; a project that is
# emptied file by file, and filled again.
. "$(dirname "$0")/lib.sh"

start_server
new_project races
there=''
# Looking costs more than it is worth 50 times a second.
agrees() { diff -rq --no-dereference --exclude=.silt . "$there" >/dev/null 2>&1 || { sleep 0.2; false; }; }
is_said() { grep -qs "\"event\":\"$1\"" "$TMP/watch.out"; }
chain() { python3 -c "
import os, sys
for i in range(int(sys.argv[2])):
    os.makedirs(f'{sys.argv[1]}/{i}/b/c/d')
    with open(f'{sys.argv[1]}/{i}/b/c/d/f', 'w') as f: f.write(f'{i}\n')" "$1" "$2"; }

mkdir old && chain old 40
silt sync >/dev/null
there=$(workspace)
chain early 60 &
maker=$!
start_silt "$TMP/watch.out" "$TMP/watch.err" --json watch
wait "$maker"
check "chains of folders that are made while the watcher begins" wait_until 60 agrees
wait_until 60 is_said ready
chain late 150
check "150 chains at once: every file arrives" wait_until 60 agrees

mv late/1 away && mv late/2 late/1 && mv away late/2 && echo new >late/1/b/c/d/f && echo newer >late/2/b/g
check "folders that change their names with each other, and are written to" wait_until 60 agrees
mv old "$TMP/old" && mkdir old && echo 1 >old/other && mv "$TMP/old" old/back && echo 2 >old/back/3/b/c/x
check "a folder that is moved out, replaced, and moved into its replacement" wait_until 60 agrees
echo last >old/back/4/b/c/d/f
check "is watched where it is now" wait_until 60 agrees
silt sync --timeout 60s >/dev/null

watches() { silt status --json | json - watcher.watched_directories; }
resident() { awk '/^VmRSS/ { print $2 }' "/proc/$SILT_PID/status"; }
again() { python3 -c "
import os
for i in range($1):
    os.mkdir('again'); open('again/f', 'w').write(str(i)); os.unlink('again/f'); os.rmdir('again')"; }
again 200
silt sync --timeout 60s >/dev/null
before=$(watches) memory=$(resident)
again 1000
silt sync --timeout 60s >/dev/null
same "a folder made and deleted 1,000 times leaves no watch behind" "$before" "$(watches)"
[ -n "$SANITISED" ] || below "and little memory (KiB)" $((memory + 2048)) "$(resident)"
mkdir again && echo kept >again/kept
check "and is watched when it stays" wait_until 60 agrees

# ---- lost events

kill -STOP "$SILT_PID"
python3 -c "
import os
for i in range(5000):
    open(f'flood{i % 60}', 'w').write(str(i)); os.rename(f'flood{i % 60}', f'stood{i % 60}')
os.makedirs('after/the/flood'); open('after/the/flood/f', 'w').write('x')"
kill -CONT "$SILT_PID"
check "more events than the kernel keeps: nothing is lost" wait_until 60 agrees
echo y >after/the/flood/f
check "and folders are watched as before" wait_until 60 agrees
rm -rf .silt/cookies
echo cookie >again/kept
try silt flush --timeout 60s
same "a folder of cookies that was removed is made again" 0 "$code"
check "and nothing is lost" wait_until 60 agrees

# ---- editors that never stop, and those that are seen half done

python3 -c "
import time
end = time.time() + 30
with open('endless.log', 'a') as f:
    while time.time() < end:
        f.write('line\n'); f.flush(); time.sleep(0.005)" &
writer=$!
OWN_PIDS="$OWN_PIDS $writer"
sleep 0.3
echo beside >again/kept
check "a file beside one that is written all the time arrives" wait_until 60 cmp -s again/kept "$there/again/kept"
check "so does what was written so far" wait_until 60 test -s "$there/endless.log"
try silt flush --timeout 60s
same "and a flush ends" 0 "$code"
check "while it still goes on" kill -0 "$writer"
kill "$writer"
wait "$writer" 2>/dev/null
check "the end of it arrives" wait_until 60 agrees

# ---- an emptied project: file by file, slower than the watcher

mkdir -p many && (cd many && for i in $(seq 60); do echo "$i" >"f$i"; done)
rm -r late old
silt sync --timeout 60s >/dev/null
cp -a . "$TMP/copy"
files() { find "$there" -type f | wc -l; }
before=$(files)
# Not .silt, and rules last, as `rm -r *` and a second thought would do it. The watcher stands still for
# a while, twice, which is no pause between the deletions. Where there was one, that was no test.
empty() {
    python3 -c "
import os, signal, sys, time
files, watcher, longest = sys.stdin.read().split('\n')[:-1], int(sys.argv[1]), 0
for i, path in enumerate(files):
    begin = time.monotonic()
    os.unlink(path)
    for stop in (len(files) // 6, len(files) * 2 // 5):
        if i == stop:
            os.kill(watcher, signal.SIGSTOP)
        if i == stop + 35:
            os.kill(watcher, signal.SIGCONT)
    time.sleep(0.02)
    longest = max(longest, time.monotonic() - begin)
sys.exit(longest > 0.4)" "$SILT_PID" < <(find . -path ./.silt -prune -o -type f -print)
}
for try in 1 2 3 4 5 6; do
    empty && break
    cp -a "$TMP/copy/." . && silt sync --timeout 60s >/dev/null 2>&1
done
check "a project that is emptied file by file is a problem that is told" wait_until 60 grep -q 'is empty, but the sandbox has' "$TMP/watch.out"
check "and does not empty the workspace" test "$(files)" -ge $((before / 2 - 1))
try silt sync
check "nor does a sync" test "$code" -ne 0
contains "which says how to mean it" "--allow-empty" "$err"
at=$(files)
(cd "$TMP/copy" && find many -type f) | while read -r file; do cp -a "$TMP/copy/$file" many/ && sleep 0.01; done
check "files that come back one by one delete no others" test "$(files)" -ge "$at"
cp -a "$TMP/copy/." .
check "when they are all back all is well" wait_until 60 agrees
rm -r many
check "deletions of the most part are sent when others stay" wait_until 60 agrees
end_silt

# ---- too few watches

if unshare -Ur sh -c 'echo 40 >/proc/sys/user/max_inotify_watches' 2>/dev/null; then
    new_project few
    for i in $(seq 60); do mkdir -p "p$i" && echo "$i" >"p$i/f"; done
    silt sync >/dev/null
    there=$(workspace)
    printf '#!/bin/sh\nexec unshare -Ur sh -c '\''echo 40 >/proc/sys/user/max_inotify_watches; exec "$0" "$@"'\'' "%s" "$@"\n' \
        "$SILT" >"$TMP/few-watches"
    chmod 755 "$TMP/few-watches"
    SILT=$TMP/few-watches
    start_silt "$TMP/few.out" "$TMP/few.err" --json watch
    SILT=$BUILD/silt
    wait_until 60 grep -qs '"event":"ready"' "$TMP/few.out"
    check "too few inotify watches are told" wait_until 60 grep -q 'no inotify watches are left' "$TMP/few.out"
    for i in 1 30 60; do echo changed >"p$i/f"; done
    mkdir -p p60/new/er && echo x >p60/new/er/f
    check "what is not watched is found by looking" wait_until 60 agrees
    contains "silt status says what helps" "sysctl fs.inotify.max_user_watches=" "$(silt status)"
    same "it is told once" 1 "$(grep -c 'no inotify watches' "$TMP/few.out")"
    end_silt
fi
finish
