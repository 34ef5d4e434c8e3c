# SPDX-License-Identifier: Apache-2.0
"""Builds the fuzz targets with clang and libFuzzer, and runs each for a while.

A target begins with its committed corpus (tests/fuzz/corpus/NAME) and keeps what it finds in
build-fuzz/corpus/NAME, so a next run goes on where this one ended. An input that fails is kept in
build-fuzz/crashes; once the bug is fixed, commit it to the corpus: every build replays that. CI
uses build-ci-fuzz, and the same random numbers each time.
"""
import base64
import concurrent.futures
import glob
import gzip
import json
import os
import re
import shutil
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = 'build-fuzz'
CORPUS = 'tests/fuzz/corpus'
INPUT_MAX = 1024  # bytes: 64 steps
MALLOC_MIB = {'bzimage': 256}  # in one call; others: 4. Dictionaries and windows may be large
# Edges of the product's code only; of the targets' own code: none, see tests/fuzz/meson.build.
SETUP = ['-Db_sanitize=address,undefined', '-Db_lundef=false',
         '-Dc_args=-fsanitize-coverage=inline-8bit-counters,pc-table -w']


def targets():
    return sorted(os.listdir(os.path.join(ROOT, CORPUS)))


def installed():
    """Whether there is a clang that can link libFuzzer."""
    try:
        return subprocess.run(
            ['clang', '-fsanitize=fuzzer', '-xc', '-', '-o', '/dev/null'], capture_output=True,
            input=b'int LLVMFuzzerTestOneInput(const char *p, unsigned long n) { return 0; }',
        ).returncode == 0
    except OSError:
        return False


def build(directory, setup, fresh, compiler):
    """Returns what went wrong, or nothing."""
    path = os.path.join(ROOT, directory)
    if fresh and os.path.isdir(path):
        shutil.rmtree(path)
    steps = [['ninja', '-C', directory, 'fuzz']]
    if not os.path.isfile(os.path.join(path, 'build.ninja')):
        steps.insert(0, ['meson', 'setup', directory] + setup)
    for cmd in steps:
        done = subprocess.run(cmd, cwd=ROOT, env=dict(os.environ, CC=compiler), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            return f'{" ".join(cmd)} failed\n{done.stdout[-4000:]}'
    return ''


def program(directory, name):
    return f'{directory}/tests/fuzz/fuzz_{name}'


def explain(directory, name, output, crashes):
    """The bug, the input that shows it, and how to see it again."""
    said = re.findall(r'^kelvin: bug: .*$|^==\d+== ?ERROR: .*$|^.*runtime error: .*$', output, re.M)
    text = '\n'.join(said[:4]) or output[-3000:]
    for path in crashes:
        with open(os.path.join(ROOT, path), 'rb') as f:
            data = f.read()
        text += f'\ninput: {path}\nagain: FZ_TRACE=1 {program(directory, name)} {path}'
        text += f'\nbase64 of its gzip: {base64.b64encode(gzip.compress(data)).decode()}'
    return text


def run_one(directory, name, seconds, more):
    """Returns (verdict, detail)."""
    found, crashes = f'{directory}/corpus/{name}', f'{directory}/crashes/{name}-'
    os.makedirs(os.path.join(ROOT, found), exist_ok=True)
    os.makedirs(os.path.join(ROOT, directory, 'crashes'), exist_ok=True)
    before = set(glob.glob(os.path.join(ROOT, crashes + '*')))
    cmd = [program(directory, name), found, f'{CORPUS}/{name}', f'-max_total_time={seconds}',
           f'-max_len={INPUT_MAX}', '-timeout=100', '-rss_limit_mb=2048',
           f'-malloc_limit_mb={MALLOC_MIB.get(name, 4)}',
           '-entropic=0', '-print_final_stats=1', f'-artifact_prefix={crashes}'] + more
    env = dict(os.environ, ASAN_OPTIONS='detect_leaks=1:quarantine_size_mb=16',
               UBSAN_OPTIONS='print_stacktrace=1:halt_on_error=1')
    try:
        done = subprocess.run(cmd, cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=seconds + 300)
    except subprocess.TimeoutExpired as e:
        return 'fail', 'did not end\n' + (e.stdout or b'').decode(errors='replace')[-2000:]
    output = done.stdout.decode(errors='replace')
    runs = re.search(r'number_of_executed_units: (\d+)', output)
    edges = re.findall(r' cov: (\d+) ', output)
    if done.returncode:
        new = set(glob.glob(os.path.join(ROOT, crashes + '*'))) - before
        return 'fail', explain(directory, name, output,
                               sorted(os.path.relpath(p, ROOT) for p in new))
    return 'pass', f'{runs[1] if runs else "?"} executions, {edges[-1] if edges else "?"} edges'


def run(seconds, ci, tally):
    directory = 'build-ci-fuzz' if ci else BUILD
    if not installed():
        tally.add('fuzz', 'skip', 'clang with libFuzzer is not installed')
        return
    error = build(directory, SETUP, ci, 'clang')
    if error:
        tally.add('fuzz', 'fail', error)
        return
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {name: pool.submit(run_one, directory, name, seconds, ['-seed=1'] if ci else [])
                for name in targets()}
        for name, job in jobs.items():
            verdict, detail = job.result()
            tally.add('fuzz.' + name, verdict, detail)
            if verdict == 'pass':
                print(f'  fuzz.{name}: {detail}, {seconds} s', flush=True)


def merge():
    """Adds to the committed corpus what reaches code that it does not reach yet."""
    for name in targets():
        cmd = [program(BUILD, name), '-merge=1', '-use_counters=0', f'{CORPUS}/{name}',
               f'{BUILD}/corpus/{name}']
        subprocess.run(cmd, cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        files = glob.glob(os.path.join(ROOT, CORPUS, name, '*'))
        print(f'  {name}: {len(files)} inputs, {sum(os.path.getsize(f) for f in files)} bytes')


def coverage():
    """Prints which part of each file the committed corpus reaches, by gcc's counters."""
    directory = 'build-cov'
    error = build(directory, ['-Db_coverage=true', '-Doptimization=0'], False, 'gcc')
    if error:
        print(error)
        return
    for f in glob.glob(os.path.join(ROOT, directory, '**', '*.gcda'), recursive=True):
        os.unlink(f)
    for name in targets():
        subprocess.run([program(directory, name), f'{CORPUS}/{name}'], cwd=ROOT, check=True,
                       stdout=subprocess.DEVNULL)
    lines = {}
    for f in glob.glob(os.path.join(ROOT, directory, '**', '*.gcda'), recursive=True):
        out = subprocess.run(['gcov', '--json-format', '--stdout', f], cwd=os.path.dirname(f),
                             check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        for document in out.splitlines():
            for file in json.loads(document)['files']:
                path = os.path.relpath(os.path.join(ROOT, directory, file['file']), ROOT)
                seen = lines.setdefault(path, {})
                for line in file['lines']:
                    n = line['line_number']
                    seen[n] = seen.get(n, 0) + line['count']
    for path in sorted(lines):
        seen = lines[path]
        if path.startswith(('virtio/', 'snapshot/', 'monitor/', 'memory/')) and any(seen.values()):
            missed = [str(n) for n in sorted(seen) if not seen[n]]
            print(f'  {path}: {100 * (len(seen) - len(missed)) / len(seen):.1f} % of {len(seen)} '
                  f'lines; not {" ".join(missed[:12])}{" ..." if len(missed) > 12 else ""}')
