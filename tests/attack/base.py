# SPDX-License-Identifier: MIT
"""What the cases of the attack suite share: a server to attack, and what must stay as it is.

A case is a function that is given a Target and returns whether its attack succeeded. It is listed
by the decorator `case(name, off)`: `off` names the defences (shared/weaken.h) without
which it is expected to succeed; it takes several where they stand behind one another.
"""
import http.client
import json
import os
import socket
import subprocess
import tempfile
import time

CASES = []
SECRET = "a secret of the server's environment"


def case(name, off):
    def add(function):
        CASES.append((name, off, function))
        return function
    return add


def wait_until(seconds, condition):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def code(self):
        try:
            return self.json()["error"]["code"]
        except (ValueError, KeyError, TypeError):
            return None


class Target:
    """A siltd with two sandboxes: the attacker's (`sb`) and a neighbour's (`other`)."""

    def __init__(self, build, weaken, options=()):
        self.build = build
        self.base = tempfile.mkdtemp(prefix="silt-attack.")
        os.chmod(self.base, 0o755)
        self.data = self.base + "/data"
        self.outside = self.base + "/outside"
        self.make_outside()
        self.canary = subprocess.Popen(["sleep", "1000"])
        self.log = open(self.base + "/log", "wb")
        self.command = [build + "/siltd", "--listen", "127.0.0.1:0", "--data-dir", self.data,
                        "--tmp-size", "16M", "--file-size", "64M", "--open-files", "128",
                        "--workspace-files", "400", "--workspace-size", "96M", "--upload-size", "16M",
                        "--json-size", "2M", *options]
        self.environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                            "HOME": self.base, "ATTACK_SECRET": SECRET}
        if weaken:
            self.environment["SILT_WEAKEN"] = ",".join(weaken)
        self.program = build + "/siltd"
        self.start()
        self.other = self.new_sandbox()
        self.put("canary", b"alive", self.other)
        self.sb = self.new_sandbox()
        self.known_outside = self.outside_state()

    def start(self):
        address = self.data + "/address"
        if os.path.exists(address):
            os.unlink(address)
        self.server = subprocess.Popen(self.command, env=self.environment, stdout=self.log, stderr=self.log)
        if not wait_until(60, lambda: os.path.exists(address) and os.path.getsize(address)):
            raise RuntimeError("siltd does not start: " + open(self.base + "/log").read()[-500:])
        self.host, port = open(address).read().strip().rsplit(":", 1)
        self.port = int(port)

    def kill(self):
        """The server dies without a word; start() brings the next one."""
        self.server.kill()
        self.server.wait()

    def client(self, folder, *arguments, server=None):
        """What `silt` prints, in a folder of its own user."""
        os.makedirs(folder, exist_ok=True)
        environment = {**self.environment, "SILT_SERVER": server or "%s:%d" % (self.host, self.port),
                       "TERM": "xterm"}
        run = subprocess.run([self.build + "/silt", *arguments], cwd=folder, env=environment, timeout=60,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return run.stdout

    def make_outside(self):
        """Files of the host that anybody may read and write."""
        os.makedirs(self.outside + "/dir")
        for name, text in (("file", "SECRET"), ("dir/file", "SECRET")):
            with open(self.outside + "/" + name, "w") as f:
                f.write(text)
        for name in ("", "/dir", "/file", "/dir/file"):
            os.chmod(self.outside + name, 0o777)
        with open(self.outside + "/root-only", "w") as f:
            f.write("SECRET")
        os.chmod(self.outside + "/root-only", 0o600)

    def outside_state(self):
        found = []
        for folder, _, files in os.walk(self.outside):
            for name in files:
                path = os.path.join(folder, name)
                st = os.lstat(path)
                content = open(path, "rb").read() if not os.path.islink(path) else b""
                found.append((path, st.st_mode, st.st_uid, st.st_mtime_ns, content))
        return sorted(found)

    def harm(self):
        """What is not as it was, or None."""
        if self.server.poll() is not None:
            return "the server ended"
        if self.canary.poll() is not None:
            return "a process of the host was ended"
        if self.outside_state() != self.known_outside:
            return "files of the host were changed"
        if self.rest("GET", "/v1/sandboxes/%s/files/canary" % self.other).body != b"alive":
            return "a neighbour's file was changed"
        return None

    def close(self):
        self.server.terminate()
        try:
            self.server.wait(30)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()
        self.canary.kill()
        self.canary.wait()
        self.log.close()
        subprocess.run(["rm", "-rf", self.base], check=False)

    def siltd(self, *arguments):
        """A command of siltd beside the server; its exit code."""
        return subprocess.run([self.program, *arguments, "--data-dir", self.data],
                              env=self.environment, stdout=self.log, stderr=self.log).returncode

    # ---- requests

    def rest(self, method, path, body=None, headers=None, timeout=60):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            return Reply(reply.status, dict(reply.getheaders()), reply.read())
        finally:
            connection.close()

    def raw(self, data, timeout=10):
        """Bytes as they are; what came back until the end or the time."""
        got = b""
        with socket.create_connection((self.host, self.port), timeout=timeout) as s:
            s.sendall(data)
            try:
                while piece := s.recv(65536):
                    got += piece
                    if b"\r\n\r\n" in got and b"Content-Length" not in got.split(b"\r\n\r\n")[0]:
                        break
                    s.settimeout(1)
            except OSError:
                pass
        return got

    def new_sandbox(self, **fields):
        reply = self.rest("POST", "/v1/sandboxes", json.dumps({"language": "python", **fields}))
        if reply.status != 201:
            raise RuntimeError("no sandbox: %s" % reply.body)
        return reply.json()["id"]

    def file(self, path, sb=None):
        return "/v1/sandboxes/%s/files/%s" % (sb or self.sb, path)

    def put(self, path, data, sb=None):
        return self.rest("PUT", self.file(path, sb), data)

    def get(self, path, sb=None):
        return self.rest("GET", self.file(path, sb))

    def changes(self, *ops):
        return self.rest("POST", "/v1/sandboxes/%s/changes" % self.sb, json.dumps({"ops": ops}))

    def exec(self, request, sb=None):
        return self.rest("POST", "/v1/sandboxes/%s/exec" % (sb or self.sb), json.dumps(request))

    def run(self, code, sb=None, **request):
        """A piece of Python in a container; the run's object."""
        limits = {"wall_ms": 20000, **request.pop("limits", {})}
        reply = self.exec({"code": code, "limits": limits, **request}, sb)
        if reply.status != 200:
            raise RuntimeError("the run was refused: %s" % reply.body[:300])
        return reply.json()

    def wins(self, code, **request):
        """Does the program say that it got what it wanted?"""
        return "WON" in self.run(code, **request)["stdout"]

    def workspace(self, path="", sb=None):
        return "%s/workspaces/%s/%s" % (self.data, sb or self.sb, path)

    def written_bytes(self):
        """What the server wrote to files and sockets so far."""
        with open("/proc/%d/io" % self.server.pid) as f:
            return int(f.read().split("wchar: ")[1].split()[0])

    def peak_kib(self, reset=False):
        if reset:
            with open("/proc/%d/clear_refs" % self.server.pid, "w") as f:
                f.write("5")
        with open("/proc/%d/status" % self.server.pid) as f:
            return int(f.read().split("VmHWM:")[1].split()[0])


# A system call by its number, for programs in containers: call(number, …) → value or -errno.
CALL = """
import ctypes, os, errno, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def call(*a):
    r = libc.syscall(*[ctypes.c_long(x) for x in a])
    return -ctypes.get_errno() if r < 0 else r
def win(yes):
    if yes: print("WON")
"""
