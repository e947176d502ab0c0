#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: whatever goes away or dies (server, client, files, permissions, the sandbox), the message says
# what to do, nothing is lost, and the next sync completes what was interrupted, sending only what is
# missing.
. "$(dirname "$0")/lib.sh"

# ---- no server

SILT_SERVER=127.0.0.1:1
new_project away
echo 'print("here")' >main.py
try silt run main.py
same "silt run without a server: 125" 125 "$code"
contains "the sentence names the address" 127.0.0.1:1 "$err"
contains "and the command that starts a server" siltd "$err"
try silt sync
same "silt sync without a server: 1" 1 "$code"
try silt --json sync
contains "--json: an object" siltd "$(json - error.message <<<"$err")"
check "nothing was linked" not test -e .silt/link.json
try silt --server 'http://127.0.0.1:port' sync
check "a malformed address is refused" test "$code" -ne 0

# ---- restarts

start_server
for i in $(seq 40); do printf 'N = %d\n' "$i" >"m$i.py"; done
try silt run main.py
same "with a server it runs" here "$out"
stop_server
try silt run main.py
same "a linked project, server gone: 125" 125 "$code"
contains "the sentence names the command" siltd "$err"
try silt status
same "silt status says so with exit code 1" 1 "$code"
contains "that the server is away" away "$out"
echo 'print("changed while away")' >main.py
start_server
try silt sync --json
same "after a clean restart only the change is sent" "0 1 0" "$(json - '"\(.created) \(.updated) \(.deleted)"' <<<"$out")"
try silt run main.py
same "and it runs" "changed while away" "$out"

epoch() { rest GET "/v1/sandboxes/$(sandbox)" | json - epoch; }
before=$(epoch)
kill_server
start_server
check "a killed server comes back with a new epoch" test "$(epoch)" != "$before"
try silt sync --json
same "then nothing that did not change is sent" "0 0 0" "$(json - '"\(.created) \(.updated) \(.deleted)"' <<<"$out")"
below "few bytes (comparing, not sending)" 2000 "$(json - bytes_sent <<<"$out")"
echo 'print("after the kill")' >main.py
try silt run main.py
same "edits arrive" "after the kill" "$out"
same_tree "the workspace is the project"
check "a killed server's containers end by themselves" test "$(containers | wc -l)" -le 2

# ---- a run under way

printf 'import time\nprint("begun")\ntime.sleep(60)\n' >slow.py
start_silt "$TMP/slow.out" "$TMP/slow.err" run slow.py
wait_until 15 grep -qs begun "$TMP/slow.out"
kill_server
start_server # or silt would wait for it
await_silt 60
same "the server dies under a run: 125" 125 "$code"
check "with a sentence" test -s "$TMP/slow.err"
try silt ps
contains "the run's record says that it did not end well" error "$out"

# ---- the client is killed in the middle of its first, big sync

new_project heavy
python3 - <<'PY'
import os, random
random.seed(3)
for i in range(60):
    os.makedirs(f"d{i % 7}", exist_ok=True)
    open(f"d{i % 7}/f{i}.bin", "wb").write(random.randbytes(1_000_000))
PY
start_silt "$TMP/first.out" "$TMP/first.err" sync
received() { [ "$(du -sk "$DATA/staging" "$DATA/workspaces" 2>/dev/null | awk '{s += $1} END {print s}')" -gt "$1" ]; }
wait_until 20 received 6000
end_silt KILL
check "it was killed in the middle" test "$code" -eq 137
try silt sync --json
same "the next sync completes" 0 "$code"
same_tree "everything is there"
try silt sync --json
same "and known to be" "0 0 0" "$(json - '"\(.created) \(.updated) \(.deleted)"' <<<"$out")"
settled() { [ -z "$(staging_leftovers)" ]; }
check "nothing of the interrupted upload stays" wait_until 10 settled

# ---- the server is killed in the middle of one

silt rm --yes >/dev/null 2>&1
rm -rf d0
python3 - <<'PY'
import os, random
random.seed(4)
os.makedirs("e", exist_ok=True)
for i in range(40):
    open(f"e/f{i}.bin", "wb").write(random.randbytes(1_000_000))
