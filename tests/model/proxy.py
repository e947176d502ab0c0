# SPDX-License-Identifier: MIT
"""A line between agent and server that the test spoils: a process of its own, told what to do on stdin.

    port N        where the server is from now on
    cut           end all connections now
    slow MS       every piece waits this long; 0: no more
    budget N K    the next K connections end after N bytes from the client

Prints the port on which it listens.
"""
import os
import random
import selectors
import socket
import sys
import time

PIECE = 65536


class Line:
    """One connection: two sockets, and what is on its way between them."""

    def __init__(self, client, server, budget):
        self.ends = {client: server, server: client}
        self.client, self.budget = client, budget


def main():
    listener = socket.create_server(('127.0.0.1', 0), backlog=64)
    print(listener.getsockname()[1], flush=True)
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    waiting.register(sys.stdin, selectors.EVENT_READ)
    lines, port, slow_ms, budgets = {}, 0, 0, []
    chance = random.Random(1)

    def end(line):
        for s in line.ends:
            if s in lines:
                waiting.unregister(s)
                del lines[s]
                s.close()

    def accept():
        client = listener.accept()[0]
        try:
            server = socket.create_connection(('127.0.0.1', port), timeout=5)
        except OSError:
            client.close()
            return
        line = Line(client, server, budgets.pop() if budgets else None)
        for s in line.ends:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            s.settimeout(10)
            lines[s] = line
            waiting.register(s, selectors.EVENT_READ)

    def hand_on(s):
        line = lines[s]
        try:
            data = s.recv(PIECE)
            if slow_ms:
                time.sleep(chance.uniform(0, slow_ms) / 1000)
            if s is line.client and line.budget is not None:
                data = data[:line.budget]
                line.budget -= len(data)
            if data:
                line.ends[s].sendall(data)
            if not data or line.budget == 0:
                end(line)
        except OSError:
            end(line)

    def obey():
        nonlocal port, slow_ms
        words = os.read(0, 4096).decode().split('\n')
        if words == ['']:
            sys.exit(0)
        for command, *args in (w.split() for w in words if w):
            if command == 'port':
                port = int(args[0])
            elif command == 'slow':
                slow_ms = int(args[0])
            elif command == 'budget':
                budgets[:] = [int(args[0])] * int(args[1])
            elif command == 'cut':
                for line in set(lines.values()):
                    end(line)

    while True:
        for key, _ in waiting.select():
            if key.fileobj is listener:
                accept()
            elif key.fileobj is sys.stdin:
                obey()
            elif key.fileobj in lines:
                hand_on(key.fileobj)


main()
