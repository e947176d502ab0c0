#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: the main job. `silt run main.py` in a project that nobody has linked yet links it, sends it, runs
# it and prints its output; after an edit the new code runs; what did not change is not sent again, and
# whatever happens to files here (new, changed, moved, deleted, made executable) happens there.
. "$(dirname "$0")/lib.sh"

start_server
new_project shop
mkdir -p pricing/rules data 'with space' empty
cat >main.py <<'PY'
import sys
from pricing import tax
from pricing.rules import rounding

print("total", rounding.to_cents(tax.gross(100)))
print("python", sys.version_info[0], file=sys.stderr)
sys.exit(4 if tax.RATE > 1 else 0)
PY
printf 'RATE = 0.19\n\ndef gross(net):\n    return net * (1 + RATE)\n' >pricing/tax.py
printf 'def to_cents(x):\n    return f"{x:.2f}"\n' >pricing/rules/rounding.py
touch pricing/__init__.py pricing/rules/__init__.py
seq 1 2000 >data/numbers.txt
printf 'ä\n' >'with space/naïve ünïcode.txt'
printf 'raw name\n' >"$(printf 'latin1-\xe4.txt')"
head -c 70000 /dev/urandom >data/blob.bin
printf '#!/bin/sh\necho tool\n' >tool && chmod 755 tool
ln -s data/numbers.txt link && ln -s not/yet/there dangling

# ---- the first run

try silt run main.py
same "the first run prints the program's output" "total 119.00" "$out"
contains "the program's standard error comes on standard error" "python 3" "$err"
same "its exit code is the program's" 0 "$code"
contains "the first run says which folder goes" "$TMP/shop" "$err"
contains "it says to which server" "$SILT_SERVER" "$err"
contains "it says to which sandbox" "$(sandbox)" "$err"
check "the sandbox id is well-formed" grep -qE '^sb_[a-z2-7]{26}$' <<<"$(sandbox)"
same "git does not see the link" '*' "$(cat .silt/.gitignore)"
same_tree "the workspace holds what the project holds"
same "the executable bit arrives" 755 "$(stat -c %a "$(workspace)/tool")"
same "a symlink arrives as one" data/numbers.txt "$(readlink "$(workspace)/link")"
same "also one that leads to nothing yet" not/yet/there "$(readlink "$(workspace)/dangling")"
check "an empty folder arrives" test -d "$(workspace)/empty"
check "the link itself is not synced" not test -e "$(workspace)/.silt"

# ---- edits

sed -i 's/0.19/0.07/' pricing/tax.py
try silt run main.py
same "after an edit the new code runs" "total 107.00" "$out"
lacks "a linked project is not explained again" "goes to" "$err"
sed -i 's/0.07/2.00/' pricing/tax.py
try silt run main.py
same "a failing program's exit code passes" 4 "$code"
same "and its output" "total 300.00" "$out"

# ---- sync and its figures

try silt sync --json
same "silt sync succeeds" 0 "$code"
for member in generation created updated moved deleted bytes_sent bytes_received elapsed_ms; do
    same "silt sync --json has the number $member" number "$(json - "$member | type" <<<"$out")"
done
same "nothing is sent when nothing changed" "0 0 0 0" \
    "$(json - '"\(.created) \(.updated) \(.moved) \(.deleted)"' <<<"$out")"
below "and hardly a byte goes over the wire" 1000 "$(json - bytes_sent <<<"$out")"

printf 'new\n' >new.txt
printf '# more\n' >>main.py
rm 'with space/naïve ünïcode.txt'
chmod 600 tool
try silt sync --json
same "silt sync counts what is new" 1 "$(json - created <<<"$out")"
check "it counts what changed" test "$(json - updated <<<"$out")" -ge 1
check "it counts what was deleted" test "$(json - deleted <<<"$out")" -ge 1
same_tree "the workspace follows new, changed and deleted files"
same "and modes" 600 "$(stat -c %a "$(workspace)/tool")"

mv data/blob.bin data/moved.bin
mv pricing prices && sed -i 's/pricing/prices/' main.py
try silt sync --json
check "a move is seen as one" test "$(json - moved <<<"$out")" -ge 1
below "the content of what moved is not sent again" 20000 "$(json - bytes_sent <<<"$out")"
same_tree "the workspace follows moves"
try silt run main.py
same "the program runs from its new folder" "total 300.00" "$out"

rm link && mkdir link && echo inside >link/file
rm -r empty && echo 'now a file' >empty
try silt sync --json
same "files may become folders and folders files" 0 "$code"
same_tree "the workspace follows these too"

ln -s /etc/hostname outside
try silt sync
contains "a symlink that leads out of the project is left out, and that is said" outside "$err"
check "really" not test -L "$(workspace)/outside"
rm outside

# ---- what a run leaves behind

printf 'open("made/by-run.txt", "w").write("from a run")\n' >write.py
mkdir made && touch made/.keep
try silt run --json write.py
same "a run's new file is told about" made/by-run.txt "$(json - 'files_changed[0].path' <<<"$out")"
same "it persists in the workspace" "from a run" "$(cat "$(workspace)/made/by-run.txt")"
try silt sync --json
same "a file of a run is not deleted by the next sync" "from a run" "$(cat "$(workspace)/made/by-run.txt")"
try silt ls made
contains "silt ls lists it" made/by-run.txt "$out"
try silt run -- cat made/by-run.txt
same "and the next run finds it" "from a run" "$out"

try silt status
same "silt status succeeds" 0 "$code"
contains "silt status names the sandbox" "$(sandbox)" "$out"
try silt status --json
same "silt status --json is an object" "$(sandbox)" "$(json - sandbox <<<"$out")"
try silt doctor
same "silt doctor finds nothing bad" 0 "$code"
finish
