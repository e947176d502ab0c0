#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: a program reads what is piped into `silt run` while it runs, whole and once, whoever breaks a
# connection or does not read; and in a terminal it has one: what is typed, Ctrl-C and Ctrl-D, the
# window's size, and the shell's terminal is as it was afterwards.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
start_server
new_project app
printf 'import hashlib, sys\nb = sys.stdin.buffer.read()\nprint(len(b), hashlib.sha256(b).hexdigest())\n' >digest.py
head -c 3000000 /dev/urandom >"$TMP/big"
wanted="3000000 $(sha256sum "$TMP/big" | cut -d' ' -f1)"

# ---- pipes and files

same "a pipe" "$wanted" "$(cat "$TMP/big" | silt run digest.py)"
same "a file" "$wanted" "$(silt run digest.py <"$TMP/big")"
empty=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
same "nothing" "0 $empty" "$(silt run digest.py </dev/null)"
same "an empty pipe" "0 $empty" "$(: | silt run digest.py)"
: >"$TMP/empty"
same "an empty file" "0 $empty" "$(silt run digest.py <"$TMP/empty")"
same "-n leaves it alone" "0 $empty" "$(silt run -n digest.py <"$TMP/big")"
same "and so does --json" "0 $empty" "$(silt run --json digest.py <"$TMP/big" | json - stdout)"
yes | silt run -- head -n 2 >"$TMP/yes" 2>&1
same "a writer without an end: exit codes" "141 0" "${PIPESTATUS[*]}"
same "a writer without an end: output" $'y\ny' "$(cat "$TMP/yes")"
# As start_silt, with a standard input of its own.
start_fed() { # INPUT NAME ARG…
    client_environment
    "${CLIENT[@]}" "$SILT" "${@:3}" <"$1" >"$TMP/$2.out" 2>"$TMP/$2.err" &
    SILT_PID=$!
    OWN_PIDS="$OWN_PIDS $SILT_PID"
}
mkfifo "$TMP/fifo"
exec 7<>"$TMP/fifo"
start_fed "$TMP/fifo" live run -- sh -c 'while read -r x; do echo "got $x"; done; echo end'
echo one >&7
check "a line is answered while the input is open" wait_until 20 grep -qs 'got one' "$TMP/live.out"
echo two >&7
check "and so is the next" wait_until 20 grep -qs 'got two' "$TMP/live.out"
end_silt INT
same "Ctrl-C ends it" 130 "$code"
start_fed "$TMP/big" deaf run -- sh -c 'echo here; exec sleep 60'
check "a program that does not read runs all the same" wait_until 20 grep -qs here "$TMP/deaf.out"
end_silt INT
same "and Ctrl-C ends it, too" 130 "$code"
start_fed "$TMP/fifo" true run -- true
await_silt
same "the end of the program is the end, whoever still writes" 0 "$code"
silt watch -d >/dev/null 2>&1
same "through a watcher" "$wanted" "$(cat "$TMP/big" | silt run digest.py)"
silt stop >/dev/null 2>&1
# The agent's requests are cut off in the middle, again and again.
cut_proxy() {
    python3 - "$SILT_SERVER" "$TMP/proxy" <<'P' &
import random, socket, sys, threading
host, port = sys.argv[1].rsplit(":", 1)
listen = socket.create_server(("127.0.0.1", 0))
open(sys.argv[2], "w").write("127.0.0.1:%d" % listen.getsockname()[1])
cuts = 0
def pump(a, b, limit):
    left = limit
    try:
        while True:
            data = a.recv(65536)
            if not data: break
            b.sendall(data[:left] if left is not None else data)
            if left is not None:
                left -= len(data)
                if left <= 0: break
    except OSError: pass
    for s in (a, b):
        try: s.shutdown(socket.SHUT_RDWR)
        except OSError: pass
def serve(c):
    global cuts
    s = socket.create_connection((host, int(port)))
    head = c.recv(65536)
    # Every other connection for input ends behind some bytes of it, or before its answer.
    limit = None
    if b"/stdin" in head.split(b"\r\n")[0]:
        cuts += 1
        limit = random.choice([1, 5000, 60000]) if cuts % 2 else None
    s.sendall(head)
    back = threading.Thread(target=pump, args=(s, c, None if cuts % 4 or limit is None else 1), daemon=True)
    back.start()
    pump(c, s, limit)
while True:
    c, _ = listen.accept()
    threading.Thread(target=serve, args=(c,), daemon=True).start()
P
    OWN_PIDS="$OWN_PIDS $!"
    wait_until 10 test -s "$TMP/proxy"
}
cut_proxy
mkdir "$TMP/cut" && cd "$TMP/cut" && cp "$TMP/app/digest.py" . && printf '[project]\n' >pyproject.toml
direct=$SILT_SERVER
SILT_SERVER=$(cat "$TMP/proxy")
same "cut connections lose and double nothing" "$wanted" "$(silt run digest.py <"$TMP/big" 2>"$TMP/cut.err")"
SILT_SERVER=$direct
cd "$TMP/app" || exit 1

