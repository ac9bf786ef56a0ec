"""``mcast demo``: a publisher and subscribers under loss, and whether everything is accounted for.

Owns the run: the processes, its stages, its end. Invariant: however it ends, no process of it is
left, and the last line on stdout says what became of every ledger.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mcast.cli import arguments as forms
from mcast.cli.children import Child, Plan
from mcast.cli.demo_table import Display, Row
from mcast.cli.ledger import HEAD_BYTES, Plant
from mcast.cli.terminal import (
    EXIT_FAILURE,
    EXIT_OK,
    EXIT_UNMET,
    TURN_S,
    Output,
    Stop,
    Stopwatch,
    say,
)
from mcast.errors import OptionError
from mcast.runtime.deadline import Deadline

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["Outcome", "add_parser", "run", "verdict"]

_QUIET_S: Final = 8.0
"""Everything is sent and no subscriber has progressed for so long, longer than a gap may last (5 s
by default): the publisher leaves, which tells the subscribers that no more comes."""
_MOST_SUBSCRIBERS: Final = 32

_EPILOG = """\
One publisher and the subscribers are processes of their own on the loopback interface. Each
subscriber throws away packets by seeded dice, has them repaired, and keeps a ledger: every message
once, in order and intact, or reported lost at its place in the stream.

The table goes to stderr, the last line to stdout.

exit status: 0 when every ledger closed and nothing was lost; 1 when something was lost, or a ledger
is open; 2 when a process failed; 3 for bad arguments

examples:
  mcast demo
  mcast demo --messages 20K --loss 30 --subscribers 2
  mcast demo --messages 20K --plant skip    (a fault that the ledger has to find)
