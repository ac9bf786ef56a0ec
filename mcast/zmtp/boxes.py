"""CURVE's cryptography: NaCl boxes by PyNaCl (libsodium), which is an optional extra.

Owns the dependency and nothing else. Importing this module without PyNaCl works; ``require``
says then what to install. No dice are rolled here: keys and nonces come from the caller.
"""

from __future__ import annotations

from mcast.errors import OptionError
from mcast.zmtp.failure import FailureReason, ZmtpError

try:
    from nacl import bindings as _nacl
    from nacl.exceptions import CryptoError as _CryptoError

    _missing = ""
except ImportError as error:
    _missing = str(error)

__all__ = [
    "MAC_BYTES",
    "box",
    "open_box_untrusted",
    "public_key_of",
    "require",
    "secret_box",
    "shared_key_untrusted",
]

MAC_BYTES = 16
"""By so much a box is longer than what is in it."""


def require() -> None:
    """Nothing, if CURVE can be used here. Raises ``OptionError`` with what to install, if not."""
    if _missing:
        raise OptionError(f"CURVE needs PyNaCl ({_missing}); pip install 'mcast[curve]'")


def public_key_of(secret_key: bytes) -> bytes:
    """The 32 bytes of public key that belong to 32 bytes of secret key."""
    return _nacl.crypto_scalarmult_base(secret_key)


def shared_key_untrusted(public_key: bytes, secret_key: bytes) -> bytes:
    """The key for boxes between two pairs, the same from both sides; the costly step (40 us).

    Raises ``ZmtpError`` for a public key of small order, which would make the result known to all.
    """
    try:
        return _nacl.crypto_box_beforenm(public_key, secret_key)
    except _CryptoError:
        raise ZmtpError(
            FailureReason.CRYPTOGRAPHIC, "the peer's public key is not fit for use"
        ) from None


def box(plain: bytes, nonce: bytes, shared_key: bytes) -> bytes:
    """``plain``, sealed; never use a nonce twice with one key."""
    return _nacl.crypto_box_afternm(plain, nonce, shared_key)


def open_box_untrusted(sealed: bytes, nonce: bytes, shared_key: bytes, what: str) -> bytes:
    """What was sealed. Raises ``ZmtpError`` that names ``what`` if key, nonce or a bit differs."""
    try:
        return _nacl.crypto_box_open_afternm(sealed, nonce, shared_key)
    except _CryptoError:
        raise ZmtpError(FailureReason.CRYPTOGRAPHIC, f"the box of {what} does not open") from None


def secret_box(plain: bytes, nonce: bytes, key: bytes) -> bytes:
    """``plain``, sealed for oneself."""
    return _nacl.crypto_secretbox(plain, nonce, key)
