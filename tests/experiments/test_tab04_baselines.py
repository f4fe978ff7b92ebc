"""The comparison of baselines: budgets, methods of one's own, and the table from the records."""

from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from support import trees
from support.experiment_runs import run_experiment
from torch import nn

from contam.data import pacs
from contam.data.images import FolderDomain
from contam.experiments import named
from contam.experiments.tab04_baselines.evaluation import evaluate
from contam.experiments.tab04_baselines.experiment import SMOKE, cells_of
from contam.experiments.tab04_baselines.methods import METHODS, PAPER, find_method
from contam.experiments.tab04_baselines.problems import BaselineNetworks, read_problem
from contam.experiments.tab04_baselines.results import Config, comparison, read_results
from contam.experiments.tab04_baselines.trainings import settings_of
from contam.training.algorithms import ALGORITHMS, AlgorithmSettings

TINY = SMOKE.networks
EXPERIMENT = named("tab04_baselines")


def test_all_baselines_of_the_paper_are_methods():
    assert set(PAPER) <= set(ALGORITHMS) <= set(METHODS)


def test_the_embedded_benchmark_is_split_by_family_and_its_tests_are_not_trained_on():
    problem = read_problem("shapes", TINY, trial=1)
    assert [split.inner.name for split in problem.train] == [
        "gradient",
        "clouds",
        "stripes",
        "photo",
    ]
    assert [len(split.inner) for split in problem.tests] == [16] * 5
    shift = problem.shift("clouds")
    assert [domain.name for domain in shift.train] == ["gradient", "stripes", "photo"]
    for plain, masked in zip(problem.train, problem.masked, strict=True):
        assert torch.equal(plain.inner.data.x, masked.data.x[:, :3])
    again, other = (read_problem("shapes", TINY, trial=k).train[0].inner.data for k in (1, 2))
    assert torch.equal(again.x, problem.train[0].inner.data.x) and not torch.equal(again.x, other.x)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("domainnet", "training domain 'clipart' has no example of class"),
        ("camelyon17", "training domain 'training hospitals 0' has no example of class 'tumor'"),
        ("iwildcam", "at least 2 training domains, got 1"),
    ],
)
def test_small_folders_of_published_layouts_lack_classes_or_domains(tmp_path, kind, line):
    root = getattr(trees, kind)(tmp_path)
    with pytest.raises(ValueError, match=line):
        read_problem(kind, TINY.model_copy(update={"folder": root, "side": 8}), trial=0)


def test_a_published_layout_runs_to_the_table(tmp_path):
    names = [f"{domain}/{name}" for domain in pacs.DOMAINS for name in pacs.CLASSES]
    trees.tree(tmp_path / "PACS", names, images=3, suffix=".jpg")
    networks = TINY.model_copy(update={"folder": tmp_path, "side": 32})
    config = SMOKE.model_copy(
        update={"networks": networks, "data": ("pacs",), "trials": 1, "leave_one_out": True}
        | {"methods": ("ERM", "background negatives", "teacher"), "selection": "leave-one-out"}
    )  # fmt: skip
    results = read_results(run_experiment(EXPERIMENT, config, tmp_path))
    assert results.networks.method.tolist() == ["ERM"]
    assert results.accuracies.left_out.nunique() == 4  # nothing, and each of three styles
    reasons = results.left_out.set_index("method").reason
    assert "needs masks" in reasons["background negatives"]
    assert "no pre-training images" in reasons["teacher"]


def own_folder(
    root: Path, domains: tuple[str, ...] = ("art", "photo", "sketch")
) -> BaselineNetworks:
    trees.tree(root, [f"{d}/{c}" for d in domains for c in ("cat", "dog")], images=5)
    return TINY.model_copy(update={"folder": root, "side": 32})


def test_images_of_training_domains_are_augmented_and_held_out_ones_are_not(tmp_path):
    problem = read_problem("folder", own_folder(tmp_path), trial=0)
    assert [split.inner.name for split in problem.train] == ["art", "photo"]
    assert all(split.inner.augments and not split.held_out.augments for split in problem.train)
    assert isinstance(problem.tests[0].inner, FolderDomain) and not problem.tests[0].inner.augments


