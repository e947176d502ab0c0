#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: files over plain REST: upload by form and by PUT, read whole and in part, conditions, delete,
# the manifest; names as hostile as names can be.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
start_server
new_sandbox '{"language":"python"}'
F=/v1/sandboxes/$SB/files
W=$DATA/workspaces/$SB
cd "$TMP" || exit 1
printf 'print("one")\n' >main.py
mkdir -p src
printf 'x = 1\n' >src/util.py

# Forms
call POST "$F" -F file=@main.py
expect 'curl -F file=@main.py' 201
same 'the answer names the file' main.py "$(field 'files[0].path')"
same 'its size' 13 "$(field 'files[0].size')"
check 'its hash' grep -qxE 'xxh3-128:[0-9a-f]{32}' <<<"$(field 'files[0].hash')"
same 'one upload is one generation' 1 "$(field generation)"
same 'it lies in the workspace' 'print("one")' "$(cat "$W/main.py")"
call POST "$F" -F 'file=@src/util.py;filename=src/util.py' -F 'file=@main.py;filename=./lib/../copy.py'
expect 'several files with relative names' 201
same 'are one change set' 2 "$(field generation)"
same 'a folder was made' 'x = 1' "$(cat "$W/src/util.py")"
check 'a name is brought into form' test -f "$W/copy.py"
call POST "$F" -F path=a/before.py -F file=@main.py
expect 'path before its file' 201
check 'it decides' test -f "$W/a/before.py"
call POST "$F" -F file=@main.py -F path=a/after.py -F file=@src/util.py
expect 'path after its file' 201
check 'it decides, too' test -f "$W/a/after.py"
same 'and only for that file' 'x = 1' "$(cat "$W/util.py")"
head -c 3000000 /dev/zero >large.bin
call POST "$F" -F file=@large.bin
expect 'a large file' 201
same 'arrives whole' 3000000 "$(stat -c %s "$W/large.bin")"
call POST "$F" -F 'file=@main.py;filename=../escape.py'
expect 'a name that leaves the workspace' 422 invalid_path
call POST "$F" -F 'file=@main.py;filename=/etc/escape.py'
expect 'an absolute name' 422 invalid_path
call POST "$F" -F file=@main.py -F 'file=@main.py;filename=a/../../x'
expect 'one bad name refuses the whole form' 422 invalid_path
call POST "$F" -F nonsense=1
expect 'an unknown field' 422 invalid_value
call POST "$F" -F path=x
expect 'a path without a file' 422 invalid_value
call POST "$F" -d '{}'
expect 'no form at all' 415 unsupported_media_type
call POST "$F" -H 'Content-Type: multipart/form-data; boundary=x' --data-binary $'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc'
expect 'a form that is cut off' 400 bad_request
check 'leaves nothing' test ! -e "$W/a/a"
same 'refused forms took no generation' 5 "$(rest GET "/v1/sandboxes/$SB" | json - generation)"

# PUT, GET, HEAD
call PUT "$F/dir/new%20file.txt" --data-binary 'hello world'
expect 'PUT makes a file' 201
etag=$(header ETag)
same 'and gives its ETag' "\"$(field hash)\"" "$etag"
call GET "$F/dir/new%20file.txt"
expect 'GET' 200
same 'its content' 'hello world' "$body"
same 'as bytes, not as a page' application/octet-stream "$(header Content-Type)"
same 'to be stored' attachment "$(header Content-Disposition)"
same 'not to be guessed at' nosniff "$(header X-Content-Type-Options)"
contains 'nor to act' sandbox "$(header Content-Security-Policy)"
call HEAD "$F/dir/new%20file.txt"
expect 'HEAD' 200
same 'its length' 11 "$(header Content-Length)"
same 'its ETag' "$etag" "$(header ETag)"
call GET "$F/dir/new%20file.txt" -H "If-None-Match: $etag"
expect 'unchanged' 304
call GET "$F/dir/new%20file.txt" -H 'Range: bytes=6-'
expect 'a range' 206
same 'its bytes' world "$body"
same 'its place' 'bytes 6-10/11' "$(header Content-Range)"
call GET "$F/dir/new%20file.txt" -H 'Range: bytes=50-'
expect 'a range past the end' 416 range_not_satisfiable
call PUT "$F/dir/new%20file.txt" --data-binary 'second' -H "If-Match: $etag"
expect 'PUT with the right If-Match' 200
call PUT "$F/dir/new%20file.txt" --data-binary 'third' -H "If-Match: $etag"
expect 'PUT with an old If-Match' 412 precondition_failed
check 'tells the ETag that is there' grep -q xxh3 <<<"$(header ETag)"
same 'and changes nothing' second "$(cat "$W/dir/new file.txt")"
call PUT "$F/dir/new%20file.txt" --data-binary x -H 'If-None-Match: *'
expect 'PUT of what must not exist' 412 precondition_failed
call PUT "$F/empty" --data-binary ''
expect 'an empty file' 201
call GET "$F/empty"
expect 'can be read' 200
call GET "$F/mian.py"
expect 'a file that is not there' 404 file_not_found
same 'with its neighbour' main.py "$(field 'error.details.near[0]')"
call GET "$F/src"
expect 'a folder is no file' 409 path_conflict
call PUT "$F/main.py/inner" --data-binary x
expect 'nor a file a folder' 409 path_conflict
for bad in '..%2f..%2fetc%2fpasswd' '%2e%2e/x' 'a//b' '%2fetc/passwd'; do
    call GET "$F/$bad" --path-as-is
    expect "GET $bad" 422 invalid_path
