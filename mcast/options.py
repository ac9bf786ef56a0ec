"""Every setting of a socket: its unit, range, default, and where the default comes from.

Users write seconds, bits per second and bytes; ``Timers`` holds what the engines compute with,
in nanoseconds. An object of these classes has been checked, and never changes.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Final

from mcast.errors import OptionError
from mcast.unicast_options import UnicastOptions

__all__ = [
    "DEFAULT_MAXTPDU_BYTES",
    "OPTION_NAMES",
    "PROFILES",
    "OptionValue",
    "SocketOptions",
    "Timers",
    "environment_options",
]

DEFAULT_MAXTPDU_BYTES: Final = 1500
"""Largest IP packet where nothing else is set (ZMQ_MULTICAST_MAXTPDU)."""

OptionValue = float | int | bool | str | bytes | None
"""The type of any option's value."""

_MS: Final = 1_000_000
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Timers:
    """The protocol's waits and retries, as one named profile."""

    nak_bo_ivl_ns: int
    """Longest back-off before the first NAK for a gap (RFC 3208 NAK_BO_IVL)."""
    nak_group_size: int
    """Receivers the back-off is shaped for: truncated exponential (RFC 5401); 1 means uniform."""
    nak_rpt_ivl_ns: int
    """Wait for an NCF before the NAK is repeated (NAK_RPT_IVL)."""
    nak_rdata_ivl_ns: int
    """Wait for RDATA after an NCF before the NAK is repeated (NAK_RDATA_IVL)."""
    nak_ncf_retries: int
    """NAKs without any NCF before a packet counts as lost (NAK_NCF_RETRIES)."""
    nak_data_retries: int
    """NCFs without RDATA before a packet counts as lost (NAK_DATA_RETRIES)."""
    repair_deadline_ns: int
    """Longest time a gap may hold up delivery."""
    repair_holdoff_ns: int
    """A source repairs and confirms one number at most once in this time."""
    spm_ambient_ivl_ns: int
    """SPM at least this often, with or without data."""
    spm_heartbeat_ivls_ns: tuple[int, ...]
    """Waits between the SPMs that follow the last data packet, until ambient SPMs take over."""
    spmr_ivl_ns: int
    """Wait for an SPM of a source heard by its data only, before one is requested."""
    peer_quiet_ns: int
    """Silence after which a source is reported quiet; longer for one that often pauses longer."""
    peer_expiry_ns: int
    """Silence after which a source counts as gone."""


