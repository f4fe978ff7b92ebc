"""One reader for tables of standard models: the testbed's, a leaderboard's, or a user's own."""

import pytest

from contam.measures.standard_models import TESTBED_COLUMNS, read_models, shipped_models
from contam.measures.testbed import imagenet_line


def table(tmp_path, text: str):
    file = tmp_path / "models.csv"
    file.write_text(text, encoding="utf-8")
    return read_models(file)


def test_percent_and_shares_give_the_same_line(tmp_path):
    shares = table(tmp_path, "model,id,fog\na,0.5,0.4\nb,0.7,0.55\nc,0.9,0.8\n").line("id", "fog")
    percent = table(tmp_path, "id,model,fog\n50,a,40%\n70,b,55\n90,c,80\n").line("id", "fog")
    assert percent.slope == pytest.approx(shares.slope)
    assert percent.intercept == pytest.approx(shares.intercept)


def test_standard_errors_and_absent_results_of_a_leaderboard(tmp_path):
    text = (
        "Algorithm,Test ID Macro F1,Test OOD Macro F1\n"
        "ERM,47.0 (1.4),31.0 (1.3)\nCORAL,43.5 ± 3.5,32.7 ± 0.2\nnew,-,38.5\nlast,40.0,\n"
    )
    accuracies = table(tmp_path, text).accuracies("Test ID Macro F1", "Test OOD Macro F1")
    assert accuracies.tolist() == [[0.47, 0.435], [0.31, pytest.approx(0.327)]]


def test_only_standard_models_are_on_the_line(tmp_path):
    text = "model,kind,id,ood\na,standard,0.5,0.4\nb,robust,0.6,0.6\nc,standard,0.7,0.5\n"
    models = table(tmp_path, text)
    assert models.line("id", "ood").count == 2
    assert models.accuracies("id", kind="robust").tolist() == [[0.6]]


def test_the_testbeds_own_file_gives_the_lines_of_the_shipped_one(tmp_path):
    names = {name: column for column, name in TESTBED_COLUMNS.items()}
    rows = [
        {"model": row["model"]} | {names[name]: row[name] for name in names}
        for row in shipped_models().rows
    ]
    rows.append(dict.fromkeys(rows[0], "50") | {"model": "a model of unknown kind"})
    header, *lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    own = table(tmp_path, "\n".join([header, *lines]))
    for shift in ("ImageNetV2", "ImageNet-A"):
        assert own.line("ImageNet", shift) == imagenet_line(shift)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,fog\n0.5,much\n", "not numbers under 'fog', such as 'much'"),
        ("id\n0.5\n", r"no column 'fog', only \['id'\]"),
        ("", "no column 'id'"),
        ("id,fog\n50,0.4\n60,0.5\n", "'id' in percent and 'fog' in"),
        ("id,fog\n0.5,0.4\n,0.5\n", "needs two different ID accuracies"),
    ],
)
def test_bad_tables_are_rejected_in_one_line(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        table(tmp_path, text).line("id", "fog")


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"none\.csv: can't be read"):
        read_models(tmp_path / "none.csv")
