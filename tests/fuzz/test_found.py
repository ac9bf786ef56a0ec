"""What the fuzz targets have found, each by the input that showed it."""

from __future__ import annotations

import pytest

from tests.fuzz import targets

pytestmark = pytest.mark.kernel_independent

FOUND = {
    "a message that only the capture's end lets go has the last packet's time, whoever took that": (
        "capture-file",
        (
            "0004000100000006000002006869000100000206000002006869000500000101030100010600000200686900"
            "010000030600200200686900030200020003260500000363626100090000070600000200686904"
        ),
    ),
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
    "data beyond the last packet that ends the wait for it is not taken and forgotten": (
        "pgm-receiver",
        (
            "41231f0303040115241401ffffffff7f00000000ffff58014d0001ff2f2f2f2f2f2f2f2f4d00010004000c88"
            "08900100000004001140480f15c20400b490c016f23867d5002800000000000000006d736730303030300041"
            "4141414141414141414141414141414141414141414141414141414141410067d500000000000000000000ff"
            "ffffff002f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e"
            "4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e"
            "4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f"
            "2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2e2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f"
            "2f2f2fffffffffff1f0303040a4d0001ffffff2fffffe501580115241401ffffffff7f00000000ffff580115"
            "002414"
        ),
    ),
}


@pytest.mark.parametrize("what", FOUND)
def test_what_was_found_holds(what: str) -> None:
    name, data = FOUND[what]
    targets.load(name).run(bytes.fromhex(data))
