"""Figure 14 and Table 5: images, domain errors, and the published benchmark."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.experiment_runs import run_experiment
from support.sources import tiny_source_with_head, write_weights
from torch import nn

from contam.batch import Domain
from contam.data.pacs import CLASSES, DOMAINS
from contam.experiments import fig14_separability as fig14
from contam.experiments.fig14_separability import EXPERIMENT, PAPER, SMOKE
from contam.experiments.support.domain_images import domains_of
from contam.experiments.support.model_zoo import ModelZoo
from contam.experiments.support.networks import CAPTIONED, ERM, TEACHER, TINY_NETWORKS
from contam.experiments.support.zoo_images import Captioner, captions
from contam.models.small import resnet8
from contam.training.probe import FullBatch


def zoo(root: Path = Path("nowhere")) -> ModelZoo:
    return ModelZoo(TINY_NETWORKS, 0, root)


class Backgrounds(nn.Module):
    """Features that are the family of a background, and nothing else."""

    def __init__(self, parts: list[Domain]) -> None:
        super().__init__()
        self.domain = torch.cat([part.origin for part in parts])
        self.done = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.done += len(x)
        families = self.domain[self.done - len(x) : self.done]
        return torch.nn.functional.one_hot(families, 11).float()


def test_domain_error_is_zero_for_backgrounds_and_chance_for_constants(
    monkeypatch,
):
    some = zoo()
    parts = domains_of(some.benchmark(ERM).shift)
    network = resnet8(10, width=4)
    monkeypatch.setattr(some, "network", lambda _member: network)
    network.encoder = Backgrounds(parts)
    row, arrays = fig14.separated(SMOKE, some, ERM)
    assert row["error"] == 0
    assert len(row["domains"]) == 9 and row["id_domains"] == row["domains"][:4]
    assert len(arrays["points"]) == 9 * SMOKE.drawn
    assert arrays["y"].max() < fig14.SHAPES
    network.encoder = Backgrounds(parts)
    network.encoder.domain = network.encoder.domain * 0 + (torch.arange(400) % 7 == 0)
    row, _ = fig14.separated(SMOKE, some, ERM)
    assert row["error"] > 0.75 and row["guessing"] > 0.75


def test_many_id_domains_share_one_color():
    row = {"network": "net", "id_domains": ["a", "b"], "classes": ["x", "y"]}
    arrays = {
        "points": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "domain": torch.tensor([0.0, 2.0]),
        "y": torch.tensor([1.0, 0.0]),
    }
    few = fig14.plotted(row | {"domains": ["a", "b", "c"]}, arrays)
    assert [(point["domain"], point["class"]) for point in few] == [("a", "y"), ("c", "x")]
    many = fig14.plotted(row | {"domains": list("abcdefgh")}, arrays)
    assert [point["domain"] for point in many] == ["ID", "c"]


def test_the_loss_of_captions_is_the_sum_of_both_losses():
    """By another way: the log-likelihood of a pair is that of the object plus the background's."""
    model = resnet8(10, width=4)
    captioner = Captioner(model, 9).eval()
    x = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    y, behind = torch.arange(12) % 10, torch.arange(12) % 9
    loss = nn.functional.cross_entropy
    features = model.encoder.eval()(x)
    apart = loss(captioner.things(features), y) + loss(captioner.backgrounds(features), behind)
    torch.testing.assert_close(loss(captioner(x), 9 * y + behind), apart)


def test_classes_of_captions_are_pairs_of_object_and_background():
    shift = zoo().benchmark(TEACHER).shift
    captioned = captions(TINY_NETWORKS, shift, seed=0)
    assert len(captioned.classes) == 90 and len(captioned.train) == 9
    for domain in captioned.train:
        assert {captioned.classes[y].split(" on ")[1] for y in domain.y.tolist()} == {domain.name}
    objects = torch.cat([domain.y for domain in captioned.train]) // 9
    assert torch.equal(objects.bincount(), torch.full((10,), len(objects) // 10))
    elsewhere = TINY_NETWORKS.model_copy(update={"data": "pacs"})
    with pytest.raises(ValueError, match="captions exist only for shapes, not for pacs"):
        captions(elsewhere, shift, seed=0)


def test_a_captioned_teacher_is_trained_and_saved(tmp_path):
    for _ in zoo(tmp_path).train([CAPTIONED]):
        pass
    again = zoo(tmp_path)
    assert [row["role"] for row in again.judge(CAPTIONED)] == ["id"] + ["ood"] * 5
    assert again.network(CAPTIONED).head.out_features == 10


def pacs_tree(root: Path) -> Path:
    """Three images of each class in each style, on the true layout."""
    draws = np.random.default_rng(0)
    for style, domain in enumerate(DOMAINS):
        for label, thing in enumerate(CLASSES):
            folder = root / "PACS" / domain / thing
            folder.mkdir(parents=True)
            for k in range(3):
                pixels = draws.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                pixels[..., label % 3] //= 4
                Image.fromarray(pixels // (style + 1)).save(folder / f"{k}.png")
    return root


def test_the_paper_preset_runs_on_pacs(tmp_path):
    """Teacher and standard network from files, on the true layout."""
    name = write_weights(tmp_path / "weights", tiny_source_with_head)
    recipe = PAPER.networks.standard_recipe
    assert recipe is not None
    networks = PAPER.networks.model_copy(
        update={"folder": pacs_tree(tmp_path / "data"), "weights": tmp_path / "weights"}
        | {"teacher": name, "standard": name, "probe": FullBatch(iterations=20)}
        | {"standard_start_from": name, "standard_recipe": replace(recipe, steps=3)}
    )
    run = run_experiment(
        EXPERIMENT, PAPER.model_copy(update={"networks": networks, "drawn": 5}), tmp_path / "runs"
    )
    row = run.table("net/").iloc[0]
    assert row["domains"] == ["art_painting", "cartoon", "photo", "sketch"]
    assert row["count"] == 4 * 21 and row["tested"] == 4 * 4
    claims = EXPERIMENT.claims(run)
    assert claims[0].holds and claims[1].holds
    # Three steps on a few images teach little.
    assert all(
        c.observed is not None or "did not learn" in (c.not_judged or "") for c in claims[2:5:2]
    )
    assert "no captioned teacher" in (claims[3].not_judged or "")
    assert "too few" in (claims[-1].not_judged or "")
    assert all(not panel.empty for figure in EXPERIMENT.draw(run) for panel in figure.panels)
    assert "on features: teacher" in EXPERIMENT.summary(run)


def test_the_paper_preset_reports_missing_pacs_files(tmp_path):
    networks = PAPER.networks.model_copy(
        update={"folder": tmp_path / "none", "teacher": "torchvision:resnet18"}
    )
    with pytest.raises(ValueError, match=rf"is not a complete pacs: missing .*{tmp_path}/none"):
        run_experiment(
            EXPERIMENT, PAPER.model_copy(update={"networks": networks}), tmp_path / "runs"
        )
