"""The documentation keeps its word: links lead somewhere, code compiles, tests it names exist.

Owns the checks of every Markdown page but for running its code, which
``tests/integration/test_examples.py`` does. Each check is a function that returns the faults it
found, and has to find a planted one.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import fields
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from mcast.cli import make_parser
from mcast.events import LossReason
from mcast.options import SocketOptions

pytestmark = pytest.mark.kernel_independent

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_TEST_NAME = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
_FILE_NAME = re.compile(r"`((?:mcast|tests|tools|docs|pgm|net|runtime|kernel)/[\w./]+)`")
_VALUE = r"([\d,]+ [KMG]iB|\d[\d,.]*(?:e-?\d+)?)"
_DEFAULT_BEHIND = re.compile(rf"`(\w+)`(?:, | of them \(| \(){_VALUE}(?= s\b|\)|,| or)")
_DEFAULT_BEFORE = re.compile(rf"{_VALUE} \(`(\w+)`\)")
_COUNTER = re.compile(r'stats(?:\(\))?\["(\w+)"\]|mcast_(\w+)_total')


def pages() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", pages(), ids=name_of)


def prose(text: str) -> str:
    return _FENCE.sub("", text)


def python_blocks(text: str) -> Iterator[str]:
    for match in _FENCE.finditer(text):
        if match[1].split()[:1] == ["python"]:
            yield match[2]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = (re.sub(r"[`*]", "", title).strip().lower() for title in _HEADING.findall(prose(text)))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def link_faults(page: Path, text: str) -> list[str]:
    faults = []
    for target in _LINK.findall(prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            faults.append(f"{target}: no such file")
        elif anchor and anchor not in anchors(text if file == page else file.read_text()):
            faults.append(f"{target}: no such heading")
    return faults


def code_faults(text: str) -> list[str]:
    """Python that does not compile, or gives a socket or context an option it does not have."""
    known = {field.name for field in fields(SocketOptions)} | {
        "loop",
        "busy_poll",
        "status",
        "metrics",
    }
    faults = []
    for block in python_blocks(text):
        try:
            # Blocks of asyncio await at the top, as its interactive interpreter allows.
            tree = compile(
                block, "block", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST
            )
        except SyntaxError as error:
            faults.append(f"line {error.lineno} of a block: {error.msg}")
            continue
        for call in ast.walk(tree):
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Attribute)
                and call.func.attr in ("socket", "Context")
            ):
                names = {keyword.arg for keyword in call.keywords if keyword.arg}
                faults += [f"unknown option {name}" for name in sorted(names - known)]
    return faults


def defined_names(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def reference_faults(text: str) -> list[str]:
    """Tests, files and counters that a page names and that don't exist."""
    faults = []
    for path, name in _TEST_NAME.findall(text):
        file = ROOT / path
        if not file.is_file() or name not in defined_names(file):
            faults.append(f"no test {path}::{name}")
    faults += [
        f"no file {path}"
        for path in _FILE_NAME.findall(text)
        if not (ROOT / path).exists() and not (ROOT / "mcast" / path).exists()
    ]
    source = "".join(file.read_text() for file in (ROOT / "mcast").rglob("*.py"))
    faults += [
        f"no counter {name}"
        for name in map("".join, _COUNTER.findall(text))
        if not re.search(rf"\b{name}\b", source)
    ]
    return faults


def default_faults(text: str) -> list[str]:
    """Defaults that a page states beside an option's name and that are others by now."""
    make = gendocs().default_of
    options = SocketOptions()
    defaults = {name: make(name, getattr(options, name)) for name in SocketOptions.__slots__}
    defaults["repair_deadline"] = f"{options.timers.repair_deadline_ns / 1e9:g}"
    defaults["peer_expiry"] = f"{options.timers.peer_expiry_ns / 1e9:g}"
    plain = " ".join(prose(text).split())
    stated = _DEFAULT_BEHIND.findall(plain)
    stated += [(name, value) for value, name in _DEFAULT_BEFORE.findall(plain)]
    return [
        f"{name} is {defaults[name]}, not {value}"
        for name, value in stated
        if name in defaults and value != defaults[name]
    ]


@every_page
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert link_faults(page, page.read_text()) == []


@every_page
def test_python_on_a_page_compiles_and_uses_known_options(page: Path) -> None:
    assert code_faults(page.read_text()) == []


@every_page
def test_what_a_page_refers_to_exists(page: Path) -> None:
    assert reference_faults(page.read_text()) == []


@every_page
def test_defaults_that_a_page_states_are_the_defaults(page: Path) -> None:
    if page.parent.name != "decisions":  # which tell what was so when they were made
        assert default_faults(page.read_text()) == []


@every_page
def test_examples_leave_this_host_by_no_interface(page: Path) -> None:
    runnable = [m[2] for m in _FENCE.finditer(page.read_text()) if m[1] == "python run"]
    assert [
        url
        for block in runnable
        for url in re.findall(r"epgm://[^;]*;", block)
        if url != "epgm://lo;"
    ] == []


