"""Whether a robust network's features tell the domains apart better than a standard one's."""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, Literal

import torch
from pydantic import BaseModel, PositiveInt
from torch import Tensor

from contam.batch import Domain, Shift
from contam.data.images import FolderDomain
from contam.experiment import Claim, Experiment, Stage, judge
from contam.experiments.support.model_zoo import (
    CAPTIONED,
    ERM,
    SMALL_NETWORKS,
    STUDENT,
    TEACHER,
    TINY_NETWORKS,
    UNTRAINED,
    ModelZoo,
    Networks,
    NetworkSpec,
)
from contam.measures.correlation import spearman
from contam.measures.published import published
from contam.measures.separability import domain_error, held_out, principal_plane
from contam.plots import Figure, Panel, bars, over_seeds, scatter
from contam.rng import generator_for
from contam.run import Run
from contam.training.probe import FullBatch, extract

SHAPES = 7
"""Classes in a picture, as many as PACS has: more shapes are hard to tell apart."""
COLORS = 7
"""Domains that have colors of their own; where there are more, the ID domains share one."""
ENOUGH = 5
"""Networks that a rank correlation needs here."""
TRAINING = 0.85
"""Of an experiment's time, roughly."""
OTHERS = {"captioned": CAPTIONED, "student": STUDENT, "ERM": ERM, "untrained": UNTRAINED}


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults are App. G.1's, CLIP's ResNet-50 and a standard one, unless a field says otherwise.

    The paper gives no settings of the probe, which is fitted to its optimum here.
    """

    networks: Networks = Networks(data="pacs", probe=FullBatch())
    others: tuple[Literal["captioned", "student", "ERM", "untrained"], ...] = ("ERM", "untrained")
    """Networks beside the teacher; all but ERM are ours."""
    drawn: PositiveInt = 40
    """Ours: images of each domain in a picture."""
    seeds: PositiveInt = 1

    @property
    def specs(self) -> list[NetworkSpec]:
        """The networks that are compared."""
        return [TEACHER, *(OTHERS[name] for name in dict.fromkeys(self.others))]


PAPER = Config()
VIT = Config(
    networks=PAPER.networks.model_copy(
        update={"teacher": "open_clip:ViT-B-16/openai", "standard": None}
    ),
    others=("untrained",),
)
LAPTOP = Config(
    networks=SMALL_NETWORKS, others=("captioned", "student", "ERM", "untrained"), seeds=3
)
SMOKE = LAPTOP.model_copy(update={"networks": TINY_NETWORKS, "drawn": 8, "seeds": 2})


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train the networks that are not there yet, and tell the domains apart in their features."""
    for seed in range(config.seeds):
        todo = {f"net/{each.part}/seed{seed}": each for each in config.specs}
        todo = {part: spec for part, spec in todo.items() if not run.has(part)}
        zoo = ModelZoo(config.networks, seed, run.folder.parent)
        for stage in zoo.train([*todo.values()]):
            yield Stage((seed + TRAINING * stage.done) / config.seeds, stage.doing)
        for index, (part, spec) in enumerate(todo.items()):
            done = TRAINING + (1 - TRAINING) * index / len(todo)
            yield Stage((seed + done) / config.seeds, f"seed {seed}: domains in {spec.name}")
            row, arrays = _told_apart(config, zoo, spec)
            scores = zoo.judge(spec)
            row |= {"id": next(each["score"] for each in scores if each["role"] == "id")}
            row |= {"ood": fmean(each["score"] for each in scores if each["role"] == "ood")}
            run.write(part, [{"network": spec.name, "seed": seed} | row], arrays)


