# SPDX-License-Identifier: MIT
"""Requests to a server and members of JSON for the system scenarios, by one process that stays: curl and
jq for each check cost more than all that is tested. lib.sh starts it and asks it:

    python3 http.py PORT-FILE     the key that each question begins with in $ASK_KEY; ends with its parent

A question is a connection to its port: KEY, the number of words, the words, each ended by NUL.

    http FILE FOLDER PID URL METHOD PATH [CURL'S OPTIONS…]
    json FILE PID TEXT PATH      TEXT -: the standard input of PID

The answer is one line, and what is long is in FILE: for http "EXIT-CODE STATUS FORM", with curl's exit codes
and FORM text, binary (or long) or none (it went elsewhere by -o); for json "0". Whatever it does not know, or knows
another way than curl and jq do, it answers with "pass": then they are asked.
"""
import json
import os
import re
import socket
import sys
import threading

LARGEST = 1 << 20  # curl asks before it sends more
LONG = 1 << 16  # the shell reads no more by itself
SIMPLE_PATH = re.compile(r'(\.|(\.[A-Za-z_]\w*|\[\d+\])+)(\|length)?')
STEP = re.compile(r'\.([A-Za-z_]\w*)|\[(\d+)\]')


class Pass(Exception):
    """Another one has to do it."""


class Failed(Exception):
    """A request that did not come to its end: curl's exit code."""


def put(name, content):
    with open(name, "wb") as file:
        file.write(content)


# ---- JSON

def member(text, path):
    if not SIMPLE_PATH.fullmatch(path):
        raise Pass
    path, _, length = path.partition("|")
    value = json.loads(text)
    for name, index in STEP.findall(path):
        if value is None:
            continue
        if name and isinstance(value, dict):
            value = value.get(name)
        elif index and isinstance(value, list):
            value = value[int(index)] if int(index) < len(value) else None
        else:
            raise Pass
    if length:
        if not isinstance(value, (str, list, dict)):
            raise Pass
        value = len(value)
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool) or isinstance(value, int) and abs(value) < 1 << 53:
        return json.dumps(value)
    raise Pass


def answer_json(file, pid, text, path):
    if text == "-":
        with open(f"/proc/{pid}/fd/0", "rb") as stdin:
            text = stdin.read()
        put(file, text)  # for jq, if it has to do it: what was read is gone
    else:
        text = os.fsencode(text)
    put(file, member(text.decode(), path).encode())
    return "0"


# ---- HTTP

class Request:
    def __init__(self, folder, pid, method, path, words):
        self.folder, self.pid, self.method, self.path = folder, pid, method, path
        self.headers, self.data, self.head, self.seconds = [], None, method == "HEAD", None
        self.files = {}
        content, as_is = None, False
        words = iter(words)
        for word in words:
            if word == "--path-as-is":
                as_is = True
            elif word == "--head":
                self.head = True
            elif word == "-H":
                self.header(next(words))
            elif word in ("-d", "--data-binary"):
                if content is not None:
                    raise Pass
                content = next(words)
                if content.startswith("@/dev/") or content.startswith("@") and word == "-d":
                    raise Pass
            elif word in ("-o", "-D"):
                self.files[word] = os.path.join(folder, next(words))
            elif word == "--max-time":
                self.seconds = float(next(words))
            else:
                raise Pass
        if re.search(r"[][{}# \\]", path) or not as_is and "/." in path:
            raise Pass
        if content is not None:
            self.data = self.content(content)

    def header(self, text):
        name, colon, _ = text.partition(":")
        if not colon or "\n" in text or "\r" in text or text.startswith("@"):
            raise Pass
        self.headers.append((name, text))

    def content(self, text):
        """Last of all, as a standard input can be read once only."""
        if not text.startswith("@"):
            return os.fsencode(text)
        name = f"/proc/{self.pid}/fd/0" if text == "@-" else os.path.join(self.folder, text[1:])
        if os.path.isfile(name) and os.path.getsize(name) > LARGEST:
            raise Pass
        with open(name, "rb") as file:
            return file.read()

    def bytes(self, host):
        """As curl words it."""
        given = {name.lower() for name, _ in self.headers}
        lines = [f"{self.method} {self.path} HTTP/1.1"]
        defaults = [("Host", host), ("User-Agent", "curl"), ("Accept", "*/*")]
        if self.data is not None:
            defaults += [("Content-Length", len(self.data)), ("Content-Type", "application/x-www-form-urlencoded")]
        lines += [f"{name}: {value}" for name, value in defaults if name.lower() not in given]
        lines += [text for name, text in self.headers if text[len(name) + 1:].strip(" ")]
        return os.fsencode("\r\n".join(lines) + "\r\n\r\n") + (self.data or b"")


