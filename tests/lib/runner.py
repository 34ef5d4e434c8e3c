# SPDX-License-Identifier: Apache-2.0
"""Builds kelvin and runs its tests; tests/run is the way in.

C test programs speak TAP (cmocka's), so every case counts, not every program. A program that
exits with 77 is skipped; one that dies without a verdict is a failure.
"""
import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import fuzz

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
C_SUITES = ['unit', 'hostile', 'fault', 'kvm']
SUITES = C_SUITES + ['race', 'e2e', 'soak', 'lab', 'fuzz', 'lint']
# What runs under the thread sanitizer: tests with two threads, one of them playing vCPU.
RACE_TESTS = ['queue_race', 'mmio_life', 'ring', 'vsock_flow', 'blk_flow', 'net_flow']
FUZZ_SECONDS = 60       # for each target, where fuzz was asked for
FUZZ_SECONDS_SHORT = 5  # among all the others
FUZZ_SECONDS_LONG = 3600  # at most, where --execs says how much
SOAK_MINUTES = 5        # where soak was asked for
SOAK_MINUTES_SHORT = 20 / 60
NOT_UNDER_TSAN = ['seccomp']
NIGHTLY = {'fuzz': 600, 'soak': 30}  # seconds of each target, minutes
SILENCE_S = 300         # of a Python suite


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []

    def add(self, name, verdict, detail=''):
        if verdict == 'pass':
            self.passed += 1
        elif verdict == 'skip':
            self.skipped += 1
            print(f'  skip  {name}  {detail}'.rstrip())
        else:
            self.failed += 1
            self.failures.append(name)
            print(f'  FAIL  {name}')
            if detail:
                print('        ' + detail.strip().replace('\n', '\n        '))


def build(directory, args, fresh, targets=()):
    path = os.path.join(ROOT, directory)
    if fresh and os.path.isdir(path):
        shutil.rmtree(path)
    if not os.path.isfile(os.path.join(path, 'build.ninja')):
        run_or_die(['meson', 'setup', directory] + args)
    run_or_die(['ninja', '-C', directory, '--quiet', *targets])


def run_or_die(cmd):
    done = subprocess.run(cmd, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.stdout.write(done.stdout.decode(errors='replace'))
        print(f'tests/run: {" ".join(cmd)} failed')
        print('0 passed, 1 failed, 0 skipped')
        sys.exit(1)


def tap(output, name, code, tally, label):
    cases = re.findall(r'^(not ok|ok) \d+ - (\S+)([^\n]*)', output, re.M)
    bad = False
    for verdict, case, rest in cases:
        full = f'{label}{name}.{case}'
        if '# SKIP' in rest.upper():
            tally.add(full, 'skip', rest.strip())
        elif verdict == 'ok':
            tally.add(full, 'pass')
        else:
            bad = True
            at = output.find(f'not ok')
            tally.add(full, 'fail', output[at:at + 1500])
    if code == 77 and not cases:
        tally.add(label + name, 'skip', output.strip().splitlines()[-1] if output.strip() else '')
    elif (code != 0 and not bad) or not cases:
        tally.add(label + name, 'fail', f'exit status {code}\n' + output[-3000:])


def race_tests(args, fresh, tally, only):
    """The tests of these names, or all of them, under the thread sanitizer. Returns the build."""
    directory = 'build-ci-tsan' if fresh else 'build-tsan'
    # Fences between us and a guest mean nothing to it, which the compiler warns of.
    build(directory, args + ['-Db_sanitize=thread', '-Db_lundef=false', '-Dc_args=-Wno-tsan'], fresh,
          [f'tests/unit/test_{name}' for name in only or ()])
    c_tests(directory, C_SUITES, tally, 'tsan.', only=only)
    return directory


def c_tests(directory, suites, tally, label, only=None):
    listing = subprocess.run(['meson', 'introspect', '--tests', directory], cwd=ROOT, check=True,
                             stdout=subprocess.PIPE).stdout
    env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT='TAP', TSAN_OPTIONS='halt_on_error=0:exitcode=66',
               ASAN_OPTIONS='detect_leaks=1:abort_on_error=0',
               UBSAN_OPTIONS='print_stacktrace=1:halt_on_error=1')
    for t in json.loads(listing):
        suite = t['suite'][0].split(':')[-1]
        if suite not in suites or (only and t['name'] not in only):
            continue
        if label == 'tsan.' and t['name'] in NOT_UNDER_TSAN:
            tally.add(label + t['name'], 'skip', 'the sanitizer makes calls of its own')
            continue
        begin = time.monotonic()
        try:
            done = subprocess.run(t['cmd'], cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=180)
            output, code = done.stdout.decode(errors='replace'), done.returncode
        except subprocess.TimeoutExpired as e:
            output, code = (e.stdout or b'').decode(errors='replace') + '\ntimed out', -1
        before = tally.passed
        tap(output, t['name'], code, tally, label)
        print(f'  {label}{t["name"]}: {tally.passed - before} passed, '
              f'{time.monotonic() - begin:.1f} s', flush=True)


