#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Documents that speak the truth: man pages, the API's reference and the table of settings against the sources and the tool.

Usage: test_docs.py LARDER SOURCE_ROOT DOXYFILE MAN_PAGE. What a machine has no program for is skipped.
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

LARDER = sys.argv[1]
SOURCE = pathlib.Path(sys.argv[2])
DOXYFILE = pathlib.Path(sys.argv[3])
HEADER = (SOURCE / 'lib/include/larder/larder.h').read_text()
PAGES = [pathlib.Path(sys.argv[4]), SOURCE / 'docs/larder.3']


def run(*command, **more):
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120, check=False, **more)


def declared_calls():
    text = re.sub(r'/\*.*?\*/|^#.*?(?<!\\)$', '', HEADER, flags=re.S | re.M)
    return set(re.findall(r'LARDER_API[^;]*?\b(larder_\w+)\(', text))


def settings():
    """Each key of larder_config_set(), and each variable that config.c knows to be read elsewhere."""
    code = next(SOURCE.glob('lib/**/config.c')).read_text()
    table = code.split('} keys[] = {')[1].split('};')[0]
    elsewhere = code.split('static bool is_known_elsewhere')[1].split('\n}\n')[0]
    return re.findall(r'\{"(\w+)"', table), re.findall(r'"([A-Z_]+)"', elsewhere)


class ManPagesTest(unittest.TestCase):
    @unittest.skipUnless(shutil.which('mandoc'), 'mandoc is missing (Debian: mandoc)')
    def test_mandoc_finds_nothing_to_warn_of(self):
        for page in PAGES:
            done = run('mandoc', '-Tlint', '-Wwarning', page)
            self.assertEqual((done.stdout, done.returncode), ('', 0))

    def test_each_option_of_each_subcommand_is_in_its_section(self):
        page = PAGES[0].read_text()
        listed = run(LARDER, '--help').stdout.split('Subcommands:')[1].split('\n\n')[0]
        for subcommand in re.findall(r'^  (\S+)', listed, re.M):
            section = re.search(rf'^\.Ss larder {subcommand}$(.*?)(?=^\.S[sh] )', page, re.S | re.M).group(1)
            known = re.findall(r'^ {2,6}(?:-\w, )?--([a-z][\w-]*)', run(LARDER, subcommand, '--help').stdout, re.M)
            self.assertEqual(set(known) - set(re.findall(r'Fl -([a-z][\w-]*)', section)), set(), subcommand)
            self.assertIn('help', known)

    def test_each_call_is_in_the_page_of_the_library_and_no_other(self):
        told = set(re.findall(r'^\.Fn (larder_\w+)', PAGES[1].read_text(), re.M))
        self.assertEqual(declared_calls() - told, set(), 'calls that larder.3 does not have')
        self.assertEqual(told - declared_calls(), set(), 'calls that only larder.3 has')

    def test_the_pages_are_of_this_version(self):
        version = re.search(r'LARDER_VERSION_STRING "(.*)"', HEADER).group(1)
        for page in PAGES:
            self.assertIn(f'.Os larder {version}\n', page.read_text())


class SettingsTest(unittest.TestCase):
    def test_the_table_of_the_readme_has_each_setting_and_no_other(self):
        text = (SOURCE / 'README.md').read_text()
        rows = [line.split('|')[1] for line in text.splitlines() if line.startswith('| `LARDER_')]
        told = {name for row in rows for name in re.findall(r'`LARDER_(\w+)`', row)}
        keys, _ = settings()
        self.assertEqual(told, {key.upper() for key in keys})

    def test_each_variable_in_a_document_is_one_that_something_reads(self):
        keys, elsewhere = settings()
        known = {key.upper() for key in keys}
        for document in [SOURCE / 'README.md', SOURCE / 'CONTRIBUTING.md', *PAGES]:
            for name in re.findall(r'\bLARDER_([A-Z][A-Z_]*)\b', document.read_text().replace('LARDER_KEY=', '')):
                good = name in known or name in elsewhere or f'LARDER_{name}' in HEADER or any(
                    name.startswith(prefix) for prefix in elsewhere if prefix.endswith('_'))
                self.assertTrue(good, f'{document.name}: nothing reads LARDER_{name}')

    def test_the_defaults_of_the_readme_are_those_of_the_header(self):
        text = (SOURCE / 'README.md').read_text()
        for name, default in (('THREAD_CACHED_BYTES', '56k'), ('DECAY_MS', '1000'), ('MAX_CACHED_BYTES', 'adaptive'), ('ALIGNMENT', '64')):
            row = next(line for line in text.splitlines() if line.startswith(f'| `LARDER_{name}`'))
            self.assertIn(default, row.split('|')[3])


@unittest.skipUnless(shutil.which('doxygen'), 'Doxygen is missing (Debian: doxygen)')
class ReferenceTest(unittest.TestCase):
    def doxygen(self, *settings_more):
        with tempfile.TemporaryDirectory(prefix='larder-docs-') as output:
            more = '\n'.join([DOXYFILE.read_text(), f'OUTPUT_DIRECTORY = "{output}"', *settings_more, ''])
            return run('doxygen', '-', input=more)

    def test_it_is_made_without_warnings(self):
        done = self.doxygen()
        self.assertEqual((done.stdout + done.stderr, done.returncode), ('', 0))

    def test_each_call_of_the_header_has_a_comment(self):
        done = self.doxygen('WARN_IF_UNDOCUMENTED = YES', 'WARN_AS_ERROR = NO')
        bare = re.findall(r'Member (larder_\w+)\(.*\(function\) of file larder\.h is not documented', done.stderr)
        self.assertEqual(bare, [])


if __name__ == '__main__':
    unittest.main(argv=[sys.argv[0], *sys.argv[5:]], verbosity=1)
