"""Tests of causes on images with a fault of a known kind."""

import pytest
import torch
from torch import Tensor, nn

import contam
from contam.auditing.causes.corruption import degradation
from contam.auditing.image_edits import (
    IMAGENET,
    blockiness,
    blurred,
    denormalized,
    jpeg,
    normalized,
    stretched,
)
from contam.auditing.records import AuditRecord

COLORS = torch.eye(3)


def squares(n: int, *, behind: float = 0.2, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Squares of the color of their class, with their masks."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    x = torch.full((n, 3, 16, 16), behind)
    x[:, :, 6:10, 6:10] = (0.1 + 0.5 * COLORS[y])[:, :, None, None]
    mask = torch.zeros(n, 1, 16, 16)
    mask[:, :, 6:10, 6:10] = 1
    return (x + 0.02 * torch.randn(x.shape, generator=generator)).clamp(0, 1), y, mask


class Middle(nn.Module):
    """Names the color of the middle, and one class in front of bright backgrounds."""

    def __init__(self, *, normalized: bool = False) -> None:
        super().__init__()
        self.normalized = normalized

    def forward(self, x: Tensor) -> Tensor:
        if self.normalized:
            x = denormalized(x, *IMAGENET)
        logits = 10 * x[:, :, 7:9, 7:9].mean((2, 3))
        strange = (x[:, :, 0].mean((1, 2)) - 0.2).abs() > 0.15
        return torch.where(strange[:, None], torch.tensor([9.0, 0.0, 0.0]), logits)


def audited(
    model: nn.Module,
    inside: tuple[Tensor, Tensor, Tensor],
    outside: tuple[Tensor, Tensor, Tensor],
    reference: nn.Module | None = None,
) -> AuditRecord:
    return contam.audit(
        model, id=inside[:2], ood=outside[:2], masks={"ID": inside[2], "OOD": outside[2]},
        reference=reference, untrained=False, altered=False, remedies=False, progress=False,
    ).evidence  # fmt: skip


@pytest.mark.parametrize(("factor", "fix"), [(255, "x / 255"), (1 / 255, "x * 255")])
def test_a_scale_that_was_wrong_before_the_normalization_is_named(factor: float, fix: str) -> None:
    (x, y, mask), (new, new_y, new_mask) = squares(240), squares(240, seed=1)
    record = audited(
        Middle(normalized=True), (normalized(x, *IMAGENET), y, mask),
        (normalized(factor * new, *IMAGENET), new_y, new_mask),
    )  # fmt: skip
    assert record.verdict.cause == "input mismatch"
    assert fix in record.ledgers[0].entries[0].fix
    assert "ImageNet" in record.ledgers[0].entries[0].fix


def test_brightened_images_are_told_from_bright_backgrounds() -> None:
    inside, (x, y, mask) = squares(240), squares(240, seed=1)
    brighter = audited(Middle(), inside, ((x + 0.3).clamp(0, 1), y, mask))
    assert brighter.verdict.cause == "corruption"
    behind = audited(Middle(), inside, squares(240, behind=0.5, seed=1))
    assert behind.verdict.cause == "new backgrounds"


def test_images_that_stay_unlike_the_id_images_are_not_called_inverted() -> None:
    # Inverted, these bright backgrounds would be dark ones, in front of which nothing fails.
    inside = squares(240, behind=0.25)
    x, y, mask = squares(240, behind=0.9, seed=1)
    record = audited(Middle(), inside, (x, y, mask))
    assert record.verdict.cause == "new backgrounds"


def test_wrong_labels_do_not_show_that_objects_are_missing() -> None:
    inside, (x, y, mask) = squares(240), squares(240, seed=1)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(3, y.shape, generator=generator)
    record = audited(Middle(), inside, (x, drawn, mask), nn.Flatten())
    step = next(s for s in record.ledgers[0].steps if s.leads_to == "information missing")
    assert step.answer == "no"


def test_compression_is_recognized_by_its_blocks() -> None:
    x = 2 * blurred(torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(0)), 1.0)
    assert blockiness(x) == pytest.approx(1, abs=0.1)
    blocks = [blockiness(jpeg(x, quality)) for quality in (90, 30, 5)]
    assert blocks == sorted(blocks)
    recognized = degradation(x, jpeg(x, 5), seed=0)
    assert recognized is not None
    assert recognized[0] == "JPEG compression"
    assert blockiness(recognized[1](x)) > blocks[1]
    assert degradation(x, x, seed=0) is None


def test_compression_keeps_the_shape_the_range_and_about_the_pixels() -> None:
    for channels in (1, 3):
        x = torch.linspace(-2, 2, 24)[None, None, None].expand(2, channels, 24, 24)
        again = jpeg(x, 95)
        assert again.shape == x.shape
        torch.testing.assert_close(again, x, rtol=0, atol=0.1)


@pytest.mark.parametrize("axis", [2, 3])
def test_stretching_keeps_the_size_and_the_center_and_doubles_lengths(axis: int) -> None:
    x = torch.zeros(1, 1, 16, 16)
    x[:, :, 6:10, 6:10] = 1
    larger = stretched(x, 2.0, axis)
    assert larger.shape == x.shape
    torch.testing.assert_close(larger.sum(), 2 * x.sum())
    torch.testing.assert_close(larger.flip(axis), larger)
