#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Plants a bug: plant.py SOURCE OUTPUT OLD NEW writes SOURCE with its only OLD replaced by NEW.

Where OLD is not there (any more) the source is written unchanged: the test that must find the bug then fails, and says which.
"""
import sys

source, output, old, new = sys.argv[1:]
with open(source, encoding="utf-8") as file:
    text = file.read()
if text.count(old) != 1:
    print(f"plant: {source} has {text.count(old)} of: {old}", file=sys.stderr)
else:
    text = text.replace(old, new)
with open(output, "w", encoding="utf-8") as file:
    file.write(f'#line 1 "{source}"\n{text}')
