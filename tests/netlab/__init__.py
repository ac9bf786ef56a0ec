"""A laboratory of network namespaces: real sockets, real packets, faults on order.

``Lab`` (lab.py) joins ``Host``s (host.py) by a bridge; a host starts processes, records packets
(capture.py) and suffers ``Fault``s, each one nftables rule (faults.py), or a ``Relay``, a seeded
program in its cable (middlebox.py, relay.py). ``scenario.py`` reads the whole of it from a file for
``tools/netlab``.
"""

from __future__ import annotations

from tests.netlab.capture import Capture
from tests.netlab.faults import NAK, NCF, ODATA, PGM_TYPES, RDATA, SPM, SPMR, Fault
from tests.netlab.host import Host
from tests.netlab.lab import Lab, lab_or_skip, unavailable
from tests.netlab.middlebox import Relay
from tests.support.process import LabError, Process

__all__ = [
    "NAK",
    "NCF",
    "ODATA",
    "PGM_TYPES",
    "RDATA",
    "SPM",
    "SPMR",
    "Capture",
    "Fault",
    "Host",
    "Lab",
    "LabError",
    "Process",
    "Relay",
    "lab_or_skip",
    "unavailable",
]
