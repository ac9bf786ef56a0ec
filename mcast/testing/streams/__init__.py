"""For tests: ZMTP connections and socket patterns over simulated streams of bytes.

Real engines and patterns, with wires between them that cut anywhere, delay, break at any byte, die
without a word and change bytes. ``run_stream_seed`` makes a whole run out of one number, as
``tools/simulate --world stream`` does.
"""

from __future__ import annotations

from mcast.testing.streams.run import run_stream_seed
from mcast.testing.streams.world import World

__all__ = ["World", "run_stream_seed"]
