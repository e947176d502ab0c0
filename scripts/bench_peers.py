# SPDX-License-Identifier: MIT
"""The peers: an rsync daemon, lsyncd, OCI runtimes, bubblewrap, and a Docker Engine of our own."""
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import tarfile
import time

from bench_common import CLEAN_ENV, Side, end, start, wait_for

# What peers mount of the host, and where its programs are looked for.
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class RsyncDaemon:
    """rsync as a daemon on loopback: no ssh, no start-up of a shell on the far side."""

    def __init__(self, work):
        self.target = os.path.join(work, "rsync-target")
        os.makedirs(self.target)
        config = os.path.join(work, "rsyncd.conf")
        self.port = free_port()
        with open(config, "w", encoding="ascii") as f:
            user = "uid=0\ngid=0\n" if os.geteuid() == 0 else ""
            f.write(f"port={self.port}\naddress=127.0.0.1\nuse chroot=no\n[t]\npath={self.target}\nread only=no\n{user}")
        self.process = start(["rsync", "--daemon", "--no-detach", f"--config={config}"])
        self.side = Side("rsync daemon", [self.process.pid])
        wait_for(self.answers, 10, "the rsync daemon")

    def answers(self):
        return subprocess.run(["rsync", f"rsync://127.0.0.1:{self.port}/"], capture_output=True, check=False).returncode == 0

    def push(self, source, name, side=None):
        (side or self.side).run(["/usr/bin/rsync", "-a", "--delete", "--exclude=/.silt", "--exclude=/.git", source + "/",
                                 f"rsync://127.0.0.1:{self.port}/t/{name}/"])


class Lsyncd:
    """lsyncd with delay 0: its inotify, and rsync from folder to folder of this machine."""

    def __init__(self, work, source, target):
        os.makedirs(target, exist_ok=True)
        config = target + ".lua"
        with open(config, "w", encoding="utf-8") as f:
            f.write("settings{nodaemon=true}\n"
                    f'sync{{default.rsync, source="{source}", target="{target}", delay=0, exclude={{"/.git", "/.silt"}}}}\n')
        self.process = start(["lsyncd", "-nodaemon", "-log", "scarce", config], cwd=work, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
        self.pid = self.process.pid
        self.target = target
        files = count_files(source)
        wait_for(lambda: time.sleep(0.1) or self.process.poll() is not None or count_files(target) >= files, 120, "lsyncd's first copy")
        time.sleep(1)
        if self.process.poll() is not None:
            raise RuntimeError("lsyncd ended")

    def stop(self):
        end(self.process)


def count_files(path):
    return sum(len(files) for base, folders, files in os.walk(path, topdown=True)
               if not folders.__contains__(".git") or folders.remove(".git") is None)


def lsyncd_version():
    done = subprocess.run(["lsyncd", "--version"], capture_output=True, text=True, check=False)
    return re.sub(r"[^0-9.]", "", done.stdout)


# ---- containers; each starts argv to its end. work is seen as /tmp in all of them.

class Runtime:
    """crun or runc: the least bundle that runs argv on the host's /usr; no user namespace, no limits."""

    def __init__(self, program, work):
        self.program = shutil.which(program, path=CLEAN_ENV["PATH"])
        self.side = Side(program)
        self.work, self.numbers = work, itertools.count()  # next() is safe in threads
        self.state = os.path.join(work, program + "-state")

    def bundle(self, argv):
        bundle = os.path.join(self.work, f"bundle-{self.side.name}-{os.path.basename(argv[0])}")
        if os.path.exists(bundle):
            return bundle
        rootfs = os.path.join(bundle, "rootfs")
        for name in ("usr", "proc", "dev", "tmp"):
            os.makedirs(os.path.join(rootfs, name))
        for name, to in LINKS.items():
            os.symlink(to, os.path.join(rootfs, name))
        config = {
            "ociVersion": "1.0.0",
            "process": {"args": argv, "env": ["PATH=/usr/bin"], "cwd": "/tmp", "user": {"uid": 0, "gid": 0}},
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=64k"]},
                {"destination": "/usr", "type": "none", "source": "/usr", "options": ["rbind", "ro"]},
                {"destination": "/tmp", "type": "none", "source": self.work, "options": ["bind", "ro"]},
            ],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]},
        }
        with open(os.path.join(bundle, "config.json"), "w", encoding="ascii") as f:
            json.dump(config, f)
        return bundle

    def base(self):
        flags = ["--cgroup-manager=cgroupfs"] if self.side.name == "crun" else []
        return [self.program, "--root", self.state, *flags]

    def argv(self, argv):
        return [*self.base(), "run", "-b", self.bundle(argv), f"{self.side.name}{next(self.numbers)}"]

    def create_and_delete(self, argv):
        name = f"{self.side.name}{next(self.numbers)}"
        self.side.run([*self.base(), "create", "-b", self.bundle(argv), name], silent=True)
        self.side.run([*self.base(), "delete", "-f", name])


