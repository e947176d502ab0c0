# SPDX-License-Identifier: MIT
"""What both benchmarks share: namespaces of their own, a server on a scratch folder, the clock, what a
side costs in CPU time, memory and bytes on the wire, and the table that is printed.

Figures are medians of interleaved rounds, given beside peers measured in the same run: the machine's
noise then hits all of them. Nothing is asserted here; tests are elsewhere."""
import argparse
import contextlib
import fcntl
import http.client
import json
import os
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.environ.get("BUILD", os.path.join(ROOT, "build"))
SILT = os.path.join(BUILD, "silt")
SILTD = os.path.join(BUILD, "siltd")
CLEAN_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")
MIB = 1 << 20
FRAME_BYTES = 52  # IPv4 and TCP with time stamps: what loopback counts beside the payload of a packet


def options(description, rows, add=None):
    """The command line; rows is {name: what it measures}."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="rows:\n" + "".join(f"  {name:<12} {text}\n" for name, text in rows.items()) +
        "\nFrom which build: the variable BUILD, else build/. As root the benchmark works in mount, process and\n"
        "network namespaces of its own, so that nothing is left of it however it ends. Peers that are not\n"
        "installed are named and left out; scripts/setup --bench installs them.")
    parser.add_argument("--only", metavar="ROW", action="append", choices=list(rows), help="measure this row only (repeatable)")
    parser.add_argument("--quick", action="store_true", help="few rounds, smaller trees: about a minute, coarse figures")
    parser.add_argument("--rounds", metavar="N", type=int, help="rounds of each comparison (default: each row's own number)")
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE as well")
    parser.add_argument("--on", metavar="WHERE", default="tmpfs",
                        help="where the data lies: tmpfs (default), loop (a fresh ext4 in a file), or an existing folder")
    if add:
        add(parser)
    chosen = parser.parse_args()
    if chosen.json:
        chosen.json = os.path.abspath(chosen.json)
    for program in (SILT, SILTD):
        if not os.access(program, os.X_OK):
            sys.exit(f"bench: {program} is missing: run make, or set BUILD to the folder of a build.")
    isolate()
    return chosen


def isolate():
    """As root, go on in namespaces of our own. The network counters are then ours alone, what we mount is
    gone with us, and every process that we started ends with us. crun refuses cgroups v1 beside an empty v2
    mount: here that mount can go. The environment is a clean one."""
    def end(signum, _frame):
        sys.exit(128 + signum)
    signal.signal(signal.SIGTERM, end)
    if os.environ.get("SILT_BENCH_INSIDE") == "1":
        if os.geteuid() == 0:
            subprocess.run(["umount", "/sys/fs/cgroup/unified"], stderr=subprocess.DEVNULL, check=False)
            loopback_up()
        return
    env = {**CLEAN_ENV, "BUILD": os.path.abspath(BUILD), "SILT_BENCH_INSIDE": "1", "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    again = [sys.executable, os.path.abspath(sys.argv[0]), *sys.argv[1:]]
    if os.geteuid() == 0:
        again = ["/usr/bin/unshare", "--mount", "--net", "--pid", "--fork", "--kill-child=SIGTERM", "--mount-proc", *again]
    sys.stdout.flush()
    os.execve(again[0], again, env)


def loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(s, 0x8913, request))[1]  # SIOCGIFFLAGS
        fcntl.ioctl(s, 0x8914, struct.pack("16sH14x", b"lo", flags | 1))      # SIOCSIFFLAGS, IFF_UP


@contextlib.contextmanager
def scratch(where):
    """A fresh folder: ext4 in use makes creates slow for minutes after a large delete."""
    path = tempfile.mkdtemp(prefix="silt-bench.", dir=where if os.path.isdir(where) else "/tmp")
    image = path + ".img"
    mounted = False
    try:
        if os.geteuid() == 0 and where == "tmpfs":
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=75%,mode=755,nr_inodes=2m", "silt-bench", path], check=True)
            mounted = True
        elif where == "loop":
            if os.geteuid() != 0:
                sys.exit("bench: --on loop needs root")
            with open(image, "wb") as f:
                f.truncate(16 << 30)
            subprocess.run(["mkfs.ext4", "-q", "-N", "1500000", "-E", "lazy_itable_init=0", image], check=True)
            subprocess.run(["mount", "-o", "loop", image, path], check=True)
            mounted = True
        elif where == "tmpfs" and shutil.disk_usage("/dev/shm").free > 4 << 30:
            os.rmdir(path)
            path = tempfile.mkdtemp(prefix="silt-bench.", dir="/dev/shm")
        elif where == "tmpfs":
            print("bench: /dev/shm is small and mounting needs root: the data lies in /tmp", file=sys.stderr)
        os.chmod(path, 0o755)
        yield path
    finally:
        end_all()
        if mounted:
            subprocess.run(["umount", "-l", path], check=False)
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.unlink(image)


def wait_for(condition, seconds, what):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.005)


STARTED = []


def start(argv, **options_of_popen):
    """A program that stays until end() or end_all(); in a session of its own, since lsyncd signals its group."""
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, **options_of_popen)
    STARTED.append(process)
    return process


def end(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def end_all():
    for process in reversed(STARTED):
        end(process)


# ---- sides and what they cost

def stat_fields(pid):
    """From the process's state on, or None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return f.read().rpartition(b") ")[2].split()
    except OSError:
        return None


