"""Key pairs for CURVE, made of the system's dice.

Owns nothing.
"""

from __future__ import annotations

import os

from mcast.z85 import curve_key, z85_encode
from mcast.zmtp import boxes

__all__ = ["curve_key", "curve_keypair", "curve_public"]


def curve_keypair() -> tuple[str, str]:
    """A new public key and its secret one, each 40 characters of Z85 (RFC 32).

    Keep the second to yourself. Raises OptionError without PyNaCl (extra ``curve``).
    """
    boxes.require()
    secret = os.urandom(32)
    return z85_encode(boxes.public_key_of(secret)), z85_encode(secret)


def curve_public(secret: str | bytes) -> str:
    """The public key, 40 characters of Z85, that belongs to a secret one: Z85, or 32 bytes.

    Raises OptionError for what is no key, or without PyNaCl.
    """
    boxes.require()
    return z85_encode(boxes.public_key_of(curve_key(secret, "the secret key")))
