#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: with engine = docker, containers that a Docker Engine makes give the same table of runs; they can
# neither reach the network nor Docker; nothing of them is left by a run, a stop, or a killed server's
# successor, which removes nothing that is not its own.
# A dockerd of its own is started on a folder of its own and ended by its id; its image is made of this
# machine's files.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
. "$(dirname "$0")/engine_table.sh"

SOCKET=$TMP/docker.sock
docker() { # METHOD PATH [CURL…]
    local method=$1 path=$2
    shift 2
    curl -sS --max-time 60 --unix-socket "$SOCKET" -X "$method" "http://docker$path" "$@"
}
answers() { [ "$(docker GET /_ping 2>/dev/null)" = OK ]; }
none_left() { [ "$(docker GET '/containers/json?all=1' | jq length)" = "$1" ]; }

# busybox, python3 and its library
make_image() {
    local root=$TMP/image lib python version applet
    python=$(readlink -f /usr/bin/python3) version=${python##*/}
    mkdir -p "$root/usr/bin" "$root/usr/lib/$version" "$root/usr/lib64" "$root/tmp"
    for lib in bin lib lib64; do ln -s "usr/$lib" "$root/$lib"; done
    cp "$(command -v busybox)" "$root/usr/bin/busybox"
    for applet in sh true id cat sleep touch ls mkdir; do ln -s busybox "$root/usr/bin/$applet"; done
    cp "$python" "$root/usr/bin/$version" && ln -s "$version" "$root/usr/bin/python3"
    for lib in $(ldd "$python" | grep -o '/[^ ]*'); do
        mkdir -p "$root/usr/${lib%/*}"
        case $lib in /usr/*) cp -L "$lib" "$root$lib" ;; *) cp -L "$lib" "$root/usr$lib" ;; esac
    done
    rm -df "$root/usr/usr"
    tar -C "/usr/lib/$version" -c --exclude=__pycache__ --exclude=./test --exclude='./config-*' --exclude=./lib2to3 \
        --exclude=./pydoc_data --exclude=./tkinter --exclude=./idlelib --exclude=./ensurepip --exclude=./asyncio \
        --exclude=./unittest --exclude=./email --exclude=./distutils . | tar -C "$root/usr/lib/$version" -x
    tar -C "$root" -c . | docker POST '/images/create?fromSrc=-&repo=silt-test' -H 'Content-Type: application/x-tar' -T - >/dev/null
}

if [ "$(id -u)" -ne 0 ]; then
    ok 'engine = docker is NOT TESTED here: a dockerd needs root'
    exit 0
fi
if ! PATH=$PLAIN_PATH command -v dockerd >/dev/null; then
    not_ok 'dockerd is installed (scripts/setup --test)'
    exit 1
fi
mkdir "$TMP/dockerd"
env -i PATH="$PLAIN_PATH" HOME="$SERVER_HOME" dockerd --data-root "$TMP/dockerd/root" --exec-root "$TMP/dockerd/exec" \
    --pidfile "$TMP/dockerd/pid" -H "unix://$SOCKET" --bridge=none --iptables=false >"$TMP/dockerd.log" 2>&1 &
DOCKERD=$!
OWN_PIDS="$OWN_PIDS $DOCKERD"
if ! wait_until 60 answers; then
    not_ok 'engine = docker is not tested: no dockerd starts on this machine'
    tail -n 5 "$TMP/dockerd.log" >&2
    exit 1
fi

# What is missing is said
refused() { # TEXT NEEDLE OPTION…
    local text=$1 needle=$2
    shift 2
    "$SILTD" --listen 127.0.0.1:0 --data-dir "$TMP/refused" "$@" >"$TMP/refused.log" 2>&1
    contains "$text" "$needle" "$(cat "$TMP/refused.log")"
}
refused 'an engine that does not exist' 'use oci or docker' --engine pod
refused 'no image is named' "set 'docker_image'" --engine docker --docker-socket "$SOCKET"
refused 'an image that is not there' 'docker has no image' --engine docker --docker-socket "$SOCKET" --docker-image nowhere
refused 'a socket at which nobody listens' 'no docker listens' --engine docker --docker-socket "$TMP/none" --docker-image silt-test
make_image
docker POST /containers/create -H 'Content-Type: application/json' \
    -d '{"Image":"silt-test","Cmd":["sh"],"Labels":{"silt.engine":"another"}}' >/dev/null # somebody else's

use=(--engine docker --docker-socket "$SOCKET" --docker-image silt-test)
start_server "${use[@]}"
engine_table docker 'docker ' 5000 1073741824
same 'what is in the image decides' interpreter_missing "$(put a.js '1'; run '{"filename":"a.js"}'; field error.code)"
run '{"command":"cat /proc/self/status /proc/self/mounts; ls -a /dev/.silt /run /var/run 2>&1"}'
status=$(field stdout)
contains 'no capability is left' "CapBnd:	0000000000000000" "$status"
contains 'none can be gained' "NoNewPrivs:	1" "$status"
contains 'system calls are filtered' "Seccomp:	2" "$status"
lacks 'the socket of docker is not there' docker.sock "$status"
same 'nor that of silt-init any more' . "$(run '{"command":["python3","-c","import socket\ntry: socket.socket(socket.AF_UNIX).connect(\"/dev/.silt/sock\")\nexcept OSError: print(\".\")"]}'; field stdout)"
run '{"command":"echo x >/dev/.silt/init; echo x >/dev/.silt/y; ls /dev/.silt"}'
same 'what silt-init came from cannot be changed' 'init sock' "$(field 'stdout|rtrimstr("\n")|gsub("\n"; " ")')"

# A killed server's containers end; the next one removes them, and nobody else's
run '{"command":"exec sleep 600","detach":true}'
check 'it runs' wait_until 20 status_is "$(field id)" running
kill_server
no_process() { [ -z "$(server_leftovers)" ]; }
check 'no program outlives the server' wait_until 30 no_process
start_server "${use[@]}"
contains 'the next server removes them' 'containers that an earlier server left behind' "$(cat "$SERVER_LOG")"
doctor=$("$SILTD" doctor "${use[@]}" --data-dir "$TMP/doctor" 2>&1)
contains 'siltd doctor knows the engine' 'ok    runtime     docker ' "$doctor"
contains 'says where languages come from' 'siltd --docker-image' "$doctor"
contains 'and tried a container' 'one was made, ran a program and is gone' "$doctor"
stop_server 'a stopped server leaves nothing behind'
check "of all containers somebody else's is left" wait_until 20 none_left 1

docker DELETE "/containers/$(docker GET '/containers/json?all=1' | jq -r '.[0].Id')" >/dev/null
kill -TERM "$DOCKERD"
check 'dockerd ends' wait_until 20 ended "$DOCKERD"
wait "$DOCKERD" 2>/dev/null
OWN_PIDS=${OWN_PIDS/ $DOCKERD/}
grep -o "$TMP/dockerd[^ ]*" /proc/self/mountinfo | sort -r | xargs -r umount
finish
