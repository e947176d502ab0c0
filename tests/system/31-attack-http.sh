#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: bytes from the network that were made to confuse are refused with a status, not taken for
# another request, another path or another server, and the server stays there for others. Numbers in
# brackets are the cases of the list of attacks that the design was made against.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
TOKEN=0123456789abcdefghij
start_server
new_sandbox '{"language":"python"}'
put f.txt 0123456789
HOST="Host: $SILT_SERVER"
CHANGES="/v1/sandboxes/$SB/changes"

# send BYTES: a raw request; the status of each answer in $codes. \r, \n and \0 as printf writes them;
# the connection is half closed behind them, so nothing waits for more.
send() { python3 -SEs "$TMP/send.py" "${SILT_SERVER%:*}" "${SILT_SERVER##*:}"; }
cat >"$TMP/send.py" <<'P'
import re, socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)
try:
    s.sendall(sys.stdin.buffer.read())
    s.shutdown(socket.SHUT_WR)
except OSError:
    pass
out = b""
try:
    while d := s.recv(65536):
        out += d
except OSError:
    pass
print(*re.findall(rb"(?m)^HTTP/1\.1 (\d\d\d) ", out) and [c.decode() for c in re.findall(rb"HTTP/1\.1 (\d\d\d) ", out)][:1])
sys.stderr.write(str(out.count(b"X-Content-Type-Options")))
P
refused() { # TEXT BYTES: one answer, 4xx or 501 or 505
    local codes
    codes=$(printf "$2" | send 2>"$TMP/answers")
    case $codes in 4?? | 50[15]) ok "$1" ;; *) not_ok "$1"; say "the answer was '$codes'" ;; esac
    below "$1: one request, one answer" 1 "$(cat "$TMP/answers")"
}

# Where does a body end?
POST="POST /v1/sandboxes HTTP/1.1\r\n$HOST\r\n"
SECOND="GET /v1/info HTTP/1.1\r\n$HOST\r\n\r\n"
refused 'smuggling: length and chunks' "${POST}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n$SECOND"
refused 'smuggling: two lengths' "${POST}Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}"
for length in +2 0x2 -1 2,2 99999999999999999999999 18446744073709551615; do
    refused "smuggling: a length of $length" "${POST}Content-Length: $length\r\n\r\n{}"
done
refused 'smuggling: an unknown coding' "${POST}Transfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
refused 'smuggling: two codings' "${POST}Transfer-Encoding: identity, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
refused 'smuggling: a space before the colon' "${POST}Transfer-Encoding : chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
refused 'smuggling: a chunk of -2' "${POST}Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n"
refused 'smuggling: a chunk of 2^68' "${POST}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n{}\r\n0\r\n\r\n"
refused 'a continued header' "GET /v1/info HTTP/1.1\r\n$HOST\r\nX: a\r\n b\r\n\r\n"
refused 'bare line feeds' "GET /v1/info HTTP/1.1\n$HOST\n\n"
refused 'a NUL in the target' "GET /v1/in\0fo HTTP/1.1\r\n$HOST\r\n\r\n"
refused 'a NUL behind the target' "GET /v1/info\0 HTTP/1.1\r\n$HOST\r\n\r\n"
for name in Origin Sec-Fetch-Site Authorization Content-Type; do
    refused "two headers $name" "GET /v1/info HTTP/1.1\r\n$HOST\r\n$name: none\r\n$name: none\r\n\r\n"
done
refused 'a NUL in a header' "GET /v1/info HTTP/1.1\r\n$HOST\r\nX: a\0b\r\n\r\n"
refused 'a bare carriage return' "GET /v1/info HTTP/1.1\r\n$HOST\r\nX: a\rY: b\r\n\r\n"
refused 'two hosts' "GET /v1/info HTTP/1.1\r\n$HOST\r\n$HOST\r\n\r\n"
refused 'no host' "GET /v1/info HTTP/1.1\r\n\r\n"
refused 'another server'\''s address' "GET http://evil.example/v1/info HTTP/1.1\r\n$HOST\r\n\r\n"
refused 'CONNECT' "CONNECT evil.example:80 HTTP/1.1\r\n$HOST\r\n\r\n"
refused 'HTTP/2' 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
refused 'a giant header' "GET /v1/info HTTP/1.1\r\n$HOST\r\nX: $(head -c 300000 /dev/zero | tr '\0' a)\r\n\r\n"
refused 'thousands of headers' "GET /v1/info HTTP/1.1\r\n$HOST\r\n$(printf 'a: b\\r\\n%.0s' $(seq 5000))\r\n"

# A web page, a rebound name, a neighbour on this machine
for name in evil.example 127.0.0.1.evil.example localhost.evil.example 127.1 2130706433 a@127.0.0.1 0.0.0.0; do
    call GET /v1/info -H "Host: $name"
    expect "rebinding: the host $name" 403 forbidden_origin
done
for origin in null http://evil.example "http://$SILT_SERVER.evil.example" http://localhost:1 file:// "http://a@$SILT_SERVER"; do
    call POST /v1/sandboxes -H "Origin: $origin" -H 'Content-Type: text/plain' -d '{}'
    expect "a page of $origin" 403 forbidden_origin
done
call GET /v1/info -H 'Sec-Fetch-Site: cross-site'
expect 'a page without an origin' 403 forbidden_origin
if [ "$(id -u)" = 0 ]; then
    body=$(setpriv --reuid=nobody --regid=nogroup --clear-groups curl -sS "$URL/v1/info")
    same '[39] another user of this machine' forbidden_peer "$(field error.code)"
fi

