"""Do a robust network's features separate the domains better than a standard one's?"""

from collections.abc import Iterator, Sequence
from functools import partial
from operator import attrgetter
from statistics import fmean
from typing import Any, Literal

import torch
from pydantic import BaseModel, PositiveInt
from torch import Tensor

from contam.experiment import (
    Claim,
    Experiment,
    NotJudged,
    Pooled,
    Stage,
    Statement,
    judge_all,
)
from contam.experiments.support.domain_images import domains_of, unseen_objects
from contam.experiments.support.model_zoo import ModelZoo
from contam.experiments.support.networks import (
    CALIBRATED,
    CAPTIONED,
    ERM,
    SMALL_NETWORKS,
    STUDENT,
    TEACHER,
    TINY_NETWORKS,
    UNTRAINED,
    Networks,
    NetworkSpec,
)
from contam.experiments.support.per_network import (
    by_network,
    compared,
    controls_in,
    largest_control,
    measure_each,
    network_table,
    null,
    require_learning,
    trained,
)
from contam.measures.correlation import spearman
from contam.measures.published import published
from contam.measures.separability import domain_error, held_out, principal_plane
from contam.plots import Figure, bars, over_seeds, scatter
from contam.rng import generator_for
from contam.run import DataFrame, Run
from contam.training.optimize import Recipe
from contam.training.probe import FullBatch, extract

SHAPES = 7
"""Classes in a scatter plot, as many as PACS has; more marker shapes are hard to distinguish."""
COLORS = 7
"""The most domains with colors of their own; of more, the ID domains share one color."""
ENOUGH = 5
"""The fewest networks for a rank correlation."""
OTHERS = {
    "captioned": CAPTIONED, "student": STUDENT, "ERM": ERM, "untrained": UNTRAINED,
    "calibrated": CALIBRATED,
}  # fmt: skip
Other = Literal["captioned", "student", "ERM", "untrained", "calibrated"]


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults are App. G.1's, CLIP's ResNet-50 and a standard one, unless a field says otherwise.

    The paper gives no settings. Here the probe is fitted to its optimum, and the standard network
    is fine-tuned from ImageNet with the defaults of DomainBed, except that its batch norms learn.
    """

    networks: Networks = Networks(
        data="pacs",
        standard_recipe=Recipe(5e-5, 0.0, 32, steps=5000, cosine=False, per_domain=True),
        standard_start_from="torchvision:resnet50",
        probe=FullBatch(),
    )
    others: tuple[Other, ...] = ("ERM", "untrained", "calibrated")
    """Networks to compare with the teacher; all but ERM are ours."""
    drawn: PositiveInt = 40
    """Ours: images of each domain in a scatter plot."""
    seeds: PositiveInt = 1

    @property
    def specs(self) -> list[NetworkSpec]:
        """The networks that are compared."""
        return [TEACHER, *(OTHERS[name] for name in dict.fromkeys(self.others))]


PAPER = Config()
VIT = Config(
    networks=PAPER.networks.model_copy(
        update={
            "teacher": "open_clip:ViT-B-16/openai",
            "standard": None,
            "standard_recipe": None,
            "standard_start_from": None,
        }
    ),
    others=("untrained",),
)
LAPTOP = Config(
    networks=SMALL_NETWORKS,
    others=("captioned", "student", "ERM", "untrained", "calibrated"),
    seeds=3,
)
SMOKE = LAPTOP.model_copy(update={"networks": TINY_NETWORKS, "drawn": 8, "seeds": 2})


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train the missing networks, and classify the domains by their features."""
    yield from measure_each(
        run, config.networks, config.seeds, partial(_measure, config),
        chosen=config.specs, name=attrgetter("part"),
    )  # fmt: skip


