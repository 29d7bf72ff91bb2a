#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Verify messages by dkimpy, which is Debian's Python's. Input: JSON with public keys by their name in the DNS, and messages in base64. Output: JSON,
for each message the selectors of its signatures from the top, and whether they are good."""
import base64
import json
import sys

import dkim


def is_good(message, index, keys):
    try:
        return dkim.DKIM(message, minkey=2048).verify(index, dnsfunc=lambda name, timeout=5: keys.get(name.decode().rstrip('.')))
    except dkim.DKIMException:
        return False


def main():
    request = json.load(sys.stdin)
    answers = []
    for text in request['messages']:
        message = base64.b64decode(text)
        verifier = dkim.DKIM(message, minkey=2048)
        count = sum(name.lower() == b'dkim-signature' for name, _ in verifier.headers)
        found = []
        for index in range(count):
            fields = dkim.util.parse_tag_value([value for name, value in verifier.headers if name.lower() == b'dkim-signature'][index])
            found.append((fields[b's'].decode(), is_good(message, index, request['keys'])))
        answers.append(found)
    json.dump(answers, sys.stdout)


main()
