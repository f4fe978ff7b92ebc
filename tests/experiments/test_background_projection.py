"""The background's span projected out of features, gradients and patches."""

import pandas
import pytest
import torch
import torch.nn.functional as F

from contam.experiment import NotJudged
from contam.experiments.background_projection import FULL, LAPTOP, SMOKE
from contam.experiments.background_projection.claims import CLAIMS, ProjectionResults
from contam.experiments.background_projection.config import MAIN, RANDOM
from contam.experiments.background_projection.directions import (
    Pairs,
    drawn,
    environments,
    patch_directions,
    projected,
    restrict,
)
from contam.models.small import resnet8
from contam.training.changes import CHANGES


def test_pairs_show_the_same_object_on_other_backgrounds_of_the_training():
    images = drawn(SMOKE, 0)
    plain, swapped = images.pairs
    assert len(plain) == SMOKE.pairs
    changed = (plain != swapped).any(dim=1)
    assert 0.3 < changed.float().mean() < 1
    shown = images.scenes["train"]
    for image, other in zip(plain[:5], swapped[:5], strict=True):
        (index,) = (shown.x == image).flatten(1).all(dim=1).nonzero()[0]
        whole = shown.mask[index] == 1
        assert torch.equal(image[:, whole[0]], other[:, whole[0]])


def test_a_restricted_convolution_is_blind_to_the_directions_and_stays_so():
    model = resnet8(width=2, seed=0)
    pairs = drawn(SMOKE, 0).pairs
    basis = patch_directions(model, pairs, 5, 0, random=False)
    restrict(model, basis)
    weight = model.get_parameter("encoder.conv.weight")
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        model(pairs.plain[:8]).square().sum().backward()
        optimizer.step()
    weight = weight.detach().flatten(1)
    assert (weight @ basis).norm() < 1e-5 * weight.norm()


def test_patches_of_pairs_differ_most_along_the_main_directions():
    model = resnet8(width=2, seed=0)
    pairs = Pairs(*(part[:6] for part in drawn(SMOKE, 0).pairs))
    patches = [F.unfold(part, 5, padding=2, stride=2).mT.reshape(-1, 75) for part in pairs]
    _, _, directions = torch.linalg.svd((patches[1] - patches[0]).double(), full_matrices=False)
    ours = patch_directions(model, pairs, 3, 0, random=False).double()
    expected = directions[:3].T
    torch.testing.assert_close(ours @ ours.T, expected @ expected.T, rtol=1e-4, atol=1e-4)


def test_all_directions_but_one_leave_little_and_none_leave_all():
    config = SMOKE.model_copy(update={"directions": (1, 7)})
    model = resnet8(width=2, seed=0).eval()
    rows = pandas.DataFrame(projected(config, model, drawn(config, 0), 0))
    shares = rows.set_index(["source", "directions"]).class_share
    assert shares["nothing", 0] == 0
    for source in (MAIN, RANDOM):
        assert 0 <= shares[source, 1] <= shares[source, 7] <= 1 + 1e-9


def results_of(gain: float, *, own: float = 0.9, cost: float = 0.1) -> ProjectionResults:
    """Results of two seeds in which every projection changes OOD accuracy by `gain`."""
    results = object.__new__(ProjectionResults)
    results.config = LAPTOP.model_copy(
        update={"directions": (32,), "gradients": (4,), "environment_gradients": (4,)}
    )
    trained, features = [], []
    for seed in range(2):
        for arm, counts in (("no_change", [0]), ("gradients", [4]),
                            ("environment_gradients", [4]), ("patches", [16]),
                            ("random_patches", [16])):  # fmt: skip
            ood = 0.5 + gain * (arm != "no_change")
            trained += [{"arm": arm, "directions": count, "seed": seed, "id_accuracy": own,
                         "ood_accuracy": ood} for count in counts]  # fmt: skip
        for source in ("nothing", MAIN, RANDOM, "span of as many pairs",
                       "differences of two environments"):  # fmt: skip
            plain = source in ("nothing", RANDOM)
            features.append({
                "state": "trained", "source": source, "seed": seed, "width": 64,
                "directions": 0 if source == "nothing" else 32,
                "id_accuracy": own - (0 if plain else cost), "class_share": 0.5 if plain else 0.9,
                "ood_accuracy": 0.5 + (0 if plain else gain),
            })  # fmt: skip
        features.extend(
            next(row for row in features[::-1] if row["source"] == MAIN) | {"state": state}
            for state in ("untrained", "calibrated")
        )
    results.trained, results.features = map(pandas.DataFrame, (trained, features))
    return results


def test_claims_hold_without_a_gain_and_fail_with_one():
    without, gained = results_of(0.0), results_of(0.2, cost=0.0)
    verdicts = [(claim.judge(without).holds, claim.judge(gained).holds) for claim in CLAIMS]
    # The last claim is about patches against random ones, which are equal here.
    both = (True, True)
    gradients = [(True, False), (True, False), both]
    assert verdicts == [(True, False), (True, False), both, both, *gradients, (False, False)]


def test_environments_have_one_family_each_and_as_many_images_of_every_class():
    shown = drawn(SMOKE, 0).scenes["train"]
    pairs = environments(shown, per_class=2)
    for family, images in enumerate(pairs):
        assert images.shape[:2] == (10, 2)
        for label, shown_images in enumerate(images):
            for image in shown_images:
                (index,) = (shown.x == image).flatten(1).all(dim=1).nonzero()[0].tolist()
                assert (shown.y[index], shown.domain[index]) == (label, family)


def test_networks_that_did_not_learn_are_no_evidence():
    for claim in CLAIMS:
        assert claim.judge(results_of(0.0, own=0.1)).not_judged
    with pytest.raises(NotJudged, match="did not learn"):
        assert CLAIMS[0].given is not None
        CLAIMS[0].given(results_of(0.0, own=0.1))


def test_presets_use_the_change_of_the_training():
    assert "gradient projection" in CHANGES
    assert max(FULL.directions) < 4 * FULL.width and max(FULL.patches) < 75
