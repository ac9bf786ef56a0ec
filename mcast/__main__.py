"""``python -m mcast`` is the command ``mcast``."""

from __future__ import annotations

import sys

from mcast.cli import main

if __name__ == "__main__":
    sys.exit(main())
