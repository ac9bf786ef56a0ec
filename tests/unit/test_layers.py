"""The layer law of the package, enforced on the text of every import.

Owns the table of layers. Two rules follow from it: a module imports only from its own package,
its own layer and the layers below, less what ``NEVER_BY_LAYER`` names; and the standard library's
doors to the world (sockets, clocks, threads, dice) belong to the one package that ``DOORS`` names.
Imports under ``TYPE_CHECKING`` count: a type is a dependency too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel_independent

ROOT = Path(__file__).resolve().parents[2]

LAYERS = {
    "errors": 0,
    "kernel": 0,
    "auth": 1,
    "message": 1,
    "monitor": 1,
    "unicast": 1,
    "unicast_options": 1,
    "endpoint": 1,
    "events": 1,
    "options": 1,
    "stats": 1,
    "z85": 1,
    "pgm": 2,
    "zmtp": 2,
    "patterns": 2,
    "capture": 2,
    "net": 3,
    "runtime": 4,
    "context": 5,
    "poller": 5,
    "proxy": 5,
    "sockets": 5,
    "asyncio": 5,
    "doctor": 5,
    "raw": 5,
    "observe": 5,
    "": 5,  # mcast/__init__.py, the public face
    "cli": 6,
    "__main__": 6,
}
"""The layer of each package and module directly under mcast; a new one has to find its place."""

ISOLATED_LAYERS = (0, 2)
"""Layers whose packages don't see each other; elsewhere those of one layer may."""

ONLY_BELOW = {"testing": 2}
"""Beside the layers: shipped, and free to import up to this layer."""

NEVER_BY_LAYER = {
    5: {"pgm", "zmtp"},
    6: {"pgm", "zmtp", "net"},
}
"""What a layer doesn't import although it lies below: it has to go through the one between."""

GRANTED = {
    "mcast.capture": ("mcast.pgm.packet", "mcast.pgm.sqn", "mcast.zmtp.codec"),
    "mcast.kernel": ("threading.Lock",),  # the reference's stand-in for "nothing interrupts it"
}
"""Exceptions, each a module or a name and all that is in it, each for the importer and its like."""

DOORS = {
    "socket": {"net"},
    "_socket": {"net"},
    "time": {"runtime"},
    "secrets": {"runtime"},
}
"""Standard modules that only these packages import."""

BANNED_BY_LAYER = {
    0: {"selectors", "select", "asyncio", "threading", "_thread", "concurrent"},
    1: {"selectors", "select", "asyncio", "threading", "_thread", "concurrent"},
    2: {"selectors", "select", "asyncio", "threading", "_thread", "concurrent"},
    3: {"asyncio", "threading", "_thread", "concurrent"},
    4: {"asyncio"},
}

THREAD_MAKERS = {"threading.Thread", "threading.Timer", "concurrent.futures.ThreadPoolExecutor"}
REAL_DICE = {"os.urandom", "os.getrandom", "uuid.uuid1", "uuid.uuid4"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The package or module directly under mcast: mcast.pgm.packet -> pgm, mcast -> the face."""
    return module.split(".")[1] if "." in module else ""


def imports(source: str, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and full name of all that ``source`` imports; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                up = node.level - is_package
                parents = parents[: len(parents) - up]
                base = ".".join(parents + ([base] if base else []))
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in ("import_module", "__import__") and node.args:
                name = node.args[0]
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    yield node.lineno, name.value


def cython_imports(source: str) -> Iterator[tuple[int, str]]:
    """As ``imports``, for the one-line forms that Cython's syntax allows."""
    for number, line in enumerate(source.splitlines(), 1):
        if found := re.match(r"\s*from\s+([\w.]+)\s+c?import\b", line):
            yield number, found[1]
        elif found := re.match(r"\s*c?import\s+([\w., ]+)", line):
            for name in found[1].split(","):
                yield number, name.split()[0]


def violation(importer: str, imported: str) -> str | None:
    """Why module ``importer`` may not import the name ``imported``, or None when it may."""
    room = room_of(importer)
    layer = LAYERS.get(room, ONLY_BELOW.get(room))
    if layer is None:
        return f"{importer} has no place in the table of layers"
    if any(f"{imported}.".startswith(f"{name}.") for name in GRANTED.get(f"mcast.{room}", ())):
        return None
    top = imported.partition(".")[0]
    if top != "mcast":
        if top in DOORS and room not in DOORS[top]:
            return f"{importer} imports {top}, which only {' and '.join(DOORS[top])} may"
        if room not in ONLY_BELOW and top in BANNED_BY_LAYER.get(layer, ()):
            return f"{importer} imports {top}, which layer {layer} may not"
        return None

    target = room_of(imported)
    if target not in LAYERS and target not in ONLY_BELOW:
        target = ""  # `from mcast import Context`: a name of the public face
    if target == room:
        return None
    above = f"{importer} (layer {layer}) imports {imported}"
    if target in ONLY_BELOW:
        return None if layer == 6 else f"{above}: {target} is for tests and the command line"
    if target in NEVER_BY_LAYER.get(layer, ()):
        return f"{above}: layer {layer} never imports {target}"
    if LAYERS[target] > layer:
        return f"{above} (layer {LAYERS[target]}), which lies above it"
    if LAYERS[target] == layer and layer in ISOLATED_LAYERS and room not in ONLY_BELOW:
        return f"{above}: the packages of layer {layer} don't see each other"
    return None


def uses(source: str, module: str) -> Iterator[tuple[int, str]]:
    """Threads made and real dice rolled outside runtime, found by what an attribute is named."""
    if room_of(module) == "runtime":
        return
    for node in ast.walk(ast.parse(source)):
        name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield from judged_use(node.lineno, f"{node.module}.{alias.name}", module)
        yield from judged_use(getattr(node, "lineno", 0), name, module)
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("random.Random", "Random")
            and not (node.args or node.keywords)
        ):
            yield node.lineno, f"{module} makes a random.Random without a seed"


