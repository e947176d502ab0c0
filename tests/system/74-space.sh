#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: a sandbox holds no more of the disk than it may, files or bytes, in its workspace and its cache.
# Where the file system counts by projects (in the guest of scripts/test-guest) a write beyond it fails;
# elsewhere the program is ended soon. Either way the run says so, and the server goes on.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
start_server --workspace-size 16M --workspace-files 300
new_sandbox '{"language":"python"}'
program() { run "$(jq -n --arg code "$(cat)" '{code: $code, limits: {wall_ms: 50000}}')"; }
hit() { field 'limits_hit|join(" ")'; }

put kept.txt 'from a change set'
run '{"command":"cat kept.txt"}'
kind=$(field limits.workspace)
same 'the run names its limits' '16777216 300' "$(field '"\(.limits.workspace_bytes) \(.limits.workspace_files)"')"
error=122 # EDQUOT; XFS says ENOSPC
[ "${GUEST_DATA:-}" != xfs ] || error=28
[[ "${GUEST_DATA:-}" != @(quota|xfs) ]] || same 'this disk counts by projects' hard "$kind"

BYTES='n = 0
with open(place + "/big", "wb", 0) as f:
    try:
        while n < 200 << 20: n += f.write(bytes(1 << 16))
    except OSError as e: print(e.errno, n <= 16 << 20, flush=True)
import time
if n > 16 << 20: time.sleep(600)'
FILES='n = 0
import os, time
try:
    while n < 5000: os.mkdir(place + "/d%d" % n); n += 1
except OSError as e: print(e.errno, n <= 300, flush=True)
if n > 300: time.sleep(600)'
for place in /workspace /cache/home; do
    for what in BYTES FILES; do
        program <<<"place = '$place'
${!what}"
        same "$what in $place: the limit" workspace "$(hit)"
        if [ "$kind" = hard ]; then
            same "$what in $place: the write fails" "$error True" "$(field stdout)"
        else
            same "$what in $place: the program is ended" failed "$(field status)"
            contains "$what in $place: the reason" 'on disk' "$(field reason)"
        fi
        run '{"command":"rm -rf /workspace/* /cache/home/*; echo freed"}'
        same "$what in $place: what was written can be removed" freed "$(field stdout)"
    done
done

# What a run with a snapshot writes counts as well, though an overlay writes it with the rights of who mounted it.
for what in BYTES FILES; do
    run "$(jq -n --arg code "place = '/workspace'
${!what}" '{code: $code, keep: "never", limits: {wall_ms: 50000}}')"
    same "$what above a snapshot: the limit" workspace "$(hit)"
    [ "$kind" = soft ] || same "$what above a snapshot: the write fails" "$error True" "$(field stdout)"
done

if [ "$kind" = hard ]; then
    program <<'P'
import fcntl, os, struct
made = open("mine", "w"); made.write("x"); made.flush()
for path in ("/workspace", "mine", "/cache"):
    fd = os.open(path, os.O_RDONLY)
    attr = bytearray(28)
    fcntl.ioctl(fd, 0x801c581f, attr)
    flags, extent, count, project, cow = struct.unpack("5I", attr[:20])
    print(path, project > 0)
    for new in ((flags, 0), (flags & ~0x200, project), (flags, project + 1)):
        if new == (flags, project): continue
        try: fcntl.ioctl(fd, 0x401c5820, struct.pack("5I8x", new[0], extent, count, new[1], cow)); print("left", path, new)
        except OSError: pass
P
    same 'a program cannot leave its project' '/workspace True mine True /cache True' "$(field stdout | xargs)"
fi

# Change sets go between staging and workspace as before.
put kept.txt 'again'
put folder/new.txt 'new'
call POST "/v1/sandboxes/$SB/changes" -d '{"ops":[{"op":"move","from":"folder","to":"moved"},{"op":"put","path":"moved/two","text":"2"},{"op":"delete","path":"kept.txt"}]}'
expect 'a change set with several steps' 200
run '{"command":"cat moved/new.txt moved/two; ls"}'
same 'is applied' 'new2moved' "$(field stdout | tr -d '\n' | sed 's/mine//')"
stop_server
start_server --workspace-size 16M --workspace-files 300
run '{"command":"cat moved/new.txt"}'
same 'after a restart' "new $kind" "$(field stdout) $(field limits.workspace)"
call DELETE "/v1/sandboxes/$SB"
expect 'the sandbox is deleted' 204
finish
