# SPDX-License-Identifier: MIT
"""Programs that reach for what lies outside of their container."""
import os
import socket

from base import CALL, SECRET, case, wait_until


@case("ptrace on silt-init", "dumpable")
def ptrace(t):
    return t.wins(CALL + "win(call(101, 0x4206, 1, 0, 0) >= 0)")


@case("silt-init's socket is taken by pidfd_getfd", "dumpable")
def getfd(t):
    return t.wins(CALL + "fd = os.pidfd_open(1)\nwin(any(call(438, fd, n, 0) >= 0 for n in range(8)))")


@case("memory of silt-init is read", "dumpable")
def memory(t):
    return t.wins(CALL + """
try: win(open('/proc/1/maps').read(1))
except OSError: pass
""")


@case("descriptor of silt-init leaks into the program", "descriptors")
def leaked(t):
    return t.wins("""
import os
for n in range(3, 64):
    try:
        if os.readlink('/proc/self/fd/%d' % n).startswith('socket:'): print('WON')
    except OSError: pass
""")


@case("silt-init is starved by prlimit", "filter")
def starve(t):
    return t.wins(CALL + """
limit = (ctypes.c_ulong * 2)(100, 100)
win(call(302, 1, 7, ctypes.addressof(limit), 0) == 0)
""")


@case("silt-init is made to wait by its priority", "filter")
def slow(t):
    return t.wins("import os\nos.setpriority(os.PRIO_PROCESS, 1, 5)\nprint('WON')")


@case("new user namespace", "filter")
def userns(t):
    return t.wins(CALL + "win(call(272, 0x10000000) == 0)")


@case("keyring", "filter")
def keyring(t):
    return t.wins(CALL + """
name = ctypes.create_string_buffer(b"user"); key = ctypes.create_string_buffer(b"k")
win(call(248, ctypes.addressof(name), ctypes.addressof(key), ctypes.addressof(key), 1, -2) > 0)
""")


@case("io_uring", "filter")
def uring(t):
    return t.wins(CALL + "p = ctypes.create_string_buffer(120)\n"
                         "win(call(425, 4, ctypes.addressof(p)) >= 0)")


@case("vsock and other odd socket families", "filter")
def families(t):
    return t.wins(CALL + """
for family in (socket.AF_VSOCK, socket.AF_ALG, 21, 30, 11, 41):
    try:
        socket.socket(family, socket.SOCK_SEQPACKET if family == 38 else socket.SOCK_STREAM)
        win(True)
    except OSError: pass
""")


@case("another namespace is entered", "filter")
def setns(t):
    return t.wins(CALL + "win(call(308, -1, 0) == -errno.EBADF)")


@case("a file system is mounted", "capabilities,filter")
def mount(t):
    return t.wins(CALL + """
kind = ctypes.create_string_buffer(b"tmpfs"); to = ctypes.create_string_buffer(b"/tmp")
win(call(165, ctypes.addressof(kind), ctypes.addressof(to), ctypes.addressof(kind), 0, 0) == 0)
""")


@case("raw socket", "capabilities")
def raw_socket(t):
    return t.wins(CALL + """
try: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); win(True)
except OSError: pass
""")


@case("service of the host's loopback", "network")
def loopback(t):
    return t.wins(CALL + """
try: socket.create_connection((%r, %d), 5); win(True)
except OSError: pass
""" % (t.host, t.port))


@case("abstract socket of the host", "network")
def abstract(t):
    name = "\0silt-attack-%d" % os.getpid()
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(name)
        s.listen()
        return t.wins(CALL + """
try: socket.socket(socket.AF_UNIX).connect(%r); win(True)
except OSError: pass
""" % name)


@case("address of the host's network", "network")
def address(t):
    # Like a metadata service's address: one that only the host can reach.
    os.system("ip address add 198.51.100.77/32 dev lo")
    try:
        with socket.create_server(("198.51.100.77", 0)) as s:
            return t.wins(CALL + """
try: socket.create_connection(%r, 5); win(True)
except OSError: pass
""" % (s.getsockname(),))
    finally:
        os.system("ip address del 198.51.100.77/32 dev lo")


