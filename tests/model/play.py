# SPDX-License-Identifier: MIT
"""Plays a sequence of operations in a world and checks everything that must hold.

A *quiet point* heals the world (line, disk, server, a stopped watcher), waits for the runs under way, syncs,
and compares project, model and workspace, all three. Before the end of a sequence there is one.
"""
import json
import signal
import subprocess
import tempfile

import content
import model
import operations
from model import ABSENT, Entry, FILE, Model, Node
from world import PATIENCE, Broken, World


class Failure(Exception):
    """What was found wrong, at which operation."""

    def __init__(self, index, text):
        super().__init__(text)
        self.index, self.text = index, text


class Player:
    def __init__(self, build, log):
        self.w, self.m, self.log = World(build), Model(), log
        self.full = self.flaky = False
        self.under_way = []  # (process, state at its beginning, products)
        self.done = 0        # operations that had a meaning

    def begin(self):
        self.w.create()
        for name, data in self.w.fixed().items():
            self.m.set(name, Node(FILE, data, 0o644))
        self.w.start_watcher()

    def play(self, op):
        if op['op'] in operations.EFFECTS:
            steps = operations.EFFECTS[op['op']](self.m, op)
            if steps is not None:
                self.w.disk.do(steps)
                self.done += 1
        elif getattr(self, 'o_' + op['op'].replace('-', '_'))(op) is not False:
            self.done += 1

    # ---- is the world well?

    def healthy(self):
        """May commands be expected to succeed?"""
        return self.w.server and not self.full and not self.flaky

    def heal(self):
        self.o_free(None)
        self.w.line('slow 0')
        self.w.line('budget 0 0')
        self.w.cont_watcher()
        self.w.start_server()
        self.flaky = False

    def o_pause(self, op):
        self.w.disk.pause(op['ms'])

    # ---- quiet points

    def sync(self):
        code, out, err = self.w.call('sync', '--json', '--timeout', '50s')
        if code:
            raise Broken('silt sync fails in a world that is well: %s %s' % (err, self.w.tail('watch.log')))
        return out

    def o_quiet(self, op):
        self.heal()
        self.o_await(op)
        self.check_watcher()
        self.sync()
        self.compare()

    def check_watcher(self):
        if self.w.watcher and self.w.watcher.poll() is not None:
            raise Broken('the watcher ended by itself (%d): %s'
                         % (self.w.watcher.returncode, self.w.tail('watch.log')))

    def compare(self):
        here = self.w.listing(self.w.project)
        for path, node in self.m.nodes.items():
            if node.kind == model.FIFO and here.pop(path, ABSENT).kind != 'special':
                raise Broken('the project lost the FIFO %r' % path)
        if here != self.m.expected():
            wrong = [p for p in set(here) | set(self.m.expected()) if here.get(p) != self.m.expected().get(p)]
            raise Broken('the project itself was changed: %r' % wrong[:5])
        there = self.w.listing(self.w.workspace)
        self.judge(there, 'after a sync')
        self.m.learn(there)
        self.w.check_generation()
        self.w.check_seen()
        self.w.check_logs()

    def judge(self, found, when):
        wrong = self.m.differences(found)
        if wrong:
            raise Broken('%s the workspace is not as it must be:\n    %s' % (when, '\n    '.join(wrong)))

    def o_flush(self, op):
        self.w.cont_watcher()
        code, _, err = self.w.call('flush', '--timeout', '40s' if self.healthy() else '1s')
        watched = self.w.watcher and self.w.watcher.poll() is None
        if code and self.healthy() and watched:
            raise Broken('silt flush fails in a world that is well: ' + err)

    def o_status(self, op):
        self.w.cont_watcher()
        code, out, err = self.w.call('status', '--json')
        if code not in (0, 1) or (out and not json.loads(out)):
            raise Broken('silt status: %d %s' % (code, err))

    # ---- runs

    def silt_run(self, *args):
        """The JSON that the program printed, or None if it could not run and need not."""
        code, out, err = self.w.call('run', *args)
        if code == 0:
            return json.loads(out)
        if self.healthy():
            raise Broken('silt run %s: %d %s%s' % (' '.join(args), code, err, self.w.tail('watch.log')))
        return None

    def o_run(self, op):
        """The program sees at least what was saved before: here exactly that, as nobody else writes."""
        self.o_await(op)
        self.w.cont_watcher()
        found = self.silt_run('look.py')
        if found is not None:
            self.judge({p: Entry(*e) for p, e in found.items()}, 'in a run')

    def o_large(self, op):
        """A large file is saved, and at once a run reads its first line: it must not be overtaken."""
        if '\udcff' in op['path']: # no argument of a request
            return False
        self.o_await(op)
        self.w.cont_watcher()
        steps = operations.EFFECTS['write'](self.m, op)
        if steps is None:
            return False
        self.w.line('slow %d' % op['ms'])
        self.w.disk.do(steps)
        code, out, err = self.w.call('run', '--', 'head', '-c', str(content.HEAD), op['path'])
        self.w.line('slow 0')
        if code and self.healthy():
            raise Broken('a run after a large file: %d %s%s' % (code, err, self.w.tail('watch.log')))
        if code == 0 and out != self.m.nodes[op['path']].data[:content.HEAD]:
            raise Broken('a run does not see the large file %r that was saved before it: %r' % (op['path'], out))
        return True

    def product(self, op):
        if op['how'] == 'delete':
            return op['path'], ABSENT
        return op['path'], Entry(FILE, content.digest(content.make(op['v'], op['size'])), 0o644)

    def arguments(self, op):
        return ['work.py', self.coded(op['path']), str(op['v']), str(op['size']), op['how']]

    def writable(self, op):
        """Programs and second writers write to files of the project and make new ones in its folders."""
        path = op['path']
        kind = self.m.kind(path)
        return path not in operations.FIXED and self.m.can_hold(path) and (
            kind == FILE or (kind is None and path.rpartition('/')[2][0] == 'o'))

    def o_make(self, op):
        # On a full disk a program's file may be cut anywhere: what it then is nobody can say.
        if not self.writable(op) or (self.full and op['how'] != 'delete'):
            return False
        self.o_await(op)
        self.w.cont_watcher()
        made = self.silt_run(*self.arguments(op))
        path, entry = self.product(op)
        if made is None:
            self.m.others_made(path, entry, False)
        elif path in made:
            self.m.others_made(path, entry, True)
        return True

    o_alter = o_make

    def o_later(self, op):
        """A run that writes while the project goes on."""
        if not self.writable(op) or len(self.under_way) >= 3 or not self.healthy():
            return False
        self.w.cont_watcher()
        path, entry = self.product(op)
        self.m.others_made(path, entry, False)
        self.m.begin_writing(path)
        process = self.w.start('run', *self.arguments(op))
        self.w.runs.append(process)
        self.under_way.append((process, path, entry))
        return True

    def o_await(self, op):
        self.w.cont_watcher()
        for process, path, entry in self.under_way:
            try:
                process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                raise Broken('a run does not end')
            self.w.runs.remove(process)
            self.m.others_made(path, entry, False)
            self.m.end_writing(path)
        self.under_way = []

    # ---- fetching what others made

    def o_pull(self, op):
        """All of it comes here; what was changed here as well stays, and is told."""
        self.o_quiet(op)
        there = self.w.listing(self.w.workspace)
        code, out, err = self.w.call('pull', '--json')
        if code not in (0, 1) or not out:
            raise Broken('silt pull: %d %s' % (code, err))
        told, kept = json.loads(out), []
        here = self.w.listing(self.w.project)
        for path in sorted(self.m.theirs()):
            if here.get(path) == there[path]:
                self.m.adopt(path, there, self.w.read_project)
            else:
                kept.append(path)
        if len(kept) > len(told['conflicts']) + len(told['refused']):
            raise Broken('silt pull did not fetch %r and says %s' % (kept, out.decode()))
        self.compare()
        self.o_quiet(op)

    def o_pull_conflicts(self, op):
        """Versions that gave way are whole, and what somebody made."""
        self.o_quiet(op)
        with tempfile.TemporaryDirectory(dir=self.w.top) as folder:
            code, _, err = self.w.call('pull', '--conflicts', '--to', folder)
            if code:
                raise Broken('silt pull --conflicts: %d %s' % (code, err))
            for path, entry in self.w.listing(folder).items():
                if entry.kind == FILE and entry.digest not in self.m.made:
                    raise Broken('silt pull --conflicts brought %r, which nobody made' % path)
        self.compare()

    # ---- a second writer

    def coded(self, path):
        return operations.urllib.parse.quote(path, safe='/', errors='surrogateescape')

    def o_put(self, op):
        if not self.writable(op):
            return False
        data = content.make(op['v'], op['size'])
        if op['how'] == 'json' and '\udcff' not in op['path']:
            body = json.dumps({'ops': [{'op': 'put', 'path': op['path'], 'text': data.decode()}]}).encode()
            status, text = self.w.rest('POST', '/changes', body, 'application/json')
        else:
            status, text = self.w.rest('PUT', '/files/' + self.coded(op['path']), data)
        self.answered('PUT', status, text)
        if status not in (409, 412):
            path, entry = op['path'], Entry(FILE, content.digest(data), 0o644)
            self.m.others_made(path, entry, status // 100 == 2)
        return True

    def o_delete(self, op):
        if op['path'] in operations.FIXED or self.m.kind(op['path']) not in (None, FILE):
            return False
        status, text = self.w.rest('DELETE', '/files/' + self.coded(op['path']))
        self.answered('DELETE', status, text, also_full=True)
        self.m.others_made(op['path'], ABSENT, False)
        return True

    def answered(self, method, status, text, also_full=False):
        if self.w.server and (status == 0 or status >= 500) and not (status == 507 and self.full and not also_full):
            raise Broken('the server answers %s by %d: %s' % (method, status, text[:300]))

    # ---- faults

    def o_kill_server(self, op):
        self.w.kill_server()
        self.flaky = True
        self.w.start_server()

    def o_server_down(self, op):
        self.w.kill_server()

    def o_server_up(self, op):
        if self.w.server:
            return False
        self.w.start_server()
        self.flaky = True
        return True

    def o_kill_agent(self, op):
        self.w.end_watcher(signal.SIGKILL)

    def o_end_agent(self, op):
        self.w.end_watcher(signal.SIGTERM)

    def o_start_agent(self, op):
        self.w.start_watcher()

    def o_stop_agent(self, op):
        self.w.stop_watcher()

    def o_cont_agent(self, op):
        self.w.cont_watcher()

    def o_cut(self, op):
        self.w.line('cut')
        self.flaky = True

    def o_slow(self, op):
        self.w.line('slow %d' % op['ms'])

    def o_budget(self, op):
        self.w.line('budget %d %d' % (op['bytes'], op['count']))
        self.w.line('cut')
        self.flaky = True

    def o_fill(self, op):
        """A full disk: what needs no space still answers."""
        if not self.w.can_fill:
            return False
        self.o_await(op)
        self.w.fill()
        self.full = True
        if self.w.server:
            self.check_full()
        return True

    def check_full(self):
        status, text = self.w.rest('GET', '/files')
        if status != 200:
            raise Broken('with a full disk the list of files is %d: %s' % (status, text[:300]))
        status, text = self.w.rest('GET', '/files/anchor')
        if status != 200 or text != self.w.fixed()['anchor']:
            raise Broken('with a full disk a file is %d: %s' % (status, text[:300]))
        body = json.dumps({'command': ['cat', 'anchor']}).encode()
        status, text = self.w.rest('POST', '/exec', body, 'application/json')
        if status != 200 or json.loads(text)['exit_code'] != 0:
            raise Broken('with a full disk a run is %d: %s' % (status, text[:500]))

    def o_free(self, op):
        if self.full:
            self.w.free()
            self.full = False
            self.flaky = True

    def o_lose_index(self, op):
        """A lost index loses which files were ours: only at a quiet point is that no loss."""
        self.o_quiet(op)
        watched = self.w.watcher is not None
        self.w.end_watcher(signal.SIGKILL)
        for name in ('index', 'sig'):
            path = self.w.disk.at('.silt/' + name)
            subprocess.run(['rm', '-rf', path], check=True)
        if watched:
            self.w.start_watcher()
        self.sync()


def play(ops, build, log=lambda text: None, keep=False):
    """(operations done, None or Failure)."""
    player, index = None, -1
    failure = None
    try:
        player = Player(build, log)
        player.begin()
        for index, op in enumerate(ops):
            log('%4d  %s' % (index, operations.to_line(op)))
            player.play(op)
        index = len(ops)
        player.o_quiet(None)
    except Broken as e:
        failure = Failure(index, str(e))
    finally:
        if player:
            player.w.end(keep and failure is not None)
            if keep and failure:
                failure.text += '\nkept: ' + player.w.top
    return player.done, failure
