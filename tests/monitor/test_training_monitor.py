"""A watch measures what the measures measure, changes nothing, and never ends a training."""

import io
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from support.noise import noise
from support.trainers import LabeledPixels, train_with_lightning, train_with_transformers
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import contam
from contam import report
from contam.batch import Batch, Domain, Shift
from contam.measures.accuracy import accuracy
from contam.measures.activation import activation_asymmetry
from contam.measures.attenuation import ABOVE_ONE
from contam.measures.class_profiles import class_profiles
from contam.measures.depth import Rule, depths, draw_support
from contam.measures.layerwise import layerwise, predictions
from contam.measures.selectivity import selectivity
from contam.measures.usable_information import usable_information
from contam.models.logits_adapter import LogitsAdapter
from contam.monitor import hugging_face, lightning, monitored, tensorboard, weights_and_biases
from contam.monitor.callbacks import MonitorListener
from contam.monitor.page import WATCHED, alarm, rows_of
from contam.monitor.sinks import terminal
from contam.monitor.snapshot import grid_or_tokens
from contam.monitor.training_monitor import TrainingMonitor, watch
from contam.run import Run
from contam.training.supervised import fit

CLASSES = 3
LAYERS = ("1", "4")


def domain(name: str = "made", count: int = 90, domains: int = 1, seed: int = 0) -> Domain:
    """Pictures with a column for their class, the brighter the higher its number."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % CLASSES
    x = torch.rand(count, 1, 6, 6, generator=generator)
    x[torch.arange(count), 0, :, 2 * y] += 1 + 0.5 * y[:, None]
    return Domain(name, Batch(x, y, torch.arange(count) // CLASSES % domains))


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3), nn.ReLU(),
            nn.Flatten(), nn.Dropout(0.5), nn.Linear(24, CLASSES),
        )  # fmt: skip


def optimize(model: nn.Module, steps: int, step=lambda: None) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    data = domain().data
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(data.x), data.y).backward()
        optimizer.step()
        step()


def quiet(model: nn.Module, data=None, **settings) -> TrainingMonitor:
    return watch(model, domain() if data is None else data, show=False, **settings)


def test_snapshot_numbers_agree_with_the_measures():
    model, data, queries = network(), domain(), domain("queries", seed=1)
    optimize(model, 30)
    watched = quiet(model, data, queries=queries, per_class=20, k=7, layers=LAYERS)
    snapshot = watched.snapshots[0]
    support, asked = watched.examples.support, watched.examples.queries
    probed = list(layerwise(model, support, asked, list(LAYERS), reduce=grid_or_tokens))
    depth = depths(
        probed, draw_support(support.y, 20), predictions(model, asked), rule=Rule(k=7)
    )  # fmt: skip
    bits = usable_information(probed, support.y, asked.y, k=7)
    profiles = class_profiles(model, asked, list(LAYERS), classes=CLASSES)
    assert snapshot.network["accuracy"] == pytest.approx(accuracy(model, asked).share)
    assert snapshot.network["decided_early"] == pytest.approx(depth.decided_by(1).value)
    assert snapshot.network["undefined"] == pytest.approx(depth.undefined().value)
    assert list(snapshot.layers) == ["input", *LAYERS, "softmax"]
    for place, (name, numbers) in enumerate(snapshot.layers.items()):
        assert numbers["decided"] == pytest.approx(depth.decided_by(place).value)
        assert numbers["information"] == pytest.approx(bits.of(name).value)
    for name in LAYERS:
        profile, numbers = profiles.layers[name], snapshot.layers[name]
        assert numbers["selectivity"] == pytest.approx(float(selectivity(profile.means).mean()))
        assert numbers["asymmetry"] == pytest.approx(
            float(activation_asymmetry(profile.rates).mean())
        )
    assert not snapshot.left_out


def test_background_gating_raises_attenuation_on_other_data_and_across_domains():
    data = domain(count=300, domains=2)
    shifted = Domain("dark", data.data._replace(x=data.data.x - 2.5))
    plain = nn.Conv2d(1, 2, 1, bias=False)
    with torch.no_grad():
        plain.weight.copy_(torch.tensor([1.0, 0.5]).view(2, 1, 1, 1))
    model = nn.Sequential(plain, nn.ReLU(), nn.Flatten(), nn.Linear(72, CLASSES))
    same = quiet(model, data, others={"dark": shifted, "bright": data}).snapshots[0]
    assert same.layers["1"]["class_profile_attenuation/dark"] > 0.7
    assert same.layers["1"]["class_profile_attenuation/bright"] == pytest.approx(0, abs=0.1)
    lit = data.data.x - 2.5 * (data.data.domain == 1)[:, None, None, None]
    mixed = Domain("mixed", data.data._replace(x=lit))
    assert quiet(model, mixed).snapshots[0].layers["1"]["class_profile_attenuation/domains"] > 0.3
    assert (
        abs(quiet(model, data).snapshots[0].layers["1"]["class_profile_attenuation/domains"]) < 0.25
    )


def test_monitoring_changes_neither_weights_nor_random_states():
    def trained(watched: bool) -> tuple:
        model = network()
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)
        one = quiet(model, every=2) if watched else None
        optimize(model, 7, one.step if one else lambda: None)
        if one:
            assert sorted(one.snapshots) == [0, 2, 4, 6]
        return model.state_dict(), torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002

    with torch.random.fork_rng():
        plain, looked = trained(False), trained(True)
    for name, value in plain[0].items():
        assert torch.equal(value, looked[0][name]), name
    assert torch.equal(plain[1], looked[1]) and plain[2:] == looked[2:]


class Fragile(nn.Module):
    """Counts its passes in a buffer, and fails in evaluation mode when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.fails = network(), False
        self.passes: torch.Tensor
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += 1
        if self.fails and not self.training:
            raise RuntimeError("this pass\nfails")
        return self.inner(x)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_restored_even_after_errors(fails):
    model = Fragile()
    model.train()
    model.inner[2].eval()
    modes = [module.training for module in model.modules()]
    watched = quiet(model)
    model.fails = fails
    model(domain().data.x).sum().backward()
    gradients = [g.clone() for p in model.parameters() if (g := p.grad) is not None]
    before = model.passes.clone()
    snapshot = watched.snapshot()
    assert bool(snapshot.left_out) == fails
    assert not fails or "RuntimeError: this pass fails" in snapshot.left_out[0]
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model.passes, before)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is not None and parameter.requires_grad
        assert torch.equal(parameter.grad, gradient)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_autocast_does_not_affect_snapshots_or_training():
    model = network()
    watched = quiet(model)
    plain = watched.snapshots[0].scalars()
    with torch.autocast("cpu", torch.bfloat16):
        assert watched.snapshot().scalars() == plain
        model(domain().data.x).float().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_snapshots_are_taken_at_the_start_at_the_interval_and_at_the_end():
    model = network()
    with quiet(model, every=4) as watched:
        for _ in range(10):
            watched.step()
    assert sorted(watched.snapshots) == [0, 4, 8, 10]
    with pytest.raises(KeyError), quiet(model, every=4) as watched:
        watched.at(3)
        raise KeyError
    assert sorted(watched.snapshots) == [0]
    jumping = quiet(model, every=4, start=6)
    for step in (7, 13, 14, 15):
        jumping.at(step)
    assert sorted(jumping.snapshots) == [6, 13]


