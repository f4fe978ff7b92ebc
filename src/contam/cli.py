"""The command line parses, calls and prints; only here do errors become an exit message.

Heavy modules are imported inside the commands, so that `contam --help` answers at once.
"""

import contextlib
import functools
import io
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import make_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

    from contam.experiment import Claim, Experiment, Stage
    from contam.run import Run

Found = TypeVar("Found")

RUNS = Path("runs")
MADE = "made.json"
"""The file in which a made folder of data says how it was made."""
TYRO = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0, 2 for what the user can mend, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _complain(f"warning: {message}")
            return _dispatch(given)
    except KeyboardInterrupt:
        goes_on = given[:1] != ["audit"]  # which is made in one go
        _complain("stopped" + "; the same command goes on where it stood" * goes_on)
        return 130
    except BrokenPipeError:
        # Whoever reads our output (say, `head`) has left; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        if os.environ.get("CONTAM_TRACEBACK"):
            raise
        _complain(" ".join(str(error).split()))
        return 2


def demo(out: Path = RUNS, page: Path = Path("contam-demo.html")) -> int:
    """Show the theory and the image experiments on this machine, and write a page about them.

    Runs the laptop presets that are quick and smaller versions of others: a minute or two on two
    cores.

    Args:
        out: where the folders of the runs are made.
        page: the HTML file to write.
    """
    from contam.experiments import EXPERIMENTS, IN_DEMO
    from contam.run import Run

    started = time.monotonic()
    _compute_together(IN_DEMO, out)
    runs = [
        Run.find(out, each.name, each.presets[IN_DEMO[each.name]])
        for each in EXPERIMENTS
        if each.name in IN_DEMO
    ]
    for each in runs:
        _print_claims(each)
    _write_page(runs, page)
    print(f"{time.monotonic() - started:.0f} s; open {page.resolve().as_uri()} in a browser")
    return 0


def list_experiments() -> int:
    """List the experiments, what each redraws, and its presets."""
    from contam.experiments import EXPERIMENTS

    for each in EXPERIMENTS:
        print(f"{each.name:24} {each.title}")
        redraws = f"{', '.join(each.reproduces)}; " if each.reproduces else ""
        print(f"{'':24} {redraws}presets {', '.join(each.presets)}")
    return 0


def run() -> int:
    """Reproduce a figure or theorem: contam run NAME|"Fig. 8" [PRESET] [--FIELD VALUE ...].

    Presets are laptop (the default), paper and smoke; 'contam run NAME --help' lists the fields.
    """
    raise ValueError("which experiment? 'contam list' names them; then: contam run NAME [PRESET]")


