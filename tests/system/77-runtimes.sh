#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: the same table of runs ends the same under every OCI runtime that silt drives, and nothing of any
# of them is left when a run, or the server, is over. scripts/setup --test installs them all: one that is
# missing is a failure.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
. "$(dirname "$0")/engine_table.sh"

# An image of one program
mkdir -p "$TMP/images/tiny/bin"
cp "$(PATH=$PLAIN_PATH command -v busybox)" "$TMP/images/tiny/bin/sh"

holds_none() { [ -z "$(server_leftovers)" ]; }
for runtime in crun runc runsc; do
    if ! PATH=$PLAIN_PATH command -v $runtime >/dev/null; then
        not_ok "$runtime is installed (scripts/setup --test)"
        continue
    fi
    if [ "$(id -u)" -ne 0 ] && [ $runtime != crun ]; then
        "$SILTD" --listen 127.0.0.1:0 --data-dir "$TMP/refused" --runtime $runtime >"$TMP/refused.log" 2>&1
        contains "$runtime: says that it needs root" 'run siltd as root' "$(cat "$TMP/refused.log")"
        continue
    fi
    start_server --runtime $runtime --images "$TMP/images"
    start_ms=3000
    [ $runtime = runsc ] && start_ms=10000 # its kernel starts within the program's time
    [ -z "${GUEST:-}" ] || start_ms=$((start_ms * 8)) # an emulated processor is slow
    engine_table $runtime "$runtime " $start_ms
    new_sandbox '{"image":"tiny"}'
    run '{"command":["/bin/sh","-c","echo x 2>/dev/null >/bin/y || echo /bin/*; echo $(pwd)"]}'
    same "$runtime: an image, read-only" '/bin/sh /workspace' "$(field 'stdout|rtrimstr("\n")|gsub("\n"; " ")')"
    if [ $runtime = runsc ]; then
        run '{"command":"true","tty":true}'
        expect 'runsc: a terminal' 422 invalid_value
        same 'runsc: what it cannot do is told' 'false false' "$(rest GET /v1/info | json - '.engine|[.warm,.terminal]|map(tostring)|join(" ")')"
    fi
    if [ $runtime != runsc ]; then
        stop_server "$runtime: nothing is left behind"
        continue
    fi
    # What runs when the server is killed ends with it; the next one removes what is left, whichever runtime it uses.
    run '{"command":"exec sleep 600","detach":true}'
    check "$runtime: it runs" wait_until 20 status_is "$(field id)" running
    kill_server
    check "$runtime: no process outlives the server" wait_until 20 holds_none
    start_server --runtime crun
    stop_server "$runtime: nothing is left behind"
done
finish
