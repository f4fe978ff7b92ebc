"""Small folders in the true layout of each data set, for the tests."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from contam.batch import Batch, Domain
from contam.data.domainnet import CLASSES, DOMAINS
from contam.training.domainbed import split_domain

COLORS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200))


def picture(
    path: Path, color: tuple[int, int, int] = COLORS[0], *, size: tuple[int, int] = (8, 6)
) -> Path:
    """A one-colored image; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def tree(root: Path, folders: Iterable[str], *, images: int = 2, suffix: str = ".png") -> Path:
    """`root/folder/k.png`; folder number i has color i."""
    for number, folder in enumerate(folders):
        for k in range(images):
            picture(root / folder / f"{k}{suffix}", COLORS[number % len(COLORS)])
    return root


def table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """A file of comma-separated values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def wnids(count: int = 1000) -> tuple[str, ...]:
    """Names of the form that WordNet's numbers have, sorted."""
    return tuple(f"n{1440764 + 1000 * k:08d}" for k in range(count))


def objectnet(root: Path, *, with_border: bool = True) -> Path:
    """Two classes that ImageNet has (one of them twice) and one that it lacks.

    The inside is blue; one pixel of red surrounds it as in the true set.
    """
    names = [f"thing {k}, object {k}" for k in range(1000)]
    folders = {"air_freshener": "Air freshener", "band_aid": "Band Aid", "zipper": "Chair"}
    for folder in folders:
        for k in range(2):
            path = picture(root / "images" / folder / f"{k}.png", (255, 0, 0), size=(12, 10))
            if with_border:
                image = np.array(Image.open(path))
                image[1:-1, 1:-1] = (0, 0, 255)
                Image.fromarray(image).save(path)
    mappings = root / "mappings"
    mappings.mkdir(parents=True)
    # ImageNet's older numbering runs backwards here, so that mixing the two up is seen.
    older = {str(k): 999 - k for k in range(1000)}
    known = {"Band Aid": names[999 - 419], "Chair": f"{names[999 - 765]}; {names[999 - 559]}"}
    for name, content in {
        "folder_to_objectnet_label.json": folders,
        "objectnet_to_imagenet_1k.json": known,
        "pytorch_to_imagenet_2012_id.json": older,
    }.items():
        (mappings / name).write_text(json.dumps(content), "utf-8")
    (mappings / "imagenet_to_label_2012_v2").write_text("\n".join(names) + "\n", "utf-8")
    return root


IWILDCAM_COLUMNS = (
    "", "split", "location_remapped", "location", "sequence_remapped", "seq_id", "y",
    "category_id", "datetime", "filename", "image_id",
)  # fmt: skip


def iwildcam(root: Path, *, images: int = 3, cameras: int = 1) -> Path:
    """Images of each split, of three classes that are in use and one that is not.

    Training images come from so many cameras in turn.
    """
    folder = root / "iwildcam_v2.0"
    rows: list[tuple[object, ...]] = []
    for number, split in enumerate(["train", "val", "test", "id_val", "id_test"] * images):
        name = f"{number:03d}.jpg"
        camera = 7 if split in ("train", "id_val", "id_test") else {"val": 8, "test": 9}[split]
        camera += 10 * (number // 5 % cameras) * (split == "train")
        y = number // 5 % 3
        rows.append(
            (number, split, camera, camera + 100, 0, f"s{number}", y, y + 50,
             "2013-01-01 00:00:00.000", name, name.removesuffix(".jpg"))
        )  # fmt: skip
        picture(folder / "train" / name, COLORS[y])
    # One of the images is gray, as some of the true ones are.
    Image.new("L", (8, 6), 99).save(folder / "train" / "000.jpg")
    table(folder / "metadata.csv", IWILDCAM_COLUMNS, rows)
    categories = [(50, "empty", 0), (51, "tapir", 1), (52, "jaguar", 2), (53, "unicorn", 99999)]
    table(folder / "categories.csv", ("category_id", "name", "y"), categories)
    return root


CAMELYON_COLUMNS = (
    "", "patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split",
)  # fmt: skip


def camelyon17(root: Path, *, training: int = 1) -> Path:
    """Two patches for each of five hospitals and both splits; patients' numbers begin with 0.

    The training hospitals' first split has so many patches of each class.
    """
    folder = root / "camelyon17_v1.0"
    rows: list[tuple[object, ...]] = []
    for center in range(5):
        for split in (0, 1):
            for k in range(2 * training if split == 0 and center not in (1, 2) else 2):
                tumor = k % 2
                patient, x = f"{4 + center:03d}", 100 * split + k
                rows.append((len(rows), patient, 2, x, 33, tumor, 10 * center, center, split))
                person = f"patient_{patient}_node_2"
                path = folder / "patches" / person / f"patch_{person}_x_{x}_y_33.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGBA", (96, 96), (*COLORS[tumor], 128)).save(path)
    table(folder / "metadata.csv", CAMELYON_COLUMNS, rows)
    return root


