#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Writes the manual pages and the completion for bash and zsh from what the programs print (and examples.txt): the verbs of the
command line, the reference of the configuration, the usage of the load generator.
Arguments: angarium, angarium-load, folder to write to.
"""
import os
import re
import shlex
import subprocess
import sys


def escape(text):
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("^", "\\(ha").replace("~", "\\(ti")
    return "\\&" + text if text.startswith(".") else text


def inline(text):
    """Markdown of one paragraph: code is bold, links and stars are their text."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    parts = text.split("`")
    parts = [escape(part.replace("*restart*", "restart")) if i % 2 == 0 else "\\fB" + escape(part) + "\\fR"
             for i, part in enumerate(parts)]
    return re.sub(r"^([.'])", r"\\&\1", "".join(parts))


def cells_of(row):
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def table_row(cells):
    """A row of the reference: option, expects, default, takes effect, meaning."""
    name, expects, default, effect, meaning = cells
    facts = [expects] + ([f"default {default}"] if default else []) + (["changed by a restart only"] if "restart" in effect else [])
    return [".TP", inline(name), inline(meaning), ".br", "(" + inline("; ".join(facts)) + ")"]


def from_markdown(text):
    lines, is_code = [], False
    for line in re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).splitlines():
        if line.startswith("```"):
            is_code = not is_code
            lines += [".PP", ".nf", ".RS 4"] if is_code else [".RE", ".fi"]
        elif is_code:
            lines.append(escape(line))
        elif line.startswith("# ") or re.match(r"\|(-+\|)+$", line) or line.startswith("| option "):
            continue
        elif line.startswith("#"):
            lines.append(".SH " + escape(line.lstrip("# ")).upper().replace("\\E", "\\e"))
        elif line.startswith("|") and len(cells_of(line)) == 5:
            lines += table_row(cells_of(line))
        elif line == "":
            lines.append(".PP")
        else:
            lines.append(inline(line))
    kept = []
    for i, line in enumerate(lines):  # a paragraph that is empty, or begins behind a heading, is none
        following = lines[i + 1] if i + 1 < len(lines) else ".SH"
        if line == ".PP" and (re.match(r"\.(PP|SH|TP)", following) or (kept and kept[-1].startswith(".SH"))):
            continue
        kept.append(line)
    return kept


def printed(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def page(name, section, what, version):
    return [f".TH {name.upper()} {section} \"\" \"Angarium {version}\" \"Angarium\"", ".SH NAME", f"{name} \\- {what}"]


def see_also(*pages):
    return [".SH SEE ALSO", ", ".join(f"\\fB{name}\\fR({section})" for name, section in pages)]


def examples_of(verbs):
    """By verb. A line belongs to the verb of two words, if there is one, else to that of one."""
    names = {name for name, _, _ in verbs}
    examples = {name: [] for name in names}
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "examples.txt"), encoding="utf-8") as file:
        for line in (line.strip() for line in file if not line.startswith("#")):
            words = line.split()
            examples[" ".join(words[:2]) if " ".join(words[:2]) in names else words[0]].append(line)
    return examples


def cli_page(verbs, version):
    examples = examples_of(verbs)
    lines = page("angarium", 1, "see and steer the Angarium mail relay", version)
    lines += [".SH SYNOPSIS", "\\fBangarium\\fR [\\fB\\-s\\fR \\fISOCKET\\fR] \\fIVERB\\fR [\\fIOPERAND\\fR...] [\\fB\\-\\-json\\fR]",
              ".SH DESCRIPTION", "The command line of the relay. It asks the relay over its control socket, and prints text for",
              "people, or with \\fB\\-\\-json\\fR what the relay said. A few verbs need no relay.", ".SH VERBS"]
    for name, operands, meaning in verbs:
        lines += [".TP", f"\\fB{escape(name)}\\fR {escape(operands)}".rstrip(), inline(meaning)]
        lines += [part for example in examples[name] for part in (".br", "Example: \\fBangarium " + escape(example) + "\\fR")]
    lines += [".SH OPTIONS", ".TP", "\\fB\\-s\\fR \\fISOCKET\\fR",
              "The relay's control socket; else what \\fBANGARIUM_SOCKET\\fR names, else \\fI/run/angarium/control.sock\\fR.",
              ".TP", "\\fB\\-\\-json\\fR", "The answer as JSON.",
              ".TP", "\\fB\\-\\-dry\\-run\\fR", "Only count what a verb would act on.",
              ".SH EXIT STATUS", "0 done, 1 refused or failed, 2 wrong usage."]
    return lines + see_also(("angariumd", 8), ("angarium.yaml", 5))


