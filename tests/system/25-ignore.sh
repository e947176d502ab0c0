#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: secrets and bulk never leave the machine unless asked for; .gitignore is respected, .siltignore
# goes on top of it in both directions; and when that bites (a program misses an ignored file), silt says
# which rule it was and which line takes it back.
. "$(dirname "$0")/lib.sh"

start_server
new_project rules
git init -q .
mkdir -p node_modules/left-pad .venv/bin __pycache__ build docs/private src logs .aws
for file in .env .env.local .env.example server.pem src/tls.pem id_rsa id_ed25519.pub .netrc .npmrc .aws/credentials \
    node_modules/left-pad/index.js .venv/bin/python __pycache__/main.pyc build/out.o docs/private/plan.txt docs/public.txt \
    src/generated.py src/keep.py logs/a.log logs/important.log main.py~ .main.py.swp 4913 '.#lock' id_generator.py debug.log; do
    echo "content of $file" >"$file"
done
printf 'build/\n*.log\n!important.log\n/docs/private\nsrc/generated.py\n' >.gitignore
printf '!debug.log\n*.txt\n!docs/*.txt\n' >.siltignore
printf 'print("hello")\n' >main.py

try silt sync
same "silt sync succeeds" 0 "$code"
contains "the first sync says that something is left out" "left out" "$err"
there=$(cd "$(workspace)" && find . -type f | sort | tr '\n' ' ')
same "exactly these files are on the server" \
    './.env.example ./.gitignore ./.siltignore ./debug.log ./docs/public.txt ./id_generator.py ./logs/important.log ./main.py ./pyproject.toml ./src/keep.py ' "$there"
check "no folder of what is left out either" not test -e "$(workspace)/node_modules"
secrets=$(grep -rlE 'content of (\.env|\.env\.local|server\.pem|src/tls\.pem|id_rsa|\.netrc|\.npmrc|\.aws/credentials)$' "$DATA" 2>/dev/null)
same "no secret is anywhere in the server's data" '' "$secrets"

# ---- why

try silt ignored .env
same "silt ignored: exit code 0 for what is left out" 0 "$code"
contains "and the reason, built in" "'.env*'" "$out"
contains "and the line that takes it back" "!/.env" "$out"
try silt ignored logs/a.log
contains "the reason, from a file" "line 2 of .gitignore says '*.log'" "$out"
try silt ignored build/out.o
contains "the reason may be a folder above" "line 1 of .gitignore says 'build/'" "$out"
contains "then it is the folder that must be taken back" "!/build" "$out"
try silt ignored notes.txt
contains "rules of .siltignore are named as such" ".siltignore" "$out"
try silt ignored main.py
same "silt ignored: exit code 1 for what is synced" 1 "$code"
contains "and it says so" "synced" "$out"
try silt ignored --json src/generated.py
same "--json" "src/generated.py true" "$(json - '"\(.path) \(.ignored)"' <<<"$out")"
cd src || exit 1
try silt ignored generated.py
contains "paths are relative to the shell's folder" "line 5 of .gitignore" "$out"
cd ..
try silt ignored /etc/passwd
same "a path outside of the project is refused" 1 "$code"
contains "with a sentence" "does not lie in the project" "$err"

# ---- the hint after a run

printf 'import src.generated\n' >main.py
try silt run main.py
contains "import of a module: the hint names its rule" "line 5 of .gitignore says 'src/generated.py'" "$err"
printf 'from src import generated\n' >main.py
try silt run main.py
same "a program that imports an ignored module fails" 1 "$code"
contains "the hint names the file" src/generated.py "$err"
contains "the hint names the rule" "line 5 of .gitignore says 'src/generated.py'" "$err"
contains "the hint names the line that includes it" '!/src/generated.py' "$err"
printf '!/src/generated.py\n' >>.siltignore
printf 'V = 5\n' >src/generated.py
printf 'from src import generated\nprint(generated.V)\n' >main.py
try silt run main.py
same "with that line the program runs" 5 "$out"
printf 'print(open(".env").read())\n' >main.py
try silt run main.py
contains "a missing file that is ignored is explained, too" "!/.env" "$err"
try silt run build/out.o
same "FILE itself may be ignored: 127" 127 "$code"
contains "and is explained" "build/" "$err"
printf 'import no_such_module_at_all\n' >main.py
try silt run main.py
lacks "what is not here either is not explained" ".siltignore" "$err"