@pytest.mark.parametrize(
    ("domains", "ood", "line"),
    [
        (("art", "sketch"), "sketch", "at least 2 training domains, got 1"),
        (("art", "photo"), "sketc", "no test domain 'sketc'"),
    ],
)
def test_missing_domains_are_named(tmp_path, domains, ood, line):
    networks = own_folder(tmp_path, domains).model_copy(update={"ood": ood})
    with pytest.raises(ValueError, match=line):
        read_problem("folder", networks, trial=0)


def test_the_budget_sets_step_sizes_and_scales_numbers_of_steps():
    problem = read_problem("shapes", TINY, trial=0)
    budget = TINY.model_copy(update={"steps": 500, "step_size": 5e-3, "batch_size": 7})
    for name, algorithm in ALGORITHMS.items():
        default = algorithm.Settings()
        found = settings_of(algorithm, problem, budget, trial=0, draw=0)
        assert found.step_size == pytest.approx(5e-3) and found.batch_size == 7
        for field in type(default).model_fields:
            value, now = getattr(default, field), getattr(found, field)
            if field.endswith("anneal_steps") or field == "average_from":
                assert now == value // 10, (name, field)
            elif field == "context_width":
                assert now == budget.width // 2
            elif "step_size" not in field and field != "batch_size":
                assert now == value, (name, field)


def test_without_a_budget_of_ours_the_settings_are_those_of_the_search():
    problem = read_problem("shapes", TINY, trial=0)
    for algorithm in ALGORITHMS.values():
        found = settings_of(algorithm, problem, BaselineNetworks(), trial=1, draw=2)
        assert found == algorithm.Settings.draw(trial=1, draw=2)