PY
silt init >/dev/null 2>&1
start_silt "$TMP/second.out" "$TMP/second.err" sync
grows() { [ "$(du -sk "$DATA/staging/$(sandbox)" "$(workspace)" 2>/dev/null | awk '{s += $1} END {print s}')" -gt 6000 ]; }
wait_until 20 grows
kill_server
await_silt 60
check "the sync that lost its server fails" test "$code" -ne 0
start_server
try silt sync
same "the next one completes" 0 "$code"
same_tree "everything is there after the server's death"
check "no staging leftovers" wait_until 10 settled

# ---- the sandbox is deleted behind our back

cd "$TMP/away" || exit 1
gone=$(sandbox)
rest DELETE "/v1/sandboxes/$gone" -o /dev/null
try silt sync
same "a deleted sandbox: silt sync fails" 1 "$code"
contains "the sentence names it" "$gone" "$err"
contains "and the way on" "silt init" "$err"
try silt run main.py
same "silt run fails with 125" 125 "$code"
contains "and the way on is named there, too" "silt init" "$err"
rm -r .silt
try silt run main.py
same "without the link a new sandbox is made" "after the kill" "$out"

# ---- files that cannot be read, or vanish

if [ "$(id -u)" -eq 0 ]; then
    # Root reads everything: act as somebody else, whom this server must let in.
    stop_server
    start_server --allow-users nobody
    mkdir -p "$TMP/bin" && cp "$SILT" "$TMP/bin/silt"
    chown -R nobody: "$CLIENT_HOME"
    as_user() { local CLIENT; client_environment; setpriv --reuid=nobody --regid=nogroup --clear-groups "${CLIENT[@]}" "$TMP/bin/silt" "$@"; }
else
    as_user() { silt "$@"; }
fi
new_project rights
echo 'print("rights")' >main.py
echo secret >closed.txt && chmod 000 closed.txt
mkdir closed && echo x >closed/x && chmod 000 closed
mkfifo pipe
[ "$(id -u)" -eq 0 ] && chown -R nobody: .
try as_user sync
same "a file that cannot be read does not stop a sync" 0 "$code"
contains "it is named" closed.txt "$err"
contains "so is a folder" "closed" "${err/closed.txt/}"
check "the rest is there" test -f "$(workspace)/main.py"
check "what could not be read is not" not test -e "$(workspace)/closed.txt"
check "a pipe is not synced" not test -e "$(workspace)/pipe"
chmod 644 closed.txt && chmod 755 closed
try as_user sync
check "readable again, it arrives" cmp -s closed.txt "$(workspace)/closed.txt"
chmod 000 closed
try as_user sync
same "a folder that became unreadable" "x" "$(cat "$(workspace)/closed/x" 2>/dev/null)"
chmod 755 closed

[ "$(id -u)" -eq 0 ] && chown -R root: "$CLIENT_HOME"
new_project vanish
touch stays.txt
silt sync >/dev/null 2>&1
(while [ ! -e "$TMP/enough" ]; do
    for i in 1 2 3 4 5 6 7 8; do echo "$i" >"v$i"; done
    mkdir -p vd/deep && echo x >vd/deep/x
    rm -rf v? vd
done) &
churn=$!
OWN_PIDS="$OWN_PIDS $churn"
bad=0
for _ in $(seq 12); do
    silt sync >>"$TMP/vanish.out" 2>>"$TMP/vanish.err" || bad=$((bad + 1))
done
touch "$TMP/enough"
wait "$churn"
OWN_PIDS=${OWN_PIDS/ $churn/}
same "files that vanish while they are read do not fail a sync" 0 "$bad"
silt sync >/dev/null 2>&1
same_tree "and at rest both sides agree"

# ---- tokens

stop_server
printf 'a-token-of-thirty-two-characters\n' >"$TMP/token" && chmod 600 "$TMP/token"
start_server --token-file "$TMP/token"
try silt sync
same "without the token: refused" 1 "$code"
contains "the message names the variable" SILT_TOKEN "$err"
CLIENT_ENV=(SILT_TOKEN=a-wrong-token-of-some-length)
try silt --json sync
same "with a wrong one: unauthorized" unauthorized "$(json - error.code <<<"$err")"
CLIENT_ENV=(SILT_TOKEN=a-token-of-thirty-two-characters)
try silt sync
same "with the right one: fine" 0 "$code"
mkdir -p "$CLIENT_HOME/config/silt"
CLIENT_ENV=()
printf 'token_file = %s\n' "$TMP/token" >"$CLIENT_HOME/config/silt/silt.conf"
try silt sync
same "the token may stand in the configuration" 0 "$code"
check "no token in the server's log" not grep -q a-token-of "$SERVER_LOG"
finish
