#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Prints a header as Doxygen wants it: comments that document a declaration are marked as such.

The headers are for people, who need no marks: a comment stands before what it is about, or behind it on the same line. Here
that is told to Doxygen. The first comment is about the file; one that begins with a rule of dashes is a heading, about nothing.
"""
import sys


def marked(text):
    about_the_file = True
    for line in text.split("\n"):
        code, opens, comment = line.partition("/*")
        is_no_comment = not opens or code.startswith(("#", " *"))
        if is_no_comment or comment.startswith(" ---") or "SPDX" in comment:
            yield line
        elif code.strip():
            yield f"{code}/**<{comment}"
        elif about_the_file:
            about_the_file = False
            yield f"{code}/** @file\n * {comment}"
        else:
            yield f"{code}/**{comment}"


def main():
    with open(sys.argv[1], encoding="utf-8") as header:
        sys.stdout.write("\n".join(marked(header.read())))


main()
