#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
The layers of the house point one way: who may include whom, and which files may see which library.
Reads the sources of the folder given, prints TAP.
"""
import pathlib
import re
import sys

# Folder: what its files may include of the project. An entry is a folder or the stem of a file.
LAYERS = {
    "base": ["base"],
    "queue": ["base", "queue"],
    "dataplane": ["base", "dataplane", "queue/ring"],
    "dns": ["base", "dataplane", "dns"],
    "relay": ["base", "queue", "dataplane", "dns", "relay"],
    "control": ["base", "queue", "dataplane", "dns", "relay", "control"],
}
# Leaves: they stand on base alone, so that others may use them without the rest of their folder.
LEAVES = {"queue/ring": ["base", "queue/ring"], "queue/disk": ["base", "queue/disk"]}
# The network is seen as flow.h alone by those above it.
ONLY_HEADER = {"dataplane": "dataplane/flow.h"}
# Headers that one folder alone may see besides.
ALSO_HEADER = {"control": ["dataplane/dataplane.h", "dataplane/dataplane_capture.h"]}
# Library headers: the files (by prefix of their path) that may see them.
LIBRARIES = {
    "rte_": ["base/buf", "queue/ring", "dataplane/wire"],
    "ldns/": ["dns/codec.c"],
    "openssl/": ["relay/tls", "relay/dkim_key.c", "relay/auth", "control/http_access.c", "control/webhook.c"],
    "microhttpd": ["control/http"],
    "curl": ["control/webhook_post.c"],
    "ncurses": ["control/cli_top"],
    "seccomp": ["control/confine"],
    "cap-ng": ["control/confine"],
    "crypt.h": ["relay/auth", "control/cli_user.c"],
    "liburing": ["queue/disk_uring"],
    "yaml": ["control/config_parse.c"],
    "jansson": ["control/"],
    "idn2": ["dns/"],
    "systemd/": ["control/notify"],
    "pcap": ["dataplane/wire/port/capture_filter"],
}
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]', re.MULTILINE)


def is_allowed(included, allowed):
    return any(included.startswith(entry + "/") or re.match(re.escape(entry) + r"[_.]", included)
               for entry in allowed)


def offences_of(path, text):
    folder = path.split("/")[0]
    allowed = LAYERS[folder]
    for leaf, leaf_allowed in LEAVES.items():
        if re.match(re.escape(leaf) + r"[_.]", path):
            allowed = leaf_allowed
    for quote, included in INCLUDE.findall(text):
        if quote == '"':
            if not is_allowed(included, allowed):
                yield f"{path} includes {included}"
            header = ONLY_HEADER.get(included.split("/")[0])
            if header and folder != included.split("/")[0] and included != header and \
                    included not in ALSO_HEADER.get(folder, []):
                yield f"{path} includes {included}, not {header}"
        for library, users in LIBRARIES.items():
            if quote == "<" and included.startswith(library) and \
                    not any(path.startswith(user) for user in users):
                yield f"{path} includes <{included}>"


def self_test():
    """Planted offences are found, and legal lines are not."""
    cases = [
        ("base/x.c", '#include "queue/ring.h"', 1),
        ("queue/qmgr.c", '#include "relay/smtpd.h"', 1),
        ("queue/ring.c", '#include "queue/spool.h"', 1),
        ("queue/ring.c", "#include <rte_ring.h>", 0),
        ("queue/spool.c", "#include <rte_ring.h>", 1),
        ("dataplane/host/host.c", '#include "queue/ring.h"', 0),
        ("dataplane/host/host.c", '#include "queue/spool.h"', 1),
        ("relay/server.c", '#include "dataplane/host/host.h"', 1),
        ("relay/server.c", '#include "control/config.h"', 1),
        ("relay/server.c", "#include <openssl/ssl.h>", 1),
        ("relay/tlsio.c", "#include <openssl/ssl.h>", 0),
        ("dataplane/wire/port/capture.c", "#include <pcap/pcap.h>", 1),
        ("dns/cache.c", "  #  include <ldns/ldns.h>", 1),
        ("control/assembly.c", '#include "dataplane/dataplane.h"', 0),
        ("relay/server.c", '#include "dataplane/dataplane.h"', 1),
        ("control/shard.c", '#include "dns/dns.h"\n#include "relay/server.h"', 0),
    ]
    return [c for c in cases if len(list(offences_of(c[0], c[1]))) != c[2]]


def main():
    root = pathlib.Path(sys.argv[1])
    print(f"1..{len(LAYERS) + 1}")
    wrong = self_test()
    for case in wrong:
        print(f"# wrongly judged: {case}")
    print(f"{'not ok' if wrong else 'ok'} 1 - planted offences are found")
    failed = bool(wrong)
    for number, folder in enumerate(LAYERS, 2):
        offences = []
        files = sorted(p for p in (root / folder).rglob("*") if p.suffix in (".c", ".h", ".def"))
        for file in files:
            path = str(file.relative_to(root))
            offences += offences_of(path, file.read_text(encoding="utf-8"))
        for offence in offences:
            print(f"# {offence}")
        is_ok = bool(files) and not offences
        failed |= not is_ok
        print(f"{'ok' if is_ok else 'not ok'} {number} - {folder}: {len(files)} files")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
