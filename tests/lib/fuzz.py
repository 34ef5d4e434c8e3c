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
import os
import re
import shutil
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = 'build-fuzz'
CORPUS = 'tests/fuzz/corpus'
INPUT_MAX = 1024  # bytes: 64 steps
COVERAGE_MIN = 90  # per cent of the lines of each folder's parsers
# What reads bytes of a guest, or of a file that strangers may have written. Not here: what makes
# and opens things on the host (rings, sockets, TAPs, images), and what writes snapshots.
PARSERS = {'virtio': r'/(blk|blk_req|limit|mmio|net|net_ctrl|net_rx|net_stream|net_tx|overlay_head'
                     r'|queue|vsock|vsock_conn|vsock_host|vsock_line|vsock_rx|vsock_tx)\.c',
           'memory': r'/memory\.c',
           'snapshot': r'/(extra|format|reader|verify)\.c'}
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
    """Returns (verdict, detail, executions)."""
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
        return 'fail', 'did not end\n' + (e.stdout or b'').decode(errors='replace')[-2000:], 0
    output = done.stdout.decode(errors='replace')
    runs = re.search(r'number_of_executed_units: (\d+)', output)
    edges = re.findall(r' cov: (\d+) ', output)
    if done.returncode:
        new = set(glob.glob(os.path.join(ROOT, crashes + '*'))) - before
        return 'fail', explain(directory, name, output,
                               sorted(os.path.relpath(p, ROOT) for p in new)), 0
    count = int(runs[1]) if runs else 0
    return 'pass', f'{count} executions, {edges[-1] if edges else "?"} edges', count


def run(seconds, execs, ci, tally, with_coverage):
    """Each target for so long, or until it has run so many inputs."""
    directory = 'build-ci-fuzz' if ci else BUILD
    if not installed():
        tally.add('fuzz', 'skip', 'clang with libFuzzer is not installed')
        return
    error = build(directory, SETUP, ci, 'clang')
    if error:
        tally.add('fuzz', 'fail', error)
        return
    more = (['-seed=1'] if ci else []) + ([f'-runs={execs}'] if execs else [])
    total = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {name: pool.submit(run_one, directory, name, seconds, more) for name in targets()}
        for name, job in jobs.items():
            verdict, detail, count = job.result()
            total += count
            tally.add('fuzz.' + name, verdict, detail)
            if verdict == 'pass':
                print(f'  fuzz.{name}: {detail}', flush=True)
    print(f'  fuzz: {total} executions in all', flush=True)
    if with_coverage:
        check_coverage(directory, tally)


def merge():
    """Adds to the committed corpus what reaches code that it does not reach yet."""
    for name in targets():
        cmd = [program(BUILD, name), '-merge=1', '-use_counters=0', f'{CORPUS}/{name}',
               f'{BUILD}/corpus/{name}']
        subprocess.run(cmd, cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        files = glob.glob(os.path.join(ROOT, CORPUS, name, '*'))
        print(f'  {name}: {len(files)} inputs, {sum(os.path.getsize(f) for f in files)} bytes')


# ---- coverage: clang's, by lines ----

def llvm_tools():
    """llvm-profdata and llvm-cov of clang's own version, or None: others do not read its data."""
    version = re.search(r'version (\d+)', subprocess.run(
        ['clang', '--version'], capture_output=True, text=True).stdout)
    for suffix in (f'-{version[1]}', '') if version else ():
        profdata, cov = shutil.which('llvm-profdata' + suffix), shutil.which('llvm-cov' + suffix)
        if profdata and cov and re.search(rf'version {version[1]}\.', subprocess.run(
                [cov, '--version'], capture_output=True, text=True).stdout):
            return profdata, cov
    return None


def measure(corpora):
    """{file: {line: how often it ran}} for each target over its directories, or what is wrong."""
    tools = llvm_tools()
    if not tools:
        return 'llvm-profdata and llvm-cov of this version of clang are not installed'
    profdata, cov = tools
    directory = 'build-fuzz-cov'
    error = build(directory, ['-Dc_args=-fprofile-instr-generate -fcoverage-mapping -w',
                              '-Dc_link_args=-fprofile-instr-generate'], False, 'clang')
    if error:
        return error
    raw = []
    for name in targets():
        raw.append(os.path.join(ROOT, directory, f'{name}.profraw'))
        dirs = [d for d in corpora(name) if os.path.isdir(os.path.join(ROOT, d))]
        subprocess.run([program(directory, name), *dirs], cwd=ROOT, check=True,
                       env=dict(os.environ, LLVM_PROFILE_FILE=raw[-1]),
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    merged = os.path.join(ROOT, directory, 'all.profdata')
    subprocess.run([profdata, 'merge', '-sparse', '-o', merged, *raw], check=True)
    programs = [program(directory, name) for name in targets()]
    objects = [word for p in programs[1:] for word in ('-object', p)]
    text = subprocess.run([cov, 'export', '-format=lcov', f'-instr-profile={merged}', programs[0],
                           *objects], cwd=ROOT, check=True, stdout=subprocess.PIPE,
                          text=True).stdout
    lines = {}
    for word in text.splitlines():
        if word.startswith('SF:'):
            path = os.path.relpath(os.path.join(ROOT, directory, word[3:]), ROOT)
            seen = lines.setdefault(path, {})
        elif word.startswith('DA:'):
            n, count = map(int, word[3:].split(',')[:2])
            seen[n] = seen.get(n, 0) + count
    return lines


def reached(seen):
    return 100 * sum(1 for count in seen.values() if count) / len(seen)


def check_coverage(directory, tally):
    """Prints what the corpora, found ones too, reach of the parsers; fails below COVERAGE_MIN."""
    lines = measure(lambda name: [f'{CORPUS}/{name}', f'{directory}/corpus/{name}'])
    if isinstance(lines, str):
        tally.add('fuzz.coverage', 'skip' if 'not installed' in lines else 'fail', lines)
        return
    for folder, pattern in PARSERS.items():
        files = {p: s for p, s in sorted(lines.items()) if re.fullmatch(folder + pattern, p)}
        for path, seen in files.items():
            print(f'  {path}: {reached(seen):.1f} % of {len(seen)} lines')
        everything = {(p, n): count for p, s in files.items() for n, count in s.items()}
        print(f'  fuzz.coverage.{folder}: {reached(everything):.1f} % of {len(everything)} lines')
        tally.add(f'fuzz.coverage.{folder}',
                  'pass' if reached(everything) >= COVERAGE_MIN else 'fail')


def coverage():
    """Prints which part of each file the committed corpus reaches, and what it does not."""
    lines = measure(lambda name: [f'{CORPUS}/{name}'])
    if isinstance(lines, str):
        print(lines)
        return
    for path, seen in sorted(lines.items()):
        if path.startswith(('virtio/', 'snapshot/', 'monitor/', 'memory/', 'vcpu/')) \
                and any(seen.values()):
            missed = [str(n) for n in sorted(seen) if not seen[n]]
            print(f'  {path}: {reached(seen):.1f} % of {len(seen)} lines; '
                  f'not {" ".join(missed[:12])}{" ..." if len(missed) > 12 else ""}')
