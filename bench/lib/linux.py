# SPDX-License-Identifier: Apache-2.0
"""bench/run linux: a stock Linux kernel, kelvin beside QEMU microvm, in virtual milliseconds.

Runs inside the lab (tests/lab), whose clock counts instructions: what is measured is work, whatever
else this machine does. Takes minutes, so it is measured only when asked for.
"""
import json
import random
import re
import shlex
import shutil

from lib.lab import QEMU, Failure
from lib.linux_lab import LinuxLab

SEPARATE = False  # whether each metric can be measured alone
MACHINE = "QEMU TCG SVM lab, -icount: virtual time, 1 ns an instruction"
MEMORY_MIB = 256
METRICS = [
    ("boot-bzimage", "ms", "kelvin qemu",
     "process start to the first act of /init, given the bzImage (kelvin: its cache is warm)"),
    ("boot-vmlinux", "ms", "kelvin qemu", "the same, given the unpacked ELF file"),
    ("boot-no-cache", "ms", "kelvin", "given the bzImage, which kelvin unpacks"),
    ("restore", "ms", "kelvin qemu",
     f"process start to an answer on the console, from a snapshot of {MEMORY_MIB} MiB"),
    ("boot-exec", "ms", "kelvin",
     "start of `kelvin run --detach --wait-ready` to what a first `kelvin exec` prints; the agent "
     "is init, given the bzImage"),
    ("restore-exec", "ms", "kelvin", "the same from `kelvin restore --detach`"),
    ("own", "ms", "kelvin",
     "our part of boot-bzimage: processor time of kelvin's threads, and of the vCPU's thread the "
     "time from each exit to user space to the next entry"),
    ("own-share", "%", "kelvin", "the same as a share of boot-bzimage in the same round"),
]
SAMPLES_S = 90  # of real time, for a sample at most

# noxsave: QEMU's emulated SVM lets XSETBV past KVM, so that CPUID's XSAVE sizes stay as at reset.
WORDS = "quiet panic=-1 reboot=t cryptomgr.notests 8250.nr_uarts=1 noxsave"
INITRD = "/lab/bench.cpio"
UP, REPLY = "R", "A"  # linux/init.c

HEAD = ". /lab/lab.sh\n"


def kelvin_run(kernel, *options):
    return ["kelvin", "run", "--console", "--memory", f"{MEMORY_MIB}M", "--initrd", INITRD,
            *options, kernel, "--", *WORDS.split()]


def qemu(*options):
    return ["qemu", "-L", "/usr/share/qemu", "-M", "microvm,pit=off,pic=on,rtc=on,isa-serial=on",
            "-accel", "kvm", "-cpu", "host", "-m", str(MEMORY_MIB), "-nodefaults",
            "-no-user-config", "-display", "none", "-no-reboot", "-device", "virtio-rng-device",
            "-global", "virtio-mmio.force-legacy=false", *options]


def qemu_run(kernel):
    return qemu("-serial", "stdio", "-kernel", kernel, "-initrd", INITRD, "-append", WORDS)


SUBJECTS = {
    ("boot-bzimage", "kelvin"): (UP, kelvin_run("/lab/vmlinuz")),
    ("boot-vmlinux", "kelvin"): (UP, kelvin_run("/lab/vmlinux")),
    ("boot-no-cache", "kelvin"): (UP, kelvin_run("/lab/vmlinuz", "--kernel-cache", "off")),
    ("boot-bzimage", "qemu"): (UP, qemu_run("/lab/vmlinuz")),
    ("boot-vmlinux", "qemu"): (UP, qemu_run("/lab/vmlinux")),
    ("restore", "kelvin"): (REPLY, ["kelvin", "restore", "/bench/kelvin.snap"]),
    ("restore", "qemu"): (REPLY, qemu("-serial", "stdio", "-incoming",
                                      "exec:cat /bench/qemu.snap")),
}

# Linux with the agent as its init, and a first command in it.
AGENT_RUN = ["kelvin", "run", "--detach", "--wait-ready=40s", "--memory", f"{MEMORY_MIB}M",
             "--initrd", "/lab/agent.cpio"]
