"""The process in which atheris runs one target; ``tools/fuzz`` starts it and reads what it prints.

    python -m tests.fuzz.child TARGET PLANT [LIBFUZZER-ARGUMENT...]

``PLANT`` is empty for none. Needs atheris (``pip install mcast[fuzz]``).
"""

from __future__ import annotations

import os
import sys

# Before mcast is imported: branches of compiled code guide no search.
os.environ["MCAST_KERNEL"] = "reference"

import atheris

from tests.fuzz import stacks, targets


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    name, plant, *arguments = sys.argv[1:]
    row = targets.ROWS[name]
    if row.is_twin:
        try:
            stacks.stack("native")  # now, so that this copy is not slowed down
        except ImportError as error:
            print(f"on one kernel only: {error}", file=sys.stderr)
    with atheris.instrument_imports(include=list(row.measured), enable_loader_override=False):
        target = targets.load(name)
    if plant:
        target.plants[plant]()
    atheris.Setup([sys.argv[0], f"-max_len={target.max_bytes}", *arguments], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