def domainnet(root: Path, *, train: int = 10, test: int = 5) -> Path:
    """Every domain's two lists over three of the classes, and their images."""
    for domain in DOMAINS:
        for part, count in (("train", train), ("test", test)):
            lines = []
            for k in range(count):
                label, name = ((0, "airplane"), (36, "butterfly"), (39, "donut"))[k % 3]
                path = f"{domain}/{name}/{part} {k}.jpg"
                picture(root / path, COLORS[k % 3])
                lines.append(f"{path} {label}\n")
            lists = root / "SENTRY_splits"
            lists.mkdir(parents=True, exist_ok=True)
            (lists / f"{domain}_{part}_mini.txt").write_text("".join(lines), "utf-8")
    return root


def whole_domainnet(root: Path, *, side: int = 8) -> Path:
    """Two images of noise for each of the forty classes in each list; the class tints them."""
    draws = np.random.default_rng(0)
    lists = root / "SENTRY_splits"
    lists.mkdir(parents=True)
    for domain in DOMAINS:
        for part in ("train", "test"):
            lines = []
            for label, name in enumerate(CLASSES):
                for index in range(2):
                    path = Path(domain, name, f"{part}{index}.png")
                    (root / path).parent.mkdir(parents=True, exist_ok=True)
                    pixels = draws.integers(0, 256, (side, side, 3), dtype=np.uint8)
                    pixels[..., label % 3] //= 4
                    Image.fromarray(pixels).save(root / path)
                    lines.append(f"{path} {label}\n")
            (lists / f"{domain}_{part}_mini.txt").write_text("".join(lines), "utf-8")
    return root


def pacs(root: Path, *, images: int = 3) -> Path:
    """All four domains and seven classes, and the file that is known to be faulty."""
    classes = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
    for domain in ("art_painting", "cartoon", "photo", "sketch"):
        tree(root / "PACS" / domain, classes, images=images)
    (root / "PACS" / "sketch" / "dog" / "n02103406_4068-1.png").write_bytes(b"\x89PNG, broken")
    return root


