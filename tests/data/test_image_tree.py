"""Folder trees as users have them: which folders are classes, and what is said of the others."""

import os
import string

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from contam.auditing.prepare import prepare
from contam.data.image_tree import image_tree, natural_key
from contam.data.images import pixels
from contam.data.layout import check
from contam.inputs import read_set


def grow(root, *files: str):
    """Make empty files; braces name several, as in a shell: `{cat,dog}/1.png`."""
    for pattern in files:
        for file in expanded(pattern):
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).touch()
    return root


def expanded(pattern: str) -> list[str]:
    if "{" not in pattern:
        return [pattern]
    before, rest = pattern.split("{", 1)
    names, after = rest.split("}", 1)
    return [file for name in names.split(",") for file in expanded(before + name + after)]


# Name -> files, options, classes, domains, class index of each image, words of the notes
TREES = {
    "class/image": (["{cat,dog}/{1,2}.png"], {}, "cat dog", "", [0, 0, 1, 1], []),
    "domain/class/image": (
        ["{art,photo}/{cat,dog}/1.png"], {}, "cat dog", "art photo", [0, 1, 0, 1],
        ["read as domain/class/image with the domains 'art', 'photo'"],
    ),
    "images in folders below a class": (
        ["cat/1.png", "cat/more/deep/2.png", "dog/3.png"], {}, "cat dog", "", [0, 0, 1],
        ["1 images of 'root' lie in folders below their class, the first in cat/more/deep"],
    ),
    "class/shard/image": (
        ["{cat,dog}/{shard-0,shard-1}/1.png"], {}, "cat dog", "", [0, 0, 1, 1],
        ["read as class/.../image; folders below the classes, such as 'shard-0'"],
    ),
    "class/patient/image": (
        ["ill/{patient1,patient2}/1.png", "well/{patient3,patient4}/1.png"], {}, "ill well", "",
        [0, 0, 1, 1], ["folders below the classes, such as 'patient1', only divide"],
    ),
    "class/name/image": (
        ["ill/{ann,bob}/1.png", "well/{cid,dan}/1.png"], {}, "ill well", "", [0, 0, 1, 1],
        ["such as 'ann'"],
    ),
    "class/images/image": (["{cat,dog}/images/1.png"], {}, "cat dog", "", [0, 1], ["'images'"]),
    "class/split/image": (
        ["{cat,dog}/{train,test}/1.png"], {}, "cat dog", "", [0, 0, 1, 1], ["'test'"],
    ),
    "domains with different classes": (
        ["art/{cat,dog}/1.png", "photo/{cat,dog,fox}/1.png"], {}, "cat dog fox", "art photo",
        [0, 1, 0, 1, 2], ["domains 'art', 'photo'"],
    ),
    "one domain": (
        ["photo/{cat,dog}/1.png"], {}, "cat dog", "photo", [0, 1], ["domains 'photo'"]
    ),
    "a stray image beside the classes of a domain": (
        ["{art,photo}/{cat,dog}/{1,2,3,4,5,6}.png", "art/preview.png"], {}, "cat dog", "art photo",
        [0] * 6 + [1] * 6 + [0] * 6 + [1] * 6, ["1 images beside the class folders"],
    ),
    "numbers, decided by the logits": (
        ["{0,30}/{0,1,2}/1.png"], {"outputs": 3}, "0 1 2", "0 30", [0, 1, 2, 0, 1, 2],
        ["domains '0', '30'"],
    ),
    "numbers, decided by the classes": (
        ["{0,30}/{0,1,2}/1.png"], {"classes": ["0", "1", "2"]}, "0 1 2", "0 30",
        [0, 1, 2, 0, 1, 2], ["domains '0', '30'"],
    ),
    "numbered shards, decided by the logits": (
        ["{cat,dog}/{0,1,2}/1.png"], {"outputs": 2}, "cat dog", "", [0, 0, 0, 1, 1, 1], ["'0'"],
    ),
    "a class without an image": (
        ["{cat,dog}/1.png", "fox/notes.txt"], {}, "cat dog fox", "", [0, 1],
        ["without an image: 'fox'", "1 file of 'root' was passed over: 1 .txt"],
    ),
    "a class that a set lacks": (
        ["{cat,fox}/1.png"], {"classes": ["cat", "dog", "fox"]}, "cat dog fox", "", [0, 2], []
    ),
    "suffixes of images": (
        ["{cat,dog}/a.{jpg,JPEG,jfif,jpe,PNG,webp,avif,jp2,bmp,gif,tif,tiff,ppm,pgm}"], {},
        "cat dog", "", [0] * 14 + [1] * 14, [],
    ),
    "files that are no images": (
        ["{cat,dog}/1.png", "cat/{a,b}.heic", "dog/a.{txt,npy,svg}", "readme", "x.zip", "9.png"],
        {}, "cat dog", "", [0, 1],
        ["8 files of 'root' were passed over: 2 .heic", "convert HEIC", "1 .svg"],
    ),
    "folders and files that systems make": (
        ["{cat,dog}/1.png", "@eaDir/cat/1.png", "__MACOSX/cat/1.png", "cat/@eaDir/1.png",
         "cat/{._1.png,.DS_Store,Thumbs.db}", ".git/1.png", "lost+found/1.png"], {},
        "cat dog", "", [0, 1], [],
    ),
    "numbers in torchvision's order": (
        ["{0,1,2,10}/1.png"], {}, "0 1 10 2", "", [0, 1, 2, 3],
        ["torchvision's order ('10' is number 2), which differs from timm's ('2')"],
    ),
    "numbers in timm's order": (
        ["{0,1,2,10}/1.png"], {"natural": True}, "0 1 2 10", "", [0, 1, 2, 3],
        ["timm's order ('2' is number 2), which differs from torchvision's ('10')"],
    ),
    "capitals in torchvision's order": (
        ["{Apple,banana,Cherry}/1.png"], {}, "Apple Cherry banana", "", [0, 1, 2],
        ["torchvision's order ('Cherry' is number 1)"],
    ),
    "capitals in timm's order": (
        ["{Apple,banana,Cherry}/1.png"], {"natural": True}, "Apple banana Cherry", "", [0, 1, 2],
        ["timm's order"],
    ),
    "an order of the user": (
        ["{0,1,2,10}/1.png"], {"classes": ["10", "2", "1", "0"]}, "10 2 1 0", "", [0, 1, 2, 3], []
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TREES)
def test_a_tree(tmp_path, case):
    files, options, classes, domains, labels, words = TREES[case]
    tree = image_tree(grow(tmp_path / "root", *files), **options)
    assert tree.classes == tuple(classes.split())
    assert tree.domains == tuple(domains.split())
    assert tree.labels.tolist() == labels
    depth = 1 if domains else 0
    for file, label in zip(tree.files, labels, strict=True):
        assert file.relative_to(tree.root).parts[depth] == tree.classes[label]
    said = " ".join(tree.notes)
    assert bool(said) == bool(words)
    for text in words:
        assert text in said


REJECTED = {
    "splits": (["{train,test}/{cat,dog}/1.png"], {}, "holds the splits 'test', 'train'; give one"),
    "splits without classes": (["{train,val}/1.png"], {}, "holds the splits"),
    "numbers below names": (
        ["{cat,dog}/{0,1,2}/1.png"], {},
        r"class/\.\.\./image with the 2 classes 'cat', 'dog', or as domain/class/image with the 3",
    ),
    "images without folders": (["1.png"], {}, "contains no folders"),
    "no images": (["cat/1.txt", "dog/2.npy"], {}, r"holds no images \(1 .npy, 1 .txt passed over"),
    "another class": (
        ["{cat,owl}/1.png"], {"classes": ["cat", "dog"]}, "folder 'owl', which is none of the 2"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REJECTED)
def test_a_tree_that_is_not_clear_is_rejected_in_one_line(tmp_path, case):
    files, options, message = REJECTED[case]
    with pytest.raises(ValueError, match=message) as error:
        image_tree(grow(tmp_path, *files), **options)
    assert "\n" not in str(error.value)


def test_links_and_special_files_neither_loop_nor_hang(tmp_path):
    root = grow(tmp_path / "root", "{cat,dog}/1.png")
    (root / "cat" / "loop").symlink_to(root)
    (root / "cat" / "everything").symlink_to("/")
    (root / "cat" / "self").symlink_to(root / "cat")
    (root / "dog" / "2.png").symlink_to(root / "cat" / "1.png")
    (root / "dog" / "broken.png").symlink_to(root / "nowhere.png")
    os.mkfifo(root / "dog" / "pipe.png")
    tree = image_tree(root)
    assert [str(file.relative_to(root)) for file in tree.files] == [
        "cat/1.png", "dog/1.png", "dog/2.png",
    ]  # fmt: skip
    counted = "3 links to folders above, 2 .png (no regular file)"
    assert f"5 files of 'root' were passed over: {counted}" in tree.notes[-1]


NAMES = st.text(string.ascii_letters + string.digits, min_size=1, max_size=4)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    folders=st.dictionaries(
        st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.integers(0, 2), min_size=1,
        max_size=5,
    )
)  # fmt: skip
def test_every_image_of_any_tree_is_read_or_counted(tmp_path_factory, folders):
    root = tmp_path_factory.mktemp("any") / "root"
    root.mkdir()
    count = 0
    for folder, images in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(images):
            (root / folder / f"{number}.png").touch()
            count += 1
    for layout in ("class", "domain", None):
        try:
            tree = image_tree(root, layout=layout)
        except ValueError as error:
            assert "\n" not in str(error)
            continue
        counted = sum(int(n.split()[0]) for n in tree.notes if "passed over" in n)
        assert len(tree.files) + counted == count
        assert len(set(tree.files)) == len(tree.files)
        assert set(tree.labels.tolist()) <= set(range(len(tree.classes)))


@given(st.lists(st.text(max_size=5), max_size=6))
def test_the_natural_order_is_an_order(names):
    assert sorted(sorted(names, key=natural_key), key=natural_key) == sorted(names, key=natural_key)


# An audit and `contam data check` say the same


def pictures(root, sizes: dict[str, tuple[int, int]]):
    for file, size in sizes.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "gray").save(root / file)
    return root


