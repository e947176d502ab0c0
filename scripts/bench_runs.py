# SPDX-License-Identifier: MIT
"""One run as an action of compare() (bench_common): over HTTP, as a stream, or as a process."""
import json
import os
import time

from bench_common import CLEAN_ENV

TRUE, PYTHON, HELLO = "/usr/bin/true", "/usr/bin/python3", 'print("hello")\n'
PAUSE = 0.05  # what an editing user gives the container that is made in the background


def checked(answer):
    if answer.get("status") != "succeeded":
        raise RuntimeError(f"a run did not succeed: {json.dumps(answer)[:400]}")
    return answer


def exec_action(server, sandbox, body, parts):
    """Request to result; keeps what the server's own clock says in parts."""
    def run(_):
        started = time.perf_counter()
        answer = checked(server.call("POST", f"/v1/sandboxes/{sandbox}/exec", body))
        ms = (time.perf_counter() - started) * 1000
        for key, values in parts.items():
            values.append(answer[key])
        return ms
    return run


def stream_action(server, sandbox, body, first):
    """Request to result over the event stream; keeps request to first byte in first."""
    payload = json.dumps({**body, "stream": True})

    def run(_):
        started = time.perf_counter()
        server.connection.request("POST", f"/v1/sandboxes/{sandbox}/exec", payload,
                                  {"Content-Type": "application/json", "Accept": "application/x-ndjson"})
        answer, ms, seen = server.connection.getresponse(), None, None
        for line in iter(answer.readline, b""):
            if seen is None and line.startswith(b'{"event":"stdout"'):
                seen = (time.perf_counter() - started) * 1000
            elif line.startswith(b'{"event":"exit"'):
                ms = (time.perf_counter() - started) * 1000
                checked(json.loads(line)["run"])
        first.append(seen)
        return ms
    return run


def process_action(side, argv, first=None):
    """A process to its end; keeps the time to its first byte in first."""
    def run(_):
        read, write = os.pipe()
        null = os.open("/dev/null", os.O_RDWR)
        started = time.perf_counter()
        command = argv() if callable(argv) else argv
        pid = os.posix_spawn(command[0], command, CLEAN_ENV,
                             file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, write, 1)])
        os.close(write)
        seen = os.read(read, 65536)
        if first is not None and seen:
            first.append((time.perf_counter() - started) * 1000)
        while os.read(read, 65536):
            pass
        _, status, usage = os.wait4(pid, 0)
        ms = (time.perf_counter() - started) * 1000
        os.close(read)
        os.close(null)
        side.clients_ms += (usage.ru_utime + usage.ru_stime) * 1000
        if status != 0:
            raise RuntimeError(f"{command}: status {status}")
        return ms
    return run