def test_a_monitor_wraps_a_training_generator():
    model, data = network(), domain()
    shift = Shift("made", ("a", "b", "c"), (data,), domain("test", seed=2), ())
    stages = fit(
        model, shift, epochs=3, batch_size=30, step_size=1e-2, weight_decay=0.0, seed=0,
        report_every=1,
    )  # fmt: skip
    reported: list[int] = []
    given = monitored(
        stages, model, shift, every=3, show=False, sinks=[lambda s, _: reported.append(s)]
    )
    assert [stage.step for stage in given] == list(range(1, 10))
    assert reported == [0, 3, 6, 9]


BATCHES = [(domain().data.x[i : i + 30], domain().data.y[i : i + 30]) for i in (0, 30, 60)]
KINDS = {
    "pairs": BATCHES,
    "with more": [(x, y, torch.zeros(len(y), 2)) for x, y in BATCHES],
    "dicts": [{"pixel_values": x, "labels": y} for x, y in BATCHES],
    "columns of labels": [(x, y[:, None]) for x, y in BATCHES],
    "tensors": domain().data[:2],
    "a data set": TensorDataset(*domain().data[:2]),
    "a loader": DataLoader(TensorDataset(*domain().data[:2]), 32),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_of_data_gives_the_same_snapshot(kind):
    plain = quiet(network(), per_class=10)
    assert (
        quiet(network(), KINDS[kind], per_class=10).snapshots[0].network
        == plain.snapshots[0].network
    )


def test_reading_a_shuffling_loader_does_not_change_its_order():
    def order(looked: bool) -> list:
        generator = torch.Generator().manual_seed(3)
        data = TensorDataset(*domain().data[:2])
        loader = DataLoader(data, 30, shuffle=True, generator=generator)
        if looked:
            quiet(network(), loader)
        return [y.tolist() for _, y in loader]

    assert order(True) == order(False)


def test_data_that_use_the_global_random_state_preserve_it():
    class Drawing(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 90

        def __getitem__(self, i: int) -> tuple:
            noise = random.random() + np.random.rand() + torch.rand(())  # noqa: NPY002
            return domain().data.x[i] + noise, domain().y[i]

    states = [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()]  # noqa: NPY002
    quiet(network(), Drawing())
    after = [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()]  # noqa: NPY002
    assert after == states


class Record(nn.Module):
    """Answers as Hugging Face's models do."""

    def __init__(self, wrap) -> None:
        super().__init__()
        self.inner, self.wrap = network(), wrap

    def forward(self, pixel_values):
        return self.wrap(self.inner(pixel_values))


@pytest.mark.parametrize(
    "wrap", [lambda a: {"logits": a}, lambda a: SimpleNamespace(logits=a), lambda a: (a, None)]
)
def test_networks_can_return_output_records(wrap):
    snapshot = quiet(Record(wrap)).snapshots[0]
    assert snapshot.network == quiet(network()).snapshots[0].network
    assert list(snapshot.layers) == ["input", "inner.1", "inner.4", "softmax"]


def test_wrappers_of_parallel_training_are_removed():
    model = nn.DataParallel(network())
    assert list(quiet(model).snapshots[0].layers) == ["input", *LAYERS, "softmax"]


def test_half_precision_and_a_network_without_activations():
    assert "information" in quiet(network().bfloat16()).snapshots[0].layers["4"]
    snapshot = quiet(nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES))).snapshots[0]
    assert list(snapshot.layers) == ["input", "softmax"]
    assert any("no activation" in line for line in snapshot.left_out)


