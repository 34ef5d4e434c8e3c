# SPDX-License-Identifier: Apache-2.0
"""bench/run restore: from a snapshot to a running guest; writing one; many clones."""
import json
import os
import re
import shutil
import time

from lib.guests import ECHO_PORT, ask, detached, kelvin_ready
from lib.lab import RAM_MIB, Failure

FILL_MIB = 16
CLONES = 100

SEPARATE = False  # whether each metric can be measured alone
METRICS = [
    ("first-instruction", "us", "kelvin floor-restore floor-pooled",
     "process start (pooled: request) to the guest's first instruction"),
    ("echo", "us", "kelvin floor-restore",
     "process start to echo's reply over vsock, page cache warm"),
    ("snapshot", "ms", "kelvin floor-write",
     f"snapshot of a paused {RAM_MIB} MiB guest with {FILL_MIB} MiB dirty, until it is on disk"),
    ("snapshot-inside", "ms", "kelvin floor-write",
     "the same as the monitor itself reports it"),
    ("clones", "ms", "kelvin", f"restore --count {CLONES}: start until the command is done"),
    ("clones-answer", "ms", "kelvin",
     f"the same until all {CLONES} clones have answered over vsock"),
]


def floor_restore(lab):
    return lab.spawn("byte", [lab.floor_bin, "restore", lab.data_dir], leave=True)["ns"]


def floor_pooled(lab):
    return lab.spawn("pooled", [lab.floor_bin, "pooled", lab.data_dir], leave=True)["ns"]


def floor_write(lab):
    cmd = [lab.floor_bin, "write", lab.data_dir, str(FILL_MIB)]
    if os.path.exists(lab.data("floor.data")):
        os.unlink(lab.data("floor.data"))
    os.sync()
    return lab.spawn("byte", cmd, leave=True, timeout=60)["ns"]


def kelvin_echo(lab):
    vm = lab.new_id("e")
    cmd = [lab.kelvin_bin, "restore", "--id", vm, "--json", lab.data("echo")]
    try:
        sample = lab.spawn(f"vsock={ECHO_PORT}:{lab.sock(vm)}", cmd)
        random_word(sample["out"].strip())
        return sample["ns"]
    finally:
        lab.end_vms()


def prepare_snapshot(lab, name, *guest_args):
    vm = detached(lab, name, *guest_args)
    if name == "echo":
        ask(lab.sock(vm))  # after a first request, all that a request needs is in memory
    lab.kelvin("snapshot", "--stop", "--force", vm, lab.data(name))
    lab.end_vms()


def random_word(reply):
    """The random word in a clone's first reply, after a check that it went on from its snapshot."""
    found = re.fullmatch(r"ping count=2 generation=([1-9]\d*) random=([0-9a-f]{16})", reply)
    if not found:
        raise Failure(f"a clone answered '{reply}'")
    return found.group(2)


def snapshot_times(lab):
    """ns on our clock, and ns as the monitor reports it (None if it does not)."""
    vm = detached(lab, "fill", f"mib={FILL_MIB}")
    target = lab.data("fill")
    try:
        lab.kelvin("pause", vm)
        os.sync()  # what earlier rounds left to write is not this snapshot's
        result = lab.kelvin("snapshot", "--json", vm, target, timeout=60)
        try:
            inside_us = json.loads(result["out"]).get("write_us")
        except (ValueError, AttributeError):
            inside_us = None
        return result["ns"], inside_us and inside_us * 1000
    finally:
        lab.end_vms()
        shutil.rmtree(target, ignore_errors=True)


def clone_times(lab):
    """ns until `restore --count` is done, and until every clone has answered."""
    start = time.monotonic_ns()
    try:
        result = lab.kelvin("restore", "--count", str(CLONES), "--detach", lab.data("echo"),
                            timeout=60)
        clones = sorted(lab.vms())
        if len(clones) != CLONES:
            raise Failure(f"{len(clones)} of {CLONES} clones are alive")
        replies = [ask(lab.sock(vm)) for vm in clones]
        done = time.monotonic_ns()
        different = len({random_word(reply) for reply in replies})
        if different != CLONES:
            raise Failure(f"{CLONES} clones, but {different} different random words")
        return result["ns"], done - start
    finally:
        lab.end_vms()


def snapshot_ready(bench, name, *guest_args):
    """Whether a snapshot of that guest could be made for the others to restore."""
    if not bench.can("kelvin", name):
        return False
    done = bench.attempt(f"{name} snapshot",
                         lambda: prepare_snapshot(bench.lab, name, *guest_args) or True)
    return bool(done)


def snapshots(bench):
    def disk():
        ns = floor_write(bench.lab)
        bench.add("restore", "snapshot", "floor-write", ns)
        bench.add("restore", "snapshot-inside", "floor-write", ns)

    def kelvin():
        wall, inside = snapshot_times(bench.lab)
        bench.add("restore", "snapshot", "kelvin", wall)
        if inside:
            bench.add("restore", "snapshot-inside", "kelvin", inside)

    subjects = {"floor-write": disk}
    if bench.can("kelvin", "fill"):
        subjects["kelvin"] = kelvin
    bench.interleave("snapshot", min(bench.rounds, 20), subjects)


def clones(bench):
    command, answers = clone_times(bench.lab)
    bench.add("restore", "clones", "kelvin", command)
    bench.add("restore", "clones-answer", "kelvin", answers)


def run(bench):
    lab, subjects = bench.lab, {}
    lab.spawn("exit", [lab.floor_bin, "prepare", lab.data_dir])
    floor_restore(lab)  # warms the page cache

    def fresh():
        ns = floor_restore(lab)
        bench.add("restore", "first-instruction", "floor-restore", ns)
        bench.add("restore", "echo", "floor-restore", ns)

    def pooled():
        bench.add("restore", "first-instruction", "floor-pooled", floor_pooled(lab))

    def first():
        ns = kelvin_ready(lab, "restore", lab.data("first"), "r")
        bench.add("restore", "first-instruction", "kelvin", ns)

    subjects["floor-restore"] = fresh
    subjects["floor-pooled"] = pooled
    if snapshot_ready(bench, "first", "stay"):
        subjects["kelvin first"] = first
    have_echo = snapshot_ready(bench, "echo")
    if have_echo:
        subjects["kelvin echo"] = lambda: bench.add("restore", "echo", "kelvin",
                                                   kelvin_echo(lab))
    bench.interleave("restore", bench.rounds, subjects)
    snapshots(bench)
    if have_echo:
        bench.interleave("clones", min(5, bench.long_rounds), {"kelvin": lambda: clones(bench)})