def network(classes: int = 2) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, classes))


def test_data_check_and_an_audit_say_what_was_passed_over(tmp_path):
    root = pictures(tmp_path / "pets", {"cat/a/1.png": (8, 8), "dog/1.png": (8, 8)})
    grow(root, "cat/{1,2}.txt", "dog/1.heic")
    lines = check("folder", root).lines()
    assert lines[1] == "  found    pets: 2 images"
    assert any("2 .txt" in line and line.startswith("  note ") for line in lines)
    notes = prepare(network(), id=root, reference=None).notes
    assert any("3 files of 'pets' were passed over: 2 .txt, 1 .heic" in note for note in notes)


def test_data_check_rejects_a_class_without_an_image(tmp_path):
    root = pictures(tmp_path / "pets", {"cat/1.png": (8, 8)})
    (root / "dog").mkdir()
    assert "no image of class 'dog'" in check("folder", root).wrong[0]
    pictures(tmp_path / "styles", {"art/cat/1.png": (8, 8), "art/dog/1.png": (8, 8),
                                   "photo/cat/1.png": (8, 8)})  # fmt: skip
    assert "photo: no image of class 'dog'" in check("domains", tmp_path / "styles").wrong[0]


SIZES = {
    "one size": ([(8, 8)] * 3, [(8, 8)] * 3, (8, 8), ""),
    "one odd image": ([(8, 8), (8, 8), (9, 8)], [(8, 8)] * 3, (8, 8), "1 of 3 images of 'id' is"),
    "one odd OOD image": ([(8, 8)] * 3, [(8, 8), (30, 20), (8, 8)], (8, 8), "1 of 3 images of 'o"),
    "an OOD set of another size": ([(8, 8)] * 3, [(16, 16)] * 3, (8, 8), "3 of 3 images of 'ood'"),
    "a wide size": ([(12, 6)] * 3, [(12, 6), (8, 8), (12, 6)], (12, 6), "(8 x 8)"),
    "no common size": ([(8, 8), (9, 9), (7, 7)], [(8, 8)] * 3, (224, 224), "not 224 x 224 pixels"),
}


