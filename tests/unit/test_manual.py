#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
The manual pages and the completion, made from the programs, hold all that the programs know; what is
packaged is a configuration that is accepted and serves nobody but this machine.
Arguments: angariumd, angarium, angarium-load, top of the sources. Prints TAP.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

DAEMON, CLI, LOAD, SOURCES = sys.argv[1:5]
FOLDER = tempfile.mkdtemp(prefix="test_manual.")


class Skip(Exception):
    pass


def run(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def read(*parts):
    with open(os.path.join(*parts), encoding="utf-8") as file:
        return file.read()


def plain(name):
    """A page as text: no font changes, no escapes."""
    text = re.sub(r"\\f[A-Z]", "", read(FOLDER, name))
    return text.replace("\\-", "-").replace("\\e", "\\").replace("\\(aq", "'").replace("\\(ti", "~").replace("\\&", "")


def expect(condition, text=""):
    if not condition:
        raise AssertionError(text)


def is_written():
    text = run(os.path.join(SOURCES, "packaging/manual.py"), CLI, LOAD, FOLDER)
    expect(text == "", text)
    expect(sorted(os.listdir(FOLDER)) == ["_angarium", "angarium-load.1", "angarium.1", "angarium.bash", "angarium.yaml.5", "angariumd.8"])


def has_every_verb():
    page, usage = plain("angarium.1"), run(CLI)
    verbs = [line.split("\t") for line in run(CLI, "help", "--reference").splitlines()]
    expect(len(verbs) == len(re.findall(r"^  \S", usage, re.M)) > 20, (len(verbs), usage))
    for name, operands, meaning in verbs:
        expect(f".TP\n{name} {operands}".rstrip() + "\n" + meaning.replace("`", "") + "\n" in page, name)


def has_every_option():
    page, reference = plain("angarium.yaml.5"), run(CLI, "check", "--reference")
    options = re.findall(r"^\| `([a-z0-9_]+)` \|", reference, re.M)
    expect(len(options) > 80, options)
    expect(page.count("\n.TP\n") == len(options), (page.count("\n.TP\n"), len(options)))
    for option in options:
        expect(f".TP\n{option}\n" in page, option)


def has_every_option_of_the_load():
    page = plain("angarium-load.1")
    for command, least in (("source", 20), ("sink", 20), ("both", 1), ("audit", 2)):
        section = page[page.index(".SH OPTIONS OF " + command.upper()):].split(".SH ")[1]
        options = re.findall(r"^  (?:-\w, |    )(--[a-z-]+)", run(LOAD, command, "--help"), re.M)
        expect(len(options) >= least, options)
        for option in options:
            expect(re.search("^.*" + option + r"\b.*\n\S", section, re.M), (command, option))


def has_what_the_daemon_takes():
    options = re.findall(r"\[(-\w(?: FILE)?)\]", run(DAEMON, "-x"))
    expect(len(options) == 2, options)
    for option in options:
        expect(f"\n{option}\n" in plain("angariumd.8"), option)


def is_good_roff():
    if shutil.which("groff") is None:
        raise Skip("groff is not installed")
    for name in os.listdir(FOLDER):
        if re.search(r"\.[0-9]$", name):
            done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", os.path.join(FOLDER, name)], capture_output=True, text=True, check=False)
            expect(done.stderr == "", done.stderr)


def completes():
    script = f'''source {FOLDER}/angarium.bash
        COMP_WORDS=(angarium queue s); COMP_CWORD=2; _angarium; echo "${{COMPREPLY[*]}}" | tr " " "\\n" | sort | paste -sd " "
        COMP_WORDS=(angarium rel); COMP_CWORD=1; _angarium; echo "${{COMPREPLY[*]}}" | tr " " "\\n" | sort | paste -sd " "
        COMP_WORDS=(angarium bounce x --rea); COMP_CWORD=3; _angarium; echo "${{COMPREPLY[*]}}" | tr " " "\\n" | sort | paste -sd " "'''
    text = run("bash", "-c", script)
    expect(text == "show summary\nrelease reload\n--reason\n", text)


def has_an_example_of_every_verb():
    page = plain("angarium.1")
    for name in [line.split("\t")[0] for line in run(CLI, "help", "--reference").splitlines()]:
        section = re.search(r"^\.TP\n" + re.escape(name) + r"(?: [^\n]*)?\n(.*?)(?=^\.TP|^\.SH)", page, re.M | re.S)[1]
        # `drain` has none of `drain end`
        expect(re.search(r"^Example: angarium " + re.escape(name) + r"\b", section, re.M), (name, section))


def completes_in_zsh():
    if shutil.which("zsh") is None:
        raise Skip("zsh is not installed")
    for words, expected in (("queue s", "show summary"), ("rel", "release reload"), ("bounce x --rea", "--reason"), ("site set x --dur", "--duration")):
        done = run("zsh", "-f", "-c", f'''
            _files() {{ print files; }}
            _describe() {{ print -l -- "${{(@P)4}}" | sed "s/:.*//"; }}
            compadd() {{ shift; print -l -- "$@"; }}
            words=(angarium {words}); CURRENT=${{#words}}; source {FOLDER}/_angarium''')
        given = " ".join(sorted(word for word in done.split() if word.startswith(words.split()[-1])))
        expect(given == expected, (words, done))


def packaged_configuration_is_safe():
    file = os.path.join(SOURCES, "packaging/angarium.yaml")
    text = run(CLI, "check", file)
    expect(text == f"{file}: ok\n", text)
    yaml = read(file)
    addresses = re.findall(r"address: *(\S+)", yaml)
    expect(addresses == ["127.0.0.1:2525"], addresses)
    expect(re.findall(r"relay_from: *(.*)", yaml) == ['[127.0.0.0/8, "::1"]'], yaml)


def versions_agree():
    version = run(CLI, "version").split()[1]
    expect(re.match(r"angarium \((\S+)\)", read(SOURCES, "debian/changelog"))[1] == version, version)


def main():
    tests = [is_written, has_every_verb, has_every_option, has_every_option_of_the_load, has_what_the_daemon_takes, is_good_roff,
             completes, has_an_example_of_every_verb, completes_in_zsh, packaged_configuration_is_safe, versions_agree]
    print(f"1..{len(tests)}")
    failed = 0
    for number, test in enumerate(tests, 1):
        try:
            test()
            print(f"ok {number} - {test.__name__}", flush=True)
        except Skip as reason:
            print(f"ok {number} - {test.__name__} # SKIP {reason}", flush=True)
        except Exception as error:  # a test that breaks is a test that fails
            failed += 1
            for line in f"{type(error).__name__}: {error}".splitlines():
                print("#", line)
            print(f"not ok {number} - {test.__name__}", flush=True)
    shutil.rmtree(FOLDER, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