def daemon_page(version):
    lines = page("angariumd", 8, "SMTP relay", version)
    lines += [".SH SYNOPSIS", "\\fBangariumd\\fR [\\fB\\-c\\fR \\fIFILE\\fR] [\\fB\\-u\\fR]", ".SH DESCRIPTION",
              "Takes mail by SMTP, keeps it on disk until it is delivered, and hands it on. It runs in the foreground and logs to",
              "standard error. A configuration with a mistake is refused before anything starts.",
              ".SH OPTIONS", ".TP", "\\fB\\-c\\fR \\fIFILE\\fR", "The configuration; else \\fI/etc/angarium/angarium.yaml\\fR.",
              ".TP", "\\fB\\-u\\fR", "Take the place of the relay that runs with this control socket, in the background; done when it is taken. If that",
              "fails the other one goes on. \\fBangarium upgrade\\fR does this.",
              ".SH SIGNALS", ".TP", "SIGTERM, SIGINT",
              "Drain: no new mail is taken, deliveries in flight end, what waits stays on disk; then exit.",
              ".TP", "SIGHUP", "Open the file of records anew and read the configuration again; one with a mistake changes nothing.",
              ".SH ENVIRONMENT", "NOTIFY_SOCKET, WATCHDOG_USEC: see \\fBsd_notify\\fR(3). The watchdog is fed while every shard turns.",
              ".SH FILES", ".TP", "\\fI/etc/angarium/angarium.yaml\\fR", "the configuration",
              ".TP", "\\fI/var/spool/angarium\\fR", "mail that was accepted",
              ".TP", "\\fI/run/angarium/control.sock\\fR", "the control socket"]
    return lines + see_also(("angarium", 1), ("angarium.yaml", 5))


def configuration_page(reference, version):
    lines = page("angarium.yaml", 5, "configuration of the Angarium mail relay", version) + [".SH DESCRIPTION"]
    return lines + from_markdown(reference) + see_also(("angarium", 1), ("angariumd", 8))


def load_options(usage):
    """What a page of help says of options, as paragraphs with tags."""
    lines = []
    for line in usage.splitlines():
        match = re.match(r"  (?:(-\w), |    )(--[a-z-]+(?: \S+)?) +(.*)$", line)
        if match:
            lines += [".TP", ", ".join("\\fB" + escape(name) + "\\fR" for name in match.group(1, 2) if name), escape(match[3])]
    return lines


def load_page(overview, usages, version):
    """Usages: by command."""
    synopsis = [line.strip() for line in overview.splitlines() if line.startswith("  angarium-load")]
    lines = page("angarium-load", 1, "source and sink of mail, for measuring", version)
    lines += [".SH SYNOPSIS", ".nf"] + [escape(line) for line in synopsis] + [".fi"]
    lines += [".SH DESCRIPTION", "Sends mail as fast as it is asked to, or receives it, and tells what happened. With ledgers on both",
              "sides it tells what was lost, doubled or damaged. docs/load.md explains it."]
    for command, usage in usages.items():
        lines += [".SH OPTIONS OF " + command.upper()] + load_options(usage)
    lines += [".SH EXIT STATUS", "0 done, 1 failed, or the ledger shows a loss, 2 wrong usage."]
    return lines + see_also(("angariumd", 8))


