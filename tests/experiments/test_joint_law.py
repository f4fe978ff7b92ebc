"""Backgrounds over correlation and contrast: the data, and claims that follow from the numbers."""

import pytest
import torch

from contam.experiments.joint_law import EXPERIMENT, LAPTOP, Config
from contam.experiments.joint_law.deep import DeepCell, deep_cells, shift_of
from contam.experiments.joint_law.two_layer import predicted_part, two_layer_part
from contam.run import Run

CONFIG = LAPTOP.model_copy(
    update={"correlations": (0, 1), "contrasts": (0.01, 0.1, 1.0), "sizes": (1.0,), "seeds": 3}
)
ACCURACIES = {
    (0.0, 0.0): (0.96, 0.96, 0.96, 1.0),
    (0.01, 0.0): (0.96, 0.96, 0.95, 0.99), (0.1, 0.0): (0.9, 0.9, 0.8, 1.2),
    (1.0, 0.0): (0.85, 0.85, 0.55, 2.0), (0.01, 1.0): (0.96, 0.95, 0.95, 0.98),
    (0.1, 1.0): (1.0, 0.5, 0.5, 0.3), (1.0, 1.0): (1.0, 0.49, 0.49, 0.0),
}  # fmt: skip
"""By contrast and correlation: accuracy as in training, randomized and reversed; mean depth."""
LOSSES = {0.0: (0.0, 0.0, 0.85), 1.0: (0.0, 0.1, 0.75)}


def made_up(root, deep=ACCURACIES, theory=LOSSES, calibrated=(), error=0.0) -> Run:
    """A run whose untrained networks have a depth of 3 everywhere, by default."""
    with Run.start(root, EXPERIMENT.name, CONFIG) as run:
        for rho, losses in theory.items():
            row = dict(zip(("id", "randomized", "reversed"), losses, strict=True))
            row |= {"size": 1.0, "correlation": rho, "reversed": losses[2] + error}
            run.write(predicted_part(1.0, rho), [row])
        for seed in range(CONFIG.seeds):
            for rho, losses in theory.items():
                row = dict(zip(("id", "randomized", "reversed"), losses, strict=True))
                row |= {"size": 1.0, "correlation": rho, "seed": seed}
                run.write(f"{two_layer_part(1.0, rho)}/seed{seed}", [row])
            for cell in deep_cells(CONFIG):
                accuracies = deep[cell.contrast, cell.correlation]
                rows = [
                    cell._asdict()
                    | {"seed": seed, "state": state, "early": 0.5}
                    | dict(zip(("id", "randomized", "reversed"), accuracies, strict=False))
                    | {"depth": value}
                    for state, value in (
                        ("untrained", 3.0),
                        ("calibrated", dict(calibrated).get(cell[:2], 3.0)),
                        ("trained", accuracies[3] + 0.001 * seed),
                    )
                ]
                run.write(cell.part(seed), rows, {"pictures": torch.zeros(2, 2, 3, 32, 16)})
        run.finish()
    return run


@pytest.mark.parametrize(
    ("deep", "theory", "fails"),
    [
        ({}, {}, set()),
        ({}, {0.0: (0.0, 0.0, 0.1)}, {0}),
        ({}, {1.0: (0.0, 0.01, 0.75)}, {1}),
        ({}, {1.0: (0.0, 0.5, 0.75)}, {2}),
        ({(1.0, 0.0): (0.85, 0.85, 0.8, 2.0)}, {}, {4}),
        ({(1.0, 1.0): (1.0, 0.9, 0.49, 0.0)}, {}, {5}),
        ({(0.01, 1.0): (0.96, 0.5, 0.5, 0.98)}, {}, {6}),
        ({(1.0, 1.0): (1.0, 0.49, 0.48, 1.1)}, {}, {7, 8, 11, 12}),
        ({(1.0, 0.0): (0.85, 0.85, 0.55, 0.5)}, {}, {9, 10, 13}),
    ],
)
def test_claims_follow_from_the_numbers(tmp_path, deep, theory, fails):
    claims = EXPERIMENT.claims(made_up(tmp_path, ACCURACIES | deep, LOSSES | theory))
    assert {place for place, claim in enumerate(claims) if not claim.holds} == fails


