"""The axis of difficulty: its claims follow from the numbers, and its published preset runs."""

import numpy as np
import pytest
from support.experiment_runs import run_experiment
from support.small_files import idx

from contam.data.ten_classes import MOVED, REMOVED
from contam.experiments.difficulty_axis import EXPERIMENT, LAPTOP, PAPER, Config, part_of
from contam.run import Run

AS_PRINTED = {"digits-patch": (0.2, 0.1), "digits": (2.0, 0.99), "digits-faint": (2.1, 0.97),
              "shapes": (4.0, 0.5)}  # fmt: skip
"""Depth of the trained networks, and accuracy with the square of another class."""


def made_up(
    root, measured: dict[str, tuple[float, float]], *, learned: float = 1.0, calibrated=()
) -> Run:
    """A run in which untrained networks have a depth of 1 on every set, by default."""
    with Run.start(root, EXPERIMENT.name, LAPTOP.model_copy(update={"seeds": 2})) as run:
        for name, (depth, moved) in measured.items():
            for seed in range(2):
                rows = [
                    {"set": name, "seed": seed, "state": state, "early": 0.5, "undefined": 0.0}
                    | {"depth": value, "shares": [0.5, 0.5]}
                    | {"as in training": learned if state == "trained" else 0.1}
                    | ({MOVED: moved, REMOVED: moved} if "-" in name else {})
                    for state, value in (
                        ("untrained", 1.0),
                        ("calibrated", dict(calibrated).get(name, 1.0)),
                        ("trained", depth),
                    )
                ]
                run.write(part_of(name, seed), rows)
        run.finish()
    return run


@pytest.mark.parametrize(
    ("changed", "fails"),
    [
        ({}, set()),
        ({"digits-patch": (1.8, 0.1)}, {0}),
        ({"shapes": (2.2, 0.5)}, {1}),
        ({"digits-patch": (0.2, 0.6)}, {2}),
        ({"digits-faint": (2.1, 0.8)}, {3}),
        ({"digits-faint": (1.6, 0.97)}, {4}),
    ],
)
def test_claims_follow_from_the_numbers(tmp_path, changed, fails):
    claims = EXPERIMENT.claims(made_up(tmp_path, AS_PRINTED | changed))
    assert {place for place, claim in enumerate(claims) if not claim.holds} == fails


def test_of_two_untrained_networks_the_claims_subtract_the_stricter(tmp_path):
    # Calibrated, an untrained network decides the square 1.7 probes earlier, too.
    claims = EXPERIMENT.claims(made_up(tmp_path, AS_PRINTED, calibrated={"digits-patch": -0.7}))
    assert claims[0].observed == pytest.approx(-0.1) and not claims[0].holds
    assert all(claim.holds for claim in claims[1:])


def test_nothing_is_claimed_of_networks_that_did_not_learn(tmp_path):
    claims = EXPERIMENT.claims(made_up(tmp_path, AS_PRINTED, learned=0.3))
    assert all("did not learn" in str(claim.not_judged) for claim in claims)


def test_claims_on_a_set_that_was_not_measured_are_not_judged(tmp_path):
    measured = {name: printed for name, printed in AS_PRINTED.items() if name != "digits-faint"}
    config = LAPTOP.model_copy(update={"sets": tuple(measured), "seeds": 2})
    run = made_up(tmp_path / "a", measured)
    with Run.start(tmp_path / "b", EXPERIMENT.name, config) as other:
        for name in measured:
            for seed in range(2):
                other.write(part_of(name, seed), run.read(part_of(name, seed)))
        other.finish()
    *_, harm, earlier = EXPERIMENT.claims(other)
    assert harm.not_judged == earlier.not_judged == "no set of this run ends in -faint"


@pytest.mark.slow
def test_the_published_preset_runs_on_small_files(tmp_path):
    draws = np.random.default_rng(0)
    for name in ("kmnist", "mnist"):
        folder = tmp_path / name
        folder.mkdir()
        for part in ("train", "t10k"):
            idx(folder, part, draws.integers(0, 256, (30, 28, 28)), np.arange(30) % 10)
    config = PAPER.model_copy(
        update={"folder": tmp_path, "sets": ("kmnist-patch", "mnist"), "epochs": 1}
        | {"batch_size": 30, "support": 30, "queries": 5, "seeds": 1}
    )
    run = run_experiment(EXPERIMENT, config, tmp_path / "runs")
    (_, _, row) = run.read(part_of("kmnist-patch", 0))
    assert len(row["shares"]) == 13
    assert EXPERIMENT.draw(run) and EXPERIMENT.summary(run)


def test_all_missing_sets_are_reported_at_once(tmp_path):
    config = Config(folder=tmp_path, sets=("mnist", "letters", "svhn"))
    with pytest.raises(ValueError, match=r"mnist.*t10k-labels.*letters.*svhn.*test_32.* --folder$"):
        run_experiment(EXPERIMENT, config, tmp_path / "runs")
