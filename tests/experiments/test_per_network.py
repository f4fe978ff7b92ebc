"""Measuring several networks: under several labelings in one pass, with a part for each."""

import pandas
import pytest
import torch

from contam.batch import Batch, Domain
from contam.experiment import NotJudged
from contam.experiments.support.networks import (
    CALIBRATED,
    ERM,
    STUDENT,
    TEACHER,
    TINY_NETWORKS,
    UNTRAINED,
)
from contam.experiments.support.per_network import (
    BATCH,
    arrays_of,
    contiguous,
    measure_each,
    network_table,
    profiled,
    require_learning,
    specs,
    trained,
)
from contam.measures.class_profiles import class_profiles
from contam.models.small import resnet8
from contam.run import Run

LAYERS = ["encoder.stage1.relu2", "encoder"]
TINIEST = TINY_NETWORKS.model_copy(update={"standard": None, "examples": 40, "id_examples": 40})


def some(n: int = 2 * BATCH + 10) -> Domain:
    draws = torch.Generator().manual_seed(0)
    x = torch.rand(n, 3, 32, 32, generator=draws)
    return Domain("some", Batch(x, torch.arange(n) % 3, torch.zeros(n, dtype=torch.long)))


def test_one_labeling_gives_the_profile_of_the_classes():
    model, images = resnet8(3, width=4), some()
    (profiles,) = profiled(model, images, LAYERS, [images.y])
    alone = class_profiles(model, images, LAYERS, classes=3).layers
    for layer in LAYERS:
        for mine, other in zip(profiles[layer], alone[layer], strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)


def test_every_labeling_gives_the_profile_of_its_examples():
    """Among them one without any example in the first batch, and one that renames classes."""
    model, images = resnet8(3, width=4), some()
    late = torch.where(torch.arange(len(images)) >= BATCH, images.y, -1)
    pair = torch.tensor([1, -1, 0])[images.y]
    for profiles, counting in zip(
        profiled(model, images, LAYERS, [late, pair]), (late, pair), strict=True
    ):
        kept = counting >= 0
        x, _, domain = images.data.pick(kept)
        picked = Domain("picked", Batch(x, counting[kept], domain))
        alone = class_profiles(model, picked, LAYERS, classes=int(counting.max()) + 1).layers
        for layer in LAYERS:
            torch.testing.assert_close(profiles[layer].means, alone[layer].means)
            torch.testing.assert_close(profiles[layer].rates, alone[layer].rates)
            assert torch.equal(profiles[layer].counts, torch.bincount(counting[kept]))


def test_a_labeling_with_a_gap_is_rejected():
    images = some()
    with pytest.raises(ValueError, match=r"no example of class \[1\]"):
        profiled(resnet8(3, width=4), images, LAYERS, [2 * (images.y % 2)])


def test_contiguous_keeps_the_order_of_labels():
    assert contiguous(torch.tensor([7, 2, 7, 90])).tolist() == [1, 0, 1, 2]


def test_specs_include_the_standard_network_of_the_config():
    assert specs(TINY_NETWORKS) == (TEACHER, STUDENT, ERM, UNTRAINED, CALIBRATED)
    assert specs(TINIEST) == (TEACHER, STUDENT, UNTRAINED, CALIBRATED)


@pytest.mark.slow
def test_each_network_is_measured_once(tmp_path):
    measured = []

    def measure(zoo, spec):
        measured.append((zoo.seed, spec.name))
        weight = zoo.network(spec).head.weight.detach()
        return [{"norm": float(weight.norm())}], {"weight": weight}

    def done(run: Run) -> list[float]:
        return [stage.done for stage in measure_each(run, TINIEST, 2, measure)]

    with Run.start(tmp_path, "measuring", TINIEST) as run:
        shares = done(run)
        assert shares == sorted(shares) and 0 <= shares[0] <= shares[-1] <= 1
        expected = [
            (s, n) for s in (0, 1) for n in ("teacher", "student", "untrained", "calibrated")
        ]
        assert measured == expected
        assert not done(run) and measured == expected

    table = network_table(run)
    assert [*zip(table.seed, table.network, strict=True)] == expected
    assert trained(table) == ["teacher", "student"]
    rows = table.to_dict("records")
    for row, arrays in zip(rows[::4], arrays_of(run, "teacher"), strict=True):
        assert row["norm"] == pytest.approx(float(arrays["weight"].norm()))


def test_networks_that_gain_nothing_over_an_untrained_one_did_not_learn():
    rows = [
        {"network": network, "seed": seed, "id": accuracy}
        for network, accuracies in (("ERM", (0.9, 0.35)), ("untrained", (0.3, 0.3)))
        for seed, accuracy in enumerate(accuracies)
    ]
    table = pandas.DataFrame(rows)
    require_learning(table[table.seed == 0], "id")
    require_learning(table[table.network == "ERM"], "id")
    with pytest.raises(NotJudged, match=r"ERM did not learn.*\+0\.05"):
        require_learning(table, "id")
