#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Alerts and the dashboard of Ansible's role monitoring ask for metrics that there are, by what they are: of a counter the rate, of a histogram
its parts. Arguments: program, folder of the role."""
import json
import os
import re
import shutil
import subprocess
import sys

try:
    import yaml
except ImportError:
    print("1..0 # SKIP no python3-yaml")
    sys.exit(0)

PARTS = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
OF_A_RATE = ("rate", "irate", "increase")


def metrics_of(page):
    """Names as they are scraped, and their types."""
    rows = re.findall(r"^\| `(angarium_\w+)(?:\{\w+\})?` \| (\w+) \|", page, re.M)
    return {name + part: kind for name, kind in rows for part in PARTS[kind]}


def complaints(expression, metrics):
    for match in re.finditer(r"(?:(\w+)\()?\b(angarium_\w+)", expression):
        function, name = match.groups()
        if name not in metrics:
            yield f"there is no {name}"
        elif (metrics[name] == "gauge") == (function in OF_A_RATE):
            yield f"{name} is a {metrics[name]}: {expression}"


def rules_are_good(folder, metrics):
    with open(folder + "/files/angarium.rules.yml", encoding="utf-8") as file:
        rules = [rule for group in yaml.safe_load(file)["groups"] for rule in group["rules"]]
    for rule in rules:
        for text in complaints(rule["expr"], metrics):
            yield f"{rule['alert']}: {text}"
        if set(rule["annotations"]) != {"summary", "action"} or rule["labels"].get("severity") not in ("page", "ticket"):
            yield f"{rule['alert']}: expected a severity, a summary and an action"
    if len({rule["alert"] for rule in rules}) != len(rules) or len(rules) < 10:
        yield "expected rules, each with a name of its own"


def promtool_takes_the_rules(folder, _):
    promtool = shutil.which("promtool")
    done = promtool and subprocess.run([promtool, "check", "rules", folder + "/files/angarium.rules.yml"], capture_output=True, text=True, check=False)
    if done and done.returncode:
        yield done.stdout + done.stderr


def overlaps(one, other):
    return (one["x"] < other["x"] + other["w"] and other["x"] < one["x"] + one["w"] and
            one["y"] < other["y"] + other["h"] and other["y"] < one["y"] + one["h"])


def dashboard_is_good(folder, metrics):
    with open(folder + "/files/angarium.json", encoding="utf-8") as file:
        board = json.load(file)
    panels = board["panels"]
    asked = set()
    for panel in panels:
        for target in panel.get("targets", []):
            asked.update(re.findall(r"angarium_\w+", target["expr"]))
            for text in complaints(target["expr"], metrics):
                yield f"{panel['title']}: {text}"
            if 'instance=~"$instance"' not in target["expr"]:
                yield f"{panel['title']}: not of the relays that were chosen: {target['expr']}"
    if len({panel["id"] for panel in panels}) != len(panels) or len(asked) < 40:
        yield "expected panels, each with an id of its own"
    for i, panel in enumerate(panels):
        for other in panels[:i]:
            if overlaps(panel["gridPos"], other["gridPos"]):
                yield f"{panel['title']} lies on {other['title']}"


def wrong_names_are_seen(_, metrics):
    for expression in ("angarium_queue_mesages > 1", "rate(angarium_queue_messages[5m])", "angarium_queue_deferrals_total > 1",
                       "rate(angarium_accept_seconds[5m])"):
        if not list(complaints(expression, metrics)):
            yield "not seen: " + expression


def main():
    program, folder = sys.argv[1:3]
    page = subprocess.run([program, "metrics", "--reference"], check=True, capture_output=True, text=True).stdout
    metrics = metrics_of(page)
    checks = (rules_are_good, promtool_takes_the_rules, dashboard_is_good, wrong_names_are_seen)
    failed = 0
    print(f"1..{len(checks)}")
    for number, check in enumerate(checks, 1):
        found = list(check(os.path.abspath(folder), metrics))
        for text in found:
            print("#", text.replace("\n", "\n# "))
        failed += bool(found)
        print(("not ok" if found else "ok"), number, "-", check.__name__.replace("_", " "))
    return failed > 0


sys.exit(main())