class ReluOfWeights(nn.Module):
    """Its activation gives no row for each example."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.relu = nn.Linear(36, CLASSES), nn.ReLU()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.head(x.flatten(1)) + self.relu(self.scale).sum()


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (ReluOfWeights(), "every activation is left out"),
        (nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES)), "the network has no activation"),
    ],
)
def test_a_network_without_observable_layers_is_no_failure(model, why):
    watched = quiet(model, on_error="raise")
    assert any(why in line for line in watched.snapshots[0].left_out)
    assert "accuracy" in watched.snapshots[0].network


def test_a_subset_of_many_classes_is_monitored():
    y = torch.arange(300) % 30
    data = Domain("many", Batch(torch.randn(300, 8), y, torch.zeros_like(y)))
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 30))
    watched = quiet(model, data)
    assert len(watched.config.classes) == 20
    assert "10 of 30 classes" in watched.snapshots[0].left_out[0]
    x = data.data.x[:5]
    some = LogitsAdapter(model, classes=watched.config.classes)(x)
    assert torch.equal(some, model(x)[:, list(watched.config.classes)])


@pytest.mark.parametrize(
    ("data", "settings", "says"),
    [
        (domain().data._replace(y=domain().y + 1), {}, "labels 1..3 .* with 3 logits"),
        (domain().data._replace(y=domain().y - 1), {}, "labels -1..1; expected 0 or more"),
        (domain(count=3), {}, "expected two classes .* of 3 examples"),
        (domain(count=0), {}, "examples"),
        (None, {"layers": ["1", "nope"]}, "no layer 'nope'"),
        (None, {"layers": "1"}, r"give \['1'\]"),
        (None, {"layers": []}, "a list of at least one name"),
        (None, {"layers": 3}, "a list of at least one name, or 'auto'; got '3'"),
        (None, {"every": 0}, "every is a whole number of at least 1; got '0'"),
        (None, {"every": 1.5}, "every is a whole number"),
        (None, {"k": True}, "k is a whole number"),
        (None, {"per_class": 1}, "per_class is a whole number of at least 2"),
        (None, {"seed": "a"}, "seed is a whole number of at least 0; got 'a'"),
        (None, {"on_error": "shout"}, "'note' or 'raise'"),
        (iter(BATCHES), {}, "is an iterator"),
        ([{"pixels": 1}], {}, r"no input among \['pixels'\]"),
        ([torch.zeros(3)], {}, r"expected \(x, y\)"),
        ([(torch.zeros(3, 2), torch.rand(3))], {}, "expected whole numbers"),
        ([("names", torch.zeros(3))], {}, "expected a tensor of real numbers"),
        ([], {}, "no examples"),
        ([7], {}, "a batch is"),
    ],
)
def test_invalid_arguments_are_rejected_before_training_in_one_line(data, settings, says):
    with pytest.raises(ValueError, match=says) as caught:
        quiet(network(), data, **settings)
    assert "\n" not in str(caught.value)


def test_a_network_without_logits_is_rejected():
    with pytest.raises(ValueError, match=r"expected logits \(batch, classes\)"):
        quiet(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()))


def test_layers_with_non_finite_activations_are_left_out(caplog):
    model = network()
    watched = quiet(model)
    with torch.no_grad():
        list(model.parameters())[4].fill_(torch.nan)  # the weights of the second convolution
    snapshot = watched.snapshot()
    watched.snapshot()
    assert "selectivity" in snapshot.layers["1"]
    assert "selectivity" not in snapshot.layers.get("4", {}) and "accuracy" not in snapshot.network
    assert any("not finite" in line for line in snapshot.left_out)
    assert len(caplog.records) == len({record.getMessage() for record in caplog.records}) > 0
    with pytest.raises(ValueError, match=r"step 0: .*not finite"):
        quiet(model, on_error="raise")


def test_rare_classes_and_sets_without_a_class_are_left_out():
    data = domain().data
    few = data.pick((data.y != 2) | (torch.arange(90) < 3))
    monitor = quiet(network(), few, others={"one": data.pick(data.y == 0)})
    assert monitor.config.classes == (0, 1) and not monitor.config.others
    assert any("classes 2: fewer" in line for line in monitor.snapshots[0].left_out)
    assert any("'one': no example of classes 1" in line for line in monitor.snapshots[0].left_out)


def test_a_failing_sink_ends_the_training_only_on_request(caplog):
    def full(step: int, numbers: object) -> None:
        raise OSError("disk full")

    watched = quiet(network(), sinks=[full])
    watched.step()
    assert "disk full" in caplog.text
    with pytest.raises(ValueError, match="disk full"):
        quiet(network(), sinks=[full], on_error="raise")


def test_a_named_run_resumes_and_has_a_page(tmp_path):
    model = network()
    watched = quiet(model, every=2, out=tmp_path, name="one", others={"odd": domain(seed=4)})
    folder = watched.folder
    assert folder is not None
    optimize(model, 5, watched.step)
    rows = rows_of(Run.load(folder))
    assert [row["step"] for row in rows if not row["layer"]] == [0, 2, 4]
    watched.close(snapshot=False)
    again = quiet(
        network(), every=2, out=tmp_path, name="one", others={"odd": domain(seed=4)}, start=3
    )
    again.close()
    run = Run.load(folder)
    assert [row["step"] for row in rows_of(run) if not row["layer"]] == [0, 2, 3]
    assert WATCHED.summary(run).startswith(
        "From step 0 to step 3 of training this Sequential, accuracy went"
    )
    figures = WATCHED.draw(run)
    titles = [panel.title for figure in figures for panel in figure.panels]
    assert {
        "Accuracy",
        "Decided early",
        "Usable information",
        "Class-profile attenuation: odd",
    } <= set(titles)
    for figure in figures:
        assert all(panel.description and not panel.empty for panel in figure.panels)
    page = report.page([run], {WATCHED.name: WATCHED})
    assert "<h1>Training monitor</h1>" in page and "To repeat it" not in page


class Staged(nn.Module):
    """Classifies by the first four inputs, which its first or its second layer separates."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.early = nn.ReLU(), nn.ReLU(), False

    def forward(self, x):
        clean = torch.cat([x[:, :4], 0 * x[:, 4:]], dim=1)
        first = self.first(20 + (clean if self.early else x))
        return 20 * self.second(first - 20)[:, :4]


