"""One run of a plan: a phase of faults, then everything heals and all that is sent must arrive.

Owns the order of the phases and what is asked at the end of each. ``run_seed`` is the whole of it;
a failure comes back as a ``Result`` that says which law broke and how to see it again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final

from mcast.pgm.packet import NAK_LIST_LIMIT, TYPE_NAMES, build_nak
from mcast.testing.conditions import Conditions
from mcast.testing.hosts import Host, Publisher, Subscriber
from mcast.testing.laws import Law, Violation
from mcast.testing.network import Network, Trace
from mcast.testing.plan import Burst, Fault, Part, Plan, draw

__all__ = ["Result", "run_seed", "shrink"]

_MS: Final = 1_000_000
_S: Final = 1_000_000_000
_WRAP: Final = 1 << 32
_NEVER: Final = 1 << 62
_PROOF_MESSAGES: Final = 10
"""Sent by each publisher after all faults are over, and owed to everybody."""
_FILLER: Final = bytes(range(33, 127)) * 400
_STRANGER: Final = bytes((10, 77, 255, 1))
_HEAD_BYTES: Final = 10  # longest head of a frame
_SLOW_AWAKE_NS: Final = 2 * _MS
_SLOW_ASLEEP_NS: Final = 20 * _MS


@dataclass(slots=True)
class Result:
    """What became of one seed."""

    seed: int
    violation: Violation | None = None
    """The law that broke first, or None."""
    faults: list[Fault] = field(default_factory=list)
    """Those that the plan has, left out or not."""
    without: tuple[int, ...] = ()
    """Indices of faults that were left out."""
    crossed_wrap: bool = False
    """A publisher's numbers went past 2^32."""
    trace_hash: int = 0
    """The same for the same run."""
    packets: int = 0
    """That arrived somewhere."""
    delivered: int = 0
    """Messages."""
    lost: int = 0
    """Packets reported lost."""
    repaired: int = 0
    """Repairs sent."""
    connections: int = 0
    """Of a run over streams: how many there were."""
    world: str = ""
    """``stream`` for a run over streams."""

    @property
    def replay(self) -> str:
        """The command that does it again."""
        world = f" --world {self.world}" if self.world else ""
        without = f" --without {','.join(map(str, self.without))}" if self.without else ""
        return f"tools/simulate{world} --seed {self.seed}{without}"


def run_seed(seed: int, *, without: Collection[int] = (), trace: Trace | None = None) -> Result:
    """Run one seed, less some of its faults; never raises for what the engines do."""
    plan = draw(seed)
    result = Result(seed, faults=plan.faults, without=tuple(sorted(without)))
    plan.faults = [fault for index, fault in enumerate(plan.faults) if index not in without]
    run = _Run(plan, trace)
    try:
        run.phases()
    except Violation as violation:
        result.violation = violation
    network = run.network
    streams = [stream for lives in network._streams.values() for stream in lives]
    result.crossed_wrap = any(stream.first_sqn < _WRAP <= stream.lead for stream in streams)
    result.trace_hash = network.trace_hash
    result.packets = network.packet_count
    result.delivered = sum(len(sub.messages) for sub in network.subscribers)
    result.lost = sum(sub.lost_count for sub in network.subscribers)
    result.repaired = sum(stream.repair_count for stream in streams)
    return result


def shrink(failed: Result, run: Callable[..., Result] = run_seed) -> Result:
    """The same law broken with as few of the faults as can be found by leaving out one by one.

    ``run`` is what made it: ``run_seed`` or ``run_stream_seed``.
    """
    assert failed.violation is not None
    best = failed
    progress = True
    while progress:
        progress = False
        for index in range(len(failed.faults)):
            if index in best.without:
                continue
            tried = run(failed.seed, without={*best.without, index})
            if tried.violation is not None and tried.violation.law is failed.violation.law:
                best = tried
                progress = True
    return best


