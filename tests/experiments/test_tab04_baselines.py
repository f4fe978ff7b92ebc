"""The comparison of baselines: budgets, methods of one's own, and the table from the records."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from support import trees
from support.experiment_runs import run_experiment
from torch import Tensor, nn

from contam.batch import Batch
from contam.data import pacs
from contam.experiments import named
from contam.experiments.support.model_zoo import STORE
from contam.experiments.tab04_baselines import cells as training_cells
from contam.experiments.tab04_baselines import distillation, repairs, trainings
from contam.experiments.tab04_baselines.benchmarks import BaselineNetworks, read_benchmark
from contam.experiments.tab04_baselines.cells import TrainingCell, settings_of
from contam.experiments.tab04_baselines.claims import claims
from contam.experiments.tab04_baselines.evaluation import evaluate
from contam.experiments.tab04_baselines.experiment import SMOKE, cells_of
from contam.experiments.tab04_baselines.methods import METHODS, PAPER, find_method
from contam.experiments.tab04_baselines.results import Config, comparison, read_results
from contam.models.classifier import Classifier
from contam.run import Run
from contam.training.algorithms import ALGORITHMS, AlgorithmSettings, NotFiniteError
from contam.training.domainbed import DomainSplit

TINY = SMOKE.networks
EXPERIMENT = named("tab04_baselines")


def test_all_baselines_of_the_paper_are_methods():
    assert set(PAPER) <= set(ALGORITHMS) <= set(METHODS)


SPECIFIED = (
    *PAPER, "Fishr", "SWAD", "large dropout", "centering", "instance norm", "leaky activations",
    "background difference", "fresh head", "last-layer retraining, 8 OOD labels per class",
    "group-balanced head",
    "domain erasure", "batch-norm statistics", "centered maps", "weight interpolation",
    "prior correction", "core projection", "background swap", "background negatives",
    "plain backgrounds", "stop gradient", "pooled sampling", "teacher", "distillation",
)  # fmt: skip
"""What a comparison should have; ERM has balanced domains, which pooled sampling undoes."""


def test_every_method_that_a_comparison_should_have_is_in_the_table():
    assert [name for name in SPECIFIED if name not in METHODS] == []
    assert all(m.kind == "reference" or m.target is not None for m in METHODS.values())


def test_the_laptop_preset_has_every_method():
    laptop: Any = EXPERIMENT.presets["laptop"]
    assert laptop.methods == tuple(METHODS)


def test_balanced_domains_are_what_erm_has():
    with pytest.raises(ValueError, match=r"^ERM already has balanced domains.*'pooled sampling'"):
        find_method("balanced-domains")


def test_pooled_sampling_draws_as_many_images_from_all_domains_together(tmp_path, monkeypatch):
    """Its minibatches have more images of larger domains, and ERM's have as many of each."""
    steps: dict[str, list[Batch]] = {}

    def losses(algorithm: Any, batches: Sequence[Batch]) -> dict[str, Tensor]:
        steps.setdefault(algorithm.name, []).extend(batches)
        return {"risk": algorithm.network(batches[0].x).sum() * 0}

    monkeypatch.setattr(trainings.ChangedERM, "losses", losses)
    benchmark = read_benchmark("shapes", TINY, trial=0)
    small = benchmark.train[0].inner
    uneven = DomainSplit(small.pick(torch.arange(4)), benchmark.train[0].held_out)
    benchmark = replace(benchmark, train=(uneven, *benchmark.train[1:]))
    networks = TINY.model_copy(update={"steps": 8, "report_every": 8})
    cell = TrainingCell(METHODS["pooled sampling"], 0)
    with Run.start(tmp_path, "store", networks) as store:
        assert list(trainings.train_cell(cell, benchmark, networks, store, trial=0))
        (batches,) = steps.values()
        assert [len(batch.y) for batch in batches] == [4 * 4] * 8
        domain = torch.cat([batch.domain for batch in batches])
        assert 0 < int((domain == small.origin[0]).sum()) <= 2 * 4  # of two epochs of 124 images
        few = networks.model_copy(update={"batch_size": 50})
        cell = TrainingCell(METHODS["pooled sampling"], 1)
        list(trainings.train_cell(cell, benchmark, few, store, trial=0))
        (row,) = store.read(cell.part)
    assert row["reason"] == "a minibatch of 200 needs more than 124 training images"


