"""Precision, accumulation and memory layout change how a training runs, and not what it learns."""

import copy
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from support.networks import smooth_network
from support.shifts import brightest_channel
from torch import nn

from contam.batch import Shift
from contam.models.small import small_cnn
from contam.training.distill import Distillation, distill
from contam.training.precision import ComputeConfig, full
from contam.training.supervised import fit

RECIPE: dict[str, Any] = dict(epochs=3, batch_size=16, step_size=1e-2, weight_decay=0.05, seed=0)
FAST = ComputeConfig(precision="bfloat16", accumulate=3, channels_last=True)


def trained(model: nn.Module, shift: Shift, compute: ComputeConfig, **given: Any) -> list[Any]:
    return list(fit(model, shift, **RECIPE, report_every=1, compute=compute, **given))


@pytest.mark.parametrize("accumulate", [2, 3, 16])
def test_micro_batches_give_the_gradient_of_the_whole_minibatch(accumulate):
    """In double precision, so that no more than rounding is left; 3 does not divide 16."""
    whole, parts = smooth_network(), smooth_network()
    ours = trained(
        parts, brightest_channel(dtype=torch.float64), ComputeConfig(accumulate=accumulate)
    )
    plain = trained(whole, brightest_channel(dtype=torch.float64), ComputeConfig())
    for one, other in zip(ours, plain, strict=True):
        assert one.losses["risk"] == pytest.approx(other.losses["risk"], abs=1e-9)
    for a, b in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_micro_batches_give_the_same_distillation():
    ends, shift = [], brightest_channel(dtype=torch.float64)
    for accumulate in (1, 3):
        student, teacher = smooth_network().encoder, smooth_network(seed=5).encoder
        recipe = Distillation(1e-2, 0.05, 16, epochs=3, clip=0.1)
        list(
            distill(
                student, teacher, shift, recipe, seed=0, report_every=100,
                compute=ComputeConfig(accumulate=accumulate),
            )
        )  # fmt: skip
        ends.append(student)
    for a, b in zip(*(end.parameters() for end in ends), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_bfloat16_and_channels_last_agree_with_float32():
    shift = brightest_channel()
    losses = {}
    for compute in (ComputeConfig(), ComputeConfig("bfloat16"), ComputeConfig(channels_last=True)):
        losses[compute] = [s.losses["risk"] for s in trained(small_cnn(3, width=4), shift, compute)]
    plain, brain, last = losses.values()
    assert brain == pytest.approx(plain, rel=0.1, abs=0.02)
    assert brain != plain
    assert last == pytest.approx(plain, rel=1e-3, abs=1e-4)


def test_networks_run_in_low_precision_and_losses_in_float32():
    outputs = []
    model, teacher = small_cnn(3, width=4).encoder, small_cnn(3, width=4, seed=1).encoder
    for network in (model, teacher):
        network.get_submodule("conv2").register_forward_hook(lambda _m, _x, y: outputs.append(y))
    stages = distill(
        model, teacher, brightest_channel(), Distillation(1e-3, 0, 16, 1), seed=0, report_every=1,
        augment=lambda x: x, compute=ComputeConfig("bfloat16", channels_last=True),
    )  # fmt: skip
    next(stages)
    assert [y.dtype for y in outputs] == [torch.bfloat16, torch.bfloat16]
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in outputs)
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters())  # pyright: ignore[reportOptionalMemberAccess]
    assert full(outputs[0]).dtype == torch.float32
    assert full(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
    stages.close()  # pyright: ignore[reportAttributeAccessIssue], it is a generator


@pytest.mark.parametrize(
    "compute",
    [ComputeConfig(accumulate=2), ComputeConfig("bfloat16"), FAST],
    ids=["accumulated", "bfloat16", "all at once"],
)
@pytest.mark.parametrize("stop", [1, 7])
def test_an_interrupted_training_continues_bit_for_bit(compute, stop):
    def network(seed: int = 0) -> nn.Module:
        model = small_cnn(3, width=4, seed=seed)
        model.encoder.add_module("drop", nn.Dropout(0.2))
        return model

    whole, begun, resumed = network(), network(), network(seed=1)
    ends = [stage.losses for stage in trained(whole, brightest_channel(), compute)]
    for stage in fit(begun, brightest_channel(), **RECIPE, report_every=1, compute=compute):
        if stage.step == stop:
            file = save(stage.checkpoint())
            break
    rest = trained(resumed, brightest_channel(), compute, resume=load(file))
    assert [stage.losses for stage in rest] == ends[stop:]
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_memory_layout_does_not_change_values():
    model = small_cnn(3, width=4)
    converted = copy.deepcopy(model)
    ComputeConfig(channels_last=True).convert(converted)
    for a, b in zip(model.parameters(), converted.parameters(), strict=True):
        assert torch.equal(a, b)
    flat = torch.rand(4, 7)
    assert ComputeConfig(channels_last=True).inputs(flat) is flat


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"precision": "float16"}, "must be float32 or bfloat16"),
        ({"accumulate": 0}, "accumulate at least 1"),
    ],
)
def test_invalid_compute_settings_are_rejected(given, message):
    with pytest.raises(ValueError, match=message):
        ComputeConfig(**given)


def test_more_micro_batches_than_examples_are_rejected():
    with pytest.raises(ValueError, match="cannot split a minibatch of 16 into 17 parts"):
        trained(small_cnn(3, width=4), brightest_channel(), ComputeConfig(accumulate=17))
