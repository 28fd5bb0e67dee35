#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What `meson install` puts where, and what the shared library shows to others.

Usage: test_install.py BUILD_ROOT SOURCE_ROOT
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(sys.argv[1])
SOURCE = pathlib.Path(sys.argv[2])
HEADER = SOURCE / 'lib/include/larder/larder.h'


def run(*command):
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120, check=False)


class InstallTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.root = pathlib.Path(tempfile.mkdtemp(prefix='larder-install-'))
        done = run('meson', 'install', '-C', BUILD, '--no-rebuild', '--quiet', '--destdir', cls.root)
        if done.returncode != 0:
            raise AssertionError('meson install failed: ' + done.stdout + done.stderr)
        cls.files = {path.name: path for path in cls.root.rglob('*') if not path.is_dir()}

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.root)

    def shared_library(self):
        return self.files['liblarder.so'].resolve()

    def assert_in(self, name, folder):
        self.assertIn(name, self.files)
        self.assertTrue(str(self.files[name].parent).endswith(folder), f'{self.files[name]} is not in {folder}')

    def test_headers_libraries_tool_and_pages_are_where_others_look(self):
        self.assert_in('larder.h', 'include/larder')
        self.assert_in('larder.hpp', 'include/larder')
        self.assert_in('larder.pc', 'pkgconfig')
        self.assert_in('larderConfig.cmake', 'cmake/larder')
        self.assert_in('larderConfigVersion.cmake', 'cmake/larder')
        self.assertIn('liblarder.a', self.files)
        self.assert_in('larder', '/bin')
        self.assert_in('larder.1', 'man/man1')
        self.assert_in('larder.3', 'man/man3')

    def test_nothing_of_the_tests_is_installed(self):
        odd = [name for name in self.files if name.startswith('test') or name.endswith(('.o', '.p', '.txt', '.py'))]
        self.assertEqual(odd, ['report_charts.py'])  # of what `larder pick --html` starts

    def test_no_installed_text_names_the_build_or_the_source(self):
        for name in ('larder.pc', 'larderConfig.cmake', 'larderConfigVersion.cmake'):
            text = self.files[name].read_text()
            self.assertNotIn(str(BUILD), text)
            self.assertNotIn(str(SOURCE), text)
            self.assertNotRegex(text, r'@\w+@', name + ' has a place that was not filled')

    def test_the_soname_has_the_first_number_of_the_version(self):
        major = re.search(r'LARDER_VERSION_MAJOR (\d+)', HEADER.read_text()).group(1)
        told = run('readelf', '-d', self.shared_library()).stdout
        self.assertIn(f'Library soname: [liblarder.so.{major}]', told)
        self.assertTrue((self.shared_library().parent / f'liblarder.so.{major}').exists())

    def test_the_shared_library_exports_the_calls_of_the_header_and_nothing_else(self):
        text = re.sub(r'/\*.*?\*/|//[^\n]*|^#.*?(?<!\\)$', '', HEADER.read_text(), flags=re.S | re.M)
        declared = set(re.findall(r'LARDER_API[^;]*?\b(larder_\w+)\(', text))
        self.assertGreater(len(declared), 30)
        exported = set()
        for line in run('nm', '--dynamic', '--defined-only', self.shared_library()).stdout.splitlines():
            kind, name = line.split()[-2:]
            if kind != 'A':  # the map's own version
                exported.add(name.split('@')[0])
        self.assertEqual(exported, declared)


if __name__ == '__main__':
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=1)
