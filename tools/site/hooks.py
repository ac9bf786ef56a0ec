"""What the site adds to the pages of docs/: the navigation, and the pages made from the source.

Owns neither text nor looks. docs/README.md is the one place that lists the pages: its headings and
links are the navigation. Made here are a page for each program of docs/examples, the help of every
command, and the Python reference, whose text mkdocstrings takes from the docstrings.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PYTHON_PAGES: dict[str, tuple[str, list[str]]] = {
    "Contexts and sockets": (
        "Import these from `mcast`.",
        ["mcast.Context", "mcast.Socket", "mcast.Pub", "mcast.Sub", "mcast.SocketType"],
    ),
    "Sockets of the other patterns": (
        "Import these from `mcast`. Each is a `PatternSocket`, and that is a `Socket`.",
        [
            "mcast.sockets.patterns.PatternSocket",
            *("mcast.Req", "mcast.Rep", "mcast.Dealer", "mcast.Router", "mcast.Push", "mcast.Pull"),
            *("mcast.Pair", "mcast.Xpub", "mcast.Xsub", "mcast.Radio", "mcast.Dish"),
        ],
    ),
    "Events and errors": (
        "Import these from `mcast`.",
        ["mcast.events", "mcast.errors", "mcast.monitor"],
    ),
    "Poller, proxy, security": (
        "Import these from `mcast`.",
        [
            *("mcast.Poller", "mcast.Proxy", "mcast.proxy", "mcast.proxy_steerable"),
            *("mcast.allow", "mcast.AuthRequest", "mcast.Allowed", "mcast.Denied"),
            *("mcast.curve_keypair", "mcast.curve_public"),
        ],
    ),
    "mcast.asyncio": ("", ["mcast.asyncio"]),
    "mcast.capture": ("", ["mcast.capture"]),
    "mcast.raw": ("", ["mcast.raw"]),
    "mcast.observe": ("", ["mcast.observe"]),
    "mcast.doctor": ("", ["mcast.doctor"]),
    "mcast.testing": ("", ["mcast.testing"]),
}
"""Title, opening line, and what is shown of the package."""
INHERITED = "\n    options:\n      inherited_members: true"

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([\w./-]+\.md)(?:#[\w-]*)?\)")
_EXAMPLE_LINK = re.compile(r"\]\(((?:\.\./)*(?:examples/)?[\w/]+)\.(py|toml)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation: sections and pages in the order in which docs/README.md lists them."""
    config.nav = navigation((DOCS / "README.md").read_text())
    return config


def navigation(index: str) -> list[object]:
    """The sections of an index page, each a title and its pages; what is made here comes along."""
    nav: list[object] = [{"Overview": "README.md"}]
    for part in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        pages: list[object] = list(dict.fromkeys(_LINK.findall(body)))
        if title == "Reference":
            pages.insert(pages.index("reference/cli.md") + 1, "reference/help.md")
            pages.append({"Python": [f"reference/{slug(name)}.md" for name in PYTHON_PAGES]})
        if title == "Examples":
            pages.append({"Each program": [f"examples/{name}.md" for name in example_names()]})
        if title == "Decisions":
            pages += [str(p.relative_to(DOCS)) for p in sorted(DOCS.glob("decisions/0*.md"))]
        nav.append({title: pages})
    return nav


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made, and leaves out the programs they show."""
    made = {"reference/help.md": help_page()}
    made |= {f"reference/{slug(n)}.md": python_page(n, *p) for n, p in PYTHON_PAGES.items()}
    made |= {f"examples/{name}.md": example_page(name) for name in example_names()}
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links to programs lead to the pages that show them; fences keep only their language."""
    markdown = re.sub(r"^(```\w+) .*$", r"\1", markdown, flags=re.MULTILINE)
    return _EXAMPLE_LINK.sub(r"](\1.md)", markdown)


def slug(title: str) -> str:
    return "python-" + re.sub(r"\W+", "-", title.lower().removeprefix("mcast."))


def example_names() -> list[str]:
    return sorted(path.stem for path in DOCS.glob("examples/*") if path.suffix in (".py", ".toml"))


def example_page(name: str) -> str:
    (path,) = DOCS.glob(f"examples/{name}.[pt]*")
    language = {".py": "python", ".toml": "toml"}[path.suffix]
    return f"# {path.name}\n\n```{language}\n{path.read_text()}```\n"


def python_page(title: str, opening: str, names: list[str]) -> str:
    # What every pattern inherits is said once.
    own = "" if any(name.endswith("PatternSocket") for name in names) else INHERITED
    return "\n\n".join([f"# {title}", opening, *(f"::: {name}{own}" for name in names), ""])


def help_page() -> str:
    """What each command says to ``--help``."""
    os.environ["COLUMNS"] = "100"
    sys.path.insert(0, str(ROOT))
    from mcast.cli import make_parser

    parts = ["# Help of each command", "The text of `mcast COMMAND --help`.", "## mcast"]
    parser = make_parser()
    parts.append(f"```text\n{parser.format_help()}```")
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                parts += [f"## mcast {name}", f"```text\n{command.format_help()}```"]
    return "\n\n".join([*parts, ""])
