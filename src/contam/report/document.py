"""Self-contained HTML documents with a content security policy."""

import base64
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import altair
import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined

from contam.experiment import capitalized
from contam.report import theme, words


def document(
    template: str,
    data: Mapping[str, Any],
    *,
    styles: Sequence[str],
    scripts: Sequence[str],
    **values: Any,
) -> str:
    """Render a template as one HTML file that loads nothing.

    Args:
        template: name of a Jinja template in this package.
        data: values for the scripts, embedded as JSON; `data["charts"]` holds the Vega-Lite charts.
            The library that draws them is left out if there are none.
        styles: names of CSS files in this package, joined in this order.
        scripts: names of JavaScript files in this package, joined in this order.
        values: variables of the template.

    Returns:
        The document as text.

    >>> html = document(
    ...     "page.html.j2", {"charts": {}, "numbers": {}}, styles=["page.css"], scripts=["page.js"],
    ...     title="Results", headline="", sections=(), counts=(0, 0, 0), judging=True,
    ...     published=False, rows_shown=10)
    >>> "<title>Results</title>" in html, "<link" in html
    (True, False)
    """
    sheet = theme.stylesheet() + "".join(map(_text, styles))
    code = {
        "boot": _text("boot.js"),
        "vega": _vega() if data["charts"] else "",
        "page": "".join(map(_text, scripts)),
    }
    digests = " ".join(_digest(script) for script in code.values() if script)
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src {_digest(sheet)}; script-src {digests}"
    )
    html = _environment().get_template(template).render(
        policy=policy,
        styles=sheet,
        scripts=code,
        data={**data, "themes": theme.CHARTS},
        version=version("contam"),
        **values,
    )  # fmt: skip
    return html.strip() + "\n"


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("contam.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "capitalized": capitalized,
        "typeset": words.typeset,
        "prose": words.prose,
        "cell": words.cell,
        "rough": words.rough,
        "json": words.json_in_html,
    }
    environment.globals |= {"words": words}
    return environment


@functools.cache
def _vega() -> str:
    """Return Vega, Vega-Lite and vega-embed as one script, in the version of the charts."""
    release = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", release)
    # Escape every sequence that would end the script element or hide its end.
    return re.sub(r"<(?=/script|!--|script)", r"\\x3c", script, flags=re.IGNORECASE)


@functools.cache
def _text(name: str) -> str:
    return files("contam.report").joinpath(name).read_text()


def _digest(text: str) -> str:
    """Return the policy's source expression that allows exactly this script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
