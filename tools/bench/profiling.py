"""Where the time goes: both ends of one load under perf(1), by library and by function.

    tools/bench/profile --size 1024 --rate 5e9 [--batch N] [--seconds S]

Needs Linux perf (Debian: linux-perf) and the right to use it. Samples the processor's clock in user
code and in the system; what sleeps takes no samples. Python's own functions show as the
interpreter's.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

from ends import Command, run_throughput

URL: Final = "epgm://lo;239.192.8.7:9999"
FREQUENCY_HZ: Final = 1999
DELAY_MS: Final = "700"
"""Starting the interpreter is not what is looked at."""
SHOWN: Final = 14
_LINE: Final = re.compile(r"\s*([\d.]+)%\s+(\S+)\s+\[([.k])\]\s+(.+?)[\s-]*$")


def shares(data: Path) -> list[tuple[float, str, str]]:
    """Percent, library and function of each line of the report, most first."""
    command = ["perf", "report", "--stdio", "--no-children", "-g", "none", "--sort", "dso,symbol"]
    done = subprocess.run([*command, "-i", data], capture_output=True, text=True, check=True)
    found = [_LINE.match(line) for line in done.stdout.splitlines()]
    return [
        (float(one[1]), "system" if one[3] == "k" else library(one[2]), one[4])
        for one in found
        if one
    ]


def library(name: str) -> str:
    """The library's name for people."""
    for start, text in {
        "_native": "mcast kernel",
        "python": "interpreter",
        "libpython": "interpreter",
    }.items():
        if name.startswith(start):
            return text
    return name.partition(".so")[0]


def show(title: str, lines: list[tuple[float, str, str]]) -> None:
    totals: Counter[str] = Counter()
    for percent, name, _ in lines:
        totals[name] += percent
    print(
        f"\n{title}: " + ", ".join(f"{name} {part:.0f} %" for name, part in totals.most_common(6))
    )
    for percent, name, function in lines[:SHOWN]:
        print(f"  {percent:5.1f} %  {name:<13} {function}")


def main() -> int:
    """Record and report; the exit status."""
    parser = argparse.ArgumentParser(prog="profile", description=__doc__)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--rate", default="inf")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    perf = [sys.executable, "-m", "mcast", "perf"]
    common = [URL, "--coordinated", "--json", "--quiet", f"--batch={arguments.batch}"]
    common += ["-orcvhwm=1000000", f"--timeout={arguments.seconds + 30}"]
    with tempfile.TemporaryDirectory() as folder:
        recordings = {end: Path(folder) / end for end in ("publisher", "subscriber")}
        record = [
            [
                "perf",
                "record",
                "-q",
                "-D",
                DELAY_MS,
                "-e",
                "cpu-clock",
                "-F",
                str(FREQUENCY_HZ),
                "-o",
                path,
                "--",
            ]
            for path in recordings.values()
        ]
        load = [f"--size={arguments.size}", f"--rate={arguments.rate}"]
        pub: Command = [*record[0], *perf, "pub", *common, *load, f"--duration={arguments.seconds}"]
        sub: Command = [*record[1], *perf, "sub", *common]
        subs, sent = run_throughput([sub], pub, environment={}, limit_s=arguments.seconds + 60)
        print(
            f"{subs[0]['messages_per_s']:,.0f} messages/s of {arguments.size} B,"
            f" {subs[0]['missing']:,} of {sent['sent']:,} missing"
        )
        for end, path in recordings.items():
            show(end, shares(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