def claims(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")],
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Say which of the paper's claims held in the runs, with the numbers found.

    Args:
        runs: folders of runs.
        as_json: print a list of objects instead of text.
    """
    loaded = _load(runs)
    if not as_json:
        for each in loaded:
            _print_claims(each)
        return 0
    records = [claim.record(each.experiment) for each in loaded for claim in _claims(each)]
    print(json.dumps(records, indent=1, ensure_ascii=False))
    return 0


def report(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")],
    out: Path = Path("contam-report.html"),
) -> int:
    """Write one HTML page about the runs: what was found, every figure, how it was made.

    Args:
        runs: folders of runs.
        out: the file to write.
    """
    _write_page(_load(runs), out)
    print(f"open {out.resolve().as_uri()} in a browser")
    return 0


def predict(
    *,
    core: int = 32,
    background: int = 32,
    dimension: int = 256,
    width: int = 256,
    mean: float = 0.5,
    variance: float = 1 / 12,
    ood_mean: float = -0.5,
    ood_variance: float = 1 / 12,
    step_size: float = 1.0,
    weight_decay: float = 1e-3,
    steps: int = 200,
    activation: str = "relu",
    seed: int = 0,
    neurons: int = 4096,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Predict contamination before any training, by the population model of two-layer networks.

    Args:
        core: core features, which carry the label.
        background: background features, which are independent of it.
        dimension: of the input space; at least core + background.
        width: hidden neurons.
        mean: of every feature's weight in training.
        variance: of every feature's weight in training.
        ood_mean: of the background weights after the shift.
        ood_variance: of the background weights after the shift.
        step_size: of SGD on the hinge loss.
        weight_decay: of SGD.
        steps: of SGD.
        activation: relu or identity.
        seed: of the initial weights.
        neurons: followed at most; of a wider network an even sample, and 1024 are nearly as exact.
        as_json: print the whole curve as a list of objects instead of a sentence.
    """
    from contam.theory.population import predict_contamination

    found = predict_contamination(
        core=core,
        background=background,
        dimension=dimension,
        width=width,
        mean=mean,
        variance=variance,
        ood_mean=ood_mean,
        ood_variance=ood_variance,
        step_size=step_size,
        weight_decay=weight_decay,
        steps=steps,
        activation=activation,
        seed=seed,
        neurons=neurons,
    )
    print(json.dumps(found.records(), indent=1) if as_json else found.summary())
    return 0


def data(
    action: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ACTION ...")],
) -> int:
    """Look into a data set's folder, or write the embedded benchmark: data check|make KIND DIR.

    'contam data check --help' and 'contam data make --help' say more.

    Args:
        action: check or make.
    """
    if action:
        raise ValueError(f"no action {action[0]!r}; {_nearest(action[0], DATA)}")
    raise ValueError("what to do? contam data check KIND DIR, or contam data make shapes DIR")


def check_data(
    kind: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="KIND")],
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")],
) -> int:
    """Say what of a data set is in a folder, and what is missing or wrong.

    The exit code is 1 if anything is missing or wrong. Nothing is downloaded or changed.

    Args:
        kind: imagenet, iwildcam, camelyon17, domainnet, pacs, cifar10, folder or domains.
        folder: where the data set lies.
    """
    from contam.data.layout import check

    found = check(kind, folder)
    print("\n".join(found.lines()))
    return 0 if found.complete else 1