# ---- the route

new_sandbox '{"language":"python"}'
X=/v1/sandboxes/$SB/exec
call POST "$X" -d '{"command":"cat","stdin_stream":true,"stdin":"x"}'
expect "whole and stream at once" 422 invalid_value
call POST "$X" -d '{"command":"cat","detach":true}'
id=$(field id)
call POST "/v1/runs/$id/stdin" -d x
expect "a run that did not ask for it" 409 input_closed
call POST /v1/runs/run_00000000000000000000000000/stdin -d x
expect "an unknown run" 404 run_not_found
call POST "$X" -d '{"command":"cat","stdin_stream":true,"detach":true}'
id=$(field id)
call POST "/v1/runs/$id/stdin" -H 'Upload-Offset: 0' -d hello
same "what was taken is told" 5 "$(field offset)"
call POST "/v1/runs/$id/stdin" -H 'Upload-Offset: 3' -d lo,
same "a repeat is passed over" 6 "$(field offset)"
call POST "/v1/runs/$id/stdin" -H 'Upload-Offset: 9' -d x
expect "a gap" 409 offset_mismatch
same "which says where to go on" 6 "$(field error.details.offset)"
call POST "/v1/runs/$id/stdin" -H 'Upload-Offset: x' -d x
expect "an offset that is none" 422 invalid_value
call POST "/v1/runs/$id/resize" -d '{"rows":3,"cols":4}'
expect "a size without a terminal" 409 input_closed
call POST "/v1/runs/$id/stdin?eof=true" -d ' world'
call GET "/v1/runs/$id?wait_ms=20000"
same "and comes out once" "succeeded hello, world" "$(field status) $(field stdout)"
call POST "/v1/runs/$id/stdin" -d x
expect "after the end" 409 input_closed
call POST "$X" -d '{"command":"exec <&-; sleep 60","stdin_stream":true,"detach":true}'
id=$(field id)
closes() { call POST "/v1/runs/$id/stdin" -d x && [ "$status" = 409 ]; }
check "a program that closes it" wait_until 20 closes
call POST "/v1/runs/$id/cancel"

# ---- a terminal

cat >ask.py <<'P'
import getpass, os, shutil, signal, sys
def size(*_): print("size %dx%d" % shutil.get_terminal_size(), flush=True)
signal.signal(signal.SIGWINCH, size)
print("tty", os.isatty(0), os.isatty(1))
size()
print("hello", input("name? "))
print("secret of", len(getpass.getpass("word? ")))
print("more", len(sys.stdin.read()))
try:
    print("waiting")
    while True: signal.pause()
except KeyboardInterrupt:
    print("interrupted"); sys.exit(7)
P
# A person at a terminal: expects a text, then types or resizes; prints what is missing, the exit code and
# whether the terminal's mode is as it was.
cat >"$TMP/person.py" <<'P'
import fcntl, os, pty, select, struct, sys, termios, time
steps, command = sys.argv[1].split("|"), sys.argv[2:]
def resize(fd, rows, cols): fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
fd, slave = pty.openpty()
resize(fd, 20, 50)
pid = os.fork()
if pid == 0:
    os.login_tty(slave) if hasattr(os, "login_tty") else (os.setsid(), fcntl.ioctl(slave, termios.TIOCSCTTY, 0),
        [os.dup2(slave, n) for n in range(3)])
    os.execvp(command[0], command)
