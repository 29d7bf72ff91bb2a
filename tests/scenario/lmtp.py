#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What becomes of each recipient by LMTP (docs/own-domains.md), a scenario for every combination of replies.

    lmtp.py RUN_SCENARIO      play them all: TAP
    lmtp.py --write DIR       write them there, to be read or played one by one

A message for b@ and c@example.org comes in. The mailbox server takes both at RCPT, and answers for each behind
the end of the data: accepted, 4xx, 5xx, or it is lost there. Stored first, by DATA in lock-step; and without the
spool, by BDAT in one flight.
"""
import itertools
import sys

import cut_through
import generated

HEAD = cut_through.HEAD.replace("hop H 198.51.100.1:25", "hop H 198.51.100.1:24").replace(
    "config delivery: auto", "config delivery: {delivery}\nconfig routes: [{{match: example.org, via: lmtp, hosts: [{{host: 198.51.100.1}}]}}]")
REPLIES = {"ok": "250 2.1.5 <{0}@example.org> saved", "later": "452 4.2.2 <{0}@example.org> is full",
           "never": "552 5.2.2 <{0}@example.org> is too small"}
CODES = {"ok": 250, "later": 452, "never": 552}
RECIPIENTS = "bc"
HOP_HEAD = ["H accept", "H> 220 store.example"]


class Store(cut_through.Hop):
    def hello(self):
        super().hello()
        self.lines[0] = f"{self.name}< LHLO relay.example"

    def to_end(self):
        self.hello()
        self.play(until="END")

    def answer(self, fates):
        for recipient, fate in zip(RECIPIENTS, fates):
            if fate == "lost":
                return
            self.say(REPLIES[fate].format(recipient))


def retry(recipients, way):
    """What is left goes out in a later attempt."""
    store = Store("G", recipients, False)
    store.hello()
    store.play(until="END")
    for recipient in recipients:
        store.say(REPLIES["ok"].format(recipient))
    return (["patience 20m", "H accept as G", "G> 220 store.example"] + store.lines +
            [f"record delivery recipient={r}@example.org code=250 way={way}" for r in recipients])


def notice(recipients):
    lines = cut_through.notice(recipients[0])
    named = [f"S<< Final-Recipient: rfc822;*{r}@example.org" for r in recipients[1:]]
    return ["S accept"] + lines[:-2] + named + lines[-2:] + ["record delivery recipient=a@sender.example"]


def way_of(fates):
    """The reason why a message that went without the spool is stored; None: it is not."""
    if set(fates) in ({"ok"}, {"never"}):
        return None
    if "ok" in fates or "never" in fates:
        return "mixed"
    return "uncertain" if "lost" in fates else "temporary"


def records(fates, way):
    kinds = {"ok": "delivery", "later": "deferral", "never": "bounce", "lost": "deferral"}
    for recipient, fate in zip(RECIPIENTS, fates):
        code = f" code={CODES[fate]}" if fate != "lost" else ""
        yield f"record {kinds[fate]} recipient={recipient}@example.org{code} way={way}"


def scenario(fates, is_straight):
    fates = list(fates) + ["lost"] * (2 - len(fates))
    refused = [r for r, fate in zip(RECIPIENTS, fates) if fate == "never"]
    left = [r for r, fate in zip(RECIPIENTS, fates) if fate in ("later", "lost")]
    way = way_of(fates) if is_straight else "policy"
    store = Store("H", RECIPIENTS, is_straight)
    store.to_end()
    store.answer(fates)
    if "lost" in fates:
        store.lines.append("H close")
    heard = "250 2.0.0 ok *" if way or fates[0] == "ok" else REPLIES["never"].format("b")
    if not is_straight:
        lines = ["C< 250 2.0.0 ok *"] + HOP_HEAD + store.lines
    else:
        lines = HOP_HEAD + store.lines + [f"C< {heard}"]
    lines += list(records(fates, "ready" if is_straight else "policy"))
    if is_straight:
        lines.append(f"expect spool.commits == {0 if way is None else 1}")
        lines.append(f"expect ways.{way or 'ready'} == 1")
    lines.append(f"expect client.uncertain == {1 if 'lost' in fates else 0}")
    if refused and (way or not is_straight):
        lines += notice(refused)
    if left:
        lines += retry("".join(left), way)
    told = 1 if refused and way else 0
    return lines + [f"expect queue.notices == {told}", "expect queue.messages == 0", "expect spool.live == 0"]


def cells():
    pairs = list(itertools.product(CODES, repeat=2)) + [(fate, "lost") for fate in CODES] + [("lost",)]
    for fates in pairs:
        for is_straight in (False, True):
            how = "straight" if is_straight else "stored"
            goal = f"replies by LMTP: {', '.join(fates)}; {how}"
            yield "_".join(fates) + "_" + how, goal, is_straight, scenario(fates, is_straight)


def scenarios():
    for name, goal, is_straight, lines in cells():
        head = HEAD.format(goal=goal, delivery="auto" if is_straight else "spool", config="", body="".join(line + "\n" for line in cut_through.THE_END))
        yield name, head[:head.index("H accept")] + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(generated.main(scenarios()))