def make_data(
    kind: Annotated[Literal["shapes"], tyro.conf.Positional],
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")],
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
    family of backgrounds and the classes in it, and masks with each picture's mask. What was
    interrupted is gone on with. A folder that holds anything else is left as it is.

    Args:
        kind: shapes, the embedded benchmark.
        folder: where the tree is made.
        seed: of everything that is drawn.
        core: what is to be recognized: shapes, or real digits.
        train: pictures for training; a multiple of 40.
        id_val: pictures for validation; a multiple of 40.
        id_test: pictures of the ID test; a multiple of 40.
        ood_test: pictures of each of the five OOD tests; a multiple of 10.
        domains: part train by its families of backgrounds, as train/<family>/<class>.
    """
    from rich.console import Console
    from rich.progress import Progress

    from contam.data.made import pictures
    from contam.data.shapes import splits
    from contam.run import UNFINISHED, write_atomically

    sizes = {"train": train, "id_val": id_val, "id_test": id_test, "ood_test": ood_test}
    made = {"kind": kind, "core": core, "seed": seed, **sizes, "domains": domains}
    _refuse_another(folder, made)
    drawn = splits(seed, **sizes, core=core)
    write_atomically(folder / MADE, (json.dumps(made, indent=1) + "\n").encode())
    count = sum(len(shown.y) for shown in drawn.values())
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with Progress(*_columns(), console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task("", total=2 * count)
        for split, shown in drawn.items():
            bars.update(bar, description=split)
            parted = domains and split == "train"
            for path, content in pictures(split, shown, core=core, domains=parted):
                here = folder / path
                if not here.exists():
                    write_atomically(here, content)
                elif not here.is_file() or here.read_bytes() != content:
                    raise ValueError(
                        f"{here}: is not the picture that belongs there; move it away, or choose "
                        "another folder"
                    )
                bars.advance(bar)
            if not console.is_terminal:
                console.print(f"{split}: {len(shown.y):,} pictures")
    for left in folder.rglob(f"{UNFINISHED}*"):
        left.unlink()
    print(f"{count:,} pictures and their masks are in {folder}")
    return 0


def _refuse_another(folder: Path, made: Mapping[str, Any]) -> None:
    """Raise ValueError unless the folder is new or empty, or holds what is to be made."""
    from contam.run import UNFINISHED

    note = folder / MADE
    if note.is_file():
        try:
            found = dict(json.loads(note.read_bytes()))
        except (ValueError, TypeError):
            found = {}
        if found == made:
            return
        other = [f"{k} {found[k]}" for k in made if k in found and found[k] != made[k]]
        told = f"was made with {', '.join(other)}" if other else f"its {MADE} is not ours"
        raise ValueError(f"{folder}: {told}; choose another folder")
    held = [each.name for each in folder.iterdir()] if folder.is_dir() else []
    held = sorted(name for name in held if not name.startswith(UNFINISHED))
    if held:
        raise ValueError(
            f"{folder}: holds {held[0]!r} and no {MADE}, so it is not a tree of ours; choose "
            "another folder"
        )
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is no folder; choose another name")


def audit(
    *,
    model: str,
    id: Path,
    ood: tyro.conf.UseAppendAction[tuple[Path, ...]] = (),
    weights: Path | None = None,
    out: Path = Path("audit"),
    masks: Path | None = None,
    layer: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    baseline: Path | None = None,
    reference: str = "auto",
    reference_weights: Path | None = None,
    budget: int | None = None,
    device: str | None = None,
    fail_on: str | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    seed: int = 0,
) -> int:
    """Say why a classifier fails on shifted data: contam audit --model M --weights W --id DIR ...

    Writes OUT/audit.html to read, and audit.json (its schema beside it) and CSV tables to compute
    with. The exit code is 1 if the verdict is one of --fail-on.

    Args:
        model: timm:NAME, torchvision:NAME, package.module:function, or a .pt2 file.
        id: folder CLASS/IMAGE (or DOMAIN/CLASS/IMAGE) of data like those of training, not seen yet.
        ood: the same of shifted data; may be given again.
        weights: safetensors or a state dict; may hold an encoder and its head.
        out: folder of what is written.
        masks: folder with a mask of each image of --id under the image's own path, white on the
            object.
        layer: a layer to look into instead of every activation; may be given again.
        baseline: CSV of standard models' accuracies, with a column for each set.
        reference: encoder that tells whether the object is still to be seen, as --model; auto takes
            what torch has at hand, none takes none.
        reference_weights: weights of the reference.
        budget: images of a set that are looked at, at most.
        device: where the network runs, such as cuda.
        fail_on: verdicts that exit with 1, such as contaminated,spurious, or any failure.
        as_json: print the whole record instead of the verdict.
        seed: of everything that is drawn.
    """
    from contam.auditing.api import auditing

    failing = _causes(fail_on)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is no folder; choose another --out")
    chosen: Any = reference
    if reference_weights is not None:
        chosen = (reference, reference_weights)
    elif reference == "none":
        chosen = None
    steps = auditing(
        model, id=id, ood=list(ood), weights=weights, masks=masks, layers=list(layer) or "auto",
        baseline=baseline, reference=chosen, budget=budget, device=device, seed=seed,
    )  # fmt: skip
    found = _followed("audit", steps)
    found.save(out)
    page = found.report(out / "audit.html")
    if as_json:
        print(found.evidence.model_dump_json(indent=1))
    else:
        print(found)
        print(f"{out} has the evidence; open {page.resolve().as_uri()} in a browser")
    named = {found.verdict.cause, *found.verdict.behind}
    return 1 if named & failing else 0


def _causes(given: str | None) -> set[str]:
    """The verdicts that a list of words means; a word of a verdict's name is enough."""
    from typing import get_args

    from contam.auditing.records import Cause

    known = get_args(Cause)
    failures = [each for each in known if each not in ("healthy", "undecided")]
    found: set[str] = set()
    for word in (each.strip() for each in (given or "").split(",")):
        if not word:
            continue
        meant = failures if word == "any" else [c for c in known if word == c or word in c.split()]
        if not meant:
            raise ValueError(f"no verdict {word!r} to fail on; {_nearest(word, known)}, or any")
        found.update(meant)
    return found


def _followed(title: str, steps: Generator["Stage", None, Found]) -> Found:
    """What comes at the end of the work, showing how far it is."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    told = ""
    with Progress(*_columns(), console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task(title, total=100)
        while True:
            try:
                stage = next(steps)
            except StopIteration as finished:
                return finished.value
            percent = int(100 * stage.done)
            bars.update(bar, completed=percent, description=f"{title}: {stage.doing}")
            if not console.is_terminal and stage.doing != told:
                told = stage.doing
                console.print(f"{title}: {percent:3} % {stage.doing}")


def where(item: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ITEM")]) -> int:
    """Say where a numbered item of the paper lives in the code: contam where "Eq. 61".

    Args:
        item: an equation, definition, lemma, theorem, figure, table or appendix section.
    """
    from contam import paper

    print("\n".join(paper.where(item)))
    return 0


COMMANDS: dict[str, Callable[..., int]] = {
    "demo": demo,
    "list": list_experiments,
    "run": run,
    "claims": claims,
    "report": report,
    "predict": predict,
    "audit": audit,
    "data": data,
    "where": where,
}

DATA: dict[str, Callable[..., int]] = {"check": check_data, "make": make_data}


def _dispatch(given: list[str]) -> int:
    match given:
        case ["--version"]:
            from contam import __version__

            print(f"contam {__version__}")
            return 0
        case ["run", name, *rest] if not name.startswith("-"):
            return _run(name, rest)
        case ["data", action, *rest] if action in DATA:
            with _parsing():
                act: Any = tyro.cli(
                    _later(DATA[action]), args=rest, prog=f"contam data {action}", config=TYRO
                )
            return act()
        case [name, *_] if not name.startswith("-") and name not in COMMANDS:
            raise ValueError(f"no command {name!r}; {_nearest(name, COMMANDS)}")

    with _parsing():
        chosen: Any = tyro.extras.subcommand_cli_from_dict(
            {name: _later(command) for name, command in COMMANDS.items()},
            prog="contam",
            description="Why a network fails on shifted data: feature contamination, reproduced, "
            "predicted and measured.",
            args=given or ["--help"],
            config=TYRO,
        )
    return chosen()


def _later(command: Callable[..., int]) -> Callable[..., Callable[[], int]]:
    """The same signature, but the call waits until parsing is over."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Callable[[], int]:
        return functools.partial(command, *args, **kwargs)

    return wrapped


def _run(name: str, rest: list[str]) -> int:
    from contam import experiments

    chosen = experiments.find(name)
    preset = rest.pop(0) if rest and not rest[0].startswith("-") else "laptop"
    if preset not in chosen.presets:
        raise ValueError(
            f"{chosen.name} has no preset {preset!r}; {_nearest(preset, chosen.presets)}"
        )
    base = chosen.presets[preset]
    file = _value_of("--config", rest)
    if file is not None:
        base = _config_from(Path(file), base)
    parsed = _parse_run(chosen, f"contam run {chosen.name} {preset}", base, rest)
    if parsed.print_config:
        print(_yaml(chosen, parsed.settings), end="")
        return 0
    done = _compute(chosen, parsed.settings, parsed.out)
    if not _is_main():
        return 0
    _print_claims(done)
    print(f"the run is in {done.folder}; its page: contam report {done.folder}")
    return 0


def _parse_run(chosen: "Experiment", command: str, base: "BaseModel", rest: list[str]) -> Any:
    """The fields of the experiment's config, flattened, beside the flags that every run has."""
    flags = make_dataclass(
        "Flags",
        [
            ("settings", Annotated[type(base), tyro.conf.arg(name="")]),
            ("out", Annotated[Path, tyro.conf.arg(help="where the folder of the run is made")]),
            ("config", Annotated[Path | None, tyro.conf.arg(help="YAML file of fields")]),
            ("print_config", Annotated[bool, tyro.conf.arg(help="print the fields as YAML; stop")]),
        ],
        namespace={"__doc__": f"{chosen.title}.\n\n{chosen.about}"},
    )
    with _parsing():
        return tyro.cli(
            flags, default=flags(base, RUNS, None, False), args=rest, prog=command, config=TYRO
        )


def _config_from(path: Path, base: "BaseModel") -> "BaseModel":
    """The config that a YAML file gives, over a preset's values."""
    import yaml
    from pydantic import ValidationError

    try:
        fields = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValueError(f"--config {path}: can't be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"--config {path}: is not YAML: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"--config {path}: needs lines 'field: value'; --print-config shows them")
    try:
        return type(base).model_validate(base.model_dump() | fields)
    except ValidationError as error:
        raise ValueError(
            f"--config {path}: {_first(error, list(type(base).model_fields))}"
        ) from None


def _yaml(chosen: "Experiment", config: "BaseModel") -> str:
    import yaml

    head = f"# contam run {chosen.name} --config THIS_FILE\n"
    return head + yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _compute(chosen: "Experiment", config: "BaseModel", out: Path) -> "Run":
    """Do the work, showing how far it is; a finished run is only reported."""
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from contam.run import Run

    if "OMP_NUM_THREADS" not in os.environ:
        # Networks this small are fastest on one thread, which also gives the same bits everywhere.
        torch.set_num_threads(1)
    console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=not _is_main())
    with Run.start(out, chosen.name, config) as work:
        if work.finished:
            console.print(f"{chosen.name}: finished before, in {work.folder}")
            return Run.load(work.folder)
        with Progress(*_columns(), console=console, disable=not console.is_terminal) as bars:
            bar = bars.add_task(chosen.name, total=100)
            told = -1
            for stage in chosen.compute(config, work):
                percent = int(100 * stage.done)
                bars.update(bar, completed=percent, description=f"{chosen.name}: {stage.doing}")
                if not console.is_terminal and percent // 5 > told:
                    told = percent // 5
                    console.print(f"{chosen.name}: {percent:3} % {stage.doing}")
        work.finish()
        return Run.load(work.folder)


