#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: the right folder is linked to the right sandbox, and two folders never fill one. Everything that
# would break this is refused with the ways on.
. "$(dirname "$0")/lib.sh"

start_server

# ---- finding the root

new_project tool
mkdir -p src/inner
printf 'import os\nprint(sorted(os.listdir("/workspace")), os.getcwd())\n' >src/inner/look.py
cd src/inner || exit 1
try silt run look.py
same "the project is the folder above with a pyproject.toml" "['pyproject.toml', 'src'] /workspace/src/inner" "$out"
check "the link stands in its root" test -f "$TMP/tool/.silt/link.json"
check "and only there" not test -e .silt
mkdir -p "$TMP/loose/a"
cd "$TMP/loose/a" || exit 1
echo 'print("loose")' >x.py
try silt run x.py
same "without any marker the shell's folder is the project" loose "$out"
check "not the one above" not test -e "$TMP/loose/.silt"
mkdir -p "$TMP/nested/.git" "$TMP/nested/web/src"
cd "$TMP/nested/web/src" || exit 1
touch ../package.json && echo 'print("web")' >w.py
try silt run w.py
check "the nearest marker counts" test -e "$TMP/nested/web/.silt"

# ---- folders that are no projects

mkdir -p "$CLIENT_HOME/.git"
cd "$CLIENT_HOME" || exit 1
try silt sync
same "the home folder is refused" 1 "$code"
contains "with a sentence" "not a project folder" "$err"
try silt run x.py
same "by silt run with 125" 125 "$code"
mkdir -p "$CLIENT_HOME/proj" && cd "$CLIENT_HOME/proj" || exit 1
echo 'print("below home")' >h.py
try silt run h.py
same "a folder in the home folder is fine, even if that is a repository" "below home" "$out"
check "it is its own root" test -e .silt
for place in / /tmp /etc /usr /var; do
    try silt -C "$place" sync
    same "$place is refused" 1 "$code"
    contains "$place is refused with a sentence" "not a project folder" "$err"
done

# ---- copies and moves

cd "$TMP/tool" || exit 1
first=$(sandbox)
cp -a "$TMP/tool" "$TMP/copy"
cd "$TMP/copy" || exit 1
try silt run src/inner/look.py
same "a copied folder is refused" 125 "$code"
contains "the message says what it is" "copy" "$err"
contains "the first way on" "silt init" "$err"
contains "the second way on" "silt init --sandbox $first" "$err"
try silt init --yes
same "silt init --yes gives the copy a sandbox of its own" 0 "$code"
check "another one" test "$(sandbox)" != "$first"
same "nothing of the copy's link touched the original" "$first" "$(sandbox "$TMP/tool")"
try silt run src/inner/look.py
same "the copy runs" 0 "$code"
mv "$TMP/copy" "$TMP/moved"
cd "$TMP/moved" || exit 1
try silt sync
same "a moved folder stays linked" 0 "$code"
cd "$TMP/tool" || exit 1
try silt init
check "silt init in a linked folder is refused" test "$code" -ne 0
contains "and says to what it is linked" "$first" "$err"

# ---- a lost .silt

rm -rf .silt
try silt sync --json
same "a lost .silt is made again" 0 "$code"
same "with the old sandbox" "$first" "$(sandbox)"
same "and nothing is sent again" "0 0 0" "$(json - '"\(.created) \(.updated) \(.deleted)"' <<<"$out")"
git init -q . && git add -A && git -c user.name=x -c user.email=x@example.org commit -qm x
same "git does not see .silt" '' "$(git status --porcelain)"
git clean -fdxq
check "git clean -fdx removes it" not test -e .silt/link.json
try silt run src/inner/look.py
same "then the old sandbox is found again" "$first" "$(sandbox)"
contains "and that is said" again "$err"

# ---- two folders, one sandbox

mkdir "$TMP/second" && cd "$TMP/second" || exit 1
echo 'print("second")' >only-here.py
try silt init --sandbox "$first"
check "a second writer is refused" test "$code" -ne 0
contains "the message names the way on" --steal "$err"
try silt --json init --sandbox "$first"
same "as linked_elsewhere" linked_elsewhere "$(json - error.code <<<"$err")"
check "and nothing is linked" not test -e .silt/link.json
try silt init --sandbox "$first" --steal
same "--steal takes it over" 0 "$code"
try silt run only-here.py
same "the new writer runs" second "$out"
check "what the sandbox holds besides is left alone" test -e "$DATA/workspaces/$first/src"
cd "$TMP/tool" || exit 1
echo '# changed' >>src/inner/look.py
try silt sync
check "the folder that lost the lease is refused" test "$code" -ne 0
contains "with the way to get it back" --steal "$err"
try silt --json run src/inner/look.py
same "a run as well, as linked_elsewhere" linked_elsewhere "$(json - error.code <<<"$err")"
try silt sync --steal
same "which works" 0 "$code"
same_tree "and the sandbox follows it again" --exclude=.git --exclude=only-here.py
try silt init --sandbox sb_aaaaaaaaaaaaaaaaaaaaaaaaaa
check "a sandbox that does not exist is refused" test "$code" -ne 0
same "and the old link stays" "$first" "$(sandbox)"

# ---- other servers

try silt --server 127.0.0.1:1 sync
same "another server than the link's is refused" 1 "$code"
contains "and the message names both" "linked to http://$SILT_SERVER, not to http://127.0.0.1:1" "$err"

# ---- big folders

mkdir "$TMP/huge" && cd "$TMP/huge" || exit 1
python3 -c "
for i in range(10001): open(f'f{i}', 'w').close()"
try silt sync
same "above 10,000 files it is asked, and without a terminal that is a no" 1 "$code"
contains "the message has the number" 10001 "$err"
contains "and the ways on" --yes "$err"
check "nothing is linked" not test -e .silt/link.json

# ---- rm

cd "$TMP/second" || exit 1
rm -rf .silt
silt init >/dev/null
doomed=$(sandbox)
silt sync >/dev/null
try silt rm
same "silt rm without a terminal and --yes deletes nothing" 1 "$code"
contains "it names what it would have deleted" "$doomed" "$err"
check "the sandbox is there" test -d "$DATA/workspaces/$doomed"
try silt rm --yes
same "silt rm --yes deletes" 0 "$code"
check "the workspace is gone" not test -e "$DATA/workspaces/$doomed"
check "the project is not linked any more" not test -e .silt/link.json
check "local files stay" test -f only-here.py
try silt status
same "silt status says so" 1 "$code"
contains "and how to link" "silt init" "$err"
try silt run only-here.py
same "a run links anew" second "$out"
check "to a new sandbox" test "$(sandbox)" != "$doomed"
try silt sandbox ls
contains "silt sandbox ls lists it" "$(sandbox)" "$out"
lacks "and not the deleted one" "$doomed" "$out"
try silt sandbox info --json
same "silt sandbox info describes it" "$(sandbox)" "$(json - id <<<"$out")"
try silt sandbox rm --yes "$first"
same "silt sandbox rm deletes another one" 0 "$code"
check "really" not test -e "$DATA/workspaces/$first"
finish
