#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The outcome table of cut-through (docs/cut-through.md), a scenario for each cell, mode and way to speak.

    cut_through.py RUN_SCENARIO      play them all: TAP
    cut_through.py --write DIR       write them there, to be read or played one by one

A message for b@ and c@example.org comes in. The next hop does what the row says at one step of its
dialogue, with DATA in lock-step or with BDAT in one flight. What the client hears, what the disk sees, and
what becomes of each recipient must be as the table has it.

Modes: `held`, the message being complete; `stream`, a large one whose end comes only when the next hop has
done what the row says; `streamed`, a large one that has ended before the next hop says a word.
"""
import sys

import generated

HEAD = """goal {goal}
config delivery: auto
{config}dns example.org MX 10 mx.example.org
dns mx.example.org A 198.51.100.1
dns sender.example MX 10 mx.sender.example
dns mx.sender.example A 198.51.100.2
hop H 198.51.100.1:25
hop S 198.51.100.2:25
connect C
C< 220 *
C> EHLO client.example
C<< 250 *
C> MAIL FROM:<a@sender.example>
C< 250 *
C> RCPT TO:<b@example.org>
C< 250 *
C> RCPT TO:<c@example.org>
C< 250 *
C> DATA
C< 354 *
C> Subject: hello
C>
{body}H accept
H> 220 mx.example.org
"""
STREAM = "config cut_through: {stream_above: 4KiB}\n"
LINE = "%n xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n"
HELD, OPEN, ENDED = "held", "stream", "streamed"
THE_END = ["C> x", "C> ."]
STEPS = ["MAIL", "RCPT b", "RCPT c", "DATA", "CHUNK", "END"] # CHUNK: one before the last
GOOD = {"MAIL": "250 2.1.0 ok", "RCPT b": "250 2.1.5 ok", "RCPT c": "250 2.1.5 ok", "DATA": "354 go", "CHUNK": "250 2.0.0 chunk",
        "END": "250 2.0.0 taken"}
LATER = {"MAIL": "451 4.6.0 later", "RCPT b": "450 4.2.1 later", "RCPT c": "450 4.2.1 later", "DATA": "451 4.6.0 later",
         "CHUNK": "451 4.6.0 later", "END": "451 4.6.0 later"}
NEVER = {"MAIL": "554 5.6.0 never", "RCPT b": "550 5.1.1 never", "RCPT c": "550 5.1.1 never", "DATA": "554 5.6.0 never",
         "CHUNK": "554 5.6.0 never", "END": "554 5.6.0 never"}
NAMES = {"MAIL": "mail", "RCPT b": "rcpt_1", "RCPT c": "rcpt_2", "RCPT": "rcpt_all", "DATA": "data", "CHUNK": "chunk", "END": "end"}


class Hop:
    """The next hop's side of one dialogue, on the connection of that name."""

    def __init__(self, name, recipients, is_bdat, mode=HELD):
        self.name, self.is_bdat, self.mode = name, is_bdat, mode
        self.steps = ["MAIL"] + ["RCPT " + r for r in recipients] + ([] if is_bdat else ["DATA"]) + (["CHUNK"] if is_bdat and mode == OPEN else []) + ["END"]
        self.flight = [step for step in self.steps if step not in ("CHUNK", "END")] # by BDAT
        self.lines = []

    def say(self, text):
        self.lines.append(f"{self.name}> {text}")

    def expect(self, pattern):
        self.lines.append(f"{self.name}< {pattern}")

    def hello(self):
        self.expect("EHLO relay.example")
        if self.is_bdat:
            self.say("250-mx.example.org")
            self.say("250-PIPELINING")
            self.say("250 CHUNKING")
        else:
            self.say("250 mx.example.org")

    def command(self, step):
        if step == "MAIL":
            self.expect("MAIL FROM:<a@sender.example>*")
        elif step.startswith("RCPT"):
            self.expect(f"RCPT TO:<{step[5:]}@example.org>")
        elif step == "DATA":
            self.expect("DATA")
        elif self.is_bdat and self.mode == ENDED:
            self.expect("BDAT * LAST")
            self.lines += [f"{self.name}<< 300 xx*", f"{self.name}<< x"]
        elif step == "CHUNK":
            self.expect("BDAT *")
            self.lines.append(f"{self.name}<< 300 xx*")
        elif self.is_bdat and self.mode == OPEN:
            self.end()
            self.lines += [f"{self.name}<< *BDAT * LAST", f"{self.name}<< x"]
        elif self.is_bdat:
            self.expect("BDAT * LAST")
            self.lines.append(f"{self.name}<< x")
        else:
            if self.mode != HELD:
                self.lines.append(f"{self.name}<< 300 xx*")
            self.end()
            self.lines.append(f"{self.name}<< x")
            self.expect(".")

    def end(self):
        """The sender's last octets, where they have not come yet."""
        if self.mode == OPEN:
            self.lines += THE_END

    def heard(self, step):
        """The commands up to `step`, those before it being answered well."""
        if self.is_bdat and step in self.flight:
            if step == "MAIL":
                for each in self.flight:
                    self.command(each)
            return
        self.command(step)

    def play(self, replies=None, until=None):
        """All steps, with these replies; the step `until` is heard and not answered."""
        replies = dict(GOOD, **(replies or {}))
        for step in self.steps:
            self.heard(step)
            if step == until:
                return
            self.say(replies[step])

    def go_on(self, since):
        """Answer the step that was left open, and all behind it."""
        self.say(GOOD[since])
        for step in self.steps[self.steps.index(since) + 1:]:
            self.heard(step)
            self.say(GOOD[step])


