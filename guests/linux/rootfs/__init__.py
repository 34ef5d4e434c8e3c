# SPDX-License-Identifier: Apache-2.0
"""What Linux guests boot from, made without being root: packages, kernel modules, RAM disks.

debian.py fetches packages, cpio.py writes initial RAM disks, tools.py runs programs.
"""


class Failure(Exception):
    """Something the operator can mend: one line says what, on what, why."""


class Unavailable(Failure):
    """A tool, a package or the network is missing."""
