#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`larder convert` and `larder info` as their users meet them: round trips, formats, messages, interrupts.

Usage: tools_formats.py LARDER SOURCE_ROOT. No test looks at a time.
"""
import csv
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
PLANS = SOURCE.parent / 'shared' / 'plans' / 'minimalloc'
SHIPPED = sorted(p for p in (SOURCE / 'bench' / 'traces').iterdir()
                 if p.name.endswith(('.txt', '.txt.zst', '.txt.gz', '.ltr')))

TRACE = '''7: malloc 0x1000 100000 1000 1010
8: memalign 0x40000 64 50000 1020 1030
7: realloc 0x80000 0x1000 120000 1040 1050
8: calloc 0x90000 3 100 1060 1070
7: free 0x99 1080 1090
8: free 0x40000 1100 1110
8: thread_done 0x0 1120
7: malloc 0x2000 700 1130 1140
'''


def larder(*arguments, **more):
    return subprocess.run([LARDER, *map(str, arguments)], capture_output=True, text=True, timeout=300, **more)


def have_json():
    """Whether this build reads JSON: it says so where it cannot."""
    return 'build it with yajl' not in larder('convert', '-', '-o', '-', '--to', 'android', input='[]').stderr


def operations(text):
    """The operations of a text trace, without what addresses they had: each block by the number of its allocation."""
    block_at, result, blocks = {}, [], 0
    for line in text.splitlines():
        thread, action, *words = line.replace(':', '').split()
        if action == 'thread_done':
            result.append((thread, action, *words[1:]))
        elif action == 'free':
            result.append((thread, action, block_at.pop(words[0]), *words[1:]))
        elif action == 'realloc':
            block_at[words[0]] = block_at.pop(words[1])
            result.append((thread, action, block_at[words[0]], *words[2:]))
        else:
            block_at[words[0]] = blocks
            if action == 'calloc':
                words[1:3] = [str(int(words[1]) * int(words[2]))]
            result.append((thread, action, blocks, *words[1:]))
            blocks += 1
    return result


class FormatTest(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix='larder-test-'))
        self.addCleanup(shutil.rmtree, self.directory)

    def path(self, name):
        return self.directory / name

    def write(self, name, text):
        self.path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return self.path(name)

    def files(self):
        return sorted(p.name for p in self.directory.iterdir())

    def convert(self, source, name, *arguments):
        """Converts to a file of that name; returns its path, and what was said of losses."""
        result = larder('convert', source, '-o', self.path(name), *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        for line in result.stderr.splitlines():
            self.assertTrue(line.startswith('note: '), line)
        return self.path(name), result.stderr

    def text_of(self, source, *arguments):
        result = larder('convert', source, '-o', '-', '--to', 'android', *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def assert_refused(self, result, code, *parts):
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertRegex(result.stderr, r'\Alarder.*: .*\n\Z')
        self.assertEqual(result.stderr.count('\n'), 1, result.stderr)
        for part in parts:
            self.assertIn(part, result.stderr)


class RoundTrips(FormatTest):
    def assert_round_trip(self, source):
        """To native and back, to text and back: the same operations, and the same bytes from then on."""
        native, _ = self.convert(source, 'a.ltr')
        text, _ = self.convert(native, 'a.txt')
        again, _ = self.convert(text, 'b.ltr')
        text_again, _ = self.convert(again, 'b.txt')
        self.assertEqual(text.read_bytes(), text_again.read_bytes())
        marks = self.path('a.marks')
        self.assertEqual(marks.exists(), self.path('b.marks').exists())
        if marks.exists():
            self.assertEqual(marks.read_text(), self.path('b.marks').read_text())
        return text.read_text()

    def test_every_shipped_trace_comes_back_the_same(self):
        self.assertTrue(SHIPPED)
        for trace in SHIPPED:
            with self.subTest(trace=trace.name):
                text = self.assert_round_trip(trace)
                if trace.suffix == '.txt':
                    self.assertEqual(operations(text), operations(trace.read_text()))
                    self.assertEqual(self.path('a.marks').read_text(), trace.with_suffix('.marks').read_text())

    def test_a_phone_s_trace_comes_back_the_same(self):
        if not ANDROID.exists():
            self.skipTest('no ../shared/traces beside the source')
        with zipfile.ZipFile(ANDROID) as archive:
            archive.extract('systemui.txt', self.directory)
        text = self.assert_round_trip(self.path('systemui.txt'))
        self.assertEqual(text.count('\n'), 770636)  # 786,454 lines without frees of nothing and of older blocks

    def test_times_threads_alignments_and_ends_are_kept(self):
        text = self.assert_round_trip(self.write('t.txt', TRACE))
        lines = TRACE.replace('calloc 0x90000 3 100', 'calloc 0x90000 1 300').splitlines(keepends=True)
        del lines[4]  # the free of a block from before the recording
        self.assertEqual(operations(text), operations(''.join(lines)))
        self.assertIn('memalign', text)

    def test_compressed_text_and_raw_native_hold_the_same(self):
        source = self.write('t.txt', TRACE)
        expected = self.text_of(source)
        for name in ('t.txt.gz', 't.txt.zst', 't.raw.ltr', 't.ltr', 't.ltr.gz'):
            path, _ = self.convert(source, 'out-' + name)
            self.assertEqual(self.text_of(path), expected, name)
        self.assertEqual(gzip.decompress(self.path('out-t.txt.gz').read_bytes()).decode(), expected)

    def test_standard_input_and_output_work(self):
        result = subprocess.run([LARDER, 'convert', '-', '-o', '-', '--to', 'ltr'], input=TRACE.encode(),
                                capture_output=True, timeout=60)
        self.assertEqual(result.returncode, 0)
        back = subprocess.run([LARDER, 'convert', '-', '-o', '-', '--to', 'android'], input=result.stdout,
                              capture_output=True, timeout=60)
        self.assertEqual(back.stdout.decode(), self.text_of(self.write('t.txt', TRACE)))

    def test_planning_instances_come_back_with_the_same_blocks(self):
        if not PLANS.exists():
            self.skipTest('no ../shared/plans beside the source')
        for plan in sorted(PLANS.glob('*.csv')):
            with self.subTest(plan=plan.name):
                out, _ = self.convert(plan, 'plan.csv')
                self.assertEqual(self.overlaps(out), self.overlaps(plan))

    def overlaps(self, path):
        """The sizes of each two blocks that are live at once: all that a planner goes by."""
        rows = [(int(r['lower']), int(r['upper']), int(r['size'])) for r in csv.DictReader(path.read_text().splitlines())]
        return sorted(sorted((a[2], b[2])) for i, a in enumerate(rows) for b in rows[:i] if a[0] < b[1] and b[0] < a[1])


class Losses(FormatTest):
    def test_what_a_format_cannot_carry_is_listed(self):
        source, said = self.convert(self.write('t.txt', TRACE), 't.ltr', '--label', 'engine=none')
        self.assertEqual(said.count('cannot carry'), 0)
        _, said = self.convert(source, 't.csv')
        for part in ('threads', 'alignments', 'zeroed', 'reallocations', 'times', 'never freed', 'labels', 'ends of'):
            self.assertIn('note: minimalloc cannot carry', said)
            self.assertIn(part, said)
        _, said = self.convert(source, 'u.txt')
        self.assertEqual([line for line in said.splitlines() if 'cannot carry' in line],
                         ['note: android cannot carry labels: dropped'])

    def test_what_was_left_out_is_counted(self):
        _, said = self.convert(self.write('t.txt', TRACE), 't.ltr', '--min-size', '1k')
        self.assertIn('note: 1 frees of blocks from before the recording', said)
        self.assertIn('note: 2 blocks below --min-size', said)

    def test_repair_is_on_request(self):
        early = '1: malloc 0x10 100\n2: malloc 0x10 40\n1: free 0x10\n2: free 0x10\n'
        source = self.write('t.txt', early)
        _, said = self.convert(source, 'a.ltr')
        self.assertIn('1 addresses handed out again before their free: kept', said)
        self.assertEqual([o[1] for o in operations(self.text_of(source))], ['malloc', 'malloc', 'free', 'free'])
        _, said = self.convert(source, 'b.ltr', '--repair')
        self.assertIn('repaired', said)
        self.assertEqual([o[1] for o in operations(self.text_of(source, '--repair'))],
                         ['malloc', 'free', 'malloc', 'free'])


class OtherFormats(FormatTest):
    def test_perfetto_json_has_a_slice_for_each_block_and_the_live_bytes(self):
        self.write('t.marks', '0 inference 0\n6 end\n')
        out, _ = self.convert(self.write('t.txt', TRACE), 't.json')
        events = json.loads(out.read_text())['traceEvents']
        live = [e['args']['bytes'] for e in events if e['ph'] == 'C']
        self.assertEqual(live, [100000, 150000, 170000, 170300, 120300, 121000])
        begun = [e['id'] for e in events if e['ph'] == 'b']
        ended = [e['id'] for e in events if e['ph'] == 'e']
        self.assertEqual(sorted(begun), sorted(ended))
        self.assertEqual(len(begun), 5)  # four blocks, one of them with two sizes
        self.assertEqual({e['tid'] for e in events if e['ph'] == 'b'}, {7, 8})
        self.assertEqual([(e['name'], e['ts'], e['dur']) for e in events if e['ph'] == 'X'],
                         [('inference 0', 1.01, 0.11)])
        self.assertEqual([e['args']['name'] for e in events if e['ph'] == 'M'],
                         ['thread 7', 'thread 8', 'inferences'])

    def test_pytorch_profiles_are_read_by_themselves(self):
        if not have_json():
            self.skipTest('this build has no yajl')
        memory = [(1, 0x100, 400, 3.5), (2, 0x200, 50, 1.25), (1, 0x100, -400, 4), (2, 0x999, -8, 2)]
        events = [{'ph': 'i', 'name': '[memory]', 'pid': 1, 'tid': tid, 'ts': ts,
                   'args': {'Bytes': size, 'Addr': address, 'Device Type': 0, 'Device Id': -1}}
                  for tid, address, size, ts in memory]
        events.append({'ph': 'i', 'name': '[memory]', 'tid': 1, 'ts': 0.5,
                       'args': {'Bytes': 7, 'Addr': 3, 'Device Type': 1}})
        source = self.write('p.json', json.dumps({'schemaVersion': 1, 'traceEvents': events}))
        self.assertEqual([o[:2] + o[3:] for o in operations(self.text_of(source))],
                         [('2', 'malloc', '50', '1250', '1250'), ('1', 'malloc', '400', '3500', '3500'),
                          ('1', 'free', '4000', '4000')])
        _, said = self.convert(source, 'p.ltr')
        self.assertIn('1 frees of blocks from before', said)
        self.assertIn('pytorch does not tell alignments', said)

    def test_every_format_can_be_named(self):
        source = self.write('t', '= Start\n@ ./a (b c) + 0x10 0x64\n@ ./a - 0x10\n= End\n')
        self.assertEqual(self.text_of(source, '--from', 'mtrace'), self.text_of(source))
        self.assert_refused(larder('convert', source, '-o', '-', '--to', 'ltr', '--from', 'android'), 1, ':1: expected')


class Info(FormatTest):
    def info(self, source, *arguments, **more):
        result = larder('info', source, *arguments, **more)
        self.assertEqual((result.returncode, result.stderr), (0, ''))
        return result.stdout

    def test_json_tells_what_is_in_a_trace(self):
        told = json.loads(self.info(self.write('t.txt', TRACE), '--json'))
        expected = {'format': 'android', 'operations': 7, 'threads': 2, 'allocations': 4, 'reallocations': 1,
                    'frees': 1, 'never_freed': 3, 'peak_live_bytes': 170300, 'exact_cache_bytes': 271000,
                    'unknown_frees': 1, 'inferences': 0, 'inferences_from': 'none', 'duration_ns': 140}
        self.assertEqual({key: told[key] for key in expected}, expected)
        self.assertEqual(sum(told['size_counts']), 4)
        self.assertEqual(max(told['live_bytes']), 170300)

    def test_every_shipped_trace_shows_its_inferences(self):
        for trace in SHIPPED:
            with self.subTest(trace=trace.name):
                told = json.loads(self.info(trace, '--json'))
                self.assertEqual(told['inferences_from'], 'marks')
                self.assertGreaterEqual(told['inferences'], 1)
                self.assertGreaterEqual(told['exact_cache_bytes'], told['peak_live_bytes'])

    def test_inferences_are_found_without_their_marks(self):
        for name, count in (('mobilenet_v2', 10), ('encoder_varying', 20), ('shufflenet_v2_varying', 10)):
            for ending in ('.txt', '.txt.zst', '.ltr'):
                trace = SOURCE / 'bench' / 'traces' / (name + ending)
                if trace.exists():
                    text = self.write('unmarked.txt', self.text_of(trace))
                    told = json.loads(self.info(text, '--json'))
                    self.assertEqual((told['inferences'], told['inferences_from']), (count, 'period'), name)

    def test_it_is_drawn_with_blocks_or_with_plain_characters(self):
        source = self.write('t.txt', TRACE)
        plain = self.info(source, env=dict(os.environ, LC_ALL='C'))
        self.assertTrue(plain.isascii())
        self.assertIn('#', plain)
        self.assertIn('live bytes over time', plain)
        if 'UTF-8' in subprocess.run(['locale', '-a'], capture_output=True, text=True).stdout.replace('utf8', 'UTF-8'):
            drawn = self.info(source, env=dict(os.environ, LC_ALL='C.UTF-8'))
            self.assertIn('\u2588', drawn)
            self.assertEqual(self.info(source, '--ascii', env=dict(os.environ, LC_ALL='C.UTF-8')), plain)

    def test_wrong_usage_and_bad_files_are_told(self):
        source = self.write('t.txt', TRACE)
        for arguments in ([], [source, source], [source, '--nonsense'], [source, '--min-size', 'x'],
                          [source, '--from', 'nonsense']):
            with self.subTest(arguments=arguments):
                self.assert_refused(larder('info', *arguments), 2, '--help')
        self.assert_refused(larder('info', self.path('missing')), 1, 'missing')
        self.assert_refused(larder('info', source, '--min-size', '1g'), 1, '--min-size')


class Failures(FormatTest):
    def test_wrong_usage_is_one_line_that_points_to_the_help(self):
        source = self.write('t.txt', TRACE)
        for arguments in (
            [],
            [source],
            [source, source, '-o', 'x.ltr'],
            [source, '-o', 'x.unknown'],
            [source, '-o', '-'],
            [source, '-o', 'x', '--to', 'nonsense'],
            [source, '-o', 'x.ltr', '--from', 'nonsense'],
            [source, '-o', 'x.ltr', '--min-size', '-1'],
            [source, '-o', 'x.ltr', '--label', 'novalue'],
            [source, '-o'],
            ['--nonsense'],
        ):
            with self.subTest(arguments=arguments):
                self.assert_refused(larder('convert', *arguments), 2, '--help')
        self.assertEqual(self.files(), ['t.txt'])

    def test_a_bad_label_is_refused(self):
        source = self.write('t.txt', TRACE)
        self.assert_refused(larder('convert', source, '-o', self.path('x.ltr'), '--label', 'two words=1'), 2, '--label')

    def test_a_failed_job_leaves_nothing_behind(self):
        source = self.write('bad.txt', TRACE + '7: malloc 0x5000\n')
        self.assert_refused(larder('convert', source, '-o', self.path('x.ltr')), 1, 'bad.txt:9:')
        good = self.write('t.txt', TRACE)
        self.assert_refused(larder('convert', good, '-o', self.path('missing') / 'x.ltr'), 1, 'cannot be written')
        self.assert_refused(larder('convert', good, '-o', self.path('x.ltr'), '--min-size', '1g'), 1, 'smaller')
        self.assertEqual(self.files(), ['bad.txt', 't.txt'])

    def test_a_full_device_is_told(self):
        if not os.path.exists('/dev/full'):
            self.skipTest('no /dev/full here')
        with open('/dev/full', 'wb') as full:
            result = subprocess.run([LARDER, 'convert', '-', '-o', '-', '--to', 'android'], input=TRACE * 1000,
                                    stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        self.assertEqual(result.returncode, 1)
        self.assertIn('written', result.stderr)

    def test_a_damaged_native_file_is_told_with_section_and_byte(self):
        native, _ = self.convert(self.write('t.txt', TRACE), 't.raw.ltr')
        data = bytearray(native.read_bytes())
        data[data.index(b'OPS ') + 600] ^= 1
        native.write_bytes(data)
        self.assert_refused(larder('convert', native, '-o', '-', '--to', 'android'), 1, 'section', 'byte')

    def test_an_interrupt_leaves_no_part_of_a_file_behind(self):
        """The signal comes once the file beside the output is there: before the end of the job, or, where the job is the
        faster, after the output is in place, and then it is whole."""
        trace = self.write('t.txt', ''.join(f'1: malloc 0x{i:x}0 {i}\n' for i in range(1, 50000)))
        out, whole = self.path('out.txt'), self.path('whole.txt')
        self.assertEqual(larder('convert', trace, '-o', whole).returncode, 0)
        for wanted in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process = subprocess.Popen([LARDER, 'convert', trace, '-o', out], stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE)
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                if any(name.startswith('out.txt.') for name in self.files()):
                    process.send_signal(wanted)
                    break
            process.communicate(timeout=60)
            self.assertIn(process.returncode, (-wanted, 0))
            self.assertEqual([name for name in self.files() if name.startswith('out.txt.')], [])
            if process.returncode == 0 or out.exists():
                self.assertEqual(out.read_bytes(), whole.read_bytes())
                out.unlink()


def under_thread_sanitizer():
    return b'__tsan_func_entry' in pathlib.Path(LARDER).read_bytes()


class Terminal(FormatTest):
    @unittest.skipIf(under_thread_sanitizer(), 'the thread sanitizer holds signals back while a call blocks')
    def test_progress_shows_on_a_terminal_and_goes_away(self):
        """A pipe that stays silent for over a second makes the reading last so long."""
        source = self.path('fifo')
        os.mkfifo(source)
        terminal, other = pty.openpty()
        process = subprocess.Popen([LARDER, 'convert', source, '-o', self.path('x.ltr')], stdout=subprocess.PIPE,
                                   stderr=other, stdin=subprocess.DEVNULL)
        os.close(other)
        shown = b''
        with open(source, 'wb') as pipe:
            while b'reading' not in shown:
                shown += os.read(terminal, 4096)
            pipe.write(TRACE.encode())
        process.communicate(timeout=60)
        try:
            while True:
                part = os.read(terminal, 4096)
                if not part:
                    break
                shown += part
        except OSError:
            pass
        os.close(terminal)
        self.assertEqual(process.returncode, 0)
        self.assertIn(b'larder convert: reading', shown)
        self.assertIn(b'\x1b[K', shown)


if __name__ == '__main__':
    unittest.main(argv=[sys.argv[0]], verbosity=1)
