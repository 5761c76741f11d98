"""The examples of docs/contributing, as their pages print them."""

import sys
from importlib.util import module_from_spec, spec_from_loader
from types import ModuleType

from documentation.pages import DOCS, blocks


def code(page: str, language: str = "python") -> list[str]:
    """The code blocks of a page in one language, from top to bottom."""
    path = DOCS / f"contributing/{page}.md"
    return [block.text + "\n" for block in blocks(path, [language])]


METHOD_SETTINGS, METHOD_CODE = code("method")
METHOD_ROW, METHOD_RUNS = code("method", "yaml")
HEAD_SETTINGS, HEAD_CODE = code("head")
LAYOUT_CODE, LAYOUT_ENTRY = code("layout")
FORMAT_CODE, FORMAT_ENTRY = code("annotation-format")


def load(name: str, text: str) -> ModuleType:
    """The module that a page adds to the library as an example, built once and only in memory."""
    if name not in sys.modules:
        module = module_from_spec(spec_from_loader(name, loader=None))
        module.__package__ = name.rpartition(".")[0]
        exec(text, module.__dict__)
        sys.modules[name] = module
    return sys.modules[name]
