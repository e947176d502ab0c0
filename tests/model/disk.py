# SPDX-License-Identifier: MIT
"""What operations do on the disk, each the way some program does it. A step is (name, arguments…)."""
import os
import shutil
import time


class Disk:
    def __init__(self, root, outside):
        self.root, self.outside = root, outside

    def at(self, path):
        return os.path.join(self.root, path)

    def do(self, steps):
        for name, *args in steps:
            getattr(self, name)(*args)

    def pause(self, ms):
        if ms:
            time.sleep(ms / 1000)

    def write_new(self, path, data):
        with open(path, 'wb') as f:
            f.write(data)

    def create(self, path, data):
        self.write_new(self.at(path), data)

    def overwrite(self, path, data):
        """In place and at once: same size without a truncation, else with an empty moment."""
        same = os.path.getsize(self.at(path)) == len(data)
        fd = os.open(self.at(path), os.O_WRONLY | (0 if same else os.O_TRUNC))
        os.write(fd, data)
        os.close(fd)

    def place(self, path, data, how):
        """A file as editors save it: beside it under a name that is left out (vim, sed) or one that
        nobody knows, then renamed; `direct` is a rename from outside of the project."""
        folder, _, name = self.at(path).rpartition('/')
        temporary = {'swp': '%s/.%s.swp' % (folder, name), 'sed': '%s/%s~' % (folder, name),
                     'temp': '%s/t0' % folder, 'direct': '%s/t0' % self.outside}[how]
        self.write_new(temporary, data)
        os.rename(temporary, self.at(path))

    def append(self, path, data):
        with open(self.at(path), 'ab', buffering=0) as f:
            f.write(data)

    def truncate(self, path, size):
        os.truncate(self.at(path), size)

    def remove(self, path):
        os.unlink(self.at(path))

    def rmtree(self, path):
        shutil.rmtree(self.at(path))

    def mkdir(self, path):
        os.mkdir(self.at(path))

    def rename(self, path, to):
        os.rename(self.at(path), self.at(to))

    def exchange(self, a, b):
        spare = self.at('d9')
        os.rename(self.at(a), spare)
        os.rename(self.at(b), self.at(a))
        os.rename(spare, self.at(b))

    def out(self, path, name):
        os.rename(self.at(path), os.path.join(self.outside, name))

    def churn(self, path, data, count):
        for i in range(count):
            if i:
                shutil.rmtree(self.at(path))
            os.mkdir(self.at(path))
            self.place(path + '/a0', data, 'direct')

    def chmod(self, path, mode):
        os.chmod(self.at(path), mode)

    def symlink(self, path, target):
        os.symlink(target, self.outside + '/s0')
        os.rename(self.outside + '/s0', self.at(path))

    def link(self, path, to):
        os.link(self.at(path), self.at(to))

    def fifo(self, path):
        os.mkfifo(self.at(path))

    def touch(self, path):
        os.utime(self.at(path))

    def storm(self, path, count):
        a, b = self.at(path), self.at(path + 'b')
        self.write_new(a, b'')
        for _ in range(count // 2):
            os.rename(a, b)
            os.rename(b, a)
        os.unlink(a)


setattr(Disk, 'in', lambda self, path, name: os.rename(os.path.join(self.outside, name), self.at(path)))
