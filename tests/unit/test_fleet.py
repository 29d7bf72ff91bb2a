#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
What can be known of Ansible's files and of docs/quickstart.md without a machine: files are YAML, configurations in the inventories are
accepted, commands are commands that there are. tests/deploy runs them. Arguments: angarium, top of the sources. Prints TAP.
"""
import glob
import os
import re
import subprocess
import sys
import tempfile

try:
    import yaml
except ImportError:
    print("1..0 # SKIP no python3-yaml")
    sys.exit(0)

CLI, TOP = [os.path.abspath(path) for path in sys.argv[1:3]]
sys.path.insert(0, os.path.join(TOP, "tests/deploy"))
from quickstart import commands, page_read, plain, shown_but_not_printed  # pylint: disable=wrong-import-position

# Of other packages; what is not here must be a file of ours.
KNOWN = {"apt-get", "cat", "cd", "ls", "ss", "tail", "ip", "ansible-playbook", "angarium", "systemctl", "cp", "swaks"}


def read(*parts):
    with open(os.path.join(TOP, *parts), encoding="utf-8") as file:
        return file.read()


def ansible_files_are_yaml():
    found = [path for path in glob.glob(TOP + "/ansible/**/*.yml", recursive=True) if "/templates/" not in path]
    for path in found:
        try:
            yaml.safe_load(read(path))
        except yaml.YAMLError as error:
            yield f"{path}: {error}"
    if len(found) < 40:
        yield f"{len(found)} files"


def playbooks_have_their_roles():
    named = {role["role"] for name in ("site.yml", "trial.yml") for play in yaml.safe_load(read("ansible", name)) for role in play.get("roles", [])}
    there = {os.path.basename(path) for path in glob.glob(TOP + "/ansible/roles/*")}
    if there - named != {"certificates"}:  # which role relay runs
        yield f"in no playbook: {there - named}"
    if named - there:
        yield f"there are no roles {named - there}"
    table = set(re.findall(r"^\| (\w+) \| .* \| .* \|$", read("docs/ansible.md"), re.M)) - {"role"}
    if table != there:
        yield f"docs/ansible.md has {table}"


def documented_variables_are_there():
    defaults = {name for role in glob.glob(TOP + "/ansible/roles/*/defaults/main.yml") for name in yaml.safe_load(read(role))}
    roles = "|".join(os.path.basename(path) for path in glob.glob(TOP + "/ansible/roles/*"))
    used = set(re.findall(rf"`((?:{roles})_\w+)`", read("docs/ansible.md")))
    used |= {name for path in glob.glob(TOP + "/ansible/*/group_vars/*.yml") for name in yaml.safe_load(read(path))}
    if used - defaults or len(used) < 20:
        yield f"no role has {used - defaults}"


def example_configurations_are_accepted():
    found = glob.glob(TOP + "/ansible/*/group_vars/relays.yml")
    for path in found:
        text = re.sub(r"\{\{ *ansible_host *\}\}", "127.0.0.2", re.sub(r"\{\{ *inventory_hostname *\}\}", "relay.example", read(path)))
        with tempfile.TemporaryDirectory() as folder:
            configuration = yaml.safe_load(text.replace("/var/lib/angarium", folder).replace("/etc/angarium", TOP + "/packaging"))["relay_configuration"]
            with open(folder + "/angarium.yaml", "w", encoding="utf-8") as file:
                yaml.safe_dump(configuration, file)
            done = subprocess.run([CLI, "check", file.name], capture_output=True, text=True, check=False)
        if done.returncode != 0 or "ok\n" not in done.stdout:
            yield path + ": " + done.stdout + done.stderr
    if len(found) != 2:
        yield f"{len(found)} of them"


def packages_have_this_version():
    version = re.match(r"angarium \((\S+)\)", read("debian/changelog"))[1]
    for path in glob.glob(TOP + "/ansible/*/group_vars/*.yml"):
        for other in re.findall(r"_(\d[\w.+~-]*)_amd64\.deb", read(path)):
            if other != version:
                yield f"{path}: {other}, not {version}"


def command_words(command):
    """The programs of a command line, each with its words."""
    for part in re.split(r"\||&&|;", command):
        words = part.split()
        yield words[4:] if words[:3] == ["ip", "netns", "exec"] else words


def quickstart_has_commands_that_there_are():
    verbs = subprocess.run([CLI, "help", "--reference"], capture_output=True, text=True, check=True).stdout
    verbs = {line.split("\t")[0].split()[0] for line in verbs.splitlines()}
    found = commands(page_read())
    for command, _ in found:
        done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            yield done.stderr
        for words in command_words(command):
            if words[0] not in KNOWN and not os.access(os.path.join(TOP, words[0]), os.X_OK):
                yield f"{words[0]} is no program of ours, and not known: {command}"
            if words[0] == "angarium" and words[1] not in verbs:
                yield "no verb: " + command
            if words[0] == "ansible-playbook":
                yield from (f"there is no ansible/{name}" for name in (words[words.index("-i") + 1], next(word for word in words if word.endswith(".yml")))
                            if not os.path.exists(os.path.join(TOP, "ansible", name)))
    if len(found) < 8 or sum(bool(shown) for _, shown in found) < 5:
        yield f"{len(found)} commands"
    if "(docs/quickstart.md)" not in read("README.md"):
        yield "README.md does not name it"


def differences_are_seen():
    printed = "one 12\nchanged=3 failed=0\ntwo  abc  45 <1234@relay.example>\nthree of them\n"
    for shown, expected in ((["one 7", "...", "three of them"], None), (["two abc 9 <77@relay.example>"], None), (["three of..."], None),
                            (["three", "one 12"], "three"), (["three of them", "one 12"], "one 12"), (["two abd 45 <1@relay.example>"], "two abd 45 <1@relay.example>"),
                            (["thr..."], "thr..."), (["changed=70 failed=0"], None), (["changed=0 failed=0"], "changed=0 failed=0")):
        if shown_but_not_printed(shown, printed) != expected:
            yield f"{shown}: {shown_but_not_printed(shown, printed)}"
    if plain("Thu, 26 Nov 2026 10:00:00 +0000") != plain("Fri, 01 Dec 2027 01:02:03 +0000"):
        yield "days differ"


def main():
    checks = (ansible_files_are_yaml, playbooks_have_their_roles, documented_variables_are_there, example_configurations_are_accepted,
              packages_have_this_version, quickstart_has_commands_that_there_are, differences_are_seen)
    failed = 0
    print(f"1..{len(checks)}")
    for number, check in enumerate(checks, 1):
        found = list(check())
        for text in found:
            print("#", text.replace("\n", "\n# "))
        failed += bool(found)
        print("not ok" if found else "ok", number, "-", check.__name__.replace("_", " "))
    return failed > 0


sys.exit(main())
