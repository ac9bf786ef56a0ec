"""The demonstration's publisher and subscribers, each a process of its own.

Run by ``mcast demo`` as ``python -m mcast.cli.demo_process PLAN``. The order of a run: all report
``ready``; a subscriber reports ``joined`` when it has heard the publisher; told ``go``, the
publisher sends everything and reports ``sent``; a subscriber reports ``done`` when its ledger is
final; told ``finish``, the publisher ends. Invariant: when stdin ends, so does the process.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Iterable
from typing import Final

import mcast
from mcast.cli.children import Plan
from mcast.cli.ledger import Ledger, Plant, payload, planted
from mcast.cli.terminal import EXIT_FAILURE, TURN_S, say
from mcast.errors import Again, LossError
from mcast.events import PeerJoined, PeerLeft, PeerRestarted
from mcast.runtime.deadline import Deadline

__all__ = ["main", "publish", "subscribe"]

_REPORT_S: Final = 0.25
_BATCH_COUNT: Final = 100
_LINGER_S: Final = 10.0
_REPAIR_SHARE: Final = 1.0
"""Repairs may take as much as the data. At 30 % loss three subscribers miss two packets of three
between them: the default share, a quarter, would turn that into honest but dull losses."""
_SNDHWM: Final = 1000
"""Small, so that what counts as sent is not far ahead of what has left."""


class _OrphanError(Exception):
    """The parent has gone."""


class _Parent:
    """The parent at the other end of stdin and stdout."""

    def __init__(self) -> None:
        self._commands: set[str] = set()
        self._rest = b""
        self._next_report = Deadline(0)

    def has_said(self, command: str, timeout: float = 0.0) -> bool:
        """True once it has; waits up to ``timeout`` seconds for anything it says."""
        stdin = sys.stdin.fileno()
        if command not in self._commands and select.select((stdin,), (), (), timeout)[0]:
            chunk = os.read(stdin, 4096)
            if not chunk:
                raise _OrphanError
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            self._commands.update(line.decode() for line in lines)
        return command in self._commands

    def report(self, **fields: object) -> None:
        """Write one report."""
        try:
            sys.stdout.write(json.dumps(fields) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            raise _OrphanError from None

    @property
    def wants_report(self) -> bool:
        """True four times a second; the time to look whether the parent still lives."""
        if not self._next_report.has_passed:
            return False
        self.has_said("")
        self._next_report = Deadline(_REPORT_S)
        return True


def publish(plan: Plan, parent: _Parent) -> None:
    """Send the plan's messages. Blocks until the parent has said ``finish``."""
    with mcast.Context() as context:
        pub = context.socket(
            mcast.PUB,
            rate=plan.rate,
            repair_share=_REPAIR_SHARE,
            linger=_LINGER_S,
            sndhwm=_SNDHWM,
        )
        pub.connect(plan.url)

        def report(**stage: object) -> None:
            stats = pub.stats()
            parent.report(
                sent=stats["messages_sent"] - stats["messages_unsent"],
                repaired=stats["rdata_sent"],
                naks=stats["naks_received"],
                **stage,
            )

        parent.report(ready=True, kernel=context.stats()["kernel"])
        while not parent.has_said("go", TURN_S):
            pass
        for start in range(0, plan.message_count, _BATCH_COUNT):
            end = min(plan.message_count, start + _BATCH_COUNT)
            batch = [
                payload(plan.incarnation, 0, counter, plan.size_bytes)
                for counter in range(start, end)
            ]
            taken = 0
            while taken < len(batch):
                taken += pub.send_many(batch[taken:], timeout=TURN_S)
                if parent.wants_report:
                    report()
        while pub.stats()["messages_unsent"]:
            parent.has_said("finish", TURN_S)
            report()
        report(all_sent=True)
        while not parent.has_said("finish", TURN_S):
            if parent.wants_report:
                report()
        report(done=True)


def subscribe(plan: Plan, parent: _Parent) -> None:
    """Receive and account for everything, until the last message or the publisher's end."""
    ledger = Ledger(plan.incarnation, 0, plan.message_count)
    with mcast.Context() as context:
        sub = context.socket(
            mcast.SUB, on_loss="raise", drop_rate=plan.drop_rate, drop_seed=plan.drop_seed
        )
        sub.subscribe(b"")
        sub.connect(plan.url)

        def report(**stage: object) -> None:
            stats = sub.stats()
            parent.report(
                received=ledger.delivered,
                lost=ledger.lost,
                repaired=stats["repaired"],
                naks=stats["naks_sent"],
                repair_p50_s=stats["repair_p50_s"],
                repair_p99_s=stats["repair_p99_s"],
                dropped_packets=stats["dropped_for_test"],
                overflowed_packets=stats["rcvbuf_overflows"],
                **stage,
            )

        parent.report(ready=True)
        is_over = False
        while not ledger.is_complete:
            batch: Iterable[bytes] = ()
            try:
                batch = sub.recv_many(1000, timeout=TURN_S)
            except Again:
                if is_over:
                    break
            except LossError:
                ledger.report_loss()
            if plan.plant is not None:
                batch = planted(batch, Plant(plan.plant), plan.message_count // 2)
            for message in batch:
                ledger.deliver(message)
            for event in sub.events():
                if isinstance(event, PeerJoined):
                    report(joined=True)
                elif isinstance(event, PeerLeft | PeerRestarted):
                    is_over = True  # but for what still waits in the queue
            if parent.wants_report:
                report()
        ledger.close()
        report(
            done=True,
            is_closed=ledger.is_closed,
            faults={fault.value: count for fault, count in ledger.faults.items()},
        )


def main(argv: list[str]) -> int:
    """The exit status: 0, or 2 if the parent has gone or the library failed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    plan = Plan(**json.loads(argv[0]))
    try:
        (publish if plan.role == "publish" else subscribe)(plan, _Parent())
    except _OrphanError:
        return EXIT_FAILURE
    except (mcast.Error, OSError) as error:
        say(f"{plan.name}: {error}")
        return EXIT_FAILURE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
