# SPDX-License-Identifier: Apache-2.0
"""bench/run --breakdown: where the bare-KVM floor's own time goes, step by step."""
import json
import random

from lib.results import percentile


def print_breakdown(lab, rounds):
    """Where the floor's time goes: the median of each step of each mode."""
    lab.spawn("exit", [lab.floor_bin, "prepare", lab.data_dir])
    times = lab.data("times")
    modes = {"boot": ["boot"], "restore": ["restore", lab.data_dir]}
    steps = {mode: {} for mode in modes}
    for _ in range(rounds):
        for mode in random.sample(list(modes), len(modes)):
            sample = lab.spawn("byte", [lab.floor_bin, "--times", times] + modes[mode], leave=True)
            with open(times, encoding="ascii") as f:
                stamps = json.load(f)
            one, last = {}, sample["start_ns"]
            for name, at in stamps + [["seen by the parent", sample["start_ns"] + sample["ns"]]]:
                name = "spawn and exec" if name == "main" else name
                one[name] = one.get(name, 0) + at - last
                # The parent may see the marker before the child has read its own clock.
                last = max(at, last)
            one["seen by the parent"] = max(0, one["seen by the parent"])
            one["total"] = sample["ns"]
            for name, ns in one.items():
                steps[mode].setdefault(name, []).append(ns / 1e3)
    for mode, found in steps.items():
        print(f"floor {mode}, median of {rounds}, us (steps done three times are summed)")
        for name, values in found.items():
            print(f"  {name:<28} {percentile(values, 50):>8.1f}")
