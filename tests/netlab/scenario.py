"""A laboratory and its faults read from a TOML file, run from start to end by a timetable.

    hosts = 3
    seconds = 8
    [[run]]
    host = 2
    command = "mcast sub 'epgm://eth0;239.192.1.1:5555' --count 20000 --timeout 8 --events"
    [[fault]]
    host = 2
    at = 1.0
    until = 3.0
    loss = 10.0

``run``: a command inside a host, from ``at`` seconds on; ``quiet`` hides its stdout.
``fault``: harm to a host from ``at`` to ``until``: ``loss`` (percent; with ``pgm_type``, ``from`` a
host, or ``burst = [5, 100]`` for five in each hundred), ``duplicate`` (percent), ``corrupt``
(percent; ``offset``), ``link = "down"``, or ``inbound`` / ``outbound`` tables for the seeded relay
(``relay.Harm`` lists their words).

Invariant: a file that says something unknown is refused before anything is built.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Any

from tests.netlab.faults import PGM_TYPES, Fault
from tests.netlab.host import Host
from tests.netlab.lab import Lab
from tests.netlab.middlebox import Relay
from tests.support.process import Process

__all__ = ["Scenario", "ScenarioError"]

_SETTLE_S = 0.3
_RELAY_WORDS = ("inbound", "outbound")


class ScenarioError(ValueError):
    """The file does not describe a scenario; the text says what to change."""


@dataclass(frozen=True)
class Run:
    """A command inside a host."""

    host: int
    command: str
    at: float = 0.0
    name: str = ""
    quiet: bool = False
    """Its stdout is not shown."""


@dataclass(frozen=True)
class Harming:
    """One fault of the timetable; exactly one of its kinds is given."""

    host: int
    at: float = 0.0
    until: float = float("inf")
    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    link: str = ""
    inbound: dict[str, Any] = field(default_factory=dict)
    outbound: dict[str, Any] = field(default_factory=dict)
    pgm_type: str = ""
    source: int = 0
    burst: tuple[int, int] = (0, 0)
    offset: int = 40

    def __post_init__(self) -> None:
        kinds = [bool(getattr(self, kind)) for kind in ("loss", "duplicate", "corrupt", "link")]
        if sum(kinds) + bool(self.inbound or self.outbound) != 1:
            raise ScenarioError(
                "a fault is exactly one of loss, duplicate, corrupt, link, inbound/outbound"
            )
        if self.pgm_type and self.pgm_type not in PGM_TYPES:
            raise ScenarioError(f"pgm_type is one of {', '.join(PGM_TYPES)}, not {self.pgm_type}")
        if self.link not in ("", "down"):
            raise ScenarioError(f'link can be "down", not {self.link!r}')

    def start(self, lab: Lab, seed: int) -> Callable[[], str]:
        """Begin; the result ends it and says what it did."""
        host = lab.hosts[self.host - 1]
        if self.link:
            host.ip("link", "set", host.interface, "down")
            return lambda: _link_up(host)
        if self.inbound or self.outbound:
            relay = host.relay(inbound=self.inbound, outbound=self.outbound, seed=seed)
            return lambda: _taken_out(relay)
        faults = self._rules(lab, host)
        return lambda: _healed(faults)

    def _rules(self, lab: Lab, host: Host) -> list[Fault]:
        if self.duplicate:
            return [host.duplicate(percent=self.duplicate)]
        if self.corrupt:
            return [host.corrupt(percent=self.corrupt, offset=self.offset)]
        take, of = self.burst
        return [
            host.lose(
                percent=self.loss,
                pgm_type=PGM_TYPES[self.pgm_type] if self.pgm_type else None,
                source=lab.hosts[self.source - 1] if self.source else None,
                match=f"numgen inc mod {of} < {take}" if take else "",
            )
        ]


@dataclass(frozen=True)
class Scenario:
    """What ``load`` read; ``run`` carries it out once."""

    hosts: int
    seconds: float
    seed: int
    mtu: int
    runs: tuple[Run, ...]
    faults: tuple[Harming, ...]

    @classmethod
    def load(cls, path: Path) -> Scenario:
        """Read a file. Raises ``ScenarioError`` with what is wrong in it."""
        try:
            words = tomllib.loads(path.read_text())
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ScenarioError(f"{path}: {error}") from None
        return cls.read(words)

    @classmethod
    def read(cls, words: dict[str, Any]) -> Scenario:
        """The same from the parsed file."""
        unknown = set(words) - {"hosts", "seconds", "seed", "mtu", "run", "fault"}
        if unknown:
            raise ScenarioError(f"unknown: {', '.join(sorted(unknown))}")
        hosts = words.get("hosts", 0)
        if not isinstance(hosts, int) or not 1 <= hosts <= 200:
            raise ScenarioError(f"hosts is 1 to 200, not {hosts!r}")
        runs = tuple(_entry(Run, item) for item in words.get("run", ()))
        faults = tuple(
            _entry(Harming, {**item, "source": item.get("from", 0)})
            for item in words.get("fault", ())
        )
        for entry in (*runs, *faults):
            if not 1 <= entry.host <= hosts:
                raise ScenarioError(f"host {entry.host} is not one of 1 to {hosts}")
        return cls(
            hosts=hosts,
            seconds=float(words.get("seconds", 10)),
            seed=int(words.get("seed", 1)),
            mtu=int(words.get("mtu", 1500)),
            runs=runs,
            faults=faults,
        )

    def run(self, say: Callable[[str], None]) -> int:
        """Build, run to the end of ``seconds`` or of all commands, tell what happened to ``say``.

        Returns 0 if every command that ended by itself succeeded.
        """
        with Lab(self.hosts, mtu=self.mtu) as lab:
            show = _Shower(say)
            ending: dict[int, Callable[[], str]] = {}
            timetable = self._timetable(lab, show, ending)
            start = time.monotonic() + _SETTLE_S
            while True:
                now = time.monotonic() - start
                while timetable and timetable[0][0] <= now:
                    _, title, action = timetable.pop(0)
                    say(f"[{now:7.3f} s] {title}")
                    action()
                still = show.listen(0.02 if timetable else 0.2)
                waiting = any(title.startswith("run") for _, title, _ in timetable)
                if now >= self.seconds or not (still or waiting):
                    break
            for end in ending.values():
                say(f"[{time.monotonic() - start:7.3f} s] at the end: {end()}")
            return show.finish()

    def _timetable(
        self, lab: Lab, show: _Shower, ending: dict[int, Callable[[], str]]
    ) -> list[tuple[float, str, Callable[[], None]]]:
        table: list[tuple[float, str, Callable[[], None]]] = []
        for number, run in enumerate(self.runs):
            name = run.name or f"host {run.host}"

            def start(run: Run = run, name: str = name) -> None:
                process = lab.hosts[run.host - 1].start(_words(run.command))
                show.add(name, process, quiet=run.quiet)

            table.append((run.at, f"run {number + 1} on host {run.host}: {run.command}", start))
        for number, fault in enumerate(self.faults):

            def begin(number: int = number, fault: Harming = fault) -> None:
                ending[number] = fault.start(lab, self.seed + number)

            def end(number: int = number) -> None:
                if number in ending:
                    show.say(f"             {ending.pop(number)()}")

            table.append((fault.at, f"fault {number + 1} on host {fault.host} begins", begin))
            if fault.until < self.seconds:
                table.append((fault.until, f"fault {number + 1} ends", end))
        return sorted(table, key=lambda item: item[0])


class _Shower:
    """Shows what processes say, a line at a time with the name in front."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._processes: dict[str, Process] = {}
        self._selector = DefaultSelector()
        self._rests: dict[str, bytes] = {}
        self._told: dict[str, int] = {}
        self._quiet: set[str] = set()

    def add(self, name: str, process: Process, *, quiet: bool) -> None:
        while name in self._processes:
            name += "'"
        self._processes[name] = process
        self._rests[name] = b""
        self._told[name] = 0
        self._quiet.update({name} if quiet else ())
        self._selector.register(process.output, EVENT_READ, name)

    def listen(self, seconds: float) -> bool:
        """Show what came; True while some process runs."""
        if not self._selector.get_map():
            time.sleep(seconds)
        for key, _ in self._selector.select(seconds) if self._selector.get_map() else ():
            chunk = os.read(key.fd, 65536)
            if not chunk:
                self._selector.unregister(key.fd)
            *lines, self._rests[key.data] = (self._rests[key.data] + chunk).split(b"\n")
            for line in () if key.data in self._quiet else lines:
                self.say(f"{key.data}: {line.decode(errors='replace')}")
        for name, process in self._processes.items():
            fresh = process.stderr[self._told[name] :]
            whole = fresh[: fresh.rfind("\n") + 1]
            self._told[name] += len(whole)
            for text in whole.splitlines():
                self.say(f"{name}! {text}")
        return any(process.poll() is None for process in self._processes.values())

    def finish(self) -> int:
        self.listen(0.05)
        failed = 0
        for name, process in self._processes.items():
            status = process.poll()
            if status is None:
                process.kill()
            failed += status not in (None, 0)
            self.say(f"{name}: {'ended by the lab' if status is None else f'exit {status}'}")
        self._selector.close()
        return 1 if failed else 0


