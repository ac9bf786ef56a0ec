"""What a result must say of the machine it was measured on."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path

from contenders import ROOT, ZMQ_PYTHON

__all__ = ["facts"]


def facts() -> dict[str, object]:
    """Processor, system, versions, commit; unknown is an empty text."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    pyzmq = "import zmq; print(zmq.__version__, 'with libzmq', zmq.zmq_version())"
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": model[1].strip() if model else "",
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "kernel": f"{platform.system()} {platform.release()}",
        "rmem_max_bytes": int(Path("/proc/sys/net/core/rmem_max").read_text(encoding="ascii")),
        "python": platform.python_version(),
        "commit": said("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"),
        "has_changes": bool(said("git", "-C", str(ROOT), "status", "--porcelain", "-uno", "mcast")),
        "libzmq": said("dpkg-query", "--show", "--showformat=${Version}", "libzmq5"),
        "libpgm": said("dpkg-query", "--show", "--showformat=${Version}", "libpgm-5.3-0"),
        "pyzmq": said(str(ZMQ_PYTHON), "-c", pyzmq),
        "compiler": (said("gcc", "--version").splitlines() or [""])[0],
    }


def said(*command: str) -> str:
    """The command's stdout, or nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except OSError:
        return ""
    return done.stdout.strip()
