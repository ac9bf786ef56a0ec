"""Writes docs/reference/interop.md from the junit file of the interop matrix.

    interop_page.py RESULTS.xml

Invariant: a cell is in the table only if its test recorded it, after the cell had passed.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "interop.md"
MECHANISMS = ("NULL", "PLAIN", "CURVE")

HEAD = """\
# Interoperability with libzmq

Made by `tools/interop` from the test `tests/interop/test_zmtp_matrix.py`; do not edit. Peer: the
libzmq {version} inside the pyzmq wheel, in a process of its own. In each cell messages of 0, 1,
255, 256, 8,192, 65,536 bytes and 16 MiB, in one to five parts, some empty, pass and are compared
byte by byte; then the peer closes its socket, comes back at the same endpoint, and they pass again
(but for those of 16 MiB). Types that answer send each message back.

{passed} of {total} cells passed.

| mcast | libzmq | mcast binds, tcp | mcast binds, ipc | mcast connects, tcp | mcast connects, ipc |
| --- | --- | --- | --- | --- | --- |
"""

TAIL = """
A cell names the mechanisms that passed: NULL, PLAIN, CURVE. Whoever binds is the server.

RADIO and DISH are drafts that the wheel leaves out; they are tested against captures of a libzmq
that has them (`tests/unit/patterns`, `tests/vectors/captures`).

What libzmq does otherwise, even to itself: a REQ that binds as PLAIN or CURVE server, and whose
authenticator names a user, hangs up on every reply (4.3.5, seen with a libzmq REP). The peer of
this matrix names none.
"""


def main() -> int:
    passed: defaultdict[tuple[str, str], dict[tuple[str, str], set[str]]] = defaultdict(dict)
    version = "?"
    count = 0
    for item in ElementTree.parse(sys.argv[1]).iter("property"):
        if item.get("name") == "interop-cell":
            ours, theirs, role, transport, mechanism, version = (item.get("value") or "").split()
            passed[ours, theirs].setdefault((role, transport), set()).add(mechanism)
            count += 1
    columns = [(role, transport) for role in ("bind", "connect") for transport in ("tcp", "ipc")]
    tests = sum(1 for _ in ElementTree.parse(sys.argv[1]).iter("testcase"))
    total = tests * len(columns) * len(MECHANISMS)
    rows = []
    for (ours, theirs), cells in sorted(passed.items()):
        shown = [
            ", ".join(m for m in MECHANISMS if m in cells.get(column, ())) or "**none**"
            for column in columns
        ]
        rows.append(f"| {ours} | {theirs} | {' | '.join(shown)} |\n")
    head = HEAD.format(version=version, passed=count, total=total)
    PAGE.write_text(head + "".join(rows) + TAIL)
    sys.stdout.write(f"{PAGE.relative_to(PAGE.parents[2])}: {count} of {total} cells passed\n")
    return 0 if count == total and total else 1


sys.exit(main())
