"""One run of a plan over streams: a phase of faults, then all heals and what is sent must arrive.

Owns the order of the phases and what is asked at the end of each, as ``mcast.testing.simulation``.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Final

from mcast.patterns import SocketKind
from mcast.testing.laws import Law, Violation
from mcast.testing.plan import Fault
from mcast.testing.simulation import Result
from mcast.testing.streams.connection import Connection
from mcast.testing.streams.lanes import Lane
from mcast.testing.streams.node import PUBLISHERS, Node
from mcast.testing.streams.plan import HANDSHAKE_NS, TOPICS, Plan, draw
from mcast.testing.streams.wire import Cable
from mcast.testing.streams.world import Trace, World

__all__ = ["run_stream_seed"]

_PROOF_COUNT: Final = 5
_HEALING_S: Final = 20.0
_SLACK_NS: Final = 100_000_000
_FOR_EVER_NS: Final = 1 << 62
_PROMPT_NS: Final = 1_000_000
_NARROW_BYTES: Final = 1000
"""Where less fits a PING waits behind what fills it, and its sender may lose patience."""


def run_stream_seed(
    seed: int, *, without: Collection[int] = (), trace: Trace | None = None
) -> Result:
    """Run one seed, less some of its faults; never raises for what engines and patterns do."""
    plan = draw(seed)
    result = Result(seed, faults=plan.faults, without=tuple(sorted(without)), world="stream")
    plan.faults = [fault for index, fault in enumerate(plan.faults) if index not in without]
    run = _Run(plan, trace)
    try:
        run.phases()
    except Violation as violation:
        result.violation = violation
    world = run.world
    result.trace_hash = world.trace_hash
    result.connections = world.connection_count
    result.delivered = len(world.truth.delivered)
    result.packets = sum(wire.passed_bytes for cable in world.cables for wire in cable.wires)
    return result


class _Run:
    """A plan at work."""

    def __init__(self, plan: Plan, trace: Trace | None) -> None:
        self.plan = plan
        self.world = World(plan.seed, trace=trace)
        self.world.capacity_bytes = plan.capacity_bytes
        self.world.chunk_bytes = plan.chunk_bytes
        self.world.delay_ns = plan.delay_ns
        self.world.old, self.world.lag = plan.old, plan.lag
        is_narrow = plan.capacity_bytes < _NARROW_BYTES or plan.delay_ns > _PROMPT_NS
        self.world.is_slow = is_narrow or any(f.kind in ("slow", "delay") for f in plan.faults)
        self._begin_ns = self.world.now_ns
        self._nodes: dict[str, Node] = {}

    def phases(self) -> None:
        """All of it. Raises ``Violation``."""
        self._set_up()
        self.world.run(self.plan.safety_ns / 1e9)
        self._heal()
        self._settle()
        self._prove()
        self._end()

    # Safety.

    def _set_up(self) -> None:
        world = self.world
        for part in self.plan.parts:
            node = Node(world, part.name, part.kind, part.queue, part.zmtp)
            node.reads_itself = part.reads_itself
            world.nodes.append(node)
            self._nodes[part.name] = node
            for change in part.changes:
                self._at(change.at_ns, partial(self._change, node, change.is_wanted, change.topic))
            for burst in part.bursts:
                self._at(burst.at_ns, partial(self._send, node, burst.messages))
        for part in self.plan.parts:
            for name in part.dials:
                self._at(0, partial(self._nodes[part.name].dial, self._nodes[name]))
        for fault in self.plan.faults:
            self._at(fault.begin_ns, partial(self._begin, fault))
            self._at(fault.end_ns, partial(self._stop, fault))

    def _at(self, after_ns: int, action: partial[None]) -> None:
        self.world.at(self._begin_ns + after_ns, action)

    def _change(self, node: Node, is_wanted: bool, topic: bytes) -> None:
        if node.is_up:
            self.world.note(f"{node.name} {'subscribes to' if is_wanted else 'cancels'} {topic!r}")
            (node.application.subscribe if is_wanted else node.application.unsubscribe)(topic)

    def _send(self, node: Node, messages: tuple[tuple[bytes, tuple[int, ...]], ...]) -> None:
        if node.is_up and node.kind not in (SocketKind.PULL, SocketKind.REP, SocketKind.ROUTER):
            for topic, sizes in messages:
                node.application.submit(topic, sizes)
            node.settle()

    def _begin(self, fault: Fault) -> None:
        world, node = self.world, self._nodes[fault.host]
        world.note(f"fault begins: {fault}")
        cables = [cable for cable in world.living_cables() if node in _sockets(cable)]
        cable = world.dice.choice(cables) if cables else None
        match fault.kind:
            case "delay":
                world.delay_ns = int(fault.value)
                for each in world.cables:
                    each.is_late = True
            case "chunk":
                world.chunk_bytes = int(fault.value)
            case "slow":
                node.application.is_slow = True
            case "deny":
                world.denied = fault.value
            case "crash":
                if node.is_up:
                    node.crash()
            case "stranger":
                if node.is_up:
                    world.intrude(node, self._gibberish())
            case _ if cable is not None:
                self._hurt(cable, fault)

    def _hurt(self, cable: Cable, fault: Fault) -> None:
        wire = cable.wires[self.world.dice.randrange(2)]
        match fault.kind:
            case "cut" | "reset":
                cable.is_reset = fault.kind == "reset"
                wire.cut_at = wire.passed_bytes + int(fault.value)
            case "corrupt":
                wire.corrupt_at = wire.passed_bytes + int(fault.value)
            case "half_open" | "one_way":
                cable.kill(both=fault.kind == "half_open", now_ns=self.world.now_ns)

    def _stop(self, fault: Fault) -> None:
        world, node = self.world, self._nodes[fault.host]
        match fault.kind:
            case "delay":
                world.delay_ns = self.plan.delay_ns
            case "chunk":
                world.chunk_bytes = self.plan.chunk_bytes
            case "slow":
                self._wake(node)
            case "deny":
                world.denied = 0.0
            case "crash":
                if not node.is_up:
                    node.restart()

    def _wake(self, node: Node) -> None:
        node.application.is_slow = False
        node.settle()

    def _gibberish(self) -> bytes:
        """What no peer says: noise, or a greeting with noise behind it."""
        dice = self.world.dice
        noise = dice.randbytes(dice.randrange(200))
        mechanism = self.plan.parts[0].zmtp.security.mechanism.ljust(20, b"\0")
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01" + mechanism + bytes(32)
        return dice.choice((noise, greeting + noise, greeting + b"\x04\x05\x04PING" + noise))

    # Liveness.

    def _heal(self) -> None:
        world = self.world
        world.note("all heals")
        world.delay_ns, world.chunk_bytes, world.denied, world.lag = 100_000, 1 << 16, 0.0, 0.0
        self._check_patience()
        for cable in world.cables:
            for wire in cable.wires:
                wire.cut_at = wire.corrupt_at = None
            if cable.dead_ns or cable.is_tainted:
                cable.snap(reset=True)
        for node in world.nodes:
            if not node.is_up:
                node.restart()
            self._wake(node)

    def _check_patience(self) -> None:
        """Who waits for an answer has noticed by now that nothing comes any more."""
        for cable in self.world.cables:
            for end in cable.ends:
                if not end.node.is_honest or end.is_over or not cable.into(end).is_dead:
                    continue
                silent_ns = self.world.now_ns - cable.dead_ns
                if silent_ns > _patience_ns(end) and not cable.into(end).arrived:
                    raise Violation(Law.LIVENESS, f"{end} hears nothing and waits on")

    def _settle(self) -> None:
        """What was sent during the faults arrives, where its connection stands."""
        self.world.run(1.0)
        self.world.run(_HEALING_S, self._is_settled)
        self._demand_settled("after the faults")

    def _is_settled(self) -> bool:
        return not self._unsettled()

    def _demand_settled(self, when: str) -> None:
        what = self._unsettled()
        if what:
            raise Violation(Law.LIVENESS, f"{what} {when}")

    def _unsettled(self) -> str:
        """Who has not caught up, or nothing."""
        for node in self.world.nodes:
            for number in node.dialled:
                mine = node.connections.get(number)
                if mine is None or not (mine.is_attached and mine.other.is_attached):
                    return f"{node.name} is not connected to {node.dialled[number].name}"
            if node.application.backlog and not self._is_stuck(node):
                return f"{node.name} has {len(node.application.backlog)} messages left to send"
            for connection in node.connections.values():
                lane = connection.lane
                if connection.other.node.is_honest and not lane.is_whole:
                    return f"{lane}: {lane.arrived_count} of {len(lane.sent)} messages came"
        return ""

    def _is_stuck(self, node: Node) -> bool:
        """A REQ whose request or reply went down with a connection; that is libzmq's rule, too."""
        asked = node.application.asked
        if node.kind is not SocketKind.REQ or asked < 0 or node.pattern.options.req_relaxed:  # type: ignore[attr-defined]
            return False
        lane = self.world.truth.lane.get(asked)
        return lane is None or not _stands(lane)

    def _prove(self) -> None:
        """With no faults left, every message arrives."""
        world = self.world
        proofs: list[tuple[Node, bytes, int]] = []
        for place in range(_PROOF_COUNT):
            for node in world.nodes:
                if node.kind in _TALKERS and not self._is_stuck(node):
                    topic = TOPICS[place % len(TOPICS)]
                    proofs.append((node, topic, node.application.submit(topic, (20,))))
                    node.settle()
            world.run(0.05)
        world.run(3.0)
        self._demand_settled("without any fault")
        replied = {
            asked
            for reply, asked in world.truth.reply_to.items()
            if asked >= 0
            and any(name == world.truth.sender[asked].name for name in _receivers(world, reply))
        }
        for node, topic, token in proofs:
            names = _receivers(world, token)
            if node.kind in PUBLISHERS:
                missing = [n.name for n in self._audience(node, topic) if n.name not in names]
                if missing:
                    raise Violation(Law.FILTER, f"{missing} did not get {token} of {node.name}")
            elif len(names) != 1 and not world.is_tainted:
                raise Violation(Law.LIVENESS, f"{token} of {node.name} was received by {names}")
            answers = node.kind is SocketKind.REQ or any(
                other.kind is SocketKind.ROUTER for other in world.nodes
            )
            if answers and token not in replied:
                raise Violation(Law.TURN, f"request {token} of {node.name} has no reply")

    def _audience(self, publisher: Node, topic: bytes) -> list[Node]:
        """Who is to get a message of this topic."""
        return [
            connection.other.node
            for connection in publisher.connections.values()
            if connection.other.node.is_honest and _wants(connection.other.node, topic)
        ]

    def _end(self) -> None:
        world = self.world
        for node in world.nodes:
            node.check_accounts()
            for connection in node.connections.values():
                connection.check_counters()
            if not world.is_tainted:
                node.check_received()
            if node.kind in PUBLISHERS:
                self._check_topics(node)

    def _check_topics(self, publisher: Node) -> None:
        for number, connection in publisher.connections.items():
            if not connection.other.node.is_honest:
                continue
            wanted = set(connection.other.node.application.topics)
            known = publisher.topics.get(number, set())
            # Who dials keeps what an earlier connection wanted, as in libzmq.
            if known != wanted and not (connection.dials and known > wanted):
                raise Violation(Law.FILTER, f"{connection} knows of {known}, wanted are {wanted}")
        if publisher.kind is SocketKind.XPUB and not self.world.is_tainted:
            known = set[bytes]().union(*publisher.topics.values())
            if publisher.application.noticed != known:
                raise Violation(
                    Law.FILTER,
                    f"{publisher.name} was told of {publisher.application.noticed}, not {known}",
                )


_TALKERS: Final = (
    SocketKind.PUSH,
    SocketKind.PUB,
    SocketKind.XPUB,
    SocketKind.RADIO,
    SocketKind.REQ,
    SocketKind.DEALER,
    SocketKind.PAIR,
)


def _patience_ns(end: Connection) -> int:
    """How long this end waits at most for a sign of its peer."""
    ivl_ns = end.node.zmtp_options.heartbeat_ivl_ns
    if not end.is_attached:
        return HANDSHAKE_NS + _SLACK_NS
    if not ivl_ns or end.other.node.kind is SocketKind.DISH:
        return _FOR_EVER_NS
    return 3 * ivl_ns + _SLACK_NS


def _sockets(cable: Cable) -> list[Node]:
    return [end.node for end in cable.ends]


def _stands(lane: Lane) -> bool:
    return not lane.sender.is_over and not lane.sender.cable.is_over


def _receivers(world: World, token: int) -> list[str]:
    return [node.name for node in world.nodes if (node.name, token) in world.truth.delivered]


def _wants(node: Node, topic: bytes) -> bool:
    if node.kind is SocketKind.DISH:
        return topic in node.application.topics
    return any(map(topic.startswith, node.application.topics))
