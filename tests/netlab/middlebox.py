"""The relay of ``relay.py`` put into the cable between a host and the bridge, and taken out again.

Owns the two interfaces it adds and the process. Invariant: after ``heal`` the cable is as it was.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tests.netlab.commands import COMMAND_LIMIT_S, ip, run
from tests.support.process import LabError, Process

if TYPE_CHECKING:
    from tests.netlab.host import Host

__all__ = ["Relay"]


class Relay:
    """A box in one host's cable; see ``Host.relay``. ``tally`` is known after ``heal``."""

    def __init__(
        self,
        host: Host,
        inbound: Mapping[str, object],
        outbound: Mapping[str, object],
        seed: int,
    ) -> None:
        self.host = host
        self.tally: dict[str, dict[str, int]] = {}
        """What was done, by direction (``inbound``, ``outbound``) and kind; see ``relay.Tally``."""
        bridge, number = host.lab.bridge, host.number
        port, inner, outer = f"p{number}", f"r{number}", f"q{number}"
        mtu = ("mtu", str(host.lab.mtu))
        self._bridge, self._port, self._inner = bridge, port, inner
        ip(
            *("-n", bridge, "link", "add", inner, *mtu, "type", "veth"),
            *("peer", "name", outer, *mtu),
        )
        ip("-n", bridge, "link", "set", inner, "up")
        ip("-n", bridge, "link", "set", outer, "master", "sw", "up")
        ip("-n", bridge, "link", "set", port, "nomaster")
        command = [
            *("ip", "netns", "exec", bridge, sys.executable),
            *(str(Path(__file__).with_name("relay.py")), port, inner, "--seed", str(seed)),
            *("--toward-a", json.dumps(dict(inbound)), "--toward-b", json.dumps(dict(outbound))),
        ]
        self.process: Process | None = Process(
            command, host.lab.directory / f"relay{number}.stderr"
        )
        host.processes.append(self.process)
        self.process.wait_json("ready", timeout_s=COMMAND_LIMIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.heal()

    def change(self, *, inbound: Mapping[str, object], outbound: Mapping[str, object]) -> None:
        """From now on do this harm instead."""
        if self.process is None:
            raise LabError("the relay has been taken out")
        self.process.tell(json.dumps({"toward_a": dict(inbound), "toward_b": dict(outbound)}))

    def heal(self) -> None:
        """Take the box out; what is on its way in it is lost. Safe to call twice."""
        if self.process is None:
            return
        process, self.process = self.process, None
        process.tell("")
        said = process.wait_json("tally", timeout_s=COMMAND_LIMIT_S)
        process.wait(timeout_s=COMMAND_LIMIT_S)
        self.tally = {"inbound": _counts(said["toward_a"]), "outbound": _counts(said["toward_b"])}
        run(["ip", "-n", self._bridge, "link", "del", self._inner])
        ip("-n", self._bridge, "link", "set", self._port, "master", "sw", "up")


def _counts(words: object) -> dict[str, int]:
    assert isinstance(words, dict)
    return {str(name): int(count) for name, count in words.items()}
