"""APDUs that a foreign sender cut with OPT_FRAGMENT, put together again (RFC 3208 section 9.2).

libzmq never sends them, OpenPGM does for messages longer than a packet. Packets come here in
sequence, so one open APDU is enough. Invariant: memory is what was received, never what a packet
claims.
"""

from __future__ import annotations

from mcast.pgm.packet import Fragment

__all__ = ["FragmentAssembler"]


class FragmentAssembler:
    """The APDU under way of one source."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._open: Fragment | None = None
        self._collected = bytearray()

    def reset(self) -> None:
        """Forget the APDU under way (after a loss)."""
        self._open = None
        self._collected = bytearray()

    def add(self, fragment: Fragment, first_sqn: int, tsdu: memoryview) -> bytes | None:
        """The whole APDU when this piece ends it, else None.

        ``first_sqn`` is the 32-bit number that a first fragment must name: its own. Raises
        ``ValueError`` for a piece that does not continue the APDU, or claims more than the limit;
        what was collected is forgotten.
        """
        if fragment.offset == 0 and fragment.first_sqn == first_sqn:
            self.reset()
            self._open = fragment
        opened = self._open
        if (
            opened is None
            or fragment.first_sqn != opened.first_sqn
            or fragment.apdu_length != opened.apdu_length
            or fragment.offset != len(self._collected)
            or fragment.apdu_length > self._limit_bytes
            or fragment.offset + len(tsdu) > fragment.apdu_length
        ):
            self.reset()
            raise ValueError("fragment out of place")
        self._collected += tsdu
        if len(self._collected) < fragment.apdu_length:
            return None
        apdu = bytes(self._collected)
        self.reset()
        return apdu
