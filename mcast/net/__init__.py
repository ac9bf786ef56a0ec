"""The network: interfaces, multicast sockets, addresses. The only package that imports ``socket``.

Owns every socket option and every look at the machine's interfaces; owns no thread, no clock and
no protocol. Each OSError leaves as a ``TransportError`` that says what to do.
"""

from __future__ import annotations