@pytest.mark.slow
def test_weight_interpolation_is_the_mean_of_the_teacher_and_its_fine_tuned_weights(tmp_path):
    config = small("weight interpolation", "pooled sampling")
    run = run_experiment(EXPERIMENT, config, tmp_path)
    results = read_results(run)
    assert set(results.networks.method) == {
        "ERM", "teacher", "fine-tuning", "weight interpolation", "pooled sampling",
    }  # fmt: skip
    (folder,) = (tmp_path / STORE).glob("baselines-*")
    store = Run.load(folder)
    teacher, tuned = (store.arrays(f"{name}/draw0") for name in ("teacher", "fine-tuning"))
    assert not torch.equal(teacher["head.weight"], tuned["head.weight"])
    network = TINY.build(10, seed=0)
    network.load_state_dict(
        {name: (value + tuned[name]) / 2 if value.is_floating_point() else tuned[name]
         for name, value in teacher.items()}
    )  # fmt: skip
    benchmark = read_benchmark("shapes", TINY, trial=0)
    evaluated = evaluate(network.eval(), benchmark, method="by hand")
    by_hand = [row for row in evaluated if row["what"] == "accuracy"]
    stored = [r for r in store.read("weight_interpolation/draw0") if r["what"] == "accuracy"]
    assert [row["accuracy"] for row in by_hand] == [row["accuracy"] for row in stored]


def test_the_embedded_benchmark_is_split_by_family_and_its_tests_are_not_trained_on():
    benchmark = read_benchmark("shapes", TINY, trial=1)
    assert [split.inner.name for split in benchmark.train] == [
        "gradient",
        "clouds",
        "stripes",
        "photo",
    ]
    assert [len(split.inner) for split in benchmark.tests] == [16] * 5
    shift = benchmark.shift("clouds")
    assert [domain.name for domain in shift.train] == ["gradient", "stripes", "photo"]
    for plain, masked in zip(benchmark.train, benchmark.masked, strict=True):
        assert torch.equal(plain.inner.data.x, masked.data.x[:, :3])
    again, other = (read_benchmark("shapes", TINY, trial=k).train[0].inner.data for k in (1, 2))
    assert torch.equal(again.x, benchmark.train[0].inner.data.x) and not torch.equal(
        again.x, other.x
    )


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
        read_benchmark(kind, TINY.model_copy(update={"folder": root, "side": 8}), trial=0)


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


def pacs_tree(root: Path) -> Path:
    for domain in pacs.DOMAINS:
        images = 1 if domain == "sketch" else 3
        trees.tree(root / "PACS" / domain, pacs.CLASSES, images=images, suffix=".jpg")
    return root


