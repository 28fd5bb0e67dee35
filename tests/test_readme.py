#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The snippets of the README and of the adapters': each piece of code is compiled, and run where it is a program; each command is one that exists.

Usage: test_readme.py SOURCE_ROOT BUILD_ROOT LARDER CC [CXX]

    ```c, ```cpp        compiled with all warnings as errors, in front of the library of this build; run if there is a main()
    ```python           run, where there are PyTorch and its adapter
    ```meson, ```cmake  each line is also in the consumer of tests/subproject, which other tests build
    ```sh               programs, subcommands and options are there; nothing is run but --help
"""
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE, BUILD, LARDER, CC = (pathlib.Path(argument) for argument in sys.argv[1:5])
CXX = sys.argv[5] if len(sys.argv) > 5 else None
DOCUMENTS = ('README.md', 'lib/adapters/README.md')
TORCH = BUILD / 'lib/adapters/liblarder-torch.so'
# What a reader has, or is told to have: no part of larder.
ELSEWHERE = {'adb', 'apt-get', 'cd', 'git', 'meson', 'ninja', 'node', 'python3', 'c++', 'cc', 'cmake', 'pkg-config'}


def run(*command, **more):
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120, check=False, **more)


def blocks(language):
    """The snippets in that language, each with its place."""
    for document in DOCUMENTS:
        text = (SOURCE / document).read_text()
        for found in re.finditer(rf'^```{language}\n(.*?)^```$', text, re.S | re.M):
            yield f'{document}:{text[:found.start()].count(chr(10)) + 2}', found.group(1)


def help_of(*subcommand):
    return run(LARDER, *subcommand, '--help').stdout


class CodeTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix='larder-readme-'))
        self.addCleanup(shutil.rmtree, self.folder)

    def build_and_run(self, compiler, language, suffix, place, code, *flags):
        source = self.folder / f'snippet{suffix}'
        program = source.with_suffix('')
        source.write_text(code)
        is_program = re.search(r'^int main\(', code, re.M)
        where = f'{place} ({language})'
        libraries = [f'-L{BUILD}/lib', '-llarder', f'-Wl,-rpath,{BUILD}/lib', '-lpthread']
        # Where the headers are, once installed.
        adapters = self.folder / 'include/larder/adapters'
        adapters.mkdir(parents=True, exist_ok=True)
        for header in SOURCE.glob('lib/adapters/*/*.h'):
            shutil.copy(header, adapters)
        includes = [f'-I{self.folder}/include', f'-I{SOURCE}/lib/include']
        end = ['-o', program, *libraries] if is_program else ['-c', '-o', source.with_suffix('.o')]
        done = run(*shlex.split(str(compiler)), *flags, '-O1', '-Wall', '-Wextra', '-Werror', *includes, source, *end)
        self.assertEqual(done.returncode, 0, f'{where} does not compile:\n{done.stderr}')
        if is_program:
            done = run(program)
            self.assertEqual(done.returncode, 0, f'{where} fails: {done.stdout}{done.stderr}')

    def test_c_compiles_and_runs(self):
        found = list(blocks('c'))
        self.assertGreaterEqual(len(found), 3)
        for place, code in found:
            if 'larder_xnnpack.h' in code and run(CC, '-E', '-include', 'xnnpack.h', '-x', 'c', '/dev/null').returncode != 0:
                continue  # XNNPACK is not here (Debian: libxnnpack-dev, libpthreadpool-dev)
            self.build_and_run(CC, 'C', '.c', place, code, '-std=c11', '-D_GNU_SOURCE')

    @unittest.skipUnless(CXX, 'there is no C++ compiler')
    def test_cpp_compiles_and_runs(self):
        found = list(blocks('cpp'))
        self.assertGreaterEqual(len(found), 2)
        for place, code in found:
            self.build_and_run(CXX, 'C++', '.cpp', place, code, '-std=c++17')

    def test_python_runs(self):
        found = list(blocks('python'))
        self.assertGreaterEqual(len(found), 1)
        python = shutil.which('python3', path='/usr/bin') or sys.executable
        if not TORCH.exists() or run(python, '-c', 'import torch').returncode != 0:
            self.skipTest('PyTorch, or its adapter, is not here')
        for place, code in found:
            done = run(python, '-c', code, cwd=TORCH.parent)
            self.assertEqual(done.returncode, 0, f'{place} fails: {done.stderr}')

    def test_build_files_are_those_of_the_consumer(self):
        for language, name in (('meson', 'meson.build'), ('cmake', 'CMakeLists.txt')):
            consumer = (SOURCE / 'tests/subproject' / name).read_text()
            consumer = consumer.replace("'consumer'", "'engine'").replace('consumer', 'engine')
            found = list(blocks(language))
            self.assertGreaterEqual(len(found), 1)
            for place, code in found:
                for line in filter(None, code.splitlines()):
                    self.assertIn(line, consumer, f'{place}')


class CommandsTest(unittest.TestCase):
    """Taken apart as a shell would, without a shell."""

    def commands(self):
        for place, code in blocks('sh'):
            for line in code.replace('\\\n', ' ').splitlines():
                words = shlex.split(line, comments=True)
                command = []
                for word in [*words, ';']:
                    if word in (';', '&&', '|', '||'):
                        if command:
                            yield place, command
                        command = []
                    elif command or not re.fullmatch(r'\w+=.*', word):
                        command.append(word)

    def test_there_are_some(self):
        self.assertGreaterEqual(len(list(self.commands())), 8)

    def test_each_program_is_there(self):
        for place, command in self.commands():
            program = command[0]
            if program.startswith('build/'):
                good = os.access(BUILD / program[len('build/'):], os.X_OK)
            elif '/' in program:
                good = os.access(SOURCE / program, os.X_OK)
            else:
                good = program in ELSEWHERE or program == 'larder'
            self.assertTrue(good, f'{place}: there is no {program}')

    def test_each_file_of_the_project_is_there(self):
        for place, command in self.commands():
            for word in command[1:]:
                if word.startswith(('bench/', 'lib/', 'tests/', 'tools/')):
                    self.assertTrue(list(SOURCE.glob(word)), f'{place}: there is no {word}')
                elif word.startswith('build/'):
                    self.assertTrue((BUILD / word[len('build/'):]).exists(), f'{place}: there is no {word}')

    def test_each_subcommand_and_option_of_larder_is_known_to_it(self):
        subcommands = re.findall(r'^  (\S+)', help_of().split('Subcommands:')[1].split('\n\n')[0], re.M)
        for place, command in self.commands():
            if pathlib.Path(command[0]).name != 'larder' or command[1].startswith('--'):
                continue
            self.assertIn(command[1], subcommands, f'{place}')
            # what follows the command of `larder run` is that command's
            known = help_of(command[1])
            for word in command[2:]:
                if not word.startswith('--'):
                    if command[1] in ('run', 'record') and not known_argument(command, word):
                        break
                    continue
                self.assertRegex(known, rf'(?<![\w-]){re.escape(word)}(?![\w-])', f'{place}: {command[1]}')

    def test_each_command_of_tools_dev_is_known_to_it(self):
        known = re.findall(r'^  (\w+(?: --all)?)', run(SOURCE / 'tools/dev', 'help').stdout, re.M)
        for place, command in self.commands():
            if command[0] == 'tools/dev':
                self.assertIn(command[1], known, f'{place}')


def known_argument(command, word):
    """Whether a word is the value of the option before it, not the beginning of another command."""
    before = command[command.index(word) - 1]
    return before.startswith('--') and before != '--'


class LinksTest(unittest.TestCase):
    def test_each_link_into_the_project_leads_somewhere(self):
        for document in (*DOCUMENTS, 'CONTRIBUTING.md', 'CHANGELOG.md', 'bench/README.md', 'bench/engines/README.md'):
            text = (SOURCE / document).read_text()
            for link in re.findall(r'\]\(([^)#:]+)\)|src="([^":]+)"', text):
                target = link[0] or link[1]
                self.assertTrue((SOURCE / document).parent.joinpath(target).exists(), f'{document}: {target}')


if __name__ == '__main__':
    unittest.main(argv=[sys.argv[0]], verbosity=1)