PROFILES: Final[dict[str, Timers]] = {
    # Measured (simulation of suppression, and loss runs on a LAN): a 10 ms back-off shaped for 300
    # receivers repairs in a median under 15 ms, and a thousand send few NAKs; with a repeat after
    # 40 ms and an RDATA wait of 50 ms two failed rounds, the 99th percentile at 10 % loss each way,
    # stay under 200 ms.
    "lan": Timers(
        nak_bo_ivl_ns=10 * _MS,
        nak_group_size=300,
        nak_rpt_ivl_ns=40 * _MS,
        nak_rdata_ivl_ns=50 * _MS,
        nak_ncf_retries=125,  # 5 s of them
        nak_data_retries=125,
        repair_deadline_ns=5_000 * _MS,
        repair_holdoff_ns=20 * _MS,
        spm_ambient_ivl_ns=1_000 * _MS,
        spm_heartbeat_ivls_ns=(20 * _MS, 30 * _MS, 50 * _MS, 100 * _MS, 200 * _MS, 400 * _MS),
        spmr_ivl_ns=25 * _MS,
        peer_quiet_ns=3_000 * _MS,
        # 2.5 times libzmq's 30 s between SPMs, so that an idle libzmq publisher is not gone.
        peer_expiry_ns=75_000 * _MS,
    ),
    # For ten receivers or fewer on a fast network: nobody's NAK is worth waiting for, and a window
    # of 64 MiB is, at 10 Gbit/s, time for five rounds.
    "few": Timers(
        nak_bo_ivl_ns=1 * _MS,
        nak_group_size=10,
        nak_rpt_ivl_ns=8 * _MS,
        nak_rdata_ivl_ns=8 * _MS,
        nak_ncf_retries=550,  # 5 s of them
        nak_data_retries=550,
        repair_deadline_ns=5_000 * _MS,
        repair_holdoff_ns=5 * _MS,
        spm_ambient_ivl_ns=1_000 * _MS,
        spm_heartbeat_ivls_ns=(20 * _MS, 30 * _MS, 50 * _MS, 100 * _MS, 200 * _MS, 400 * _MS),
        spmr_ivl_ns=25 * _MS,
        peer_quiet_ns=3_000 * _MS,
        peer_expiry_ns=75_000 * _MS,
    ),
    # As lan, but for a thousand receivers or more with round trips of milliseconds: the first NAK
    # goes out later, and its NCF reaches the others before theirs. Measured in
    # tests/sim/test_crowds.py.
    "crowd": Timers(
        nak_bo_ivl_ns=50 * _MS,
        nak_group_size=1000,
        nak_rpt_ivl_ns=80 * _MS,
        nak_rdata_ivl_ns=80 * _MS,
        nak_ncf_retries=63,  # 5 s of them
        nak_data_retries=63,
        repair_deadline_ns=5_000 * _MS,
        repair_holdoff_ns=20 * _MS,
        spm_ambient_ivl_ns=1_000 * _MS,
        spm_heartbeat_ivls_ns=(20 * _MS, 30 * _MS, 50 * _MS, 100 * _MS, 200 * _MS, 400 * _MS),
        spmr_ivl_ns=25 * _MS,
        peer_quiet_ns=3_000 * _MS,
        peer_expiry_ns=75_000 * _MS,
    ),
    # The numbers libzmq gives OpenPGM, and the heartbeat schedule that comes of them.
    "libzmq": Timers(
        nak_bo_ivl_ns=50 * _MS,
        nak_group_size=1,
        nak_rpt_ivl_ns=200 * _MS,
        nak_rdata_ivl_ns=200 * _MS,
        nak_ncf_retries=50,
        nak_data_retries=50,
        repair_deadline_ns=15_000 * _MS,
        repair_holdoff_ns=20 * _MS,
        spm_ambient_ivl_ns=30_000 * _MS,
        spm_heartbeat_ivls_ns=(
            *(100 * _MS,) * 5,
            1_300 * _MS,
            7_000 * _MS,
            16_000 * _MS,
        ),
        spmr_ivl_ns=25 * _MS,
        peer_quiet_ns=90_000 * _MS,
        peer_expiry_ns=300_000 * _MS,
    ),
}
"""The named sets of timers; ``profile="lan"`` is the default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketOptions(UnicastOptions):
    """All options of one socket. Unknown names, wrong types and values out of range raise.

    Names are pyzmq's where it has one; times are seconds, ``rate`` is bits per second.
    """

    rate: float = 800e6
    """Most bits per second this publisher sends as original data, IP and UDP headers included.

    1e4 to inf (no pacing). Default 800e6: with repairs at their cap (``repair_share``) on top it
    fills a 1 Gbit/s link and no more. libzmq's default is 100e3. Cost of too much: switches and
    receivers' buffers overflow, and the repairs add to it.
    """
    min_rate: float | None = None
    """Slow down, to this many bits per second at the least, while receivers cannot follow.

    1e4 to inf, or None. With None, the default, the publisher keeps to ``rate`` whoever falls
    behind; those lose what the window cannot repair in time, and are told. Otherwise, when more
    than 2 % of what it sends is asked for again, it goes down to 0.7 of its pace, and up again by
    2 % every 10 ms. One slow receiver then slows all of them, and whoever can send NAKs can do so.
    """
    repair_share: float = 0.25
    """Repairs get at most this fraction of ``rate`` on top of it. 0.01 to 1."""
    recovery_ivl: float = 10.0
    """Seconds a sent packet stays repairable at least until ``txw_bytes`` needs its place.

    0.01 to 3600. Default as libzmq.
    """
    txw_bytes: int = 64 * _MIB
    """Most memory of a publisher's transmit window, in slots of ``multicast_maxtpdu``.

    64 KiB to 16 GiB; 64 MiB hold 0.6 s of full packets at 800 Mbit/s. Touched as it fills.
    """
    rxw_bytes: int = 64 * _MIB
    """Most bytes of early packets held for each source while a gap is repaired.

    64 KiB to 16 GiB; the default is what a publisher's window holds. Repairs may exceed it by a
    quarter. Beyond it early packets are dropped, counted, and repaired later.
    """
    multicast_hops: int = 1
    """Time to live of multicast packets, 0 (this host) to 255. Default as libzmq."""
    multicast_loop: bool = True
    """Processes on this host receive it, too. libzmq: never on a real interface."""
    multicast_maxtpdu: int | None = None
    """Largest IP packet sent, 128 to 9000 bytes; the TSDU is 72 bytes less (92 over IPv6).

    None: 1500 as libzmq, or the interface's MTU if that is less. Larger than a libzmq receiver's
    own setting: it receives nothing.
    """
    dscp: int = 46
    """Differentiated services code point, 0 to 63. Default EF, as libzmq."""
    sndhwm: int = 100_000
    """Messages that may wait for the pacing before ``send`` blocks, 1 to 1e9. libzmq: 1,000."""
    rcvhwm: int = 100_000
    """Messages that may wait for ``recv``, 1 to 1e9. libzmq: 1,000.

    When full, what arrives is dropped whole and reported as ``Lost(reason="app_hwm")``.
    """
    sndbuf: int = 0
    """SO_SNDBUF in bytes; 0 leaves the system's default."""
    rcvbuf: int = 4 * _MIB
    """SO_RCVBUF in bytes; 0 leaves the system's default. A warning says when less was granted."""
    max_msg_size: int = 16 * _MIB
    """Largest message in bytes, sent or received, 1 to 1 GiB. libzmq: unlimited."""
    max_parts: int = 1024
    """Most parts of a message, sent or received, 1 to 65536."""
    linger: float = 1.0
    """Seconds that closing waits at most to send and repair, 0 to 3600. libzmq: for ever."""
    coalesce: float = 50e-6
    """After a packet left, small messages wait up to this many seconds for company. 0 to 0.1."""
    profile: str = "lan"
    """The protocol's waits: ``lan``, ``few``, ``crowd``, or ``libzmq`` for what it gives OpenPGM.

    ``few`` is for about ten subscribers on a fast network: each asks within a millisecond for what
    it misses, and again after 8. Choose it at both ends. ``crowd`` is for hundreds of subscribers
    in one group: where all of them lose the same packet, few ask for it, and a lone one waits up to
    40 ms longer for a repair.
    """
    repair_deadline: float | None = None
    """Longest stall of delivery by one gap, in seconds, 0.01 to 3600. None: as the profile (5)."""
    peer_expiry: float | None = None
    """Silence in seconds after which a source is gone, 0.1 to 86400. None: as the profile (75)."""
    max_peers: int = 1024
    """Most sources followed at once, 1 to 65536; packets of more are dropped and counted."""
    on_loss: str = "event"
    """``event``: losses appear in ``events()`` only. ``raise``: also the next ``recv`` raises."""
    initial_sqn: int = 0
    """First packet number of this publisher, 0 to 2^32 - 1. For tests of the wrap."""
    drop_rate: float = 0.0
    """For tests: fraction of arriving packets thrown away before anything sees them, 0 to 0.9."""
    drop_seed: int = 0
    """Seed of the dice for ``drop_rate``."""

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            kind = _KINDS[name]
            allowed = (int, float) if kind is float else (int,)
            if isinstance(value, bool) or not isinstance(value, allowed):
                wanted = "a number" if kind is float else "a whole number"
                raise OptionError(f"{name} is {wanted}, not {value!r}")
            if not low <= value <= high:
                raise OptionError(f"{name} is {low:g} to {high:g}, not {value!r}")
        if not isinstance(self.multicast_loop, bool):
            raise OptionError(f"multicast_loop is True or False, not {self.multicast_loop!r}")
        if self.profile not in PROFILES:
            raise OptionError(f"profile is one of {', '.join(PROFILES)}, not {self.profile!r}")
        if self.on_loss not in ("event", "raise"):
            raise OptionError(f'on_loss is "event" or "raise", not {self.on_loss!r}')
        self.check_unicast()

    def with_changes(self, changes: dict[str, OptionValue]) -> SocketOptions:
        """A checked copy with the named options changed.

        Raises ``OptionError`` for an unknown name, listing the known ones.
        """
        known = {field.name for field in fields(self)}
        unknown = sorted(set(changes) - known)
        if unknown:
            raise OptionError(
                f"unknown option {', '.join(unknown)}; known are {', '.join(sorted(known))}"
            )
        return replace(self, **changes)  # type: ignore[arg-type]  # __post_init__ checks them

    @property
    def timers(self) -> Timers:
        """The profile's timers with this socket's own deadlines put in."""
        timers = PROFILES[self.profile]
        if self.repair_deadline is not None:
            # The retries must not run out before the deadline does.
            deadline_ns = round(self.repair_deadline * 1e9)
            rounds = deadline_ns // min(timers.nak_rpt_ivl_ns, timers.nak_rdata_ivl_ns) + 1
            timers = replace(
                timers,
                repair_deadline_ns=deadline_ns,
                nak_ncf_retries=max(rounds, timers.nak_ncf_retries),
                nak_data_retries=max(rounds, timers.nak_data_retries),
            )
        if self.peer_expiry is not None:
            timers = replace(timers, peer_expiry_ns=round(self.peer_expiry * 1e9))
        return timers


