#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: what runs made comes here when it is asked for, by deltas where that pays, over nothing that was
# changed here, and under no name that this machine never syncs; a sync or a watcher sends none of it back.
. "$(dirname "$0")/lib.sh"

start_server
new_project pull
mkdir sub
echo 'original' >data.txt
echo 'keep' >sub/kept.txt
echo 'gone soon' >old.txt
head -c 300000 /dev/urandom >big.bin
cat >make.sh <<'END'
mkdir -p out/deep empty
echo result >out/deep/result.txt
printf '#!/bin/sh\necho hi\n' >out/tool; chmod 755 out/tool
ln -s deep/result.txt out/link
echo 'by the run' >data.txt
rm old.txt
printf 'inserted in the middle' | dd of=big.bin bs=1 seek=150000 conv=notrunc status=none
: >nothing.txt
touch "$(printf 'odd\nname \377')"
END
try silt run make.sh
same "the run works" 0 "$code"
check "nothing came by itself" not test -e out

try silt pull --dry-run --json
same "a dry run tells what there is" 'true 8' "$(json - '"\(.dry_run) \([.pulled[] | select(test("result.txt|tool|link|data.txt|big.bin|nothing|odd|empty"))] | length)"' <<<"$out")"
same "what the run deleted is listed" old.txt "$(json - '.deleted_there[0]' <<<"$out")"
check "and does nothing" not test -e out

try silt pull
same "pull: 0" 0 "$code"
same "a file with its folders" result "$(cat out/deep/result.txt)"
check "the exec bit" test -x out/tool
same "a symlink" deep/result.txt "$(readlink out/link)"
same "a changed file" "by the run" "$(cat data.txt)"
check "an empty folder and an empty file" test -d empty -a -f nothing.txt -a ! -s nothing.txt
check "a name that is no text" test -e "$(printf 'odd\nname \377')"
check "a large file" cmp -s big.bin "$(workspace)/big.bin"
check "what the run deleted stays here" test -e old.txt
contains "and is told" old.txt "$out"
try silt sync --json
same "the next sync sends nothing" '0 0 0' "$(json - '"\(.created) \(.updated) \(.deleted)"' <<<"$out")"
try silt pull --json
same "a second pull finds nothing" '0 0' "$(json - '"\(.pulled | length) \(.conflicts | length)"' <<<"$out")"
try silt pull --delete
check "--delete deletes it here" not test -e old.txt
same_tree "both sides are the same"
check "nothing of it is left in .silt" not test -e .silt/pull

# ---- deltas

head -c 2000000 /dev/urandom >large.bin
echo 'open("large.bin", "r+b").write(b"x" * 10)' >patch.py
silt run patch.py >/dev/null 2>&1
try silt pull --json large.bin
same "a change in a large file comes as a delta" 1 "$(json - .deltas <<<"$out")"
below "few bytes for it, both ways" 60000 "$(json - '.bytes_sent + .bytes_received' <<<"$out")"
check "and is the file" cmp -s large.bin "$(workspace)/large.bin"

# ---- what was changed here stays

echo 'print("x"); open("data.txt", "w").write("run again\n"); open("sub/kept.txt", "w").write("run\n"); open("new.txt", "w").write("of the run\n")' >again.py
silt run again.py >/dev/null 2>&1
echo 'mine' >data.txt
echo 'also mine' >new.txt
try silt pull
same "a conflict: exit code 1" 1 "$code"
contains "it is named" data.txt "$out"
same "the local version stays" mine "$(cat data.txt)"
same "also of a file that both sides made" "also mine" "$(cat new.txt)"
same "the others come" run "$(cat sub/kept.txt)"
try silt pull --force data.txt
same "--force takes the server's" "run again" "$(cat data.txt)"
same "of the named path only" "also mine" "$(cat new.txt)"

# ---- paths

cd sub || exit 1
echo 'open("a.gen", "w").write("a"); open("../b.gen", "w").write("b")' >gen.py
silt run gen.py >/dev/null 2>&1
try silt pull a.gen
check "a path is relative to the shell's folder" test -e a.gen -a ! -e ../b.gen
try silt pull ..
check "a folder means all beneath" test -e ../b.gen
try silt pull ../../elsewhere
same "a path outside is refused" 1 "$code"
cd .. || exit 1

# ---- names that are never written

printf 'logs/\n' >.gitignore
cat >evil.sh <<'END'
mkdir -p .git/hooks .GIT .silt logs node_modules/x sub/.git
echo 'touch /tmp/owned' >.git/hooks/pre-commit
echo x >.GIT/config
echo '{}' >.silt/link.json.x
echo '!.env' >.siltignore
echo secret >.env
echo log >logs/run.log
echo x >node_modules/x/index.js
echo x >sub/.git/config
ln -s /etc/passwd passwd
ln -s ../../elsewhere up
ln -s .git/hooks/pre-commit hook
END
silt run evil.sh >/dev/null 2>&1
try silt pull
check "not .git, .silt, secrets, dependencies" not test -e .git -o -e .GIT -o -e sub/.git -o -e .silt/link.json.x -o -e .env -o -e node_modules
check "no rule file, which would decide what is sent" not test -e .siltignore
check "no symlink that leads out, or into .git" not test -L passwd -o -L up -o -L hook
check "nothing ignored" not test -e logs
contains "the rule file is told" .siltignore "$out"
try silt pull logs
same "unless it is named" log "$(cat logs/run.log)"
try silt pull .env
check "a secret not even then" not test -e .env
rm -f "$(workspace)"/{passwd,up,hook,.siltignore}

# A folder here became a symlink: nothing goes through it.
mkdir "$TMP/outside"
echo 'import os; os.makedirs("d", exist_ok=True); open("d/f", "w").write("f")' >dir.py
silt run dir.py >/dev/null 2>&1
ln -s "$TMP/outside" d
try silt pull d
check "nothing is written through a symlink" not test -e "$TMP/outside/f"
rm d

# ---- beside a watcher

start_silt "$TMP/watch.out" "$TMP/watch.err" --json watch
wait_until 20 grep -q '"ready"' "$TMP/watch.out"
echo 'open("watched.txt", "w").write("from a run"); open("sub/kept.txt", "w").write("run 2")' >w.py
silt run w.py >/dev/null 2>&1
before=$(wc -l <"$TMP/watch.out")
generation=$(rest GET "/v1/sandboxes/$(sandbox)" | json - generation)
try silt pull --json watched.txt sub
same "a watcher puts it into place" '0 2' "$code $(json - '.pulled | map(select(test("watched|kept"))) | length' <<<"$out")"
same "with its content" "from a run" "$(cat watched.txt)"
silt sync >/dev/null
same "and sends nothing of it back" "$generation" "$(rest GET "/v1/sandboxes/$(sandbox)" | json - generation)"
echo 'edited' >watched.txt
silt sync >/dev/null
same "a later edit goes out" edited "$(cat "$(workspace)/watched.txt")"
end_silt
finish
