# SPDX-License-Identifier: Apache-2.0
"""bench/run kick: a request with next to no work in it, and what a VM costs that does nothing.

The nearest to a null device that every monitor has: one 512-byte read at a time of a small file in
the page cache (not on a tmpfs: io_uring reads those by worker threads). What is left is the way
there and back: kick, the monitor's attention, the used ring, and either a guest that looks at it or
an interrupt that wakes the guest. The floor is two threads on two processors that do this with an
eventfd and without a guest.
"""
import os
import time

from lib.guests import report, resident
from lib.lab import Failure
from lib.net import device, private_network, tap

TRIPS = 3000
FILE_MIB = 4
IDLE_S = 5

SEPARATE = True
METRICS = [
    ("look", "us", "kelvin qemu floor-wake",
     "a request, while the guest looks at the ring (floor: one wake-up)"),
    ("sleep", "us", "kelvin floor-sleep",
     "a request, while the guest sleeps until the interrupt (floor: two wake-ups)"),
    ("spin", "us", "floor-spin", "the floor with no wake-up: both threads look at memory"),
    ("idle-cpu", "us/s", "kelvin",
     "processor time of a VM with disk, card and vsock whose guest sleeps, all threads"),
    ("idle-switches", "/s", "kelvin", "voluntary context switches of the same"),
]


def null_disk(lab):
    path = lab.data("null")
    with open(path, "wb") as f:
        f.write(os.urandom(FILE_MIB << 20))
        f.flush()
        os.fsync(f.fileno())
    return path


def request(bench, metric, subject, path, tsc_khz):
    words = ["op=read", "pattern=rand", "bs=512", "qd=1", f"count={TRIPS}",
             "poll" if metric == "look" else "nospin"]
    if subject == "qemu":
        options = ["-object", "iothread,id=io",
                   "-drive", f"file={path},format=raw,if=none,id=d,cache=writeback,aio=io_uring",
                   "-device", "virtio-blk-device,drive=d,iothread=io"]
    else:
        options = ["--disk", f"path={path}"]
    said = report(subject, bench.lab, "blk", words, options)
    if said["errors"]:
        raise Failure(f"{subject}: {said['errors']} errors")
    p50, p99 = (said[k] * 1e6 / tsc_khz for k in ("p50", "p99"))
    bench.results.add_trips("kick", metric, subject, p50, p99)


def floor(bench, metric, mode):
    said = bench.lab.ask_tool("kick", mode, str(TRIPS))
    bench.results.add_trips("kick", metric, f"floor-{mode}", said["p50_ns"], said["p99_ns"])


# ---- doing nothing ----

def activity(pid):
    """ns of processor time, and voluntary context switches, of all threads so far."""
    ns = switches = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
            ns += int(f.read().split()[0])
        with open(f"/proc/{pid}/task/{task}/status", encoding="ascii") as f:
            switches += next(int(line.split()[1]) for line in f
                             if line.startswith("voluntary_ctxt_switches"))
    return ns, switches


def idle(bench, path):
    with tap(bench.lab) as name, \
            resident("kelvin", bench.lab, "vsock", [],
                     ["--disk", f"path={path}", *device("kelvin", name)]) as process:
        time.sleep(1)
        before = activity(process.pid)
        time.sleep(IDLE_S)
        after = activity(process.pid)
    bench.add("kick", "idle-cpu", "kelvin", (after[0] - before[0]) / IDLE_S)
    bench.add("kick", "idle-switches", "kelvin", (after[1] - before[1]) / IDLE_S)


def takers(bench):
    """{label: function that takes a sample}; for each metric that is wanted."""
    path, tsc_khz, found = null_disk(bench.lab), bench.tsc_khz(), {}
    have_disk = bench.can("kelvin", "blk") and bench.kelvin_has("--disk")
    for metric, mode in (("look", "wake"), ("sleep", "sleep"), ("spin", "spin")):
        if metric not in bench.metrics:
            continue
        found[f"{metric} floor"] = lambda m=metric, mode=mode: floor(bench, m, mode)
        if have_disk and metric != "spin":
            found[f"{metric} kelvin"] = lambda m=metric: request(bench, m, "kelvin", path, tsc_khz)
        if bench.can("qemu", "blk") and metric == "look":
            found[f"{metric} qemu"] = lambda m=metric: request(bench, m, "qemu", path, tsc_khz)
    return found


def run(bench):
    bench.interleave("kick", bench.long_rounds, takers(bench))
    if not any(m.startswith("idle") for m in bench.metrics) or not bench.can("kelvin", "vsock") or \
            not bench.kelvin_has("--disk") or not bench.kelvin_has("--net"):
        return
    if os.geteuid() != 0:
        bench.say("an idle VM with a tap needs root: it is left out")
        return
    path = null_disk(bench.lab)
    with private_network():
        bench.interleave("idle", max(1, bench.long_rounds // 5), {
            "kelvin": lambda: idle(bench, path)})