def chest_xrays(root: Path, kind: str, *, patients: int = 16) -> Path:
    """A set of chest X-rays in the layout of NIH, CheXpert, MIMIC-CXR, or a table of one's own.

    Every second patient has a pneumothorax. The last quarter of the patients is the test.
    """
    marks = [(p, p % 2 == 1, p >= 3 * patients // 4) for p in range(patients)]
    if kind == "nih-cxr":
        header = [
            "Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age",
            "Patient Gender", "View Position", "OriginalImage[Width", "Height]",
            "OriginalImagePixelSpacing[x", "y]", "",
        ]  # fmt: skip
        rows = []
        for p, ill, _ in marks:
            picture(root / f"images_{1 + p % 2:03d}" / "images" / f"{p:08d}_000.png")
            finding = "Effusion|Pneumothorax" if ill else "No Finding"
            rows.append([f"{p:08d}_000.png", finding, 0, p, 50, "FM"[p % 2], "PA", 8, 6, 1, 1, ""])
        table(root / "Data_Entry_2017.csv", header, rows)
        for name, is_test in (("train_val_list.txt", False), ("test_list.txt", True)):
            chosen = [f"{p:08d}_000.png" for p, _, test in marks if test == is_test]
            (root / name).write_text("\n".join(chosen) + "\n", encoding="utf-8")
    elif kind == "chexpert":
        header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "Pneumothorax",
                  "Support Devices"]  # fmt: skip
        for name, folder, is_test in (("train.csv", "train", False), ("valid.csv", "valid", True)):
            rows = []
            for p, ill, test in marks:
                if test != is_test:
                    continue
                path = f"{folder}/patient{p:05d}/study1/view1_frontal.jpg"
                picture(root / path)
                label = "1.0" if ill else "-1.0" if p % 8 == 4 else "0.0" if p % 8 == 2 else ""
                device = "1.0" if ill else ""
                rows.append([f"CheXpert-v1.0-small/{path}", "Male", 50, "Frontal", "AP", label,
                             device])  # fmt: skip
            table(root / name, header, rows)
    elif kind == "mimic-cxr":
        split, labels, metadata = [], [], []
        for p, ill, test in marks:
            person, study, image = f"{10_000_000 + p}", f"{50_000_000 + p}", f"{p:08x}-0000"
            picture(root / "files" / f"p{person[:2]}" / f"p{person}" / f"s{study}" / f"{image}.jpg")
            part = "test" if test else "validate" if p < 4 else "train"
            split.append([image, study, person, part])
            labels.append([person, study, "1.0" if ill else "", "1.0" if ill else "0.0"])
            metadata.append([image, person, study, "CHEST", "AP" if p % 2 else "PA"])
        start = "mimic-cxr-2.0.0"
        table(root / f"{start}-split.csv", ["dicom_id", "study_id", "subject_id", "split"], split)
        table(root / f"{start}-chexpert.csv",
              ["subject_id", "study_id", "Pneumothorax", "Support Devices"], labels)  # fmt: skip
        table(root / f"{start}-metadata.csv",
              ["dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription",
               "ViewPosition"], metadata)  # fmt: skip
    else:
        rows = []
        for p, ill, test in marks:
            picture(root / "scans" / f"{p}.png")
            part = "test" if test else "val" if p < 4 else "train"
            rows.append([f"scans/{p}.png", part, int(ill), "drain" if ill else ""])
        table(root / "table.csv", ["path", "split", "Pneumothorax", "drain"], rows)
    return root


def covered_domainnet(root: Path, *, side: int = 8) -> Path:
    """50 images of each training domain, one of each class in its inner part; 5 of sketch.

    The inner part is that of DomainBed's split of trial 0.
    """
    for domain in DOMAINS:
        labels = torch.zeros(5 if domain == "sketch" else 50, dtype=torch.int64)
        if domain != "sketch":
            numbers = torch.arange(len(labels))
            inner = split_domain(Domain(domain, Batch(numbers, numbers, numbers)), seed=0).inner
            labels[inner.y] = torch.arange(len(CLASSES))
        lines = []
        for number, label in enumerate(labels.tolist()):
            path = f"{domain}/{CLASSES[label]}/{number}.png"
            picture(root / path, COLORS[label % len(COLORS)], size=(side, side))
            lines.append(f"{path} {label}\n")
        lists = root / "SENTRY_splits"
        lists.mkdir(parents=True, exist_ok=True)
        for part, some in (("train", lines[:-2]), ("test", lines[-2:])):
            (lists / f"{domain}_{part}_mini.txt").write_text("".join(some), "utf-8")
    return root
