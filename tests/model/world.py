# SPDX-License-Identifier: MIT
"""The real programs: a server, a watcher, the line between them, a project, and the ways to hurt them.

Programs start with an empty environment. Only processes that were started here are ended, by their ids.
As root the server's data lies on a small tmpfs, in a mount namespace of the test's own (see
`__main__.py`), so that it can be filled to the last byte.
"""
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import content
import look
from disk import Disk
from model import Entry

HERE = os.path.dirname(os.path.abspath(__file__))
PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
SANITIZERS = {'ASAN_OPTIONS': 'detect_leaks=0:quarantine_size_mb=8', 'UBSAN_OPTIONS': 'print_stacktrace=1'}
DISK = '192m'
PATIENCE = 150  # seconds, more than the 90 that a run looks for its server; nothing is judged by time, only given up


class Broken(Exception):
    """The world does what it must never do; the text says what."""


class World:
    def __init__(self, build):
        self.silt, self.siltd = (os.path.join(build, name) for name in ('silt', 'siltd'))
        self.top = tempfile.mkdtemp(prefix='silt-model.')
        os.chmod(self.top, 0o755)
        self.project, self.data = self.path('project'), self.path('data')
        for name in ('project', 'outside', 'home', 'data'):
            os.mkdir(self.path(name))
        self.disk = Disk(self.project, self.path('outside'))
        self.can_fill = os.geteuid() == 0 and 'SILT_MODEL_PRIVATE' in os.environ
        if self.can_fill:
            subprocess.run(['mount', '-t', 'tmpfs', '-o', 'mode=755,size=' + DISK, 'silt-model', self.data],
                           check=True)
        self.server = self.watcher = self.reader = None
        self.listen, self.sandbox, self.epoch, self.generation = '127.0.0.1:0', None, None, 0
        self.stopped, self.runs = False, []
        self.proxy = subprocess.Popen([sys.executable, '-B', os.path.join(HERE, 'proxy.py')], env={'PATH': PATH},
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.proxy_port = int(self.proxy.stdout.readline())
        self.seen = self.path('seen')
        open(self.seen, 'w').close()

    def path(self, name):
        return os.path.join(self.top, name)

    # ---- server and line

    def start_server(self):
        if self.server:
            return
        address = os.path.join(self.data, 'address')
        if os.path.exists(address):
            os.unlink(address)
        env = dict(SANITIZERS, PATH=PATH, HOME=self.path('home'))
        with open(self.path('siltd.log'), 'ab') as log:
            self.server = subprocess.Popen(
                [self.siltd, '--listen', self.listen, '--data-dir', self.data, '--min-free', '0'],
                env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + PATIENCE
        while not (os.path.exists(address) and os.path.getsize(address)):
            if self.server.poll() is not None or time.monotonic() > until:
                raise Broken('the server does not start:\n' + self.tail('siltd.log'))
            time.sleep(0.01)
        with open(address) as f:
            self.listen = f.read().strip()
        self.line('port ' + self.listen.rpartition(':')[2])

    def kill_server(self):
        if self.server:
            self.server.kill()
            self.server.wait()
            self.server = None

    def line(self, command):
        self.proxy.stdin.write(command.encode() + b'\n')
        self.proxy.stdin.flush()

    def fill(self):
        """To the last byte."""
        fd = os.open(os.path.join(self.data, 'ballast'), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        piece = bytes(1 << 20)
        while len(piece) > 1:
            try:
                os.write(fd, piece)
            except OSError:
                piece = piece[:len(piece) // 2]
        os.close(fd)

    def free(self):
        ballast = os.path.join(self.data, 'ballast')
        if os.path.exists(ballast):
            os.unlink(ballast)

    # ---- agent

    def environment(self):
        return dict(SANITIZERS, PATH=PATH, HOME=self.path('home'), LANG='C.UTF-8',
                    SILT_SERVER='127.0.0.1:%d' % self.proxy_port)

    def start(self, *args, out=subprocess.PIPE, err=subprocess.PIPE):
        return subprocess.Popen([self.silt, *args], cwd=self.project, env=self.environment(),
                                stdin=subprocess.DEVNULL, stdout=out, stderr=err)

    def call(self, *args):
        """(exit code, standard output, standard error) of a silt command."""
        process = self.start(*args)
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise Broken('silt %s does not end: %s' % (' '.join(args), err.decode(errors='replace')))
        return process.returncode, out, err.decode(errors='replace')

    def start_watcher(self):
        if self.watcher and self.watcher.poll() is None:
            return
        with open(self.path('watch.log'), 'ab') as log:
            self.watcher = self.start('watch', '--json', out=log, err=log)

    def end_watcher(self, how):
        if self.watcher:
            self.cont_watcher()
            self.watcher.send_signal(how)
            try:
                self.watcher.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                raise Broken('the watcher does not end')
            self.watcher = None

    def stop_watcher(self):
        if self.watcher and not self.stopped:
            self.watcher.send_signal(signal.SIGSTOP)
            self.stopped = True

    def cont_watcher(self):
        if self.stopped:
            self.watcher.send_signal(signal.SIGCONT)
            self.stopped = False

    # ---- project and workspace

    def create(self):
        """The server, a linked project with the fixed files, and the reader."""
        self.start_server()
        for name, data in self.fixed().items():
            with open(self.disk.at(name), 'wb') as f:
                f.write(data)
        code, _, err = self.call('sync', '--yes')
        if code:
            raise Broken('the first sync fails: ' + err)
        with open(self.disk.at('.silt/link.json')) as f:
            self.sandbox = json.load(f)['sandbox']
        self.workspace = os.path.join(self.data, 'workspaces', self.sandbox)
        self.reader = subprocess.Popen(
            [sys.executable, '-B', '-X', 'utf8', os.path.join(HERE, 'reader.py'), self.workspace, self.seen],
            env={'PATH': PATH}, stdin=subprocess.DEVNULL)

    def fixed(self):
        files = {'anchor': b'never removed\n', 'pyproject.toml': b'[project]\nname = "model"\n'}
        for name in ('content.py', 'look.py', 'work.py'):
            with open(os.path.join(HERE, name), 'rb') as f:
                files[name] = f.read()
        return files

    def listing(self, top):
        return {path: Entry(*entry) for path, entry in look.listing(top).items()
                if path != '.silt' and not path.startswith('.silt/')}

    def read_project(self, path):
        with open(self.disk.at(path), 'rb') as f:
            return f.read()

    # ---- a second writer, straight to the server

    def rest(self, method, path, body=None, kind='application/octet-stream'):
        """(status, body); (0, b'') where the server is not there."""
        host, _, port = self.listen.rpartition(':')
        connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
        try:
            connection.request(method, '/v1/sandboxes/%s%s' % (self.sandbox, path), body,
                               {'Content-Type': kind} if body is not None else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except TimeoutError:
            raise Broken('%s %s is not answered' % (method, path))
        except (OSError, http.client.HTTPException):
            return 0, b''
        finally:
            connection.close()

    def check_generation(self):
        status, body = self.rest('GET', '')
        if status != 200:
            raise Broken('the sandbox does not answer: %d %s' % (status, body[:200]))
        now = json.loads(body)
        if now['epoch'] == self.epoch and now['generation'] < self.generation:
            raise Broken('the generation went from %d to %d within epoch %s'
                         % (self.generation, now['generation'], self.epoch))
        self.epoch, self.generation = now['epoch'], now['generation']

    # ---- what the reader saw, and the end

    def check_seen(self):
        if self.reader.poll() is not None:
            raise Broken('the reader ended')
        with open(self.seen, encoding='utf-8') as f:
            text = f.read()
        if text:
            raise Broken('seen in the workspace: ' + text[:1000])

    def check_logs(self):
        for name in ('siltd.log', 'watch.log'):
            with open(self.path(name), 'ab+') as f:
                f.seek(0)
                text = f.read()
            for sign in (b'AddressSanitizer', b'runtime error:', b'Assertion', b'LeakSanitizer'):
                if sign in text:
                    raise Broken('%s:\n%s' % (name, text[text.index(sign):][:3000].decode(errors='replace')))
        if self.server and self.server.poll() is not None:
            raise Broken('the server ended by itself (%d):\n%s' % (self.server.returncode, self.tail('siltd.log')))

    def tail(self, name):
        try:
            with open(self.path(name), encoding='utf-8', errors='replace') as f:
                return ''.join(f.readlines()[-12:])
        except OSError:
            return ''

    def end(self, keep=False):
        self.cont_watcher()
        for process in [*self.runs, self.watcher, self.reader, self.proxy]:
            if process and process.poll() is None:
                process.kill()
            if process:
                process.wait()
        if self.server:
            self.server.terminate()
            try:
                self.server.wait(20)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
        if self.can_fill:
            if keep:
                shutil.copytree(self.data, self.path('data.kept'), symlinks=True,
                                ignore=shutil.ignore_patterns('ballast'), ignore_dangling_symlinks=True)
            subprocess.run(['umount', '-l', self.data], check=False)
        if not keep:
            shutil.rmtree(self.top, ignore_errors=True)
