#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Joins the files of this folder to the dashboard: one page that asks nobody but the relay that served it.

    join.py --page FILE      the page, to look at
    join.py --header FILE    the same as C, with the policy that allows this page's script and style, and nothing else
"""
import base64
import hashlib
import os
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))
STYLES = ('uplot.css', 'style.css')
SCRIPTS = ('text.js', 'relay.js', 'history.js', 'charts.js', 'table.js', 'panels.js', 'lists.js', 'acts.js', 'drill.js', 'main.js')


def read(name):
    with open(os.path.join(FOLDER, name), encoding='utf-8') as file:
        return file.read()


def script():
    """The library with its licence, then ours in a scope of its own."""
    ours = '\n'.join(read(name) for name in SCRIPTS)
    return '/*\n%s\n*/\n%s\n(() => {\n\'use strict\';\n%s})();\n' % (read('uplot.LICENSE').strip(), read('uplot.js').strip(), ours)


def within(page, tag, text):
    """The page with this text between the tags, and what the policy calls it."""
    opening, closing = '<%s>' % tag, '</%s>' % tag
    if page.count(opening + closing) != 1 or closing in text.lower():
        sys.exit('join.py: no single empty %s, or a text that would end it' % opening)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return page.replace(opening + closing, opening + text + closing), 'sha256-' + digest


def join():
    page, style = within(read('page.html'), 'style', '\n'.join(read(name) for name in STYLES))
    page, code = within(page, 'script', script())
    return page, ("default-src 'none'; script-src '%s'; style-src '%s'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
                  "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'" % (code, style))


def header(page, policy):
    octets = page.encode()
    rows = [', '.join(str(octet) for octet in octets[i:i + 24]) for i in range(0, len(octets), 24)]
    return '/* Written by control/dashboard/join.py. */\n#include <stdint.h>\n\nstatic const char dashboard_policy[] = "%s";\nstatic const uint8_t dashboard_page[] = {\n%s};\n' % (
        policy, ',\n'.join(rows))


def main(arguments):
    if len(arguments) != 2 or arguments[0] not in ('--page', '--header'):
        sys.exit(__doc__)
    page, policy = join()
    with open(arguments[1], 'w', encoding='utf-8') as file:
        file.write(page if arguments[0] == '--page' else header(page, policy))


if __name__ == '__main__':
    main(sys.argv[1:])