@pytest.mark.parametrize(
    ("before", "after"), [(False, True), (True, True), (True, False), (False, False)]
)
def test_only_a_share_above_the_untrained_network_raises_the_alarm(before, after, tmp_path):
    y = torch.arange(240) % 4
    x = torch.cat([0.5 * torch.eye(4)[y], 3 * noise(240, 12)], dim=1)
    model = Staged()
    model.early = before
    watched = quiet(model, (x, y), out=tmp_path)
    model.early = after
    watched.steps = 1
    watched.snapshot()
    shares = [one.network["decided_early"] for one in watched.snapshots.values()]
    # Neighbors in noise are right for about one of four classes.
    assert all((share == 1) if early else (share < 0.5)
               for share, early in zip(shares, (before, after), strict=True))  # fmt: skip
    assert watched.folder is not None
    said = alarm(Run.load(watched.folder))
    assert bool(said) == (after and not before)
    if said:
        assert f"compared with {shares[0]:.0%} at the first snapshot" in said


def test_shares_of_each_probe_are_among_defined_depths():
    data = domain()
    undefined = 0.0
    for seed in range(4):
        snapshot = quiet(network(seed), data, layers=LAYERS).snapshots[0]
        if snapshot.network["undefined"] < 1:
            undefined = max(undefined, snapshot.network["undefined"])
            assert snapshot.layers["softmax"]["decided"] == 1
            assert snapshot.layers["1"]["decided"] == snapshot.network["decided_early"]
    assert undefined > 0.1


