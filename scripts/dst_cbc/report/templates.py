"""Renders texts from Jinja templates, which lie beside the modules that fill them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(template: Path, filters: Mapping[str, Callable[..., str]] = {}, **values: Any) -> str:
    """Return a Jinja template filled with `values`; templates for HTML escape them.

    Raises jinja2.UndefinedError if the template uses a value that is not given.
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
