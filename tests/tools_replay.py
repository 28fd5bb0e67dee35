#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`larder replay` with threads, streams, phases, pace and contents that are checked.

Usage: tools_replay.py LARDER SOURCE_ROOT. No test looks at a time.
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import zipfile

LARDER = sys.argv[1]
SOURCE = pathlib.Path(sys.argv[2])
TRACES = SOURCE / 'bench' / 'traces'
ANDROID = SOURCE.parent / 'shared' / 'traces' / 'android' / 'systemui.zip'
PIPELINE = TRACES / 'mobilenet_v2_pipeline.txt'


def larder(*arguments):
    return subprocess.run([LARDER, 'replay', *map(str, arguments)], capture_output=True, text=True, timeout=300)


def under_thread_sanitizer():
    return b'__tsan_func_entry' in pathlib.Path(sys.argv[1]).read_bytes()


class Replay(unittest.TestCase):
    def replay(self, *arguments):
        result = larder(*arguments, '--json')
        self.assertEqual((result.returncode, result.stderr), (0, ''))
        return json.loads(result.stdout)

    def refused(self, code, part, *arguments):
        result = larder(*arguments)
        self.assertEqual((result.returncode, result.stdout), (code, ''))
        self.assertIn(part, result.stderr)

    def test_a_thread_for_each_recorded_one(self):
        figures = self.replay(PIPELINE, '--backend', 'larder', '--parallel', '--passes', 3)
        self.assertEqual((figures['mode'], figures['threads'], len(figures['busy'])), ('parallel', 2, 2))
        self.assertGreater(figures['measured_peak_live_bytes'], 0)
        serial = self.replay(PIPELINE, '--backend', 'larder', '--passes', 3)
        self.assertEqual((serial['mode'], serial['threads']), ('serial', 1))
        self.assertIsNone(serial['measured_peak_live_bytes'])
        self.assertEqual(serial['ops_per_pass'], figures['ops_per_pass'])

    def test_streams_multiply_operations_and_threads(self):
        figures = self.replay(PIPELINE, '--backend', 'larder', '--parallel', '--streams', 3, '--passes', 3)
        one = self.replay(PIPELINE, '--backend', 'larder', '--passes', 1)
        self.assertEqual((figures['threads'], figures['ops_per_pass']), (6, 3 * one['ops_per_pass']))

    def test_a_phase_is_a_part(self):
        for phase in ('2', '2-3', 'inference 2'):
            with self.subTest(phase):
                figures = self.replay(PIPELINE, '--backend', 'larder', '--phase', phase, '--passes', 4, '--parallel')
                self.assertLess(figures['ops_per_pass'], 20000)
        self.refused(1, '0 to 9', PIPELINE, '--backend', 'none', '--phase', '99')
        self.refused(1, 'no mark of that name', PIPELINE, '--backend', 'none', '--phase', 'breakfast')

    def test_every_touch_may_be_read_back(self):
        for touch in ('first', 'page', 'full'):
            figures = self.replay(PIPELINE, '--backend', 'larder', '--touch', touch, '--read-before-free', '--passes', 1)
            self.assertEqual((figures['touch'], figures['read_before_free']), (touch, True))
        self.refused(2, '--help', PIPELINE, '--backend', 'larder', '--touch', 'none', '--read-before-free')

    def test_pace_needs_times_or_marks(self):
        with tempfile.TemporaryDirectory(prefix='larder-test-') as directory:
            path = pathlib.Path(directory) / 'trace.txt'
            path.write_text('1: malloc 0x10 10 1000 2000\n1: free 0x10 3000000 3001000\n')
            self.assertEqual(self.replay(path, '--backend', 'system', '--paced', '--passes', 2)['paced'], True)
            path.write_text('1: malloc 0x10 10\n1: free 0x10\n')
            self.refused(1, 'no times', path, '--backend', 'system', '--paced')
        figures = self.replay(PIPELINE, '--backend', 'system', '--paced', '--gap-ms', 2, '--passes', 1)
        self.assertEqual(figures['paced'], True)

    def test_contents_are_kept(self):
        for mode in ('--serial', '--parallel'):
            figures = self.replay(PIPELINE, '--backend', 'larder', mode, '--verify', '--min-size', '1k')
            self.assertGreater(figures['verified_blocks'], 1000)

    def test_a_phone_recording_runs_in_parallel(self):
        if not ANDROID.exists():
            self.skipTest(f'no recording of a phone at {ANDROID}')
        with tempfile.TemporaryDirectory(prefix='larder-test-') as directory:
            path = pathlib.Path(directory) / 'systemui.txt'
            with zipfile.ZipFile(ANDROID) as archive:
                path.write_bytes(archive.read(archive.namelist()[0]))
            for backend in ('larder', 'system', 'mimalloc'):
                if backend == 'mimalloc' and under_thread_sanitizer():
                    continue  # it sees races in what was not built with it
                if larder('--backend', backend, '--probe').returncode != 0:
                    continue
                with self.subTest(backend):
                    figures = self.replay(path, '--backend', backend, '--parallel', '--verify', '--passes', 2)
                    self.assertEqual((figures['trace_threads'], figures['threads']), (393, 393))
                    self.assertGreater(figures['verified_blocks'], 300000)


if __name__ == '__main__':
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=1)
