# SPDX-License-Identifier: MIT
"""Programs that take more than they may have."""
import os
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
