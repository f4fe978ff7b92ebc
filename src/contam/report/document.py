"""One HTML document that holds all it shows, under a policy that lets nothing else in."""

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

from contam.report import theme, words


def document(
    template: str,
    data: Mapping[str, Any],
    *,
    styles: Sequence[str],
    scripts: Sequence[str],
    **values: Any,
) -> str:
    """The template, filled in: `styles` and `scripts` are files beside it, joined in this order.

    Scripts find `data` as JSON, with the charts under `charts`; a document without any chart does
    without the library that draws them.
    """
    sheet = theme.stylesheet() + "".join(map(_text, styles))
    code = {
        "boot": _text("boot.js"),
        "vega": _vega() if data["charts"] else "",
        "page": "".join(map(_text, scripts)),
    }
    ours = " ".join(_digest(script) for script in code.values() if script)
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src {_digest(sheet)}; script-src {ours}"
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
    """Vega, Vega-Lite and vega-embed as one script, of the version that the charts are made for."""
    release = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", release)
    # What would end the script element, or hide its end, says the same with a backslash.
    return re.sub(r"<(?=/script|!--|script)", r"\\x3c", script, flags=re.IGNORECASE)


@functools.cache
def _text(name: str) -> str:
    return files("contam.report").joinpath(name).read_text()


def _digest(text: str) -> str:
    """The source expression that lets a page run or apply exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