@case("shared memory of a neighbour (SysV)", "ipc")
def ipc(t):
    key = 0x51170000 + os.getpid() % 65536
    holder = t.exec({"code": CALL + """
n = call(29, %d, 4096, 0o1666); print(n, flush=True); time.sleep(30)
""" % key, "detach": True}, t.other).json()["id"]
    if not wait_until(20, lambda: t.rest("GET", "/v1/runs/" + holder).json()["stdout"]):
        raise RuntimeError("the neighbour does not run")
    won = t.wins(CALL + "win(call(29, %d, 4096, 0o666) >= 0)" % key)
    t.rest("POST", "/v1/runs/%s/cancel" % holder)
    os.system("ipcrm -M %d 2>/dev/null" % key)
    return won


@case("setuid program in the workspace", "root-map,privileges,nosuid,filter")
def setuid(t):
    t.run("import shutil\nshutil.copy('/usr/bin/python3', 'p')")
    os.chown(t.workspace("p"), 0, 0)
    os.chmod(t.workspace("p"), 0o6755)
    run = t.exec({"command": ["/workspace/p", "-c", "import os; print(os.geteuid())"]}).json()
    won = run["stdout"] == "0\n"
    os.unlink(t.workspace("p"))
    return won


@case("device file in the workspace", "nodev")
def device(t):
    os.mknod(t.workspace("zero"), 0o020666, os.makedev(1, 5))
    os.chmod(t.workspace("zero"), 0o666)
    won = t.wins("try:\n if open('zero', 'rb').read(1): print('WON')\nexcept OSError: pass")
    os.unlink(t.workspace("zero"))
    return won


@case("write to /proc/sys", "readonly,uid")
def sysctl(t):
    return t.wins("""
try:
    with open('/proc/sys/kernel/hostname', 'w') as f: f.write('taken')
    print('WON')
except OSError: pass
""")


@case("write to /sys", "sys,o,uid")
def sysfs(t):
    return t.wins("""
import os
for folder, _, names in os.walk('/sys'):
    for name in names:
        try:
            os.close(os.open(folder + '/' + name, os.O_WRONLY | os.O_NONBLOCK))
            print('WON'); os._exit(0)
        except OSError: pass
try:
    os.mkdir('/sys/new'); print('WON')
except OSError: pass
""", limits={"wall_ms": 60000})


@case("its own cgroup is mounted, to lift its limits", "capabilities,filter")
def cgroup(t):
    return t.wins(CALL + """
to = ctypes.create_string_buffer(b"/tmp")
for kind, options in ((b"cgroup2", None), (b"cgroup", b"pids"), (b"cgroup", b"memory")):
    name = ctypes.create_string_buffer(kind)
    data = ctypes.create_string_buffer(options) if options else None
    if call(165, ctypes.addressof(name), ctypes.addressof(to), ctypes.addressof(name), 0,
            ctypes.addressof(data) if data else 0) == 0:
        win(os.path.exists('/tmp/cgroup.procs')); break
""")


@case("new user namespace by clone", "filter")
def clone_userns(t):
    return t.wins(CALL + """
child = call(56, 0x10000000 | 17, 0, 0, 0, 0)  # CLONE_NEWUSER | SIGCHLD
if child == 0: os._exit(0)
win(child > 0)
""")


@case("new user namespace by clone3", "filter")
def clone3_userns(t):
    return t.wins(CALL + """
args = (ctypes.c_uint64 * 11)(0x10000000, 0, 0, 0, 17)
child = call(435, ctypes.addressof(args), 88)
if child == 0: os._exit(0)
win(child > 0)
""")


@case("bpf and performance counters", "filter")
def bpf(t):
    return t.wins(CALL + """
attr = ctypes.create_string_buffer(120)
win(call(321, 0, ctypes.addressof(attr), 120) not in (-errno.EPERM, -errno.ENOSYS) or
    call(298, 0, 0, -1, -1, 0) not in (-errno.EPERM, -errno.ENOSYS))
""")


@case("/proc/interrupts tells what the host does", "masked")
def interrupts(t):
    return t.wins("try:\n if len(open('/proc/interrupts').read()) > 100: print('WON')\nexcept OSError: pass")


@case("configuration in /usr/local/etc of the host", "local-etc")
def local_etc(t):
    return t.wins("import os\nif os.listdir('/usr/local/etc'): print('WON')")


@case("environment of the server", "environment")
def environment(t):
    return t.wins("import os\nif %r in str(os.environ): print('WON')" % SECRET)