def processes():
    """{pid: parent}"""
    found = {}
    for name in os.listdir("/proc"):
        fields = stat_fields(name) if name.isdigit() else None
        if fields:
            found[int(name)] = int(fields[1])
    return found


def descendants(roots):
    parents, found = processes(), set(roots)
    grown = True
    while grown:
        new = {pid for pid, parent in parents.items() if parent in found and pid not in found}
        found |= new
        grown = bool(new)
    return found


def memory(pid, name="VmHWM", file="status"):
    """Bytes, or 0 if the process is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/{file}", encoding="ascii", errors="replace") as f:
        for line in f:
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return 0


def cpu_now_ms(pid):
    """CPU time of the threads that a process has now, finer than stat's; what ended threads used is not in it."""
    total = 0
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as f:
                total += int(f.read().split()[0])
    return total / 1e6


class Side:
    """What is compared: programs that stay (servers), and those that are started for each action."""
    every = []

    def __init__(self, name, servers=(), period=1):
        self.name = name
        self.period = period  # acts in each period-th round only: for what takes long
        self.counts_cpu = True  # False: its processes are waited for by others than its servers and clients
        self.servers = list(servers)
        self.clients_ms = 0.0
        self.lock = threading.Lock()
        Side.every.append(self)

    def run(self, argv, env=None, silent=False):
        """To its end; returns what it printed. silent: nothing, for a program that leaves one behind with its
        standard output."""
        read, write = os.pipe()
        null = os.open("/dev/null", os.O_RDWR)
        try:
            pid = os.posix_spawn(argv[0], argv, env or CLEAN_ENV, file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null if silent else write, 1)])
        finally:
            os.close(write)
            os.close(null)
        with open(read, "rb") as f:
            output = f.read()
        _, status, usage = os.wait4(pid, 0)
        with self.lock:
            self.clients_ms += (usage.ru_utime + usage.ru_stime) * 1000
        if status != 0:
            raise RuntimeError(f"{argv}: exit {os.waitstatus_to_exitcode(status)}: {output.decode(errors='replace')}")
        return output.decode(errors="replace")

    def cpu_ms(self):
        """User and system time of its clients, its servers and the children that these have waited for."""
        ticks = 0
        for pid in self.servers:
            fields = stat_fields(pid)
            ticks += sum(int(n) for n in fields[11:15]) if fields else 0
        return self.clients_ms + ticks * TICK_MS


class Peak(threading.Thread):
    """The peak memory of a side while it acts: every few ms, the sum of the kernel's own high-water marks of the
    processes that it has then. Slows what it looks at, so its round is not timed."""

    def __init__(self, side):
        super().__init__(daemon=True)
        self.others = {pid for other in Side.every if other is not side for pid in other.servers} - set(side.servers)
        self.peak = 0
        self.done = threading.Event()
        for pid in side.servers:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as f:
                f.write("5")

    def run(self):
        me = os.getpid()
        while not self.done.wait(0.003):
            alive = descendants([me]) - descendants(self.others) - {me}
            self.peak = max(self.peak, sum(memory(pid) for pid in alive))

    def end(self):
        self.done.set()
        self.join()
        return self.peak


def wire():
    """Payload bytes that went over loopback so far, both ways; None where the counter is not ours alone."""
    if os.geteuid() != 0:
        return None
    with open("/proc/self/net/dev", encoding="ascii") as f:
        fields = next(line for line in f if line.strip().startswith("lo:")).split()
    return int(fields[1]) - FRAME_BYTES * int(fields[2])


class Costs:
    """What compare() found about one side."""

    def __init__(self):
        self.times, self.wire, self.cpu_ms, self.peak, self.failed = [], [], None, None, 0


BUDGET = 30  # seconds of a comparison: on a slow machine the rounds become fewer, at least MIN_ROUNDS
MIN_ROUNDS = 3


