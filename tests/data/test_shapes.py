"""The embedded benchmark: what is balanced, what is shared, what is disjoint, and what is drawn."""

import colorsys
import itertools

import pytest
import torch
from sklearn.linear_model import LinearRegression

from contam.batch import Domain, Shift
from contam.data.backgrounds import (
    DIVERSE,
    FAMILIES,
    ID,
    MILD,
    OOD,
    SIDE,
    STRIPS,
    backgrounds,
    photographs,
)
from contam.data.colors import rgb
from contam.data.objects import CLASSES, CORES, objects
from contam.data.shapes import (
    Scenes,
    blended,
    diverse_pretraining,
    factorial,
    mild,
    placed,
    pretraining,
    scenes,
    shapes,
    splits,
)


@pytest.fixture(scope="module")
def shift() -> Shift:
    return shapes(0, train=800, id_val=40, id_test=400, ood_test=80)


def every(shift: Shift) -> list[Domain]:
    assert shift.id_val is not None
    return [*shift.train, shift.id_val, shift.id_test, *shift.ood_tests]


def counts(y: torch.Tensor) -> list[int]:
    return torch.bincount(y, minlength=len(CLASSES)).tolist()


def names_of(domain: torch.Tensor) -> set[str]:
    return {list(FAMILIES)[i] for i in domain.unique().tolist()}


def test_shapes_ranges_and_names(shift):
    assert [d.name for d in shift.train] == list(ID)
    assert [d.name for d in shift.ood_tests] == list(OOD)
    assert [len(d) for d in every(shift)] == [200] * 4 + [40, 400] + [80] * 5
    for domain in every(shift):
        x, y, family = domain.data
        assert x.shape == (len(y), 3, SIDE, SIDE)
        assert x.dtype == torch.float32 and y.dtype == family.dtype == torch.int64
        assert x.min() >= 0 and x.max() <= 1
        expected = {domain.name} if domain.name in FAMILIES else set(ID)
        assert names_of(family) == expected


def test_every_class_appears_equally_often_on_every_family(shift):
    for _, y, family in (domain.data for domain in every(shift)):
        for number in family.unique():
            assert len(set(counts(y[family == number]))) == 1


def test_the_ood_tests_together_contain_the_objects_of_the_id_test(shift):
    shown = objects(400, seed=0)
    assert torch.equal(torch.cat([d.data.y for d in shift.ood_tests]), shift.id_test.data.y)
    ood = torch.cat([d.data.x for d in shift.ood_tests])
    whole = (shown.mask == 1).expand_as(ood)
    assert whole.float().mean() > 0.05
    assert torch.equal(ood[whole], shift.id_test.data.x[whole])
    assert (ood != shift.id_test.data.x)[~whole].float().mean() > 0.95


def test_masks_match_the_test_images(shift):
    again = scenes(ID, 400, seed=0)
    assert torch.equal(again.x, shift.id_test.data.x)
    third = scenes(("plaid",), 80, seed=0, first=160)
    empty = third.mask == 0
    behind = backgrounds("plaid", 80, seed=0, part="test")
    noise = objects(240, seed=0).noise[160:]
    expected = (behind + noise).clamp(0, 1)
    assert torch.equal(third.x[empty.expand_as(behind)], expected[empty.expand_as(behind)])
    assert torch.equal(third.x, shift.ood_tests[2].data.x)


def test_splits_are_the_images_of_the_shift_with_masks(shift):
    parts = splits(0, train=800, id_val=40, id_test=400, ood_test=80)
    assert list(parts) == ["train", "id_val", "id_test", *(f"ood/{family}" for family in OOD)]
    learned = torch.cat([d.data.x for d in shift.train])
    # A domain is a family, and in the split the families take turns.
    assert torch.equal(parts["train"].x[parts["train"].domain.argsort(stable=True)], learned)
    tests = [shift.id_val, shift.id_test, *shift.ood_tests]
    for split, domain in zip(list(parts.values())[1:], tests, strict=True):
        for one, other in zip(split.batch, domain.data, strict=True):
            assert torch.equal(one, other)
    masks = torch.cat([parts[f"ood/{family}"].mask for family in OOD])
    assert torch.equal(masks, parts["id_test"].mask)


def test_images_depend_only_on_the_seed_and_the_part():
    first, again = (shapes(1, train=40, id_val=40, id_test=40, ood_test=10) for _ in range(2))
    for one, other in zip(every(first), every(again), strict=True):
        assert torch.equal(one.data.x, other.data.x)
    drawn = [scenes(ID, 40, seed=s, part=p) for s, p in ((1, "test"), (2, "test"), (1, "train"))]
    for one, other in ((0, 1), (0, 2)):
        same = (drawn[one].mask == drawn[other].mask).all(dim=(1, 2, 3))
        assert not same.any()


