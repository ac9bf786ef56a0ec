"""Two patterns joined in memory, as inproc does: what one has to send the other receives.

Owns nothing. Invariant: a message that left one pattern is in the other; none moves while the other
has no room, so that together they hold both high-water marks (libzmq: the sum of the two).
"""

from __future__ import annotations

from mcast.patterns.base import Pattern

__all__ = ["exchange", "join"]


def join(left: Pattern, left_pipe: int, right: Pattern, right_pipe: int) -> None:
    """Attach each to the other; ``exchange`` moves what they have to say from then on.

    If one refuses the other, it says so in ``take_events``, and the other is not told.
    """
    left.attach(left_pipe, right.info)
    right.attach(right_pipe, left.info)


def exchange(left: Pattern, left_pipe: int, right: Pattern, right_pipe: int) -> bool:
    """Move what can be moved between two that are joined; True if anything was.

    To be called again when one of them is loaded, or resumed, or refuses.
    """
    moved = _move(left, left_pipe, right, right_pipe)
    return _move(right, right_pipe, left, left_pipe) or moved


def _move(source: Pattern, source_pipe: int, sink: Pattern, sink_pipe: int) -> bool:
    changes = source.take_subscriptions(source_pipe)
    if changes:
        sink.handle_subscriptions(sink_pipe, changes)
    moved = bool(changes)
    while room := sink.room_for(sink_pipe):
        batch = source.take_outgoing(source_pipe, room)
        if not batch:
            break
        sink.handle_messages(sink_pipe, batch)
        moved = True
    return moved
