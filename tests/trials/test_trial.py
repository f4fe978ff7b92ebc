"""A trial's arms differ in one change alone, and its tables follow from them."""

import itertools

import pytest
import torch
from torch import nn

import contam
from contam.run import RunError
from contam.training import checkpointed
from contam.training.changes import TrainingChange
from contam.trials.networks import initial_network


def network(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, classes),
    )  # fmt: skip


def examples(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose brightest channel is their class."""
    y = torch.arange(count) % 3
    x = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) / 2
    x[torch.arange(count), y] += 0.5
    return x, y


DATA = {"train": examples(48, 0), "id": examples(30, 1), "ood": {"dark": examples(30, 2)}}
SMALL = {"epochs": 2, "batch_size": 12, "step_size": 0.05, "progress": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trials")


@pytest.fixture(scope="module")
def result(folder):
    """A trial of two remedies; one of them changes nothing."""
    return contam.trial(
        network, **DATA, **SMALL, remedies=["no change", "centering"], seeds=2, out=folder
    )


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.slow
def test_two_identical_arms_differ_by_exactly_0(result):
    for seed in (0, 1):
        assert same(result.weights("baseline", seed), result.weights("no change", seed))
    rows = result.differences.query("arm == 'no change'")
    assert (rows[["difference", "low", "high"]] == 0).all(axis=None)
    # Other examples may change, so the interval over examples does not have the width 0.
    assert (rows["low_examples"] < 0).all() and (rows["high_examples"] > 0).all()
    assert (rows["p"] == 1).all()
    assert result.sentence == "No remedy changes OOD accuracy beyond chance."


def test_seeds_and_remedies_differ(result):
    base = result.weights("baseline", 0)
    assert not same(base, result.weights("baseline", 1))
    assert not same(base, result.weights("centering", 0))


@pytest.mark.slow
def test_arms_share_their_initial_weights_and_the_order_of_their_images(tmp_path):
    learned: list[list[torch.Tensor]] = []
    first: list[torch.Tensor] = []

    class Recorder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = network(3)

        def forward(self, x):
            if self.training:
                if not first or len(learned[-1]) == 8:
                    learned.append([])
                    first.append(next(self.parameters()).detach().clone())
                learned[-1].append(x.mean((1, 2, 3)))
            return self.layers(x)

    contam.trial(Recorder, **DATA, **SMALL, remedies=["instance norm"], seeds=2, out=tmp_path)
    assert [len(steps) for steps in learned] == [8] * 4
    for base, changed in ((0, 1), (2, 3)):
        assert torch.equal(first[base], first[changed])
        assert torch.equal(torch.stack(learned[base]), torch.stack(learned[changed]))
    assert not torch.equal(first[0], first[2])
    assert not torch.equal(torch.stack(learned[0]), torch.stack(learned[2]))


def test_an_interrupted_trial_resumes_bit_for_bit(result, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpointed, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(checkpointed, "CHECKPOINT_SHARE", 1e9)
    reports = 0

    def interrupt(stage) -> None:
        nonlocal reports
        reports += stage.doing == "seed 1, centering"
        if reports == 5:
            raise KeyboardInterrupt

    settings = {**DATA, **SMALL, "remedies": ["centering"], "seeds": [1]}
    with pytest.raises(KeyboardInterrupt):
        contam.trial(network, **{**settings, "progress": interrupt}, out=tmp_path)
    (place,) = tmp_path.iterdir()
    assert list(place.rglob("checkpoints/**/centering.safetensors"))
    again = contam.trial(network, **settings, out=tmp_path)
    whole = contam.Trial.load(result.folder, arms=["baseline", "centering"], seeds=[1])
    assert again.folder.name == whole.folder.name
    assert same(again.weights("centering", 1), whole.weights("centering", 1))
    for name in ("accuracies", "differences", "by_seed", "ledger", "verdicts"):
        assert getattr(again, name).equals(getattr(whole, name)), name


def test_a_remedy_that_is_added_later_uses_the_trained_baseline(result, folder):
    doing: list[str] = []
    settings = {**DATA, **SMALL, "progress": lambda stage: doing.append(stage.doing)}
    more = contam.trial(network, **settings, remedies=["color jitter"], seeds=1, out=folder)
    assert more.folder == result.folder
    assert more.arms == ["baseline", "color jitter"]
    assert doing.count("seed 0, baseline") == 1, "it is not trained again"
    assert contam.Trial.load(folder / more.folder.name).arms == [
        "baseline", "centering", "color jitter", "no change",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="has no arm 'stop gradient'"):
        contam.Trial.load(more.folder, arms=["baseline", "stop gradient"])


def test_the_folder_has_tables_and_the_audits_of_all_arms(result):
    assert str(result) in (result.save() / "trial.md").read_text()
    for seed in (0, 1):
        for arm in ("baseline", "no_change", "centering"):
            audit = contam.Audit.load(result.folder / "audits" / f"seed{seed}" / arm)
            share = audit.evidence.sets[1].overall.accuracy.value
            row = result.accuracies.query(
                f"arm == '{arm.replace('_', ' ')}' and seed == {seed} and set == 'dark'"
            )
            assert row["accuracy"].item() == pytest.approx(share)
            assert (result.folder / "audits" / f"seed{seed}" / arm / "audit.html").is_file()
    assert "only 2 seeds" in str(result)


def test_a_change_of_ones_own_is_an_arm(tmp_path):
    black = TrainingChange("black images", "", edit=lambda x, masks, generator: torch.zeros_like(x))
    trial = contam.trial(network, **DATA, **SMALL, remedies=[black], seeds=[7], out=tmp_path)
    assert trial.arms == ["baseline", "black images"]
    chance = trial.accuracies.query("arm == 'black images' and set == 'ID'")["accuracy"].item()
    assert chance == pytest.approx(1 / 3)
    assert "1 seed:" in str(trial)


@pytest.mark.slow
def test_masks_reach_the_arms_that_need_them(tmp_path):
    masks = torch.zeros(48, 1, 8, 8)
    masks[..., :4] = 1
    two = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), *network(3).children())
    names = ["stop gradient", "background difference", "background negatives", "background swap"]
    trial = contam.trial(
        two, **DATA, **SMALL, remedies=names, masks=masks, seeds=1, out=tmp_path,
    )  # fmt: skip
    weights = [trial.weights(name) for name in ("baseline", *names)]
    assert all(own.keys() == weights[0].keys() for own in weights)
    assert not any(same(*pair) for pair in itertools.combinations(weights, 2))


def test_balanced_domains_change_the_training_on_several_sets(tmp_path):
    data = DATA | {"train": {"large": examples(36, 0), "small": examples(12, 5)}}
    remedies = ["balanced domains"]
    trial = contam.trial(network, **data, **SMALL, remedies=remedies, seeds=1, out=tmp_path)
    assert not same(trial.weights("baseline"), trial.weights("balanced domains"))


transformer = nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten(), nn.LayerNorm(4), nn.Linear(4, 3))
one_position = nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
MISFITS = {
    "centering without batch norm": (transformer, ["centering"], "no BatchNorm2d"),
    "centering of one position": (one_position, ["centering"], "have one position"),
    "instance norm without batch norm": (transformer, ["instance norm"], "no BatchNorm2d"),
    "instance norm of one position": (one_position, ["instance norm"], "does not fit"),
    "gradients without masks": (network, ["stop gradient"], "needs masks"),
    "negatives without masks": (network, ["background negatives"], "needs masks"),
    "one training set": (network, ["balanced domains"], "there is one"),
    "one convolution": (transformer, ["stop gradient"], "not a convolutional network"),
    "another number of classes": (network(2), ["centering"], "3 classes"),
    "no such remedy": (network, ["centring"], "no remedy 'centring'"),
    "no remedy": (network, [], "remedies= is empty"),
    "one remedy twice": (network, ["centering", "centering"], "two arms"),
    "no network": (lambda: 3, ["centering"], "returned a int"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_refused_before_anything_is_trained(tmp_path, case):
    model, remedies, line = MISFITS[case]
    masks = torch.ones(48, 1, 8, 8) if case == "one convolution" else None
    with pytest.raises(ValueError, match=line) as refused:
        contam.trial(model, **DATA, **SMALL, remedies=remedies, masks=masks, out=tmp_path)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_run_of_something_else_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"no run.json"):
        contam.Trial.load(tmp_path)


def test_initial_weights_depend_on_the_seed_alone():
    for model in ("resnet8", "small_cnn", "contam.models.small:small_cnn", network):
        make = initial_network(model).make
        one, other = make(3, 0).state_dict(), make(3, 0).state_dict()
        assert same(one, other)
        assert model == "contam.models.small:small_cnn" or not same(one, make(3, 1).state_dict())
