"""HTML pages: one frame and one stylesheet, all inline, so that a page needs no network."""

from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lightning_cnn import __version__


def page(template: str, heading: str, lead: str, **content: Any) -> str:
    """Renders a page. Texts are escaped.

    Args:
        template: A file in `templates/` that extends `frame.html`.
        heading: The heading and the title.
        lead: The line below, behind version and time.
        content: What the template shows.
    """
    now = f"{datetime.now():%Y-%m-%d %H:%M}"
    found = _templates().get_template(template)
    return found.render(heading=heading, lead=lead, version=__version__, now=now, **content)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("lightning_cnn.figures"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
