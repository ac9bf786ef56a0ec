"""`mcast perf sub` beside a thread that computes without end, as an application does.

busy_sub.py ARGUMENT...    the arguments of `mcast perf sub`
"""

from __future__ import annotations

import sys
import threading

from mcast.cli import main


def compute() -> None:
    number = 0
    while True:
        number = (number * 1_103_515_245 + 12_345) % (1 << 31)


if __name__ == "__main__":
    threading.Thread(target=compute, daemon=True).start()
    sys.exit(main(["perf", "sub", *sys.argv[1:]]))