def _measure(
    config: Config, zoo: ModelZoo, spec: NetworkSpec
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """The domain error of a network, its scores, and a few images for the plane."""
    row, arrays = separated(config, zoo, spec)
    scores = zoo.judge(spec)
    row |= {"id": next(score["score"] for score in scores if score["role"] == "id")}
    row |= {"ood": fmean(score["score"] for score in scores if score["role"] == "ood")}
    return [row], arrays


def separated(
    config: Config, zoo: ModelZoo, spec: NetworkSpec
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The error of a linear classifier of the domain, and a few images in the feature plane.

    Source: Tab. 5, Fig. 14.
    """
    shift = zoo.benchmark(spec).shift
    parts = domains_of(shift)
    encoder = zoo.network(spec).encoder
    features = torch.cat([extract(encoder, part) for part in parts])
    domain = torch.cat([part.origin for part in parts])
    y = torch.cat([part.y for part in parts])
    if config.networks.data == "shapes":
        test = unseen_objects(parts, zoo.seed)
    else:
        test = held_out(domain, seed=zoo.seed)
    plane = principal_plane(features)
    shown = _drawn(domain, y, config.drawn, zoo.seed)
    names = {int(part.origin[0]): part.name for part in (*shift.train, *shift.ood_tests)}
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


def _drawn(domain: Tensor, y: Tensor, count: int, seed: int) -> Tensor:
    """The numbers of `count` images of each domain, from the first classes."""
    drawn = []
    for index in domain.unique().tolist():
        members = ((domain == index) & (y < SHAPES)).nonzero().flatten()
        draws = generator_for(seed, f"plane/domain {index}")
        drawn.append(members[torch.randperm(len(members), generator=draws)[:count]])
    return torch.cat(drawn)


def _difference(table: DataFrame, one: NetworkSpec, other: NetworkSpec) -> list[float]:
    first, second = compared(table, "error", one, other)
    require_learning(table, "id", [one.name, other.name])
    return (first - second).tolist()


def _above_controls(table: DataFrame) -> list[float]:
    errors = by_network(table, "error")
    if ERM.name not in errors or not controls_in(errors):
        raise NotJudged("there is no standard or no untrained network in this run")
    require_learning(table, "id", [ERM.name])
    return (errors[ERM.name] - largest_control(errors)).tolist()


def _robustness(table: DataFrame) -> Pooled:
    networks = table[table.network.isin(trained(table))]
    if len(networks) < ENOUGH:
        raise NotJudged(f"{len(networks)} trained networks are too few for a correlation")
    require_learning(table, "id")
    columns = (torch.tensor(networks[key].tolist()) for key in ("error", "ood"))
    return Pooled(spearman(*columns), table.seed.nunique())


def _published_ratio(_: object) -> Pooled:
    errors = [published(5)[name][DOMAIN_ERROR] for name in ("ERM-RN50", "CLIP-RN50")]
    return Pooled(errors[0] / errors[1], 1)


def _published_ranks(_: object) -> Pooled:
    rows = published(5).values()
    error, ood = (torch.tensor([row[key] for row in rows]) for key in (DOMAIN_ERROR, OOD_ACCURACY))
    return Pooled(spearman(error, ood), 1)


ID_ACCURACY, OOD_ACCURACY, DOMAIN_ERROR = (
    "PACS ID test accuracy",
    "PACS OOD (Sketch) test accuracy",
    "PACS domain classification error (%)",
)
"""Columns of Table 5."""
TABLE_5 = (
    Statement(
        "Published: the domains of PACS are separated better by CLIP's features than by a standard "
        "network's",
        "Tab. 5",
        "domain error, ERM-RN50 over CLIP-RN50",
        _published_ratio,
        low=2.0,
        about_learning=False,
    ),
    Statement(
        "Published: the better the domains are separated, the better sketches are recognized",
        "Tab. 5",
        "rank correlation of domain error and OOD accuracy, {count} networks",
        _published_ranks,
        high=-0.99,
        about_learning=False,
    ),
)
HERE = (
    Statement(
        "The teacher's features separate the domains better than a standard network's",
        "Tab. 5",
        "domain error, teacher minus ERM",
        lambda table: _difference(table, TEACHER, ERM),
        high=-0.001,
        published="0.0019 and 0.0102 on PACS",
        every_seed=True,
    ),
    Statement(
        "The features of a teacher that learned the names of the backgrounds separate them, as "
        "they must",
        "ours",
        "domain error, captioned teacher minus ERM",
        lambda table: _difference(table, CAPTIONED, ERM),
        high=-0.1,
        every_seed=True,
    ),
    Statement(
        "Learning labels makes the domains harder to separate",
        "ours",
        "domain error, ERM minus the larger one of the untrained networks",
        _above_controls,
        low=0.0,
        every_seed=True,
    ),
    Statement(
        "The better the domains are separated, the more robust the network",
        "App. G.1",
        "rank correlation of domain error and OOD accuracy, trained networks",
        _robustness,
        high=-0.5,
    ),
)


def claims(run: Run) -> Sequence[Claim]:
    """The paper's statements on domains, from its own table and from this run."""
    return judge_all(TABLE_5 + HERE, _table(run), count=len(published(5)))


def draw(run: Run) -> Sequence[Figure]:
    """Table 5 as published, the same from this run, and the planes of Figure 14."""
    config = Config.model_validate(run.config)
    table = _table(run)
    return [_published(), _here(config, table), _planes(run, table)]


def _published() -> Figure:
    metrics = {ID_ACCURACY: "ID", OOD_ACCURACY: "OOD (sketches)", DOMAIN_ERROR: "domain error"}
    rows = [
        {"network": name, "of": metrics[metric], "value": value}
        for name, row in published(5).items()
        for metric, value in row.items()
    ]
    panels = (
        bars(
            [row for row in rows if row["of"] == "domain error"],
            title="Error of a linear classifier of the domain",
            x=("network", ""),
            y=("value", "held-out domain error, %"),
        ),
        bars(
            [row for row in rows if row["of"] != "domain error"],
            title="Accuracy",
            x=("network", ""),
            y=("value", "accuracy, %"),
            series=("of", ""),
        ),
    )
    return Figure(
        "Published: four domains of PACS",
        "Numbers of the paper's Table 5; nothing was trained for this figure. Photos, art and "
        "cartoons are ID, sketches OOD.",
        "Tab. 5",
        panels,
        tuple(rows),
    )


def _here(config: Config, table: DataFrame) -> Figure:
    """Table 5 of this run's networks."""
    scores = [
        {"network": row["network"], "of": of.upper(), "accuracy": row[of]}
        | {"low": row["low"], "high": row["high"]}
        for of in ("id", "ood")
        for row in over_seeds(table, ["network"], of)
    ]
    panels = (
        bars(
            over_seeds(table, ["network"], "error"),
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
    captioned = (
        " The captioned teacher learned the names of the backgrounds, also of those in the OOD "
        "tests: its small error is by construction."
        if "captioned" in config.others
        else ""
    )
    whiskers = "" if config.seeds == 1 else f" Means of {config.seeds} seeds; whiskers: all seeds."
    first = table.iloc[0]
    return Figure(
        f"This run: {len(first.domains)} domains of {_data(config)}",
        f"A logistic regression on features learns the domain of {first['count'] - first.tested} "
        f"images and is tested on {first.tested} others; guessing has an error of "
        f"{first.guessing:.0%}.{captioned}{whiskers}",
        "Tab. 5",
        panels,
        tuple(table[["network", "seed", "id", "ood", "error", "guessing"]].to_dict("records")),
    )


def _planes(run: Run, table: DataFrame) -> Figure:
    """The features of every network of the first seed, in two dimensions."""
    panels, points = [], []
    rows = table[table.seed == 0].to_dict("records")
    for row in rows:
        images = plotted(row, run.arrays(row["part"]))
        points += images
        first, second = (f"{share:.0%}" for share in row["shares"])
        panels.append(
            scatter(
                images,
                title=f"{row['network']} (domain error {row['error']:.2g})",
                x=("first", f"first component ({first} of the variance)"),
                y=("second", f"second component ({second})"),
                series=("domain", "domain"),
                shape=("class", "class"),
            )
        )
    more = " of the first seven classes" if len(rows[0]["classes"]) == SHAPES else ""
    return Figure(
        "Features in two dimensions, by domain and class",
        "The two directions in which each network's features vary most, over all domains; a few "
        f"images{more}. Separate colors show the domain; separate marker shapes show the class.",
        "Fig. 14",
        tuple(panels),
        tuple(points),
    )


def plotted(row: dict[Any, Any], arrays: dict[str, Tensor]) -> list[dict[str, Any]]:
    """A row for each image of a scatter plot; many ID domains share one name.

    >>> row = {"network": "ERM", "domains": ["photo", "sketch"], "id_domains": ["photo"],
    ...        "classes": ["cow", "camel"]}
    >>> arrays = {"points": torch.tensor([[1.0, 2.0]]), "domain": torch.tensor([1]),
    ...           "y": torch.tensor([0])}
    >>> plotted(row, arrays)
    [{'network': 'ERM', 'domain': 'sketch', 'class': 'cow', 'first': 1.0, 'second': 2.0}]
    """
    names = row["domains"]
    if len(names) > COLORS:
        names = ["ID" if name in row["id_domains"] else name for name in names]
    return [
        {"network": row["network"], "domain": names[int(place)], "class": row["classes"][int(y)]}
        | {"first": first, "second": second}
        for (first, second), place, y in zip(
            arrays["points"].tolist(), arrays["domain"], arrays["y"], strict=True
        )
    ]


def summarize(run: Run) -> str:
    """The domain errors, in two sentences."""
    config = Config.model_validate(run.config)
    errors = over_seeds(_table(run), ["network"], "error")
    values = ", ".join(f"{row['network']} {row['error']:.2g}" for row in errors)
    lesson = "" if config.networks.data != "shapes" else (
        " Without labels of the backgrounds, the most robust network is not the one that separates "
        "them best."
    )  # fmt: skip
    return f"Error of a linear classifier of the domain, on features: {values}.{lesson}"


def _data(config: Config) -> str:
    return "the embedded benchmark" if config.networks.data == "shapes" else config.networks.data


def _table(run: Run) -> DataFrame:
    """The row of every network, by seed, in the order of the config."""
    return network_table(run, Config.model_validate(run.config).specs)


EXPERIMENT = Experiment(
    name="fig14_separability",
    title="Domains: do robust networks separate them, or forget them?",
    about="In the paper, a linear classifier of CLIP's features separates the domains of PACS with "
    "almost no error, and one of a standard network's features does worse; the paper takes this as "
    "a sign of uncontaminated features. Here features are drawn in two dimensions, and a linear "
    "classifier predicts the domain from them.",
    reproduces=("Fig. 14", "Tab. 5", "App. G.1"),
    presets={"paper": PAPER, "vit": VIT, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
"""Source: Fig. 14, Tab. 5, App. G.1."""
