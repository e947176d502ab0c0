#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: whatever a tree may hold arrives as it is, or is named in one line: empty files and folders, modes,
# symlinks, names of any bytes and of full length, case, depth, many files in one folder, several names of
# one file, FIFOs and sockets, files that cannot be read until they can. First by `silt sync`, then by a
# watcher, which must see each of it by itself.
. "$(dirname "$0")/lib.sh"

start_server
long=$(printf 'n%.0s' $(seq 251)).txt
# fill: everything a tree may hold, in the current folder.
fill() {
    mkdir -p empty/in/empty dir many
    : >nothing
    echo 'echo hi' >dir/run.sh && chmod 755 dir/run.sh
    echo private >dir/private && chmod 600 dir/private
    ln -s dir/run.sh inside && ln -s nowhere dangling && ln -s ../nothing dir/up
    ln -s /etc/passwd absolute && ln -s ../../outside escaping
    mkfifo fifo
    python3 -c "import socket; socket.socket(socket.AF_UNIX).bind('socket')"
    echo long >"$long"
    echo bytes >"$(printf 'b\377\376ad')"
    echo line >"$(printf 'new\nline')"
    echo quote >"quo\"te's \\ \$x *?[a]"
    echo lower >case.py
    echo -n twice >one && ln one two
    (for _ in $(seq 200); do mkdir d && cd d || exit 1; done && echo deep >leaf)
    (cd many && seq 300 | xargs touch && head -c 400000 /dev/urandom >301)
}

# listing WHERE: everything of it that can be synced, with its modes, against the workspace.
listing() {
    (cd "$1" && find . -mindepth 1 -path ./.silt -prune -o \( -type f -o -type d -o -type l \) ! -name absolute ! -name escaping \
        -printf '%P %y %m %l\0' | sort -z | tr '\0' '\n')
}
agrees() { [ "$(listing .)" = "$(listing "$there")" ] || { sleep 0.2; false; }; }

new_project once
fill
try silt sync
same "a tree with everything in it is synced" 0 "$code"
there=$(workspace)
same "every name, kind, mode and target" "$(listing .)" "$(listing "$there")"
same "and every content" '' "$(diff -rq --no-dereference --exclude=.silt --exclude=absolute --exclude=escaping --exclude=fifo --exclude=socket . "$there" 2>&1 | head -n 5)"
for name in absolute escaping fifo socket; do
    same "$name: one line says that it is left out" 1 "$(grep -c "$name: it is" <<<"$err")"
    check "$name: is not there" not test -L "$there/$name" -o -e "$there/$name"
done
same "leaf of 200 folders" deep "$(cat "$there/$(printf 'd/%.0s' $(seq 200))leaf")"
try silt sync --verify
same "both sides are proved to be the same" 0 "$code"
contains "in words" "both sides hold the same" "$out"
start_silt "$TMP/plain.out" "$TMP/plain.err" watch
wait_until 60 test -S .silt/control
for i in 1 2 3; do
    touch fifo socket && mv fifo .. && mv ../fifo . && echo "$i" >beside
    try silt sync --timeout 60s
done
end_silt
for name in absolute escaping fifo socket; do
    same "$name: a watcher says it in one line, however often it looks" 1 "$(grep -c "$name: it is" "$TMP/plain.err")"
done

# ---- by itself

new_project live
silt sync >/dev/null 2>&1
there=$(workspace)
start_silt "$TMP/watch.out" "$TMP/watch.err" --json watch
wait_until 60 grep -qs '"event":"ready"' "$TMP/watch.out"
fill
check "a watcher sends all of it" wait_until 60 agrees
silt sync --timeout 60s >/dev/null
mv case.py Case.py
check "a name that changes its case only" wait_until 60 test ! -e "$there/case.py" -a -e "$there/Case.py"
echo more >>two
check "a write under one name of a file" wait_until 60 cmp -s two "$there/two"
check "is a write under its other name" wait_until 60 cmp -s one "$there/one"
has_mode() { [ "$(stat -c %a "$there/$2")" = "$1" ]; }
chmod 755 nothing
check "a changed mode" wait_until 60 has_mode 755 nothing
content() { grep -o '"bytes_sent":[0-9]*' "$TMP/watch.out" | cut -d: -f2 | awk '{ n += $1 } END { print n + 0 }'; }
head -c 400000 /dev/urandom >noise
silt sync --timeout 60s >/dev/null
before=$(content)
chmod 700 noise
check "a chmod" wait_until 60 has_mode 700 noise
for name in moved znoise; do
    mv noise "$name"
    check "a rename" wait_until 60 cmp -s "$name" "$there/$name"
    mv "$name" noise
    check "and back" wait_until 60 cmp -s noise "$there/noise"
done
for name in afar several; do
    mv many "$name"
    check "a renamed folder with 301 files" wait_until 60 agrees
    mv "$name" many
    check "and back" wait_until 60 agrees
done
silt sync --timeout 60s >/dev/null
check "travel without content" test $(($(content) - before)) -lt 200000
rm -r d && mkdir d && echo file >d/file
check "deep folders that are replaced" wait_until 60 agrees

# ---- what cannot be read, for which we must not be root

if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    end_silt
    stop_server
    start_server --allow-users 65534
    new_project unreadable
    mkdir locked && echo in >locked/in && echo secret >closed && chmod 0 closed locked
    chown -R 65534:65534 "$TMP/unreadable" "$CLIENT_HOME"
    SILT_BIN=$SILT
    printf '#!/bin/sh\nexec setpriv --reuid=65534 --regid=65534 --clear-groups "%s" "$@"\n' "$SILT_BIN" >"$TMP/as-nobody"
    chmod 755 "$TMP/as-nobody"
    SILT=$TMP/as-nobody
    if "$SILT" version >/dev/null 2>&1; then
        silt sync >/dev/null 2>"$TMP/unreadable.err"
        there=$(workspace)
        contains "a file that cannot be read is reported" "closed: " "$(cat "$TMP/unreadable.err")"
        contains "and a folder" "locked: it cannot be read" "$(cat "$TMP/unreadable.err")"
        check "the rest arrives" test -e "$there/pyproject.toml"
        start_silt "$TMP/nobody.out" "$TMP/nobody.err" --json watch
        wait_until 60 grep -qs '"event":"ready"' "$TMP/nobody.out"
        chmod 644 closed
        check "once it can be read it arrives" wait_until 60 cmp -s closed "$there/closed"
        chmod 755 locked
        check "a folder, too" wait_until 60 cmp -s locked/in "$there/locked/in"
        echo new >locked/new
        check "and it is watched from then on" wait_until 60 cmp -s locked/new "$there/locked/new"
        chmod 0 locked
        silt sync --timeout 30s >/dev/null 2>&1
        check "what cannot be read any more is not taken for deleted" test -e "$there/locked/in"
        chmod 755 locked
        end_silt
    fi
    SILT=$SILT_BIN
fi
finish
