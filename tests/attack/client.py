# SPDX-License-Identifier: MIT
"""What a program does to whoever reads about it on a terminal."""
import contextlib
import http.server
import json
import os
import threading

from base import case

ESCAPE = b"\x1b]0;taken\x07"


@case("name of a file that writes to the user's terminal", "terminal")
def terminal_name(t):
    folder = t.base + "/terminal"
    made = "import os; open(os.fsdecode(%r), 'w').close()" % (b"a" + ESCAPE + b"\n# all is well")
    said = t.client(folder, "run", "--", "python3", "-c", made)
    if b"error" in said.lower():
        raise RuntimeError("the client could not run: %s" % said[:300])
    said += t.client(folder, "status") + t.client(folder, "pull", "--dry-run")
    if b"taken" not in said:
        raise RuntimeError("nobody tells of the file: %s" % said[:600])
    return ESCAPE in said or b"\n# all is well" in said



class Liar(http.server.BaseHTTPRequestHandler):
    """A server that passes everything on but for what `rewrite` does to an answer."""

    protocol_version = "HTTP/1.1"

    def pass_on(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        kept = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "transfer-encoding", "expect")}
        kept["Content-Length"] = str(len(body))
        reply = self.server.target.rest(self.command, self.path, body or None, kept)
        self.server.rewrite(self.command, self.path, reply)
        self.send_response(reply.status)
        for name in ("Content-Type", "ETag", "Silt-Size"):
            if name in reply.headers:
                self.send_header(name, reply.headers[name])
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = pass_on

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def liar(t, folder):
    """A project that is linked to such a server: (silt, liar), silt(…) gives what that prints."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Liar) as server:
        server.target, server.rewrite = t, lambda method, path, reply: None
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = "127.0.0.1:%d" % server.server_port
        try:
            yield lambda *arguments: t.client(folder, *arguments, server=address), server
        finally:
            server.shutdown()


def pulled_as(t, folder, name, *arguments):
    """A file of a run is pulled, and the server gives it another name."""
    asked = []

    def rewrite(method, path, reply):
        if method == "GET" and "/files?" in path:
            asked.append(path)
            reply.body = reply.body.replace(b'"result"', json.dumps(name).encode())
        elif method == "GET" and reply.status == 404:  # curl resolves the '..' in its target
            true = t.rest("GET", "/".join(path.split("/")[:4]) + "/files/result")
            reply.status, reply.headers, reply.body = true.status, true.headers, true.body

    with liar(t, folder) as (silt, server):
        said = silt("run", "--", "python3", "-c", "open('result', 'w').write('WRITTEN')")
        server.rewrite = rewrite
        said += silt("pull", *arguments)
    if not asked:
        raise RuntimeError("nobody asked for the list: %s" % said[:600])


@case("server gives a file a name outside of the project", "paths,symlinks")
def pull_outside(t):
    pulled_as(t, t.base + "/pull-outside", "../outside/pulled")
    return os.path.exists(t.outside + "/pulled")


@case("server gives a file a name in .git", "pull-names")
def pull_git(t):
    folder = t.base + "/pull-git"
    os.makedirs(folder + "/.git/hooks")
    pulled_as(t, folder, ".git/hooks/pre-commit", ".git/hooks/pre-commit")  # ignored, unless named
    return os.path.exists(folder + "/.git/hooks/pre-commit")


@case("error of a server that writes to the user's terminal", "errors,terminal")
def terminal_error(t):
    def rewrite(method, path, reply):
        if "/exec" in path:
            reply.status = 409
            reply.body = json.dumps({"error": {"code": "conflict", "message": ESCAPE.decode() + "\x9b2J"}}).encode()

    with liar(t, t.base + "/error") as (silt, server):
        server.rewrite = rewrite
        said = silt("run", "--", "true")
    if b"taken" not in said:
        raise RuntimeError("the error is not told: %s" % said[:600])
    return ESCAPE in said or b"\xc2\x9b" in said


@case("symlinks of a run that lead out of the project", "pull-links")
def pull_links(t):
    folder = t.base + "/pull-links"
    made = """
import os
os.makedirs('p/q'); os.mkdir('top')
os.symlink('/etc', 'absolute'); os.symlink('../..', 'up'); os.symlink('../../top', 'p/q/d')
os.symlink('p/q/d/../../outside', 'round')
"""
    said = t.client(folder, "run", "--", "python3", "-c", made) + t.client(folder, "pull")
    if not os.path.islink(folder + "/p/q/d"):
        raise RuntimeError("nothing was pulled: %s" % said[:600])
    return any(os.path.islink(folder + name) for name in ("/absolute", "/up", "/round"))