def test_of_two_untrained_networks_the_claims_subtract_the_stricter(tmp_path):
    # Calibrated, an untrained network decides the easy shortcut 2 probes earlier, too.
    claims = EXPERIMENT.claims(made_up(tmp_path, calibrated={(1.0, 1.0): 1.0}))
    assert claims[8].observed == pytest.approx(1.0, abs=0.01) and not claims[8].holds
    assert claims[7].holds and claims[10].holds


def test_nothing_is_claimed_of_deep_networks_that_did_not_learn(tmp_path):
    deep = {place: (0.5, 0.5, 0.5, 1.0) for place in ACCURACIES}
    claims = EXPERIMENT.claims(made_up(tmp_path, deep))
    assert all("did not learn" in str(claim.not_judged) for claim in claims[4:])


def test_the_error_of_the_prediction_is_judged_where_two_layer_networks_learned(tmp_path):
    def judged(folder, **made):
        return EXPERIMENT.claims(made_up(tmp_path / folder, **made))[3]

    assert judged("near", error=0.02).holds
    far = judged("far", error=-0.1)
    assert far.holds is False and far.observed == pytest.approx(0.1)
    untrained = judged("null", theory=dict.fromkeys(LOSSES, (1.0, 1.0, 1.0)))
    assert untrained.not_judged == "a two-layer network did not learn"


def test_figures_show_every_cell(tmp_path):
    _, surfaces, parts, depths = EXPERIMENT.draw(made_up(tmp_path))
    assert len(surfaces.rows) == 6 + 2 + 2 and len(parts.rows) == 2 * 6
    assert "without backgrounds it is 1.00" in depths.caption
    table = {(row["contrast"], row["correlation"]): row["depth"] for row in depths.rows[:6]}
    assert table == pytest.approx(
        {place: depth + 0.001 for place, (*_, depth) in ACCURACIES.items() if place[0]}
    )


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_backgrounds_have_the_correlation(correlation):
    config = Config(train=4000, test=400)
    shift = shift_of(config, DeepCell(0.3, correlation), seed=1)
    data = shift.train[0].data
    signs = (2 * data.domain - 1) * (2 * data.y - 1)
    assert float(signs.double().mean()) == pytest.approx(correlation, abs=0.06)
    for test in shift.ood_tests:
        signs = (2 * test.data.domain - 1) * (2 * test.y - 1)
        assert abs(float(signs.double().mean())) < 0.2


def test_ood_tests_have_the_digits_of_the_id_test():
    shift = shift_of(Config(train=40, test=60), DeepCell(0.3, 1.0), seed=0)
    plain = shift_of(Config(train=40, test=60), DeepCell(0.0, 0.0), seed=0).id_test.data
    _, reversed_ = shift.ood_tests
    for test, sign in ((shift.id_test, 1), (shift.ood_tests[0], 1), (reversed_, -1)):
        added = sign * (test.data.x - plain.x)
        assert torch.equal(test.y, plain.y)
        # What was added is the pattern of the domain, up to its strength.
        for which in (0, 1):
            rows = added[test.data.domain == which].flatten(1).double()
            assert torch.linalg.matrix_rank(rows, tol=1e-3) == 1
        assert float(added.std(dim=(1, 2, 3)).min()) >= 0.15 - 1e-3
        assert float(added.std(dim=(1, 2, 3)).max()) <= 0.3 + 1e-3


def test_a_cell_that_the_run_lacks_is_not_judged(tmp_path):
    config = CONFIG.model_copy(update={"correlations": (0, 0.5)})
    with Run.start(tmp_path / "b", EXPERIMENT.name, config) as run:
        whole = made_up(tmp_path / "a")
        for seed in range(config.seeds):
            for cell in deep_cells(CONFIG):
                target = cell if cell.correlation == 0 or not cell.digits else cell._replace(
                    correlation=0.5
                )  # fmt: skip
                rows = [row | {"correlation": target.correlation}
                        for row in whole.read(cell.part(seed))]  # fmt: skip
                run.write(target.part(seed), rows)
            for rho in (0.0, 0.5):
                rows = whole.read(f"{two_layer_part(1.0, 0.0)}/seed{seed}")
                run.write(f"{two_layer_part(1.0, rho)}/seed{seed}",
                          [row | {"correlation": rho} for row in rows])  # fmt: skip
        run.finish()
    reasons = {claim.not_judged for claim in EXPERIMENT.claims(run)} - {None}
    assert "the run has no contrast 1 at correlation 1" in reasons
    assert "the run has no size 1 at correlation 1" in reasons
