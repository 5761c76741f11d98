"""The site builds strictly, opens from disk without a network, and agrees with the code."""

import ast
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from browser import browse, chromium
from documentation import pages
from documentation.pages import DOCS, README
from workflow import REPOSITORY

TROUBLES = DOCS / "guides/troubleshooting.md"
# Messages that Snakemake itself prints.
SNAKEMAKES = {
    "LockException", "MissingRuleException", "IncompleteFilesException", "Nothing to be done",
    "FileNotFoundError", "Config file must be given as JSON or YAML",
}  # fmt: skip


class Links(HTMLParser):
    """The links of a page, the files that it loads, and its anchors."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loaded, self.anchors = [], [], {""}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        loads = tag in ("script", "img") and found.get("src")
        loads = loads or (tag == "link" and found.get("rel") == "stylesheet" and found["href"])
        if loads:
            self.loaded.append(loads)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder of the site, built from a copy of docs/."""
    root = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, root / "docs")
    shutil.copy(REPOSITORY / "mkdocs.yml", root)
    command = [Path(sys.executable).with_name("zensical"), "build", "--strict"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "site"


def test_every_link_leads_somewhere_and_nothing_is_loaded_from_a_network(site):
    parsed = {path: Links(path.read_text()) for path in site.rglob("*.html")}
    assert len(parsed) > len(list(DOCS.rglob("*.md")))
    faults = []
    for path, page in parsed.items():
        if path.name == "404.html":
            continue
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                faults += [f"{path}: loads {link}"] if link in page.loaded else []
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                faults.append(f"{path}: {link} does not exist")
            elif parts.fragment and unquote(parts.fragment) not in parsed[target].anchors:
                faults.append(f"{path}: {link}: no such anchor")
    assert not faults


def test_every_page_is_in_the_navigation_once():
    navigation = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"]

    def files(entry):
        if isinstance(entry, str):
            return [entry]
        inner = entry if isinstance(entry, list) else list(entry.values())
        return [file for one in inner for file in files(one)]

    assert sorted(files(navigation)) == sorted(
        path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")
    )


def test_the_readme_is_short_and_its_links_lead_to_files():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if not link.startswith("https://"):
            assert (REPOSITORY / link).is_file(), link


# Opens the search with Ctrl+K, types a word, and writes the links it finds into the page's title.
SEARCH = """
<script>
const all = query => [...document.querySelectorAll("*")].filter(element => element.shadowRoot)
  .flatMap(element => [...element.shadowRoot.querySelectorAll(query)])
setTimeout(() => {
  window.dispatchEvent(new KeyboardEvent("keydown", {key: "k", ctrlKey: true}))
  setTimeout(() => {
    const [box] = all("input")
    box.value = "LockException"
    box.dispatchEvent(new InputEvent("input", {bubbles: true}))
    setTimeout(() => document.title = all("a").map(link => link.href).join(" "), 2000)
  }, 1000)
}, 1500)
</script>
"""


@chromium
def test_the_search_works_on_pages_that_are_opened_from_disk(site):
    page = site / "with-search.html"
    page.write_text((site / "index.html").read_text() + SEARCH)
    (title,) = re.findall(r"<title>(.*?)</title>", browse(page))
    assert "guides/troubleshooting.html" in title


def texts():
    """Every text in the code: string constants, f-strings with `…` for values, and the rules."""
    for path in (REPOSITORY / "scripts").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                yield "".join(str(part) for part in parts)
    for path in (REPOSITORY / "workflow/rules").glob("*.smk"):
        yield re.sub(r"\{[^{}]*\}", "…", re.sub(r'"\n\s+f?"', "", path.read_text()))


def test_each_message_of_the_troubleshooting_page_is_one_that_is_printed():
    titles = re.findall(r"^### (.*)$", TROUBLES.read_text(), re.MULTILINE)
    quoted = {message for title in titles for message in re.findall(r"`([^`]+)`", title)}
    assert len(quoted) > 20
    found = list(texts())
    # Signals and values are filled in when a message is printed.
    fixed = {m: re.sub(r"SIG\w+|nan", "…", m) for m in quoted - SNAKEMAKES}
    missing = {m for m in fixed if not any(m in text or fixed[m] in text for text in found)}
    assert not missing


def named_paths():
    """(page, path) of every repository path that a page has in backticks."""
    tops = "scripts|workflow|tests|docs|benchmarks|profiles|envs"
    for page in pages.written_pages():
        text = re.sub(r"(?s)```.*?```", "", page.read_text())
        for path in re.findall(rf"`((?:{tops})/[\w./-]*)`", text):
            yield page.relative_to(REPOSITORY).as_posix(), path


def test_every_path_of_the_repository_that_a_page_names_exists():
    # Files that the examples of these pages add.
    added = {
        "scripts/dst_cbc/training/objectives/ema_teacher.py",
        "scripts/dst_cbc/data/annotations/via.py",
        "scripts/dst_cbc/models/heads/two_maps.py", "scripts/dst_cbc/data/layouts/listed.py",
    }  # fmt: skip
    found = set(named_paths())
    assert len(found) > 40
    assert not {(p, path) for p, path in found if path not in added and not exists(path)}


def exists(path):
    return (REPOSITORY / path).exists()