def test_the_size_and_the_outline_of_an_object():
    shown = objects(1000)
    assert 0.11 < shown.mask.mean() < 0.14
    assert shown.mask.amax(dim=(1, 2, 3)).min() == 1
    border = torch.cat([shown.mask[:, 0, [0, -1]], shown.mask[:, 0, :, [0, -1]].mT], dim=1)
    assert border.mean() < 1e-3
    # From the outside in, an object begins with its dark rim, and has its color in the middle.
    brightness = shown.color.amax(dim=1, keepdim=True)
    edge = (shown.mask > 0) & (shown.mask < 0.5)
    inner = brightness.amax(dim=(2, 3), keepdim=True).expand_as(brightness)
    torch.testing.assert_close(brightness[edge], 0.3 * inner[edge])
    assert inner.min() > 0.5


@pytest.mark.parametrize("core", CORES)
def test_color_and_background_are_independent_of_the_class(core):
    n = 2000
    shown = objects(n, part="train", core=core)
    onehot = torch.nn.functional.one_hot(shown.y).double()
    colors = {
        "object": shown.color.amax(dim=(2, 3)),
        "background": scenes(ID, n, part="train", core=core).x[:, :, 0, 0],
    }
    for color in colors.values():
        # Noise explains 9 / 1999 on average.
        assert LinearRegression().fit(onehot, color).score(onehot, color) < 0.015


def test_an_image_is_background_and_object_blended_by_the_mask():
    shown, behind = objects(10), backgrounds("clouds", 10, seed=0, part="test")
    domain = torch.zeros(10, dtype=torch.int64)
    plain = placed(shown, behind, domain, noisy=False)
    torch.testing.assert_close(plain.x, shown.mask * shown.color + (1 - shown.mask) * behind)
    noise = placed(shown, torch.full_like(behind, 0.5), domain).x - 0.5
    outside = (shown.mask == 0).expand_as(noise)
    assert noise[outside].std() == pytest.approx(0.02, rel=0.03)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("part", STRIPS)
def test_every_family_varies_and_depends_on_its_arguments(family, part):
    x = backgrounds(family, 12, seed=0, part=part)
    assert x.shape == (12, 3, SIDE, SIDE) and x.min() >= 0 and x.max() <= 1
    assert torch.equal(x, backgrounds(family, 12, seed=0, part=part))
    assert not torch.equal(x, backgrounds(family, 12, seed=1, part=part))
    assert x.std(dim=0).mean() > 0.01
    assert len(x.flatten(1).unique(dim=0)) == 12


def test_shifted_backgrounds_are_cool_and_painted_id_backgrounds_are_not():
    def mean_color(family: str) -> torch.Tensor:
        return backgrounds(family, 200, seed=0, part="test").mean(dim=(2, 3)).T

    for family in (*OOD, "cool"):
        red, _, blue = mean_color(family)
        assert torch.all(blue > red)
    for family in ("gradient", "clouds", "stripes"):
        red, green, blue = mean_color(family)
        assert (torch.maximum(red, green) > blue).float().mean() > 0.95


def test_photographs_of_different_parts_show_different_regions():
    photos = photographs()
    strips = sorted(STRIPS.values())
    assert strips[0][0] == 0 and strips[-1][1] == photos.shape[3]
    for (_, end), (begin, _) in itertools.pairwise(strips):
        assert end == begin
    for part, (left, right) in STRIPS.items():
        windows = photos[..., left:right].unfold(2, SIDE, 1).unfold(3, SIDE, 1)
        places = windows.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        for crop in backgrounds("photo", 6, seed=0, part=part):
            either = (places == crop).flatten(1).all(1) | (places == crop.flip(2)).flatten(1).all(1)
            assert either.any()