def test_every_page_can_be_reached_from_the_index() -> None:
    """By links; one to a folder reaches the pages in it."""
    reached = {DOCS / "README.md"}
    queue = [*reached]
    while queue:
        page = queue.pop()
        for target in _LINK.findall(prose(page.read_text())):
            file = (page.parent / target.partition("#")[0]).resolve()
            found = set(file.glob("*.md")) if file.is_dir() else {file} & set(pages())
            queue += found - reached
            reached |= found
    missing = [name_of(page) for page in pages() if DOCS in page.parents and page not in reached]
    assert missing == []


def gendocs() -> ModuleType:
    loader = SourceFileLoader("gendocs", str(ROOT / "tools" / "gendocs"))
    spec = importlib.util.spec_from_loader("gendocs", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_pages_made_from_the_source_are_current() -> None:
    stale = [name_of(path) for path in gendocs().stale_pages()]
    assert stale == [], "run .venv/bin/python tools/gendocs"


def test_a_changed_page_is_found_stale() -> None:
    module = gendocs()
    page = "<!-- generated: options -->\nold\n<!-- end: options -->\nby hand\n"
    made = module.with_part(page, "options", "new")
    assert made == "<!-- generated: options -->\n\nnew\n<!-- end: options -->\nby hand\n"


def test_every_option_and_reason_is_explained() -> None:
    options = (DOCS / "reference" / "options.md").read_text()
    options += (DOCS / "reference" / "unicast-options.md").read_text()
    assert [f.name for f in fields(SocketOptions) if f"### {f.name}\n" not in options] == []
    events = (DOCS / "reference" / "events.md").read_text()
    howto = (DOCS / "howto" / "handle-loss.md").read_text()
    for page in (events, howto):
        assert [reason for reason in LossReason if f"| `{reason.value}` |" not in page] == []


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """The long options of a parser and of those below it; hidden ones don't count."""
    found: set[str] = set()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found = found.union(*map(options_of, action.choices.values()))
        elif action.help != argparse.SUPPRESS:
            found |= {name for name in action.option_strings if name.startswith("--")}
    return found


def unexplained(page: str) -> list[str]:
    """Commands without a heading on the page of the command line, and options it does not name."""
    headings = " ".join(_HEADING.findall(prose(page)))
    (commands,) = (
        action.choices
        for action in make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    faults = [name for name in commands if not re.search(rf"\bmcast {name}\b", headings)]
    for name, parser in commands.items():
        known = options_of(parser) - {"--help"}
        faults += [f"{name} {o}" for o in sorted(known) if not re.search(rf"{o}(?![\w-])", page)]
    return faults


def test_every_command_and_each_of_its_options_is_explained() -> None:
    assert unexplained((DOCS / "reference" / "cli.md").read_text()) == []


def test_a_planted_option_that_nobody_explains_is_found() -> None:
    page = (DOCS / "reference" / "cli.md").read_text()
    assert unexplained(page.replace("--rotate-time", "--gone")) == ["record --rotate-time"]
    assert unexplained(page.replace("## mcast top", "## top")) == ["top"]


def test_every_promise_names_a_test() -> None:
    text = (DOCS / "reference" / "guarantees.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith(("| ---", "| promise", "| what"))]
    assert len(promises) > 20
    assert [row for row in promises if not _TEST_NAME.search(row)] == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[x](nowhere.md)", "nowhere.md: no such file"),
        ("[x](#nowhere)", "#nowhere: no such heading"),
        ("[x](../README.md#nowhere)", "../README.md#nowhere: no such heading"),
    ],
)
def test_a_planted_dead_link_is_found(text: str, fault: str) -> None:
    assert link_faults(DOCS / "README.md", text) == [fault]


def test_a_planted_mistake_in_code_is_found() -> None:
    assert code_faults("```python\nx = = 1\n```\n") == ["line 1 of a block: invalid syntax"]
    wrong = "```python run\nctx.socket(mcast.PUB, rates=1)\n```\n"
    assert code_faults(wrong) == ["unknown option rates"]


def test_a_planted_wrong_default_is_found() -> None:
    text = (
        "`sndhwm` of them (7), `rate` (800e6), `txw_bytes`, 1 MiB, 3 (`linger`), `coalesce` (2 s)"
    )
    assert [fault.split()[0] for fault in default_faults(text)] == [
        "sndhwm",
        "txw_bytes",
        "coalesce",
        "linger",
    ]


def test_a_planted_reference_to_nothing_is_found() -> None:
    text = '`tests/unit/test_docs.py::test_gone`, `mcast/gone.py`, `stats()["gone_for_ever"]`, '
    text += "`mcast_sold_total`"
    assert reference_faults(text) == [
        "no test tests/unit/test_docs.py::test_gone",
        "no file mcast/gone.py",
        "no counter gone_for_ever",
        "no counter sold",
    ]
