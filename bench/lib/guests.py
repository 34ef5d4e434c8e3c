# SPDX-License-Identifier: Apache-2.0
"""Starting guests, with kelvin and with QEMU: to their end, or until somebody is done with them."""
import contextlib
import json
import socket

from lib.lab import QEMU, RAM_MIB, Failure

ECHO_PORT = 1024
DEBUG_EXIT_OK = 1  # how QEMU ends when a guest writes 0 to the debug exit port
CARD_MAC = "02:4b:56:00:00:01"  # as in frame.c

QEMU_MICROVM = [
    QEMU, "-M", "microvm,pic=off,pit=off,rtc=off,isa-serial=on,acpi=off", "-accel", "kvm",
    "-cpu", "host,-arch-capabilities", "-m", str(RAM_MIB), "-nodefaults", "-no-user-config",
    "-display", "none", "-no-reboot", "-serial", "stdio"]
QEMU_MODERN = ["-device", "isa-debug-exit,iobase=0xf4",
               "-global", "virtio-mmio.force-legacy=false"]


def kelvin_ready(lab, verb, what, name, options=()):
    """A foreground kelvin from its start until it says on stdout that the guest is ready."""
    cmd = [lab.kelvin_bin, verb, "--id", lab.new_id(name), "--json", *options]
    if verb == "run":
        cmd += ["--memory", f"{RAM_MIB}M"]
    try:
        return lab.spawn('stdout="ready"', cmd + [what])["ns"]
    finally:
        lab.end_vms()


def detached(lab, name, *words, options=()):
    """Boots a guest in the background, waits until it is ready, and returns the VM's id."""
    vm = lab.new_id(name[0])
    lab.kelvin("run", "--id", vm, "--memory", f"{RAM_MIB}M", "--detach", "--wait-ready", *options,
               lab.guest(name), *(["--", *words] if words else []))
    return vm


def ask(sock_path):
    """One line to the echo guest; its reply, without the newline."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(10)
        try:
            s.connect(sock_path)
            f = s.makefile("rwb")
            for line, what in ((f"CONNECT {ECHO_PORT}\n", "CONNECT"), ("ping\n", "a line")):
                f.write(line.encode())
                f.flush()
                reply = f.readline().decode("ascii", "replace")
                if not reply.endswith("\n"):
                    raise Failure(f"no answer to {what} on {sock_path}")
        except OSError as e:
            raise Failure(f"{sock_path}: {e.strerror or e}") from e
    return reply.rstrip("\n")


# ---- guests that do their work, report it in a line of JSON, and power off ----

def kelvin_command(lab, name, words, options):
    return [lab.kelvin_bin, "run", "--id", lab.new_id(name[0]), "--memory", f"{RAM_MIB}M",
            "--console", *options, lab.guest(name), "--", *words]


def qemu_command(lab, name, words, options):
    return [*QEMU_MICROVM, *QEMU_MODERN, *options, "-kernel", lab.guest(name),
            "-append", " ".join(words)]


def looking(subject):
    """The word that keeps a guest from sleeping."""
    return [] if subject == "kelvin-sleep" else ["poll"]


def report(subject, lab, name, words, options, timeout=30):
    """Runs a guest on @subject to its end; what it said at the end."""
    if subject == "qemu":
        cmd, good = qemu_command(lab, name, words, options), DEBUG_EXIT_OK
    else:
        cmd, good = kelvin_command(lab, name, words, options), 0
    try:
        out = lab.spawn("exit", cmd, timeout=timeout, good=good)["out"]
    finally:
        if subject != "qemu":
            lab.end_vms()
    for line in reversed(out.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    raise Failure(f"{subject}: the {name} guest reported nothing")


@contextlib.contextmanager
def resident(subject, lab, name, words, options):
    """A guest that stays in the background until the end of the block."""
    command = qemu_command if subject == "qemu" else kelvin_command
    try:
        with lab.background(*command(lab, name, words, options)) as process:
            yield process
    finally:
        if subject != "qemu":
            lab.end_vms()