class Response:
    """What comes from a socket, as far as it comes."""

    def __init__(self, connection, head_only):
        self.head, self.body, self.status, self.code = b"", bytearray(), 0, 0
        try:
            with connection.makefile("rb") as stream:
                self.read(stream, head_only)
        except socket.timeout:
            self.code = 28
        except OSError:
            self.code = 56
        except (ValueError, Failed):
            self.code = 18 if self.status else 52

    def line(self, stream):
        line = stream.readline(1 << 20)
        if not line.endswith(b"\n"):
            raise Failed
        return line

    def read(self, stream, head_only):
        fields = {}
        while True:
            line = self.line(stream)
            self.head += line
            if not self.status:
                self.status = int(line.split()[1])
            elif line.strip():
                name, _, value = line.partition(b":")
                fields[name.strip().lower()] = value.strip()
            elif self.status < 200:
                self.status = 0
            else:
                break
        if head_only:
            self.body += self.head
        elif self.status in (204, 304):
            pass
        elif fields.get(b"transfer-encoding") == b"chunked":
            while size := int(self.line(stream).split(b";")[0], 16):
                self.more(stream, size)
                self.line(stream)
            while self.line(stream).strip():
                pass
        elif b"content-length" in fields:
            self.more(stream, int(fields[b"content-length"]))
        else:
            self.body += stream.read()

    def more(self, stream, size):
        wanted = len(self.body) + size
        while len(self.body) < wanted:
            some = stream.read1(wanted - len(self.body))
            if not some:
                raise Failed
            self.body += some


def exchange(request, host, port):
    try:
        connection = socket.create_connection((host, port), request.seconds)
    except OSError:
        return None
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            connection.sendall(request.bytes(f"{host}:{port}"))
        except OSError:
            pass  # it may have answered before it had read all
        return Response(connection, request.head)


def is_text(content):
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def answer_http(file, folder, pid, url, method, path, *options):
    place = re.fullmatch(r"http://([0-9.]+):(\d+)", url)
    if not place:
        raise Pass
    request = Request(folder, pid, method, path, options)
    response = exchange(request, place[1], int(place[2]))
    head, body, status, code = (response.head, response.body, response.status, response.code) if response else (b"", b"", 0, 7)
    if "-D" in request.files:
        put(request.files["-D"], head)
    if "-o" in request.files:
        put(request.files["-o"], body)
        put(file, body.replace(b"\0", b"").rstrip(b"\n"))
        return f"{code} {status:03d} none"
    put(file, body)
    return f"{code} {status:03d} {'text' if len(body) < LONG and is_text(body) else 'binary'}"


# ---- questions

def words_of(connection):
    data = b""
    while True:
        some = connection.recv(1 << 16)
        data += some
        words = data.split(b"\0")
        if len(words) > 2 and len(words) == int(words[1]) + 3:
            return [os.fsdecode(word) for word in words[:-1]]
        if not some:
            raise ValueError


def serve(connection, key):
    with connection:
        try:
            got, _, kind, *words = words_of(connection)
            if got != key:
                return
            answer = {"http": answer_http, "json": answer_json}[kind](*words)
        except (Pass, ValueError, OSError, StopIteration):
            answer = "pass"
        connection.sendall(f"{answer}\n".encode())


def main():
    key, parent = os.environ["ASK_KEY"], os.getppid()
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    listener.settimeout(2)
    put(sys.argv[1] + ".new", str(listener.getsockname()[1]).encode())
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    while os.getppid() == parent:
        try:
            connection, _ = listener.accept()
        except socket.timeout:
            continue
        connection.settimeout(None)
        threading.Thread(target=serve, args=(connection, key), daemon=True).start()


main()
