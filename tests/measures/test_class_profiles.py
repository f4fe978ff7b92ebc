"""Profiles from one pass, against two plain passes and against all activations at once."""

import importlib.util

import pytest
import torch
from torch import Tensor, nn

from contam.batch import Batch, Domain
from contam.measures.accuracy import accuracy
from contam.measures.activation import activation_asymmetry, class_rates
from contam.measures.class_means import ClassMeans
from contam.measures.class_profiles import ClassProfiles, class_profiles
from contam.measures.selectivity import selectivity
from contam.models.observe import Observation, observe
from contam.models.readings import over_space, rate_over_space
from contam.models.small import resnet8, small_cnn
from contam.models.sources import load

needs_models = pytest.mark.skipif(
    not all(importlib.util.find_spec(n) for n in ("torchvision", "timm", "open_clip")),
    reason="needs contam[models]",
)


def domain_of(examples: int, side: int, classes: int = 3, seed: int = 0) -> Domain:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, 3, side, side, generator=generator)
    y = torch.arange(examples) % classes
    return Domain("noise", Batch(x, y, torch.zeros_like(y)))


def test_one_pass_gives_the_same_as_two():
    model, domain = resnet8(3, width=4), domain_of(40, 32)
    profiles = class_profiles(model, domain, classes=3, batch_size=7)
    for reading, table in ((over_space, "means"), (rate_over_space, "rates")):
        tables: dict[str, ClassMeans] = {}
        for observation in observe(model, domain.batches(16), "auto", reading):
            for layer, values in observation.layers.items():
                tables.setdefault(layer, ClassMeans(3, values.shape[1])).update(
                    values, observation.batch.y
                )
        assert list(profiles.layers) == list(tables)
        for layer, profile in profiles.layers.items():
            torch.testing.assert_close(
                getattr(profile, table), tables[layer].compute(), rtol=1e-5, atol=1e-6
            )
    assert profiles.accuracy == accuracy(model, domain)
    assert all(profile.counts.tolist() == [14, 13, 13] for profile in profiles.layers.values())


def test_profile_measures_by_hand():
    """Two classes whose images are constant, seen through one channel each."""
    x = torch.tensor([[2.0, -1.0], [4.0, -1.0], [-1.0, 6.0]])[:, :, None, None].expand(-1, -1, 3, 3)
    y = torch.tensor([0, 0, 1])
    domain = Domain("d", Batch(x, y, y))
    profile = class_profiles(nn.Sequential(nn.ReLU()), domain, classes=2).layers["0"]
    assert profile.means.tolist() == [[3, 0], [0, 6]]
    assert profile.rates.tolist() == [[1, 0], [0, 1]]
    assert profile.density.tolist() == [2, 2]
    assert selectivity(profile.means, stability=0.0).tolist() == pytest.approx([1 / 3, 1 / 3])
    assert class_rates(profile.rates).tolist() == [0.5, 0.5]
    assert activation_asymmetry(profile.rates).tolist() == [0.5, 0.5]


@needs_models
@pytest.mark.parametrize(
    ("name", "side", "layers", "widths"),
    [
        ("torchvision:resnet50", 64, 49, (64, 2048)),
        ("torchvision:convnext_tiny", 64, 18, (384, 3072)),
        ("timm:convnext_atto", 64, 12, (160, 1280)),
        ("timm:efficientnet_b0", 96, 49, (32, 1280)),
        ("timm:vit_tiny_patch16_224", 224, 12, (768, 768)),
        pytest.param("open_clip:RN50", 224, 51, (32, 2048), marks=pytest.mark.slow),
        pytest.param("open_clip:ViT-B-16/openai", 224, 12, (3072, 3072), marks=pytest.mark.slow),
    ],
)
def test_activations_of_library_networks_are_read_along_their_neurons(name, side, layers, widths):
    encoder = load(name, seed=0).encoder
    domain = domain_of(3, side)
    result = class_profiles(encoder, domain, classes=3)
    assert result.accuracy is None
    assert len(result.layers) == layers
    profiles = list(result.layers.values())
    assert (profiles[0].means.shape[1], profiles[-1].means.shape[1]) == widths
    # With one example a class, a whole output says what the profile has to be.
    ends = (next(iter(result.layers)), list(result.layers)[-1])
    for layer, output in zip(ends, whole_outputs(encoder, domain.data, ends), strict=True):
        width = result.layers[layer].means.shape[1]
        axis = [i for i, size in enumerate(output.shape) if i and size == width]
        assert len(axis) == 1
        maps = output.movedim(axis[0], 1).flatten(2).double()
        means, rates = result.layers[layer][:2]
        torch.testing.assert_close(means, maps.mean(dim=2), rtol=1e-4, atol=1e-6)
        # The two forward passes round differently: values within rounding of zero may change sides,
        # in at most one of a thousand pairs of example and neuron, and in two positions there.
        wrong = (rates - (maps > 0).double().mean(dim=2)).abs()
        assert (wrong < 1e-6).double().mean() > 0.999
        assert wrong.max() < 2.01 / maps.shape[2]


