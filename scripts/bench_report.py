# SPDX-License-Identifier: MIT
"""The table that a benchmark prints, and the same figures as JSON."""
import json
import os
import statistics
import subprocess
import sys
import time

from bench_common import MIB, percentile


class Report:
    def __init__(self, chosen):
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), "unknown CPU")
        self.chosen = chosen
        self.data = {"cpu": model, "cpus": os.cpu_count(), "kernel": os.uname().release, "on": chosen.on,
                     "load": os.getloadavg()[0], "quick": chosen.quick, "absent": [], "sections": []}
        self.failed = []
        self.began = time.monotonic()
        print(f"{model}, {os.cpu_count()} CPUs, Linux {os.uname().release}, load {os.getloadavg()[0]:.1f} at the start, data on {chosen.on}")
        print("medians of interleaved rounds; CPU: user and system time of all its processes per action; memory: the\n"
              "most that they held together; wire: payload of all TCP connections, both ways")

    def absent(self, name, why):
        self.data["absent"].append({"name": name, "why": why})
        print(f"  left out: {name}: {why}")

    def title(self, text):
        self.data["sections"].append({"title": text, "rows": [], "targets": []})
        print(f"\n{text}")
        sys.stdout.flush()

    def row(self, name, values, base=None, unit="ms", cost=None, note=""):
        """Returns the median; values may be empty if everything failed."""
        if not values:
            print(f"  {name:<28} nothing measured  {note}")
            self.data["sections"][-1]["rows"].append({"name": name, "failed": True, "note": note})
            return None
        p50 = statistics.median(values)
        entry = {"name": name, "unit": unit, "n": len(values), "p50": p50, "p95": percentile(values, 0.95),
                 "p99": percentile(values, 0.99), "min": min(values), "max": max(values), "note": note}
        line = f"  {name:<28}{p50:10.2f} {unit}"
        line += f"  p95 {entry['p95']:9.2f}  p99 {entry['p99']:9.2f}"
        if base:
            entry["ratio"] = p50 / base
            line += f"  {p50 / base:6.2f} ×"
        else:
            line += " " * 10
        if cost:
            line += self.cost(cost, entry)
        self.data["sections"][-1]["rows"].append(entry)
        print(f"{line}  {note}".rstrip())
        sys.stdout.flush()
        return p50

    @staticmethod
    def cost(cost, entry):
        text = ""
        entry["cpu_ms"], entry["peak_bytes"] = cost.cpu_ms, cost.peak
        text += f"  CPU {cost.cpu_ms:8.1f} ms" if cost.cpu_ms is not None else " " * 17
        text += f"  {cost.peak / MIB:7.1f} MiB" if cost.peak else " " * 13
        if any(cost.wire):
            entry["wire_bytes"] = statistics.median(cost.wire)
            text += f"  {entry['wire_bytes']:12,.0f} B wire"
        if cost.failed:
            entry["failed"] = cost.failed
        return text

    def table(self, costs, base=None, notes=None):
        """A row per side; base is the side that the ratios are to."""
        middle = statistics.median(costs[base].times) if base and costs[base].times else None
        for side, cost in costs.items():
            self.row(side.name, cost.times, middle, cost=cost, note=(notes or {}).get(side, ""))

    def fact(self, name, value, text):
        self.data["sections"][-1]["rows"].append({"name": name, "value": value})
        print(f"  {name:<28}{text}")

    def target(self, what, value, limit, unit="×", least=False):
        if value is None:
            return
        met = value >= limit if least else value <= limit
        self.data["sections"][-1]["targets"].append({"what": what, "value": value, "limit": limit, "unit": unit, "met": met})
        print(f"  target: {what} {'≥' if least else '≤'} {limit:,g} {unit}: {'met' if met else 'missed'} ({value:,.2f})")
        sys.stdout.flush()

    def run(self, bench, names, rows):
        """A row that fails is told and does not keep the others from being measured."""
        for name in names:
            try:
                rows["row_" + name](bench)
            except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
                self.failed.append(name)
                print(f"  row {name} failed: {error}")

    def finish(self):
        """Returns the exit status."""
        self.data["seconds"] = time.monotonic() - self.began
        if self.data["absent"]:
            print("\nnot measured: " + "; ".join(f"{a['name']} ({a['why']})" for a in self.data["absent"]))
        print(f"\n{self.data['seconds']:.0f} s, load {os.getloadavg()[0]:.1f} at the end")
        if self.chosen.json:
            with open(self.chosen.json, "w", encoding="utf-8") as f:
                json.dump(self.data, f, indent=1)
        if self.failed:
            print("failed: " + ", ".join(self.failed))
        return 1 if self.failed else 0
