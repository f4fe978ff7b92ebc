"""Figure 1 from published rows, runs and tables of standard models, without any training."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas
import pytest

from contam.experiments.fig01_distillation.claims import ROBUSTNESS
from contam.experiments.fig01_distillation.config import Config
from contam.experiments.fig01_distillation.experiment import EXPERIMENT
from contam.experiments.support.networks import ERM, Networks
from contam.experiments.tab04_baselines.experiment import EXPERIMENT as BASELINES
from contam.measures.published import figure_1
from contam.run import Run

STANDARD = "model,id,ood\na,50 (1.0),40\nb,70,55\nc,90,80\n"


def scores(network: str, own: int, other: int) -> list[dict]:
    return [
        {"what": "score", "network": network, "seed": 0, "role": role, "test": test}
        | {"score": correct / 100, "correct": correct, "count": 100}
        for role, test, correct in (("id", "ID", own), ("ood", "OOD", other))
    ]


def written(
    config: Config, root: Path, monkeypatch, rows: list[dict], pairs: dict[str, list] | None = None
) -> Run:
    """A finished run with given scores; everything before the training is computed."""

    def stop(*_):
        raise InterruptedError

    zoo = "contam.experiments.support.model_zoo.ModelZoo"
    monkeypatch.setattr(f"{zoo}.train", stop)
    monkeypatch.setattr(f"{zoo}.missing_files", lambda *_: [])
    with Run.start(root, EXPERIMENT.name, config) as run:
        with pytest.raises(InterruptedError):
            list(EXPERIMENT.compute(config, run))
        run.write("seed0", rows or scores("teacher", 50, 40) + scores("student", 50, 30))
        for name, rows_of_pair in (pairs or {}).items():
            run.write(f"pair/{name}/seed0", rows_of_pair)
        run.finish()
    return Run.load(run.folder)


def config(data, *, distill=True, **fields) -> Config:
    networks = Networks(data=data, teacher="open_clip:RN50/openai", standard=None)
    return Config(networks=networks, distill=distill, **fields)


def series(panel, kind: str) -> list[dict]:
    return [row for row in panel.chart["data"]["values"] if row["series"] == kind]


@pytest.mark.slow
def test_pairs_without_their_files_are_reported_in_one_line(tmp_path):
    folders = {"folder": tmp_path / "data", "weights": tmp_path / "weights"}
    everything = ("imagenet", "iwildcam", "camelyon17", "domainnet")
    for preset, data in (("five_pairs", ("imagenet",)), ("figure_1", everything)):
        config = Config.model_validate(EXPERIMENT.presets[preset])
        config = config.model_copy(update={"networks": config.networks.model_copy(update=folders)})
        with (
            Run.start(tmp_path / "runs", EXPERIMENT.name, config) as run,
            pytest.raises(ValueError, match="no weights of") as error,
        ):
            list(EXPERIMENT.compute(config, run))
        message = str(error.value)
        assert "\n" not in message
        for name in ("RN50", "RN101", "ViT-B-16", "RN50x4", "RN50x16"):
            assert message.count(f"no weights of open_clip:{name}/openai") == 1
        assert all(message.count(f"not a complete {kind}") == 1 for kind in data)


def test_pairs_of_other_presets_stand_in_the_same_figure(tmp_path, monkeypatch):
    settings = config("iwildcam", pairs=("vit", "domainnet_rn101"))
    run = written(settings, tmp_path, monkeypatch, [], pairs={
        "vit": scores("teacher", 80, 70) + scores("student", 79, 60),
        "domainnet_rn101": scores("teacher", 90, 85),
    })  # fmt: skip
    imagenet, _, _, domainnet = EXPERIMENT.draw(run)[0].panels
    (student,) = series(imagenet, "student, trained here")
    assert "ViT-B-16" in student["name"] and student["pair"] == "open_clip:ViT-B-16/openai, 0"
    assert len(series(domainnet, "teacher, trained here")) == 1
    later = written(config("camelyon17", distill=False, also=(run.folder,)), tmp_path, monkeypatch,
                    scores("teacher", 95, 90))  # fmt: skip
    assert len(series(EXPERIMENT.draw(later)[0].panels[0], "student, trained here")) == 1


def test_an_unknown_pair_is_an_error(tmp_path):
    settings = config("imagenet", pairs=("rn50",))
    with (
        Run.start(tmp_path, EXPERIMENT.name, settings) as run,
        pytest.raises(ValueError, match="no pair 'rn50'; choose from paper, rn101"),
    ):
        list(EXPERIMENT.compute(settings, run))


def test_one_figure_has_every_published_network_and_those_of_several_runs(tmp_path, monkeypatch):
    table = tmp_path / "standard.csv"
    table.write_text(STANDARD)
    first = written(
        config("camelyon17", distill=False, standard_models=table),
        tmp_path,
        monkeypatch,
        scores("teacher", 95, 90),
    )
    distance = {"what": "distance", "seed": 0, "role": "id", "test": "ID", "distance": 0.1}
    rows = scores("teacher", 90, 85) + scores("student", 89, 70) + [distance]
    second = written(config("domainnet", also=(first.folder,)), tmp_path, monkeypatch, rows)
    figure = EXPERIMENT.draw(second)[0]
    assert figure.source == "Fig. 1"
    assert {row.name for row in figure_1()} <= {row["model"] for row in figure.rows}
    imagenet, iwildcam, camelyon17, domainnet = figure.panels
    assert len(series(imagenet, "teacher, published")) == 5
    assert len(series(imagenet, "standard model")) > 50
    assert len(series(domainnet, "teacher, published")) == 3
    (student,) = series(domainnet, "student, trained here")
    (teacher,) = series(domainnet, "teacher, trained here")
    assert student["pair"] == teacher["pair"]
    assert len(series(camelyon17, "teacher, trained here")) == 1
    assert len(series(camelyon17, "standard model")) == 3
    assert "fit of standard models" in str(camelyon17.chart)
    assert "fit of standard models" not in str(iwildcam.chart)


def test_a_table_of_standard_models_gives_effective_robustness(tmp_path, monkeypatch):
    table = tmp_path / "standard.csv"
    table.write_text(STANDARD)
    rows = scores("teacher", 70, 60)
    run = written(
        config("camelyon17", distill=False, standard_models=table), tmp_path, monkeypatch, rows
    )
    (point,) = EXPERIMENT.draw(run)[2].rows
    assert point["robustness_low"] < point["robustness"] < point["robustness_high"]
    assert 0 < point["robustness"] < 6
    assert all("tudent" not in claim.quantity for claim in EXPERIMENT.claims(run)[4:])
    assert "student" not in EXPERIMENT.summary(run)


def comparison(root: Path, rows: list[dict]) -> Run:
    """A finished run of the comparison of baselines with this table."""
    with Run.start(root, BASELINES.name, BASELINES.presets["smoke"]) as run:
        run.write("comparison", rows)
        run.finish()
    return Run.load(run.folder)


def method(name: str, kind: str, data: str, own: float, other: float) -> dict:
    return {"data": data, "method": name, "kind": kind, "id": own, "ood": other, "trials": 3}


def test_baselines_of_a_comparison_stand_in_the_figure(tmp_path, monkeypatch):
    rows = [
        method("ERM", "algorithm", "domainnet", 0.7, 0.5),
        method("CORAL", "algorithm", "domainnet", 0.72, 0.52),
        method("centering", "change", "domainnet", 0.7, 0.6),
        method("fresh head", "repair", "domainnet", 0.7, 0.5),
        method("teacher", "reference", "shapes", 0.9, 0.8),
        method("distillation", "reference", "shapes", 0.9, 0.6),
    ]
    other = comparison(tmp_path, rows)
    run = written(
        config("camelyon17", distill=False, also=(other.folder,)), tmp_path, monkeypatch,
        scores("teacher", 95, 90),
    )  # fmt: skip
    figure = EXPERIMENT.draw(run)[0]
    *_, domainnet, shapes = figure.panels
    (coral,) = series(domainnet, "baseline, trained here")
    assert coral["name"].startswith("CORAL") and coral["y_says"] == "52.0%"
    assert len(series(domainnet, "ERM, trained here")) == 1
    drawn = str(domainnet.chart)
    assert "centering" not in drawn and "fresh head" not in drawn
    (teacher,), (student,) = (
        series(shapes, f"{kind}, trained here") for kind in ("teacher", "student")
    )
    assert teacher["pair"] == student["pair"] and "domains" in shapes.title


@pytest.mark.parametrize(
    ("text", "message"),
    [("model,id\na,0.5\n", "no column 'ood'"), ("id,ood\n0.5,0.4\n", "two different ID")],
)
def test_a_bad_table_is_rejected_before_any_training(text, message, tmp_path):
    table = tmp_path / "standard.csv"
    table.write_text(text)
    settings = config("camelyon17", standard_models=table)
    with (
        Run.start(tmp_path, EXPERIMENT.name, settings) as run,
        pytest.raises(ValueError, match=message),
    ):
        next(iter(EXPERIMENT.compute(settings, run)))


def test_only_finished_runs_of_the_experiment_are_added(tmp_path):
    with Run.start(tmp_path, "another", Config()) as other:
        other.finish()
    settings = config("camelyon17", also=(other.folder,))
    with (
        Run.start(tmp_path, EXPERIMENT.name, settings) as run,
        pytest.raises(ValueError, match="no finished run of fig01_distillation"),
    ):
        next(iter(EXPERIMENT.compute(settings, run)))


def test_every_row_of_tables_1_to_4_has_a_preset():
    """ImageNet RN50 is the ResNet-50 of torchvision, fine-tuned."""
    pairs = {
        (c.networks.data, c.networks.teacher.partition(":")[2].partition("/")[0], c.distill)
        for name, c in EXPERIMENT.presets.items()
        if isinstance(c, Config) and name not in ("laptop", "demo", "smoke")
    }
    wanted = {
        (row.data, architecture, row.pair is not None)
        for row in figure_1()
        if row.kind == "teacher"
        for architecture in [row.name.split("-", 1)[-1].replace("/", "-")]
    }
    assert {(d, "ImageNet RN50" if a == "resnet50" else a, s) for d, a, s in pairs} == wanted


@pytest.mark.parametrize(
    ("gains", "holds"),
    [((5.0, 6.0, 7.0), True), ((-5.0, -6.0, -7.0), False), ((6.0, 1.2, 13.7), None)],
)
def test_a_difference_between_networks_is_judged_where_the_seeds_decide_it(gains, holds):
    """Of the last seeds, the signs agree with one processor and not with another."""
    rows = [
        {"network": name, "seed": seed, "robustness": value}
        for seed, gain in enumerate(gains)
        for name, value in (("student", 3.0 + gain), ("ERM", 3.0))
    ]
    statement = replace(ROBUSTNESS[ERM], given=None)
    claim = statement.judge(SimpleNamespace(points=pandas.DataFrame(rows)))
    assert claim.holds is holds
    assert (claim.not_judged is None) == (holds is not None)