@needs_models
def test_the_output_of_attention_pooling_is_a_layer():
    encoder = load("open_clip:RN50", seed=0).encoder
    domain = domain_of(3, 224)
    pooled = class_profiles(encoder, domain, ["attnpool"], classes=3).layers["attnpool"]
    with torch.no_grad():
        torch.testing.assert_close(pooled.means.float(), encoder(domain.data.x), rtol=0, atol=1e-5)
    assert torch.equal(pooled.rates, (pooled.means > 0).double())


def whole_outputs(model: nn.Module, batch: Batch, layers: tuple[str, ...]) -> list[Tensor]:
    outputs = []

    def reading(z: Tensor) -> Tensor:
        outputs.append(z.clone())
        return z.flatten(1)

    list(observe(model, [batch], layers, reading))
    return outputs


def test_merged_parts_equal_the_whole():
    model, domain = small_cnn(3, width=4), domain_of(31, 16)
    parts = [ClassProfiles(3), ClassProfiles(3), ClassProfiles(3)]
    for i, observation in enumerate(observe(model, domain.batches(4), "auto", "moments")):
        parts[i % 2].update(observation)
    merged = parts[2].merge(parts[0]).merge(parts[1]).merge(ClassProfiles(3)).compute()
    whole = class_profiles(model, domain, classes=3)
    assert merged.accuracy == whole.accuracy
    for layer, profile in whole.layers.items():
        for values, expected in zip(merged.layers[layer], profile, strict=True):
            torch.testing.assert_close(values, expected, rtol=1e-6, atol=1e-7)


def test_memory_is_that_of_the_tables():
    sums = ClassProfiles(3)
    model = small_cnn(3, width=4)
    for observation in observe(model, domain_of(50, 16).batches(5), "auto", "moments"):
        sums.update(observation)
        assert [table.sums.shape for table in sums.tables.values()] == [(3, 8), (3, 16), (3, 32)]


def observed(layers: dict[str, Tensor]) -> Observation:
    y = torch.tensor([0, 1])
    return Observation(Batch(torch.zeros(2, 1), y, y), torch.zeros(2, 2), layers)


def test_mismatched_profiles_are_rejected():
    moments = torch.zeros(2, 2, 3)
    with pytest.raises(ValueError, match="observe with reduce='moments'"):
        ClassProfiles(2).update(observed({"a": torch.zeros(2, 3)}))
    with pytest.raises(ValueError, match="layer 'b' is in some batches only"):
        both = observed({"a": moments, "b": moments})
        ClassProfiles(2).update(observed({"a": moments})).update(both)
    with pytest.raises(ValueError, match="expected 6 neurons"):
        ClassProfiles(2).update(observed({"a": moments})).update(observed({"a": moments[:, :, :2]}))
    with pytest.raises(ValueError, match="layer 'b' is in some batches only"):
        ClassProfiles(2).update(both).merge(ClassProfiles(2).update(observed({"a": moments})))
    with pytest.raises(ValueError, match=r"no example of class \[2\]"):
        ClassProfiles(3).update(observed({"a": moments})).compute()
    with pytest.raises(ValueError, match="don't fit 1 classes"):
        ClassProfiles(1).update(observed({"a": moments}))


def test_more_classes_than_fit_in_memory_are_rejected_in_one_line():
    data = torch.rand(4, 3), torch.arange(4) % 2
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    line = r"^1000000000000 classes and 4 neurons are too many .* at most 536870912 classes$"
    with pytest.raises(ValueError, match=line):
        class_profiles(network, data, classes=10**12)
