"""What the page says about a run's settings, and where it places a claim's number."""

import math
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, Field, create_model

from contam.experiment import Claim, Experiment
from contam.plots import Figure
from contam.report.strip import WIDTH, strip
from contam.report.view import Section, figure_view, sections
from contam.run import Run


@pytest.fixture(scope="module")
def shown(runs: list[Run], experiments: dict[str, Experiment]) -> list[Section]:
    return sections(runs, experiments)


def test_the_preset_is_named_with_its_changed_fields(shown: list[Section]) -> None:
    assert [section.preset for section in shown] == [
        "smoke",
        "paper, with seeds = 3, network.width = 8",
        "paper",
        "paper, with seeds = 7",
    ]


def test_a_config_that_lacks_a_field_differs_from_the_preset(
    runs: list[Run], experiments: dict[str, Experiment], tmp_path: Path
) -> None:
    config = {key: value for key, value in runs[0].config.items() if key != "name"}
    section = sections([with_config(config, tmp_path)], experiments)[0]
    assert section.preset == "smoke, with no name"
    assert "--config" in section.command


def test_runs_of_one_experiment_have_different_titles(shown: list[Section]) -> None:
    assert shown[0].title.endswith("(smoke)")
    assert shown[2].title == "An experiment without claims or figures"
    assert len({section.title for section in shown}) == len(shown)


def test_the_command_names_the_preset_or_a_file(shown: list[Section]) -> None:
    assert shown[0].command == "contam run hostile smoke"
    assert shown[1].command == "contam run hostile --config hostile.yaml"
    assert yaml.safe_load(shown[1].config) == shown[1].run.config
    assert all(shlex.split(section.command)[:2] == ["contam", "run"] for section in shown)


def test_fields_have_value_published_value_and_meaning(shown: list[Section]) -> None:
    fields = {field.name: field for field in shown[1].fields}
    assert list(fields) == ["seeds", "name", "network.width"]
    assert (fields["seeds"].value, fields["seeds"].paper) == (3, 4)
    assert fields["seeds"].meaning == "Ours: the paper does not say how many."
    assert fields["network.width"].differs
    assert fields["network.width"].meaning == "Hidden neurons & <more>."
    assert not fields["name"].differs


class Base(BaseModel):
    inherited: int = 1
    """From the base."""
    over: int = 1
    """Of the base."""


class Derived(Base, use_attribute_docstrings=True):
    over: int = 2
    """Of the derived."""
    described: int = Field(3, description="By its field.")
    bare: int = 4


def test_meanings_are_inherited_and_descriptions_take_precedence(tmp_path: Path) -> None:
    presets = {"paper": Derived.model_validate({})}
    silent = Experiment("hostile", "", "", (), presets, lambda c, r: iter(()), lambda r: [],
                        lambda r: [], lambda r: "")  # fmt: skip
    run = with_config({"inherited": 1, "over": 2, "described": 3, "bare": 4, "old": 5}, tmp_path)
    fields = {field.name: field.meaning for field in sections([run], {"hostile": silent})[0].fields}
    assert fields == {
        "inherited": "From the base.",
        "over": "Of the derived.",
        "described": "By its field.",
        "bare": "",
        "old": "",
    }


def with_config(config: dict[str, Any], root: Path) -> Run:
    """A run under a config that need not be one of the experiment's."""
    fields: dict[str, Any] = {key: (Any, value) for key, value in config.items()}
    with Run.start(root, "hostile", create_model("Config", **fields)()) as run:
        run.write("measured", [{"seed": seed, "value": 0.5} for seed in range(3)])
        run.finish()
    return Run.load(run.folder)


def test_a_note_is_shown_once_by_the_first_figure_that_has_it() -> None:
    figures = [
        Figure(title, "", "ours", (), (), notes)
        for title, notes in (("a", ("one",)), ("b", ("one", "two")), ("c", ("two",)))
    ]
    explained: set[str] = set()
    views = [figure_view(figure, place, explained) for place, figure in enumerate(figures)]
    assert [view.notes for view in views] == [("one",), ("two",), ()]


def claim(**numbers: float | None) -> Claim:
    return Claim("says", "ours", "x", **numbers)  # pyright: ignore[reportArgumentType]


def test_strip_by_hand() -> None:
    line = strip(claim(observed=0.5, low=0.0, high=1.0))
    assert line is not None
    assert line.dot == WIDTH / 2
    assert line.whisker is None
    assert line.band == pytest.approx((WIDTH * 0.15 / 1.3, WIDTH * 1.15 / 1.3), abs=0.1)


@pytest.mark.parametrize("low", [None, -3.0, 0.2])
@pytest.mark.parametrize("high", [None, 0.3, 1e9])
@pytest.mark.parametrize("observed", [-1e6, 0.0, 0.25, 7.0])
@pytest.mark.parametrize("spread", [None, 0.0, 2.0, math.nan])
def test_the_dot_lies_on_the_line_and_in_the_band_when_the_claim_holds(
    low: float | None, high: float | None, observed: float, spread: float | None
) -> None:
    judged = claim(observed=observed, low=low, high=high, spread=spread)
    line = strip(judged)
    if low is None and high is None:
        assert line is None
        return
    assert line is not None
    ends = (0.0, *sorted([line.band[0], line.band[1], line.dot, *(line.whisker or ())]), WIDTH)
    assert ends[0] <= ends[1]
    assert ends[-2] <= ends[-1]
    if judged.holds:
        assert line.band[0] <= line.dot <= line.band[1]
    elif max(abs(observed - end) for end in (low, high) if end is not None) < 1e3:
        assert not line.band[0] < line.dot < line.band[1]


@pytest.mark.parametrize("observed", [None, math.nan, math.inf])
def test_there_is_no_strip_without_a_number(observed: float | None) -> None:
    assert strip(claim(observed=observed, low=0.0)) is None
