"""Is the clock that paces and times cheap to read?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mcast.doctor.finding import Finding, Severity
from mcast.doctor.machine import Machine
from mcast.options import SocketOptions

__all__ = ["check"]

_NAME = "clock"
_FOLDER: Final = "/sys/devices/system/clocksource/clocksource0"
_SLOW: Final = {"hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit", "xen"}
"""Sources without a vDSO: each look is a system call of about 1 us, or has a coarse step."""
_FAST: Final = ("tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page")


def check(machine: Machine, options: SocketOptions) -> Iterator[Finding]:  # noqa: ARG001
    """Findings about the kernel's clock source."""
    current = (machine.text(f"{_FOLDER}/current_clocksource") or "").strip()
    if not current:
        return
    if current not in _SLOW:
        yield Finding(_NAME, Severity.OK, f"the clock source is {current}")
        return
    available = (machine.text(f"{_FOLDER}/available_clocksource") or "").split()
    better = [name for name in _FAST if name in available]
    fix = (f"echo {better[0]} > {_FOLDER}/current_clocksource",) if better else ()
    yield Finding(
        _NAME,
        Severity.WARNING,
        f"the clock source is {current}: each look at the clock is a slow system call, which costs"
        " rate and latency" + ("" if better else "; the kernel offers none that is faster"),
        fix,
    )
