"""`mcast decode` and tshark on the same capture, in turn; what a gigabyte costs; writes the result.

Owns the order of the runs, the judgement and the result file. Both write what they found to a file,
and it is compared: a program that counts other packets than are there is no faster, it is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from capture_made import PORT, Made, make_capture
from contenders import ROOT
from machine import facts, said

from mcast.kernel import NAME

RESULTS: Final = ROOT / "tools/bench/results"
AT_LEAST: Final = 3.0
"""Times tshark's speed, for the same fields."""
MEMORY_LIMIT_BYTES: Final = 200_000_000
SMALL_BYTES: Final = 100_000_000
LARGE_BYTES: Final = 1_000_000_000
QUICK_BYTES: Final = 3_000_000
LIMIT_S: Final = 600.0

FIELDS: Final = (
    *("frame.number", "frame.time_epoch", "ip.src", "ip.dst", "ip.ttl", "udp.srcport"),
    *("udp.dstport", "pgm.hdr.type", "pgm.hdr.gsi", "pgm.hdr.sport", "pgm.hdr.dport"),
    *("pgm.hdr.opts", "pgm.hdr.cksum", "pgm.hdr.tsdulen", "pgm.spm.sqn", "pgm.spm.trail"),
    *("pgm.spm.lead", "pgm.nak.sqn", "pgm.opts.nak.list"),
)
"""What tshark has of what ``mcast decode`` shows of a packet."""
TSHARK_TYPES: Final = {
    "0x00": "SPM",
    "0x04": "ODATA",
    "0x05": "RDATA",
    "0x08": "NAK",
    "0x0a": "NCF",
}
WAYS: Final = {
    "report": (),
    "report as JSON": ("--json",),
    "packets": ("--packets",),
    "packets as JSON": ("--packets", "--json"),
}
"""Options of ``mcast decode``. The report comes from the same fields of every packet; the other
two print them, as tshark does."""


@dataclass(frozen=True)
class Run:
    """One run of a program."""

    wall_s: float
    cpu_s: float
    peak_rss_bytes: int