def _words(command: str) -> list[str]:
    words = shlex.split(command)
    if not words:
        raise ScenarioError("an empty command")
    # `mcast` is this very tree, and `python` the Python that runs us.
    if words[0] == "mcast":
        return [sys.executable, "-m", "mcast", *words[1:]]
    return [sys.executable, *words[1:]] if words[0] == "python" else words


def _entry(kind: Any, words: object) -> Any:
    if not isinstance(words, dict):
        raise ScenarioError(f"{kind.__name__.lower()} is a table, not {words!r}")
    words = {name: value for name, value in words.items() if name != "from"}
    known = {item.name for item in fields(kind)}
    if unknown := set(words) - known:
        raise ScenarioError(f"unknown: {', '.join(sorted(unknown))}; known: {sorted(known)}")
    if isinstance(words.get("burst"), list):
        words["burst"] = tuple(words["burst"])
    try:
        return kind(**words)
    except TypeError as error:
        raise ScenarioError(str(error)) from None


def _link_up(host: Host) -> str:
    host.ip("link", "set", host.interface, "up")
    host.ip("route", "replace", "224.0.0.0/4", "dev", host.interface)
    return f"host {host.number}: link up"


def _taken_out(relay: Relay) -> str:
    relay.heal()
    return f"host {relay.host.number}: relay {json.dumps(relay.tally)}"


def _healed(faults: list[Fault]) -> str:
    for fault in faults:
        fault.heal()
    return f"host {faults[0].host.number}: struck {sum(fault.dropped for fault in faults)} packets"