def retry(recipients):
    """The stored mail goes out in a later attempt."""
    hop = Hop("G", recipients, False)
    hop.lines = ["patience 20m", "H accept as G", "G> 220 mx.example.org"]
    hop.hello()
    hop.play()
    return hop.lines


def stored(way):
    return ["C< 250 2.0.0 ok *", f"record reception way={way}", f"expect ways.{way} == 1", "expect spool.commits == 1"]


def delivered(recipients, way="*"):
    return [f"record delivery recipient={r}@example.org code=250 way={way}" for r in recipients]


END = ["expect queue.messages == 0", "expect spool.live == 0", "expect queue.notices == 0"]


def ended(lines, mode):
    """The sender's end, where the next hop did not come to it."""
    return lines + (THE_END if mode == OPEN and THE_END[-1] not in lines else [])


def straight(mode):
    return "ready" if mode == HELD else "stream"


def no_disk(mode):
    return ["expect spool.commits == 0", f"expect ways.{straight(mode)} == 1", "expect ways.unstored == 0"]


def accepted(is_bdat, mode):
    hop = Hop("H", "bc", is_bdat, mode)
    hop.hello()
    hop.play()
    return hop.lines + ["C< 250 2.0.0 ok *"] + delivered("bc", straight(mode)) + no_disk(mode) + END


def later(step, is_bdat, mode):
    hop = Hop("H", "bc", is_bdat, mode)
    hop.hello()
    replies = {step: LATER.get(step)}
    if step == "RCPT":
        replies = {"RCPT b": LATER["RCPT b"], "RCPT c": LATER["RCPT c"]}
    if step.startswith("RCPT "):
        left = step[5:]
        taken = "c" if left == "b" else "b"
        hop.play(replies)
        return (hop.lines + stored("mixed") + delivered(taken, straight(mode)) +
                [f"record deferral recipient={left}@example.org"] + retry(left) + delivered(left, "mixed") + END)
    play_to_refusal(hop, step, replies)
    return (ended(hop.lines, mode) + stored("temporary") + ["record deferral recipient=b@example.org", "H close"] + retry("bc") +
            delivered("bc", "temporary") + END)


def play_to_refusal(hop, step, replies):
    """The dialogue ends with the replies that refuse all: what is behind them is not said any more."""
    if step == "RCPT":
        step = "RCPT c"
    refused = False
    for each in hop.steps:
        if refused and not (hop.is_bdat and each in hop.flight):
            return
        hop.heard(each)
        if refused: # in the same flight
            hop.say("503 5.5.1 no mail")
            continue
        hop.say(replies.get(each, GOOD[each]))
        refused = each == step


