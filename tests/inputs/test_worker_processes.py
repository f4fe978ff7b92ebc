"""Loaders with worker processes: what each worker does first, and how the workers start."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from contam.inputs.forms import Options, check_used, read_raw

OPEN: dict[str, torch.Tensor] = {}
"""Files that a worker process has open."""


def open_files(worker: int) -> None:
    """The start of a worker, as users of HDF5 and LMDB write it."""
    info = get_worker_info()
    assert info is not None and info.id == worker
    OPEN["pixels"] = torch.arange(12.0).view(6, 2)


class Opened(Dataset):
    """Readable only where `open_files` was called."""

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        return OPEN["pixels"][number], number % 2

    def __len__(self) -> int:
        return 6


def rows(loader: DataLoader) -> list[float]:
    raw = read_raw(None, loader, "ID", Options())
    assert not raw.left_out()
    domain = raw.make_domain(torch.zeros(6).long(), torch.zeros(6).long(), None)
    return domain.data.x[:, 0].tolist()


def test_files_that_each_worker_opens_are_read():
    loader = DataLoader(Opened(), 2, num_workers=1, worker_init_fn=open_files)
    assert rows(loader) == [0, 2, 4, 6, 8, 10]
    assert not OPEN, "this process opened nothing"


class Closed(Opened):
    """Readable only where `open_in_dataset` gave it its file."""

    pixels: torch.Tensor | None = None

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        assert self.pixels is not None
        return self.pixels[number], number % 2


def open_in_dataset(worker: int) -> None:
    """The start of a worker that keeps the open file in the dataset."""
    info: Any = get_worker_info()
    info.dataset.pixels = torch.arange(12.0).view(6, 2)


def test_files_that_each_worker_opens_in_the_dataset_are_read():
    loader = DataLoader(Closed(), 2, num_workers=1, worker_init_fn=open_in_dataset)
    assert rows(loader) == [0, 2, 4, 6, 8, 10]


@pytest.mark.slow
@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_workers_start_as_the_loader_says(context):
    loader = DataLoader(
        Opened(), 2, num_workers=1, worker_init_fn=open_files, multiprocessing_context=context
    )
    assert rows(loader) == [0, 2, 4, 6, 8, 10]


class Stopped(Opened):
    """Ctrl-C arrives while an example is read."""

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        if number == 3:
            raise KeyboardInterrupt
        return torch.zeros(2), 0


def test_an_interrupt_is_not_taken_for_a_bad_example():
    with pytest.raises(KeyboardInterrupt):
        read_raw(None, Stopped(), "ID", Options())


PAIR = (torch.zeros(2, 3), [0, 1])
UNUSED = {
    "a transform of tensors": ([PAIR], torch.relu, None, "transform= is for images"),
    "a transform of two sets of tensors": ([PAIR, PAIR], torch.relu, None, "transform="),
    "a transform of a dict of tensors": (
        [{"x": torch.zeros(2, 3), "y": [0, 1]}], torch.relu, None, "transform="
    ),
    "keys of tensors": ([PAIR], None, {"x": "scan"}, "keys= names the parts of dicts such as"),
}  # fmt: skip
USED = {
    "a transform of a folder": ([PAIR, Path("images")], torch.relu, None),
    "a transform of a dataset": ([Opened()], torch.relu, None),
    "keys of a dict": ([{"scan": torch.zeros(2, 3), "y": [0, 1]}], None, {"x": "scan"}),
    "keys of batches": ([PAIR, [{"scan": torch.zeros(2, 3), "y": [0, 1]}]], None, {"x": "scan"}),
    "neither": ([PAIR], None, None),
}


@pytest.mark.parametrize("case", UNUSED)
def test_options_without_an_effect_are_refused(case):
    sets, transform, keys, message = UNUSED[case]
    with pytest.raises(ValueError, match=message):
        check_used(sets, transform, keys)


def test_a_domain_column_of_folders_alone_is_refused():
    with pytest.raises(ValueError, match="domain= 'site' names a column of metadata, and folders"):
        check_used(["images", Path("more")], None, None, "site")
    check_used(["images", "labels.csv"], None, None, "site")


@pytest.mark.parametrize("case", USED)
def test_options_with_an_effect_on_one_set_are_accepted(case):
    check_used(*USED[case])
