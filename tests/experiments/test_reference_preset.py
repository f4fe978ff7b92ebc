"""The presets of an encoder with real weights, on a few images of the embedded benchmark."""

import pytest
from support.experiment_runs import run_experiment

from contam.experiments.fig04_activation_rates import EXPERIMENT as RATES
from contam.experiments.fig05_selectivity import EXPERIMENT as SELECTIVITY
from contam.experiments.fig15_density import EXPERIMENT as DENSITY
from contam.experiments.support import zoo_weights
from contam.experiments.support.networks import REFERENCE_NETWORKS

FEW = REFERENCE_NETWORKS.model_copy(
    update={"side": 32, "examples": 80, "id_examples": 80, "ood_examples": 20}
)


@pytest.mark.slow
def test_the_reference_preset_measures_real_weights_beside_two_controls(tmp_path):
    claims = {}
    for experiment in (RATES, SELECTIVITY, DENSITY):
        config = experiment.presets["reference"].model_copy(update={"networks": FEW})
        run = run_experiment(experiment, config, tmp_path)
        networks = {row["network"] for part in run.parts("net/") for row in run.read(part)}
        assert networks == {"teacher", "untrained", "calibrated"}
        claims |= {claim.says: claim for claim in experiment.claims(run)}
        assert not any(panel.empty for figure in experiment.draw(run) for panel in figure.panels)
        assert experiment.summary(run)
    judged = [says for says, claim in claims.items() if claim.holds is not None]
    assert "A teacher is much more selective than a random network" in judged
    assert claims["A distilled network is much more selective than a random one"].not_judged == (
        "there is no student in this run"
    )


def test_weights_that_are_not_installed_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo_weights.efficientnet_lite, "weights_file", lambda: None)
    networks = REFERENCE_NETWORKS.model_copy(update={"weights": tmp_path})
    config = RATES.presets["reference"].model_copy(update={"networks": networks})
    with pytest.raises(ValueError, match=r"no weights of timm:tf_eff.* the extra 'reference'"):
        run_experiment(RATES, config, tmp_path)
