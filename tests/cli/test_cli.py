"""The command line as its users meet it: what is printed, one line an error, exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from support.command_line import run_contam
from support.small_audits import small_audit
from support.toy_experiment import Config

import contam
from contam import cli, experiments
from contam.cli import progress
from contam.experiment import NULL_STEP_SIZE
from contam.run import Run
from contam.theory.distribution import Beta, DataModel, TwoPoint
from contam.theory.features import FeatureModel
from contam.theory.intervention import Intervention
from contam.theory.setting import Setting

TWO_LAYER = ("fig03_two_layer", "fig10_activations", "thm4_scaling")
TINY = ("--activations", "relu", "--steps", "20", "--points", "2", "--seeds", "1")


def fails(capsys, *arguments: object) -> str:
    """The one line of a command that fails as it should."""
    code, out, err = run_contam(capsys, *arguments)
    assert code == 2
    assert out == ""
    *before, last = err.splitlines()
    assert last.startswith("contam: ")
    assert not [line for line in before if not re.match(r"\w+: +\d+ % ", line)]
    return last


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    assert cli.main(["run", "fig10_activations", "smoke", *TINY, "--out", str(root)]) == 0
    (run_folder,) = root.iterdir()
    return run_folder


@pytest.mark.parametrize("command", ["claims", "report", "figures", "data check", "data convert"])
def test_long_work_shows_its_progress(command, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", -1.0)
    digits = tmp_path / "digits"
    digits.mkdir()
    for digit in range(10):
        (digits / f"{digit}.json").write_text(json.dumps({"data": [digit / 9] * 2 * 28**2}))
    arguments = {
        "claims": [folder], "report": [folder, "--out", tmp_path / "page.html"],
        "figures": [folder, "--format", "csv", "--out", tmp_path],
        "data check": ["mnist", tmp_path], "data convert": [digits, tmp_path / "mnist"],
    }[command]  # fmt: skip
    _, out, err = run_contam(capsys, *command.split(), *arguments)
    assert re.search(rf"^{command}: +\d+ %", err, re.MULTILINE)
    assert command not in out


def test_help_does_not_import_torch():
    code = (
        "import sys; from contam import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in cli.COMMANDS:
        assert command in done.stdout


def test_importing_the_package_does_not_import_torch():
    code = "import sys, contam; assert 'torch' not in sys.modules; contam.selectivity"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_importable():
    for name in contam.__all__:
        assert getattr(contam, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = contam.nothing
    assert set(contam.__all__) <= set(dir(contam))


def test_list_names_every_experiment(capsys):
    code, out, _ = run_contam(capsys, "list")
    assert code == 0
    for experiment in experiments.EXPERIMENTS:
        assert experiment.name in out
        assert all(item in out for item in experiment.reproduces)


def test_where_prints_the_address_of_an_item(capsys):
    code, out, _ = run_contam(capsys, "where", "equation (61)")
    assert code == 0
    assert "measures/selectivity.py" in out


def test_data_check_reports_present_and_missing_parts(capsys, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "tree" / name / "one.png")
    code, out, _ = run_contam(capsys, "data", "check", "folder", tmp_path / "tree")
    assert code == 0
    assert "2" in out
    (tmp_path / "tree" / "dog" / "one.png").unlink()
    code, out, _ = run_contam(capsys, "data", "check", "folder", tmp_path / "tree")
    assert code == 1
    assert "dog" in out
    code, out, _ = run_contam(capsys, "data", "check", "pacs", tmp_path)
    assert code == 1


def test_predict_prints_a_summary_and_records(capsys):
    code, out, _ = run_contam(capsys, "predict", "--steps", 20)
    assert code == 0
    assert "contamination" in out and "take off after 13 steps" in out
    assert "With a leaky slope of 0.22, the OOD hinge risk at the fit is 0.5." in out
    code, out, _ = run_contam(capsys, "predict", "--project", "pairs", "--directions", 32)
    assert code == 0 and out.startswith("Background features do not take off")
    assert "V / U = 0.00" in out and "-0.00" not in out
    code, out, _ = run_contam(capsys, "predict", "--steps", 20, "--json")
    record = json.loads(out)
    assert [row["step"] for row in record["curve"]][-1] == 20
    assert record["neurons_followed"] == 256 and record["sampling_error"] is None
    assert record["phases"]["takeoff"] == pytest.approx(13, abs=0.5)
    assert record["critical_slope"] == pytest.approx(0.22, abs=0.01)


def test_predict_states_the_error_of_sampling_in_every_form(capsys):
    words = ("predict", "--steps", 5, "--width", 600, "--neurons", 64, "--weight-decay", 0,
             "--activation", "identity")  # fmt: skip
    code, out, _ = run_contam(capsys, *words, "--json")
    record = json.loads(out)
    assert code == 0
    code, out, _ = run_contam(capsys, *words)
    error = record["sampling_error"]["ood_hinge"]
    assert code == 0 and f"with a second sample, OOD hinge risk differs by {error:.1g}" in out
    assert record["neurons_followed"] == 64 and record["phases"]["limit"]["step"] is None


@pytest.mark.slow
def test_predict_says_which_phases_it_can_not_derive(capsys):
    code, out, _ = run_contam(capsys, "predict", "--steps", 5, "--correlation", 0.5)
    assert code == 0 and out.startswith("After 5 steps")
    assert "is use of the correlation with the label" in out
    coherent = ("--dictionary", "coherent", "--coherence", 0.02)
    code, out, _ = run_contam(capsys, "predict", "--steps", 5, *coherent)
    assert code == 0 and "Phases are not predicted: coherence must be 0" in out


FIELDS = [
    field.name.replace("_", "-")
    for record in (Setting, DataModel, FeatureModel, Intervention)
    for field in fields(record)
    if field.name not in ("data", "features", "intervention")
]


@pytest.mark.parametrize(
    "command", [["predict"], *(["run", name] for name in TWO_LAYER)], ids=" ".join
)
def test_every_field_of_the_setting_is_a_flag(capsys, command):
    with pytest.raises(SystemExit):
        cli.main([*command, "--help"])
    printed = capsys.readouterr().out
    assert [name for name in FIELDS if not re.search(rf"--{name}\b", printed)] == []


BESIDE_DEEP = ("joint_law", "contamination_pairs")
"""Experiments with two-layer networks and deep ones, whose fields have prefixes."""


@pytest.mark.parametrize("name", BESIDE_DEEP)
def test_every_field_of_a_setting_beside_deep_networks_is_a_flag(capsys, name):
    with pytest.raises(SystemExit):
        cli.main(["run", name, "--help"])
    printed = capsys.readouterr().out
    missing = [n for n in FIELDS if not re.search(rf"--setting\.(\S+\.)?{n}\b", printed)]
    assert missing == []
    flags = ("--setting.width", 32, "--setting.data.features.core", 16, "--setting.step-size", 0.5)
    _, out, _ = run_contam(capsys, "run", name, "smoke", *flags, "--print-config")
    config: Any = experiments.named(name).presets["smoke"]
    read = type(config).model_validate(yaml.safe_load(out))
    assert (read.setting.width, read.setting.step_size) == (32, 0.5)
    assert read.setting.data.features.core == 16
    assert read == config.model_copy(update={"setting": read.setting})


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("joint_law", ("--setting.data.correlation", 0.5), "data.correlation of the setting must"),
        ("joint_law", ("--setting.loss", "squared"), "loss must be hinge"),
        ("contamination_pairs", ("--setting.depth", 2), "depth of the setting must keep"),
    ],
)
def test_a_field_that_the_experiment_sets_itself_is_one_line(capsys, name, flags, message):
    code, _, err = run_contam(capsys, "run", name, "smoke", *flags, "--print-config")
    assert code == 2 and err.startswith(f"contam: {message}") and err.count("\n") == 1


@pytest.mark.parametrize("name", TWO_LAYER)
def test_flags_change_nested_fields(capsys, name):
    flags = ("--depth", 2, "--core-weights", "beta:2:5", "--background-weights", "two_point:0.3")
    flags += ("--correlation", 0.5, "--examples", 5000)
    # Figure 10 compares dictionaries, so that it has a flag of its own for them.
    compares = name == "fig10_activations"
    flags += ("--dictionaries", "axes") if compares else ("--dictionary", "rotated", "--ambient")
    _, out, _ = run_contam(capsys, "run", name, "smoke", *flags, "--print-config")
    config: Any = experiments.named(name).presets["smoke"]
    setting = type(config).model_validate(yaml.safe_load(out)).setting
    assert (setting.depth, setting.examples, setting.ambient) == (2, 5000, not compares)
    assert setting.data.core_weights == Beta(2.0, 5.0)
    assert setting.data.background_weights == TwoPoint(0.3)
    dictionary = "axes" if compares else "rotated"
    assert (setting.data.correlation, setting.data.features.dictionary) == (0.5, dictionary)


@pytest.mark.parametrize("name", [experiment.name for experiment in experiments.EXPERIMENTS])
def test_every_experiment_can_be_started_from_the_command_line(capsys, name):
    smoke: Any = experiments.named(name).presets["smoke"]
    repeats = "seeds" if hasattr(smoke, "seeds") else "trials"
    code, out, _ = run_contam(capsys, "run", name, "smoke", f"--{repeats}", 7, "--print-config")
    assert code == 0
    read = type(smoke).model_validate(yaml.safe_load(out))
    assert read == smoke.model_copy(update={repeats: 7})


def test_a_null_run_has_step_sizes_at_which_nothing_is_learned(capsys, tmp_path):
    null = ("run", "fig10_activations", "smoke", "--null", "--steps", 2)
    code, out, _ = run_contam(capsys, *null, "--out", tmp_path)
    assert code == 0
    assert re.search(r"null run: 0 of \d+ claims about learning", out)
    _, out, _ = run_contam(capsys, *null, "--print-config")
    assert yaml.safe_load(out)["setting"]["step_size"] == NULL_STEP_SIZE
    code, _, err = run_contam(capsys, "run", "fig15_density", "paper", "--null")
    assert code == 2 and "set teacher_recipe and student_recipe" in err


def test_fields_of_nested_recipes_have_flags(capsys):
    flags = ("--networks.student-recipe.epochs", 5, "--networks.teacher", "torchvision:resnet18")
    _, out, _ = run_contam(capsys, "run", "fig15_density", "smoke", *flags, "--print-config")
    networks = yaml.safe_load(out)["networks"]
    assert networks["student_recipe"]["epochs"] == 5 != networks["teacher_recipe"]["epochs"]
    assert networks["teacher"] == "torchvision:resnet18"


def test_a_long_prediction_shows_the_time_left(capsys, monkeypatch):
    monkeypatch.setattr("contam.cli.progress.QUIET_SECONDS", 0.0)
    size = ("--core", 5000, "--background", 5000, "--dimension", 40000, "--width", 10000)
    code, out, err = run_contam(capsys, "predict", *size, "--neurons", 64, "--steps", 50)
    assert code == 0
    assert out.startswith("After 50 steps")
    assert "A sample of 64 of 10,000 neurons was followed" in out
    assert re.search(r"^predict:  50 % \(\d+:\d\d left\)$", err, re.MULTILINE)


def test_run_prints_claims_and_the_folder(capsys, folder):
    code, out, err = run_contam(capsys, "run", "Fig. 10", "smoke", *TINY, "--out", folder.parent)
    assert code == 0
    assert str(folder) in out
    assert "already finished" in err
    assert "ReLU" in out


def test_claims_as_json(capsys, folder):
    code, out, _ = run_contam(capsys, "claims", folder, "--format", "json")
    assert code == 0
    records = json.loads(out)
    assert records
    wanted = {"experiment", "says", "source", "published", "observed", "spread", "n", "holds"}
    assert all(wanted <= set(record) for record in records)


@pytest.mark.parametrize(("name", "start"), [("csv", "experiment,says"), ("latex", "\\begin{tab"),
                                             ("markdown", "| claim | source |")])  # fmt: skip
def test_claims_as_tables(capsys, folder, name, start):
    code, out, _ = run_contam(capsys, "claims", folder, "--format", name)
    assert code == 0
    assert out.startswith(start)
    _, several, _ = run_contam(capsys, "claims", folder, folder, "--format", name)
    assert len(several.splitlines()) > len(out.splitlines())
    assert "experiment" in several


def test_figures_are_written_as_files(capsys, folder, tmp_path):
    for flags, suffix in (((), "pdf"), (("--format", "latex"), "tex")):
        code, out, _ = run_contam(capsys, "figures", folder, "--only", 1, "--out", tmp_path, *flags)
        assert code == 0
        # A number is no part of a name, which here has it as well.
        (path,) = tmp_path.glob(f"*.{suffix}")
        assert path.name.startswith("fig10_activations-1-")
        assert str(path) in out
    assert path.read_text().startswith("\\begin{tabular}")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--width", "3"), "such as 3.25in"),
        (("--only", "backgrund"), "no figure 'backgrund'"),
        (("--format", "gif"), "gif"),
    ],
)
def test_figures_that_cannot_be_written_are_reported_in_one_line(capsys, folder, flags, line):
    code, _, err = run_contam(capsys, "figures", folder, *flags)
    assert code == 2
    assert line in err and err.count("\n") == 1


def test_figures_of_an_audit_are_written_and_a_trial_has_none(capsys, tmp_path):
    good = [True] * 8 + [False] * 2
    small_audit({"day": good, "night": good[::-1]}, lost={"night": {"corruption": 0.1}}).save(
        tmp_path / "audit"
    )
    command = ("figures", tmp_path / "audit", "--out", tmp_path)
    code, out, err = run_contam(capsys, *command, "--format", "svg")
    assert (code, err) == (0, "")
    (path,) = tmp_path.glob("*.svg")
    assert path.name == "audit-1-accuracy-and-lost-points.svg" and str(path) in out
    run_contam(capsys, *command, "--format", "json")
    assert {"data": "night", "cause": "corruption"}.items() <= json.loads(
        path.with_suffix(".json").read_text()
    )[-1].items()
    for judge in ("claims", "report"):
        code, _, err = run_contam(capsys, judge, tmp_path / "audit")
        assert code == 2 and "is an audit, not a run" in err and err.count("\n") == 1
        assert f"'contam figures {tmp_path / 'audit'}'" in err
    with Run.start(tmp_path, "trial", Config()) as run:
        run.finish()
    code, _, err = run_contam(capsys, "figures", run.folder)
    assert code == 2 and "a trial has no figures" in err and err.count("\n") == 1


def test_report_writes_a_page(capsys, folder, tmp_path):
    code, out, _ = run_contam(capsys, "report", folder, "--out", tmp_path / "page.html")
    assert code == 0
    assert "page.html" in out
    assert "<html" in (tmp_path / "page.html").read_text()


def test_a_config_round_trips_through_yaml(capsys, tmp_path):
    _, out, _ = run_contam(capsys, "run", "thm4_scaling", "smoke", "--print-config", "--steps", 77)
    file = tmp_path / "config.yaml"
    file.write_text(out)
    assert yaml.safe_load(out)["setting"]["steps"] == 77
    _, again, _ = run_contam(capsys, "run", "thm4_scaling", "--config", file, "--print-config")
    assert again == out
    _, over, _ = run_contam(
        capsys, "run", "thm4_scaling", f"--config={file}", "--steps", 78, "--print-config"
    )
    changed = yaml.safe_load(out)
    changed["setting"]["steps"] = 78
    assert yaml.safe_load(over) == changed


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["rnu"], r"no command 'rnu'; did you mean 'run'\?"),
        (["run"], "which experiment"),
        (["run", "fig3_two_layer"], "did you mean 'fig03_two_layer'"),
        (["run", "Fig. 99"], "no item 'Fig. 99'"),
        (["run", "Fig. 2"], "no experiment reproduces Fig. 2"),
        (["run", "fig03_two_layer", "papr"], "did you mean 'paper'"),
        (["run", "fig03_two_layer", "smoke", "--stepz", "3"], "did you mean --steps"),
        (["run", "fig03_two_layer", "smoke", "--steps", "-3"], "steps=-3 must be at least 1"),
        (["run", "fig03_two_layer", "smoke", "--seeds", "0"], "'seeds'.*greater than 0.*0"),
        (["run", "fig03_two_layer", "smoke", "--core-weights", "normal:0:1"], "'normal'"),
        (["run", "fig03_two_layer", "smoke", "--core-weights", "beta:1"], "beta:A:B"),
        (["run", "fig03_two_layer", "smoke", "--activation", "identity"], "linear twin"),
        (["run", "fig10_activations", "smoke", "--activation", "gelu"], "activations"),
        (
            ["run", "fig10_activations", "smoke", "--dictionary", "rotated", "--ambient"],
            "set by dict",
        ),
        (["run", "thm4_scaling", "smoke", "--loss", "logistic"], "loss must be hinge"),
        (["run", "fig03_two_layer", "smoke", "--steps", "many"], "--steps.*many"),
        (["run", "fig03_two_layer", "smoke", "--width", "0"], "width=0"),
        (["run", "fig03_two_layer", "smoke", "--dimension", "8"], "dimension.*16"),
        (["run", "fig03_two_layer", "smoke", "--optimizer", "lion"], "lion"),
        (["run", "fig13_padded_digits", "smoke", "--frames", "redd"], "redd"),
        (["run", "fig13_padded_digits", "smoke", "--train-examples", "5000"], "5000"),
        (["claims"], "which run"),
        (["claims", "nowhere"], "nowhere: is not a folder"),
        (["report", "nowhere"], "nowhere: is not a folder"),
        (["where", "Eq. 99"], "no item 'Eq. 99'"),
        (["where"], "ITEM"),
        (["predict", "--core", "3"], "core must be at least 4"),
        (["predict", "--core", "200", "--background", "100"], "dimension"),
        (["predict", "--activation", "gelu"], "gelu"),
        (["predict", "--depth", "2"], "depth must be 1, not 2"),
        (["predict", "--step-size", "1000"], "step_size"),
        (["demo", "--speed", "9"], "--speed"),
        (["data", "check", "pax", "."], "pax"),
        (["data", "chekc", "pacs", "."], "chekc"),
    ],
)
def test_bad_input_gets_one_line(capsys, tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    assert re.search(line, fails(capsys, *arguments))
    leftovers = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]
    assert not [path for path in leftovers if path.name != "run.json"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("stepz: 3", "no field 'stepz'; did you mean 'step_sizes'"),
        ("setting: {stepz: 3}", "no field 'setting.stepz'; did you mean 'steps'"),
        ("setting: {steps: -3}", "steps=-3 must be at least 1"),
        ("seeds: -3", "'seeds'.*greater than 0"),
        ("- 1", "needs lines 'field: value'"),
        ("steps: [", "is not YAML"),
        ("\x00", "is not YAML"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_an_invalid_config_file_is_reported(capsys, tmp_path, content, line):
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    said = fails(capsys, "run", "thm4_scaling", "--config", file)
    assert "mine.yaml" in said
    assert re.search(line, said)


def test_a_missing_config_file_is_reported(capsys, tmp_path):
    assert "can't be read" in fails(capsys, "run", "thm4_scaling", "--config", tmp_path / "no.yaml")


def test_a_damaged_table_is_reported(capsys, folder):
    table = next((folder / "tables").rglob("*.jsonl"))
    whole = table.read_bytes()
    table.write_bytes(whole[:-10])
    try:
        assert table.name in fails(capsys, "claims", folder)
        assert "does not match its digest" in fails(capsys, "report", folder)
    finally:
        table.write_bytes(whole)


def test_a_diverging_loss_is_reported_and_leaves_a_valid_run(capsys, tmp_path):
    said = fails(
        capsys, "run", "fig03_two_layer", "smoke", "--regression-step-size", 1e9, "--out", tmp_path
    )  # fmt: skip
    assert "not finite" in said
    (made,) = tmp_path.iterdir()
    assert "is not finished" in fails(capsys, "claims", made)


@pytest.mark.filterwarnings("default")
def test_an_unstable_step_size_warns_in_one_line(capsys, tmp_path):
    few = ["--step-size", "50", "--steps", "2", "--long-steps", "2"]
    few += ["--regression-steps", "2", "--seeds", "1"]
    _, _, err = run_contam(capsys, "run", "fig03_two_layer", "smoke", *few, "--out", tmp_path)
    assert re.search(r"^contam: warning: step_size=50 is large", err, re.MULTILINE)
    assert ".py" not in err


def command(root: Path) -> list[str]:
    tiny = ["--steps", "1000", "--points", "60", "--seeds", "1", "--activations", "relu"]
    return [sys.executable, "-m", "contam", "run", "fig10_activations", "smoke", *tiny,
            "--out", str(root)]  # fmt: skip


@pytest.mark.slow
def test_an_interrupted_command_resumes_with_the_same_bytes(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert cli.main(command(whole)[3:]) == 0
    # A checkpoint at every report, so that a resumed part starts in its middle.
    often = (
        "import sys; from contam.training import checkpointed; from contam.cli import main\n"
        "print('imported', flush=True)\n"
        "checkpointed.CHECKPOINT_EVERY, checkpointed.CHECKPOINT_SHARE = 0.0, 1e9\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    for wait, how in ((0.3, signal.SIGKILL), (0.8, signal.SIGINT), (1.5, signal.SIGKILL)):
        process = subprocess.Popen(
            [sys.executable, "-c", often, *command(stopped)[3:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # Imports may take long on a busy machine, so the time counts from their end.
        assert process.stdout is not None and process.stdout.readline() == "imported\n"
        time.sleep(wait)
        process.send_signal(how)
        _, err = process.communicate(timeout=600)
        # An interrupt that arrives after the last line of `main` ends the interpreter itself.
        if how is signal.SIGINT and process.returncode not in (0, -signal.SIGINT):
            assert process.returncode == 130, err
            assert "run the same command again to resume" in err
            assert "Traceback" not in err
    assert cli.main(command(stopped)[3:]) == 0
    (one,), (other,) = whole.iterdir(), stopped.iterdir()
    assert one.name == other.name
    for path in sorted((one / "tables").rglob("*.jsonl")):
        assert path.read_bytes() == (other / path.relative_to(one)).read_bytes()


def test_an_interrupt_converted_by_a_library_still_stops_the_command(monkeypatch, capsys):
    def interrupted_import(*_):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(cli, "run_experiment", interrupted_import)
    assert cli.main(["run", "fig10_activations"]) == 130
    assert "run the same command again to resume" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.slow
def test_a_closed_output_pipe_is_not_an_error():
    code = "import sys; from contam.cli import main; sys.exit(main(['list']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait() == 0


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_completion_script_has_commands_experiments_and_flags(capsys, shell):
    code, script, _ = run_contam(capsys, "--tyro-print-completion", shell)
    assert code == 0
    for experiment in experiments.EXPERIMENTS:
        assert experiment.name in script
    for word in (*cli.COMMANDS, "--regression-step-size", "--fail-on", "--dictionary"):
        assert word in script
