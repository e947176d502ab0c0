# SPDX-License-Identifier: MIT
"""What both benchmarks share: a server on a scratch folder, timing, and the table they print.

Figures are medians of interleaved rounds, given beside a peer measured in the same run: the machine's
noise then hits all of them. Nothing is asserted here; tests are elsewhere."""
import contextlib
import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.environ.get("BUILD", os.path.join(ROOT, "build"))
SILT = os.path.join(BUILD, "silt")
SILTD = os.path.join(BUILD, "siltd")
CLEAN_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


def scratch():
    """A folder in memory if there is room for one: ext4 makes creates slow for minutes after a large delete."""
    base = os.environ.get("SILT_BENCH_DIR")
    if not base:
        shm = shutil.disk_usage("/dev/shm")
        base = "/dev/shm" if shm.free > 4 << 30 else "/tmp"
    path = tempfile.mkdtemp(prefix="silt-bench.", dir=base)
    os.chmod(path, 0o755)
    return path


def wait_for(condition, seconds, what):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            sys.exit(f"bench: waited {seconds} s in vain for {what}")
        time.sleep(0.005)


class Server:
    """siltd on a free port with its data below `work`."""

    def __init__(self, work):
        self.work = work
        self.data = os.path.join(work, "data")
        self.log = open(os.path.join(work, "siltd.log"), "w")
        self.process = subprocess.Popen(
            [SILTD, "--listen", "127.0.0.1:0", "--data-dir", self.data],
            env={**CLEAN_ENV, "HOME": work}, stdout=self.log, stderr=self.log)
        address = os.path.join(self.data, "address")
        wait_for(lambda: os.path.exists(address) and os.path.getsize(address) > 0, 30, "siltd")
        with open(address) as f:
            self.address = f.read().strip()
        self.connection = http.client.HTTPConnection(self.address)

    def call(self, method, path, body=None):
        payload = json.dumps(body) if body is not None else None
        self.connection.request(method, path, payload, {"Content-Type": "application/json"} if payload else {})
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.status >= 400:
            sys.exit(f"bench: {method} {path}: {answer.status} {data.decode(errors='replace')}")
        return json.loads(data) if data else None

    def environment(self):
        return {**CLEAN_ENV, "HOME": self.work, "SILT_SERVER": self.address,
                "XDG_STATE_HOME": os.path.join(self.work, "state"), "XDG_CONFIG_HOME": os.path.join(self.work, "config")}

    def silt(self, directory, *args, check=True):
        done = subprocess.run([SILT, *args], cwd=directory, env=self.environment(), capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, check=False)
        if check and done.returncode != 0:
            sys.exit(f"bench: silt {' '.join(args)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def workspace(self, directory):
        with open(os.path.join(directory, ".silt", "link.json")) as f:
            return os.path.join(self.data, "workspaces", json.load(f)["sandbox"])

    def stop(self):
        self.connection.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)
        self.log.close()


@contextlib.contextmanager
def server():
    work = scratch()
    running = Server(work)
    try:
        yield running
    finally:
        running.stop()
        shutil.rmtree(work, ignore_errors=True)


def timed(action):
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000


def spawn(argv, cwd=None, env=None):
    """Run a program to its end with the least overhead Python has."""
    if cwd:
        here = os.getcwd()
        os.chdir(cwd)
    null = os.open("/dev/null", os.O_RDWR)
    try:
        pid = os.posix_spawn(argv[0], argv, env or CLEAN_ENV,
                             file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1)])
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(null)
        if cwd:
            os.chdir(here)
    if status != 0:
        raise RuntimeError(f"{argv}: status {status}")


def interleave(peers, rounds, warm_up=2):
    """{name: action} → {name: [milliseconds]}; each round runs every peer once, in turn."""
    times = {name: [] for name in peers}
    for i in range(rounds + warm_up):
        for name, action in peers.items():
            ms = timed(action)
            if i >= warm_up:
                times[name].append(ms)
    return times


def percentile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def row(label, values, base=None, unit="ms", note=""):
    middle = statistics.median(values)
    ratio = f"{middle / base:6.2f} ×" if base else " " * 8
    print(f"  {label:<34} {middle:10.2f} {unit}   p99 {percentile(values, 0.99):10.2f}   {ratio}  {note}".rstrip())
    return middle


def title(text):
    print(f"\n{text}")


def machine():
    with open("/proc/cpuinfo") as f:
        model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), "unknown CPU")
    print(f"{model}, {os.cpu_count()} CPUs, Linux {os.uname().release}; medians of interleaved rounds")
