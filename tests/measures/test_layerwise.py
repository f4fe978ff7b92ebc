"""Layer after layer: the same features as in one look, in few passes or many."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contam.batch import Batch, Domain
from contam.measures.layerwise import layerwise, over_grid, predictions, reading_name
from contam.models.readings import flat, over_space
from contam.models.small import small_cnn

LAYERS = ["encoder.relu1", "encoder.relu3"]


def domain(n: int, seed: int = 0) -> Domain:
    x = torch.rand(n, 3, 16, 12, generator=torch.Generator().manual_seed(seed))
    return Domain("noise", Batch(x, torch.arange(n) % 3, torch.zeros(n, dtype=torch.int64)))


@pytest.fixture(scope="module")
def model():
    return small_cnn(classes=3, width=4)


def test_grid_averages_by_hand():
    maps = torch.arange(16.0).view(1, 1, 4, 4)
    assert over_grid(maps, side=2).tolist() == [[2.5, 4.5, 10.5, 12.5]]
    assert torch.equal(over_grid(maps, side=4), maps.flatten(1))
    assert torch.equal(over_grid(maps[0, 0], side=2), maps[0, 0])


def test_one_cell_is_the_spatial_mean_and_a_large_grid_keeps_every_value():
    maps = torch.rand(2, 3, 9, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(over_grid(maps, side=1), over_space(maps))
    assert torch.equal(over_grid(maps, side=9), flat(maps))
    torch.testing.assert_close(
        over_grid(maps, side=5), F.adaptive_avg_pool2d(maps, (5, 5)).flatten(1)
    )


def test_tokens_are_rejected():
    with pytest.raises(ValueError, match="read it with over_tokens"):
        over_grid(torch.ones(2, 5, 8))


def test_probes_are_input_layers_and_softmax(model):
    support, queries = domain(7), domain(5, seed=1)
    layers = list(layerwise(model, support, queries, LAYERS, batch_size=3))
    assert [layer.name for layer in layers] == ["input", *LAYERS, "softmax"]
    assert torch.equal(layers[0].queries, over_grid(queries.data.x))
    with torch.no_grad():
        expected = model.eval()(support.data.x).softmax(dim=1)
    torch.testing.assert_close(layers[-1].support, expected)
    inner = [layer.name for layer in layerwise(model, support, queries, ends=False)]
    assert inner == ["encoder.relu1", "encoder.relu2", "encoder.relu3"]


@pytest.mark.parametrize("memory", [0, 30_000, 2**29])
def test_results_do_not_depend_on_passes_or_batches(model, memory):
    support, queries = domain(20), domain(6, seed=1)
    rows = torch.tensor([0, 1, 3, 9, 18])
    reference = list(layerwise(model, support, queries, LAYERS, batch_size=20))
    layers = layerwise(model, support, queries, LAYERS, rows=rows, batch_size=4, memory=memory)
    for layer, whole in zip(layers, reference, strict=True):
        torch.testing.assert_close(layer.support, whole.support[rows])
        torch.testing.assert_close(layer.queries, whole.queries)


@pytest.mark.parametrize(("short", "layers"), [(0, 2), (1, 1)])
def test_a_pass_reads_as_many_layers_as_fit_in_memory(model, short, layers):
    sizes = [layer.support.nbytes + layer.queries.nbytes
             for layer in layerwise(model, domain(4), domain(4), LAYERS, reduce=over_space,
                                    ends=False)]  # fmt: skip
    read: list[int] = []

    def counted(maps: Tensor) -> Tensor:
        read.append(len(maps))
        return over_space(maps)

    features = layerwise(model, domain(4), domain(4), LAYERS, reduce=counted, ends=False,
                         memory=sum(sizes) - short)  # fmt: skip
    next(features)
    assert read.count(4) == 2 * layers  # of the support and of the queries
    next(features)
    assert read.count(4) == 4


def test_readings_are_named():
    assert reading_name(over_grid) == "over_grid"
    assert reading_name(partial(over_grid, side=4)) == "over_grid(side=4)"


def test_predictions_equal_those_of_the_network(model):
    shown = domain(11)
    with torch.no_grad():
        expected = model.eval()(shown.data.x).argmax(dim=1)
    assert torch.equal(predictions(model, shown, batch_size=4), expected)


def test_invalid_arguments_are_rejected(model):
    some = domain(4)
    with pytest.raises(ValueError, match="named twice"):
        next(layerwise(model, some, some, ["encoder.relu1", "encoder.relu1"]))
    with pytest.raises(ValueError, match="expected examples in both sets, got 4 and 0"):
        next(layerwise(model, some, domain(0), LAYERS))
    with pytest.raises(ValueError, match="for one layer give"):
        next(layerwise(model, some, some, "encoder.relu1"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="did you mean"):
        list(layerwise(nn.Sequential(nn.Flatten()), some, some, ["0x"]))
