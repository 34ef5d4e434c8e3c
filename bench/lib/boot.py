# SPDX-License-Identifier: Apache-2.0
"""bench/run boot: from process start to a guest's first instruction, and until it is ready."""
import re

from lib.guests import QEMU_MICROVM, ask, detached, kelvin_ready
from lib.lab import RAM, RAM_MIB, Failure

SEPARATE = False  # whether each metric can be measured alone
METRICS = [
    ("first-instruction", "us", "kelvin floor-boot",
     "process start to the guest's first instruction"),
    ("ready", "us", "kelvin qemu floor-boot",
     "process start to hello's ready (QEMU: its first byte of output)"),
    ("memory", "KiB", "kelvin", "memory of the monitor beyond guest RAM (Pss), echo guest"),
]


def floor_boot(lab):
    return lab.spawn("byte", [lab.floor_bin, "boot"], leave=True)["ns"]


def qemu_ready(lab):
    return lab.spawn("stdout", [*QEMU_MICROVM, "-kernel", lab.guest("hello")])["ns"]


def pss(pid):
    """KiB of a process."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return int(re.search(r"^Pss:\s+(\d+)", f.read(), re.M).group(1))


def keeper_of(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        return int(f.read().rpartition(")")[2].split()[1])


def monitor_memory(lab):
    """KiB of Pss outside of guest RAM of a running VM, with the process that keeps it."""
    vm = detached(lab, "echo")
    try:
        pid = lab.vms().get(vm)
        if not pid:
            raise Failure(f"no live process behind {lab.run_dir}/{vm}/pid")
        ask(lab.sock(vm))
        total = pss(pid) + pss(keeper_of(pid))
        with open(f"/proc/{pid}/smaps", encoding="ascii") as f:
            maps = [{k: int(v) for k, v in re.findall(r"^(Size|Pss):\s+(\d+) kB", chunk, re.M)}
                    for chunk in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", f.read(), flags=re.M)
                    if chunk]
        ram = [m for m in maps if m["Size"] == RAM >> 10]
        if len(ram) != 1:
            raise Failure(f"cannot tell guest RAM: {len(ram)} mappings of {RAM_MIB} MiB")
        return total - ram[0]["Pss"]
    finally:
        lab.end_vms()


def run(bench):
    lab, subjects = bench.lab, {}

    def both_floors():  # one floor for both metrics: they share a round
        ns = floor_boot(lab)
        bench.add("boot", "first-instruction", "floor-boot", ns)
        bench.add("boot", "ready", "floor-boot", ns)

    def first():
        ns = kelvin_ready(lab, "run", lab.guest("first"), "f")
        bench.add("boot", "first-instruction", "kelvin", ns)

    def hello():
        ns = kelvin_ready(lab, "run", lab.guest("hello"), "h")
        bench.add("boot", "ready", "kelvin", ns)

    subjects["floor-boot"] = both_floors
    if bench.can("kelvin", "first"):
        subjects["kelvin first"] = first
    if bench.can("kelvin", "hello"):
        subjects["kelvin hello"] = hello
    if bench.can("qemu", "hello"):
        subjects["qemu hello"] = lambda: bench.add("boot", "ready", "qemu", qemu_ready(lab))
    bench.interleave("boot", bench.rounds, subjects)
    if bench.can("kelvin", "echo"):
        bench.interleave("memory", min(bench.rounds, 5), {
            "kelvin": lambda: bench.add("boot", "memory", "kelvin", monitor_memory(lab))})
