# SPDX-License-Identifier: Apache-2.0
"""bench/run net: a guest's network card on a tap, against QEMU's and a bare program on that tap.

The taps are in a network namespace that is made for this and gone with it. What is beyond a tap is
the same for everybody: frames to the host go into its stack, which drops them; frames to the guest
come from a packet socket (which copies them: on few processors that is what bounds the floor), and
pings from another. The guest looks at its rings without a rest, for on QEMU it cannot sleep; with
kelvin-sleep it does sleep.
"""
import contextlib
import ctypes
import os

from lib.guests import CARD_MAC, looking, report, resident
from lib.lab import Failure

FRAME_LEN = 65214  # as BULK_LEN in frame.h
MSS = 1448
PINGS = 3000

SEPARATE = True
METRICS = [
    ("to-host", "Gb/s", "kelvin kelvin-sleep qemu floor-tap",
     "64 KiB GSO frames from the guest into the host's stack (floor: write to the tap)"),
    ("to-guest", "Gb/s", "kelvin kelvin-sleep qemu floor-tap",
     "64 KiB GSO frames from a packet socket to the guest (floor: read from the tap)"),
    ("round-trip", "us", "kelvin kelvin-sleep qemu floor-tap",
     "a 64-byte frame to the guest and back to a sleeping program (p99: median of the runs' own)"),
]

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def private_network():
    """This process, and so all that it starts, in a network namespace of its own."""
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(CLONE_NEWNET) < 0:
            raise Failure(f"a network namespace: {os.strerror(ctypes.get_errno())}")
        yield
    finally:
        libc.setns(before, CLONE_NEWNET)
        os.close(before)


@contextlib.contextmanager
def tap(lab):
    """A new tap for a sample, up; its name. Not one tap for all: whoever served it last may take a
    moment to let go of it."""
    name = lab.new_id("kb")
    lab.spawn("exit", ["ip", "tuntap", "add", "dev", name, "mode", "tap", "vnet_hdr"])
    try:
        with contextlib.suppress(OSError):  # a host without IPv6 sends none either
            with open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w", encoding="ascii") as f:
                f.write("1")
        lab.spawn("exit", ["ip", "link", "set", name, "up"])
        yield name
    finally:
        lab.spawn("exit", ["ip", "link", "del", name])


def frames_to_host(name):
    """Frames that came out of the tap so far."""
    with open("/proc/net/dev", encoding="ascii") as f:
        return next(int(line.split(":")[1].split()[1]) for line in f if f"{name}:" in line)


def device(subject, name):
    if subject == "qemu":
        return ["-netdev", f"tap,id=n,ifname={name},script=no,downscript=no,vhost=off",
                "-device", f"virtio-net-device,netdev=n,mac={CARD_MAC}"]
    return ["--net", f"tap={name},mac={CARD_MAC}"]


# ---- one run each ----

def guest_bulk(subject, lab, name, words, tsc_khz):
    said = report(subject, lab, "net", words, device(subject, name))
    if said["errors"]:
        raise Failure(f"{subject}: {said['errors']} errors in {said['frames']} frames")
    if said["bytes"] < said["frames"] * FRAME_LEN:
        raise Failure(f"{subject}: {said['frames']} frames are only {said['bytes']} bytes: no GSO")
    return said["cycles"] / (tsc_khz * 1e3), said["bytes"] * 8


def floor_bulk(lab, name, mode, count):
    said = lab.ask_tool("tap", mode, name, str(count))
    return said["ns"] / 1e9, said["bytes"] * 8


def to_host(bench, subject, tsc_khz):
    def run(count):
        with tap(bench.lab) as name:
            if subject == "floor-tap":
                result = floor_bulk(bench.lab, name, "write", count)
            else:
                words = ["mode=tx", f"gso={MSS}", f"size={FRAME_LEN}", f"count={count}",
                         *looking(subject)]
                result = guest_bulk(subject, bench.lab, name, words, tsc_khz)
            if frames_to_host(name) < count:
                raise Failure(f"{subject}: {frames_to_host(name)} of {count} frames came out")
        return result

    seconds, bits = bench.sized(("net", "to-host", subject), run, 2000)
    bench.add("net", "to-host", subject, bits / seconds)


def to_guest(bench, subject, tsc_khz):
    def run(count):
        with tap(bench.lab) as name, \
                bench.lab.background(bench.lab.tool("netload"), "send", name):
            if subject == "floor-tap":
                return floor_bulk(bench.lab, name, "read", count)
            words = ["mode=rx", f"count={count}", *looking(subject)]
            return guest_bulk(subject, bench.lab, name, words, tsc_khz)

    seconds, bits = bench.sized(("net", "to-guest", subject), run, 2000)
    bench.add("net", "to-guest", subject, bits / seconds)


def round_trip(bench, subject, _):
    lab = bench.lab
    with tap(lab) as name:
        if subject == "floor-tap":
            other = lab.background(lab.tool("tap"), "reflect", name)
        else:
            words = ["mode=reflect", *looking(subject)]
            other = resident(subject, lab, "net", words, device(subject, name))
        with other:
            said = lab.ask_tool("netload", "ping", name, str(PINGS))
    bench.results.add_trips("net", "round-trip", subject, said["p50_ns"], said["p99_ns"])


TAKE = {"to-host": to_host, "to-guest": to_guest, "round-trip": round_trip}


def run(bench):
    if os.geteuid() != 0:
        bench.say("net needs root, for a network namespace and a tap in it: it is left out")
        return
    subjects = ["floor-tap"]
    if bench.can("kelvin", "net") and bench.kelvin_has("--net"):
        subjects += ["kelvin", "kelvin-sleep"]
    if bench.can("qemu", "net"):
        subjects.append("qemu")
    tsc_khz = bench.tsc_khz()
    with private_network():
        for metric in bench.metrics:
            bench.interleave(f"net {metric}", bench.long_rounds, {
                s: lambda s=s, take=TAKE[metric]: take(bench, s, tsc_khz) for s in subjects})
