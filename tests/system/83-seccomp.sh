#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: what silt-init's filter refuses, `siltd seccomp` says in the form that runtimes read. The same
# questions are asked of the kernel in a silt container, in one of plain crun with that profile, and in
# one of plain crun without any: the first two get the same answers, the third one others.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"
start_server
new_sandbox '{"language":"python"}'

cat >"$TMP/probe.py" <<'P'
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def ask(name, number, *args):
    ctypes.set_errno(0)
    r = libc.syscall(number, *[ctypes.c_long(a) for a in args])
    print(name, *args, "ok" if r >= 0 else errno.errorcode[ctypes.get_errno()])
    return r
for name, number in (("add_key", 248), ("keyctl", 250), ("bpf", 321), ("io_uring_setup", 425), ("mount", 165), ("setns", 308),
                     ("perf_event_open", 298), ("userfaultfd", 323), ("open_by_handle_at", 304), ("fsopen", 430), ("clone3", 435)):
    ask(name, number, 0, 0, 0)
for flags in (0x400, 0x10000000, 0x20000, 0x40000000, 0x80, 0x2000000):
    ask("unshare", 272, flags)
for pid in (0, 1, 2, 1 << 32):
    ask("prlimit64", 302, pid, 7, 0, 0)
ask("sched_setaffinity", 203, 1, 0, 0), ask("sched_setaffinity", 203, 0, 0, 0)
for which, who in ((0, 1), (0, 0), (1, 0), (2, 1000)):
    ask("setpriority", 141, which, who, 19)
for which, who in ((1, 1), (1, 0), (2, 0), (3, 1000)):
    ask("ioprio_set", 251, which, who, 0)
for request in (0x5412, 0x541C, 0x5412 | 1 << 32, 0x5401):
    ask("ioctl", 16, 0, request, 0)
for family in list(range(48)) + [1000]:
    ask("socket", 41, family, 2, 0)
ask("socket", 41, 16, 3, 9), ask("socket", 41, 16, 3, 0)
P
run "$(jq -Rs '{code: .}' <"$TMP/probe.py")"
field stdout | sed '/^$/d' >"$TMP/silt"
check 'silt answers' grep -q 'socket 16 3 0 ok' "$TMP/silt"

try_plain() {
    local name=$1 profile=$2 root=$TMP/$1/rootfs
    mkdir -p "$root"/{usr,proc,dev,tmp}
    ln -s usr/bin usr/lib usr/lib64 "$root"
    cp "$TMP/probe.py" "$TMP/$name/probe.py"
    jq -n --arg root "$root" --arg probe "$TMP/$name" --argjson seccomp "$profile" '{ociVersion: "1.0.0", root: {path: $root},
        process: {user: {uid: 1000, gid: 1000}, args: ["/usr/bin/python3", "/tmp/probe.py"], env: ["PATH=/usr/bin"], cwd: "/",
            noNewPrivileges: true, capabilities: {bounding: [], effective: [], inheritable: [], permitted: [], ambient: []}},
        mounts: [{destination: "/proc", type: "proc", source: "proc"}, {destination: "/dev", type: "tmpfs", source: "tmpfs"},
            {destination: "/usr", type: "none", source: "/usr", options: ["rbind", "ro"]},
            {destination: "/tmp", type: "none", source: $probe, options: ["bind", "ro"]}],
        linux: ({namespaces: [{type: "user"}, {type: "pid"}, {type: "mount"}, {type: "ipc"}, {type: "uts"}, {type: "network"}],
            uidMappings: [{containerID: 1000, hostID: 1073741824, size: 1}],
            gidMappings: [{containerID: 1000, hostID: 1073741824, size: 1}]} + (if $seccomp then {seccomp: $seccomp} else {} end))}' \
        >"$TMP/$name/config.json"
    chmod -R a+rX "$TMP/$name"
    # crun does not take the mixed layout of cgroups; its process 1 must not be the probe.
    unshare -m sh -c 'umount /sys/fs/cgroup/unified 2>/dev/null
        exec crun --root "$1/state" --cgroup-manager=cgroupfs run -b "$1" "$2"' - "$TMP/$name" "seccomp-$name-$$" </dev/null
}
# The way to the bundle is for everybody: the runtime has no privileges when it looks up the root.
chmod a+x "$TMP"
profile=$("$SILTD" seccomp)
same 'the profile lets through what it does not name' SCMP_ACT_ALLOW "$(jq -r .defaultAction <<<"$profile")"
try_plain with "$profile" >"$TMP/with.out" 2>&1
try_plain without false >"$TMP/without.out" 2>&1
# A pid whose upper half is not 0 is the one difference that is meant: more is refused, never less.
same 'plain crun with the profile answers as silt does' '' \
    "$(diff <(grep -v 4294967296 "$TMP/silt") <(grep -v 4294967296 "$TMP/with.out"))"
check 'and refuses what only looks like its own process' grep -q 'prlimit64 4294967296 7 0 0 EPERM' "$TMP/with.out"
check 'without it crun answers otherwise' [ "$(diff "$TMP/silt" "$TMP/without.out" | grep -c '^>')" -ge 5 ]
finish
