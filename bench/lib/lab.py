# SPDX-License-Identifier: Apache-2.0
"""Where the binaries are, a private place for VMs and files, starting things, and cleaning up."""
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

RAM = 128 << 20
RAM_MIB = RAM >> 20
GUESTS = ("first", "hello", "echo", "fill", "blk", "net", "vsock")
QEMU = "qemu-system-x86_64"
FIO = "fio"


class Failure(Exception):
    """Something that cannot be measured: one line says why."""


def machine():
    """One line: processor, cores, kernel, and which KVM this is."""
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    if os.path.isdir("/sys/module/kvm_pvm"):
        kvm = "KVM by PVM"
    elif os.path.isdir("/sys/module/kvm_amd"):
        kvm = "KVM by AMD SVM"
    elif os.path.isdir("/sys/module/kvm_intel"):
        kvm = "KVM by Intel VMX"
    else:
        kvm = "KVM unknown"
    return f"{model}, {os.cpu_count()} cores, Linux {os.uname().release}, {kvm}"


class Lab:
    """Where the binaries are, a private place for VMs and files, and the cleaning up."""

    def __init__(self, build):
        self.build = build
        self.spawn_bin = self.tool("spawn")
        self.floor_bin = self.tool("floor")
        self.kelvin_bin = os.path.join(build, "monitor", "kelvin")
        # VMs live where kelvin would put them: on a tmpfs, which is what /run is wherever an init
        # system set it up. Data needs a real disk.
        self.ram_dir = tempfile.mkdtemp(prefix="kb-", dir="/dev/shm")
        self.run_dir = self.ram("run")
        os.mkdir(self.run_dir, 0o700)
        self.data_dir = tempfile.mkdtemp(prefix="kelvin-bench-", dir="/var/tmp")
        self.env = dict(os.environ, KELVIN_RUN_DIR=self.run_dir)
        self.serial = 0

    def tool(self, name):
        return os.path.join(self.build, "bench", name)

    def guest(self, name):
        return os.path.join(self.build, "guests", f"{name}.elf")

    def data(self, name):
        return os.path.join(self.data_dir, name)

    def ram(self, name):
        return os.path.join(self.ram_dir, name)

    def sock(self, vm):
        return os.path.join(self.run_dir, vm, "vsock.sock")

    def new_id(self, stem):
        self.serial += 1
        return f"{stem}{self.serial}"

    def spawn(self, marker, cmd, leave=False, timeout=10, good=0):
        """One sample; spawn's JSON object. Failure if the marker never came, or, where the end
        is the marker, if the exit status is not @good."""
        args = [self.spawn_bin, "--timeout", str(timeout)] + (["--leave"] if leave else [])
        with subprocess.Popen(args + [marker, "--"] + cmd, env=self.env, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as p:
            try:
                out, err = p.communicate()
            except BaseException:
                p.terminate()  # spawn ends what it started
                raise
        if p.returncode != 0:
            lines = [line for line in err.strip().splitlines() if line] or ["no reason given"]
            raise Failure("; ".join(lines[-2:]))
        result = json.loads(out, strict=False)
        if marker == "exit" and result["exit"] != good:
            lines = err.strip().splitlines() or result["out"].strip().splitlines() or \
                [f"exit {result['exit']}"]
            raise Failure(f"{os.path.basename(cmd[0])}: {lines[-1]}")
        return result

    def kelvin(self, *args, timeout=20):
        """A kelvin command that must succeed; spawn's JSON object (ns is its wall time)."""
        return self.spawn("exit", [self.kelvin_bin, *args], timeout=timeout)

    def ask_tool(self, name, *args, timeout=30):
        """One of our own programs, run to its end; what it says, as JSON."""
        return json.loads(self.spawn("exit", [self.tool(name), *args], timeout=timeout)["out"])

    @contextlib.contextmanager
    def background(self, *cmd):
        """Runs beside what is measured, and is ended afterwards. Its failure is a Failure."""
        with subprocess.Popen(cmd, env=self.env, stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as p:
            why = None
            try:
                yield p
            except Failure as e:
                why = e
            finally:
                ended = p.poll() is not None
                p.kill()
            if ended:  # by itself: that is then the reason of all else
                lines = p.stderr.read().strip().splitlines() or [f"exit {p.returncode}"]
                raise Failure(f"{os.path.basename(cmd[0])}: {lines[-1]}")
            if why:
                raise why

    def vms(self):
        """{id: pid} of the VMs under our run directory that are alive."""
        found = {}
        for name in os.listdir(self.run_dir):
            try:
                with open(os.path.join(self.run_dir, name, "pid"), encoding="ascii") as f:
                    pid = int(f.read().strip() or 0)
                # A pid is only ours to kill while it still is what wrote the file.
                if pid and os.path.samefile(f"/proc/{pid}/exe", self.kelvin_bin):
                    found[name] = pid
            except (OSError, ValueError):
                continue
        return found

    def end_vms(self):
        """Kills every VM of ours and waits until they are gone."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            left = self.vms()
            if not left:
                break
            for pid in left.values():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.02)
        for name in os.listdir(self.run_dir):
            shutil.rmtree(os.path.join(self.run_dir, name), ignore_errors=True)

    def close(self):
        self.end_vms()
        shutil.rmtree(self.ram_dir, ignore_errors=True)
        shutil.rmtree(self.data_dir, ignore_errors=True)