def _told_apart(
    config: Config, zoo: ModelZoo, spec: NetworkSpec
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """How often the domain is mistaken, and a few images in the plane of their features."""
    shift = zoo.benchmark(spec).shift
    parts = domains_of(shift)
    encoder = zoo.network(spec).encoder
    features = torch.cat([extract(encoder, part) for part in parts])
    domain = torch.cat([origin(part) for part in parts])
    y = torch.cat([part.y for part in parts])
    if config.networks.data == "shapes":
        test = unseen_objects(parts, zoo.seed)
    else:
        test = held_out(domain, seed=zoo.seed)
    plane = principal_plane(features)
    shown = _drawn(domain, y, config.drawn, zoo.seed)
    names = {int(origin(part)[0]): part.name for part in (*shift.train, *shift.ood_tests)}
    row = {
        "error": domain_error(features, domain, test),
        "guessing": 1 - int(domain[test].bincount().max()) / int(test.sum()),
        "domains": [names[index] for index in domain.unique().tolist()],
        "id_domains": [part.name for part in shift.train],
        "classes": list(shift.classes[:SHAPES]),
        "tested": int(test.sum()),
        "count": len(test),
        "shares": list(plane.shares),
    }
    place = torch.bucketize(domain, domain.unique())
    picture = {"points": plane.points, "domain": place, "y": y}
    return row, {key: values[shown].float() for key, values in picture.items()}


def domains_of(shift: Shift) -> list[Domain]:
    """The images whose domains are told apart: new ones if they are painted, all if from files.

    The paper does not say which images of PACS it takes; few are left if those that a network
    learned from are taken away.
    """
    tests = (shift.id_test, *shift.ood_tests)
    if not isinstance(shift.id_test, FolderDomain):
        return [*tests]
    validation = () if shift.id_val is None else (shift.id_val,)
    return [*dict.fromkeys((*shift.train, *validation, *tests))]


def origin(domain: Domain) -> Tensor:
    """(n,) index of the domain that each image came from, without reading any."""
    return domain.origin if isinstance(domain, FolderDomain) else domain.data.domain


def unseen_objects(parts: Sequence[Domain], seed: int) -> Tensor:
    """A mask of a fifth of the objects, on every background on which they are shown.

    The OOD tests of the embedded benchmark show the objects of its ID test, one after the other.
    """
    own, *ood = map(len, parts)
    chosen = held_out(torch.zeros(max(own, sum(ood)), dtype=torch.int64), seed=seed)
    return torch.cat([chosen[:own], chosen[: sum(ood)]])


def _drawn(domain: Tensor, y: Tensor, each: int, seed: int) -> Tensor:
    """Which images are in a picture: as many of each domain, of the first classes."""
    found = []
    for index in domain.unique().tolist():
        specs = ((domain == index) & (y < SHAPES)).nonzero().flatten()
        order = torch.randperm(len(specs), generator=generator_for(seed, f"plane/domain {index}"))
        found.append(specs[order[:each]])
    return torch.cat(found)


def claims(run: Run) -> Sequence[Claim]:
    """The paper's sentences on domains, in print and here, and what else the numbers say."""
    config = Config.model_validate(run.config)
    rows = _rows(run)
    by = {(row["network"], row["seed"]): row for row in rows}
    there = {row["network"] for row in rows}

    def apart(one: NetworkSpec, other: NetworkSpec) -> list[float]:
        pairs = ((by[one.name, seed], by[other.name, seed]) for seed in range(config.seeds))
        return [first["error"] - second["error"] for first, second in pairs]

    found = _published_claims()
    wanted: dict[str, Any] = {
        "says": "Domains are told apart better in the teacher's features than in a standard "
        "network's",
        "source": "Tab. 5",
        "quantity": "domain error, teacher minus ERM",
        "high": -0.001,
        "published": "0.0019 and 0.0102 on PACS",
    }
    if ERM.name in there:
        found.append(judge(values=apart(TEACHER, ERM), every_seed=True, **wanted))
    else:
        found.append(Claim(**wanted, not_judged="no standard network is compared here"))
    if {CAPTIONED.name, ERM.name} <= there:
        found.append(
            judge(
                "A teacher that learned to name the backgrounds tells them apart, no wonder",
                apart(CAPTIONED, ERM),
                source="ours",
                quantity="domain error, captioned teacher minus ERM",
                high=-0.1,
                every_seed=True,
            )
        )
    if {UNTRAINED.name, ERM.name} <= there:
        found.append(
            judge(
                "Learning labels makes the domains harder to tell apart than they were",
                apart(ERM, UNTRAINED),
                source="ours",
                quantity="domain error, ERM minus untrained",
                low=0.0,
                every_seed=True,
            )
        )
    trained = [row for row in rows if row["network"] != UNTRAINED.name]
    more: dict[str, Any] = {
        "says": "The better the domains are told apart, the more robust the network",
        "source": "App. G.1",
        "quantity": "rank correlation of domain error and OOD accuracy, trained networks",
        "high": -0.5,
    }
    if len(trained) < ENOUGH:
        few = f"{len(trained)} trained networks are too few for a correlation"
        return [*found, Claim(**more, not_judged=few)]
    columns = (torch.tensor([row[key] for row in trained]) for key in ("error", "ood"))
    found.append(Claim(**more, found=spearman(*columns), n=config.seeds))
    return found


def _published_claims() -> list[Claim]:
    """What Table 5 says, without any training."""
    table = published(5)
    errors = {name: row["PACS domain classification error (%)"] for name, row in table.items()}
    ood = [row["PACS OOD (Sketch) test accuracy"] for row in table.values()]
    ranks = spearman(torch.tensor([*errors.values()]), torch.tensor(ood))
    return [
        Claim(
            "In print: the domains of PACS are told apart better in CLIP's features than in a "
            "standard network's",
            "Tab. 5",
            "domain error, ERM-RN50 over CLIP-RN50",
            found=errors["ERM-RN50"] / errors["CLIP-RN50"],
            n=1,
            low=2.0,
        ),
        Claim(
            "In print: the better the domains are told apart, the better sketches are recognized",
            "Tab. 5",
            f"rank correlation of domain error and OOD accuracy, {len(ood)} networks",
            found=ranks,
            n=1,
            high=-0.99,
        ),
    ]


def draw(run: Run) -> Sequence[Figure]:
    """Table 5 in print, the same here, and the planes of Figure 14."""
    config = Config.model_validate(run.config)
    return [_in_print(), _here(config, run), _planes(run)]


def _in_print() -> Figure:
    metrics = {
        "PACS ID test accuracy": "ID",
        "PACS OOD (Sketch) test accuracy": "OOD (sketches)",
        "PACS domain classification error (%)": "domain error",
    }
    rows = [
        {"network": name, "of": metrics[metric], "value": value}
        for name, row in published(5).items()
        for metric, value in row.items()
    ]
    errors = [row for row in rows if row["of"] == "domain error"]
    scores = [row for row in rows if row["of"] != "domain error"]
    panels = (
        bars(
            errors,
            title="Error of a linear classifier of the domain",
            x=("network", ""),
            y=("value", "held-out domain error, %"),
        ),
        bars(
            scores,
            title="Accuracy",
            x=("network", ""),
            y=("value", "accuracy, %"),
            series=("of", ""),
        ),
    )
    return Figure(
        "In print: four domains of PACS",
        "Numbers of the paper's Table 5; nothing was trained for this picture. Photos, art and "
        "cartoons are ID, sketches OOD.",
        "Tab. 5",
        panels,
        tuple(rows),
    )


def _here(config: Config, run: Run) -> Figure:
    """Table 5 of the networks that were trained here."""
    rows = _rows(run)
    errors = over_seeds(rows, ["network"], "error")
    scores = [
        {"network": row["network"], "of": of.upper(), "accuracy": row[of]} | ends
        for of in ("id", "ood")
        for row in over_seeds(rows, ["network"], of)
        for ends in [{"low": row["low"], "high": row["high"]}]
    ]
    first = rows[0]
    panels = (
        bars(
            errors,
            title="Error of a linear classifier of the domain",
            x=("network", ""),
            y=("error", "held-out domain error, share"),
        ),
        bars(
            scores,
            title="Accuracy",
            x=("network", ""),
            y=("accuracy", "accuracy, share"),
            series=("of", ""),
        ),
    )
    known = (
        " The captioned teacher learned to name the backgrounds, those of the OOD tests included: "
        "its small error is by construction."
        if "captioned" in config.others
        else ""
    )
    whiskers = "" if config.seeds == 1 else f" Means of {config.seeds} seeds, whiskers all of them."
    return Figure(
        f"Here: {len(first['domains'])} domains of {_data(config)}",
        f"A logistic regression on features reads the domain of {first['count'] - first['tested']} "
        f"images and is tested on {first['tested']} others; guessing errs in "
        f"{first['guessing']:.0%}.{known}{whiskers}",
        "Tab. 5",
        panels,
        tuple(
            {key: row[key] for key in ("network", "seed", "id", "ood", "error", "guessing")}
            for row in rows
        ),
    )


def _planes(run: Run) -> Figure:
    """The features of every network of the first seed, in two dimensions."""
    panels, points = [], []
    for part in run.parts("net/"):
        (row,) = run.read(part)
        if row["seed"] == 0:
            seen = _points(row, run.arrays(part))
            panels.append((row, _plane(row, seen)))
            points += seen
    order = [row["network"] for row in _rows(run)]
    panels.sort(key=lambda each: order.index(each[0]["network"]))
    more = " of the first seven classes" if len(panels[0][0]["classes"]) == SHAPES else ""
    return Figure(
        "Features in two dimensions, by domain and class",
        f"The two directions in which each network's features vary most, over all domains; a few "
        f"images{more}. Where colors part, the domain can be read off; where shapes do, the class.",
        "Fig. 14",
        tuple(panel for _, panel in panels),
        tuple(points),
    )


def _points(row: dict[str, Any], arrays: dict[str, Tensor]) -> list[dict[str, Any]]:
    """One record for each image of a picture; many ID domains share one name."""
    names = row["domains"]
    if len(names) > COLORS:
        names = ["ID" if name in row["id_domains"] else name for name in names]
    return [
        {"network": row["network"], "domain": names[int(place)], "class": row["classes"][int(y)]}
        | {"first": right, "second": up}
        for (right, up), place, y in zip(
            arrays["points"].tolist(), arrays["domain"], arrays["y"], strict=True
        )
    ]


def _plane(row: dict[str, Any], points: Sequence[dict[str, Any]]) -> Panel:
    shares = [f"{share:.0%}" for share in row["shares"]]
    centers = []
    for name in dict.fromkeys(point["domain"] for point in points):
        mine = [point for point in points if point["domain"] == name]
        center = (fmean(point[axis] for point in mine) for axis in ("first", "second"))
        centers.append("{}: {:.2g}, {:.2g}.".format(name, *center))
    return scatter(
        points,
        title=f"{row['network']} (domain error {row['error']:.2g})",
        x=("first", f"first component ({shares[0]} of the variance)"),
        y=("second", f"second component ({shares[1]})"),
        series=("domain", "domain"),
        shape=("class", "class"),
    )


def summarize(run: Run) -> str:
    """What was found, in two sentences."""
    config = Config.model_validate(run.config)
    errors = over_seeds(_rows(run), ["network"], "error")
    told = ", ".join(f"{row['network']} {row['error']:.2g}" for row in errors)
    kind = "" if config.networks.data != "shapes" else (
        " Without labels of the backgrounds, the most robust network is not the one that tells "
        "them apart best."
    )  # fmt: skip
    return f"How often a linear classifier of features mistakes the domain: {told}.{kind}"


def _data(config: Config) -> str:
    return "the embedded benchmark" if config.networks.data == "shapes" else config.networks.data


def _rows(run: Run) -> list[dict[str, Any]]:
    """The row of every network, in the order in which the config names them."""
    config = Config.model_validate(run.config)
    names = [spec.name for spec in config.specs]
    rows = [row for part in run.parts("net/") for row in run.read(part)]
    return sorted(rows, key=lambda row: (row["seed"], names.index(row["network"])))


EXPERIMENT = Experiment(
    name="fig14_separability",
    title="Domains: whether robust networks tell them apart, or forget them",
    about="The paper sees that the domains of PACS can be told apart linearly in CLIP's features, "
    "hardly with an error, and less well in those of a standard network; it takes this as a sign "
    "of features that are not coupled. Here features are drawn in two dimensions and the domain "
    "is read off them by a linear classifier.",
    reproduces=("Fig. 14", "Tab. 5", "App. G.1"),
    presets={"paper": PAPER, "vit": VIT, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
)
"""Source: Fig. 14, Tab. 5, App. G.1."""