def test_recolored_photographs_permute_color_channels():
    plain, other = photographs(), backgrounds("any photo", 50, seed=0, part="pretraining")
    pixels = {tuple(color) for color in plain.permute(0, 2, 3, 1).reshape(-1, 3).tolist()}
    for crop in other:
        colors = crop[:, ::8, ::8].flatten(1).T
        orders = [(0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (1, 0, 2), (2, 1, 0)]
        contained = [{tuple(c) for c in colors[:, list(o)].tolist()} <= pixels for o in orders]
        assert any(contained[1:]) and not contained[0]


def test_pretraining_has_other_objects_and_its_named_families():
    diverse, shared = pretraining(n=450), pretraining(0, "all", n=450)
    assert tuple(d.name for d in diverse) == DIVERSE
    assert tuple(d.name for d in shared) == ID + OOD
    assert not set(DIVERSE) & {*ID, *OOD, *MILD}
    assert {len(d) for d in diverse} == {90} and {len(d) for d in shared} == {50}
    for domain in (*diverse, *shared):
        assert len(set(counts(domain.data.y))) == 1
        assert names_of(domain.data.domain) == {domain.name}
    masks = [objects(450, part=part).mask for part in STRIPS]
    looks = torch.cat(masks).flatten(1)
    assert len(looks.unique(dim=0)) == len(looks)


def test_a_larger_dose_of_diversity_adds_families_behind_the_same_objects():
    few, many = (diverse_pretraining(3, k, n=180) for k in (3, 9))
    names = [domain.name for domain in many]
    assert [domain.name for domain in few] == names[:3]
    assert not {*names} & {*OOD} and len({*names}) == 9
    assert {len(domain) for domain in few} == {60} and {len(domain) for domain in many} == {20}
    orders = {diverse_pretraining(seed, 1, n=10)[0].name for seed in range(8)}
    assert len(orders) > 2
    everywhere = objects(180, seed=3, part="pretraining")
    for dose in (few, many):
        x = torch.cat([domain.data.x for domain in dose])
        y = torch.cat([domain.y for domain in dose])
        assert len(x) == 180 and torch.equal(y.bincount(), everywhere.y.bincount())


def test_mild_shifts_contain_the_first_objects_of_the_id_test(shift):
    domains = mild(0, per_family=40)
    assert tuple(d.name for d in domains) == MILD
    whole = (objects(40).mask == 1).expand(-1, 3, -1, -1)
    for domain in domains:
        assert torch.equal(domain.data.x[whole], shift.id_test.data.x[:40][whole])


def test_blending_is_linear_and_changes_only_the_background():
    none, half, full = (blended(0, s, n=200) for s in (0.0, 0.5, 1.0))
    torch.testing.assert_close(half.x, (none.x + full.x) / 2)
    whole = (none.mask == 1).expand_as(none.x)
    assert torch.equal(none.x[whole], full.x[whole])
    assert torch.equal(none.y, full.y) and torch.equal(none.mask, full.mask)
    assert names_of(full.domain) == set(OOD)
    outside = (none.mask == 0).expand_as(none.x)
    blue = [float((s.x[:, 2:] - s.x[:, :1])[outside[:, :1]].mean()) for s in (none, half, full)]
    assert blue[0] < blue[1] < blue[2]


def test_the_factorial_crosses_all_objects_with_all_backgrounds():
    grid = factorial(0, n=20, per_family=2)
    assert len(grid) == 2 * (len(ID) + len(OOD))
    assert [names_of(s.domain).pop() for s in grid[::2]] == list(ID + OOD)
    for one in grid:
        assert isinstance(one, Scenes)
        assert torch.equal(one.y, grid[0].y) and torch.equal(one.mask, grid[0].mask)
        shared = (one.mask[:2] == 0).all(dim=0).expand(3, -1, -1)
        assert torch.equal(one.x[0][shared], one.x[1][shared])
    corners = torch.stack([one.x[0] for one in grid]).flatten(1)
    assert len(corners.unique(dim=0)) == len(grid)


def test_colors_agree_with_the_standard_library():
    hsv = torch.rand(3, 200, 1, generator=torch.Generator().manual_seed(0))
    expected = torch.tensor([colorsys.hsv_to_rgb(*color) for color in hsv[:, :, 0].T.tolist()])
    torch.testing.assert_close(rgb(*hsv), expected)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: shapes(train=4001), "4001 pictures .*choose a multiple of 40, such as 4000"),
        (lambda: shapes(ood_test=5), "multiple of 10, such as 10"),
        (lambda: shapes(id_val=0), "0 pictures"),
        (lambda: pretraining(kind="some"), "choose from .*'diverse', 'all'"),  # pyright: ignore
        (lambda: diverse_pretraining(0, 12), "expected 1 to 11 families, got 12"),
        (lambda: diverse_pretraining(0, 11, core="digits"), "expected 1 to 10 families"),
        (lambda: diverse_pretraining(0, 9, n=80), "0 pictures"),
        (lambda: blended(0, 1.5), "must be in .0, 1., got 1.5"),
        (lambda: blended(0, 0.5, n=100), "multiple of 200"),
        (lambda: factorial(per_family=0), "at least 1 background"),
        (lambda: backgrounds("cheker", 1, seed=0, part="test"), "no family 'cheker'.*'checker'"),
        (lambda: scenes(ID, 40, part="tset"), "no part 'tset'.*'test'"),
    ],
)
def test_invalid_arguments_are_rejected_in_one_line(call, line):
    with pytest.raises(ValueError, match=line) as error:
        call()
    assert "\n" not in str(error.value)
