"""Headless Chromium, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

chromium = pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")


def browse(page: Path, *options: str, address: str = "") -> str:
    """Return the HTML of the page after Chromium has rendered it without network access.

    address: appended to the address of the page, e.g. "#round=2".
    """
    return subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={page.parent / 'browser'}", "--virtual-time-budget=10000", *options,
            "--dump-dom", page.as_uri() + address,
        ],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
