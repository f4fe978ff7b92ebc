"""Minibatches from files are those from memory, whoever reads them and wherever one starts."""

import itertools
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contam.batch import Batch, Domain, Shift
from contam.data.images import FolderDomain, cropped_and_flipped, pixels
from contam.inputs.lazy_files import FileDecoder, LazyFolderDomain
from contam.models.classifier import Classifier
from contam.models.small import small_cnn
from contam.training.distill import Distillation, distill
from contam.training.minibatches import MicroBatch, TrainingExamples
from contam.training.supervised import fit

SIZES = (13, 7, 11)


@pytest.fixture(scope="module")
def domains(tmp_path_factory) -> list[FolderDomain]:
    """Three folders of images of noise."""
    root = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    folders = []
    for index, count in enumerate(SIZES):
        files = []
        for number in range(count):
            values = torch.randint(256, (16, 16, 3), generator=generator, dtype=torch.uint8)
            files.append(root / f"{index}-{number}.png")
            Image.fromarray(values.numpy()).save(files[-1])
        folders.append(FolderDomain(f"{index}", files, torch.arange(count) % 3, index, pixels))
    return folders


def in_memory(domains) -> list[Domain]:
    return [Domain(domain.name, domain.data) for domain in domains]


def with_workers(domains, workers, augment=None) -> list[FolderDomain]:
    return [
        FolderDomain(d.name, d.files, d.y, d.origin, d.transform, workers=workers, augment=augment)
        for d in domains
    ]


def taken(domains, count=9, *, parts=1, own=range(1), start=0) -> list[tuple[MicroBatch, ...]]:
    shares = TrainingExamples(domains).micro_batches(
        10, parts=parts, own=own, purpose="test", seed=0, start=start
    )
    return list(itertools.islice(shares, count))


def assert_equal(ours: list[tuple[MicroBatch, ...]], theirs: list[tuple[MicroBatch, ...]]) -> None:
    for one, other in zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True):
        assert (one.place, one.weight) == (other.place, other.weight)
        assert torch.equal(one.numbers, other.numbers)
        assert all(map(torch.equal, one.batch, other.batch))


@pytest.mark.parametrize("workers", [0, 1, 5])
def test_files_and_memory_give_the_same_minibatches(domains, workers):
    assert_equal(taken(with_workers(domains, workers)), taken(in_memory(domains)))


@pytest.mark.parametrize("max_bytes", [None, 0])
def test_folders_of_users_and_memory_give_the_same_minibatches(domains, max_bytes):
    lazy = []
    for domain in domains:
        decoder = FileDecoder(domain.name, domain.files, pixels, workers=2, max_bytes=max_bytes)
        lazy.append(LazyFolderDomain(decoder, domain.y, domain.origin))
    for _ in range(2):  # the second pass takes kept images from memory
        assert_equal(taken(lazy), taken(in_memory(domains)))


def test_a_domain_without_an_example_in_a_minibatch_gives_an_empty_batch(domains):
    decoder = FileDecoder("few", domains[0].files, pixels)
    lazy = LazyFolderDomain(decoder, domains[0].y, domains[0].origin)
    none, some = torch.empty(0, dtype=torch.int64), torch.tensor([2, 0])
    sizes = [len(batch.y) for batch in lazy.fetch([(none, none), (some, some)])]
    assert sizes == [0, 2]


def test_augmented_folders_of_users_are_those_of_published_sets(domains):
    augment = cropped_and_flipped(16)
    decoder = FileDecoder("0", domains[0].files, pixels)
    lazy = LazyFolderDomain(decoder, domains[0].y, domains[0].origin)
    assert_equal(taken([lazy.augmented(augment)]), taken([domains[0].augmented(augment)]))


def test_a_minibatch_is_drawn_from_all_domains_together(domains):
    whole = Batch(*map(torch.cat, zip(*(d.data for d in domains), strict=True)))
    for (share,) in taken(domains):
        assert all(map(torch.equal, share.batch, whole.pick(share.numbers)))
    numbers = torch.cat([share.numbers for (share,) in taken(domains, 3)])
    assert len(numbers.unique()) == 30  # of 31: an epoch shows none twice


@pytest.mark.parametrize("start", [1, 3, 4])
def test_augmented_minibatches_do_not_depend_on_workers_or_the_first_step(domains, start):
    flip = cropped_and_flipped(16, scale=(0.3, 1))
    ours = taken(with_workers(domains, 3, flip), start=start, count=5)
    assert_equal(ours, taken(with_workers(domains, 0, flip))[start : start + 5])


def test_augmentations_differ_between_epochs_and_depend_only_on_the_seed(domains):
    flip = cropped_and_flipped(16, scale=(0.3, 1))
    shown: dict[int, list[torch.Tensor]] = {}
    for (share,) in taken(with_workers(domains, 2, flip), 6):
        for number, x in zip(share.numbers.tolist(), share.batch.x, strict=True):
            shown.setdefault(number, []).append(x)
    twice = [versions for versions in shown.values() if len(versions) == 2]
    assert len(twice) == 29
    assert not any(torch.equal(one, other) for one, other in twice)