PUBLISHED = {
    "paper": trees.covered_domainnet,
    "pacs": pacs_tree,
    "camelyon17": partial(trees.camelyon17, training=3),
    "iwildcam": partial(trees.iwildcam, images=4, cameras=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_preset_as_published_takes_a_step_on_the_true_layout(preset, tmp_path):
    """CLIP's ResNet-50 at 224 px; reduced are methods, steps, trials, draws and images."""
    published: Any = EXPERIMENT.presets[preset]
    assert (published.networks.network, published.networks.side) == ("open_clip:RN50", 224)
    assert (published.networks.steps, published.trials, published.draws) == (20_000, 3, 5)
    small = {"folder": PUBLISHED[preset](tmp_path / "data"), "steps": 1, "batch_size": 2}
    config = published.model_copy(
        update={"networks": published.networks.model_copy(update=small), "methods": ("ERM",)}
        | {"trials": 1, "draws": 1}
    )
    run = run_experiment(EXPERIMENT, config, tmp_path)
    (row,) = read_results(run).networks.to_dict("records")
    assert (row["data"], row["method"], row["step"]) == (*published.data, "ERM", 1)
    assert 0 <= row["id"] <= 1 and 0 <= row["ood"] <= 1
    assert EXPERIMENT.draw(run) and EXPERIMENT.claims(run)


def own_folder(
    root: Path, domains: tuple[str, ...] = ("art", "photo", "sketch")
) -> BaselineNetworks:
    trees.tree(root, [f"{d}/{c}" for d in domains for c in ("cat", "dog")], images=5)
    return TINY.model_copy(update={"folder": root, "side": 32})


def test_images_of_training_domains_are_augmented_and_held_out_ones_are_not(tmp_path):
    benchmark = read_benchmark("folder", own_folder(tmp_path), trial=0)
    assert [split.inner.name for split in benchmark.train] == ["art", "photo"]
    assert all(split.inner.augments and not split.held_out.augments for split in benchmark.train)
    assert not benchmark.tests[0].inner.augments


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
        read_benchmark("folder", networks, trial=0)


def test_the_budget_sets_step_sizes_and_scales_numbers_of_steps():
    benchmark = read_benchmark("shapes", TINY, trial=0)
    budget = TINY.model_copy(update={"steps": 500, "step_size": 5e-3, "batch_size": 7})
    for name, algorithm in ALGORITHMS.items():
        default = algorithm.Settings()
        settings = settings_of(algorithm, benchmark, budget, trial=0, draw=0)
        assert settings.step_size == pytest.approx(5e-3) and settings.batch_size == 7
        for field in type(default).model_fields:
            value, now = getattr(default, field), getattr(settings, field)
            if field.endswith("anneal_steps") or field == "average_from":
                assert now == value // 10, (name, field)
            elif field == "context_width":
                assert now == budget.width // 2
            elif "step_size" not in field and field != "batch_size":
                assert now == value, (name, field)


def test_without_a_budget_of_ours_the_settings_are_those_of_the_search():
    benchmark = read_benchmark("shapes", TINY, trial=0)
    for algorithm in ALGORITHMS.values():
        settings = settings_of(algorithm, benchmark, BaselineNetworks(), trial=1, draw=2)
        assert settings == algorithm.Settings.draw(trial=1, draw=2)


def test_a_network_that_ignores_the_background_has_no_background_effect():
    """The logits depend on the label alone, which the network reads from the noiseless object."""
    benchmark = read_benchmark("shapes", TINY, trial=0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    nn.init.zeros_(network[1].weight)  # type: ignore[arg-type]
    rows = evaluate(network, benchmark, method="linear")
    (contamination,) = (row for row in rows if row["what"] == "contamination")
    assert contamination["interchange"] == 0
    roles = pandas.DataFrame(rows).groupby("role").size().to_dict()
    assert roles == {"id": 4, "ood": 10, "train": 4}


def test_leaving_domains_out_adds_a_training_for_each():
    benchmark = read_benchmark("shapes", TINY, trial=0)
    config = SMOKE.model_copy(update={"draws": 2, "leave_one_out": True})
    cells = cells_of(
        config, [METHODS[name] for name in ("ERM", "fresh head", "teacher")], benchmark
    )
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

class Bare(Mine):
    name = "Bare"
    def losses(self, batches):
        return super().losses(batches)["risk"]

class Silent(Mine):
    name = "Silent"
    def step(self, batches):
        super().step(batches)

class Picky(Mine):
    name = "Picky"
    def losses(self, batches):
        raise ValueError("Picky needs larger minibatches")

class Unfinished(Objective):
    name = "Unfinished"

class Nameless(Mine):
    name = None

class Other:
    pass

def same(network, data):
    return network

def undefined(network, data):
    torch.nn.init.constant_(network.head.weight, torch.nan)
    return network

def headless(network, data):
    return network.encoder

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
        ("Picky", "Picky needs larger minibatches"),
        ("Bare", "own_methods:Bare .* returned tensor.*; expected a dict of losses"),
        ("Silent", "own_methods:Silent .* returned None; expected a dict of losses"),
        ("undefined", "own_methods:undefined: the network's logits on 'gradient' are NaN"),
        ("headless", r"own_methods:headless: the network returns \(\d+,\) .* of 10 classes"),
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


def test_algorithms_that_do_not_suit_the_network_are_left_out(tmp_path, monkeypatch):
    """A linear network has no convolution for ARM and no feature maps for SagNet."""

    def linear(_networks: BaselineNetworks, classes: int, *, seed: int) -> Classifier:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return Classifier(nn.Sequential(nn.AvgPool2d(8), nn.Flatten()), classes, 3 * 4 * 4)

    monkeypatch.setattr(BaselineNetworks, "build", linear)
    results = read_results(run_experiment(EXPERIMENT, small("ARM", "SagNet", "CORAL"), tmp_path))
    assert set(results.networks.method) == {"ERM", "CORAL"}
    arm, sagnet = results.left_out_lines()
    assert arm.startswith("ARM on shapes: ARM appends a channel")
    assert sagnet.startswith("SagNet on shapes: SagNet mixes the styles")


def test_references_and_repairs_of_trainings_that_diverged_are_left_out(tmp_path, monkeypatch):
    def diverging(*_: Any, **__: Any) -> Iterator[Any]:
        raise NotFiniteError("the loss is not finite at step 1")
        yield

    monkeypatch.setattr(distillation, "fit", diverging)
    draw = ALGORITHMS["ERM"].Settings.draw

    def drawn(**which: Any) -> AlgorithmSettings:
        return draw(**which).model_copy(update={"step_size": float("inf")} if which["draw"] else {})

    monkeypatch.setattr(AlgorithmSettings, "draw", staticmethod(drawn))
    config = small("teacher", "distillation", "fresh head").model_copy(update={"draws": 2})
    results = read_results(run_experiment(EXPERIMENT, config, tmp_path))
    assert sorted(results.left_out_lines()) == [
        "distillation on shapes: its teacher is left out: the loss is not finite at step 1",
        "teacher on shapes: the loss is not finite at step 1",
    ]
    assert results.of("shapes", "fresh head", "draw").tolist() == [0]


def cell_rows(accuracy: float, left_out: str = "") -> list[dict[str, Any]]:
    """The rows of a training whose accuracies are all the same."""
    if left_out:
        return [
            {"what": "accuracy", "step": 1, "domain": left_out, "role": "train", "split": "inner",
             "accuracy": accuracy, "n": 10}
        ]  # fmt: skip
    parts = [("train", "held out", "a"), ("train", "held out", "b"), ("ood", "inner", "c")]
    return [
        *({"what": "accuracy", "step": 1, "domain": domain, "role": role, "split": split,
           "accuracy": accuracy, "n": 10} for role, split, domain in parts),
        {"what": "contamination", "step": 1, "attenuation": 0.5},
        {"what": "cost", "seconds": 1.0},
    ]  # fmt: skip


DIVERGED = [{"what": "left out", "reason": "the loss is not finite"}]
DOES_NOT_FIT = [{"what": "left out", "reason": "it needs masks"}]


def stored_run(root: Path, config: Config, cells: dict[tuple[str, ...], Any]) -> Run:
    """A run with the rows of `cells`, by data set, method, trial and domain that is left out."""
    with Run.start(root, EXPERIMENT.name, config) as run:
        for (data, method, trial, *left_out), rows in cells.items():
            without = "".join(left_out)
            fixed = {"data": data, "method": method, "kind": "algorithm", "uses": "", "classes": 2,
                     "trial": int(trial), "draw": 0, "left_out": without}  # fmt: skip
            run.write(f"cells/{data}/{trial}/{method}/{without}x", [fixed | row for row in rows])
        run.finish()
    return Run.load(run.folder)


def test_methods_are_left_out_by_data_set_and_trial(tmp_path):
    config = SMOKE.model_copy(
        update={"data": ("shapes", "digits"), "methods": ("CORAL", "RSC"), "trials": 3}
    )
    cells: dict[tuple[str, ...], Any] = {
        (data, method, str(trial)): cell_rows(0.6 + 0.1 * trial + 0.05 * (method != "ERM"))
        for data in config.data
        for method in ("ERM", "CORAL", "RSC")
        for trial in range(3)
    }
    cells |= {("digits", "CORAL", str(trial)): DOES_NOT_FIT for trial in range(3)}
    cells |= {("shapes", "RSC", trial): DIVERGED for trial in "02"}
    run = stored_run(tmp_path, config, cells)
    results = read_results(run)
    lines = [
        "RSC on shapes, trials 0, 2 of 3: the loss is not finite",
        "CORAL on digits: it needs masks",
    ]
    assert sorted(results.left_out_lines()) == sorted(lines)
    assert sorted(EXPERIMENT.notes(run)) == sorted(f"left out: {line}" for line in lines)
    assert all(line in EXPERIMENT.draw(run)[0].caption for line in lines)
    table = comparison(results).set_index(["data", "method"])
    assert table.trials.to_dict() == {
        ("shapes", "ERM"): 3, ("shapes", "CORAL"): 3, ("shapes", "RSC"): 1,
        ("digits", "ERM"): 3, ("digits", "RSC"): 3,
    }  # fmt: skip
    assert table.ood["shapes", "RSC"] == pytest.approx(0.75)
    assert table.difference["shapes", "RSC"] == pytest.approx(0.05)


def test_checkpoints_that_are_all_right_or_all_wrong_determine_no_line(tmp_path):
    """The logit of an accuracy of 0 or 1 is infinite."""
    config = SMOKE.model_copy(update={"trials": 4})
    cells: dict[tuple[str, ...], Any] = {
        ("shapes", "ERM", str(trial)): [
            row | {"accuracy": ood} if row.get("role") == "ood" else row
            for row in cell_rows(0.5 + 0.1 * trial)
        ]
        for trial, ood in enumerate((0.0, 1.0, 0.0, 0.6))
    }
    results = read_results(stored_run(tmp_path, config, cells))
    assert results.lines == {} and results.networks.robustness.isna().all()


def test_reasons_that_differ_name_their_trials(tmp_path):
    config = SMOKE.model_copy(update={"methods": ("CORAL",), "trials": 2})
    cells: dict[tuple[str, ...], Any] = {
        ("shapes", "ERM", "0"): cell_rows(0.5),
        ("shapes", "ERM", "1"): cell_rows(0.5),
        ("shapes", "CORAL", "0"): DIVERGED,
        ("shapes", "CORAL", "1"): DOES_NOT_FIT,
    }
    (line,) = read_results(stored_run(tmp_path, config, cells)).left_out_lines()
    assert line == "CORAL on shapes: trial 0: the loss is not finite; trial 1: it needs masks"


def test_leave_one_out_leaves_out_methods_whose_trainings_without_a_domain_diverge(tmp_path):
    config = SMOKE.model_copy(
        update={"methods": ("CORAL", "RSC"), "trials": 2, "leave_one_out": True}
        | {"selection": "leave-one-out"}
    )
    cells: dict[tuple[str, ...], Any] = {
        ("shapes", method, trial, left_out): cell_rows(0.5, left_out)
        for method in ("ERM", "CORAL", "RSC")
        for trial in "01"
        for left_out in ("", "a", "b")
    }
    cells |= {("shapes", "CORAL", trial, "a"): DIVERGED for trial in "01"}
    cells |= {("shapes", "RSC", "1", ""): DIVERGED}
    results = read_results(stored_run(tmp_path, config, cells))
    assert sorted(results.left_out_lines()) == [
        "CORAL on shapes: the loss is not finite",
        "RSC on shapes, trial 1 of 2: the loss is not finite",
    ]
    assert comparison(results).set_index("method").trials.to_dict() == {"ERM": 2, "RSC": 1}


def test_claims_compare_the_trials_that_both_methods_have(tmp_path):
    config = SMOKE.model_copy(update={"methods": ("distillation",), "trials": 2})
    cells: dict[tuple[str, ...], Any] = {
        ("shapes", "ERM", "0"): cell_rows(0.8),
        ("shapes", "ERM", "1"): cell_rows(0.9),
        ("shapes", "distillation", "0"): cell_rows(0.9),
        ("shapes", "distillation", "1"): DIVERGED,
    }
    judged = claims(stored_run(tmp_path, config, cells))
    (claim,) = (c for c in judged if c.quantity.endswith("distillation minus ERM"))
    assert claim.observed == pytest.approx(0.1) and claim.n == 1


def test_trainings_and_repairs_measure_their_cost_with_the_same_clock(tmp_path, monkeypatch):
    """Between two readings, a second passes: a training of two steps takes 2 s, a repair 1 s."""
    ticks = count()
    for module in (training_cells, repairs):
        monkeypatch.setattr(module, "cost_clock", lambda: float(next(ticks)))
    results = read_results(run_experiment(EXPERIMENT, small("fresh head"), tmp_path))
    assert results.of("shapes", "ERM", "seconds").tolist() == [2.0]
    assert results.of("shapes", "fresh head", "seconds").tolist() == [3.0]


def test_the_cost_is_wall_time_with_a_gpu(monkeypatch):
    calls = []
    monkeypatch.setattr(training_cells.time, "perf_counter", lambda: 7.0)
    monkeypatch.setattr(training_cells.time, "process_time", lambda: 3.0)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: calls.append("synchronized"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert training_cells.cost_clock() == 3.0 and not calls
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert training_cells.cost_clock() == 7.0 and calls == ["synchronized"]


@pytest.mark.parametrize(
    ("update", "line"),
    [
        ({"leave_one_out": True, "selection": "leave-one-out"}, "without each, a training has 1;"),
        ({"selection": "leave-one-out"}, "set leave_one_out"),
    ],
)
def test_missing_domains_are_named_before_any_training(tmp_path, update, line):
    """Two training domains leave one for CORAL, of the second data set."""
    config = SMOKE.model_copy(
        update={"networks": own_folder(tmp_path / "photos"), "methods": ("CORAL",)}
        | {"data": ("shapes", "folder")} | update
    )  # fmt: skip
    with pytest.raises(ValueError, match=line):
        run_experiment(EXPERIMENT, config, tmp_path / "runs")
    assert not list((tmp_path / "runs").rglob("*.jsonl"))


def test_own_code_that_the_config_does_not_know_is_rejected(own, tmp_path):
    with pytest.raises(ValueError, match="compare it with 'contam compare"):
        run_experiment(EXPERIMENT, small("own_methods:Mine"), tmp_path)


def test_draw_0_of_the_default_budget_is_the_published_one():
    assert AlgorithmSettings().step_size == 5e-5
    config = EXPERIMENT.presets["paper"].model_dump()
    assert (config["trials"], config["draws"], config["networks"]["steps"]) == (3, 5, 20_000)
