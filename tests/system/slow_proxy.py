#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A slow link for the scenarios: a TCP proxy that delays everything by a fixed time each way, and
writes down what crossed it, as the client sees it.

    slow_proxy.py LISTEN-FILE UPSTREAM-HOST:PORT DELAY-MS LOG

LISTEN-FILE receives "127.0.0.1:PORT" once it listens. LOG receives a line per event, in order:

    open N          the client opened connection N
    up N            the client's bytes on connection N, on their way to the server
    down N          the server's bytes, as the client gets them
    request N LINE  the first line of a request that was sent

What a client sends before anything of an answer to earlier bytes has come down costs no further round
trip: round trips are the runs of `up` that are parted by `down` (see `rounds` in 50-barrier.sh).
"""
import asyncio
import sys

METHODS = (b"GET ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"HEAD ")


async def main() -> None:
    listen_file, upstream, delay_ms, log_path = sys.argv[1:5]
    host, port = upstream.rsplit(":", 1)
    delay = int(delay_ms) / 1000
    log = open(log_path, "w", buffering=1)
    number = 0

    async def pump(reader, writer, name, downwards):
        """Every piece leaves `delay` after it came; several are on their way at a time."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue = asyncio.Queue()

        async def deliver():
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if data is None:
                    break
                if downwards:
                    log.write(f"down {name}\n")
                writer.write(data)
                await writer.drain()
            writer.close()

        delivery = asyncio.ensure_future(deliver())
        try:
            while data := await reader.read(65536):
                if not downwards:
                    log.write(f"up {name}\n")
                    for line in data.split(b"\r\n"):
                        if line.startswith(METHODS) and b" HTTP/1.1" in line:
                            log.write(f"request {name} {line.decode(errors='replace')}\n")
                queue.put_nowait((loop.time() + delay, data))
        except ConnectionError:
            pass
        queue.put_nowait((loop.time() + delay, None))
        try:
            await delivery
        except ConnectionError:
            pass

    async def serve(reader, writer):
        nonlocal number
        number += 1
        name = number
        log.write(f"open {name}\n")
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(
            pump(reader, up_writer, name, False), pump(up_reader, writer, name, True)
        )

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    with open(listen_file, "w") as f:
        f.write(f"{address[0]}:{address[1]}\n")
    async with server:
        await server.serve_forever()


asyncio.run(main())
