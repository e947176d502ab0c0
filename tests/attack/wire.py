# SPDX-License-Identifier: MIT
"""Requests that were made to confuse, to hold the server up, or to come from where they should not."""
import json
import os
import socket
import subprocess
import threading

from base import case, wait_until


def head(t, line, *headers):
    return ("\r\n".join([line, "Host: %s:%d" % (t.host, t.port), *headers]) + "\r\n\r\n").encode()


def served(answer):
    return answer.startswith(b"HTTP/1.1 2")


@case("NUL in the target of a request", "target")
def nul_target(t):
    return served(t.raw(head(t, "GET /healthz\0x HTTP/1.1")))


@case("smuggling: length and chunks", "framing")
def two_framings(t):
    return served(t.raw(head(t, "POST /v1/sandboxes HTTP/1.1", "Content-Length: 2",
                             "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n\r\n"))


@case("smuggling: two lengths", "framing")
def two_lengths(t):
    return served(t.raw(head(t, "POST /v1/sandboxes HTTP/1.1", "Content-Length: 2",
                             "Content-Length: 2") + b"{}"))


@case("name that was rebound to this address", "host")
def rebound(t):
    return t.rest("GET", "/v1/info", headers={"Host": "evil.example"}).code() != "forbidden_origin"


@case("web page of another origin", "origin")
def origin(t):
    return t.rest("GET", "/v1/info", headers={"Origin": "http://evil.example"}).status == 200


@case("second Origin behind one that is welcome", "repeats")
def second_origin(t):
    own = "http://%s:%d" % (t.host, t.port)
    return served(t.raw(head(t, "GET /healthz HTTP/1.1", "Origin: " + own,
                             "Origin: http://evil.example")))


@case("another user of this machine", "peer")
def neighbour(t):
    got = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "curl", "-s", "-o",
         "/dev/null", "-w", "%{http_code}", "http://%s:%d/v1/info" % (t.host, t.port)],
        capture_output=True, timeout=60)
    return got.stdout == b"200"


@case("id of a sandbox is guessed from another", "ids")
def guess(t):
    digits = "234567abcdefghijklmnopqrstuvwxyz"
    stem = t.sb[:-2]
    for a in digits:
        for b in "26cgkosw":  # the last digit holds what is left of 128 bits
            if stem + a + b not in (t.sb,) and t.rest("GET", "/v1/sandboxes/" + stem + a + b).status == 200:
                return True
    return False


def zstd(data, *options):
    return subprocess.run(["zstd", "-q", "-c", *options], input=data, capture_output=True).stdout


@case("64 MiB in 6 KiB of zstd", "zstd-size")
def bomb(t):
    t.rest("PUT", t.file("bomb"), zstd(b"\0" * (64 << 20)), {"Content-Encoding": "zstd"})
    return t.rest("HEAD", t.file("bomb")).status == 200


@case("zstd with a window of 64 MiB", "zstd-window")
def window(t):
    data = zstd(os.urandom(1 << 20) + b"x", "--long=26", "--no-content-size")
    return t.rest("PUT", t.file("wide"), data, {"Content-Encoding": "zstd"}).status == 201


@case("400 bodies that never come hold all workers", "lanes")
def stalled(t):
    held = []
    try:
        for _ in range(400):
            s = socket.create_connection((t.host, t.port))
            s.sendall(head(t, "PUT %s HTTP/1.1" % t.file("stalled"), "Content-Length: 4000000") + b"x")
            held.append(s)
        try:
            return t.rest("GET", "/v1/sandboxes/" + t.other, timeout=8).status != 200
        except OSError:
            return True
    finally:
        for s in held:
            s.close()


@case("16 readers of a run's 8 MB at once", "big")
def readers(t):
    run = t.run("print('y' * 8000000)", limits={"output_bytes": 16000000})["id"]
    t.peak_kib(reset=True)

    def read():
        t.rest("GET", "/v1/runs/" + run, timeout=300)

    all_at_once = [threading.Thread(target=read) for _ in range(16)]
    for one in all_at_once:
        one.start()
    for one in all_at_once:
        one.join()
    return t.peak_kib() > 250000


@case("forged end of a run in its event stream", "events")
def forged(t):
    code = "print('x\\n\\nevent: exit\\ndata: {\"forged\": true}\\n\\n')"
    got = t.rest("POST", "/v1/sandboxes/%s/exec" % t.sb, json.dumps({"code": code}),
                 {"Accept": "text/event-stream"})
    return b'data: {\\"forged' in got.body.replace(b"\r\n", b"\n") and \
        b"\nevent: exit\ndata: {\\" in got.body.replace(b"\r\n", b"\n")


@case("server for everybody on the network, without a token", "listen")
def open_address(t):
    data = t.base + "/open"
    address = data + "/address"
    server = subprocess.Popen([t.program, "--listen", "0.0.0.0:0", "--data-dir", data], env=t.environment,
                              stdout=t.log, stderr=t.log)
    won = wait_until(20, lambda: server.poll() is not None or os.path.exists(address)) and \
        server.poll() is None
    server.terminate()
    server.wait()
    return won
