# SPDX-License-Identifier: Apache-2.0
"""What every benchmark is given: the lab, the rounds, where samples go, and what is missing."""
import os
import random
import re
import shutil
import sys

from lib.lab import FIO, QEMU, Failure

DROP_AFTER = 3  # failures of one subject in a row before it is left out
RUN_S = 0.3     # how long a run of many operations is to take


class Bench:
    """Takes samples in rounds; knows which subjects there are."""

    def __init__(self, lab, results, peers, rounds):
        self.lab = lab
        self.results = results
        self.peers = peers
        self.metrics = []  # of the benchmark at hand: those to measure
        self.rounds = rounds
        # Runs of many operations are long, and medians of medians: a tenth will do.
        self.long_rounds = max(1, rounds // 10)
        self.troubles = 0
        self.said = set()
        self.counts = {}
        self.usable = self.find_subjects()

    def say(self, text):
        """One line, once."""
        if text not in self.said:
            self.said.add(text)
            self.progress("")
            print(f"bench: {text}", file=sys.stderr, flush=True)

    def trouble(self, text):
        self.troubles += 1
        self.say(text)

    def find_subjects(self):
        usable = {"floor"}
        if os.access(self.lab.kelvin_bin, os.X_OK):
            usable.add("kelvin")
        else:
            self.trouble(f"{self.lab.kelvin_bin} is missing: kelvin is left out")
        for program in (QEMU, FIO):
            if program == QEMU and "qemu" not in self.peers:
                continue
            if shutil.which(program):
                usable.add("qemu" if program == QEMU else program)
            else:
                self.say(f"{program} is not installed: it is left out")
        return usable

    def can(self, subject, guest=None):
        """Whether @subject can be measured with @guest; says once if its file is missing."""
        if subject not in self.usable:
            return False
        path = guest and self.lab.guest(guest)
        if path and not os.path.exists(path):
            self.trouble(f"{path} is missing: {subject} with it is left out")
            return False
        return True

    def kelvin_has(self, option):
        """Whether this kelvin knows an option of run; says once if it does not."""
        if "kelvin" not in self.usable:
            return False
        out = self.lab.kelvin("run", "--help")["out"]
        if re.search(rf"^  {option}\b", out, re.M):
            return True
        self.say(f"this kelvin has no {option}: it is left out of what needs one")
        return False

    def add(self, *args):
        self.results.add(*args)

    def attempt(self, what, function, *args):
        """Calls and returns; None, and one line, if it cannot be done."""
        try:
            return function(*args)
        except Failure as e:
            self.trouble(f"{what}: {e}")
            return None

    def interleave(self, label, rounds, subjects):
        """@subjects: {name: function that takes one sample and files it}."""
        failed = dict.fromkeys(subjects, 0)
        for i in range(rounds):
            self.progress(f"{label} {i + 1}/{rounds}")
            for name in random.sample(list(subjects), len(subjects)):
                if failed[name] == DROP_AFTER:
                    continue
                try:
                    subjects[name]()
                    failed[name] = 0
                except Failure as e:
                    failed[name] += 1
                    end = ", left out from here on" if failed[name] == DROP_AFTER else ""
                    self.trouble(f"{label}: {name}: {e}{end}")
        self.progress("")

    def sized(self, key, run, first, most=1 << 40):
        """
        Calls @run(count), which returns how many seconds it took, first and last of a result, with
        a count that makes it take RUN_S; the result. The first call for @key finds the count.
        """
        if key not in self.counts:
            seconds = run(first)[0]
            self.counts[key] = max(first, min(most, int(first * RUN_S / max(seconds, 1e-6))))
        return run(self.counts[key])

    def tsc_khz(self):
        """How fast the counter ticks that guests count by."""
        return self.lab.ask_tool("tsc")

    @staticmethod
    def progress(text):
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