def test_the_terminal_gets_a_line_for_each_snapshot_and_a_file_gets_none():
    for is_terminal in (True, False):
        text = io.StringIO()
        console = Console(file=text, force_terminal=is_terminal, width=40, color_system=None)
        draw = terminal(console)
        watched = quiet(network(), sinks=[draw], every=1)
        watched.step()
        lines = text.getvalue().splitlines()
        assert len(lines) == (3 if is_terminal else 0)
        if is_terminal:
            assert re.search(r"step +accuracy +decided early", lines[0])
            assert re.search(r"[▁▂▃▄▅▆▇█]{2}", lines[2])


def test_the_terminal_explains_an_attenuation_above_one_once():
    lines = io.StringIO()
    draw = terminal(Console(file=lines, force_terminal=True, width=400, color_system=None))
    for step, value in enumerate((0.5, 1.3, 1.4)):
        draw(step, {"class_profile_attenuation": value})
    shown = lines.getvalue()
    assert shown.count(ABOVE_ONE) == 1 and shown.index("1.300") < shown.index(ABOVE_ONE)


def test_watch_is_public():
    assert contam.watch is watch


def test_weights_and_biases_gets_plain_names():
    said: list = []
    run = SimpleNamespace(define_metric=lambda *a, **k: said.append((a, k)), log=said.append)
    quiet(network(), sinks=[weights_and_biases(run)])
    assert said[1] == (("contam/*",), {"step_metric": "contam/step"})
    assert said[2]["contam/step"] == 0 and 0 <= said[2]["contam/accuracy"] <= 1


