# SPDX-License-Identifier: Apache-2.0
"""Rules of the house that a compiler does not check. Prints TAP."""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Which folder may include which (README, "Architecture").
MAY = {
    'monitor/base': {'monitor/base'},
    'memory': {'memory', 'monitor/base'},
    'vcpu': {'vcpu', 'memory', 'monitor/base'},
    'virtio': {'virtio', 'memory', 'monitor/base'},
    'snapshot': {'snapshot', 'memory', 'monitor/base'},
    'jailer': {'jailer', 'monitor/base'},
    'monitor': {'monitor', 'snapshot', 'virtio', 'vcpu', 'jailer', 'memory', 'monitor/base'},
}
LIBRARIES = ['memory', 'vcpu', 'virtio', 'snapshot', 'jailer']
BANNED = r'\b(strcpy|strcat|sprintf|vsprintf|gets|alloca|atoi|atol|system|popen|strncpy|strtok)\s*\('
TOP = {'meson.build', 'README.md', 'LICENSE', 'monitor', 'vcpu', 'memory', 'virtio', 'snapshot',
       'jailer', 'guests', 'tests', 'bench'}

number = 0
failed = 0


def verdict(name, problems):
    global number, failed
    number += 1
    if problems:
        failed += 1
        print(f'not ok {number} - {name} ' + '; '.join(problems[:8]))
    else:
        print(f'ok {number} - {name}')


def folder(path):
    return 'monitor/base' if path.startswith('monitor/base/') else path.split('/')[0]


def sources():
    for place in ['monitor', 'memory', 'vcpu', 'virtio', 'snapshot', 'jailer']:
        for base, _, files in os.walk(os.path.join(ROOT, place)):
            for f in sorted(files):
                if f.endswith(('.c', '.h', '.def')):
                    yield os.path.relpath(os.path.join(base, f), ROOT)


def code_of(path):
    with open(os.path.join(ROOT, path)) as f:
        text = f.read()
    return re.sub(r'/\*.*?\*/|//[^\n]*', lambda m: '\n' * m[0].count('\n'), text, flags=re.S)


def syscalls_and_tags(raw):
    """Every row of jailer/syscalls.def has a comment "syscalls[THREADS]: CALL, CALL(VALUE)" beside
    the code that needs it, and every such comment a row. What the writer (W) needs the loop (L),
    which starts it, may do too."""
    rows, bad = set(), []
    table = re.sub(r'/\*.*?\*/|#ifdef SANITIZED.*?#endif', '', raw['jailer/syscalls.def'],
                   flags=re.S)
    for kind, args in re.findall(r'^(CALL|ONLY|FAIL)\((.*?)\)$', table, re.M | re.S):
        name, threads = [a.strip() for a in args.split(',')[:2]]
        pinned = re.search(r'EQ\((\w+)\)', args)
        if pinned and pinned[1] not in ('OWN_PID', '0'):
            name += f'({pinned[1]})'
        if not re.search(r'"[^"]{4,}"$', args):
            bad.append(f'{name}: no reason')
        rows |= {(re.sub('[JN]', '', t), name) for t in re.findall(r'\w+', threads)}
    tags = {}
    for p, text in raw.items():
        for threads, calls in re.findall(r'syscalls\[([LVW]+)\]: ([\w(), ]+\w\)?)', text):
            for call in re.findall(r'\w+(?:\(\w+\))?', calls):
                tags.update({(t, call): p for t in threads})
    bad += [f'{tags[t]}: {t[1]} is not allowed for {t[0]}' for t in sorted(tags) if t not in rows]
    bad += [f'{call}: nothing in the code needs it for {t}' for t, call in sorted(rows)
            if (t, call) not in tags and not (t == 'L' and ('W', call) in tags)]
    return bad


