#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: a file that a run changed while it was edited here: the edit wins, the run's version is kept on the
# server until its run's record goes, is named, and comes here when it is asked for.
. "$(dirname "$0")/lib.sh"

start_server
new_project conflicts
mkdir src
echo 'one' >src/data.txt
echo 'b' >Makefile
echo 'c' >gone.txt
ln -s a link
cat >write.sh <<'END'
echo 'by the run' >src/data.txt
echo 'run b' >Makefile
echo 'run c' >gone.txt
ln -sf b link
echo 'fresh' >both.txt
END
silt run write.sh >/dev/null 2>&1
run=$(silt ps --json | json - 'items[0].id')
echo 'edited here' >src/data.txt
echo 'edited b' >Makefile
rm gone.txt
ln -sf c link
echo 'made here' >both.txt
try silt sync
same "a sync of both sides' changes: 0" 0 "$code"
contains "the path is named" src/data.txt "$err"
contains "and how to get the other version" "silt pull --conflicts" "$err"
same "the local version won" "edited here" "$(cat "$(workspace)/src/data.txt")"
check "also the deletion" not test -e "$(workspace)/gone.txt"
kept() { rest GET "/v1/sandboxes/$(sandbox)/conflicts"; }
list=$(kept)
same "the server keeps what the run wrote" 'Makefile both.txt gone.txt link src/data.txt' "$(json - '.items | map(.path) | sort | join(" ")' <<<"$list")"
same "and knows which run" "$run" "$(json - '.items[] | select(.path == "src/data.txt") | .run' <<<"$list")"
id=$(json - '.items[] | select(.path == "src/data.txt") | .id' <<<"$list")
same "a version can be read" 'by the run' "$(rest GET "/v1/sandboxes/$(sandbox)/conflicts/$id")"
same "another id is none" file_not_found "$(rest GET "/v1/sandboxes/$(sandbox)/conflicts/cf_aaaaaaaaaaaaaaaaaaaaaaaaaa" | json - error.code)"
try silt status
contains "silt status counts them" "5 versions" "$out"

kill_server
start_server
same "they outlive a kill of the server" 5 "$(kept | json - '.items | length')"

try silt pull --conflicts src
same "pull --conflicts: 0" 0 "$code"
same "beside the file, under a name of its own" 'by the run' "$(cat "src/data.conflict-$run.txt")"
same "the file itself stays" 'edited here' "$(cat src/data.txt)"
check "only of the named folder" not test -e "Makefile.conflict-$run"
same "the server forgets it then" 4 "$(kept | json - '.items | length')"
try silt sync --json
same "the copy is never synced" 0 "$(json - .created <<<"$out")"
try silt pull --conflicts --to "$TMP/versions"
same "into a folder" 'run b' "$(cat "$TMP/versions/Makefile.conflict-$run")"
same "a symlink as a file" b "$(cat "$TMP/versions/link.conflict-$run")"
same "a deleted file's" 'run c' "$(cat "$TMP/versions/gone.conflict-$run.txt")"
same "none is left" 0 "$(kept | json - '.items | length')"

# ---- until the record goes

echo 'echo more >src/data.txt' >more.sh
silt run more.sh >/dev/null 2>&1
run=$(silt ps --json | json - 'items[0].id')
echo 'again' >src/data.txt
silt sync >/dev/null 2>&1
same "kept again" 1 "$(kept | json - '.items | length')"
rest DELETE "/v1/runs/$run" >/dev/null
same "with the run's record its versions go" 0 "$(kept | json - '.items | length')"

# ---- a server that was started anew knows who wrote a file

silt run more.sh >/dev/null 2>&1
run=$(silt ps --json | json - 'items[0].id')
stop_server
start_server
echo 'and again' >src/data.txt
silt sync >/dev/null 2>&1
same "the run is known after a restart" "$run" "$(kept | json - '.items[] | .run')"
silt pull --conflicts >/dev/null 2>&1

# ---- what wins is a copy of another file: it travels without content, and displaces as an edit does

seq 1000 >other.txt
silt sync >/dev/null 2>&1
silt run more.sh >/dev/null 2>&1
cp other.txt src/data.txt
try silt sync --json
same "a copy that wins" "1 0 $(cksum <other.txt)" "$(jq -r '"\(.conflicts) \(.content_bytes)"' <<<"$out") $(cksum <"$(workspace)/src/data.txt")"
same "what it displaced is kept" more "$(rest GET "/v1/sandboxes/$(sandbox)/conflicts/$(kept | json - '.items[-1].id')")"
silt pull --conflicts >/dev/null 2>&1

# ---- both made the same change: no conflict

echo 'echo same >same.txt' >same.sh
echo first >same.txt
silt run same.sh >/dev/null 2>&1
echo same >same.txt
try silt sync --json
same "the same change on both sides is none" 0 "$(json - .conflicts <<<"$out")"

# ---- the server loses its numbers while both sides changed

printf 'echo lost >src/data.txt\n' >lose.sh
silt run lose.sh >/dev/null 2>&1
kill_server
start_server
echo 'kept here' >src/data.txt
try silt sync
same "after another epoch the edit wins" 'kept here' "$(cat "$(workspace)/src/data.txt")"
same "and the run's version is kept" lost "$(rest GET "/v1/sandboxes/$(sandbox)/conflicts/$(kept | json - 'items[-1].id')")"

# ---- by hand

hash=$(rest GET "/v1/sandboxes/$(sandbox)/files?path=Makefile" | json - 'items[0].hash')
set_of() { rest POST "/v1/sandboxes/$(sandbox)/changes" -d "{\"ops\":[{\"op\":\"put\",\"path\":\"Makefile\",\"text\":\"x\",\"keep\":true$1}]}"; }
same "keep needs the hash of what it keeps" invalid_value "$(set_of '' | json - error.code)"
before=$(kept | json - '.items | length')
same "with it a set displaces and keeps" 1 "$(set_of ",\"base\":\"$hash\"" | json - updated)"
same "one more" $((before + 1)) "$(kept | json - '.items | length')"

# ---- what is kept is not kept for ever: neither beside a record, nor where no run is known

silt run more.sh >/dev/null 2>&1
echo 'the last' >src/data.txt
silt sync >/dev/null 2>&1
run=$(silt ps --json | json - 'items[0].id')
silt run -- true
contains "one is of no run, one of the last but one" "null $run" "$(kept | json - '.items | map(.run | tostring) | unique | join(" ")' | sed 's/ .* / /')"
stop_server
# Older than the least keep_time, and one more run than is kept.
for note in $(find "$DATA" -name 'cf_*.json'); do
    grep -q "$run" "$note" && continue
    sed -i 's/"kept_ns":[0-9]*/"kept_ns":1000000000/' "$note"
    touch -d @1 "$note"
done
start_server --keep-runs 1
none_kept() { [ "$(kept | json - '.items | length')" = 0 ]; }
check "versions go with their time, or with their run's record" wait_until 60 none_kept
same "and nothing of them is left" '' "$(find "$DATA" -name 'cf_*')"
finish
