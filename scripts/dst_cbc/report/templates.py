"""Texts from templates, which lie beside the modules that fill them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(template: Path, filters: Mapping[str, Callable[..., str]] = {}, **values: Any) -> str:
    """A template of Jinja with its values; in one for HTML they are escaped.

    Raises jinja2.UndefinedError for a value that it names and that is not given.
    """
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=template.name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= filters
    return environment.get_template(template.name).render(values)