def environment_options() -> dict[str, OptionValue]:
    """The options that ``MCAST_LOSS`` in the environment sets, such as ``10%`` or ``10%,seed=1``.

    It throws away arriving packets in any process that uses mcast, for tests of programs that
    know nothing of it: ``drop_rate`` and ``drop_seed``. What a program sets itself counts more.
    Empty where it is not set. Raises ``OptionError`` for anything else.
    """
    text = os.environ.get("MCAST_LOSS", "")
    if not text:
        return {}
    found = re.fullmatch(r"(\d+(?:\.\d+)?)%(?:,seed=(\d{1,18}))?", text.strip())
    if found is None or float(found[1]) > 90:
        raise OptionError(
            f"MCAST_LOSS is 0% to 90%, with ,seed=N if wanted, such as 10%,seed=1; not {text!r}"
        )
    return {"drop_rate": float(found[1]) / 100, "drop_seed": int(found[2] or 0)}


OPTION_NAMES: Final = tuple(field.name for field in fields(SocketOptions))
"""All of them."""

_RANGES: Final[dict[str, tuple[float, float]]] = {
    "rate": (1e4, inf),
    "min_rate": (1e4, inf),
    "repair_share": (0.01, 1),
    "recovery_ivl": (0.01, 3600),
    "txw_bytes": (1 << 16, 1 << 34),
    "rxw_bytes": (1 << 16, 1 << 34),
    "multicast_hops": (0, 255),
    "multicast_maxtpdu": (128, 9000),
    "dscp": (0, 63),
    "sndhwm": (1, 10**9),
    "rcvhwm": (1, 10**9),
    "sndbuf": (0, 1 << 30),
    "rcvbuf": (0, 1 << 30),
    "max_msg_size": (1, 1 << 30),
    "max_parts": (1, 1 << 16),
    "linger": (0, 3600),
    "coalesce": (0, 0.1),
    "repair_deadline": (0.01, 3600),
    "peer_expiry": (0.1, 86_400),
    "max_peers": (1, 1 << 16),
    "initial_sqn": (0, (1 << 32) - 1),
    "drop_rate": (0, 0.9),
    "drop_seed": (0, 1 << 63),
}
_OPTIONAL: Final = {"min_rate", "multicast_maxtpdu", "repair_deadline", "peer_expiry"}
_KINDS: Final[dict[str, type]] = {
    name: float
    if name
    in {
        "rate",
        "min_rate",
        "repair_share",
        "recovery_ivl",
        "linger",
        "coalesce",
        "repair_deadline",
        "peer_expiry",
        "drop_rate",
    }
    else int
    for name in _RANGES
}