def _compute_together(presets: Mapping[str, str], out: Path) -> None:
    """Presets of experiments, each in a process of its own, as many at once as there are cores."""
    from concurrent.futures import ThreadPoolExecutor
    from subprocess import PIPE, Popen

    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    running: list[Popen[str]] = []

    def follow(name: str) -> None:
        preset = presets[name]
        command = [sys.executable, "-m", "contam", "run", name, preset, "--out", str(out)]
        process = Popen(command, stdout=PIPE, stderr=PIPE, text=True)
        running.append(process)
        last = ""
        for last in process.stderr or ():
            if found := re.match(r"\w+: +(\d+) % (.*)", last):
                bars.update(bar[name], completed=int(found[1]), description=f"{name}: {found[2]}")
                if not console.is_terminal:
                    console.print(last.strip())
        if process.wait() != 0:
            raise ValueError(last.strip().removeprefix("contam: "))
        bars.update(bar[name], completed=100, description=name)

    with Progress(*_columns(), console=console, disable=not console.is_terminal) as bars:
        bar = {name: bars.add_task(name, total=100) for name in presets}
        with ThreadPoolExecutor(max_workers=_cores()) as pool:
            try:
                # Those on images take the longest, so they start first.
                for done in [pool.submit(follow, name) for name in presets]:
                    done.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in running:
                    process.terminate()
                raise


