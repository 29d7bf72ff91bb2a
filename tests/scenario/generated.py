# SPDX-License-Identifier: Apache-2.0
"""What scripts that make scenarios have in common: they play them with the program given, or with --write DIR write them there."""
import os
import subprocess
import sys
import tempfile


def write(directory, scenarios):
    """Each (name, text) as a file; their paths."""
    paths = []
    for name, text in scenarios:
        paths.append(os.path.join(directory, name + ".scn"))
        with open(paths[-1], "w", encoding="utf-8") as file:
            file.write(text)
    return paths


def main(scenarios):
    if len(sys.argv) == 3 and sys.argv[1] == "--write":
        write(sys.argv[2], scenarios)
        return 0
    with tempfile.TemporaryDirectory() as directory:
        return subprocess.run([sys.argv[1]] + write(directory, scenarios), check=False).returncode
