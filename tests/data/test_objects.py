"""Objects of the embedded benchmark: digits beside shapes, and digits that no two parts share."""

import itertools
from typing import Literal

import pytest
import torch

from contam import accuracy
from contam.batch import Shift
from contam.data import objects as source
from contam.data.backgrounds import DIVERSE, FAMILIES, ID, MILD, OOD, backgrounds
from contam.data.counterfactual import CHANGES, counterfactual
from contam.data.digits import scans
from contam.data.objects import (
    CORES,
    LARGER,
    REACH,
    SCANS,
    SIZES,
    STRETCH,
    TILT,
    Objects,
    objects,
)
from contam.data.shapes import blended, factorial, mild, pretraining, scenes, shapes
from contam.models.small import resnet8
from contam.rng import generator_for
from contam.training.supervised import fit

DIGITS = {"train": 900, "validation": 100, "pretraining": 400, "test": 397}


def shown(part: str, n: int = 4000, seed: int = 0) -> torch.Tensor:
    """The numbers of the scans that a part's first objects show."""
    return source.scan_numbers(n, seed=seed, part=part)


@pytest.mark.parametrize("seed", range(3))
def test_parts_share_no_digit_and_together_contain_all(seed):
    drawn = {part: set(shown(part, seed=seed).tolist()) for part in SCANS}
    assert {part: len(own) for part, own in drawn.items()} == DIGITS
    for one, other in itertools.combinations(drawn.values(), 2):
        assert not one & other
    assert set().union(*drawn.values()) == set(range(1797))


@pytest.mark.parametrize("part", SCANS)
def test_digits_match_their_labels_and_classes_alternate(part):
    labels = scans()[1][shown(part, 300)]
    assert torch.equal(labels, torch.arange(300) % 10)
    assert torch.equal(labels, objects(300, part=part, core="digits").y)


@pytest.mark.parametrize("part", SCANS)
def test_all_digits_of_a_class_are_used_before_one_repeats(part):
    for label in range(10):
        own = shown(part)[label::10]
        count = len(own.unique())
        assert len(own[:count].unique()) == count
        times = torch.unique(own, return_counts=True)[1]
        assert times.max() - times.min() <= 1


def test_a_repeated_digit_has_another_background_family():
    n = 2000
    family = torch.arange(n) // 10 % len(DIVERSE)
    # The 40 digits of a class in one order again and again would each keep to one of five families.
    own = shown("pretraining", n)
    met = [len(family[own == scan].unique()) for scan in own.unique()]
    # Five looks at random among five families meet 3.36 of them on average.
    assert sum(met) / len(met) > 3


def test_the_digits_of_a_part_depend_on_the_seed():
    assert torch.equal(shown("test", seed=1), shown("test", seed=1))
    assert set(shown("test", seed=1).tolist()) != set(shown("test", seed=2).tolist())


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("n", [0, 10, 30, 50])
def test_the_first_objects_do_not_depend_on_the_number_drawn(core, n):
    few, many = objects(n, seed=1, core=core), objects(700, seed=1, core=core).pick(slice(n))
    for one, other in zip(few, many, strict=True):
        torch.testing.assert_close(one, other)


