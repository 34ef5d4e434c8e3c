# SPDX-License-Identifier: Apache-2.0
"""The machine of bench/run linux: tests/lab with QEMU in it, on a clock that counts instructions.

The lab's own initial RAM disk, and a second one behind it with what is measured and the scripts to
run; Linux unpacks both. A script is a check of the lab: its init runs it and tells when it ended.
"""
import importlib.util
import os
import re
import signal
import stat
import subprocess
import threading

from lib.lab import QEMU, Failure

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ROMS = ("bios-microvm.bin", "qboot.rom", "linuxboot_dma.bin", "pvh.bin")
# One processor, and a nanosecond for each instruction.
ICOUNT = ["-icount", "shift=0,sleep=off", "-accel", "tcg,thread=single", "-smp", "1"]


def load_image():
    """tests/lab/image.py: it is no part of a package."""
    spec = importlib.util.spec_from_file_location("image", os.path.join(ROOT, "tests/lab/image.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def qemu_files(path):
    """{place in the lab: file here} of QEMU, its libraries and its firmware."""
    ldd = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
    files = {lib: lib for lib in re.findall(r"(/\S+) \(0x", ldd)}
    files["/bin/qemu"] = path
    for rom in ROMS:
        files[f"/usr/share/qemu/{rom}"] = f"/usr/share/qemu/{rom}"
    return files


def guest_ramdisk(image, init, dest):
    c = image.Cpio()
    c.directory("dev")
    c.entry("dev/console", stat.S_IFCHR | 0o600, rdev=(5, 1))
    c.entry("dev/ttyS0", stat.S_IFCHR | 0o600, rdev=(4, 64))
    c.copy("init", init)
    c.write(dest)


class LinuxLab:
    """Boots the lab once; the scripts' lines are handed on as they come."""

    def __init__(self, lab, qemu):
        self.image = image = load_image()
        self.place = os.path.join(lab.build, "lab")
        try:
            self.kernel, base = image.build(lab.build, [])
        except image.Unavailable as e:
            raise Failure(f"the lab cannot be built: {e}") from e
        self.base = base
        self.has_agent = os.path.exists(os.path.join(self.place, "agent.cpio"))
        self.files = {"/lab/vmlinuz": self.kernel, "/lab/spawn": lab.tool("spawn")}
        for name in ("lab.sh", "own.awk"):
            self.files[f"/lab/{name}"] = os.path.join(ROOT, "bench/linux", name)
        inner = os.path.join(self.place, "bench-guest.cpio")
        guest_ramdisk(image, lab.tool("linux-init"), inner)
        self.files["/lab/bench.cpio"] = inner
        if qemu:
            self.files.update(qemu_files(qemu))

    def ramdisk(self, scripts):
        c = self.image.Cpio()
        for place, path in self.files.items():
            c.copy(place[1:], path)
        for name, text in scripts.items():
            c.add(f"lab/checks/{name}", text.encode())
        extra = os.path.join(self.place, "bench.cpio")
        c.write(extra)
        both = os.path.join(self.place, "bench-both.cpio")
        with open(both + ".new", "wb") as out:
            for path in (self.base, extra):
                with open(path, "rb") as f:
                    out.write(f.read())
        os.rename(both + ".new", both)
        os.unlink(extra)
        return both

    def command(self, initrd, names):
        return ["nice", "-n", "19", QEMU, "-M", "q35", *ICOUNT, "-cpu", "max", "-m", "3072",
                "-kernel", self.kernel, "-initrd", initrd, "-append",
                "console=ttyS0 reboot=t panic=-1 mitigations=off quiet lab=" + ",".join(names),
                "-nodefaults", "-no-user-config", "-nographic", "-serial", "stdio", "-no-reboot"]

    def run(self, scripts, limit_s, on_line):
        """Runs {name: script} in that order. Failure, unless it came to its end in time."""
        cmd = self.command(self.ramdisk(scripts), list(scripts))
        tail = []
        with subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, start_new_session=True) as qemu:
            def end():
                os.killpg(qemu.pid, signal.SIGKILL)

            timer = threading.Timer(limit_s, end)
            timer.start()
            try:
                for raw in qemu.stdout:
                    line = raw.decode(errors="replace").rstrip("\r\n")
                    tail = tail[-8:] + [line]
                    on_line(line)
                qemu.wait()
            finally:
                timer.cancel()
                if qemu.poll() is None:
                    end()
        if not any(line.startswith("@lab done") for line in tail):
            raise Failure("the lab did not come to its end: " + " / ".join(tail[-3:]))