class Bubblewrap:
    def __init__(self, work):
        self.program = shutil.which("bwrap", path=CLEAN_ENV["PATH"])
        self.side = Side("bubblewrap")
        self.side.counts_cpu = False
        self.work = work

    def argv(self, argv):
        links = [word for name, to in LINKS.items() for word in ("--symlink", to, "/" + name)]
        return [self.program, "--unshare-all", "--ro-bind", "/usr", "/usr", *links, "--proc", "/proc", "--dev", "/dev",
                "--ro-bind", self.work, "/tmp", "--", *argv]


class Docker:
    """A Docker Engine of our own, its data and socket below work; an image of empty folders, the host's /usr mounted."""

    def __init__(self, work):
        self.work, base = work, os.path.join(work, "docker")
        os.makedirs(base)
        self.program = shutil.which("docker", path="/usr/bin:/usr/local/bin")
        self.socket = f"unix://{base}/sock"
        with open(base + "/log", "w", encoding="utf-8") as log:
            self.process = start(
                ["dockerd", "--data-root", base + "/data", "--exec-root", base + "/exec", "--pidfile", base + "/pid",
                 "-H", self.socket, "--bridge=none", "--iptables=false", "--ip6tables=false"],
                env=CLEAN_ENV, stdout=log, stderr=log)
        self.side = Side("docker run", [self.process.pid], period=4)
        self.side.counts_cpu = False
        until = time.monotonic() + 40
        while subprocess.run([self.program, "-H", self.socket, "info"], capture_output=True, check=False).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > until:
                end(self.process)
                with open(base + "/log", encoding="utf-8") as log:
                    raise RuntimeError("dockerd does not start: " + log.read().strip().rpartition("\n")[2][-200:])
            time.sleep(0.1)
        self.make_image(os.path.join(base, "image.tar"))
        self.side.servers += children(self.process.pid)  # containerd; the shims are not its children

    def make_image(self, path):
        with tarfile.open(path, "w") as tar:
            for name in ("usr", "proc", "dev", "tmp", "sys", "etc"):
                folder = tarfile.TarInfo(name)
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(folder)
            for name, to in LINKS.items():
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, to
                tar.addfile(link)
        subprocess.run([self.program, "-H", self.socket, "import", path, "bench"], stdout=subprocess.DEVNULL, check=True)

    def argv(self, argv):
        return [self.program, "-H", self.socket, "run", "--rm", "--network=none", "-v", "/usr:/usr:ro", "-v", f"{self.work}:/tmp:ro", "bench", *argv]

    def create_and_delete(self, argv):
        made = [self.program, "-H", self.socket]
        name = self.side.run([*made, "create", "--network=none", "-v", "/usr:/usr:ro", "bench", *argv]).strip()
        self.side.run([*made, "rm", "-f", name])


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
            return [int(child) for child in f.read().split()]
    except OSError:
        return []
