"""Tables of images: files and data frames, columns, rows, roots, groups, and what is refused."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from contam import audit
from contam.inputs import ImageTable, as_batches, as_domain, from_folder, from_table, read_set
from contam.inputs.table_files import read_table, table_of

ROWS = [
    {"path": "a/0.png", "label": "cat", "domain": "day", "split": "train"},
    {"path": "a/1.png", "label": "dog", "domain": "day", "split": "val"},
    {"path": "b/2.png", "label": "cat", "domain": "night", "split": "val"},
    {"path": "b/3.png", "label": "ant", "domain": "night", "split": "val"},
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with four images of different gray values, as the working directory."""
    monkeypatch.chdir(tmp_path)
    for number, row in enumerate(ROWS):
        path = tmp_path / "images" / row["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (51 * number,) * 3).save(path)
    return tmp_path


def frame(**changed) -> pd.DataFrame:
    return pd.DataFrame(ROWS).assign(**changed)


def with_bom(path):
    path.write_text("\ufeff" + frame().to_csv(index=False), encoding="utf-8")


FORMATS = {
    "comma-separated": ("t.csv", lambda p: frame().to_csv(p, index=False)),
    "semicolons, as Excel writes in Europe": (
        "t.csv",
        lambda p: frame().to_csv(p, index=False, sep=";"),
    ),
    "a byte order mark, as Excel writes": ("t.csv", with_bom),
    "an index column, as pandas writes": ("t.csv", lambda p: frame().to_csv(p)),
    "an upper-case suffix": ("T.CSV", lambda p: frame().to_csv(p, index=False)),
    "tabs": ("t.tsv", lambda p: frame().to_csv(p, index=False, sep="\t")),
    "JSON, a list of records": ("t.json", lambda p: frame().to_json(p, orient="records")),
    "JSON, a dict of columns": (
        "t.json",
        lambda p: p.write_text(json.dumps(frame().to_dict("list"))),
    ),
    "JSON Lines": ("t.jsonl", lambda p: frame().to_json(p, orient="records", lines=True)),
    "Parquet": ("t.parquet", lambda p: frame().to_parquet(p)),
}


@pytest.mark.parametrize("case", FORMATS)
def test_every_format_gives_the_same_domain(case, place):
    name, write = FORMATS[case]
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    write(place / "images" / name)
    domain = from_table(f"images/{name}")
    assert domain.classes == ("ant", "cat", "dog")
    assert domain.y.tolist() == [1, 2, 1, 0]
    assert [round(float(x.mean()), 1) for x in domain.data.x] == [0.0, 0.2, 0.4, 0.6]
    assert domain.data.domain.tolist() == [0, 0, 1, 1]


COLUMNS = {
    "usual names in capitals": ({"path": "Filename", "label": "Class"}, {}),
    "the columns of Hugging Face's image folders": ({"path": "file_name", "label": "label"}, {}),
    "names that are given": (
        {"path": "scan", "label": "diagnosis"},
        {"path": "scan", "label": "diagnosis"},
    ),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_columns_are_found_or_named(case, place):
    names, given = COLUMNS[case]
    domain = from_table(frame().rename(columns=names), root="images", **given)
    assert domain.y.tolist() == [1, 2, 1, 0]


def test_keys_name_the_columns_as_they_name_the_parts_of_dicts(place):
    table = ImageTable(frame().rename(columns={"label": "diagnosis"}), root="images")
    assert as_domain(table, keys={"y": "diagnosis"}).y.tolist() == [1, 2, 1, 0]


@pytest.mark.parametrize("where", [{"split": "val"}, {"split": ["val", "test"]}])
def test_rows_are_chosen_by_the_values_of_a_column(where, place):
    assert len(from_table(frame(), root="images", where=where)) == 3


def test_a_path_with_a_choice_of_rows_is_a_data_set(place):
    frame().to_csv("images/t.csv", index=False)
    data = read_set("images/t.csv:split=val,domain=night")
    assert data.name == "val night"
    assert data.domain.y.tolist() == [1, 0]
    assert sum(len(batch.y) for batch in as_batches("images/t.csv", 2)) == 4


def test_a_pattern_joins_the_files_it_matches(place):
    for folder in "ab":
        rows = [{**r, "path": r["path"][2:]} for r in ROWS if r["path"].startswith(folder)]
        pd.DataFrame(rows).to_csv(place / "images" / folder / "part.csv", index=False)
    domain = from_table("images/*/part.csv")
    assert domain.y.tolist() == [1, 2, 1, 0]


def test_several_group_columns_are_combined(place):
    domain = read_set(
        ImageTable(frame(), domain=["domain", "split"], root="images")
    ).domain.data.domain
    assert domain.tolist() == [0, 1, 2, 2]


def test_a_column_that_differs_on_every_row_is_no_domain_unless_it_is_named(place):
    rows = pd.DataFrame(ROWS * 8).assign(domain=range(32))
    plain, named = (ImageTable(rows, domain=d, root="images") for d in (None, "domain"))
    assert read_set(plain).domain.data.domain.unique().tolist() == [0]
    assert len(read_set(named).domain.data.domain.unique()) == 32


LABELS = {
    "whole numbers": ([0, 11, 2, 1], [0, 11, 2, 1]),
    "whole numbers as texts": (["0", "11", "2", "1"], [0, 11, 2, 1]),
    "floats that are whole": ([0.0, 11.0, 2.0, 1.0], [0, 11, 2, 1]),
    "names": (["b", "a", "b", "a"], [1, 0, 1, 0]),
    "names with spaces around them": ([" b", "a ", "b", "a"], [1, 0, 1, 0]),
    "categories of pandas": (pd.Categorical(["b", "a", "b", "a"]), [1, 0, 1, 0]),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_of_a_table(case, place):
    labels, y = LABELS[case]
    assert from_table(frame(label=labels), root="images").y.tolist() == y


def test_numbers_that_are_names_of_classes_are_matched_by_name(place):
    labels = frame(label=["30", "7", "30", "7"])
    assert from_table(labels, root="images", classes=["7", "30"]).y.tolist() == [1, 0, 1, 0]


WORDS = {
    "words that pandas takes for missing values": (["None", "nan", "NA", "null"], [1, 2, 0, 3]),
    "numbers with zeros in front": (["001", "010", "100", "002"], [0, 2, 3, 1]),
}


@pytest.mark.parametrize("case", WORDS)
def test_labels_that_other_readers_change_are_names(case, place):
    labels, y = WORDS[case]
    frame(label=labels).to_csv("images/t.csv", index=False)
    assert from_table("images/t.csv").y.tolist() == y


def test_paths_without_a_suffix_get_that_of_the_images(place):
    table = ImageTable(frame(path=[row["path"][:-4] for row in ROWS]), root="images")
    data = read_set(table)
    assert sum(len(batch.y) for batch in data.domain.batches(4)) == 4
    assert any(".png was added" in note for note in data.notes)


def test_numbers_in_a_table_and_folders_of_numbers_are_the_same_classes(place):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 12))
    numbers = [2, 10, 11, 0]
    for row, number in zip(ROWS, numbers, strict=True):
        (place / "tree" / str(number)).mkdir(parents=True)
        (place / "images" / row["path"]).rename(place / "tree" / str(number) / "x.png")
    table = frame(path=[f"{number}/x.png" for number in numbers], label=numbers)
    names = [str(k) for k in range(12)]
    record = audit(
        network, id=ImageTable(table, root="tree"), ood={"folder": "tree"}, classes=names,
        reference=None, progress=False,
    ).evidence  # fmt: skip
    first, second = record.sets
    assert first.by_class == second.by_class


def test_paths_of_windows_are_read(place):
    paths = [row["path"].replace("/", "\\") for row in ROWS]
    assert len(from_table(frame(path=paths), root="images").data.x) == 4


def test_rows_without_a_label_are_left_out_and_counted(place):
    table = ImageTable(frame(label=["cat", None, "dog", float("nan")]), root="images")
    data = read_set(table)
    assert len(data.domain) == 2
    assert "2 of 4 rows of the table have no path or no label." in data.notes


def test_missing_images_are_left_out_and_counted(place):
    (place / "images" / ROWS[1]["path"]).unlink()
    data = read_set(ImageTable(frame(), root="images"))
    assert sum(len(batch.y) for batch in data.domain.batches(2)) == 3
    line = "1 of 4 examples of 'table' were left out; the first, number 1 (1.png), is missing: "
    assert any(note.startswith(line) for note in data.notes)
    with pytest.raises(ValueError, match=r"a/1.png is missing: there is no such file"):
        list(from_table(frame(), root="images").batches(2))


REFUSED = {
    "no such file": (lambda: from_table("nix.csv"), "no table at nix.csv"),
    "no file matches a pattern": (lambda: from_table("x*.csv"), "no file matches x"),
    "no such column": (
        lambda: from_table(frame(), label="race", root="images"),
        "no column 'race'; it has 'path'",
    ),
    "no column of paths": (
        lambda: from_table(frame().drop(columns="path")),
        "which holds the path of each image",
    ),
    "no column of labels": (
        lambda: from_table(frame().drop(columns="label")),
        "which holds the label of each image",
    ),
    "no such split": (
        lambda: from_table(frame(), where={"split": "test"}, root="images"),
        "no row with split test; it has 'train', 'val'",
    ),
    "another root": (lambda: from_table(frame(), root="scans"), "give the folder .* as root="),
    "addresses": (
        lambda: from_table(frame(path=["https://a.org/1.png"] * 4)),
        "nothing is downloaded",
    ),
    "real numbers as labels": (
        lambda: from_table(frame(label=[0.5, 1.25, 2.0, 3.0]), root="images"),
        "an audit needs classes",
    ),
    "a column of records": (
        lambda: from_table(frame(path=[{"bytes": b""}] * 4)),
        "datasets.load_dataset",
    ),
    "no complete row": (
        lambda: from_table(frame(label=[None] * 4), root="images"),
        "no row with a path and a label",
    ),
    "a spreadsheet": (
        lambda: Path("t.xlsx").write_bytes(b"PK") and from_table("t.xlsx"),
        "t.xlsx is no table that can be read; tables are .csv",
    ),
    "a spreadsheet as data": (
        lambda: Path("t.xlsx").write_bytes(b"PK") and as_domain("t.xlsx"),
        "t.xlsx is neither a folder nor a table that can be read; tables are .csv",
    ),
    "a choice without a value": (lambda: from_table(table_of("t.csv:val")), "chooses no rows"),
    "a label that is no class": (
        lambda: from_table(frame(), root="images", classes=["cat", "dog"]),
        "'ant' is none of the 2",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_read_gets_one_line(case, place):
    read, line = REFUSED[case]
    with pytest.raises(ValueError, match=line) as caught:
        read()
    assert "\n" not in str(caught.value)


HOSTILE = {
    "an empty CSV": ("t.csv", b""),
    "an empty list": ("t.json", b"[]"),
    "a CSV of another encoding": ("t.csv", "path,label\nä.png,ü\n".encode("latin-1")),
    "rows that are longer than the header": ("t.csv", b"path,label\na,b,c,d,e\nf,g,h,i,j,k\n"),
    "a NUL in JSON": ("t.json", b'[{"path": "\x00'),
    "JSON nested too deep": ("t.json", b"[" * 100_000),
    "a JSON text": ("t.json", b'"path"'),
    "a JSON record": ("t.json", b'{"path": "a.png"}'),
    "JSON Lines with a broken line": ("t.jsonl", b'{"path": "a.png"}\n{"path"'),
    "a Parquet file that is none": ("t.parquet", b"PAR1 no PAR1"),
    "a Parquet file that is cut": ("t.parquet", b"PAR1"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_damaged_tables_get_one_line_that_names_the_file(case, place):
    name, content = HOSTILE[case]
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (place / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"t\.") as caught:
        ImageTable(name).rows({})
    assert "\n" not in str(caught.value)


def test_a_field_of_any_length_is_read(place):
    (place / "t.csv").write_text(f"path,label,note\na.png,cat,{'x' * 200_000}\n")
    assert read_table(place / "t.csv").shape == (1, 3)


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


def test_an_audit_takes_tables_and_names_their_classes_and_domains(place):
    frame().to_csv("images/t.csv", index=False)
    torch.manual_seed(0)
    record = audit(
        net(), id="images/t.csv", ood={"night": "images/t.csv:domain=night"},
        reference=None, progress=False,
    ).evidence  # fmt: skip
    assert record.classes == ("ant", "cat", "dog")
    assert [s.name for s in record.sets] == ["t", "night"]
    assert record.sets[0].by_domain.keys() == {"day", "night"}


def test_an_audit_has_accuracies_by_every_column(place):
    """They count the readable images; files that are left out move no other row."""
    rows = pd.DataFrame([
        {"path": f"{k}.png", "label": "cd"[k % 2], "site": k % 3, "sex": "mf"[k // 6], "age": None,
         "boxes": [1, 2]}
        for k in range(12)
    ])  # fmt: skip
    for number, path in enumerate(rows["path"]):
        Image.new("RGB", (4, 4), (20 * number,) * 3).save(path)
    Path("4.png").write_bytes(b"no image")
    table = ImageTable(rows, root=place, domain="site")
    result = audit(net(), id=table, reference=None, classes=["c", "d", "e"], progress=False)
    groups = [dict(zip(result.groups(), row, strict=True)) for row in result.groups().to_numpy()]
    counts = {(row["column"], row["value"]): row["n"] for row in groups}
    assert counts == {("site", "0"): 4, ("site", "1"): 3, ("site", "2"): 4,
                      ("sex", "f"): 6, ("sex", "m"): 5}  # fmt: skip
    for column in ("site", "sex"):
        right = sum(row["accuracy"] * row["n"] for row in groups if row["column"] == column)
        assert round(right) == result.evidence.sets[0].overall.correct
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in groups)
    assert "table by site: 0 " in str(result) and "table by sex: f " in str(result)
    assert {"sex: f", "sex: m"} <= {row["part"] for row in result.records()}


def test_an_audit_takes_the_backgrounds_of_images_from_a_table(place):
    frame().to_csv("images/t.csv", index=False)
    pd.DataFrame({"path": [r["path"] for r in ROWS], "background": list("aabb")}).to_csv("bg.csv")
    record = audit(
        net(), id="images/t.csv", background="bg.csv", reference=None, progress=False
    ).evidence
    assert any("background" in e.method for e in record.evidence)
    with pytest.raises(ValueError, match=r"bg.csv has no background for b/3.png"):
        (place / "bg.csv").write_text("path,background\n" + "\n".join(
            f"{r['path']},x" for r in ROWS[:3]
        ))  # fmt: skip
        audit(net(), id="images/t.csv", background="bg.csv", reference=None, progress=False)


def test_a_table_without_backgrounds_says_which_columns_it_has(place):
    frame().to_csv("images/t.csv", index=False)
    line = r"t.csv has no column background, backgrounds, bg or place; it has 'path', 'label', "
    with pytest.raises(ValueError, match=line):
        audit(net(), id="images/t.csv", background="images/t.csv", progress=False)


def test_a_domain_of_a_folder_keeps_its_class_names_in_an_audit(place):
    for name in ("ant", "cat", "dog"):
        (place / "tree" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(place / "tree" / name / "0.png")
    domain = from_folder("tree")
    record = audit(net(), id=domain, reference=None, progress=False).evidence
    assert record.classes == domain.classes == ("ant", "cat", "dog")
