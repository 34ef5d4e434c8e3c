# SPDX-License-Identifier: Apache-2.0
"""Samples by metric and subject, and what is told of them: medians, tails, ratios."""
import json

# What a unit is of the values that are filed: ns, bytes/s, bits/s, operations/s, KiB.
SCALE = {"us": 1e3, "ms": 1e6, "KiB": 1, "kIOPS": 1e3, "MiB/s": 1 << 20, "Gb/s": 1e9,
         "us/s": 1e3, "/s": 1, "%": 1}
RATES = ("kIOPS", "MiB/s", "Gb/s")  # more is better
PEER = "qemu"


def percentile(samples, p):
    """Nearest rank: a value that was really seen."""
    ordered = sorted(samples)
    rank = -(-len(ordered) * p // 100)
    return ordered[max(0, int(rank) - 1)]


def ratio(ours, other):
    return round(ours / other, 3) if ours is not None and other else None


class Results:
    """@metrics: {bench: its METRICS, each (metric, unit, subjects, what is measured)}."""

    def __init__(self, metrics):
        self.metrics = metrics
        self.samples = {}  # (bench, metric, subject) -> [value]
        self.tails = {}    # the same -> [99th percentile that a run found by itself]

    def add(self, bench, metric, subject, value):
        """One sample, in what SCALE begins from."""
        unit = next(m[1] for m in self.metrics[bench] if m[0] == metric)
        self.samples.setdefault((bench, metric, subject), []).append(value / SCALE[unit])

    def add_trips(self, bench, metric, subject, p50_ns, p99_ns):
        """A run of many round trips: its median and its 99th percentile."""
        self.add(bench, metric, subject, p50_ns)
        self.tails.setdefault((bench, metric, subject), []).append(p99_ns / 1e3)

    def tail(self, key, unit):
        """The 99th percentile; of runs with their own, the median of those. Of rates, the value
        that 99 % of the runs reached."""
        if key in self.tails:
            return percentile(self.tails[key], 50)
        return percentile(self.samples[key], 1 if unit in RATES else 99)

    def rows(self):
        result = []
        for bench, metrics in self.metrics.items():
            for metric, unit, subjects, _ in metrics:
                p50 = {s: percentile(self.samples[bench, metric, s], 50)
                       for s in subjects.split() if (bench, metric, s) in self.samples}
                floor = next((s for s in subjects.split() if s.startswith("floor")), None)
                for subject, value in p50.items():
                    key = (bench, metric, subject)
                    result.append({
                        "bench": bench, "metric": metric, "unit": unit, "subject": subject,
                        "n": len(self.samples[key]), "p50": round(value, 3),
                        "p99": round(self.tail(key, unit), 3),
                        "ratio_to_floor": ratio(value, p50.get(floor)),
                        "ratio_to_qemu": ratio(value, p50.get(PEER))})
        return result


def print_table(rows):
    line = "{:<8} {:<18} {:<14} {:>4} {:>10} {:>10} {:<5} {:>8} {:>8}"
    print(line.format("bench", "metric", "subject", "n", "p50", "p99", "", "x floor", "x qemu"))
    for r in rows:
        ratios = ["-" if r[k] is None else f"{r[k]:.2f}"
                  for k in ("ratio_to_floor", "ratio_to_qemu")]
        print(line.format(r["bench"], r["metric"], r["subject"], r["n"], f"{r['p50']:.1f}",
                          f"{r['p99']:.1f}", r["unit"], *ratios))


def write_json(path, rows):
    """An array with a row a line, so that both a parser and grep can read it."""
    with open(path, "w", encoding="ascii") as f:
        f.write("[" + ",\n ".join(json.dumps(r) for r in rows) + "]\n")
