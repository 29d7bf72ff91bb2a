#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two messages back to back on one connection, the second sent with the end of the first: a scenario for each thing a next hop may do in between.

    next_ahead.py RUN_SCENARIO      play them all: TAP
    next_ahead.py --write DIR       write them there, to be read or played one by one

C's message for b@example.org is with the next hop, its end too; D's for c@example.org follows it at once. What the next hop then says of one of
them, or does not say, must be heard of that one alone.
"""
import sys

import generated

HEAD = """goal {goal}
config delivery: {delivery}
config client: {{connections_per_site: 1{client}}}
{more}dns example.org MX 10 mx.example.org
dns mx.example.org A 198.51.100.1
hop H 198.51.100.1:25
"""
CLIENT = """connect {name}
{name}< 220 *
{name}> EHLO client.example
{name}<< 250 *
{name}> MAIL FROM:<a@sender.example>
{name}< 250 *
{name}> RCPT TO:<{recipient}@example.org>
{name}< 250 *
{name}> DATA
{name}< 354 *
{name}> Subject: hello
{name}>
{name}> {recipient} has mail
{name}> .
"""
STEPS = ["MAIL", "RCPT", "DATA", "END"]
GOOD = {"MAIL": "250 2.1.0 ok", "RCPT": "250 2.1.5 ok", "DATA": "354 go", "END": "250 2.0.0 taken"}
OK = "250 2.0.0 ok *"
LATER = {"MAIL": "451 4.6.0 later", "RCPT": "450 4.2.1 later", "DATA": "451 4.6.0 later", "END": "451 4.6.0 later"}
NEVER = {"MAIL": "554 5.6.0 never", "RCPT": "550 5.1.1 never", "DATA": "554 5.6.0 never", "END": "554 5.6.0 never"}


def hello(hop, keywords):
    lines = [f"{hop}> 220 mx.example.org", f"{hop}< EHLO relay.example", f"{hop}> 250-mx.example.org"]
    return lines + [f"{hop}> 250-{word}" for word in keywords[:-1]] + [f"{hop}> 250 {keywords[-1]}"]


def flight(hop, recipient):
    return [f"{hop}< MAIL FROM:<a@sender.example>*", f"{hop}< RCPT TO:<{recipient}@example.org>", f"{hop}< DATA"]


def body(hop, recipient):
    return [f"{hop}<< {recipient} has mail", f"{hop}< ."]


def say(hop, *texts):
    return [f"{hop}> {text}" for text in texts]


def whole(hop, recipient):
    """A transaction from its beginning to its good end, on a new connection."""
    return (hello(hop, ["PIPELINING"]) + flight(hop, recipient) + say(hop, GOOD["MAIL"], GOOD["RCPT"], GOOD["DATA"]) + body(hop, recipient) +
            say(hop, GOOD["END"]))


def alone(hop, recipient):
    """Likewise in lock-step: what is in doubt goes alone."""
    lines = hello(hop, ["PIPELINING"])
    for command, step in zip(flight(hop, recipient), STEPS):
        lines += [command] + say(hop, GOOD[step])
    return lines + body(hop, recipient) + say(hop, GOOD["END"])


def begin():
    """Both are there, and neither is answered."""
    return ([CLIENT.format(name="C", recipient="b").strip(), "H accept"] + hello("H", ["PIPELINING"]) + flight("H", "b") +
            say("H", GOOD["MAIL"], GOOD["RCPT"], GOOD["DATA"]) + body("H", "b") + [CLIENT.format(name="D", recipient="c").strip()] +
            flight("H", "c") + ["expect client.followed == 1", "C nothing", "D nothing"])


END = ["expect queue.messages == 0", "expect spool.live == 0"]


def later(recipient, make=whole):
    return ["patience 20m", "H accept as K"] + make("K", recipient)


def second_good(hop="H"):
    return say(hop, GOOD["MAIL"], GOOD["RCPT"], GOOD["DATA"]) + body(hop, "c") + say(hop, GOOD["END"]) + [f"D< {OK}"]


def first_accepted():
    return say("H", GOOD["END"]) + [f"C< {OK}"] + second_good() + ["expect spool.commits == 0", "expect client.connections == 1"] + END


def first_refused():
    return say("H", "554 5.6.0 never") + ["C< 554 5.6.0 never"] + second_good() + ["expect spool.commits == 0"] + END


def first_deferred(text="451 4.6.0 later"):
    return (say("H", text) + [f"C< {OK}", "expect ways.temporary == 1", "record deferral recipient=b@example.org code=451"] + second_good() +
            ["expect client.connections == 1", "H close"] + later("b") + END)


def first_meets_trouble():
    """A refusal that would end the connection, were there not the second."""
    return first_deferred("451 4.3.0 my disk")


def first_closes():
    """421 is both's; neither is in doubt."""
    return (say("H", "421 4.3.2 closing") + ["H close", f"C< {OK}", "expect ways.temporary == 1", "H accept as G"] + whole("G", "c") +
            [f"D< {OK}", "expect client.uncertain == 0", "G close"] + later("b") + END)