@pytest.mark.parametrize("case", SIZES)
def test_images_of_all_sets_have_one_size(tmp_path, case):
    own, new, size, said = SIZES[case]
    trees = {
        name: pictures(tmp_path / name, {f"{'cat' if i else 'dog'}/{i}.png": s
                                         for i, s in enumerate(sizes)})
        for name, sizes in (("id", own), ("ood", new))
    }  # fmt: skip
    ready = prepare(network(), id=trees["id"], ood=trees["ood"], reference=None)
    for some in (ready.inputs.id, *ready.inputs.ood):
        assert some.domain.data.x.shape[-2:] == size[::-1]
    notes = [note for note in ready.notes if "pixels" in note]
    assert bool(notes) == bool(said)
    if said:
        assert said in notes[-1] and ".png" in notes[-1] and "transform=" in notes[-1]


def test_images_of_a_folder_get_the_size_of_an_id_set_in_memory(tmp_path):
    root = pictures(tmp_path / "ood", {"0/1.png": (10, 10), "1/1.png": (10, 10)})
    data = torch.rand(4, 3, 8, 8), torch.arange(4) % 2
    ready = prepare(network(), id=iter([data]), ood=root, reference=None)
    assert ready.inputs.ood[0].domain.data.x.shape == (2, 3, 8, 8)
    assert any("are not 8 x 8 pixels" in note for note in ready.notes)