def judged_use(line: int, name: str, module: str) -> Iterator[tuple[int, str]]:
    if name in THREAD_MAKERS:
        yield line, f"{module} uses {name}; only runtime starts threads"
    elif name in REAL_DICE or (re.fullmatch(r"random\.\w+", name) and name != "random.Random"):
        yield line, f"{module} uses {name}; only runtime rolls real dice"


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """All that one Python module breaks, as ``line: why``."""
    found = [
        (line, why)
        for line, imported in imports(source, module, is_package=is_package)
        if (why := violation(module, imported))
    ]
    found.extend(uses(source, module))
    return [f"{line}: {why}" for line, why in sorted(set(found))]


def python_files() -> list[Path]:
    return sorted(
        path for suffix in ("py", "pyi") for path in (ROOT / "mcast").rglob(f"*.{suffix}")
    )


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_module_keeps_to_its_layer(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert violations(module_name(path), source, is_package=path.stem == "__init__") == []


def test_compiled_kernel_keeps_to_its_layer() -> None:
    found = [
        f"{path.name}:{line}: {why}"
        for path in sorted((ROOT / "mcast").rglob("*.py[x]"))
        for line, imported in cython_imports(path.read_text(encoding="utf-8"))
        if (why := violation(module_name(path), imported))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("mcast.errors", "from mcast import kernel"),
        ("mcast.errors", "from mcast.events import PeerLeft"),
        ("mcast.kernel.reference", "from mcast.errors import Error"),
        ("mcast.kernel.reference_io", "import socket"),
        ("mcast.options", "from mcast.pgm.packet import Packet"),
        ("mcast.options", "import time"),
        ("mcast.pgm.engine", "import mcast.zmtp.codec"),
        ("mcast.pgm.engine", "from mcast.net import udp"),
        ("mcast.pgm.engine", "from ..net import udp"),
        ("mcast.pgm.engine", "def late():\n    import time"),
        ("mcast.pgm.engine", "from time import monotonic_ns"),
        ("mcast.pgm.engine", "if TYPE_CHECKING:\n    from mcast.runtime.loop import Loop"),
        ("mcast.pgm.engine", "import importlib\nimportlib.import_module('mcast.net.udp')"),
        ("mcast.pgm.engine", "import selectors"),
        ("mcast.pgm.engine", "import random\nrandom.random()"),
        ("mcast.pgm.engine", "from random import randrange"),
        ("mcast.pgm.engine", "import random\ndice = random.Random()"),
        ("mcast.pgm.engine", "import os\nos.urandom(6)"),
        ("mcast.capture.read", "from mcast.pgm import engine"),
        ("mcast.capture.read", "from mcast.pgm.packet_log import Log"),
        ("mcast.zmtp.codec", "from mcast.capture import pcap"),
        ("mcast.net.udp", "import threading"),
        ("mcast.net.udp", "from mcast.runtime import loop"),
        ("mcast.runtime.loop", "import asyncio"),
        ("mcast.runtime.loop", "import socket"),
        ("mcast.runtime.loop", "from mcast import Context"),
        ("mcast.sockets", "from mcast.pgm.events import Lost"),
        ("mcast.sockets", "import time"),
        ("mcast.sockets", "import threading\nthreading.Thread(target=print)"),
        ("mcast.cli.demo", "from mcast.net import interfaces"),
        ("mcast.testing.network", "from mcast.net import udp"),
        ("mcast.context", "from mcast.testing import network"),
        ("mcast.attic", "import os"),
    ],
)
def test_planted_violation_is_found(module: str, planted: str) -> None:
    assert len(violations(module, planted)) == 1


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("mcast.kernel.reference", "from threading import Lock"),
        ("mcast.kernel.reference", "from mcast.kernel.reference_io import UdpReader"),
        ("mcast.pgm.engine", "from . import packet\nfrom .packet import Packet"),
        ("mcast.pgm.engine", "import random\ndef engine(dice: random.Random): dice.random()"),
        ("mcast.pgm.engine", "from random import Random\ndice = Random(7)"),
        ("mcast.pgm.engine", "from mcast import kernel"),
        (
            "mcast.capture.read",
            "from mcast.pgm.packet import Packet\nfrom mcast.pgm import sqn",
        ),
        ("mcast.net.udp", "import socket, selectors"),
        ("mcast.runtime.loop", "import time, secrets, threading\nthreading.Thread(target=print)"),
        ("mcast.context", "from mcast.sockets import Socket\nimport threading"),
        ("mcast.cli.demo", "import mcast\nfrom mcast import Context\nimport asyncio"),
        ("mcast.testing.network", "from mcast.pgm import engine\nfrom mcast.zmtp import codec"),
    ],
)
def test_import_within_the_law_is_allowed(module: str, allowed: str) -> None:
    assert violations(module, allowed) == []


def test_package_resolves_its_own_relative_imports() -> None:
    assert violations("mcast.pgm", "from .engine import PgmEngine", is_package=True) == []
    assert violations("mcast.pgm", "from ..net import udp", is_package=True) != []


def test_cython_imports_are_read() -> None:
    source = (
        "from libc.string cimport memcpy\ncimport cython\n    import socket as s, mcast.errors\n"
    )
    names = [name for _, name in cython_imports(source)]
    assert names == ["libc.string", "cython", "socket", "mcast.errors"]