"""


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand to the parser of ``mcast``."""
    parser = commands.add_parser(
        "demo",
        help="one publisher, three subscribers, seeded loss, every message accounted for",
        description="Publish to several subscribers under loss and account for every message.",
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("--messages", metavar="N", type=forms.positive_count, default=200_000,
        help="messages in all (default 200000)")  # fmt: skip
    add("--loss", metavar="PERCENT", type=forms.percent, default=5.0,
        help="packets that each subscriber throws away, 0 to 90 (default 5)")  # fmt: skip
    add("--subscribers", metavar="N", type=forms.positive_count, default=3,
        help=f"subscriber processes, 1 to {_MOST_SUBSCRIBERS} (default 3)")  # fmt: skip
    add("--rate", metavar="R", type=forms.bits_per_second, default=40e6,
        help="most bits per second (default 40M, about 17,000 messages of 256 bytes)")  # fmt: skip
    add("--size", metavar="B", type=forms.byte_count, default=256,
        help=f"bytes of a message, from {HEAD_BYTES} up (default 256)")  # fmt: skip
    add("--seed", metavar="N", type=int, default=1, help="seed of the loss (default 1)")
    add("--timeout", metavar="S", type=forms.seconds, default=120.0,
        help="most seconds for all of it (default 120)")  # fmt: skip
    add("--url", help="another endpoint (default: a port of its own on epgm://lo;239.192.1.1)")
    add("--plant", choices=[plant.value for plant in Plant],
        help="mishandle one message in front of the first ledger, which has to notice")  # fmt: skip
    add("--json", action="store_true", help="the result as a line of JSON; no table")
    parser.set_defaults(run=run)


@dataclass(slots=True)
class Outcome:
    """How a run ended."""

    publisher: Child
    """The publisher, ended."""
    subscribers: list[Child]
    """The subscribers, ended."""
    elapsed_s: float
    """Seconds from the first message to the last ledger."""
    failures: list[str]
    """Processes that failed, each with its last words."""
    interrupted: str | None
    """Why it ended early, or None."""


def run(arguments: argparse.Namespace) -> int:
    """Run the demonstration; the exit status. Blocks up to ``--timeout`` and a few seconds.

    Raises: OptionError for numbers out of range.
    """
    if arguments.size < HEAD_BYTES:
        raise OptionError(f"--size is {HEAD_BYTES} or more, not {arguments.size}")
    if arguments.subscribers > _MOST_SUBSCRIBERS:
        raise OptionError(f"--subscribers is 1 to {_MOST_SUBSCRIBERS}, not {arguments.subscribers}")
    outcome = _Run(arguments).finish()
    line, status = verdict(outcome, arguments.messages)
    for failure in outcome.failures:
        say(failure)
    if arguments.json:
        line = json.dumps(_result(outcome, arguments, status))
    Output().write(line.encode() + b"\n")
    return status


def verdict(outcome: Outcome, message_count: int) -> tuple[str, int]:
    """The last line, and the exit status."""
    subscribers = outcome.subscribers
    delivered = sum(child.count("received") for child in subscribers)
    lost = sum(child.count("lost") for child in subscribers)
    open_ledgers = [_why_open(child) for child in subscribers if not child.has("is_closed")]
    if outcome.failures or outcome.interrupted or open_ledgers:
        reasons = [*([outcome.interrupted] if outcome.interrupted else []), *open_ledgers]
        if outcome.failures:
            reasons.insert(0, f"{len(outcome.failures)} processes failed")
        status = EXIT_FAILURE if outcome.failures else EXIT_UNMET
        return f"LEDGER OPEN: {'; '.join(reasons)}", status
    whole = f"{len(subscribers)} x {message_count:,}"
    counts = f"{whole} delivered" if not lost else f"of {whole}, {delivered:,} delivered"
    repaired = sum(child.count("repaired") for child in subscribers)
    line = f"every ledger closed: {counts}, {lost:,} lost, {repaired:,} repaired"
    if repaired:
        p50_s, p99_s = (_worst(subscribers, name) for name in ("repair_p50_s", "repair_p99_s"))
        line += f", repair p50 {p50_s * 1e3:.1f} ms p99 {p99_s * 1e3:.0f} ms"
    return line, EXIT_UNMET if lost else EXIT_OK


class _Run:
    """One run, from the first process to the last."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        # A run of its own for every process id: neither the port nor the payloads get mixed up.
        self._incarnation = os.getpid()
        self._url = arguments.url or f"epgm://lo;239.192.1.1:{20_000 + os.getpid() % 10_000}"
        self._deadline = Deadline(arguments.timeout)
        self._children: list[Child] = []
        self._failures: list[str] = []
        self._ended_early: Child | None = None
        self._watch = Stopwatch()
        self._elapsed_s = 0.0
        self._before: dict[str, tuple[float, int]] = {}
        self._rates: dict[str, float] = {}

    def finish(self) -> Outcome:
        """Run to the end, whatever it is."""
        title = (
            f"mcast demo: {self._arguments.messages:,} messages of {self._arguments.size} bytes,"
            f" {self._arguments.subscribers} subscribers, {self._arguments.loss:g} % loss at each,"
            f" {self._url}"
        )
        interrupted: str | None = None
        display = Display(title, quiet=self._arguments.json)
        with ExitStack() as stack:
            stop = stack.enter_context(Stop())
            stack.callback(self._end_all)
            selector = stack.enter_context(selectors.DefaultSelector())
            self._start(selector)
            stack.enter_context(display.context)
            interrupted = self._coordinate(selector, display, stop)
            display.show(self._elapsed_s, self._rows(is_final=True))
        publisher, *subscribers = self._children
        return Outcome(publisher, subscribers, self._elapsed_s, self._failures, interrupted)

    def _start(self, selector: selectors.BaseSelector) -> None:
        names = ["publisher"]
        names += [f"subscriber {number + 1}" for number in range(self._arguments.subscribers)]
        for number, name in enumerate(names):
            child = Child(self._plan(number, name))
            self._children.append(child)
            selector.register(child.fileno(), selectors.EVENT_READ, child)

    def _plan(self, number: int, name: str) -> Plan:
        arguments = self._arguments
        return Plan(
            name=name,
            role="subscribe" if number else "publish",
            url=self._url,
            incarnation=self._incarnation,
            message_count=arguments.messages,
            size_bytes=arguments.size,
            rate=arguments.rate,
            drop_rate=arguments.loss / 100,
            drop_seed=abs(arguments.seed) * (_MOST_SUBSCRIBERS + 1) + number,
            plant=arguments.plant if number == 1 else None,
        )

    def _coordinate(
        self, selector: selectors.BaseSelector, display: Display, stop: Stop
    ) -> str | None:
        """Take the processes through their stages; why that ended early, or None."""
        publisher, *subscribers = self._children
        is_going = is_finishing = False
        progress, still = -1, Deadline(_QUIET_S)
        while selector.get_map():
            for key, _ in selector.select(TURN_S):
                child: Child = key.data
                if not child.read():
                    selector.unregister(child.fileno())
                    if not child.has("done"):
                        self._ended_early = child
                        return f"{child.plan.name} ended early"
            if stop.is_asked:
                return "ended by a signal"
            if self._deadline.has_passed:
                return f"not finished within --timeout {self._arguments.timeout:g} s"
            if (
                not is_going
                and publisher.has("ready")
                and all(c.has("joined") for c in subscribers)
            ):
                is_going = True
                self._watch = Stopwatch()
                publisher.tell("go")
            if is_going and not is_finishing:
                self._elapsed_s = self._watch.elapsed_s
                now = sum(child.count("received") + child.count("lost") for child in subscribers)
                if now != progress or not publisher.has("all_sent"):
                    progress, still = now, Deadline(_QUIET_S)
                if still.has_passed or all(child.has("done") for child in subscribers):
                    is_finishing = True
                    publisher.tell("finish")
            if display.is_due:
                display.show(self._elapsed_s, self._rows(is_final=False))
        return None

    def _end_all(self) -> None:
        """End every process, in parallel, and keep the last words of those that failed."""
        for child in self._children:
            if not child.has("done"):
                child.stop()
        for child in self._children:
            status, words = child.end()
            if child is self._ended_early or (status and not child.was_stopped):
                self._failures.append(f"{child.plan.name} failed, status {status}: {words}")
            elif words and status == 0:
                say(f"{child.plan.name}: {words}")

    def _rows(self, *, is_final: bool) -> list[Row]:
        rows = []
        for child in self._children:
            is_publisher = child.plan.role == "publish"
            messages = child.count("sent" if is_publisher else "received")
            rows.append(
                Row(
                    name=child.plan.name,
                    sent=messages if is_publisher else None,
                    received=None if is_publisher else messages,
                    repaired=child.count("repaired"),
                    lost=None if is_publisher else child.count("lost"),
                    naks=child.count("naks"),
                    per_second=self._per_second(child.plan.name, messages, is_final=is_final),
                )
            )
        return rows

    def _per_second(self, name: str, messages: int, *, is_final: bool) -> float:
        """Messages per second over the last second or more; at the end, over all."""
        now_s = self._elapsed_s
        if is_final:
            return messages / now_s if now_s else 0.0
        before_s, before = self._before.setdefault(name, (0.0, 0))
        if now_s - before_s >= 0.9:
            self._rates[name] = (messages - before) / (now_s - before_s)
            self._before[name] = (now_s, messages)
        return self._rates.get(name, 0.0)


def _worst(children: list[Child], name: str) -> float:
    found = [child.report.get(name) for child in children]
    return max((value for value in found if isinstance(value, int | float)), default=0.0)


def _why_open(child: Child) -> str:
    faults = child.report.get("faults")
    if not child.has("done") or not isinstance(faults, dict):
        return f"{child.plan.name} has {child.count('received'):,} messages and is not done"
    listed = ", ".join(f"{count:,} {fault}" for fault, count in faults.items())
    return f"{child.plan.name}: {listed or 'the sum is wrong'}"


def _result(outcome: Outcome, arguments: argparse.Namespace, status: int) -> dict[str, object]:
    return {
        "status": status,
        "closed": all(child.has("is_closed") for child in outcome.subscribers),
        "interrupted": outcome.interrupted,
        "failures": outcome.failures,
        "messages": arguments.messages,
        "loss_percent": arguments.loss,
        "seed": arguments.seed,
        "seconds": round(outcome.elapsed_s, 3),
        "publisher": outcome.publisher.report,
        "subscribers": [child.report for child in outcome.subscribers],
    }