AGENT_WORDS = ["/lab/vmlinuz", "--", *WORDS.split()]
EXEC = {
    ("boot-exec", "kelvin"): [*AGENT_RUN, "--id", "x", *AGENT_WORDS],
    ("restore-exec", "kelvin"): ["kelvin", "restore", "--detach", "--id", "x", "/bench/exec.snap"],
}
for key, start in EXEC.items():
    SUBJECTS[key] = (REPLY, ["sh", "-c", f"{shlex.join(start)} >/dev/null && "
                             f"exec kelvin exec x -- busybox echo {REPLY}"])
OWN_KEY = ("own", "kelvin")
SUBJECTS[OWN_KEY] = SUBJECTS["boot-bzimage", "kelvin"]

# A kernel file is remembered once it has not changed for 2 s; in a new lab nothing has.
PREPARE_KELVIN = f"""
sleep 3
take warm stdout={UP} -- {shlex.join(kelvin_run("/lab/vmlinuz"))}
{shlex.join(kelvin_run("/lab/vmlinuz", "--detach", "--id", "b"))} 2>err
until_has /run/kelvin/b/console {UP}
sleep 1
kelvin snapshot b kelvin.snap --stop 2>err || echo "trouble snapshot: $(cat err)"
"""
PREPARE_EXEC = f"""
{shlex.join([*AGENT_RUN, "--id", "e", *AGENT_WORDS])} >/dev/null 2>err
kelvin exec e -- busybox true 2>err || echo "trouble exec: $(cat err)"
kelvin snapshot e exec.snap --stop 2>err || echo "trouble snapshot: $(cat err)"
rm -rf /run/kelvin/*
"""
PREPARE_QEMU = f"""
mkfifo monitor
exec 4<>monitor
{shlex.join(qemu("-kernel", "/lab/vmlinuz", "-initrd", INITRD, "-append", WORDS,
                 "-serial", "file:qemu.out", "-monitor", "stdio"))} <&4 >qemu.log 2>err &
until_has qemu.out {UP}
sleep 1
echo 'migrate "exec:cat >qemu.snap"' >&4
echo 'info migrate' >&4
until_has qemu.log 'Migration status: completed'
echo quit >&4
wait $!
"""


def take(key):
    text, command = SUBJECTS[key]
    if key == OWN_KEY:
        return f"own {shlex.join(command)}\n"
    return f"take {'/'.join(key)} stdout={text} -- {shlex.join(command)}\n"


class Rounds:
    """What the lab says, filed."""

    def __init__(self, bench):
        self.bench = bench
        self.done = 0
        self.own = self.whole = None  # ns, of this round

    def line(self, text):
        text = text.removeprefix("| ")  # of a script
        sample = re.match(r"sample (\S+)/(\S+) (\{.*)", text)
        own = re.match(r"own (\d+) threads (\d+) exits (\d+)", text)
        if text.startswith("trouble "):
            self.bench.trouble("linux: " + text[8:])
        elif sample:
            ns = json.loads(sample[3], strict=False)["ns"]
            self.bench.add("linux", sample[1], sample[2], ns)
            if (sample[1], sample[2]) == ("boot-bzimage", "kelvin"):
                self.whole = ns
        elif own:
            self.own = int(own[1])
            self.bench.add("linux", "own", "kelvin", self.own)
        elif text.startswith("@lab end"):
            self.done += 1
            self.bench.progress(f"linux {self.done}")
            if self.own and self.whole:
                self.bench.add("linux", "own-share", "kelvin", 100 * self.own / self.whole)
            self.own = self.whole = None


def run(bench):
    lab = LinuxLab(bench.lab, shutil.which(QEMU) if bench.can("qemu") else None)
    subjects = [k for k in SUBJECTS if k[1] == "kelvin" or bench.can("qemu")]
    prepare = HEAD + PREPARE_KELVIN
    if lab.has_agent:
        prepare += PREPARE_EXEC
    else:
        subjects = [k for k in subjects if k not in EXEC]
    if bench.can("qemu"):
        prepare += PREPARE_QEMU
    scripts = {"prepare": prepare}
    for i in range(bench.long_rounds):
        scripts[f"round{i}"] = HEAD + "".join(
            take(k) for k in random.sample(subjects, len(subjects)))
    try:
        lab.run(scripts, 120 + SAMPLES_S * (bench.long_rounds * len(subjects) + 4),
                Rounds(bench).line)
    except Failure as e:
        bench.trouble(f"linux: {e}")