def middle(ink: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where ink lies on average, right and down of the middle, in pixels."""
    side = ink.shape[-1]
    pixels = torch.arange(side) - (side - 1) / 2
    across, down = ink.sum((1, 2)), ink.sum((1, 3))
    return (across * pixels).sum(1) / across.sum(1), (down * pixels).sum(1) / down.sum(1)


def test_digits_follow_the_position_size_and_angle_of_the_object():
    n = 500
    drawn = objects(n, part="train", core="digits").mask
    ink = scans()[0][shown("train", n)]
    size, right, down, turn, long = torch.rand(
        n, 5, generator=generator_for(0, "shapes/train objects")
    ).T
    side = 2 * LARGER * (SIZES[0] + (SIZES[1] - SIZES[0]) * size)
    # Ink at the rim of a scan fades over the rim, and a few digits reach out of the picture.
    ratio = drawn.sum((1, 2, 3)) / (ink.sum((1, 2, 3)) * (side / 8) ** 2)
    assert ratio.median() == pytest.approx(1, abs=0.01)
    assert ratio.min() > 0.85 and ratio.max() < 1.05
    x, y = (side / 8 * place for place in middle(ink))
    stretch, angle = STRETCH ** (long - 0.5), TILT * (2 * turn - 1)
    wanted = torch.complex(x * stretch, y / stretch) * torch.polar(torch.ones(n), angle)
    wanted += REACH * torch.complex(2 * right - 1, 2 * down - 1)
    off = (torch.complex(*middle(drawn)) - wanted).abs()
    assert off.median() < 0.1 and off.quantile(0.95) < 0.5


def test_a_digit_has_one_color_and_no_outline():
    drawn = objects(50, core="digits")
    assert isinstance(drawn, Objects)
    assert torch.equal(drawn.color.amax(dim=(2, 3)), drawn.color.amin(dim=(2, 3)))
    assert drawn.color.amax(dim=1).min() >= 0.6
    assert drawn.mask.min() == 0 and drawn.mask.max() <= 1
    assert 0.1 < objects(1000, core="digits").mask.mean() < 0.13
    assert torch.equal(drawn.color[..., 0, 0], objects(50).color.amax(dim=(2, 3)))


@pytest.fixture(scope="module")
def digits() -> Shift:
    return shapes(core="digits", train=400, id_val=40, id_test=400, ood_test=80)


def test_digits_have_the_positions_of_shapes(digits):
    other = shapes(train=400, id_val=40, id_test=400, ood_test=80)
    behind = (objects(400).mask + objects(400, core="digits").mask == 0).expand(-1, 3, -1, -1)
    assert behind.float().mean() > 0.5
    assert torch.equal(digits.id_test.data.x[behind], other.id_test.data.x[behind])
    assert torch.equal(digits.id_test.data.domain, other.id_test.data.domain)
    assert not torch.equal(digits.id_test.data.x, other.id_test.data.x)
    assert digits.classes == tuple("0123456789") and digits.name == "digits"


def test_every_digit_appears_equally_often_on_every_family(digits):
    assert digits.id_val is not None
    for domain in (*digits.train, digits.id_val, digits.id_test, *digits.ood_tests):
        for family in domain.data.domain.unique():
            counts = torch.bincount(domain.y[domain.data.domain == family], minlength=10)
            assert len(counts.unique()) == 1


def test_the_ood_tests_together_contain_the_digits_of_the_id_test(digits):
    assert torch.equal(torch.cat([d.y for d in digits.ood_tests]), digits.id_test.y)
    full = (objects(400, core="digits").mask == 1).expand(-1, 3, -1, -1)
    ood = torch.cat([d.data.x for d in digits.ood_tests])
    assert full.any()
    torch.testing.assert_close(ood[full], digits.id_test.data.x[full])


def test_every_function_of_shapes_accepts_digits(digits):
    known = objects(200, core="digits")
    assert torch.equal(blended(0, 0.5, n=200, core="digits").mask, known.mask)
    for crossed in factorial(n=20, per_family=1, core="digits"):
        assert torch.equal(crossed.mask, known.mask[:20])
    assert [d.name for d in mild(per_family=20, core="digits")] == [f for f in MILD if f != "paper"]
    assert tuple(d.name for d in pretraining(n=50, core="digits")) == DIVERSE
    kinds: dict[Literal["diverse", "all"], tuple[str, ...]] = {"diverse": DIVERSE, "all": ID + OOD}
    for kind, families in kinds.items():
        taught = pretraining(0, kind, n=10 * len(families), core="digits")
        behind = [backgrounds(f, 10, seed=0, part="pretraining") for f in families]
        masks = objects(10 * len(families), part="pretraining", core="digits").mask
        for k, domain in enumerate(taught):
            outside = (masks[10 * k : 10 * k + 10] == 0).expand(-1, 3, -1, -1)
            assert (domain.data.x - behind[k])[outside].abs().max() < 0.15
    pictures = scenes(ID, 40, core="digits")
    for change in CHANGES:
        changed = counterfactual(
            pictures.x, pictures.mask, change, generator=torch.Generator().manual_seed(0)
        )
        ink = (pictures.mask > 0).expand(-1, 3, -1, -1)
        assert torch.equal(changed[ink], pictures.x[ink])
        assert not torch.equal(changed, pictures.x)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: scenes((*ID, "paper"), 50, core="digits"), "digits are invisible on.*'paper'"),
        (lambda: shapes(core="letters"), "no core 'letters'; choose from .*'digits'"),  # pyright: ignore
        (lambda: mild(core="letters"), "no core 'letters'"),  # pyright: ignore
        (lambda: objects(10, part="tset", core="digits"), "no part 'tset'; choose from .*'test'"),
    ],
)
def test_invalid_arguments_are_rejected_in_one_line(call, line):
    with pytest.raises(ValueError, match=line) as error:
        call()
    assert "\n" not in str(error.value)


def test_shapes_are_drawn_on_every_family_and_paper_is_a_mild_shift():
    assert len(scenes(tuple(FAMILIES), 10 * len(FAMILIES)).y) == 10 * len(FAMILIES)
    assert "paper" in MILD


@pytest.mark.slow
def test_a_small_network_learns_digits_and_fails_on_new_backgrounds():
    shift = shapes(core="digits")
    model = resnet8(seed=0)
    learning = fit(
        model, shift, epochs=8, batch_size=128, step_size=3e-3, weight_decay=0.05,
        seed=0, report_every=1000,
    )  # fmt: skip
    for _ in learning:
        pass
    known = accuracy(model, shift.id_test).share
    new = [accuracy(model, test).share for test in shift.ood_tests]
    assert known > 0.7
    assert sum(new) / len(new) < known - 0.2
