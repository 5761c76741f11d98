"""Renders texts from Jinja templates, which lie beside the modules that fill them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..runtime import escape


def render(template: Path, filters: Mapping[str, Callable[..., str]] = {}, **values: Any) -> str:
    """Return a Jinja template filled with `values`; templates for HTML and Markdown escape them.

    In Markdown, a value of the type markupsafe.Markup is not escaped.

    Raises jinja2.UndefinedError if the template uses a value that is not given.
    """
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=template.name.endswith(".html.j2"),
        finalize=_markdown if template.name.endswith(".md.j2") else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= filters
    return environment.get_template(template.name).render(values)


def _markdown(value: Any) -> Any:
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return escape.markdown(value) if is_text else value