def test_a_single_odd_image_changes_no_other_image(tmp_path):
    """Crops of 224 pixels of all images were the answer before."""
    sizes = {f"{name}/{i}.png": (8, 8) for name in ("cat", "dog") for i in range(3)}
    plain = read_set(pictures(tmp_path / "a", sizes)).domain.data.x
    odd = read_set(pictures(tmp_path / "b", sizes | {"dog/9.png": (40, 20)})).domain.data.x
    assert torch.equal(odd[:6], plain)


# The order of classes


class OfTimm(nn.Linear):
    """A network whose class says that timm made it."""


OfTimm.__module__ = "timm.models.mine"


def test_networks_of_timm_get_the_order_of_timm(tmp_path):
    """With torchvision's order, a perfect network has an accuracy of 2 / 12 here."""
    root = tmp_path / "digits"
    for number in range(12):
        folder = root / str(number)
        folder.mkdir(parents=True)
        image = Image.new("L", (4, 4))
        image.putpixel((number % 4, number // 4), 255)
        for copy in range(2):
            image.save(folder / f"{copy}.png")

    def accuracy(model: nn.Linear) -> float:
        with torch.no_grad():
            model.weight.zero_()
            model.bias.zero_()
            for number in range(12):
                model.weight[number, number] = 1.0
        inputs = prepare(
            nn.Sequential(nn.Flatten(), model) if type(model) is nn.Linear else model, id=root,
            transform=lambda image: pixels(image)[0].flatten(), reference=None, control=False,
        ).inputs  # fmt: skip
        data = inputs.id.domain.data
        return float((inputs.model(data.x).argmax(1) == data.y).double().mean())

    assert accuracy(OfTimm(16, 12)) == 1.0
    assert accuracy(nn.Linear(16, 12)) == 2 / 12