def first_lost():
    return (["H abort", f"C< {OK}", "expect ways.uncertain == 1", "H accept as G"] + whole("G", "c") +
            [f"D< {OK}", "expect client.uncertain == 1", "G close"] + later("b", alone) + END)


def first_twice():
    """One reply too many: what follows is nobody's."""
    return (say("H", GOOD["END"], GOOD["END"], GOOD["MAIL"], GOOD["RCPT"]) + [f"C< {OK}", "H reset", "H accept as G"] +
            hello("G", ["PIPELINING"]) + [flight("G", "c")[0]] + say("G", GOOD["MAIL"]) + [flight("G", "c")[1]] + say("G", GOOD["RCPT"]) +
            ["G< DATA"] + say("G", GOOD["DATA"]) + body("G", "c") + say("G", GOOD["END"]) +
            [f"D< {OK}", "expect client.shied == 1", "expect client.desynchronised == 1", "expect spool.commits == 0"] + END)


FIRST = [first_accepted, first_refused, first_deferred, first_meets_trouble, first_closes, first_lost, first_twice]


def second(step, text):
    """The first is taken; the second is answered like that at this step, and well before."""
    lines = say("H", GOOD["END"]) + [f"C< {OK}"]
    for each in STEPS:
        if each == "END":
            lines += body("H", "c")
        if each == step:
            break
        lines += say("H", GOOD[each])
    if text is not None:
        lines += say("H", text)
    if step in ("MAIL", "RCPT") and text is not None and not text.startswith("421"):
        lines += say("H", *["503 5.5.1 no"] * (2 if step == "MAIL" else 1))
    return lines


def second_refused(step):
    return second(step, NEVER[step]) + [f"D< {NEVER[step]}", "expect spool.commits == 0"] + END


def second_deferred(step):
    return (second(step, LATER[step]) + [f"D< {OK}", "expect ways.temporary == 1"] +
            ["H close"] + later("c") + END)


def second_lost(step):
    lines = second(step, None) + ["D nothing", "H abort"]
    if step == "MAIL": # as on a kept connection: nobody's fault
        return lines + ["H accept as G"] + whole("G", "c") + [f"D< {OK}", "expect spool.commits == 0", "expect client.shied == 1"] + END
    way = "uncertain" if step == "END" else "temporary"
    return lines + [f"D< {OK}", f"expect ways.{way} == 1"] + later("c", alone if step == "END" else whole) + END


def second_closes():
    return second("MAIL", "421 4.3.2 closing") + ["H close", "H accept as G"] + whole("G", "c") + [f"D< {OK}", "expect spool.commits == 0"] + END


def second_is_one_too_many():
    """A server that takes so many messages in a session, and says so to MAIL: the next connection has it at once, and nobody is to blame."""
    return (second("MAIL", "452 4.5.3 Too many recipients: Too many messages sent") + ["H reset", "H accept as G"] + whole("G", "c") +
            [f"D< {OK}", "expect spool.commits == 0", "expect client.shied == 0", "expect records.deferral == 0"] + END)


def third_ends(*ends):
    """The second was answered to its end; the server has enough when it is the third's turn."""
    lines = say("H", GOOD["END"]) + [f"C< {OK}"] + say("H", GOOD["MAIL"], GOOD["RCPT"], GOOD["DATA"]) + body("H", "c")
    lines += [CLIENT.format(name="E", recipient="d").strip()] + flight("H", "d") + say("H", GOOD["END"]) + [f"D< {OK}"]
    return (lines + list(ends) + ["H accept as G"] + whole("G", "d") +
            [f"E< {OK}", "expect client.followed == 2", "expect client.shied == 0", "expect spool.commits == 0"] + END)


