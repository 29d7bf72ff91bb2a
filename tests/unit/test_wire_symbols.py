#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
The wire engine keeps no state but in a stack: no object of its folders format, net and tcp has a
variable that can be written to. Reads the symbols of the library given, prints TAP.

Arguments: the library, the compiler and its arguments (for the planted offences).
"""
import pathlib
import re
import subprocess
import sys
import tempfile

FOLDERS = ["format", "net", "tcp"]
# Classes of nm for what is stored in memory, weak and common symbols among them.
STORED = set("BbDdCcGgSsVvu")
# Written to by the dynamic linker only, before the program begins, or never.
CONSTANT = (".data.rel.ro", ".rodata")
# Sanitizers and coverage describe what they watch in data of their own.
COMPILER = re.compile(r"(\.L|__asan_|__odr_asan|__sancov|__gcov|__llvm|__unnamed_)")
MEMBER = re.compile(r"^Symbols from .*?([^/\[\]]+)\]?:$")

PLANTED = """
static const int constant[2] = {1, 2};
static const char *const names[2] = {"a", "b"};
const int *const exported = constant;
static int zero, value = 1;
int visible[3];
static __thread int of_thread;
static const char *pointer = "c";
int use(int i)
{
    static int calls;
    static const int hidden[2] = {3, 4};
    pointer = names[i];
    return calls++ + zero++ + value++ + visible[i]++ + of_thread++ + hidden[i] + *exported + *pointer;
}
"""
PLANTED_EXPECTED = {"zero", "value", "visible", "of_thread", "pointer", "calls"}


def writable_of(symbols):
    """Object file and name of every variable in the output of nm --format=sysv; and the objects."""
    member, objects, found = "", set(), []
    for line in symbols.splitlines():
        heading = MEMBER.match(line)
        if heading:
            member = heading.group(1)
            objects.add(member)
            continue
        fields = [field.strip() for field in line.split("|")]
        if len(fields) != 7 or fields[2] not in STORED or fields[6].startswith(CONSTANT):
            continue
        if not COMPILER.match(fields[0]):
            found.append((member, fields[0]))
    return objects, found


def symbols_of(path):
    return subprocess.run(["nm", "--format=sysv", str(path)], check=True, capture_output=True,
                          text=True).stdout


def self_test(compiler):
    """All planted variables are found, and none of the constants."""
    with tempfile.TemporaryDirectory() as folder:
        source, built = pathlib.Path(folder, "planted.c"), pathlib.Path(folder, "format_planted.o")
        source.write_text(PLANTED, encoding="utf-8")
        subprocess.run(compiler + ["-O0", "-fPIC", "-c", str(source), "-o", str(built)], check=True)
        objects, found = writable_of(symbols_of(built))
    # A variable of a function is "calls.0" to gcc and "use.calls" to clang.
    names = {re.sub(r"^use\.|\.[0-9]+$", "", name) for _, name in found}
    return objects == {"format_planted.o"} and names == PLANTED_EXPECTED, names


def main():
    library, compiler = sys.argv[1], sys.argv[2:]
    print(f"1..{len(FOLDERS) + 1}")
    is_ok, names = self_test(compiler)
    failed = not is_ok
    if not is_ok:
        print(f"# found of the planted ones: {sorted(names)}")
    print(f"{'ok' if is_ok else 'not ok'} 1 - planted variables are found")
    objects, found = writable_of(symbols_of(library))
    for number, folder in enumerate(FOLDERS, 2):
        mine = [name for name in objects if name.startswith(folder + "_")]
        offences = [(member, name) for member, name in found if member in mine]
        for member, name in offences:
            print(f"# {member}: {name}")
        is_ok = bool(mine) and not offences
        failed |= not is_ok
        print(f"{'ok' if is_ok else 'not ok'} {number} - {folder}: {len(mine)} objects")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