before, seen = termios.tcgetattr(slave), b""
def pump():
    global seen
    if select.select([fd], [], [], 0.1)[0]:
        try: seen += os.read(fd, 65536)
        except OSError: return False
    return True
for step in steps:
    wanted, typed = step.split("=>")
    until = time.monotonic() + 30
    while wanted.encode() not in seen and time.monotonic() < until: pump()
    if wanted.encode() not in seen: print("never saw", wanted)
    seen = seen.split(wanted.encode(), 1)[-1]
    if typed.startswith("resize"): resize(fd, *map(int, typed.split()[1:]))
    elif typed.startswith("kill"): os.kill(pid, int(typed.split()[1]))
    else: os.write(fd, typed.encode().decode("unicode_escape").encode())
until = time.monotonic() + 30
status = (0, 0)
while status[0] == 0 and time.monotonic() < until:
    pump(); status = os.waitpid(pid, os.WNOHANG)
while select.select([fd], [], [], 0)[0] and pump(): pass
print("exit", os.waitstatus_to_exitcode(status[1]) if status[0] else "never", "mode", "same" if termios.tcgetattr(slave) == before else "changed")
if os.environ.get("SHOW"): print(seen.decode())
P
client_environment
person() { "${CLIENT[@]}" TERM=xterm python3 "$TMP/person.py" "$1" "$SILT" "${@:2}" 2>&1; }
same "typing, echo, size, a hidden word, Ctrl-D, Ctrl-C" "exit 7 mode same" \
    "$(person 'size 50x20=>|name? =>Mark\r|Mark=>|hello Mark=>|word? =>hush\r|secret of 4=>ab\r\x04|more 3=>resize 33 77|size 77x33=>\x03|interrupted=>' run ask.py)"
same "SIGTERM gives the terminal back" "exit 130 mode same" "$(person 'name? =>kill 15' run ask.py)"
same "and so does SIGHUP" "exit 130 mode same" "$(person 'name? =>kill 1' run ask.py)"
printf 'import sys\nprint("plain", sys.stdin.isatty(), sys.stdout.isatty())\nprint("line", input())\n' >plain.py
same "-T: no terminal there, but lines" "exit 0 mode same" "$(person 'plain False False=>abc\r|line abc=>' run -T plain.py)"
printf 'print("\\x1b[31mred\\x1b[0m \\x1b]0;title\\x07\\x9b2J end")\n' >hostile.py
same "-T: colours pass, other sequences are shown" "exit 0 mode same" \
    "$(person "$(printf '\033[31mred\033[0m')"' \x1b]0;title\x07\xc2\x9b2J end=>' run -T hostile.py)"
same "and so in silt logs" "exit 0 mode same" "$(person '\x1b]0;title\x07\xc2\x9b2J end=>' logs)"
same "into a pipe all goes as it is" "$(python3 hostile.py | sha256sum)" "$(silt logs | sha256sum)"
silt watch -d >/dev/null 2>&1
same "through a watcher" "exit 7 mode same" \
    "$(person 'name? =>Mark\r|hello Mark=>|word? =>hush\r|secret of 4=>\x04|waiting=>\x03|interrupted=>' run ask.py)"
silt stop >/dev/null 2>&1
printf 'import sys\nprint("out", sys.stdout.isatty(), "in", sys.stdin.isatty(), len(sys.stdin.read()))\n' >mixed.py
printf '%s\n' "cat '$TMP/big' | base64 -w0 | '$SILT' run mixed.py" >"$TMP/mixed.sh"
same "a pipe in and a terminal out" "exit 0 mode same" \
    "$("${CLIENT[@]}" TERM=xterm python3 "$TMP/person.py" 'out True in False 4000000=>' sh "$TMP/mixed.sh")"
finish