def promises():
    """README's table of promises is whole, and each names tests that there are."""
    with open(os.path.join(ROOT, 'README.md')) as f:
        rows = re.findall(r'^\| P(\d+) [^|]*\| ([^|]*)\|$', f.read(), flags=re.M)
    names, files = set(), set()
    for base, _, found in os.walk(os.path.join(ROOT, 'tests')):
        for f in found:
            files.add(f)
            if f.endswith(('.c', '.py')):
                with open(os.path.join(base, f)) as source:
                    names |= set(re.findall(r'^(?:def|static void) (test_\w+)\(', source.read(),
                                            flags=re.M))
    bad = [] if [int(n) for n, _ in rows] == list(range(1, 11)) else ['README: not P1 to P10']
    for number, text in rows:
        tests = re.findall(r'`([\w.]+)`', text)
        bad += [f'P{number}: no test'] if not tests else []
        bad += [f'P{number}: there is no {t}' for t in tests
                if t not in names and t not in files and t + '.c' not in files]
    return bad


def main():
    files = list(sources())
    text = {p: code_of(p) for p in files}
    raw = {p: open(os.path.join(ROOT, p)).read() for p in files}

    bad = []
    for p in files:
        for inc in re.findall(r'#include "([^"]+)"', text[p]):
            if not os.path.isfile(os.path.join(ROOT, inc)):
                bad.append(f'{p}: includes {inc}, which is not there')
            elif folder(inc) not in MAY[folder(p)]:
                bad.append(f'{p}: may not include {inc}')
            elif inc.endswith('_int.h') and folder(inc) != folder(p):
                bad.append(f'{p}: {inc} is internal to its folder')
    verdict('include_graph', bad)

    bad = []
    for p in files:
        if not p.endswith('.h'):
            continue
        done = subprocess.run(['gcc', '-std=gnu17', '-D_GNU_SOURCE', '-Wall', '-Wextra', '-Werror',
                               '-Wno-unused-parameter', '-I', ROOT, '-fsyntax-only', '-xc', '-'],
                              input=f'#include "{p}"\n', text=True, capture_output=True)
        if done.returncode:
            bad.append(f'{p}: {done.stderr.splitlines()[0]}')
    verdict('headers_stand_alone', bad)

    verdict('banned_functions', [f'{p}: {m[1]}' for p in files
                                 for m in [re.search(BANNED, text[p])] if m])
    verdict('libraries_never_print', [
        f'{p}: {m[0]}' for p in files if folder(p) in LIBRARIES
        for m in [re.search(r'\b(printf|puts|perror|log_line|log_limited)\s*\(', text[p])]
        if m and p != 'jailer/gen_filter.c'])  # a program of the build
    # Only memory/ turns guest addresses into pointers: nobody else may look inside a region.
    verdict('one_gate', [f'{p}: uses ->hva' for p in files
                         if folder(p) != 'memory' and re.search(r'(->|\.)hva\b', text[p])
                         and p not in ('vcpu/vm.c',)])
    verdict('syscalls_and_tags', syscalls_and_tags(raw))
    verdict('promises_have_tests', promises())
    verdict('no_plain_assert', [p for p in files if re.search(r'\bassert\s*\(', text[p])])
    verdict('spdx_first', [p for p in files
                           if not raw[p].startswith('/* SPDX-License-Identifier: Apache-2.0 */')])
    verdict('file_length', [f'{p}: {raw[p].count(chr(10))} lines' for p in files
                            if raw[p].count('\n') > 800])
    verdict('columns', [f'{p}:{i + 1}' for p in files
                        for i, line in enumerate(raw[p].split('\n'))
                        if len(line.expandtabs(8)) > 100])

    listed = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        tops = {l.split('/')[0] for l in listed.stdout.split()}
        verdict('top_level', [t for t in tops if not t.startswith('.') and t not in TOP])
    bad = []
    for d in sorted(TOP - {'meson.build', 'README.md', 'LICENSE'}) + ['monitor/base']:
        readme = os.path.join(ROOT, d, 'README.md')
        if not os.path.isfile(readme):
            bad.append(f'{d}: no README.md')
        elif sum(1 for _ in open(readme)) > 30:
            bad.append(f'{d}/README.md is longer than 30 lines')
    verdict('folder_readmes', bad)
    sys.exit(1 if failed else 0)


main()