def script(cmd, tally, label, env=None):
    """A Python suite that prints TAP. One that is silent for SILENCE_S is killed, with all it
    started: what a test hangs on must not be the end of the whole run."""
    proc = subprocess.Popen(cmd, cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            start_new_session=True)
    output = ''
    heard = time.monotonic()

    def watch():
        while proc.poll() is None:
            if time.monotonic() - heard > SILENCE_S:
                os.killpg(proc.pid, signal.SIGKILL)
                tally.add(f'{label}.silence', 'fail', f'nothing heard for {SILENCE_S} s\n' +
                          output[-1000:])
                return
            time.sleep(1)

    threading.Thread(target=watch, daemon=True).start()
    for line in proc.stdout:
        heard = time.monotonic()
        output += line
        m = re.match(r'(not ok|ok) \d+ - (\S+)(.*)', line)
        if not m:
            continue
        if '# SKIP' in m[3].upper():
            tally.add(f'{label}.{m[2]}', 'skip', m[3].strip())
        else:
            tally.add(f'{label}.{m[2]}', 'pass' if m[1] == 'ok' else 'fail',
                      '' if m[1] == 'ok' else m[3])
    code = proc.wait()
    if code == 77:
        tally.add(label, 'skip', output.strip().splitlines()[-1] if output.strip() else '')
    elif code and 'not ok' not in output:
        tally.add(label, 'fail', f'exit status {code}\n' + output[-3000:])
    elif code:
        print(output[-6000:])


def arguments():
    ap = argparse.ArgumentParser(prog='tests/run')
    ap.add_argument('--ci', action='store_true', help='fresh builds, warnings are errors')
    ap.add_argument('--seconds', type=int, metavar='N', help='of each fuzz target')
    ap.add_argument('--execs', type=int, metavar='N', help='inputs of each fuzz target')
    ap.add_argument('--minutes', type=float, metavar='N', help='of the soak')
    ap.add_argument('--merge', action='store_true',
                    help='only: add to the committed corpus what fuzzing found')
    ap.add_argument('--coverage', action='store_true',
                    help='only: print how much of each file the corpus reaches')
    ap.add_argument('suites', nargs='*', metavar='SUITE', help=', '.join(SUITES + ['nightly']))
    args = ap.parse_args()
    unknown = [s for s in args.suites if s not in SUITES + ['nightly']]
    if unknown:
        ap.error(f'no suite "{unknown[0]}": {", ".join(SUITES)}, nightly')
    args.nightly = 'nightly' in args.suites
    named = bool(args.suites)
    if args.nightly:
        args.suites = SUITES
        args.seconds = args.seconds or NIGHTLY['fuzz']
        args.minutes = args.minutes or NIGHTLY['soak']
    args.suites = args.suites or SUITES
    if not args.seconds:
        args.seconds = FUZZ_SECONDS_LONG if args.execs else \
            FUZZ_SECONDS if named else FUZZ_SECONDS_SHORT
    args.minutes = args.minutes or (SOAK_MINUTES if named else SOAK_MINUTES_SHORT)
    args.with_coverage = named
    return args


def e2e_tests(suites, builds, minutes, tally):
    """@builds: directories by label."""
    for label, directory in builds.items():
        # A process that ends with its VM leaves the vCPU threads where they are. A fault's handler
        # says what happened, and comes back to nobody.
        env = dict(os.environ, KELVIN_BUILD=os.path.join(ROOT, directory),
                   TSAN_OPTIONS='report_thread_leaks=0:report_signal_unsafe=0:halt_on_error=0:'
                                'exitcode=66')
        if 'e2e' in suites:
            script([sys.executable, 'tests/e2e/all.py'], tally, label + 'e2e', env)
        if 'soak' in suites:
            script([sys.executable, 'tests/e2e/soak.py', '--minutes', str(minutes)], tally,
                   label + 'soak', env)


def lab_tests(release, slow_too, tally):
    if os.geteuid() == 0:  # else the lab says what is missing
        subprocess.run(['tests/lib/install', 'lab'], cwd=ROOT, stdin=subprocess.DEVNULL)
    script([sys.executable, 'tests/lab/run'] + ['--all'] * slow_too, tally, 'lab',
           dict(os.environ, KELVIN_BUILD=os.path.join(ROOT, release)))


def main():
    args = arguments()
    if args.merge or args.coverage:
        if args.merge:
            fuzz.merge()
        if args.coverage:
            fuzz.coverage()
        return
    suites = args.suites
    tally = Tally()
    werror = ['--werror'] if args.ci else []
    release, sanitized = ('build-ci', 'build-ci-asan') if args.ci else ('build', 'build-asan')
    begin = time.monotonic()

    build(release, werror, args.ci)
    print(f'built {release}, {time.monotonic() - begin:.0f} s', flush=True)
    build(sanitized, werror + ['-Db_sanitize=address,undefined', '-Db_lundef=false'], args.ci)
    print(f'built {sanitized}, {time.monotonic() - begin:.0f} s', flush=True)
    if 'lint' in suites:
        script([sys.executable, 'tests/lib/lint.py'], tally, 'lint')
    c = [s for s in suites if s in C_SUITES + ['fuzz']]
    if c:
        c_tests(release, c, tally, '')
        c_tests(sanitized, c, tally, 'asan.')
    builds = {'': release, 'asan.': sanitized}
    if 'race' in suites:
        tsan = race_tests(werror, args.ci, tally, None if args.nightly else RACE_TESTS)
        if args.nightly:
            builds['tsan.'] = tsan
    e2e_tests(suites, builds, args.minutes, tally)
    if 'lab' in suites:
        lab_tests(release, args.nightly, tally)
    if 'fuzz' in suites:
        fuzz.run(args.seconds, args.execs, args.ci, tally, args.with_coverage)
    for name in tally.failures:
        print(f'failed: {name}')
    print(f'{time.monotonic() - begin:.0f} s')
    print(f'{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped')
    sys.exit(1 if tally.failed or not tally.passed else 0)


main()