def test_a_network_that_ignores_the_background_has_no_background_effect():
    """The logits depend on the label alone, which the network reads from the noiseless object."""
    problem = read_problem("shapes", TINY, trial=0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    nn.init.zeros_(network[1].weight)  # type: ignore[arg-type]
    rows = evaluate(network, problem)
    (contamination,) = (row for row in rows if row["what"] == "contamination")
    assert contamination["interchange"] == 0
    roles = pandas.DataFrame(rows).groupby("role").size().to_dict()
    assert roles == {"id": 4, "ood": 10, "train": 4}


def test_leaving_domains_out_adds_a_training_for_each():
    problem = read_problem("shapes", TINY, trial=0)
    config = SMOKE.model_copy(update={"draws": 2, "leave_one_out": True})
    cells = cells_of(config, [METHODS[name] for name in ("ERM", "fresh head", "teacher")], problem)
    counts = pandas.Series([cell.method.name for cell in cells]).value_counts().to_dict()
    assert counts == {"ERM": 2 * 5, "fresh head": 2, "teacher": 1}


@pytest.mark.slow
def test_the_table_has_paired_differences_to_erm(shared_runs):
    run = shared_runs.smoke(EXPERIMENT)
    results = read_results(run)
    table = comparison(results).set_index("method")
    assert set(table.index) == {"ERM", "teacher", "centering", "distillation", "fresh head"}
    difference = results.of("shapes", "centering") - results.of("shapes", "ERM")
    assert table.difference["centering"] == pytest.approx(difference.mean())
    assert table.low["centering"] <= table.difference["centering"] <= table.high["centering"]
    assert table.cost["ERM"] == 1 and table.cost["fresh head"] > 1
    assert (table.p_holm.dropna() >= table.p.dropna()).all() and pandas.isna(table.p["ERM"])
    written = run.table("comparison").set_index("method")
    assert written.ood.tolist() == pytest.approx(table.ood.tolist())


OWN = """
import torch
import torch.nn.functional as F
from contam.training.algorithms import Objective
from contam.training.algorithms.algorithm import pooled

class Mine(Objective):
    name = "Mine"
    def losses(self, batches):
        x, y, _ = pooled(batches)
        return {"risk": F.cross_entropy(self.logits(self.features(x)), y)}

class NotANumber(Mine):
    name = "NotANumber"
    def losses(self, batches):
        return {"risk": torch.nan * super().losses(batches)["risk"]}

class Faulty(Mine):
    name = "Faulty"
    def losses(self, batches):
        return {"risk": batches.risk}

class Unfinished(Objective):
    name = "Unfinished"

class Nameless(Mine):
    name = None

class Other:
    pass

def same(network, data):
    return network

number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own_methods.py").write_text(OWN, "utf-8")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("own_methods:Other", "not a subclass of"),
        ("own_methods:Unfinished", "does not define losses"),
        ("own_methods:Nameless", "has no name"),
        ("own_methods:number", "is a int"),
        ("own_methods:Missing", "can't find own_methods:Missing"),
        ("COARL", "did you mean 'CORAL'"),
        ("zzz", "choose from ERM"),
    ],
)
def test_methods_that_cannot_be_used_are_named(own, name, line):
    with pytest.raises(ValueError, match=line) as refused:
        find_method(name)
    assert "\n" not in str(refused.value)


def test_names_are_found_in_any_spelling():
    assert find_method("vrex").name == "VREx"
    assert find_method("ib_erm").name == "IB-ERM"
    assert find_method("Instance-Norm").name == "instance norm"


def small(*methods: str, codes: tuple[str, ...] = ()) -> Config:
    update = {"methods": methods, "codes": codes, "trials": 1}
    return SMOKE.model_copy(update=update)


def test_an_own_copy_of_erm_has_the_results_of_erm_and_the_same_repair_too(own, tmp_path):
    """Both draw random numbers of their own, which ERM does not use."""
    names = ("own_methods:Mine", "own_methods:same")
    codes = (find_method(names[0]).code,)
    run = run_experiment(EXPERIMENT, small(*names, codes=codes), tmp_path)
    table = comparison(read_results(run)).set_index("method")
    for name in names:
        assert table.ood[name] == table.ood["ERM"] and table.id[name] == table.id["ERM"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("NotANumber", "NotANumber: the loss 'risk' is not finite at step 1"),
        ("Faulty", "own_methods:Faulty raised AttributeError"),
    ],
)
def test_faults_of_own_methods_are_named(own, tmp_path, name, line):
    method = find_method(f"own_methods:{name}")
    with pytest.raises(ValueError, match=line):
        run_experiment(EXPERIMENT, small(method.name, codes=(method.code,)), tmp_path)


@pytest.mark.slow
def test_every_change_and_repair_is_evaluated_or_left_out_with_a_reason(tmp_path):
    names = tuple(m.name for m in METHODS.values() if m.kind in ("change", "repair"))
    config = small(*names)
    config = config.model_copy(update={"networks": TINY.model_copy(update={"steps": 1})})
    results = read_results(run_experiment(EXPERIMENT, config, tmp_path))
    assert set(results.networks.method) | set(results.left_out.method) == {"ERM", *names}
    changes = {m.name for m in METHODS.values() if m.kind == "change"}
    assert changes <= set(results.networks.method)


def test_a_draw_that_diverges_is_not_selected(tmp_path, monkeypatch):
    """Draw 1 has weights of infinity; the search goes on with draw 0."""
    config = SMOKE.model_copy(update={"methods": ("CORAL",), "trials": 1, "draws": 2})
    draw = ALGORITHMS["CORAL"].Settings.draw

    def diverging(**which: Any) -> AlgorithmSettings:
        return draw(**which).model_copy(
            update={"penalty_weight": float("inf")} if which["draw"] else {}
        )

    monkeypatch.setattr(ALGORITHMS["CORAL"].Settings, "draw", staticmethod(diverging))
    results = read_results(run_experiment(EXPERIMENT, config, tmp_path))
    assert results.of("shapes", "CORAL", "draw").tolist() == [0]
    assert not len(results.left_out)


def test_own_code_that_the_config_does_not_know_is_rejected(own, tmp_path):
    with pytest.raises(ValueError, match="compare it with 'contam compare"):
        run_experiment(EXPERIMENT, small("own_methods:Mine"), tmp_path)


def test_draw_0_of_the_default_budget_is_the_published_one():
    assert AlgorithmSettings().step_size == 5e-5
    config = EXPERIMENT.presets["paper"].model_dump()
    assert (config["trials"], config["draws"], config["networks"]["steps"]) == (3, 5, 20_000)