@given(parts=st.integers(1, 10), data=st.data())
def test_micro_batches_concatenate_to_the_minibatch(parts, data):
    x = torch.arange(31.0)
    domain = Domain("numbers", Batch(x, x.long(), x.long()))
    cut = data.draw(st.integers(0, parts))
    whole = taken([domain])
    halves = [
        taken([domain], parts=parts, own=own)
        for own in (range(cut), range(cut, parts))
        if len(own) > 0
    ]
    for (share,), *pieces in zip(whole, *halves, strict=True):
        whole_step = [piece for part in pieces for piece in part]
        assert torch.equal(torch.cat([piece.batch.x for piece in whole_step]), share.batch.x)
        assert sum(piece.weight for piece in whole_step) == pytest.approx(1)
        assert len({piece.place for piece in whole_step}) == parts


def test_training_prefetches_a_few_minibatches(domains):
    first = domains[0]
    many = list(first.files) * 100
    y = torch.arange(len(many)) % 3
    decoded = []

    def counting(image):
        decoded.append(image.size)
        return pixels(image)

    domain = FolderDomain("many", many, y, 0, counting)
    stages = fit(
        small_cnn(3, width=2), Shift("s", ("a", "b", "c"), (domain,), domain, ()),
        epochs=1, batch_size=10, step_size=1e-3, weight_decay=0.0, seed=0, report_every=1,
    )  # fmt: skip
    assert isinstance(stages, Iterator)
    next(stages)
    assert 10 <= len(decoded) <= 40  # one minibatch in use, one that is waited for, two ahead
    stages.close()  # pyright: ignore[reportAttributeAccessIssue], it is a generator


@pytest.mark.parametrize("how", ["fit", "distill"])
def test_training_from_files_and_memory_gives_the_same_network(domains, how):
    ends = []
    for train in (tuple(domains), tuple(in_memory(domains))):
        shift = Shift("noise", ("a", "b", "c"), train, train[0], ())
        model = small_cnn(3, width=2)
        if how == "fit":
            stages = fit(
                model, shift, epochs=2, batch_size=10, step_size=1e-2, weight_decay=0.0,
                seed=0, report_every=100,
            )  # fmt: skip
        else:
            teacher, recipe = small_cnn(3, width=2, seed=1).encoder, Distillation(1e-2, 0, 10, 2)
            stages = distill(model.encoder, teacher, shift, recipe, seed=0, report_every=100)
        assert list(stages)[-1].step == 6
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_teacher_and_student_get_the_same_inputs(domains):
    """Examples that are augmented on their way differ each time, so nothing of them is kept."""
    flip = cropped_and_flipped(16, scale=(0.3, 1))
    shift = Shift("noise", ("a", "b", "c"), tuple(with_workers(domains, 2, flip)), domains[0], ())
    inputs: dict[str, list[torch.Tensor]] = {"teacher": [], "student": []}
    networks = {"teacher": small_cnn(3, width=2, seed=1), "student": small_cnn(3, width=2)}

    def watch(network: Classifier, shown: list[torch.Tensor]) -> None:
        network.encoder.register_forward_pre_hook(lambda _, x: shown.append(x[0].clone()))

    for role, network in networks.items():
        watch(network, inputs[role])
    teacher, student = (networks[role].encoder for role in ("teacher", "student"))
    list(distill(student, teacher, shift, Distillation(1e-3, 0, 10, 2), seed=0, report_every=100))
    assert len(inputs["teacher"]) == 6
    assert all(map(torch.equal, inputs["teacher"], inputs["student"]))


def test_every_domain_gives_as_many_examples_and_a_later_start_gives_the_same(domains):
    examples = TrainingExamples(in_memory(domains))

    def picks(start: int, count: int) -> list[torch.Tensor]:
        drawn = examples.minibatches(5, purpose="test", seed=0, start=start, per_domain=True)
        return [numbers for numbers, _ in itertools.islice(drawn, count)]

    ends = torch.tensor(SIZES).cumsum(0)
    for numbers in picks(0, 50):
        assert torch.bucketize(numbers, ends, right=True).bincount().tolist() == [5, 5, 5]
    assert torch.cat(picks(0, 50)).unique().tolist() == list(range(sum(SIZES)))
    assert torch.equal(torch.stack(picks(3, 4)), torch.stack(picks(0, 7)[3:]))


def test_parts_of_minibatches_from_every_domain_weigh_one_together(domains):
    steps = TrainingExamples(in_memory(domains)).micro_batches(
        5, parts=4, own=range(4), purpose="test", seed=0, start=0, per_domain=True
    )
    parts = next(steps)
    assert sum(part.weight for part in parts) == pytest.approx(1)
    assert sum(len(part.numbers) for part in parts) == 15


def test_minibatches_from_every_domain_have_no_epochs(domains):
    shift = Shift("three", ("a", "b", "c"), tuple(in_memory(domains)), domains[0], ())
    recipe = Distillation(1e-3, 0.0, 5, epochs=1, per_domain=True)
    encoder = small_cnn(3, width=4).encoder
    with pytest.raises(ValueError, match="no epochs; set steps"):
        next(distill(encoder, encoder, shift, recipe, seed=0, report_every=1))
