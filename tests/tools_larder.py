#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The command-line tool as its users meet it: exit codes, messages, results, interrupts.

Usage: tools_larder.py LARDER SOURCE_ROOT. No test looks at a time; peers that this machine lacks are skipped.
"""
import gzip
import json
import os
import pathlib
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import zipfile

LARDER = sys.argv[1]
SOURCE = pathlib.Path(sys.argv[2])
ANDROID = SOURCE.parent / 'shared' / 'traces' / 'android' / 'systemui.zip'

# What sanitizers link in shows in the program's table of symbols.
SANITIZED = any(name in pathlib.Path(LARDER).read_bytes() for name in (b'__asan_init', b'__tsan_init'))

TRACE = '''7: malloc 0x1000 100000
8: memalign 0x40000 64 50000
7: realloc 0x80000 0x1000 120000
8: free 0x99
7: free 0x0
8: free 0x40000
8: malloc 0x2000 700
'''
KEYS = {
    'trace', 'backend', 'version', 'policy', 'threads', 'touch', 'gap_ms', 'passes', 'ops_per_pass', 'ns_per_op',
    'ns_per_op_min', 'ns_per_op_max', 'faults_per_pass', 'peak_rss_bytes', 'peak_live_bytes', 'held_bytes',
    'peak_held_bytes',
}


def larder(*arguments, **more):
    return subprocess.run([LARDER, *map(str, arguments)], capture_output=True, text=True, timeout=300, **more)


def have(backend):
    return larder('replay', '--backend', backend, '--probe').returncode == 0


def children_of(pid):
    try:
        return pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    except FileNotFoundError:
        return []


class ToolTest(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix='larder-test-'))
        self.addCleanup(shutil.rmtree, self.directory)
        self.trace = self.write('trace.txt', TRACE)

    def write(self, name, text):
        path = self.directory / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def assert_refused(self, result, code, *parts):
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertEqual(result.stdout, '')
        self.assertRegex(result.stderr, r'\Alarder.*: .*\n\Z')
        self.assertEqual(result.stderr.count('\n'), 1, result.stderr)
        for part in parts:
            self.assertIn(part, result.stderr)

    def replay(self, trace, *arguments):
        result = larder('replay', trace, '--json', *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stdout.count('\n'), 1)
        return json.loads(result.stdout)


class Usage(ToolTest):
    def test_help_and_version_go_to_stdout(self):
        for arguments in (['--help'], ['replay', '--help'], ['pick', '--help'], ['--version']):
            result = larder(*arguments)
            self.assertEqual((result.returncode, result.stderr), (0, ''))
            self.assertIn('larder', result.stdout)

    def test_wrong_usage_is_one_line_that_points_to_the_help(self):
        trace = self.trace
        for arguments in (
            [],
            ['nonsense'],
            ['--nonsense'],
            ['replay'],
            ['replay', trace],
            ['replay', '--backend', 'none'],
            ['replay', trace, trace, '--backend', 'none'],
            ['replay', trace, '--backend', 'nonsense'],
            ['replay', trace, '--backend'],
            ['replay', trace, '--nonsense'],
            ['replay', trace, '-x'],
            ['replay', trace, '--backend', 'none', '--json=1'],
            ['pick', trace, '--gaps', '1,x'],
            ['pick', trace, '--gaps', ''],
            ['pick', trace, '--prefer', 'luck'],
            ['pick', trace, '--seed', '-1'],
            ['pick', trace, '--time-limit', '-1'],
            ['pick', trace, '--time-limit', 'soon'],
            ['replay', trace, '--backend', 'none', '--passes', '0'],
            ['replay', trace, '--backend', 'none', '--passes', '-1'],
            ['replay', trace, '--backend', 'none', '--touch', 'some'],
            ['replay', trace, '--backend', 'none', '--gap-ms', '1s'],
            ['replay', trace, '--backend', 'none', '--min-size', '1x'],
            ['replay', trace, '--backend', 'none', '--probe'],
            ['pick'],
            ['pick', '-'],
            ['pick', trace, '--backends', 'nonsense'],
            ['pick', trace, '--backends', 'none,none'],
            ['pick', trace, '--backends', ''],
            ['pick', trace, '--repetitions', '0'],
        ):
            with self.subTest(arguments=arguments):
                self.assert_refused(larder(*arguments), 2, '--help')

    def test_output_that_cannot_be_written_is_a_failure(self):
        with open('/dev/full', 'w') as full:
            result = subprocess.run([LARDER, '--help'], stdout=full, stderr=subprocess.PIPE, text=True)
        self.assertEqual(result.returncode, 1)
        self.assertIn('could not be written', result.stderr)


class BadTraces(ToolTest):
    def test_each_is_refused_with_file_and_reason(self):
        damaged = gzip.compress(TRACE.encode() * 500)
        for name, content, part in (
            ('empty', '', 'the file is empty'),
            ('prose', 'Dear reader\n', ':1: not a trace'),
            ('garbage', bytes(range(256)) * 50, ':1: not a trace'),
            ('unending', b'1' * 100000, ':1: a line of more than'),
            ('mistake', TRACE + '7: malloc 0x1 1k\n', ":8: expected a size in bytes, found '1k'"),
            ('cut', TRACE + '7: mal', ':8: expected malloc'),
            ('cut.gz', damaged[:-20], 'the gzip data ends early'),
            ('start.gz', damaged[:3], 'the gzip data ends early'),
            ('damaged.gz', damaged[:40] + b'????' + damaged[44:], 'the gzip data is damaged'),
            ('archive.zip', b'PK\3\4' + bytes(100), 'is a zip archive'),
        ):
            with self.subTest(name):
                path = self.write(name, content)
                for command in (['replay', path, '--backend', 'none'], ['pick', path, '--backends', 'none']):
                    self.assert_refused(larder(*command), 1, str(path), part)

    def test_missing_files_and_directories_are_refused(self):
        for path in (self.directory / 'missing', self.directory):
            self.assert_refused(larder('replay', path, '--backend', 'none'), 1, str(path))

    def test_a_filter_that_leaves_nothing_is_refused(self):
        self.assert_refused(larder('replay', self.trace, '--backend', 'none', '--min-size', '1m'), 1, '--min-size')

    def test_what_nobody_can_serve_is_refused(self):
        if SANITIZED:
            self.skipTest('sanitizers report the size themselves')
        path = self.write('huge', f'1: malloc 0x10 {1 << 50}\n')
        result = larder('replay', path, '--backend', 'system', '--touch', 'none')
        self.assert_refused(result, 1, 'system could not serve', str(1 << 50))
        self.assert_refused(larder('replay', path, '--backend', 'system'), 1, '--touch none')

    def test_memory_stays_in_proportion_to_the_input(self):
        # 120 MB of lines that leave nothing to keep, in 120 kB; with less address space than a reader of the whole needs.
        if SANITIZED:
            self.skipTest('sanitizers need more address space')
        path = self.write('bomb.gz', gzip.compress(b'1: free 0x0\n' * 10_000_000))
        command = f'ulimit -v 100000; exec {LARDER} replay {path} --backend system'
        result = subprocess.run(['sh', '-c', command], capture_output=True, text=True)
        self.assert_refused(result, 1, 'no allocation in the trace')


class Replay(ToolTest):
    def test_json_has_the_facts_of_the_trace(self):
        figures = self.replay(self.trace, '--backend', 'system', '--passes', 3)
        self.assertLessEqual(KEYS, set(figures))
        self.assertEqual(figures['passes'], 3)
        self.assertEqual(figures['ops_per_pass'], 7)  # five of the trace, and two frees it lacks
        self.assertEqual(figures['peak_live_bytes'], 170000)
        self.assertEqual(figures['trace_threads'], 2)
        self.assertEqual(figures['never_freed'], 2)
        self.assertEqual(figures['unknown_frees'], 1)
        self.assertLessEqual(figures['ns_per_op_min'], figures['ns_per_op'])
        self.assertLessEqual(figures['ns_per_op'], figures['ns_per_op_max'])

    def test_every_allocator_replays_the_trace(self):
        names = ['larder', 'larder-exact', 'larder-mimalloc', 'larder-passthrough', 'system', 'mimalloc', 'c10', 'c10-design', 'ncnn-pool', 'bfc-arena',
                 'none', 'jemalloc', 'tcmalloc', 'tbbmalloc', 'scudo', 'scudo-android']
        for name in filter(have, names):
            for touch in ('none', 'page', 'full'):
                with self.subTest(name, touch=touch):
                    figures = self.replay(self.trace, '--backend', name, '--passes', 4, '--touch', touch)
                    self.assertEqual((figures['backend'], figures['touch']), (name, touch))
                    self.assertEqual(figures['ops_per_pass'], 7)
                    self.assertNotEqual(figures['version'], '')

    def test_larder_reports_what_it_holds(self):
        figures = self.replay(self.trace, '--backend', 'larder', '--passes', 4)
        self.assertGreaterEqual(figures['peak_held_bytes'], figures['peak_live_bytes'])

    def test_a_preloaded_allocator_is_measured_and_named(self):
        for name in filter(have, ('jemalloc', 'tcmalloc', 'tbbmalloc', 'scudo', 'scudo-android')):
            with self.subTest(name):
                figures = self.replay(self.trace, '--backend', name, '--passes', 3)
                self.assertRegex(figures['version'], r'\d+\.\d')
                self.assertNotIn('glibc', figures['version'])

    def test_a_library_that_is_no_allocator_is_refused(self):
        if SANITIZED:
            self.skipTest('malloc is the sanitizer, whatever is preloaded')
        for library in (self.directory / 'missing.so', 'libz.so.1'):
            result = larder('replay', self.trace, '--backend', f'preload:{library}')
            self.assert_refused(result, 1, f'preload:{library}')

    def test_compressed_traces_and_standard_input_read_the_same(self):
        plain = self.replay(self.trace, '--backend', 'none', '--passes', 1)
        packed = [self.write('a.gz', gzip.compress(TRACE.encode()))]
        # Two members are one text, as for gzip -d.
        packed.append(self.write('b.gz', gzip.compress(TRACE[:50].encode()) + gzip.compress(TRACE[50:].encode())))
        if shutil.which('zstd'):
            subprocess.run(['zstd', '-q', self.trace, '-o', self.directory / 'c.zst'], check=True)
            packed.append(self.directory / 'c.zst')
        for path in packed:
            figures = self.replay(path, '--backend', 'none', '--passes', 1)
            for key in ('ops_per_pass', 'peak_live_bytes', 'never_freed'):
                self.assertEqual(figures[key], plain[key])
        result = larder('replay', '-', '--backend', 'none', '--json', '--passes', 1, input=TRACE)
        self.assertEqual(json.loads(result.stdout)['ops_per_pass'], plain['ops_per_pass'])

    def test_small_blocks_can_be_left_out(self):
        figures = self.replay(self.trace, '--backend', 'none', '--passes', 1, '--min-size', '1k')
        self.assertEqual(figures['ops_per_pass'], 5)

    def test_early_reuse_is_reported_and_repaired_on_request(self):
        path = self.write('early', '1: malloc 0x10 100\n2: malloc 0x10 60\n1: free 0x10\n2: free 0x10\n')
        kept = self.replay(path, '--backend', 'none', '--passes', 1)
        self.assertEqual((kept['early_reuses'], kept['repaired'], kept['peak_live_bytes']), (1, 0, 160))
        repaired = self.replay(path, '--backend', 'none', '--passes', 1, '--repair')
        self.assertEqual((repaired['early_reuses'], repaired['repaired'], repaired['peak_live_bytes']), (1, 1, 100))

    def test_chosen_passes_are_at_least_twelve(self):
        figures = self.replay(self.trace, '--backend', 'none', '--gap-ms', 100)
        self.assertGreaterEqual(figures['passes'], 12)


class Recorded(ToolTest):
    def test_every_trace_of_the_project_is_read_whole(self):
        for path in sorted((SOURCE / 'bench' / 'traces').glob('*.txt*')):
            with self.subTest(path.name):
                figures = self.replay(path, '--backend', 'none', '--passes', 1)
                self.assertEqual((figures['unknown_frees'], figures['early_reuses']), (0, 0))

    def test_a_phone_recording_has_the_facts_that_a_second_reader_finds(self):
        if not ANDROID.exists():
            self.skipTest(f'no recording of a phone at {ANDROID}')
        with zipfile.ZipFile(ANDROID) as archive:
            text = archive.read(archive.namelist()[0])
        path = self.write('systemui.txt', text)
        figures = self.replay(path, '--backend', 'none', '--passes', 1, '--touch', 'none')
        size, live, peak, operations, unknown = {}, 0, 0, 0, 0
        for line in text.decode().splitlines():
            word = line.split()
            if word[1] == 'thread_done' or word[2:] == ['0x0']:
                continue
            old = word[3] if word[1] == 'realloc' else word[2] if word[1] == 'free' else '0x0'
            if old != '0x0':
                unknown += old not in size
                live -= size.pop(old, 0)
            if word[1] != 'free':
                size[word[2]] = int(word[3]) * int(word[4]) if word[1] == 'calloc' else int(word[-1])
                live += size[word[2]]
                peak = max(peak, live)
            operations += 1
        self.assertEqual(figures['peak_live_bytes'], peak)
        self.assertEqual(figures['never_freed'], len(size))
        self.assertEqual(figures['unknown_frees'], unknown)
        self.assertEqual(figures['ops_per_pass'], operations + len(size))


class Pick(ToolTest):
    QUICK = ('--passes', '3', '--repetitions', '2', '--min-size', '0', '--gaps', '0')

    def pick(self, *arguments):
        return larder('pick', *arguments, *self.QUICK)

    def test_tables_recommend_one_and_the_json_says_the_same(self):
        other = self.write('other.txt', '1: malloc 0x10 5000000\n1: free 0x10\n')
        path = self.directory / 'figures.json'
        result = self.pick(self.trace, other, '--backends', 'system,larder,larder-passthrough,none', '--json', path)
        self.assertEqual((result.returncode, result.stderr), (0, ''))
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        self.assertEqual(len(rows), 8)
        for row in rows:
            self.assertLessEqual(KEYS, set(row))
            self.assertEqual(row['repetitions'], 2)
        for trace in (self.trace, other):
            chosen = [row['backend'] for row in rows if row['trace'] == str(trace) and row['recommended']]
            self.assertEqual(len(chosen), 1)
            self.assertIn(chosen[0], ('system', 'larder'))
            self.assertIn(f'Use {chosen[0]}: ', result.stdout)
        overall = {row['backend'] for row in rows if row['recommended_overall']}
        self.assertEqual(len(overall), 1)
        self.assertIn(f'Over all 2 traces: use {overall.pop()}', result.stdout)
        self.assertEqual(sorted(p.name for p in self.directory.iterdir()), ['figures.json', 'other.txt', 'trace.txt'])

    def rows(self, *arguments):
        result = larder('pick', *arguments, '--json', '-')
        self.assertEqual(result.returncode, 0, result.stderr)
        return [json.loads(line) for line in result.stdout.splitlines()]

    def test_gaps_are_replayed_on_two_traces_or_with_full_on_all(self):
        traces = [self.write(f'{size}.txt', f'1: malloc 0x10 {size}\n1: free 0x10\n') for size in (5000, 9000, 7000)]
        for more, expected in ((), {'7000', '9000'}), (('--full',), {'5000', '7000', '9000'}):
            rows = self.rows(*traces, '--backends', 'none', '--gaps', '0,1', '--passes', '2', '--repetitions', '1', *more)
            self.assertEqual({pathlib.Path(row['trace']).stem for row in rows if row['gap_ms'] == 1}, expected)
            self.assertEqual(sum(row['gap_ms'] == 0 and row['main'] for row in rows), 3)

    def test_a_difference_is_told_by_a_rank_test_and_its_direction_is_that_of_the_medians(self):
        rows = self.rows(self.trace, '--backends', 'larder,system,none', '--passes', '3', '--repetitions', '9',
                         '--min-size', '0', '--gaps', '0')
        by_name = {row['backend']: row for row in rows}
        for row in rows:
            self.assertEqual(len(row['ns_samples']), 9)
            self.assertLessEqual(row['ns_low'], row['ns_per_op'])
            self.assertLessEqual(row['ns_per_op'], row['ns_high'])
            self.assertGreater(row['ns_coverage'], 0.95)
            for other in row['faster_than']:
                self.assertLess(row['ns_per_op'], by_name[other]['ns_per_op'])
                self.assertNotIn(row['backend'], by_name[other]['faster_than'])

    def test_without_passes_the_time_is_shared_out(self):
        rows = self.rows(self.trace, '--backends', 'system,none', '--time-limit', '2', '--min-size', '0', '--gaps', '0')
        for row in rows:
            self.assertGreaterEqual(row['repetitions'], 1)
            self.assertGreaterEqual(row['passes'], 3)

    def test_what_the_time_limit_leaves_no_room_for_is_said(self):
        arguments = (self.trace, '--backends', 'system,none', '--time-limit', '2', '--min-size', '0', '--gaps', '0,600000')
        result = larder('pick', *arguments)
        self.assertEqual((result.returncode, result.stderr), (0, ''))
        self.assertIn('Cut short by the time limit of 2 s:\n', result.stdout)
        self.assertIn('  replays with pauses were left out\n', result.stdout)
        self.assertNotIn('600000 ms', result.stdout)
        result = larder('pick', *arguments, '--json', '-')
        self.assertIn('  replays with pauses were left out\n', result.stderr)
        self.assertEqual([row['gap_ms'] for row in map(json.loads, result.stdout.splitlines())], [0, 0])

    def test_a_replay_that_does_not_end_is_ended_by_the_time_limit(self):
        for more in ((), ('--passes', '3')):
            result = larder('pick', self.trace, '--backends', 'none', '--time-limit', '1', '--gap-ms', '600000',
                            '--min-size', '0', *more)
            self.assertEqual(result.returncode, 1)
            self.assertIn('larder pick: no replay ended within 1 s', result.stderr)

    def test_default_traces_are_taken_where_none_is_named_and_no_file_of_an_option_is_one(self):
        figures = self.write('figures.json', '')
        result = larder('pick', '--default-traces', self.directory, '--backends', 'none', *self.QUICK, '--json', figures)
        self.assertEqual((result.returncode, result.stderr), (0, ''))
        rows = [json.loads(line) for line in figures.read_text().splitlines()]
        self.assertEqual([row['trace'] for row in rows], [str(self.trace)])
        result = larder('pick', '--default-traces', self.directory / 'nowhere', '--backends', 'none')
        self.assert_refused(result, 1, 'nowhere')

    def test_a_preference_is_taken(self):
        for preference in ('time', 'memory', 'balanced'):
            result = self.pick(self.trace, '--backends', 'system,larder', '--prefer', preference)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn('  Use ', result.stdout)

    def test_json_can_go_to_stdout_instead_of_the_tables(self):
        result = self.pick(self.trace, '--backends', 'system,none', '--json', '-')
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        self.assertEqual([row['backend'] for row in rows], ['system', 'none'])

    def test_what_is_missing_is_left_out_and_said(self):
        missing = f'preload:{self.directory}/missing.so'
        result = self.pick(self.trace, '--backends', f'system,{missing}')
        self.assertEqual(result.returncode, 0)
        self.assertIn(f'larder pick: {missing} left out: ', result.stderr)
        self.assertEqual(result.stderr.count('\n'), 1)
        self.assertIn('Use system', result.stdout)
        self.assert_refused_all_missing(missing)

    def assert_refused_all_missing(self, missing):
        result = self.pick(self.trace, '--backends', missing)
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stdout, '')

    def test_a_failing_allocator_is_told_and_the_others_go_on(self):
        # More than all of the address range that "none" has.
        path = self.write('large.txt', f'1: malloc 0x10 {1 << 37}\n1: free 0x10\n')
        result = self.pick(path, '--backends', 'none', '--touch', 'none')
        self.assertEqual(result.returncode, 1)
        self.assertIn('none failed: ', result.stderr)
        self.assertIn('could not serve', result.stderr)
        self.assertEqual(result.stderr.count('\n'), 1)
        self.assertIn('failed', result.stdout)

    def test_an_unwritable_json_file_is_told_before_any_replay(self):
        result = self.pick(self.trace, '--backends', 'none', '--json', self.directory / 'no' / 'figures')
        self.assert_refused(result, 1, 'cannot be written')

    def test_progress_shows_on_a_terminal_and_not_in_a_pipe(self):
        self.assertEqual(self.pick(self.trace, '--backends', 'none').stderr, '')
        try:
            outer, inner = pty.openpty()
        except OSError as error:
            self.skipTest(f'no terminal to be had: {error}')
        command = [LARDER, 'pick', str(self.trace), '--backends', 'none', *self.QUICK]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=inner)
        os.close(inner)
        shown = b''
        try:
            while chunk := os.read(outer, 4096):
                shown += chunk
        except OSError:  # the terminal's other end is closed
            pass
        os.close(outer)
        self.assertEqual(process.wait(), 0)
        self.assertIn(b'[2/2]', shown)

    def test_an_interrupt_ends_the_children_and_leaves_no_file(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            for until in (self.any_child, self.sleeping_replay):
                with self.subTest(signal=number, until=until.__name__):
                    self.interrupt(number, until)

    def interrupt(self, number, until):
        command = [LARDER, 'pick', str(self.trace), '--backends', 'none', '--gap-ms', '600000', '--json',
                   str(self.directory / 'figures.json')]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while not (child := until(process)):
            time.sleep(0.001)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, -number)
        self.assertEqual(errors, b'')
        self.assertFalse(pathlib.Path(f'/proc/{child}').exists())
        self.assertEqual([p.name for p in self.directory.iterdir()], ['trace.txt'])

    def any_child(self, process):
        """The first child, which asks for the version, is there as soon as interrupts are caught."""
        self.assertIsNone(process.poll())
        return next(iter(children_of(process.pid)), None)

    def sleeping_replay(self, process):
        """The replay, which sleeps between its passes for longer than any test takes."""
        self.assertIsNone(process.poll())
        for child in children_of(process.pid):
            try:
                words = pathlib.Path(f'/proc/{child}/cmdline').read_bytes().split(b'\0')
            except FileNotFoundError:
                continue
            if b'replay' in words and b'--gap-ms' in words:
                return child
        return None


class PlanTest(ToolTest):
    CSV = 'id,lower,upper,size\nb1,0,3,4\nb2,3,9,4\nb3,0,9,4\nb4,9,21,4\nb5,0,21,4\n'
    INSTANCES = SOURCE.parent / 'shared' / 'plans' / 'minimalloc'

    def plan(self, path, *arguments):
        result = larder('plan', path, '--json', *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)

    def assert_sound(self, csv):
        """Looks at all pairs: nothing of the planner is used here."""
        lines = csv.read_text().split()
        self.assertEqual(lines[0], 'id,lower,upper,size,offset')
        blocks = [[int(field) for field in line.split(',')[1:]] for line in lines[1:]]
        for i, (lower, upper, size, offset) in enumerate(blocks):
            for other_lower, other_upper, other_size, other_offset in blocks[:i]:
                self.assertTrue(upper <= other_lower or other_upper <= lower or
                                offset + size <= other_offset or other_offset + other_size <= offset)
        return max(size + offset for _, _, size, offset in blocks)

    def test_a_csv_file_is_planned_written_and_drawn(self):
        out, drawing = self.directory / 'out.csv', self.directory / 'out.svg'
        result = self.plan(self.write('in.csv', self.CSV), '-o', out, '--svg', drawing)
        self.assertEqual((result['peak_bytes'], result['lower_bound_bytes'], result['optimal']), (12, 12, True))
        self.assertEqual(self.assert_sound(out), 12)
        self.assertEqual(drawing.read_text().count('<title>'), 5)

    def test_a_trace_is_planned_at_its_alignment_and_written_with_a_checksum(self):
        out = self.directory / 'out.plan'
        result = self.plan(self.trace, '-o', out)
        self.assertEqual(result['peak_bytes'], 100032 + 120000 + 50048)
        self.assertRegex(out.read_text(), r'\Alarder-plan 1\nplan 0 4 \d+\n(\d+ \d+ \d+ 64 \d+\n){4}end [0-9a-f]{16}\n\Z')

    def test_a_recorded_inference_is_planned_at_its_lower_bound(self):
        result = self.plan(SOURCE / 'bench' / 'traces' / 'mobilenet_v2.txt', '--inference', '2')
        self.assertEqual((result['ratio'], result['optimal']), (1, True))

    def test_hard_instances_fit_their_capacity(self):
        if not self.INSTANCES.exists():
            self.skipTest(f'{self.INSTANCES} is not there')
        out = self.directory / 'out.csv'
        for name in 'C', 'D', 'E':
            with self.subTest(name):
                self.plan(self.INSTANCES / f'{name}.1048576.csv', '-o', out, '--capacity', '1m', '--time-limit', '60')
                self.assertLessEqual(self.assert_sound(out), 1048576)

    def test_a_plan_within_the_capacity_is_enough_and_without_one_nothing_is_written(self):
        out = self.directory / 'out.csv'
        self.plan(self.write('in.csv', self.CSV), '--capacity', '16', '-o', out)
        self.assertLessEqual(self.assert_sound(out), 16)
        out.unlink()
        result = larder('plan', self.write('in.csv', self.CSV), '--json', '--capacity', '11', '-o', out)
        self.assert_refused(result, 1, 'no plan fits into 11 bytes: 12 are needed')
        self.assertFalse(out.exists())

    def test_what_is_wrong_with_a_csv_file_is_told_with_its_line(self):
        for text, part in (('id,lower,size\n', ':1: '), ('id,lower,upper,size\na,1,1,1\n', ':2: '),
                           ('id,lower,upper,size\na,1,2\n', ':2: '), ('id,lower,upper,size\na,1,2,x\n', ':2: '),
                           ('id,lower,upper,size\na,0,2,99999999999999999999\n', ':2: '), ('', 'empty'),
                           ('id,lower,upper,size\n', 'no blocks')):
            with self.subTest(text):
                self.assert_refused(larder('plan', self.write('bad.csv', text)), 1, part)
        self.assert_refused(larder('plan', self.trace, '--inference', '3'), 1, 'no inference 3')
        self.assert_refused(larder('plan', self.trace, '--alignment', '48'), 2, 'power of two')

    def test_an_interrupt_ends_the_search_with_the_best_plan_so_far(self):
        # rectangles that no one puts together in a second
        import random
        numbers = random.Random(7)
        rows = [(t, t + numbers.randrange(20, 300), numbers.randrange(1000, 90000))
                for t in (numbers.randrange(0, 1000) for _ in range(400))]
        text = 'id,lower,upper,size\n' + ''.join(f'{i},{a},{b},{s}\n' for i, (a, b, s) in enumerate(rows))
        out = self.directory / 'out.csv'
        process = subprocess.Popen([LARDER, 'plan', self.write('in.csv', text), '-o', out, '--time-limit', '200'],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        printed, told = process.communicate(timeout=60)
        self.assertEqual((process.returncode, told), (0, ''))
        self.assertIn('optimal', printed)
        self.assert_sound(out)


if __name__ == '__main__':
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=1)
