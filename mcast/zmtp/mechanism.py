"""From the options' security to the handshake that carries it out."""

from __future__ import annotations

from mcast.zmtp.curve import CurveClientHandshake, CurveServerHandshake, Dice
from mcast.zmtp.handshake import (
    Handshake,
    NullHandshake,
    PlainClientHandshake,
    PlainServerHandshake,
)
from mcast.zmtp.options import CurveClient, CurveServer, PlainClient, PlainServer, ZmtpOptions

__all__ = ["handshake_for"]


def handshake_for(options: ZmtpOptions, dice: Dice) -> Handshake:
    """One side of one handshake, not started."""
    security = options.security
    if isinstance(security, PlainClient):
        return PlainClientHandshake(options, security)
    if isinstance(security, PlainServer):
        return PlainServerHandshake(options)
    if isinstance(security, CurveClient):
        return CurveClientHandshake(options, security, dice)
    if isinstance(security, CurveServer):
        return CurveServerHandshake(options, security, dice)
    return NullHandshake(options)