def third_closes():
    return third_ends("H> 421 4.3.2 closing", "H close")


def third_lost():
    return third_ends("H close")


def second_unheard():
    """The server forgets its input with the body: what is not answered soon goes on another connection."""
    return (say("H", GOOD["END"]) + [f"C< {OK}", "patience 40s", "H reset", "H accept as G"] + whole("G", "c") +
            [f"D< {OK}", "expect client.uncertain == 0", "expect client.shied == 1"] + END)


def second_deleted():
    """Its end was not sent: nobody gets it. The first is what it was, and the connection is over."""
    return (["order 7 delete recipient=c@example.org == 1", "wait 3s"] + say("H", GOOD["END"]) + [f"C< {OK}", "H reset"] + END)


def ahead(hop, recipient, is_behind):
    """A transaction that went in one flight, as the next hop sees it."""
    return ([f"{hop}< RSET"] if is_behind else []) + flight(hop, recipient)[:2] + [f"{hop}< BDAT * LAST", f"{hop}<< {recipient} has mail"]


def ahead_both(replies):
    """Both went in one flight each before the first reply; then these replies come."""
    return ([CLIENT.format(name="C", recipient="b").strip(), "H accept"] + hello("H", ["PIPELINING", "CHUNKING"]) + ahead("H", "b", False) +
            [CLIENT.format(name="D", recipient="c").strip()] + ahead("H", "c", True) + ["expect client.bdat_ahead == 2"] + say("H", *replies))


TAKEN = ["250 mail", "250 rcpt", "250 taken"]


def ahead_accepted():
    return ahead_both(TAKEN + ["250 reset"] + TAKEN) + [f"C< {OK}", f"D< {OK}", "expect spool.commits == 0"] + END


def ahead_first_refused():
    return (ahead_both(["250 mail", "550 5.1.1 never", "503 5.5.1 none", "250 reset"] + TAKEN) +
            ["C< 550 5.1.1 never", f"D< {OK}", "expect spool.commits == 0"] + END)


def ahead_second_refused():
    return (ahead_both(TAKEN + ["250 reset", "554 5.6.0 never", "503 5.5.1 no", "503 5.5.1 no"]) +
            [f"C< {OK}", "D< 554 5.6.0 never", "expect spool.commits == 0"] + END)


def ahead_lost():
    """Both ends are with the next hop: each is in doubt, and goes alone from then on."""
    return (ahead_both([]) + ["H abort", f"C< {OK}", f"D< {OK}", "expect ways.uncertain == 2", "expect client.uncertain == 2", "patience 20m",
                              "H accept as G"] +
            hello("G", ["PIPELINING", "CHUNKING"]) + ["G< MAIL FROM:<a@sender.example>*", "G nothing"] + say("G", "250 ok") +
            ["G< RCPT TO:<*@example.org>", "G nothing"] + say("G", "250 ok") + ["G< BDAT * LAST", "G<< * has mail"] + say("G", "250 taken") +
            ["G< QUIT", "G close", "H accept as K"] + hello("K", ["CHUNKING"]) + flight("K", "*")[:1] + say("K", "250 ok") + flight("K", "*")[1:2] +
            say("K", "250 ok") + ["K< BDAT * LAST", "K<< * has mail"] + say("K", "250 taken") + END)


def ahead_is_unlearned():
    """The server takes a message for nobody: what it says is not believed, and it is left in peace."""
    return ([CLIENT.format(name="C", recipient="b").strip(), "H accept"] + hello("H", ["PIPELINING", "CHUNKING"]) + ahead("H", "b", False) +
            say("H", "250 mail", "550 5.1.1 never", "250 taken") + [f"C< {OK}", "expect ways.uncertain == 1", "expect client.shied == 1",
                                                                   CLIENT.format(name="D", recipient="c").strip(), "H accept as G"] +
            hello("G", ["PIPELINING", "CHUNKING"]) + flight("G", "c")[:2] + ["G nothing"] + say("G", "250 ok", "250 ok") +
            ["G< BDAT * LAST", "G<< c has mail"] + say("G", "250 taken") + [f"D< {OK}"])


