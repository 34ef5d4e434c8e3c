# SPDX-License-Identifier: Apache-2.0
"""bench/run blk: a guest's disk, against QEMU's and against fio on the same file.

The file lies on a real disk and is written from end to end before the first run. For the
page-cached metrics it is in memory as a whole; the direct ones pass the page cache by. All
subjects do the same work: kelvin and QEMU with the same guest, which counts by the TSC and looks at
its ring without a rest, for on QEMU it cannot sleep. With kelvin-sleep it does sleep.
"""
import collections
import json
import os

from lib.guests import looking, report
from lib.lab import FIO, Failure

DISK_MIB = 1024
WRITE_MIB = 64  # what the writes go to: little enough to be flushed in a moment

Work = collections.namedtuple("Work", "op pattern bs qd direct")
WORKS = {
    "randread": Work("read", "rand", 4096, 32, False),
    "randwrite": Work("write", "rand", 4096, 32, False),
    "seqread": Work("read", "seq", 131072, 8, False),
    "latency": Work("read", "rand", 4096, 1, False),
    "randread-direct": Work("read", "rand", 4096, 32, True),
    "seqread-direct": Work("read", "seq", 131072, 8, True),
    "latency-direct": Work("read", "rand", 4096, 1, True),
}
UNITS = {"randread": "kIOPS", "randwrite": "kIOPS", "seqread": "MiB/s", "latency": "us"}
TEXT = {
    "randread": "4 KiB random reads, 32 in flight",
    "randwrite": f"4 KiB random writes to {WRITE_MIB} MiB, 32 in flight, not flushed",
    "seqread": "128 KiB reads in order, 8 in flight",
    "latency": "one 4 KiB random read at a time (p99: median of the runs' own)",
}


def metric(name):
    kind = name.removesuffix("-direct")
    where = "O_DIRECT" if WORKS[name].direct else "page-cached file"
    return name, UNITS[kind], "kelvin kelvin-sleep qemu floor-fio", f"{TEXT[kind]}, {where}"


SEPARATE = True
METRICS = [metric(name) for name in WORKS]


def disk(lab):
    """The file; made when it is first asked for: preallocated, written, on disk."""
    path = lab.data("disk")
    if os.path.exists(path):
        return path
    chunk = os.urandom(1 << 20)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(fd, 0, DISK_MIB << 20)
        for i in range(DISK_MIB):
            os.pwrite(fd, chunk, i << 20)
        os.fsync(fd)
    finally:
        os.close(fd)
    return path


def warm(path):
    """Reads the file, so that it is in the page cache."""
    with open(path, "rb", buffering=0) as f:
        while f.read(1 << 20):
            pass


# ---- one run ----

def range_mib(work):
    return WRITE_MIB if work.op == "write" else DISK_MIB


def fio_run(lab, path, work):
    """Operations a second, and the 50th and 99th percentile in ns (of single requests only). Page
    aligned memory, no clock for each request and whole batches are what makes fio fastest."""
    verb = {"rand": "rand", "seq": ""}[work.pattern] + work.op
    cmd = [FIO, "--name=floor", "--thread", "--ioengine=io_uring", "--fixedbufs=0",
           "--registerfiles=1", f"--filename={path}", f"--size={range_mib(work)}M", "--overwrite=1",
           f"--rw={verb}", f"--bs={work.bs}", f"--iodepth={work.qd}", f"--direct={work.direct:d}",
           "--mem=mmap", "--norandommap", "--randrepeat=0", "--invalidate=0", "--time_based",
           "--runtime=300ms", "--output-format=json"]
    if work.qd == 1:
        cmd.append("--lat_percentiles=1")
    else:
        cmd.append("--gtod_reduce=1")
        if not work.direct or work.pattern == "seq":  # else they would wait for each other
            cmd += [f"--iodepth_batch_submit={work.qd}", "--iodepth_batch_complete_min=1",
                    f"--iodepth_batch_complete_max={work.qd}"]
    out = lab.spawn("exit", cmd, timeout=30)["out"]
    job = json.loads(out[out.index("{"):])["jobs"][0][work.op]
    ranks = job["lat_ns"].get("percentile", {})
    return job["iops"], ranks.get("50.000000"), ranks.get("99.000000")


def guest_run(subject, lab, path, work, count):
    """What the guest reports."""
    words = [f"op={work.op}", f"pattern={work.pattern}", f"bs={work.bs}", f"qd={work.qd}",
             f"count={count}", f"range={range_mib(work)}M", *looking(subject)]
    if subject == "qemu":
        cache = "none" if work.direct else "writeback"
        options = ["-object", "iothread,id=io",
                   "-drive", f"file={path},format=raw,if=none,id=d,cache={cache},aio=io_uring",
                   "-device", "virtio-blk-device,drive=d,iothread=io"]
    else:
        options = ["--disk", f"path={path}" + (",sync=direct" if work.direct else "")]
    said = report(subject, lab, "blk", words, options)
    if said["errors"] or said["ops"] != count:
        raise Failure(f"{subject}: {said['errors']} errors in {said['ops']} of {count} requests")
    return said


def sample(bench, subject, name, path, tsc_khz):
    work = WORKS[name]
    if subject == "floor-fio":
        iops, p50, p99 = fio_run(bench.lab, path, work)
    else:
        def run(count):
            said = guest_run(subject, bench.lab, path, work, count)
            return said["cycles"] / (tsc_khz * 1e3), said

        seconds, said = bench.sized(("blk", name, subject), run, 2000)
        iops = said["ops"] / seconds
        p50, p99 = (said[k] * 1e6 / tsc_khz for k in ("p50", "p99"))
    if work.op == "write":
        os.sync()  # on nobody's clock
    kind = name.removesuffix("-direct")
    if kind == "latency":
        bench.results.add_trips("blk", name, subject, p50, p99)
    else:
        bench.add("blk", name, subject, iops * (work.bs if UNITS[kind] == "MiB/s" else 1))


def run(bench):
    subjects = []
    if bench.can("kelvin", "blk") and bench.kelvin_has("--disk"):
        subjects += ["kelvin", "kelvin-sleep"]
    if bench.can("qemu", "blk"):
        subjects.append("qemu")
    if bench.can("fio"):
        subjects.append("floor-fio")
    if not subjects:
        return
    path, tsc_khz = disk(bench.lab), bench.tsc_khz()
    for name in bench.metrics:
        warm(path)
        bench.interleave(f"blk {name}", bench.long_rounds, {
            s: lambda s=s, name=name: sample(bench, s, name, path, tsc_khz) for s in subjects})
