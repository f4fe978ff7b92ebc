"""`contam sweep`: many configs of one experiment, on this machine or on a Ray cluster."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from contam.cli.parsing import nearest, one_line_errors
from contam.cli.progress import follow

if TYPE_CHECKING:
    from pydantic import BaseModel

    from contam.run import Run
    from contam.sweep import Space


def sweep(
    experiment: Annotated[str, tyro.conf.Positional] = "",
    preset: Annotated[str, tyro.conf.Positional] = "laptop",
    *,
    grid: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD=VALUES...")] = (),
    seeds: int | None = None,
    random: int | None = None,
    random_seed: int = 0,
    engine: Literal["local", "ray"] = "local",
    jobs: int | None = None,
    address: str | None = None,
    cpus: float = 1.0,
    gpus: float = 0.0,
    resume: Path | None = None,
    out: Path | None = None,
    page: Path | None = None,
) -> int:
    """Run an experiment under many configs: contam sweep NAME PRESET --grid FIELD=VALUES ...

    Each config becomes an ordinary run folder; finished runs are never computed again, and an
    interrupted sweep resumes. The table and the figures show every number of the experiment's
    claims over the swept fields.

    Args:
        experiment: name of the experiment, or a figure or theorem that it reproduces; simulation
            trains one network of any setting.
        preset: its preset, from which the configs differ in the swept fields.
        grid: values of fields: width=64,128,256, or a range: weight_decay=log:1e-4:1e-1:7 or
            slope=linear:0:1:5. A distribution is a word such as beta:2:5.
        seeds: number of seeds of every run.
        random: number of random configs from the values, in place of the whole grid.
        random_seed: seed of the random configs.
        engine: local worker processes, or the tasks of a Ray cluster.
        jobs: runs at a time of the local engine, by default one for each core.
        address: HOST:PORT of the cluster's head node, or auto; by default, Ray is started here.
        cpus: cores of each task on Ray.
        gpus: GPUs of each task on Ray; 0.5 lets two tasks share one.
        resume: folder of an earlier sweep, in place of the experiment and the fields.
        out: folder that holds the runs, by default runs.
        page: HTML file to write.
    """
    from contam import experiments
    from contam.sweep import check_address, run_locally, run_on_ray
    from contam.sweep import sweep as compute
    from contam.sweep.sweep import resumed

    if resume is not None:
        if experiment or grid or seeds or random or out:
            raise ValueError("--resume takes all configs from its folder; give no others")
        space = resumed(resume)
        root = resume.resolve().parent
    else:
        space = _space(
            experiment, preset, grid, seeds=seeds, random=random, random_seed=random_seed
        )
        root = out or Path("runs")
    if engine == "local" and address is not None:
        raise ValueError("--address needs --engine ray")
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs={jobs} must be at least 1")
    if engine == "ray" and jobs is not None:
        raise ValueError("--jobs is for the local engine; on Ray, --cpus decides how many run")
    if address is not None and address != "auto":
        check_address(address)
    chosen: Any = (
        partial(run_on_ray, address=address, cpus=cpus, gpus=gpus)
        if engine == "ray"
        else partial(run_locally, jobs=jobs)
    )
    with one_line_errors():
        work = compute(experiments.named(space.experiment), space, out=root, engine=chosen)
        run = follow("sweep", work)
    return _concluded(run, page)


def _space(
    name: str,
    preset: str,
    grid: Sequence[str],
    *,
    seeds: int | None,
    random: int | None,
    random_seed: int,
) -> "Space":
    """The configs that the command line names."""
    from contam import experiments
    from contam.sweep import space

    if not name:
        raise ValueError("which experiment? contam sweep NAME PRESET --grid FIELD=VALUES ...")
    experiment = experiments.find(name)
    if preset not in experiment.presets:
        raise ValueError(
            f"{experiment.name} has no preset {preset!r}; {nearest(preset, experiment.presets)}"
        )
    base = experiment.presets[preset]
    if seeds is not None:
        base = _with_seeds(base, seeds)
    fields: dict[str, Any] = {}
    for word in grid:
        field, equals, values = word.partition("=")
        if not equals or not values:
            raise ValueError(f"--grid {word!r}: write FIELD=VALUE,VALUE or FIELD=log:LOW:HIGH:N")
        if field in fields:
            raise ValueError(f"--grid gives field {field!r} twice")
        fields[field] = _values(field, values)
    with one_line_errors():
        combinations = space(experiment.name, base, fields, draws=random, draw_seed=random_seed)
        combinations.configs(type(base))
    return combinations


def _with_seeds(base: "BaseModel", seeds: int) -> "BaseModel":
    if "seeds" not in type(base).model_fields:
        raise ValueError("this experiment has no field seeds")
    with one_line_errors():
        return type(base).model_validate(base.model_dump() | {"seeds": seeds})


def _values(field: str, text: str) -> Any:
    """The values of a field: a range as text, or a list of words and numbers."""
    from contam.cli.weights import KINDS, from_text

    if text.startswith(("log:", "linear:")):
        return text
    words = [word.strip() for word in text.split(",")]
    if any(word.partition(":")[0] in KINDS for word in words):
        return [from_text(word) for word in words]
    return [_scalar(word) for word in words]


def _scalar(word: str) -> Any:
    """A number, a truth value, None, or the word itself."""
    plain = {"none": None, "null": None, "true": True, "false": False}
    if word.lower() in plain:
        return plain[word.lower()]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def _concluded(run: "Run", page: Path | None) -> int:
    """Print the result, and write the page."""
    from contam.atomic_files import reserved
    from contam.cli.claims import write_page
    from contam.sweep import SWEEP

    print(SWEEP.summary(run))
    if page is not None:
        with reserved(page):
            write_page([run], page)
        print(f"open {page.resolve().as_uri()} in a browser")
    print(f"the sweep is in {run.folder}; its page: contam report {run.folder}")
    return int(bool((run.table("runs")["error"] != "").any()))