COMPLETION = """# SPDX-License-Identifier: Apache-2.0
# Completion of angarium(1) for bash, written by packaging/manual.py.
_angarium()
{
    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
    case $previous in
    -s | --file | check) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
SECOND_WORDS    esac
    if [ "$COMP_CWORD" = 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "FIRST_WORDS -s" -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -W "OPTIONS" -- "$word")
    fi
}
complete -o default -F _angarium angarium
"""


def completion(verbs):
    first, second, options = [], {}, {"--json"}
    for name, operands, _ in verbs:
        words = name.split()
        first.append(words[0])
        second.setdefault(words[0], []).extend(words[1:])
        options.update(re.findall(r"--[a-z-]+", operands))
    rows = "".join(f'    {word}) mapfile -t COMPREPLY < <(compgen -W "{" ".join(then)}" -- "$word"); return ;;\n'
                   for word, then in second.items() if then)
    return COMPLETION.replace("SECOND_WORDS", rows).replace("FIRST_WORDS", " ".join(dict.fromkeys(first))).replace(
        "OPTIONS", " ".join(sorted(options)))


ZSH = """#compdef angarium
# SPDX-License-Identifier: Apache-2.0
# Completion of angarium(1) for zsh, written by packaging/manual.py.
_angarium()
{
    local -a verbs more options
    case $words[CURRENT-1] in
    -s | --file | check) _files; return ;;
    esac
    if (( CURRENT == 2 )); then
        verbs=(FIRST_WORDS)
        _describe -t verbs verb verbs
        return
    fi
    if (( CURRENT == 3 )); then
        case $words[2] in
SECOND_WORDS        esac
        if (( $#more )); then
            _describe -t verbs verb more
            return
        fi
    fi
    case "$words[2] $words[3] " in
OPTIONS    esac
    compadd -- $options --json
}
_angarium "$@"
"""


def zsh_completion(verbs):
    def described(word, meaning):
        return shlex.quote(word.replace(":", "\\:") + ":" + meaning.replace("`", ""))

    first, second, options = {}, {}, []
    for name, operands, meaning in verbs:
        words = name.split()
        first.setdefault(words[0], meaning if len(words) == 1 else "verbs about this")
        if len(words) == 1:
            first[words[0]] = meaning
        else:
            second.setdefault(words[0], []).append(described(words[1], meaning))
        options.append((len(words), name, sorted(set(re.findall(r"--[a-z-]+", operands)))))
    rows = "".join(f"        {word}) more=({' '.join(then)}) ;;\n" for word, then in second.items()
                   if word not in {name for name, _, _ in verbs})
    cases = "".join(f"    {shlex.quote(name + ' ')}*) options=({' '.join(known)}) ;;\n" for _, name, known in sorted(options, reverse=True))
    return ZSH.replace("FIRST_WORDS", " ".join(described(word, meaning) for word, meaning in first.items())).replace(
        "SECOND_WORDS", rows).replace("OPTIONS", cases)


def main():
    angarium, load, folder = sys.argv[1:4]
    version = printed(angarium, "version").split()[1]
    verbs = [line.split("\t") for line in printed(angarium, "help", "--reference").splitlines()]
    pages = {
        "angarium.1": cli_page(verbs, version),
        "angariumd.8": daemon_page(version),
        "angarium.yaml.5": configuration_page(printed(angarium, "check", "--reference"), version),
        "angarium-load.1": load_page(printed(load, "--help"), {name: printed(load, name, "--help") for name in ("source", "sink", "both", "audit")},
                                       version),
    }
    for name, lines in pages.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    with open(os.path.join(folder, "angarium.bash"), "w", encoding="utf-8") as file:
        file.write(completion(verbs))
    with open(os.path.join(folder, "_angarium"), "w", encoding="utf-8") as file:
        file.write(zsh_completion(verbs))


main()
