"""Training by an algorithm: plain PyTorch on a minibatch of every domain, in memory or on disk."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from support.domain_shifts import domains_of_points, point_network
from support.generators import last
from support.networks import assert_same_weights
from torch.optim.lr_scheduler import LambdaLR

from contam.batch import Domain, Shift
from contam.data.images import FolderDomain, pixels
from contam.models.small import small_cnn
from contam.training.algorithms import AlgorithmSettings, fit_algorithm
from contam.training.algorithms.erm import ERM
from contam.training.algorithms.irm import IRM, IRMSettings
from contam.training.minibatches import TrainingExamples
from contam.training.schedule import warmup_cosine

SETTINGS = AlgorithmSettings(step_size=0.01, weight_decay=0.1, batch_size=8)


@pytest.mark.parametrize("cosine", [True, False])
def test_a_training_equals_plain_pytorch(cosine):
    shift = domains_of_points()
    ours, plain = point_network(), point_network()
    erm = ERM(ours, domains=2, classes=2, settings=SETTINGS, seed=0)
    last(fit_algorithm(erm, shift, steps=15, seed=0, report_every=4, cosine=cosine))
    optimizer = torch.optim.Adam(plain.parameters(), 0.01, weight_decay=0.1)

    def factor(step: int) -> float:
        return warmup_cosine(min(step, 14), steps=15, warmup=math.ceil(1.5)) if cosine else 1.0

    scheduler = LambdaLR(optimizer, factor)
    examples = TrainingExamples(shift.train)
    picks = examples.minibatches(8, purpose="algorithm", seed=0, start=0, per_domain=True)
    plain.train()
    for batch in itertools.islice(examples.fetch(picks), 15):
        optimizer.zero_grad()
        F.cross_entropy(plain(batch.x), batch.y).backward()
        optimizer.step()
        scheduler.step()
    assert_same_weights(ours, plain)


def test_every_algorithm_learns_from_the_same_minibatches():
    class Recorded(Domain):
        def fetch(self, picks):
            for batch in super().fetch(picks):
                drawn.append(batch.x)
                yield batch

    shift = domains_of_points()
    domains = tuple(Recorded(domain.name, domain.data) for domain in shift.train)
    recorded = Shift("recorded", shift.classes, domains, domains[0], ())
    minibatches = []
    for kind in (ERM, IRM):
        drawn: list[torch.Tensor] = []
        algorithm = kind(point_network(), domains=2, classes=2, seed=0)
        last(fit_algorithm(algorithm, recorded, steps=3, seed=0, report_every=3))
        minibatches.append(drawn)
    assert len(minibatches[0]) == len(minibatches[1]) and all(map(torch.equal, *minibatches))


def test_a_constant_step_size_follows_a_schedule_that_ended():
    shift, network = domains_of_points(), point_network()
    erm = ERM(network, domains=2, classes=2, settings=SETTINGS, seed=0)
    last(fit_algorithm(erm, shift, steps=9, seed=0, report_every=9))
    assert erm.optimizer.param_groups[0]["lr"] < 0.01
    last(fit_algorithm(erm, shift, steps=1, seed=0, report_every=1, cosine=False))
    assert erm.optimizer.param_groups[0]["lr"] == 0.01


def test_a_schedule_applies_in_the_step_in_which_the_optimizer_is_reset():
    """The first step of Adam has the length of the step size, which is small in the warm-up."""
    shift = domains_of_points()
    settings = IRMSettings(step_size=0.01, batch_size=8, anneal_steps=2)
    network = point_network()
    irm = IRM(network, domains=2, classes=2, settings=settings, seed=0)
    stages = fit_algorithm(irm, shift, steps=100, seed=0, report_every=1, warmup=100)
    weights = network.head.weight
    lengths = []
    before = weights.detach().clone()
    for _ in itertools.islice(stages, 3):
        lengths.append((weights.detach() - before).abs().max().item())
        before = weights.detach().clone()
    assert lengths[0] == pytest.approx(1e-4, rel=1e-2)
    assert lengths[2] == pytest.approx(3e-4, rel=1e-2)


def test_files_and_memory_train_the_same_network(tmp_path):
    generator = torch.Generator().manual_seed(0)
    on_disk = []
    for index, count in enumerate((7, 11)):
        files = []
        for number in range(count):
            values = torch.randint(256, (16, 16, 3), generator=generator, dtype=torch.uint8)
            files.append(tmp_path / f"{index}-{number}.png")
            Image.fromarray(values.numpy()).save(files[-1])
        labels = torch.arange(count) % 2
        on_disk.append(FolderDomain(f"{index}", files, labels, index, pixels, workers=2))
    networks = []
    for domains in (on_disk, [Domain(domain.name, domain.data) for domain in on_disk]):
        networks.append(small_cnn(2, width=2))
        erm = ERM(networks[-1], domains=2, classes=2, settings=SETTINGS, seed=0)
        shift = Shift("noise", ("a", "b"), tuple(domains), domains[0], ())
        last(fit_algorithm(erm, shift, steps=4, seed=0, report_every=4))
    assert_same_weights(*networks)


def test_several_processes_are_rejected(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    erm = ERM(point_network(), domains=2, classes=2, settings=SETTINGS, seed=0)
    with pytest.raises(ValueError, match="train in one process, and the launcher started 2"):
        last(fit_algorithm(erm, domains_of_points(), steps=1, seed=0, report_every=1))