def measured(command: list[str], output: Path, statuses: tuple[int, ...]) -> Run:
    """Run it to its end, its standard output into a file.

    Raises: RuntimeError for another exit status.
    """
    errors = output.with_suffix(".errors")
    with output.open("wb") as out, errors.open("wb") as err:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in statuses:
        words = errors.read_text(errors="replace")
        raise RuntimeError(f"{command[:4]} ended with {process.returncode}: {words}")
    return Run(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def tshark(path: Path, output: Path, made: Made) -> Run:
    """tshark's run; RuntimeError where it sees other packets than were made."""
    command = ["tshark", "-n", "-r", str(path), "-d", f"udp.port=={PORT},pgm", "-T", "fields"]
    command += [word for field in FIELDS for word in ("-e", field)]
    run = measured(command, output, (0,))
    place = FIELDS.index("pgm.hdr.type")
    with output.open() as lines:
        types = Counter(TSHARK_TYPES[line.split("\t")[place]] for line in lines)
    agree("tshark", types, made.types)
    return run


def decode(path: Path, output: Path, made: Made, way: str) -> Run:
    """The run of ``mcast decode``; RuntimeError where it sees other packets than were made."""
    command = [sys.executable, "-m", "mcast", "decode", str(path), "--quiet", *WAYS[way]]
    run = measured(command, output, (1,) if made.lost_count else (0,))
    types: Counter[str] = Counter()
    printed: Counter[str] = Counter()
    lost = 0
    with output.open() as lines:
        for line in lines:
            if "JSON" not in way:
                if found := re.match(r"\d+ [\d.]+ \S+ > \S+ ([A-Z]+) ", line):
                    printed[found[1]] += 1
                elif line.startswith("  packets: "):
                    types.update({kind: int(n) for kind, n in re.findall(r"([A-Z]+) (\d+)", line)})
                elif found := re.match(r"  gaps: .* (\d+) lost\)", line):
                    lost += int(found[1])
                continue
            record = json.loads(line)
            if record["record"] == "packet":
                printed[record["type"]] += 1
            elif record["record"] == "stream":
                types.update(record["packets"])
                lost += record["lost"]
    agree(way, types, made.types)
    if "--packets" in WAYS[way]:
        agree(f"{way}, as printed", printed, made.types)
    agree(f"{way}, lost", Counter(lost=lost), Counter(lost=made.lost_count))
    return run


def agree(who: str, found: Counter[str], wanted: Counter[str]) -> None:
    """Raise RuntimeError unless both are the same."""
    if found != wanted:
        raise RuntimeError(f"{who} found {dict(found)}, but there are {dict(wanted)}")


def compared(path: Path, output: Path, made: Made, way: str, pairs: int) -> dict[str, Any]:
    """One way of reading against tshark, each in turn."""
    ours, theirs = [], []
    for _ in range(pairs):
        ours.append(decode(path, output, made, way))
        theirs.append(tshark(path, output, made))
    ratios = [their.wall_s / our.wall_s for our, their in zip(ours, theirs, strict=True)]
    result = {
        "way": way,
        "options": WAYS[way],
        "mcast": [asdict(run) for run in ours],
        "tshark": [asdict(run) for run in theirs],
        "times_tshark": {
            "median": statistics.median(ratios),
            "min": min(ratios),
            "max": max(ratios),
        },
        "at_least": AT_LEAST,
        "is_reached": statistics.median(ratios) >= AT_LEAST,
    }
    say(
        f"{way}: {statistics.median(ratios):.2f} times tshark's speed "
        f"({min(ratios):.2f} to {max(ratios):.2f}); "
        f"{made.packet_count / statistics.median(run.wall_s for run in ours):,.0f} packets/s, "
        f"tshark {made.packet_count / statistics.median(run.wall_s for run in theirs):,.0f}"
    )
    return result


def large(path: Path, output: Path, made: Made, way: str) -> dict[str, Any]:
    """One run of ours on the large capture."""
    run = decode(path, output, made, way)
    say(
        f"{made.byte_count / 1e6:,.0f} MB, {way}: {run.wall_s:.1f} s, "
        f"{made.byte_count / run.wall_s / 1e6:,.0f} MB/s, peak {run.peak_rss_bytes / 1e6:.0f} MB"
    )
    return {
        "way": way,
        "options": WAYS[way],
        **asdict(run),
        "limit_bytes": MEMORY_LIMIT_BYTES,
        "is_reached": run.peak_rss_bytes < MEMORY_LIMIT_BYTES,
    }


def described(made: Made) -> dict[str, Any]:
    """The file, for the result."""
    return asdict(made) | {"types": dict(made.types)}


def say(text: str) -> None:
    """To those who wait."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """0 if everything is reached, 1 if not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small files: a smoke test")
    parser.add_argument("--pairs", type=int, default=3, help="runs of each, in turn (default 3)")
    parser.add_argument("--way", choices=WAYS, action="append", help="only this; may be repeated")
    parser.add_argument("--no-large", action="store_true", help="leave the gigabyte out")
    parser.add_argument("--output", type=Path, help="the result file")
    parser.add_argument("--folder", type=Path, help="where captures are made (default: /tmp)")
    options = parser.parse_args()
    ways = options.way or list(WAYS)
    sizes = (QUICK_BYTES, QUICK_BYTES) if options.quick else (SMALL_BYTES, LARGE_BYTES)
    machine = facts() | {"mcast_kernel": NAME}
    machine["tshark"] = said("tshark", "--version").partition("\n")[0]
    result: dict[str, Any] = {"machine": machine, "is_quick": options.quick, "fields": FIELDS}
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="mcast-decode-") as folder:
        path, output = Path(folder, "made.pcap"), Path(folder, "output")
        made = make_capture(path, sizes[0])
        result["small"] = described(made)
        result["compared"] = [compared(path, output, made, way, options.pairs) for way in ways]
        result["large"] = None
        if not options.no_large:
            made = make_capture(path, sizes[1])
            runs = [large(path, output, made, way) for way in ways]
            result["large"] = described(made) | {"runs": runs}
    stamp = re.sub(r"[-:]|\+.*", "", str(machine["date"]))
    target = options.output or RESULTS / f"decode-{stamp}-{machine['commit']}.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    say(f"written: {target}")
    verdicts = result["compared"] + (result["large"]["runs"] if result["large"] else [])
    return 0 if all(found["is_reached"] for found in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
