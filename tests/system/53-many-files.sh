#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: a project of 100,000 files, 10,000 of them in one folder, that appears at once under a watcher arrives
# whole, is proved to be the same, and a renamed folder of it travels without content. It is more than the
# kernel keeps events for and more paths than may settle at a time.
# On a disk half of the time goes into making and removing its files.
[ ! -w /dev/shm ] || export TMPDIR=/dev/shm
. "$(dirname "$0")/lib.sh"
if [ -n "$SANITISED" ]; then
    ok 'skipped: a sanitised build is slow, and smaller trees show what it has to show'
    finish
fi

start_server
new_project many
silt sync >/dev/null 2>&1
there=$(workspace)
start_silt "$TMP/watch.out" "$TMP/watch.err" --json watch
wait_until 60 grep -qs '"event":"ready"' "$TMP/watch.out"
python3 -c "
import os
for d in range(90):
    os.makedirs(f'p{d}/q')
    for i in range(1000):
        os.close(os.open(f'p{d}/q/f{i}', os.O_CREAT | os.O_WRONLY))
os.mkdir('flat')
for i in range(10000):
    open(f'flat/f{i}', 'w').write(f'{i} of ten thousand')"
listing() { (cd "$1" && find . -path ./.silt -prune -o -type d -printf "%P d\n" -o -printf "%P %y %s\n" | sort | md5sum); }
try silt sync --timeout 300s
same 'a watcher sends 100,000 files' 0 "$code"
same 'all of them' "$(listing .)" "$(listing "$there")"
try silt sync --verify
contains 'with the same contents' 'both sides hold the same 100182 entries' "$out"
mv flat plat
try silt sync --json --timeout 300s
same 'a renamed folder of 10,000 is as many moves, and no content' '10000 0' "$(json - '"\(.moved) \(.content_bytes)"' <<<"$out")"
mv plat a-flat
try silt sync --json --timeout 300s
same 'in either order of the names' '10000 0' "$(json - '"\(.moved) \(.content_bytes)"' <<<"$out")"
echo x >p89/q/f999
check 'a save in it is seen' wait_until 60 cmp -s p89/q/f999 "$there/p89/q/f999"
end_silt
finish