def test_tensorboard_gets_every_number(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # pyright: ignore[reportMissingImports]

    watched = quiet(network(), sinks=[tensorboard(tmp_path)])
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (scalar,) = events.Scalars("contam/accuracy")
    assert scalar.value == pytest.approx(watched.snapshots[0].network["accuracy"])
    assert set(events.Tags()["scalars"]) == {f"contam/{n}" for n in watched.snapshots[0].scalars()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_lightning_trains_the_same_with_and_without_a_monitor(tmp_path):
    callback = lightning(domain(), every=4, show=False)
    plain, looked = (
        train_with_lightning(network, domain().data, 2, tmp_path, *callbacks)
        for callbacks in ([], [callback])
    )
    assert sorted(callback.listener.monitor.snapshots) == [0, 4, 6]
    assert all(torch.equal(value, looked[name]) for name, value in plain.items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_hugging_face_trains_the_same_with_and_without_a_monitor(tmp_path):
    pictures = LabeledPixels(domain().data)
    callback = hugging_face(pictures, every=4, show=False)
    plain, looked = (
        train_with_transformers(network, domain().data, 6, tmp_path, *callbacks)
        for callbacks in ([], [callback])
    )
    assert sorted(callback.listener.monitor.snapshots) == [0, 4, 6]
    assert all(torch.equal(value, looked[name]) for name, value in plain.items())


@pytest.mark.parametrize("module", ["lightning.pytorch", "transformers"])
def test_callbacks_follow_the_protocol_of_trainers(module, monkeypatch):
    class Base:
        listener: MonitorListener

    kinds = SimpleNamespace(Callback=Base, TrainerCallback=Base)
    monkeypatch.setattr(
        "contam.training.trainer_callbacks.import_module", {module: kinds}.__getitem__
    )
    model = network()
    if module == "transformers":
        callback = hugging_face(domain(), every=2, show=False)
        steps = [
            SimpleNamespace(global_step=step, epoch=0, is_world_process_zero=True)
            for step in range(4)
        ]
        callback.on_train_begin(None, steps[0], None, model=model, optimizer=None)
        for state in steps[1:]:
            callback.on_step_end(None, state, None, model=model)
        callback.on_train_end(None, steps[-1], None, model=model)
    else:
        callback = lightning(domain(), every=2, show=False)
        trainer = SimpleNamespace(global_step=0, is_global_zero=True)
        callback.on_train_start(trainer, model)
        # Twice the same step, as when gradients are accumulated.
        for trainer.global_step in (0, 1, 1, 2, 2, 3):
            callback.on_train_batch_end(trainer, model, None, None, 0)
        callback.on_train_end(trainer, model)
    assert isinstance(callback, Base)
    assert callback.listener.monitor is not None
    assert sorted(callback.listener.monitor.snapshots) == [0, 2, 3]


@pytest.mark.parametrize("adapter", [lightning, hugging_face])
def test_callbacks_report_a_missing_library(adapter, monkeypatch):
    def absent(name: str):
        raise ImportError(name)

    monkeypatch.setattr("contam.training.trainer_callbacks.import_module", absent)
    with pytest.raises(ValueError, match="is not installed"):
        adapter(domain())
