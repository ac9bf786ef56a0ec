"""A capture replayed at 1x on loopback and recorded again; how far the gaps are from the capture's.

Owns the runs, the judgement and the result file. The judge is the recording: its times are the
kernel's, of each datagram as it arrives. A run counts only if all messages came round.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from capture_made import Made, make_capture
from contenders import ROOT
from machine import facts

from mcast.capture import Decoder, Heard, open_capture
from mcast.capture.dissect import UDP, Dissector
from mcast.kernel import NAME

RESULTS: Final = ROOT / "tools/bench/results"
LIMIT_US: Final = 1000.0
"""The 99th percentile of the error of a gap shall be less."""
PACKETS_PER_S: Final = 10_000
SIZE_BYTES: Final = 55_000_000
QUICK_BYTES: Final = 3_000_000
GROUP: Final = "239.192.7.90"
LIMIT_S: Final = 100.0
SETTLE_S: Final = 0.5


@dataclass(frozen=True)
class Run:
    """One round."""

    packets: int
    packets_per_s: float
    error_us_median: float
    error_us_p99: float
    error_us_max: float
    said: str
    """What replay itself says of its times."""


def mcast(*arguments: object) -> list[str]:
    """The command."""
    return [sys.executable, "-m", "mcast", *map(str, arguments)]


def multicast_times(path: Path) -> Iterator[int]:
    """When each datagram to a group was captured."""
    with open_capture(path) as file:
        dissector = Dissector()
        while (record := file.next_record()) is not None:
            found = dissector.dissect_untrusted(record)
            if found and found.protocol == UDP and ip_address(found.destination).is_multicast:
                yield found.time_ns


def messages(path: Path) -> list[object]:
    """What the streams of a capture said."""
    with open_capture(path) as file:
        decoder = Decoder(file, messages=True)
        return [step.message for step in decoder.steps() if isinstance(step, Heard)]


def round_trip(source: Path, recording: Path) -> Run:
    """Record, replay, compare.

    Raises: RuntimeError if something did not come round.
    """
    record = mcast("record", recording, f"{GROUP}:5555", "--rcvbuf", "16M", "--quiet")
    with subprocess.Popen(record, cwd=ROOT, stderr=subprocess.PIPE, text=True) as recorder:
        assert recorder.stderr is not None
        try:
            while "recording" not in (line := recorder.stderr.readline()):
                if not line:
                    raise RuntimeError("mcast record did not begin")
            replay = mcast("replay", source, "--map", f"239.192.1.1={GROUP}", "--quiet")
            done = subprocess.run(
                replay, cwd=ROOT, capture_output=True, text=True, check=True, timeout=LIMIT_S
            )
            time.sleep(SETTLE_S)
        finally:
            recorder.send_signal(signal.SIGTERM)
        words = recorder.stderr.read()
        if recorder.wait(LIMIT_S):
            raise RuntimeError(f"mcast record: {words}")
    if messages(recording) != messages(source):
        raise RuntimeError("other messages came round")
    wanted, found = list(multicast_times(source)), list(multicast_times(recording))
    if len(wanted) != len(found):
        raise RuntimeError(f"{len(found)} datagrams came round, not {len(wanted)}")
    errors = sorted(
        abs((found[at] - found[at - 1]) - (wanted[at] - wanted[at - 1])) / 1000
        for at in range(1, len(found))
    )
    return Run(
        packets=len(found),
        packets_per_s=(len(found) - 1) * 1e9 / (found[-1] - found[0]),
        error_us_median=errors[len(errors) // 2],
        error_us_p99=errors[len(errors) * 99 // 100],
        error_us_max=errors[-1],
        said="; ".join(re.findall(r"^mcast replay: (.*)$", done.stderr, re.MULTILINE)[1:]),
    )


def main() -> int:
    """0 if the bar is met in every run, 1 if not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small capture: a smoke test")
    parser.add_argument("--runs", type=int, default=3, help="default 3")
    parser.add_argument("--output", type=Path, help="the result file")
    options = parser.parse_args()
    machine = facts() | {"mcast_kernel": NAME, "nice": os.nice(0)}
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="mcast-replay-") as folder:
        source = Path(folder, "made.pcap")
        size_bytes = QUICK_BYTES if options.quick else SIZE_BYTES
        made: Made = make_capture(source, size_bytes, step_us=1_000_000 // PACKETS_PER_S)
        for _ in range(options.runs):
            run = round_trip(source, Path(folder, "got.pcapng"))
            runs.append(run)
            print(
                f"{run.packets} datagrams at {run.packets_per_s:,.0f}/s: error of gaps "
                f"median {run.error_us_median:.1f} us, 99 % {run.error_us_p99:.1f} us, "
                f"longest {run.error_us_max:.0f} us",
                file=sys.stderr,
                flush=True,
            )
    is_reached = all(run.error_us_p99 < LIMIT_US for run in runs)
    result: dict[str, Any] = {
        "machine": machine,
        "is_quick": options.quick,
        "capture": asdict(made) | {"types": dict(made.types)},
        "runs": [asdict(run) for run in runs],
        "p99_limit_us": LIMIT_US,
        "is_reached": is_reached,
    }
    stamp = re.sub(r"[-:]|\+.*", "", str(machine["date"]))
    target = options.output or RESULTS / f"replay-{stamp}-{machine['commit']}.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written: {target}", file=sys.stderr)
    return 0 if is_reached else 1


if __name__ == "__main__":
    sys.exit(main())
