#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
When script/optimised trains: not for what it was trained for, but anew for another source or another compiler. meson, ninja, the compiler, and what looks
at programs are played. Argument: folder of the sources. Prints TAP.
"""
import os
import shutil
import subprocess
import sys
import tempfile

SOURCE = sys.argv[1]
PARTS = ("base", "bench", "control", "dataplane", "dns", "queue", "relay", "tests/sim")
COUNTED = "control/libshard.a.p/shard.c.gcda"
PLAYED = {
    "meson": 'echo "$@" >>meson.log',
    "ninja": 'mkdir -p build/control/libshard.a.p build/bench/line; echo x >build/%s; cp line build/bench/line/angarium-line' % COUNTED,
    "gcc": "cat version",
    "nm": "printf '%s\\n' tcp_input _start other.lto_priv.0",
    "readelf": "echo libjemalloc.so",
}


def write(name, text, mode=0o644):
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    with open(name, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(name, mode)


def project():
    """A project in this folder, and what it is built with."""
    for part in PARTS:
        write(part + "/part.c", part)
    write("meson.build", "")
    for name in ("script/optimised", "tests/unit/test_link_time.py"):
        os.makedirs(os.path.dirname(name), exist_ok=True)
        shutil.copy(os.path.join(SOURCE, name), name)
    for name, command in PLAYED.items():
        write("bin/" + name, "#!/bin/sh\n%s\n" % command, 0o755)
    write("line", "#!/bin/sh\necho {}\n", 0o755)
    write("version", "gcc 12.2.0\n")
    write("build/build.ninja", "rule c_COMPILER\n command = gcc $ARGS -o $out -c $in\n deps = gcc\n\nrule other\n command = false $ARGS\n")


def trains():
    """Runs it: did it train?"""
    write("meson.log", "")
    subprocess.run(["script/optimised", "build"], check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PATH": os.getcwd() + "/bin:" + os.environ["PATH"]})
    with open("meson.log", encoding="utf-8") as log:
        profiles = [word for word in log.read().split() if word.startswith("-Db_pgo=")]
    assert profiles in ([], ["-Db_pgo=generate", "-Db_pgo=use"]), profiles
    return profiles != []


STEPS = [
    ("it is trained once", lambda: None, True),
    ("what was trained for is kept", lambda: None, False),
    ("another source is trained for", lambda: write("queue/part.c", "changed"), True),
    ("that is kept, too", lambda: None, False),
    ("another compiler is trained for", lambda: write("version", "gcc 12.2.1\n"), True),
    ("and so is its first", lambda: write("version", "gcc 12.2.0\n"), True),
]


def main():
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        project()
        print("1..%d" % len(STEPS))
        for number, (what, change, expected) in enumerate(STEPS, 1):
            change()
            is_good = trains() == expected
            failed += not is_good
            print("%s %d - %s" % ("ok" if is_good else "not ok", number, what))
        os.chdir("/")
    return failed > 0


sys.exit(main())
