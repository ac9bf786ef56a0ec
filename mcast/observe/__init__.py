"""Look at running processes from outside: their counters, and how fast they grow.

Owns reading; what a process tells is made in :mod:`mcast.runtime.status`. Nothing here changes
anything in the processes looked at.
"""

from __future__ import annotations

from mcast.observe.processes import ContextStatus, SocketStatus, Survey, survey
from mcast.observe.rates import Rate, rates

__all__ = ["ContextStatus", "Rate", "SocketStatus", "Survey", "rates", "survey"]