done
call GET "$F/a%00b"
expect 'a NUL in a path' 400 bad_request

# Names
call PUT "$F/gr%C3%BC%C3%9F.txt" --data-binary u
expect 'a name in UTF-8' 201
call PUT "$F/b%FFd%0Aname" --data-binary b
expect 'a name that is none, with a newline' 201
same 'is told exactly' 'Yv9kCm5hbWU=' "$(field path_base64)"
call GET "$F/b%FFd%0Aname"
same 'and can be read' b "$body"

# A symlink that a program plants leads nowhere
run '{"command":"ln -s /etc/passwd link; ln -s /etc linkdir; mkfifo pipe; echo >odd; chmod 7755 odd"}'
same 'a program planted symlinks' succeeded "$(field status)"
call GET "$F/link"
expect 'a symlink is not followed' 409 path_conflict
call GET "$F/linkdir/passwd"
check 'nor one on the way' test "$status" -ge 400
call GET "$F/pipe"
check 'a FIFO blocks nobody' test "$status" -ge 400
call PUT "$F/link" --data-binary mine
check 'PUT replaces the symlink itself' test "$(cat "$W/link")" = mine
check 'the host is untouched' grep -q '^root:' /etc/passwd

# The manifest
call GET "$F"
expect 'the manifest' 200
same 'paths are in byte order' "$(field 'items|map(.path)|tojson')" "$(field 'items|map(.path)|sort|tojson')"
same 'an item' '{"kind":"file","mode":"0644","size":13}' "$(field 'items|map(select(.path=="main.py"))[0]|{kind,mode,size}|tojson')"
same 'a mode is what an operation may say' 0755 "$(field 'items|map(select(.path=="odd"))[0].mode')"
same 'what a run made is marked as such, unless it was replaced since' '["linkdir"]' \
    "$(field 'items|map(select(.by=="run").path)|map(select(startswith("link")))|tojson')"
check 'so has what is left without it' grep -qxE 'xxh3-128:[0-9a-f]{32}' <<<"$(field synced_hash)"
check 'the whole has a hash' grep -qxE 'xxh3-128:[0-9a-f]{32}' <<<"$(field tree_hash)"
all=$(field 'items|length')
call GET "$F?path=src"
same 'a part of it' '["src","src/util.py"]' "$(field 'items|map(.path)|tojson')"
count=0 cursor=''
while :; do
    call GET "$F?limit=3${cursor:+&cursor=$(jq -rn --arg c "$cursor" '$c|@uri')}"
    count=$((count + $(field 'items|length')))
    cursor=$(field next_cursor)
    [ "$cursor" != null ] || break
done
same 'pages add up to all of it' "$all" "$count"

# DELETE
call DELETE "$F/main.py"
expect 'DELETE' 204
check 'it is gone' test ! -e "$W/main.py"
call DELETE "$F/main.py"
expect 'once' 404 file_not_found
call DELETE "$F/src"
expect 'a folder that holds something' 409 path_conflict
call DELETE "$F/src?recursive=true"
expect 'unless it is said' 204
check 'it is gone, too' test ! -e "$W/src"
finish
