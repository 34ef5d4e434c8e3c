# SPDX-License-Identifier: Apache-2.0
"""bench/run jail: what the jail adds to a start, whole and less one part at a time."""
from lib.guests import kelvin_ready
from lib.restore import prepare_snapshot

SEPARATE = False  # whether each metric can be measured alone
# Each leaves out one part; the last leaves out all.
WAYS = {
    "kelvin": (),
    "no-seccomp": ("--seccomp=off",),
    "no-cgroup": ("--cgroup=none",),
    "no-jail": ("--no-jail",),
    "nothing": ("--no-jail", "--seccomp=off"),
}
METRICS = [
    ("run", "us", " ".join(WAYS), "process start to the guest's first instruction"),
    ("restore", "us", " ".join(WAYS), "the same from a snapshot"),
]


def run(bench):
    lab = bench.lab
    if not (bench.can("kelvin", "first") and bench.can("kelvin", "echo")):
        return
    prepare_snapshot(lab, "first", "stay")
    what = {"run": lab.guest("first"), "restore": lab.data("first")}
    subjects = {}
    for metric, operand in what.items():
        for way, options in WAYS.items():
            def once(metric=metric, operand=operand, way=way, options=options):
                bench.add("jail", metric, way,
                          kelvin_ready(lab, metric, operand, "j", options))
            subjects[f"{metric} {way}"] = once
    bench.interleave("jail", bench.rounds, subjects)
