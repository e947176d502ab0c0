# SPDX-License-Identifier: MIT
"""Programs that take more than they may have."""
import contextlib
import glob
import json
import os
import signal
import time

from base import case, wait_until


@case("fork bomb", "pids")
def forks(t):
    return t.wins("""
import os, time
n = 0
try:
    while n < 200:
        if os.fork() == 0: time.sleep(100)
        n += 1
except OSError: pass
if n == 200: print("WON")
""", limits={"pids": 64})


@case("thread bomb", "pids")
def threads(t):
    return t.wins("""
import threading, time
n = 0
try:
    while n < 200:
        threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
        n += 1
except RuntimeError: pass
if n == 200: print("WON", flush=True)
""", limits={"pids": 64})


@case("memory bomb", "memory")
def memory(t):
    return t.wins("x = b'x' * (200 << 20)\nprint('WON')", limits={"memory_bytes": 64 << 20})


@case("memory bomb in a memfd", "memory")
def memfd(t):
    return t.wins("""
import os
for i in range(4):
    fd = os.memfd_create('x')
    for _ in range(50): os.write(fd, bytes(1 << 20))
print('WON')
""", limits={"memory_bytes": 64 << 20})


@case("request with limits above the server's", "most")
def above_most(t):
    reply = t.exec({"code": "print('WON')", "limits": {"memory_bytes": 1 << 60, "wall_ms": 1 << 40}})
    return reply.status == 200


FILL = """
try:
    with open(%r, "wb") as f:
        for _ in range(48): f.write(bytes(1 << 20))
    print("WON")
except OSError as e: print(e)
"""


@case("/tmp is filled", "tmp-size")
def tmp(t):
    return t.wins(FILL % "/tmp/x")


@case("/dev/shm is filled", "tmp-size")
def shm(t):
    return t.wins(FILL % "/dev/shm/x")


@case("sparse file of 1 TiB", "file-size")
def sparse(t):
    return t.wins("""
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open("sparse", "wb") as f: f.truncate(1 << 40)
print("WON")
import os; os.unlink("sparse")
""")


@case("descriptor bomb", "open-files")
def descriptors(t):
    return t.wins("""
import os
held = []
try:
    while len(held) < 500: held.append(os.open("/dev/null", os.O_RDONLY))
except OSError: pass
if len(held) == 500: print("WON")
""")


@case("output bomb", "output")
def output(t):
    run = t.run("print('y' * 4000000)", limits={"output_bytes": 100000})
    return len(run["stdout"]) > 100001


@case("sleeps past its time", "wall")
def sleeps(t):
    return t.run("import time\ntime.sleep(4)", limits={"wall_ms": 700})["status"] == "succeeded"


@case("burns more processor time than it has", "cpu")
def burns(t):
    return t.run("""
import time
while time.process_time() < 3: pass
""", limits={"cpu_ms": 500, "wall_ms": 60000})["status"] == "succeeded"


@case("stages that are larger than a workspace together", "stages")
def stages(t):
    sb = t.new_sandbox()
    sizes = [t.rest("POST", "/v1/sandboxes/%s/stages" % sb, json.dumps({"size": 32 << 20})).status
             for _ in range(12)]
    t.rest("DELETE", "/v1/sandboxes/" + sb)
    return sizes == [201] * 12


@case("inode bomb in the workspace", "space")
def inodes(t):
    return t.run("""
import os, time
os.mkdir("many")
for i in range(2000):
    open("many/%d" % i, "w").close()
time.sleep(4)
""")["status"] == "succeeded"


@case("workspace is filled", "space")
def bytes_bomb(t):
    return t.run("""
import time
for n in range(4):
    with open("big%d" % n, "wb") as f:
        for _ in range(40): f.write(b"x" * (1 << 20))
time.sleep(4)
""")["status"] == "succeeded"


DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in range(3): os.close(fd)
        while True:
            with open("beat", "a") as f: f.write("x")
            time.sleep(0.05)
    os._exit(0)
time.sleep(0.3)
"""


@case("daemon (setsid, double fork) outlives the run", "end")
def daemon(t):
    t.run(DAEMON)
    path = t.workspace("beat")
    size = os.path.getsize(path)
    return wait_until(1.5, lambda: os.path.getsize(path) > size)


@case("program outlives a server that was killed", "orphan")
def orphan(t):
    path = t.workspace("orphan")
    t.exec({"code": """
import time
while True:
    with open("orphan", "a") as f: f.write("x")
    time.sleep(0.05)
""", "detach": True})
    if not wait_until(20, lambda: os.path.exists(path) and os.path.getsize(path) > 2):
        raise RuntimeError("the program does not run")
    t.kill()
    time.sleep(1)
    size = os.path.getsize(path)
    won = wait_until(2, lambda: os.path.getsize(path) > size)
    t.start()
    return won


def cgroups_of(*command):
    """Folders of the cgroups in which the first program with this command line is."""
    for name in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(name, "rb") as f:
                if f.read().decode(errors="replace").split("\0")[:-1] != list(command):
                    continue
            with open(os.path.dirname(name) + "/cgroup") as f:
                paths = {line.split(":", 2)[2].strip() for line in f}
        except OSError:
            continue
        return [d for p in paths if "/silt-" in p for d in glob.glob("/sys/fs/cgroup/*" + p) + glob.glob("/sys/fs/cgroup" + p)]
    return []


def descendants(pid):
    children = []
    for name in glob.glob("/proc/%d/task/*/children" % pid):
        with contextlib.suppress(OSError), open(name) as f:
            children += [int(child) for child in f.read().split()]
    return children + [below for child in children for below in descendants(child)]


@case("cgroup outlives a server that was killed", "reap")
def cgroups(t):
    command = ["/usr/bin/sleep", "61.%d" % os.getpid()]
    t.exec({"command": command, "detach": True})
    if not wait_until(20, lambda: cgroups_of(*command)):
        raise RuntimeError("the program does not run in a cgroup of its own")
    found = cgroups_of(*command)
    # As if the machine ran out of memory: nobody is left who could tidy up.
    for pid in [t.server.pid, *descendants(t.server.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    t.kill()
    t.start()
    return not wait_until(5, lambda: not any(os.path.exists(d) for d in found))