def ahead_answered_too_often():
    """Which of the replies was that to the body? Not the one before the last."""
    return ([CLIENT.format(name="C", recipient="b").strip(), "H accept"] + hello("H", ["PIPELINING", "CHUNKING"]) + ahead("H", "b", False) +
            ["H>> 250 mail\\r\\n250 rcpt\\r\\n250 more\\r\\n554 5.6.0 never\\r\\n", f"C< {OK}", "expect ways.uncertain == 1",
             "expect client.shied == 1", "expect records.delivery == 0"])


def ahead_both_in_doubt(replies):
    """Nothing is told of either before replies and commands are known to match; here they never do."""
    return (ahead_both([]) + ["H>> " + "".join(text + "\\r\\n" for text in replies), f"C< {OK}", f"D< {OK}", "expect ways.uncertain == 2",
                              "expect client.uncertain == 2", "expect client.shied == 1", "expect records.delivery == 0"])


def ahead_one_too_many():
    """One reply more to the first: its refusal is taken for that of RSET, which is never refused."""
    return ahead_both_in_doubt(["250 mail", "250 rcpt", "250 more", "552 5.3.4 no room", "250 reset"] + TAKEN)


def ahead_one_too_many_seen_late():
    """All are good, and each may be another's: who has refused the first's recipient, or nobody?"""
    return ahead_both_in_doubt(["250 mail", "250 more", "250 rcpt", "250 taken", "250 reset"] + TAKEN)


def ahead_one_too_many_before_421():
    """A server that leaves in the midst has answered one too many or not: nobody can say, and what was heard counts."""
    return (ahead_both(TAKEN + ["421 4.3.2 closing"]) + [f"C< {OK}", f"D< {OK}", "expect client.uncertain == 0", "expect records.delivery == 1"])


def ahead_told_when_all_is_answered():
    return (ahead_both(TAKEN) + ["C nothing"] + say("H", "250 reset", *TAKEN) + [f"C< {OK}", f"D< {OK}", "expect spool.commits == 0",
                                                                             "expect client.uncertain == 0"] + END)


def ahead_lost_between():
    """What was answered has been heard; the other is in doubt."""
    return (ahead_both(TAKEN) + ["C nothing", "H abort", f"C< {OK}", f"D< {OK}", "expect client.uncertain == 1", "expect records.delivery == 1"])


def ahead_farewell():
    """Nor is a server that leaves one that answers too often."""
    return ([CLIENT.format(name="C", recipient="b").strip(), "H accept"] + hello("H", ["PIPELINING", "CHUNKING"]) + ahead("H", "b", False) +
            ["H>> 250 mail\\r\\n250 rcpt\\r\\n250 taken\\r\\n421 4.4.2 idle\\r\\n", f"C< {OK}", "expect client.uncertain == 0"] + END)


def ahead_and_large():
    """Two with their ends, and behind them one without: it is too large."""
    large = CLIENT.format(name="E", recipient="d").strip().split("\n")
    large.insert(-1, f"E>* 200 {'x' * 900}")
    return ([CLIENT.format(name="C", recipient="b").strip(), "C< 250 *", "H accept"] + hello("H", ["PIPELINING", "CHUNKING"]) +
            ahead("H", "b", False) + [CLIENT.format(name="D", recipient="c").strip(), "D< 250 *"] + ahead("H", "c", True) + large +
            ["E< 250 *", "H< RSET"] + flight("H", "d")[:2])


def ahead_last_deleted():
    """The two have their turns, and then the connection is over."""
    return (ahead_and_large() + ["order 7 delete recipient=d@example.org == 1", "wait 3s"] + say("H", *TAKEN, "250 reset", *TAKEN) +
            ["H reset", "expect records.delivery == 2", "expect client.uncertain == 0"] + END)


def ahead_last_waits_long():
    """So they have when the first reply is slow; the last one goes over another connection."""
    return (ahead_and_large() + ["wait 15s"] + say("H", *TAKEN, "250 reset", *TAKEN) +
            ["H reset", "H accept as G"] + hello("G", ["PIPELINING", "CHUNKING"]) + flight("G", "d")[:2] + say("G", "250 ok", "250 ok") +
            ["G< BDAT * LAST", "G<< d has mail"] + say("G", "250 taken") + ["expect records.delivery == 3", "expect client.uncertain == 0"] + END)


