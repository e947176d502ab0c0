# SPDX-License-Identifier: MIT
"""Rows of bench-exec about what a run's root and workspace are, and who makes its container. They take long
or need a network, so they are measured where --only names them."""
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile

import bench_trees as trees
from bench_common import CLEAN_ENV, ROOT, SILTD, Server, Side, compare
from bench_runs import HELLO, PAUSE, PYTHON, TRUE, exec_action

MADE = "silt-bench-image."  # a folder that we made, and remove


def make_image(argv):
    """Before the benchmark goes on without a network: a Debian root for the rows that want one, named to them by
    --image. What is missing for it is told by the row."""
    wanted = any(row in argv for row in ("image", "runtimes")) and not any(word.startswith("--image") for word in argv)
    if not wanted or os.environ.get("SILT_BENCH_INSIDE") == "1" or not shutil.which("mmdebstrap"):
        return
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    folder = tempfile.mkdtemp(prefix=MADE)
    path = os.path.join(folder, "debian.tar")
    print("bench: makes a Debian image, which takes a minute or more")
    sys.stdout.flush()
    try:
        done = subprocess.run([os.path.join(ROOT, "scripts", "make-image"), path], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False)
    except BaseException:
        shutil.rmtree(folder)
        raise
    if done.returncode != 0:
        print("bench: no image could be made: " + done.stderr.strip()[-200:], file=sys.stderr)
        shutil.rmtree(folder)
        return
    argv.append("--image=" + path)


def take_image(b):
    """Import it, once, into the benchmark's servers; False: there is none."""
    if hasattr(b, "imported"):
        return b.imported
    path, b.imported = b.chosen.image, False
    if not path or not os.path.exists(path):
        b.report.absent("image", "needs mmdebstrap and a Debian mirror, or --image FILE of scripts/make-image")
        return False
    for server in (b.warm, b.cold):
        subprocess.run([SILTD, "--data-dir", server.data, "image", "import", "debian", path], check=True,
                       stdout=subprocess.DEVNULL, stderr=server.log, env={**CLEAN_ENV, "HOME": b.work})
    b.image_tar = os.path.join(b.work, "debian.tar")
    shutil.copy(path, b.image_tar)
    if os.path.basename(os.path.dirname(path)).startswith(MADE):
        shutil.rmtree(os.path.dirname(path))
    b.imported = True
    return True


def side_of(name, server):
    """One of several on a server, whose CPU time is therefore not this one's alone."""
    side = Side(name, [server.pid])
    side.counts_cpu = False
    return side


def pair(b, costs, of, to):
    """Medians of rounds beside each other, so that the machine's noise hits both."""
    if costs[of].times and costs[to].times:
        value = statistics.median(x / y for x, y in zip(costs[of].times, costs[to].times))
        b.report.fact(f"{of.name} beside {to.name}", value, f"{value:6.2f} × (median of the rounds' ratios)")


def row_view(b):
    tree = os.path.join(b.work, "view-tree")
    trees.make_tree(tree)
    for label, command in (("true", [TRUE]), ("one file written", ["/bin/sh", "-c", "date +%N > out.txt"])):
        b.report.title(f"{label} in a workspace of {trees.FILES:,} files: view: live and snapshot")
        sides, pairs = {}, []
        for kind, server in (("warm", b.warm), ("cold", b.cold)):
            live, snapshot = side_of("live, " + kind, server), side_of("snapshot, " + kind, server)
            project = os.path.join(b.work, "view-" + kind)
            if not os.path.exists(project):
                trees.copy(tree, project)
                server.silt(live, project, "init")
                server.silt(live, project, "sync")
            sandbox = os.path.basename(server.workspace(project))
            for side, view in ((live, "live"), (snapshot, "snapshot")):
                sides[side] = exec_action(server, sandbox, {"command": command, "view": view}, {})
            pairs.append((snapshot, live))
        costs = compare(sides, b.rounds(15, 5), settle=PAUSE, peak=False, warm_up=2)
        b.report.table(costs, pairs[0][1])
        for of, to in pairs:
            pair(b, costs, of, to)


def row_image(b):
    b.report.title("a Python hello: in an imported Debian image, and in the host's root")
    if not take_image(b):
        return
    sides, pairs = {}, []
    for kind, server in (("warm", b.warm), ("cold", b.cold)):
        host, image = side_of("host, " + kind, server), side_of("image, " + kind, server)
        made = server.call("POST", "/v1/sandboxes", {"language": "python", "image": "debian"})["id"]
        server.call("POST", f"/v1/sandboxes/{made}/changes", {"ops": [{"op": "put", "path": "hello.py", "text": HELLO}]})
        sides[host] = exec_action(server, b.sandboxes[server], {"filename": "hello.py"}, {})
        sides[image] = exec_action(server, made, {"filename": "hello.py"}, {})
        pairs.append((image, host))
    costs = compare(sides, b.rounds(30, 8), settle=PAUSE, peak=False, warm_up=2)
    b.report.table(costs, pairs[0][1])
    for of, to in pairs:
        pair(b, costs, of, to)


def docker_server(b):
    """siltd over the benchmark's own Docker Engine, and the peer it is beside; None if either is missing."""
    peer = next((peer for peer in b.peers if peer.side.name == "docker run"), None)
    if not peer or not take_image(b):
        return None
    subprocess.run([peer.program, "-H", peer.socket, "import", b.image_tar, "bench-debian"], stdout=subprocess.DEVNULL, check=True)
    return Server(b.work, "data-docker", "--max-warm", "0", "--engine", "docker", "--docker-image", "bench-debian",
                  "--docker-socket", peer.socket.removeprefix("unix://")), peer


def row_runtimes(b):
    """Each runtime beside its own command line; runsc has none here."""
    b.report.title(f"{TRUE}, cold, by runtime and engine: silt beside the runtime itself")
    sides, pairs = {}, []
    peers = {peer.side.name: peer for peer in b.peers}
    for name in ("crun", "runc", "runsc"):
        if not shutil.which(name, path=CLEAN_ENV["PATH"]):
            b.report.absent(name, "not installed")
            continue
        server = b.cold if name == "crun" else Server(b.work, "data-" + name, "--max-warm", "0", "--runtime", name)
        silt = Side("silt, " + name, [server.pid])
        sides[silt] = exec_action(server, b.sandbox(server), {"command": [TRUE]}, {})
        if name in peers:
            pairs.append((silt, peers[name].side))
            sides[peers[name].side] = lambda _, peer=peers[name]: peer.side.run(peer.argv([TRUE])) and None
    docker = docker_server(b)
    if docker:
        server, peer = docker
        silt = Side("silt, docker", [server.pid])
        sides[silt] = exec_action(server, b.sandbox(server), {"command": [TRUE]}, {})
        sides[peer.side] = lambda _: peer.side.run(peer.argv([TRUE])) and None
        peer.side.period = 1
        pairs.append((silt, peer.side))
    costs = compare(sides, b.rounds(20, 4), settle=PAUSE, peak=False, warm_up=1)
    b.report.table(costs, pairs[0][1] if pairs else next(iter(sides)))
    for of, to in pairs:
        pair(b, costs, of, to)