# ---- rules that change

printf '!/.env\n' >>.siltignore
silt sync >/dev/null
same "a secret can be asked for" "content of .env" "$(cat "$(workspace)/.env" 2>/dev/null)"
sed -i '$d' .siltignore
echo changed >.env
silt sync >/dev/null
same "without the rule it is not sent any more; what is there is not touched" "content of .env" "$(cat "$(workspace)/.env")"
printf 'src/keep.py\n' >>.siltignore
silt sync >/dev/null
check "what a new rule leaves out is not deleted there either" test -e "$(workspace)/src/keep.py"
printf '!.silt\n!/.silt/**\n!.git\n' >>.siltignore
silt sync >/dev/null
check "the link is never synced, whatever a rule says" not test -e "$(workspace)/.silt"
check "the repository is when asked for" test -e "$(workspace)/.git/HEAD"
# ---- git's rules outside of the tree

new_project excludes
mkdir -p sub "$CLIENT_HOME/config/git" && for f in mine.tmpx sub/theirs.o both.q named.z plain.py; do echo "$f" >"$f"; done
printf '*.q\n*.tmpx\n' >"$CLIENT_HOME/config/git/ignore"
silt sync >/dev/null 2>&1
check "without a repository there are no rules of git's" test -e "$(workspace)/mine.tmpx"
git init -q .
printf '*.o\n!both.q\n' >.git/info/exclude
for f in mine.tmpx sub/theirs.o both.q; do echo "$f anew" >"$f"; done
echo new >new.tmpx
silt sync >/dev/null 2>&1
check "with one, the user's excludes file counts" not test -e "$(workspace)/new.tmpx"
same ".git/info/exclude above it" "both.q anew" "$(cat "$(workspace)/both.q")"
same "and what is left out from now on stays as it is there" sub/theirs.o "$(cat "$(workspace)/sub/theirs.o")"
try silt ignored sub/theirs.o
contains "silt ignored names .git/info/exclude" "line 1 of .git/info/exclude says '*.o'" "$out"
try silt ignored new.tmpx
contains "and the user's file" "line 2 of your own excludes file of git (core.excludesFile) says '*.tmpx'" "$out"
printf '!sub/theirs.o\n' >.gitignore
silt sync >/dev/null 2>&1
same "a .gitignore is above both" "sub/theirs.o anew" "$(cat "$(workspace)/sub/theirs.o")"
mv "$CLIENT_HOME/config/git/ignore" "$TMP/kept.ignore" && mkfifo "$CLIENT_HOME/config/git/ignore"
try silt sync
same "a FIFO in the place of the user's file holds nobody up" 0 "$code"
contains "and is told of" "core.excludesFile: its rules are not used" "$err"
rm "$CLIENT_HOME/config/git/ignore" && mv "$TMP/kept.ignore" "$CLIENT_HOME/config/git/ignore"
cp .git/info/exclude "$TMP/kept.exclude" && head -c 2000000 /dev/zero | tr '\0' '#' >>.git/info/exclude
try silt sync
contains "so is an excludes file that is too large" ".git/info/exclude: its rules are not used" "$err"
cp "$TMP/kept.exclude" .git/info/exclude
printf '[core]\n\texcludesFile = ~/other # mine\n' >"$CLIENT_HOME/.gitconfig"
echo '*.z' >"$CLIENT_HOME/other"
try silt ignored named.z
contains "core.excludesFile names another file" "(core.excludesFile) says '*.z'" "$out"
try silt ignored new.tmpx
same "instead" 1 "$code"
same "they are counted" "git's rules" "$(silt status | grep -o "git's rules")"
for f in mine.tmpx new.tmpx sub/theirs.o both.q named.z plain.py; do
    [ "$(git -c core.excludesFile="$CLIENT_HOME/other" check-ignore -q "$f"; echo $?)" = "$(silt ignored "$f" >/dev/null; echo $?)" ] || echo "$f"
done >"$TMP/differ"
same "git itself judges the same" '' "$(cat "$TMP/differ")"
finish
