"""Distributions of data weights as words on the command line, such as uniform:0:1."""

from collections.abc import Sequence
from dataclasses import astuple

import tyro

from contam.theory.weights import Beta, Pareto, TwoPoint, Uniform, Weights

KINDS: dict[str, type[Uniform] | type[TwoPoint] | type[Beta] | type[Pareto]] = {
    "uniform": Uniform,
    "two_point": TwoPoint,
    "beta": Beta,
    "pareto": Pareto,
}
FORMS = "uniform:LOW:HIGH, two_point:P:LOW:HIGH, beta:A:B:LOW:HIGH or pareto:ALPHA:LOW:HIGH"
registry = tyro.constructors.ConstructorRegistry()
"""Tells tyro how to read a distribution; active inside `with registry`."""


def from_text(text: str) -> Weights | tuple[Weights, ...]:
    """Read one distribution, or several separated by commas, one for each feature.

    Raises:
        ValueError: the text is not a distribution.

    >>> from_text("beta:2:5")
    Beta(a=2.0, b=5.0, low=0.0, high=1.0)
    """
    weights = tuple(_one(word) for word in text.split(","))
    return weights[0] if len(weights) == 1 else weights


def to_text(weights: Weights | tuple[Weights, ...]) -> str:
    """Write distributions in the form that `from_text` reads.

    >>> from contam.theory.weights import Uniform
    >>> to_text(Uniform(-1.0, 0.0))
    'uniform:-1:0'
    """
    names = {kind: name for name, kind in KINDS.items()}
    several = weights if isinstance(weights, tuple) else (weights,)
    return ",".join(
        ":".join([names[type(one)], *(f"{value:g}" for value in astuple(one))]) for one in several
    )


def _one(word: str) -> Weights:
    name, *numbers = word.split(":")
    if name not in KINDS:
        raise ValueError(f"no distribution {name!r}; write {FORMS}")
    try:
        return KINDS[name](*map(float, numbers))
    except TypeError:
        raise ValueError(f"{word!r} is not a distribution; write {FORMS}") from None


@registry.primitive_rule
def _rule(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec | None:
    if info.type != Weights | tuple[Weights, ...]:
        return None

    def read(words: Sequence[str]) -> Weights | tuple[Weights, ...]:
        return from_text(words[0])

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="NAME:NUMBERS",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, (Uniform, TwoPoint, Beta, Pareto, tuple)),
        str_from_instance=lambda value: [to_text(value)],
    )
