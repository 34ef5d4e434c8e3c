# SPDX-License-Identifier: Apache-2.0
"""bench/run vsock: a guest's vsock ports, against a bare program on a unix socket.

The same load generator talks to both: through kelvin's socket to the guest, and to a program that
does what the guest does. QEMU has no vsock without vhost. A run begins when the VM is up and has
moved some bytes, as a server would have.
"""
import contextlib
import os
import time

from lib.guests import resident
from lib.lab import Failure

PINGS = 3000
PING_LEN = 64
START_S = 10
WARM_UP = 16 << 20  # bytes
# metric: (what the load generator does, chunk)
BULK = {
    "to-guest": ("send", 65536),
    "to-host": ("recv", 65536),
    "to-guest-4k": ("send", 4096),
    "to-host-4k": ("recv", 4096),
}

SEPARATE = True
METRICS = [
    ("to-guest", "Gb/s", "kelvin floor-unix",
     "bytes to the guest, written 64 KiB at a time, until it has told how many it got"),
    ("to-host", "Gb/s", "kelvin floor-unix", "bytes from the guest, read 64 KiB at a time"),
    ("to-guest-4k", "Gb/s", "kelvin floor-unix", "the same, written 4 KiB at a time"),
    ("to-host-4k", "Gb/s", "kelvin floor-unix",
     "read 4 KiB at a time (floor: also written so)"),
    ("round-trip", "us", "kelvin floor-unix",
     f"{PING_LEN} bytes to the guest and back to a sleeping program (p99: median of the runs')"),
]


@contextlib.contextmanager
def server(bench, subject, chunk):
    """The far end, listening; the path of its socket."""
    lab = bench.lab
    path = lab.ram(lab.new_id("s"))
    if subject == "floor-unix":
        far = lab.background(lab.tool("sock"), path, str(chunk))
    else:
        far = resident(subject, lab, "vsock", [], ["--vsock", f"path={path}"])
    try:
        with far as process:
            deadline = time.monotonic() + START_S
            while not os.path.exists(path) and process.poll() is None:
                if time.monotonic() > deadline:
                    raise Failure(f"{subject}: no socket after {START_S} s")
                time.sleep(0.005)
            yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def bulk(bench, subject, metric):
    verb, chunk = BULK[metric]
    with server(bench, subject, chunk) as path:
        def run(count):
            said = bench.lab.ask_tool("vsockload", path, verb, str(count), str(chunk))
            return said["ns"] / 1e9, said["bytes"] * 8

        run(WARM_UP)
        seconds, bits = bench.sized(("vsock", metric, subject), run, 4 * WARM_UP)
    bench.add("vsock", metric, subject, bits / seconds)


def round_trip(bench, subject, metric):
    with server(bench, subject, 65536) as path:
        said = bench.lab.ask_tool("vsockload", path, "ping", str(PINGS), str(PING_LEN))
    bench.results.add_trips("vsock", metric, subject, said["p50_ns"], said["p99_ns"])


def run(bench):
    subjects = ["floor-unix"]
    if bench.can("kelvin", "vsock"):
        subjects.append("kelvin")
    for metric in bench.metrics:
        take = bulk if metric in BULK else round_trip
        bench.interleave(f"vsock {metric}", bench.long_rounds, {
            s: lambda s=s, take=take, metric=metric: take(bench, s, metric) for s in subjects})
