#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: two machines that were given one sandbox never lose a file of either. Who is not the writer is
# told so, also when nothing is to be sent; who takes the sandbox over sends what differs, deletes
# nothing that only the other one had synced, and what gives way is kept and named.
. "$(dirname "$0")/lib.sh"

start_server
HOME_ONE=$CLIENT_HOME HOME_TWO=$TMP/home2
mkdir -p "$HOME_TWO"
one() { CLIENT_HOME=$HOME_ONE; cd "$TMP/one" || exit 1; }
two() { CLIENT_HOME=$HOME_TWO; cd "$TMP/two" || exit 1; }
there() { (cd "$WS" && find . -type f -printf '%P\n' | sort | tr '\n' ' '); }
refusal() { json - error.code <<<"$err"; }
kept() { rest GET "/v1/sandboxes/$SB/conflicts" | jq -r '[.items[].path] | join(" ")'; }

new_project one
mkdir src
echo 'print("one")' >main.py
echo common >src/common.txt
echo of-one >src/one.txt
silt sync >/dev/null 2>&1
SB=$(sandbox) WS=$(workspace)

new_project two
cp "$TMP/one/pyproject.toml" .
mkdir src
echo 'print("two")' >main.py
echo common >src/common.txt
echo of-two >two.txt

# ---- the second takes over

two
try silt --json init --sandbox "$SB"
same "a second machine is refused" linked_elsewhere "$(refusal)"
check "it is not linked" not test -e .silt/link.json
try silt init --sandbox "$SB" --steal
same "it takes the sandbox over when told to" 0 "$code"
try silt sync
same "and fills it" 0 "$code"
contains "what differs is named" "main.py was changed on both sides" "$err"
same "nothing that only the first had synced is deleted" "main.py pyproject.toml src/common.txt src/one.txt two.txt " "$(there)"
same "its version of what both have is kept" main.py "$(kept)"
same "nothing here is touched" 'print("two")' "$(cat main.py)"
try silt pull --conflicts
same "and can be fetched" 'print("one")' "$(cat main.conflict-*.py 2>/dev/null)"
rm -f main.conflict-*.py
silt sync >/dev/null 2>&1

# ---- the first learns of it, whether it has something to send or not

one
try silt --json sync
same "the first is told although nothing changed" linked_elsewhere "$(refusal)"
contains "with the way back" "silt sync --steal" "$err"
try silt --json run main.py
same "a run does not show the other's files" linked_elsewhere "$(refusal)"
same "with exit code 125" 125 "$code"
echo more >>src/one.txt
try silt --json sync
same "nor is a change sent" linked_elsewhere "$(refusal)"
same "the workspace is the other's" of-one "$(cat "$WS/src/one.txt")"
try silt status
contains "silt status names the other" "another folder fills this sandbox" "$out"

# ---- a watcher of the loser ends, one that had nothing to send yet gives way

two
start_silt "$TMP/watch.out" "$TMP/watch.err" watch
wait_until 20 silt flush >/dev/null 2>&1
one
try silt sync --steal
same "the first takes it back" 0 "$code"
contains "what differs is named" "main.py was changed on both sides" "$err"
same "what only the second had is left alone" "main.py pyproject.toml src/common.txt src/one.txt two.txt " "$(there)"
same "the first one's version runs" one "$(silt run main.py 2>/dev/null)"
two
try silt --json run main.py
same "a run through the second's watcher is refused" linked_elsewhere "$(refusal)"
try silt --json sync
same "so is its sync" linked_elsewhere "$(refusal)"
try silt sync --steal
same "taking over works through a watcher" 0 "$code"
same "everything was compared" 'print("two")' "$(cat "$WS/main.py")"
one
silt sync --steal >/dev/null 2>&1
two
echo lost >>two.txt
await_silt
check "a watcher whose change is refused ends" test "$code" -ne 0
contains "and says why" "--steal" "$(cat "$TMP/watch.err")"
same "nothing of it arrived" of-two "$(cat "$WS/two.txt")"

# ---- what the writer deletes meanwhile is not deleted at the other

one
rm -r src
silt sync >/dev/null 2>&1
same "the writer deletes its own files" "main.py pyproject.toml two.txt " "$(there)"
two
try silt sync --steal
same "the second takes over" 0 "$code"
same "its copy is there" common "$(cat src/common.txt)"
same "and sent again" "main.py pyproject.toml src/common.txt two.txt " "$(there)"
rm two.txt
silt sync >/dev/null 2>&1
one
try silt sync --steal
same "nothing is left of what both deleted" "main.py pyproject.toml src/common.txt " "$(there)"
same "and nothing was deleted here" 'print("one")' "$(cat main.py)"

# ---- a copy with its .silt

cp -a "$TMP/one" "$TMP/copy"
cd "$TMP/copy" || exit 1
for command in sync status watch flush pull; do
    try silt "$command" </dev/null
    same "a copied folder: silt $command is refused" 1 "$code"
done
rm main.py
one
same "the copy deleted nothing" 'print("one")' "$(cat "$WS/main.py")"
cd "$TMP/copy" || exit 1
try silt init --sandbox "$SB"
check "the copy does not get the sandbox for the asking" test "$code" -ne 0
try silt init --sandbox "$SB" --steal
silt sync >/dev/null 2>&1
same "a copy that takes over deletes nothing that it does not have" 'print("one")' "$(cat "$WS/main.py")"

# ---- a lost .silt on the machine that is not the writer

one
rm -r .silt
try silt --json sync
same "its old sandbox is offered again, but not for the asking" linked_elsewhere "$(refusal)"
try silt sync --steal
same "with --steal it is" "0 $SB" "$code $(sandbox)"
finish