def never(step, is_bdat, mode):
    hop = Hop("H", "bc", is_bdat, mode)
    hop.hello()
    replies = {step: NEVER.get(step)}
    if step == "RCPT":
        replies = {"RCPT b": "550 5.1.1 never b", "RCPT c": "550 5.1.1 never c"}
    if step.startswith("RCPT "):
        refused = step[5:]
        taken = "c" if refused == "b" else "b"
        hop.play(replies)
        return (hop.lines + stored("mixed") + delivered(taken, straight(mode)) +
                [f"record bounce recipient={refused}@example.org code=550 passed_on=0", "S accept"] + notice(refused) +
                ["expect queue.notices == 1", "expect queue.messages == 0", "expect spool.live == 0"])
    play_to_refusal(hop, step, replies)
    heard = "550 5.1.1 never b" if step == "RCPT" else NEVER[step]
    way = straight(mode)
    return (ended(hop.lines, mode) + [f"C< {heard}"] + [f"record bounce recipient=b@example.org passed_on=1 way={way}",
            f"record rejection code={heard[:3]} way={way}"] + no_disk(mode) + END + [f"expect client.open == {0 if step == 'CHUNK' else 1}", "S unconnected"])


def notice(recipient):
    return ["S> 220 s.example", "S< EHLO relay.example", "S> 250 s.example", "S< MAIL FROM:<>*", "S> 250 ok",
            "S< RCPT TO:<a@sender.example>", "S> 250 ok", "S< DATA", "S> 354 go",
            f"S<< Final-Recipient: rfc822;*{recipient}@example.org", "S<< .", "S> 250 ok"]


def silent(step, is_bdat, mode):
    hop = Hop("H", "bc", is_bdat, mode)
    hop.hello()
    hop.play(until=step)
    if mode == OPEN and step != "END": # given up: the next hop holds up the sender
        count = 40000 if step == "CHUNK" else 6000 # chunks go ahead of their replies
        return ([f"C>* {count} " + LINE.strip()] + hop.lines + ["wait 25s"] + THE_END + ["C< 250 2.0.0 ok *", "record reception way=patience",
                "expect spool.commits == 1", "record deferral recipient=b@example.org", "H broken" if step == "CHUNK" else "H reset"] +
                retry("bc") + delivered("bc", "patience") + END)
    head, hop.lines = hop.lines, []
    hop.go_on(step)
    in_doubt = 1 if step == "END" else 0
    return (head + ["wait 25s", "C nothing"] + stored("patience") +
            [f"expect ways.in_doubt == {in_doubt}", "expect queue.active == 1", "wait 60s",
             "expect client.connections == 1"] + hop.lines +
            delivered("bc", "patience") + END + ["expect client.connections == 1"])


def lost(step, is_bdat, mode):
    hop = Hop("H", "bc", is_bdat, mode)
    hop.hello()
    hop.play(until=step)
    way = "uncertain" if step == "END" else "temporary"
    uncertain = 1 if step == "END" else 0
    return (ended(hop.lines + ["hop H down", "H abort"], mode) + stored(way) + [f"expect client.uncertain == {uncertain}", "hop H up"] + retry("bc") +
            delivered("bc", way) + END)


ROWS = [("4xx", later), ("5xx", never), ("no reply", silent), ("lost", lost)]


def cells():
    for mode in (HELD, OPEN, ENDED):
        for is_bdat in (False, True):
            speech = "bdat" if is_bdat else "data"
            prefix = "" if mode == HELD else mode + "_"
            yield f"{prefix}accepted_{speech}", f"{mode}: all accepted, by {speech.upper()}", mode, accepted(is_bdat, mode)
            for row, make in ROWS:
                for step in STEPS + (["RCPT"] if row in ("4xx", "5xx") else []):
                    if step == ("DATA" if is_bdat else "CHUNK") or (step == "CHUNK" and mode != OPEN):
                        continue
                    name = f"{prefix}{row.replace(' ', '_')}_at_{NAMES[step]}_{speech}"
                    yield name, f"{mode}: {row} at {step}, by {speech.upper()}", mode, make(step, is_bdat, mode)


def body(mode):
    lines = "" if mode == HELD else "C>* 700 " + LINE
    return lines + ("" if mode == OPEN else "".join(line + "\n" for line in THE_END))


def scenarios():
    for name, goal, mode, lines in cells():
        config = "" if mode == HELD else STREAM
        yield name, HEAD.format(goal=goal, config=config, body=body(mode)) + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(generated.main(scenarios()))