def _is_main() -> bool:
    """Whether this process is the one that speaks, of those that compute a run together."""
    from contam.training.distributed import rank

    return rank() == 0


def _columns() -> tuple[Any, ...]:
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    return TextColumn("{task.description:45}"), BarColumn(), TimeElapsedColumn()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load(folders: Sequence[Path]) -> list["Run"]:
    from contam.run import Run

    if not folders:
        raise ValueError("which run? give one or more folders that 'contam run' printed")
    return [Run.load(folder) for folder in folders]


def _claims(done: "Run") -> Sequence["Claim"]:
    from contam import experiments
    from contam.monitor.page import WATCHED

    if not done.finished:
        raise ValueError(f"{done.folder}: is not finished; run the same command again, it goes on")
    if done.experiment == WATCHED.name:
        return WATCHED.claims(done)
    return experiments.named(done.experiment).claims(done)


def _print_claims(done: "Run") -> None:
    """Each claim beside its verdict, with what was found below it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from contam.experiment import number

    words = {True: ("holds", "green"), False: ("does not hold", "red"), None: ("not run", "dim")}
    table = Table.grid(padding=(0, 2))
    table.add_column(width=13)
    table.add_column()
    for claim in _claims(done):
        spread = f" ± {number(claim.spread)}" if claim.spread is not None else ""
        found = f"{claim.quantity}: {number(claim.found)}{spread} (n {claim.n})"
        told = f"{found}; {claim.not_run or f'wanted {claim.wanted}'}"
        says = Text.assemble(f"{claim.says} ({claim.source})\n", (told, "dim"))
        table.add_row(Text.assemble(words[claim.holds]), says)
    console = Console(highlight=False)
    console.print(f"\n[bold]{done.experiment}[/]")
    console.print(table)


def _write_page(runs: Sequence["Run"], path: Path) -> None:
    from contam import experiments, report
    from contam.monitor.page import WATCHED

    known = (*experiments.EXPERIMENTS, WATCHED)
    report.write(runs, path, {each.name: each for each in known})


def _value_of(flag: str, given: Sequence[str]) -> str | None:
    """The value that follows a flag, as '--flag value' or '--flag=value'."""
    for word, after in zip(given, [*given, None][1:], strict=True):
        if word == flag:
            return after
        if word.startswith(f"{flag}="):
            return word.removeprefix(f"{flag}=")
    return None


def _nearest(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}"


def _first(error: "ValidationError", fields: Sequence[str] = ()) -> str:
    """The first fault of a config in one line."""
    fault = error.errors()[0]
    field = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"no field {field!r}; {_nearest(field, fields)}"
    message = fault["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return f"field {field!r}: {message}, not {fault['input']!r}" if field else message


@contextlib.contextmanager
def _parsing() -> Iterator[None]:
    """Turn what the parser and the config's validation say into one line."""
    from pydantic import ValidationError

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    except ValidationError as error:
        raise ValueError(_first(error)) from None
    except SystemExit as leaving:
        if not leaving.code:
            raise
        raise ValueError(_in_one_line(said.getvalue())) from None


def _in_one_line(message: str) -> str:
    """The parser's framed message as one sentence: the fault, and the flag that was meant."""
    sections: list[list[str]] = [[]]
    for line in message.splitlines():
        text = line.strip("│╭╮╰╯ ")
        if text.strip("─-") == "" or line.startswith(("╭", "╰")):
            sections.append([])
        else:
            sections[-1].append(text)
    # Where the terminal draws no frame, the title stands as a section of its own in front.
    fault, *rest = [section for section in sections if section][not message.startswith("╭") :]
    told = "\n".join(line for section in rest for line in section)
    # Flags of other commands are no help; the parser says whose they are.
    meant = re.search(r"^(--\S+)", told, re.MULTILINE) if "in contam" not in told else None
    hint = f"; did you mean {meant[1]}?" if meant and "Perhaps you meant" in told else ""
    helps = re.search(r"(?:see|run) (contam .*--help)", told)
    return " ".join(fault) + hint + (f" ({helps[1]} lists all)" if helps else "")


def _complain(message: str) -> None:
    print(f"contam: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
