"""What the fuzz targets have found, each by the input that showed it."""

from __future__ import annotations

import pytest

from tests.fuzz import targets

pytestmark = pytest.mark.kernel_independent

FOUND = {
    "a lone surrogate in a path is an EndpointError like any other": (
        "endpoint",
        "6970633a2f2feda080",
    ),
    "a PING that other bytes follow has its TTL run on as if they had come later": (
        "zmtp-frames",
        "00a41b040a0450494e47000a637478040504504f4e470406055448494e47",
    ),
    "a PING behind a subscription over the limit is not answered, however both were cut": (
        "zmtp-frames",
        (
            "0005070000000000310100ffff6263040a06434105011b040a0450494e05011b040a0450494e47000a637478"
            "046d04504f4e4704d40000000005011b040a0450494e47000a6347000a7478046d04504f4e41637478414104"
            "6d04"
        ),
    ),
}


@pytest.mark.parametrize("what", FOUND)
def test_what_was_found_holds(what: str) -> None:
    name, data = FOUND[what]
    targets.load(name).run(bytes.fromhex(data))
