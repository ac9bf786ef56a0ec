"""The documentation as a site: tools/site builds it strictly, whole, and fetching nothing."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.kernel_independent,
    pytest.mark.skipif(
        importlib.util.find_spec("mkdocs") is None and os.environ.get("CI") != "true",
        reason="the site needs mkdocs (pip install '.[docs]')",
    ),
]

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 100
_FETCHED = re.compile(r"<(?:script|img|iframe)[^>]* src=\"?(https?:[^\s\">]+)")
_STYLE = re.compile(r"<link[^>]* rel=\"?(?:stylesheet|preload|icon)[^>]*href=\"?(https?:[^\s\">]+)")


def build(tree: Path, site: Path) -> subprocess.CompletedProcess[str]:
    config = tree / "tools" / "site" / "mkdocs.yml"
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-f", str(config), "-d", str(site)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(tree)},
        check=False,
    )


def test_the_site_builds_whole_and_fetches_nothing(tmp_path: Path) -> None:
    built = build(ROOT, tmp_path)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    pages = {str(p.relative_to(tmp_path).with_suffix("")): p for p in tmp_path.rglob("*.html")}
    written = [p.relative_to(ROOT / "docs").with_suffix("") for p in (ROOT / "docs").rglob("*.md")]
    assert {str(p).replace("README", "index") for p in written} <= set(pages)
    assert "send_many" in pages["reference/python-contexts-and-sockets"].read_text()
    assert "mcast scout" in pages["reference/help"].read_text()
    for page in pages.values():
        text = page.read_text()
        assert _FETCHED.findall(text) + _STYLE.findall(text) == [], page


def test_a_dead_link_and_a_page_left_out_end_the_build(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copytree(ROOT / "tools" / "site", tmp_path / "tools" / "site")
    (tmp_path / "mcast").symlink_to(ROOT / "mcast")
    (tmp_path / "docs" / "orphan.md").write_text("# Orphan\n\n[nowhere](gone.md)\n")
    built = build(tmp_path, tmp_path / "out")
    assert built.returncode != 0
    assert "orphan.md" in built.stderr
    assert "gone.md" in built.stderr