class _Run:
    """A plan at work."""

    def __init__(self, plan: Plan, trace: Trace | None) -> None:
        self.plan = plan
        self.network = Network(plan.seed, trace=trace)
        self.network.runs = plan.runs
        self._begin_ns = self.network.now_ns
        self._hosts: dict[str, Host] = {}
        self._again: list[Publisher] = []
        self._counter = 0

    def phases(self) -> None:
        """All of it. Raises ``Violation``."""
        network, plan = self.network, self.plan
        self._set_up()
        network.run_until(self._begin_ns + plan.safety_ns)
        self._heal()
        self._settle()
        self._prove()
        self._end()

    # Safety.

    def _set_up(self) -> None:
        plan, network = self.plan, self.network
        for part in plan.publishers:
            shared = self._hosts["pub0"].address if part.shares_address else None
            publisher = network.publisher(
                part.name,
                address=shared,
                **part.options,  # type: ignore[arg-type]  # names of socket options only
            )
            self._hosts[part.name] = publisher
            for burst in part.bursts:
                self._at(burst.at_ns, partial(self._send, publisher, burst))
        for part in plan.subscribers:
            self._at(part.at_ns, partial(self._subscribe, part))
        network.run_until(self._begin_ns)
        for fault in plan.faults:
            self._at(fault.begin_ns, partial(self._begin, fault))
            if fault.end_ns > fault.begin_ns:
                self._at(min(fault.end_ns, plan.safety_ns), partial(self._stop, fault))

    def _at(self, after_ns: int, action: partial[None]) -> None:
        self.network.at(self._begin_ns + after_ns, action)

    def _subscribe(self, part: Part) -> None:
        subscriber = self.network.subscriber(*part.topics, name=part.name, **part.options)
        subscriber.uses_intake = part.uses_intake
        subscriber.rcvbuf_bytes = part.rcvbuf_bytes
        # Dice of its own, so that nothing else of a seed changes.
        reader = Random(f"{self.plan.seed} {part.name}")
        subscriber.reader = reader if reader.random() < 0.4 else None
        subscriber.ledger.is_mild = self.plan.is_mild
        self._hosts[part.name] = subscriber

    def _send(self, publisher: Publisher, burst: Burst) -> None:
        if publisher.is_up and not publisher.stream.is_closed:
            limit = publisher.source.max_stream_bytes
            messages = [self._message(sizes) for sizes in burst.sizes]
            publisher.send(
                *(m for m in messages if sum(map(len, m)) + _HEAD_BYTES * len(m) <= limit)
            )
            if burst.flush:
                publisher.flush()

    def _message(self, sizes: tuple[int, ...]) -> tuple[bytes, ...]:
        self._counter += 1
        n = self._counter
        head = b"%c%d " % (b"ABCD"[n % 4], n)
        first, *rest = (_FILLER[n % 94 : n % 94 + size] for size in sizes)
        return (head + first, *rest)

    def _begin(self, fault: Fault) -> None:
        host = self._hosts.get(fault.host)
        if host is None:
            return  # it has not started yet
        self._note(f"fault begins: {fault}")
        direction, _, detail = fault.detail.partition(" ")
        conditions = host.inbound if direction == "in" else host.outbound
        match fault.kind:
            case "loss" | "duplicate" | "reorder" | "corrupt" | "truncate":
                setattr(conditions, fault.kind, fault.value)
            case "loss_by_type":
                conditions.loss_by_type[_TYPES[detail]] = fault.value
            case "burst":
                conditions.burst, conditions.burst_packets = fault.value, int(detail)
            case "jitter":
                conditions.jitter_ns = int(fault.value)
            case "delay":
                conditions.delay_ns += int(fault.value)
            case "mtu":
                conditions.mtu_bytes = int(fault.value)
            case "clog":
                conditions.clogged_until_ns = self._begin_ns + fault.end_ns
            case "cut":
                if fault.detail in self._hosts:
                    self.network.cut(host, self._hosts[fault.detail])
            case "part":
                self.network.part([host], [h for h in self.network.hosts if h is not host])
            case "pause":
                host.pause()
            case "slow":
                self._nap(host, fault)
            case "storm":
                self._storm(host, fault)
            case "jump":
                host.jump(int(fault.value))
            case "close":
                if isinstance(host, Publisher) and not host.is_paused:
                    host.close(int(fault.value))
            case "crash" | "crash_same" | "restart":
                if isinstance(host, Subscriber) or not host.stream.is_closed:  # type: ignore[attr-defined]
                    host.crash()
                    host.is_paused = False

    def _stop(self, fault: Fault) -> None:
        host = self._hosts.get(fault.host)
        if host is None:
            return
        self._note(f"fault ends: {fault}")
        conditions = host.inbound if fault.detail.startswith("in") else host.outbound
        match fault.kind:
            case "loss" | "duplicate" | "reorder" | "corrupt" | "truncate" | "burst":
                setattr(conditions, fault.kind, 0.0)
            case "loss_by_type":
                conditions.loss_by_type.clear()
            case "jitter":
                conditions.jitter_ns = 0
            case "delay":
                conditions.delay_ns = max(0, conditions.delay_ns - int(fault.value))
            case "mtu":
                conditions.mtu_bytes = 0
            case "clog":
                conditions.clogged_until_ns = 0
            case "cut":
                if fault.detail in self._hosts:
                    self.network.join(host, self._hosts[fault.detail])
            case "part":
                for other in self.network.hosts:
                    self.network.join(host, other)
                    self.network.join(other, host)
            case "pause" | "slow":
                host.resume()
            case "crash":
                if fault.detail != "for good":
                    self._restart(host)
            case "restart":
                self._restart(host)
            case "crash_same":
                if isinstance(host, Publisher) and not host.is_up and host not in self._again:
                    self._again.append(host)

    def _restart(self, host: Host) -> None:
        if host.is_up:
            return
        if isinstance(host, Publisher) and not host.stream.is_closed:
            host.start(self.network.new_tsi())
        elif isinstance(host, Subscriber):
            host.start()
            host.ledger.is_mild = self.plan.is_mild

    def _storm(self, host: Host, fault: Fault) -> None:
        """A stranger asks for as much as one NAK can name, every ``value`` ns."""
        network = self.network
        if not isinstance(host, Publisher) or network.now_ns >= self._begin_ns + fault.end_ns:
            return
        stream = host.stream
        last = stream.lead
        numbers = range(max(stream.trail, last - NAK_LIST_LIMIT + 1), last + 1)
        if host.is_up and numbers:
            nak = build_nak(stream.tsi, network.port, numbers, host.address, network.group)
            network.inject(host, nak, _STRANGER)
        network.at(network.now_ns + int(fault.value), partial(self._storm, host, fault))

    def _nap(self, host: Host, fault: Fault) -> None:
        """It works for a moment, then does something else for ten times as long."""
        network = self.network
        if network.now_ns >= self._begin_ns + fault.end_ns - _SLOW_ASLEEP_NS:
            return
        host.pause()
        network.at(network.now_ns + _SLOW_ASLEEP_NS, host.resume)
        network.at(
            network.now_ns + _SLOW_ASLEEP_NS + _SLOW_AWAKE_NS, partial(self._nap, host, fault)
        )

    # Liveness.

    def _heal(self) -> None:
        network = self.network
        for host in network.hosts:
            host.inbound.delay_ns, host.outbound.delay_ns = Conditions().delay_ns + 100_000, 0
        network.heal()
        self._note("healed")
        # What is still under way speaks for lives that are over.
        network.run(0.4)
        for publisher in self._again:
            knows = publisher.stream.lead >= publisher.stream.first_sqn + 3
            publisher.start(publisher.stream.tsi if knows else network.new_tsi())
        for host in network.hosts:
            if isinstance(host, Subscriber):
                host.reader = None
                self._restart(host)

    def _settle(self) -> None:
        """What was sent during the faults is delivered or reported within the deadline."""
        network = self.network
        timers = [host.options.timers for host in self._ends()]
        bound_ns = 2 * _S + max(t.repair_deadline_ns + t.spm_ambient_ivl_ns for t in timers)
        for publisher in network.publishers:
            rate = min(publisher.options.rate, publisher.options.min_rate or 1e12)
            size = len(publisher.stream._framed) + sum(
                sum(map(len, parts)) for parts in publisher._waiting
            )
            bound_ns += int(20e9 * size / rate / publisher.options.repair_share)
        quiet_ns = network.now_ns + 2 * _S  # heartbeats tell of the last of it, and of a restart
        network.run_until(quiet_ns)
        network.run_until(network.now_ns + bound_ns, self._is_settled)
        for publisher in self._living():
            if publisher.waiting_count or not publisher.stream.is_drained:
                raise Violation(
                    Law.LIVENESS,
                    f"{publisher.name} holds messages {bound_ns / 1e9:.1f} s after the faults",
                )
        self._demand_settled("after the faults", bound_ns)
        network.check()

    def _is_settled(self) -> bool:
        return all(
            publisher.waiting_count == 0 and publisher.stream.is_drained
            for publisher in self._living()
        ) and all(
            account.is_over or account.stream.is_over or account.is_settled
            for subscriber in self._listening()
            for account in subscriber.ledger.accounts.values()
        )

    def _demand_settled(self, when: str, bound_ns: int) -> None:
        for subscriber in self._listening():
            for account in subscriber.ledger.accounts.values():
                living = not account.is_over and not account.stream.is_over
                if living and not account.is_settled:
                    raise Violation(
                        Law.LIVENESS,
                        f"{subscriber.name} has not caught up with {account.stream.name}"
                        f" {bound_ns / 1e9:.1f} s {when}",
                    )

    def _prove(self) -> None:
        """With no faults left, every message arrives, and nothing sent from now on is lost."""
        network = self.network
        # Where a message's first packets were given up, its last may still be waited for.
        sent_before = {publisher: publisher.stream.lead for publisher in self._living()}
        for _ in range(_PROOF_MESSAGES):
            for publisher in self._living():
                publisher.send(self._message((20,)))
            network.run(0.005)
        network.run(2.0)
        for subscriber in self._listening():
            for publisher in self._living():
                account = subscriber.ledger.accounts.get(publisher.stream.name)
                if account is None or account.stream is not publisher.stream or account.is_over:
                    raise Violation(
                        Law.LIVENESS,
                        f"{subscriber.name} does not follow {publisher.name} after the faults",
                    )
                if account.lost_to > sent_before[publisher]:
                    raise Violation(
                        Law.LIVENESS,
                        f"{subscriber.name} loses of {publisher.name} without any fault",
                    )
                if not account.is_settled:
                    raise Violation(
                        Law.LIVENESS,
                        f"{subscriber.name} lags behind {publisher.name} without any fault",
                    )

    def _end(self) -> None:
        """Everybody says goodbye, and nothing is left of them."""
        network = self.network
        said_goodbye = [publisher.stream for publisher in self._living()]
        for publisher in self._living():
            publisher.close(500 * _MS)
        network.run(1.0)
        network.check()
        for subscriber in self._listening():
            for account in subscriber.ledger.accounts.values():
                if not account.is_over and account.stream in said_goodbye:
                    raise Violation(
                        Law.LIVENESS,
                        f"{subscriber.name} was not told of the end of {account.stream.name}",
                    )
        expiry_ns = max(sub.options.timers.peer_expiry_ns for sub in self._listening())
        network.run_until(network.now_ns + expiry_ns + 1 * _S)
        for subscriber in self._listening():
            left = len(subscriber.engine._peers)
            if left or subscriber.engine.streams or subscriber.engine.next_timeout_ns != _NEVER:
                raise Violation(
                    Law.RESOURCES, f"{subscriber.name} still keeps {left} sources that are gone"
                )

    def _living(self) -> list[Publisher]:
        return [p for p in self.network.publishers if p.is_up and not p.stream.is_closed]

    def _listening(self) -> list[Subscriber]:
        return [s for s in self.network.subscribers if s.is_up]

    def _ends(self) -> list[Publisher | Subscriber]:
        return [*self.network.publishers, *self.network.subscribers]

    def _note(self, line: str) -> None:
        if self.network.trace is not None:
            self.network._note(line)


_TYPES: Final = {name: number for number, name in TYPE_NAMES.items()}