def act(side, action, i, cost, timed):
    """One action; timed = False: its peak memory is wanted instead."""
    watcher = None if timed else Peak(side)
    if watcher:
        watcher.start()
    before, started = wire(), time.perf_counter()
    told = action(i)
    ms = (time.perf_counter() - started) * 1000
    after = wire()
    if watcher:
        time.sleep(0.02)
        cost.peak = watcher.end()
    elif told is False:
        cost.failed += 1
    else:
        cost.times.append(told if isinstance(told, float) else ms)
    if timed and after is not None:
        cost.wire.append(after - before)


def compare(sides, rounds, prepare=None, settle=0.0, peak=True, warm_up=0):
    """sides is {Side: action}; an action gets the round's number, returns milliseconds if it timed itself, and
    False if it failed. prepare(i) comes before each round and settle (s) before each action, untimed. The order
    of the sides turns from round to round. Returns {Side: Costs}. Peak memory is taken in one more round that is
    not timed. CPU time is that of all its actions, with what its servers did in the background, by their number."""
    costs = {side: Costs() for side in sides}
    began = {side: side.cpu_ms() for side in sides}
    actions = dict.fromkeys(sides, 0)
    order, until, i, last = list(sides.items()), time.monotonic() + BUDGET, 0, False
    while not last:
        last = i >= rounds + warm_up or (i >= MIN_ROUNDS + warm_up and time.monotonic() > until)
        if last and not peak:
            break
        if prepare:
            prepare(i)
        for side, action in order:
            if i % side.period and not last:
                continue
            if settle:
                time.sleep(settle)
            act(side, action, i, Costs() if i < warm_up and not last else costs[side], not last)
            actions[side] += 1
        order.append(order.pop(0))
        i += 1
    time.sleep(0.3)  # what goes on behind the last answer belongs to it
    for side, cost in costs.items():
        if side.counts_cpu:
            cost.cpu_ms = (side.cpu_ms() - began[side]) / actions[side]
    return costs


# ---- the server and its agent

class Server:
    """siltd on a free port with its data below work."""

    def __init__(self, work, name="data", *args):
        self.work = work
        self.data = os.path.join(work, name)
        self.log = open(os.path.join(work, name + ".log"), "w", encoding="utf-8")
        self.process = start([SILTD, "--listen", "127.0.0.1:0", "--data-dir", self.data, *args],
                             env={**CLEAN_ENV, "HOME": work}, stdout=self.log, stderr=self.log)
        self.pid = self.process.pid
        address = os.path.join(self.data, "address")
        wait_for(lambda: os.path.exists(address) and os.path.getsize(address) > 0, 60, "siltd")
        with open(address, encoding="ascii") as f:
            self.address = f.read().strip()
        self.connection = http.client.HTTPConnection(self.address)
        self.env = {**CLEAN_ENV, "HOME": work, "SILT_SERVER": "http://" + self.address,
                    "XDG_STATE_HOME": os.path.join(work, "state"), "XDG_CONFIG_HOME": os.path.join(work, "config")}

    def call(self, method, path, body=None):
        payload = json.dumps(body) if body is not None else None
        self.connection.request(method, path, payload, {"Content-Type": "application/json"} if payload else {})
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {data.decode(errors='replace')}")
        return json.loads(data) if data else None

    def silt(self, side, directory, *args):
        return side.run([SILT, "-C", directory, *args], self.env)

    def workspace(self, directory):
        with open(os.path.join(directory, ".silt", "link.json"), encoding="utf-8") as f:
            return os.path.join(self.data, "workspaces", json.load(f)["sandbox"])


class Watcher:
    """`silt watch` in the foreground: ready when it says that it watches."""

    def __init__(self, server, directory, seconds=120):
        self.started = time.perf_counter()
        self.process = start([SILT, "-C", directory, "watch"], env=server.env, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL)
        self.pid = self.process.pid
        fd, text, until = self.process.stdout.fileno(), b"", time.monotonic() + seconds
        while b"watching " not in text:
            if not select.select([fd], [], [], max(0, until - time.monotonic()))[0]:
                raise RuntimeError(f"`silt watch` was not ready within {seconds} s: {text.decode()}")
            piece = os.read(fd, 65536)
            if not piece:
                raise RuntimeError(f"`silt watch` ended: {text.decode()}")
            text += piece
        self.ready_ms = (time.perf_counter() - self.started) * 1000
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def stop(self):
        end(self.process)


def percentile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def ratio(costs, of, to):
    """Of the medians; None if there is no such peer."""
    if not (of in costs and to in costs and costs[of].times and costs[to].times):
        return None
    return statistics.median(costs[of].times) / statistics.median(costs[to].times)
