"""Colors that can be read: contrast by the formula of WCAG 2, in both themes."""

import itertools

import pytest
from support import browser

from contam.plots import PALETTE
from contam.report import theme


def contrast(one: str, other: str) -> float:
    return browser.contrast(channels(one), channels(other))


def channels(color: str) -> tuple[int, ...]:
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def test_contrast_by_hand() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("name", theme.COLORS)
def test_text_has_sufficient_contrast(name: str) -> None:
    colors = theme.COLORS[name]
    for ink in ("ink", "soft", "link"):
        for ground in ("paper", "sunk"):
            assert contrast(colors[ink], colors[ground]) >= 4.5, (ink, ground)
    for verdict in ("holds", "fails", "unjudged"):
        assert contrast(colors[verdict], colors[f"{verdict}-tint"]) >= 4.5, verdict


@pytest.mark.parametrize("name", theme.COLORS)
def test_series_colors_have_sufficient_contrast_and_are_different(name: str) -> None:
    for color in PALETTE[name]:
        assert contrast(color, theme.COLORS[name]["paper"]) >= 4.5, color
    assert len(set(PALETTE[name])) == len(PALETTE["light"])


@pytest.mark.parametrize("name", theme.COLORS)
@pytest.mark.parametrize("blindness", ["protan", "deutan", "tritan"])
def test_the_first_series_are_distinguishable_for_color_blind_readers(
    name: str, blindness: str
) -> None:
    simulated_colors = [simulated(color, blindness) for color in PALETTE[name][:4]]
    for one, other in itertools.combinations(simulated_colors, 2):
        assert sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5 > 0.08


# Viénot, Brettel and Mollon (1999) for red and green, Brettel's plane for blue, in linear RGB.
MATRICES = {
    "protan": ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0)),
    "deutan": ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0)),
    "tritan": ((1.01354, 0.14268, -0.15622), (-0.01181, 0.87561, 0.13619),
               (0.07707, 0.81208, 0.11085)),
}  # fmt: skip


def simulated(color: str, blindness: str) -> tuple[float, ...]:
    linear = [((int(color[i : i + 2], 16) / 255) + 0.055) / 1.055 for i in (1, 3, 5)]
    linear = [value**2.4 for value in linear]
    return tuple(
        max(sum(a * b for a, b in zip(row, linear, strict=True)), 0.0) ** (1 / 2.4)
        for row in MATRICES[blindness]
    )


def test_the_style_sheet_and_the_charts_use_the_same_colors() -> None:
    sheet = theme.stylesheet()
    for name, colors in theme.COLORS.items():
        assert all(f"--{key}: {value};" in sheet for key, value in colors.items())
        assert theme.CHARTS[name]["axis"]["labelColor"] == colors["soft"]
        assert theme.CHARTS[name]["range"]["category"] == list(PALETTE[name])
