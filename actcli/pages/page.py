"""Turns a template and the facts of a page into one self-contained HTML file."""

import math

import jinja2
from markupsafe import Markup

_NOT_THERE = "–"


def render_page(template: str, **facts: object) -> str:
    """The page ``<template>.html.j2`` with style and script inside; every text that is not ``Markup`` is escaped.

    Args:
        template: Name of the page: ``report``, ``inspect`` or ``compare``.
        facts: What the template names; one that is missing is an error.
    """
    page = _environment().get_template(f"{template}.html.j2").render(**facts)
    return page.encode("utf-8", "backslashreplace").decode("utf-8")  # file names need not be text


def percent(share: float | None) -> str:
    """``0.123`` → ``12.3 %``."""
    return _NOT_THERE if share is None or math.isnan(share) else f"{100 * share:.1f} %"


def thousands(number: float) -> str:
    """``1234567`` → ``1 234 567``, with narrow spaces."""
    return f"{number:,.0f}".replace(",", "\u202f")


def _environment() -> jinja2.Environment:
    loader = jinja2.PackageLoader("actcli.pages")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "thousands": thousands}
    environment.globals |= {"source_of": lambda name: _source(environment, name)}
    return environment


def _source(environment: jinja2.Environment, name: str) -> Markup:
    """A style sheet or script of ours, as it stands."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])
