"""The thin shell round the engines: the loop thread, the queues to the application, the links.

The only place that reads a clock, starts a thread or rolls real dice.
"""

from __future__ import annotations
