"""Keys as text: Z85 (RFC 32), four bytes to five printable characters; and what a CURVE key is."""

from __future__ import annotations

from typing import Final

from mcast.errors import OptionError

__all__ = ["curve_key", "z85_decode", "z85_encode"]

_KEY_BYTES: Final = 32

_ALPHABET: Final = (
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
)
_DIGITS: Final = {character: digit for digit, character in enumerate(_ALPHABET)}


def z85_encode(data: bytes) -> str:
    """The text for ``data``. Raises ``ValueError`` unless its length is a multiple of 4."""
    if len(data) % 4:
        raise ValueError(f"Z85 encodes multiples of 4 bytes, not {len(data)}")
    text: list[str] = []
    for start in range(0, len(data), 4):
        number = int.from_bytes(data[start : start + 4], "big")
        text += (_ALPHABET[number // 85**power % 85] for power in (4, 3, 2, 1, 0))
    return "".join(text)


def z85_decode(text: str) -> bytes:
    """The bytes that ``text`` stands for.

    Raises ``ValueError`` for a length that is no multiple of 5, a character outside the alphabet,
    or five characters that say more than 32 bits. The text itself is in none of the messages: it
    may be a secret key.
    """
    if len(text) % 5:
        raise ValueError(f"Z85 text has a multiple of 5 characters, not {len(text)}")
    if not _DIGITS.keys() >= set(text):
        raise ValueError("a character is not in the alphabet of Z85")
    data = bytearray()
    for start in range(0, len(text), 5):
        number = 0
        for character in text[start : start + 5]:
            number = 85 * number + _DIGITS[character]
        if number >> 32:
            raise ValueError("five characters of this Z85 text say more than 32 bits")
        data += number.to_bytes(4, "big")
    return bytes(data)


def curve_key(key: bytes | str, what: str = "a CURVE key") -> bytes:
    """The 32 bytes of a key given as such, or as 40 characters of Z85.

    Raises ``OptionError`` that names ``what``, never with the key in it.
    """
    if isinstance(key, bytes) and len(key) == _KEY_BYTES:
        return key
    if not isinstance(key, str):
        raise OptionError(f"{what} is {_KEY_BYTES} bytes, or text of 40 characters in Z85")
    try:
        raw = z85_decode(key)
    except ValueError as error:
        raise OptionError(f"{what}: {error}") from None
    if len(raw) != _KEY_BYTES:
        raise OptionError(f"{what} has 40 characters in Z85, not {len(key)}")
    return raw
