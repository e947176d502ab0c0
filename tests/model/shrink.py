# SPDX-License-Identifier: MIT
"""Delta debugging over a list of operations: the shortest sequence found that still fails.

Pure: `fails(ops)` says whether a sequence fails. With real programs that is a matter of chance, so
`repeated` asks several times before a candidate is taken for harmless, and `until` ends the search; what
is returned did fail.
"""
import time


def repeated(fails, times):
    def any_time(ops):
        return any(fails(ops) for _ in range(times))
    return any_time


def shrink(ops, fails, until):
    """`ops` fails. Whole chunks first, then smaller ones, then single operations."""
    size = max(len(ops) // 2, 1)
    while time.monotonic() < until:
        smaller, at = False, 0
        while at < len(ops) and time.monotonic() < until:
            candidate = ops[:at] + ops[at + size:]
            if candidate != ops and fails(candidate):
                ops, smaller = candidate, True
            else:
                at += size
        if size == 1 and not smaller:
            break
        size = max(size // 2, 1)
    return ops