# [17] Paths
for path in ..%2f..%2fetc/passwd %2e%2e/%2e%2e/etc/passwd %2fetc/passwd a%00b f.txt%00 f.txt/ f.txt%2f a//b ./f.txt a/../f.txt % %zz; do
    call GET "/v1/sandboxes/$SB/files/$path" --path-as-is
    check "[17] the path $path" grep -qE '^4(00|22)$' <<<"$status"
done
call GET "/v1/sandboxes/$SB/files/%252e%252e%252ff.txt"
expect '[17] decoded once, not twice' 404 file_not_found
call GET /v1/sandboxes/..%2f..%2fetc/files --path-as-is
expect '[40] an id that is a path' 404 sandbox_not_found
for name in ../../x /etc/x '' ..; do
    call POST "/v1/sandboxes/$SB/files" -H 'Content-Type: multipart/form-data; boundary=b' --data-binary \
        $'--b\r\nContent-Disposition: form-data; name="file"; filename="'"$name"$'"\r\n\r\nx\r\n--b--\r\n'
    expect "[17] a form that uploads '$name'" 422 invalid_path
done
for path in .. /etc/x a/../b '' . a/ a//b 'a\u0000b'; do
    call POST "$CHANGES" -d "{\"ops\":[{\"op\":\"put\",\"path\":\"$path\",\"text\":\"x\"}]}"
    expect "[17] a change set that puts '$path'" 422 invalid_path
done
for name in -c --version '$(id)' '; id'; do
    run "{\"filename\":\"$name\"}"
    expect "[18] running '$name'" 404 file_not_found
done

# Ranges
for range in bytes=5-2 bytes=0-99999999999999999999 bytes=18446744073709551615- bytes=--1 bytes=+1-2 bytes=0-0,1-1; do
    call GET "/v1/sandboxes/$SB/files/f.txt" -H "Range: $range"
    same "the range $range means the whole file" '200 0123456789' "$status $body"
done
call GET "/v1/sandboxes/$SB/files/f.txt" -H 'Range: bytes=10-'
expect 'a range behind the end' 416 range_not_satisfiable

# [19] JSON and change sets
malformed() { # TEXT STATUS CODE: standard input to the change sets' route
    cat >"$TMP/malformed"
    call POST "$CHANGES" --data-binary @"$TMP/malformed" "${@:4}"
    expect "$1" "$2" "$3"
}
FRAMES=(-H 'Content-Type: application/vnd.silt.changes.v1')
head -c 1000000 /dev/zero | tr '\0' '[' | malformed '[19] a million arrays in each other' 400 bad_json
printf '{"ops":[],"ops":[]}' | malformed 'a member twice' 400 bad_json
printf '{"ops":[]}\0x' | malformed 'bytes behind the end' 400 bad_json
printf '{"ops":[],"seq":1e999}' | malformed 'a number without end' 400 bad_json
printf '{"ops":[{"op":"put","path":"\xff","text":""}]}' | malformed 'text that is no UTF-8' 400 bad_json
{ printf '{"ops":[{"op":"mkdir","path":"a"}'; yes ',{"op":"mkdir","path":"a"}' | head -n 200000; echo ']}'; } |
    malformed '[19] 200,001 operations' 422 invalid_value
if command -v zstd >/dev/null; then
    head -c 1000000000 /dev/zero | zstd -q -c >"$TMP/bomb"
    malformed '[19] a gigabyte of JSON in 30 KiB' 413 too_large -H 'Content-Encoding: zstd' <"$TMP/bomb"
    malformed '[19] a gigabyte of frames in 30 KiB' 400 bad_changes -H 'Content-Encoding: zstd' "${FRAMES[@]}" <"$TMP/bomb"
    head -c 1000000 /dev/urandom | zstd -q -c --ultra -22 --long=31 --no-content-size >"$TMP/wide"
    malformed '[19] a window of 2 GiB' 400 bad_request -H 'Content-Encoding: zstd' "${FRAMES[@]}" <"$TMP/wide"
fi
printf 'SILTCHG\001\002\377\377\377\377' | malformed '[20] a frame of 4 GiB' 400 bad_changes "${FRAMES[@]}"
same 'nothing of all this was applied' 1 "$(rest GET "/v1/sandboxes/$SB" | json - generation)"

# [22] Clients that hang: heads that never end, and clients that vanish
cat >"$TMP/hang.py" <<'P'
import socket, sys
held = []
for i in range(300):
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)
    s.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127")
    held.append(s)
print("held", flush=True)
sys.stdin.read()
P
mkfifo "$TMP/release"
python3 "$TMP/hang.py" "${SILT_SERVER%:*}" "${SILT_SERVER##*:}" <"$TMP/release" >"$TMP/hang.out" &
OWN_PIDS="$OWN_PIDS $!"
exec 9>"$TMP/release"
check 'heads that never end are held' wait_until 20 grep -q held "$TMP/hang.out"
run '{"command":"echo fine"}'
same '[22] and others are served' fine "$(field stdout)"
exec 9>&-

# [39] With a token
stop_server
printf '%s\n' "$TOKEN" >"$TMP/token"
chmod 600 "$TMP/token"
start_server --token-file "$TMP/token"
for value in '' 'Bearer' 'Bearer ' "Bearer ${TOKEN}x" "Bearer ${TOKEN%?}" "Basic $TOKEN" "$TOKEN"; do
    call GET /v1/info -H "Authorization: $value"
    expect "[39] the authorization '$value'" 401 unauthorized
done
call GET /v1/info -H "Authorization: Bearer $TOKEN"
expect 'the right one' 200
finish
