# SPDX-License-Identifier: Apache-2.0
"""End to end: the kelvin binary, real guests, /dev/kvm. One file a subject: test_*.py.

Run one: tests/e2e/all.py NAME... (parts of names do). KELVIN_BUILD says which build.
"""
import glob
import importlib
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from vm import run_all  # noqa: E402

tests = []
for path in sorted(glob.glob(os.path.join(HERE, 'test_*.py'))):
    module = importlib.import_module(os.path.basename(path)[:-3])
    tests += [(n, f) for n, f in vars(module).items() if n.startswith('test_') and callable(f)]
    tests += getattr(module, 'more_tests', list)()  # those that are not functions of their own
sys.exit(run_all(tests))