def learned():
    """Eight messages in their turn, then one in one flight."""
    lines = []
    for number in range(9):
        lines += [CLIENT.format(name=f"C{number}", recipient="b").strip()]
        if number == 0:
            lines += ["H accept"] + hello("H", ["PIPELINING", "CHUNKING"])
        lines += flight("H", "b")[:2]
        if number < 8:
            lines += say("H", "250 ok", "250 ok") + ["H< BDAT * LAST", "H<< b has mail"] + say("H", "250 taken")
        else:
            lines += ["H< BDAT * LAST", "H<< b has mail"] + say("H", *TAKEN)
        lines += [f"C{number}< {OK}"]
    return lines + ["expect client.bdat_ahead == 1", "expect spool.commits == 0"] + END


def site_says_always():
    return ahead_accepted()


def site_says_never():
    return ([CLIENT.format(name="C", recipient="b").strip(), "H accept"] + hello("H", ["PIPELINING", "CHUNKING"]) + flight("H", "b")[:2] +
            ["H nothing"] + say("H", "250 ok", "250 ok") + ["H< BDAT * LAST", "H<< b has mail"] + say("H", "250 taken") +
            [f"C< {OK}", "expect client.bdat_ahead == 0"] + END)


DELIVERY = {"ahead_last_deleted": "spool", "ahead_last_waits_long": "spool"}
MORE = {
    "site_says_always": "sites: [{match: example.org, bdat_ahead: always}]",
    "lost_with_its_right": "sites: [{match: example.org, rate: 2/1h}]",
    "site_says_never": "sites: [{match: example.org, bdat_ahead: never}]",
}


def slow_first():
    """The second does not wait behind a slow reply for ever: it goes over another connection, and the site is left in peace."""
    return (["wait 5s", "C nothing", "D nothing", "expect client.shied == 0", "wait 4s", "expect client.shied == 1"] + say("H", GOOD["END"]) +
            [f"C< {OK}", "H reset", "H accept as G"] + hello("G", ["PIPELINING"]) + flight("G", "c") + second_good("G") +
            ["expect spool.commits == 0", "expect client.uncertain == 0"] + END)


def lost_with_its_right():
    """Both said MAIL, and the server may have counted both: there is no room for a third within the hour."""
    return ["H abort", f"C< {OK}", f"D< {OK}", "expect client.followed == 1", "wait 50m", "expect client.connections == 1",
            "expect records.delivery == 0", "patience 20m", "H accept as G"]


def off():
    """Without next_ahead the second waits for its turn."""
    return ([CLIENT.format(name="C", recipient="b").strip(), "H accept"] + hello("H", ["PIPELINING"]) + flight("H", "b") +
            say("H", GOOD["MAIL"], GOOD["RCPT"], GOOD["DATA"]) + body("H", "b") + [CLIENT.format(name="D", recipient="c").strip()] +
            ["H nothing"] + say("H", GOOD["END"]) + [f"C< {OK}"] + flight("H", "c") + second_good() + ["expect client.followed == 0"] + END)


def cells():
    for make in FIRST:
        yield make.__name__, "", begin() + make()
    for step in STEPS:
        for make in (second_refused, second_deferred, second_lost):
            yield f"{make.__name__}_at_{step.lower()}", "", begin() + make(step)
    for make in (second_closes, second_is_one_too_many, third_closes, third_lost, second_unheard, second_deleted, slow_first):
        yield make.__name__, "", begin() + make()
    for make in (ahead_last_deleted, ahead_last_waits_long):
        yield make.__name__, ", bdat_ahead: always", make()
    for make in (ahead_accepted, ahead_first_refused, ahead_second_refused, ahead_lost, ahead_is_unlearned, ahead_answered_too_often,
                 ahead_one_too_many, ahead_one_too_many_seen_late, ahead_one_too_many_before_421, ahead_told_when_all_is_answered,
                 ahead_lost_between, ahead_farewell):
        yield make.__name__, ", bdat_ahead: always", make()
    yield "learned", ", bdat_ahead: learned", learned()
    yield "off", ", next_ahead: false", off()
    yield "lost_with_its_right", "", begin() + lost_with_its_right()
    yield "site_says_always", "", site_says_always()
    yield "site_says_never", ", bdat_ahead: always", site_says_never()


def scenarios():
    for name, client, lines in cells():
        head = HEAD.format(goal=name.replace("_", " "), delivery=DELIVERY.get(name, "cut-through"), client=client,
                           more="config %s\n" % MORE[name] if name in MORE else "")
        yield name, head + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(generated.main(scenarios()))
