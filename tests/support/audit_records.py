"""Records as audits of networks of any size would leave them, with drawn numbers."""

import base64
import io
import json
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from PIL import Image

from contam.auditing import reliance
from contam.auditing.causes import CAUSES, head, missing
from contam.auditing.records import (
    HEALTHY,
    UNEXPLAINED,
    AccuracyEstimate,
    Answer,
    AuditRecord,
    CauseEvidence,
    ConfusedPair,
    Example,
    ExampleToLabel,
    Interval,
    LayerRecord,
    Ledger,
    LostPoints,
    MeasuredRemedy,
    NeuronTable,
    Number,
    PixelDifference,
    Projection,
    Remedy,
    Score,
    SetScores,
    Step,
    UnlabeledScores,
    Verdict,
)
from contam.auditing.verdict import QUESTION

OOD = ("textures", "photos")
GROUPS = ("“cross” fails after the shift", "Neuron 3 fires less for “cross”")
HOSTILE = "</script><script>alert('x')</script><!-- & \"quoted\" 'too' 日本語 𝒳 \u2028"
LONG = "contamination" * 24


def around(value: float, half: float = 0.03) -> Interval:
    return Interval(value=value, low=value - half, high=value + half)


def score(value: float, count: int = 400) -> Score:
    return Score(correct=round(value * count), count=count, accuracy=around(value))


def scores(
    rng: np.random.Generator,
    name: str,
    role: Literal["id", "ood"],
    value: float,
    classes: tuple[str, ...],
) -> SetScores:
    domains = {f"{name} {k}": score(value + 0.05 * k, 200) for k in range(3)}
    return SetScores(
        name=name, role=role, overall=score(value), by_domain=domains, worst_domain=f"{name} 0",
        by_class={label: score(float(rng.uniform(value - 0.1, value)), 40) for label in classes},
        effective_robustness=around(-0.08, 0.02) if role == "ood" else None,
        confused=tuple(
            ConfusedPair(label=one, predicted=other, count=3 + k)
            for k, (one, other) in enumerate(pairwise(classes[:6]))
        )[::-1],
        domain_column="city", by_group={"scanner": {"old one": score(value - 0.1, 150)}},
    )  # fmt: skip


def step(
    leads_to: str,
    answer: Answer = "no",
    observed: float | None = 0.02,
    why: str = "",
    on: str = OOD[0],
) -> Step:
    """The test of a cause with the cause's own words."""
    question = next((cause.question for cause in CAUSES if cause.name == leads_to), QUESTION)
    said = {"yes": "this gives most of it back", "no": "this gives little or nothing back"}
    return Step(
        question=question, evidence="share of the lost accuracy that comes back",
        observed=None if observed is None else around(observed), threshold=0.2, answer=answer,
        leads_to=leads_to,
        why=why or f"With {leads_to} treated, accuracy on {on} changes: {said.get(answer, '?')}.",
    )  # fmt: skip


def steps(cause: str = "new backgrounds", ood: str = OOD[0]) -> tuple[Step, ...]:
    """One test of each cause; only that of this cause is positive."""
    untested = "Not tested: there is no reference encoder; give one with reference=."
    tests = []
    for name in (tested.name for tested in CAUSES if tested.name != "undertrained"):
        if name == cause:
            tests.append(step(name, "yes", 0.62, on=ood))
        elif name in ("information missing", "new subtypes"):
            tests.append(step(name, "not asked", None, untested))
        else:
            tests.append(step(name, on=ood))
    return tuple(tests)


def ledger(cause: str, ood: str, loss: float) -> Ledger:
    """A loss of which a cause gives back 60 %, a corruption imitates 25 %, and nothing the rest."""
    entries = [
        LostPoints(
            cause=cause, what="OOD objects on ID backgrounds", points=around(0.6 * loss),
            alone=around(0.7 * loss), how="given back", fix="train on images with more varied "
            "backgrounds",
        ),
        LostPoints(
            cause="input mismatch", what="red and blue channels exchanged (BGR)",
            points=around(0.15 * loss), how="given back", fix="x = x[:, [2, 1, 0]]  # BGR to RGB",
        ),
        LostPoints(
            cause="corruption", what="noise as in the OOD images", points=around(0.1 * loss),
            how="imitated", fix="train with noise, or remove it when the images are taken",
        ),
        LostPoints(
            cause=UNEXPLAINED, what="no test accounts for it", points=Interval(value=0.15 * loss),
            how="rest",
        ),
    ]  # fmt: skip
    return Ledger(on=ood, loss=around(loss), entries=tuple(entries), steps=steps(cause, ood), n=140,
                  shown=700)  # fmt: skip


def verdict(cause: str = "new backgrounds", ood: str = OOD[0]) -> Verdict:
    lost = step(HEALTHY, "yes" if cause == HEALTHY else "no", 0.62,
                f"Accuracy is 97 % on id and 41 % on {ood}: it fails for a cause.")  # fmt: skip
    tested = (lost, *steps(cause, ood), step("undertrained", "no", 0.95))
    yes = [test.why for test in tested if test.answer == "yes"]
    no = [test.why for test in tested if test.answer == "no"]
    return Verdict(
        cause=cause,
        heading=next((test.heading for test in CAUSES if test.name == cause), "Undecided"),
        sentence=f"OOD objects on ID backgrounds: this gives back 33.6 of the 56.0 points that are "
        f"lost on {ood}.",
        reasons=tuple(dict.fromkeys((*yes, *no))),
        steps=tested,
        behind=("input mismatch",),
        findings=("The network relies on the background, which costs nothing on these sets.",),
        missing=("Masks of the objects, so that backgrounds can be changed alone.",),
        remedies=(
            Remedy(what="Center each channel's map in each image (`with_centering`), and train "
                   "again.", effect="0.970 / 0.408 became 0.981 / 0.762 (3 seeds).",
                   caveat="At test time alone it helps little."),
            Remedy(what="Show wider backgrounds in training.",
                   effect="0.970 / 0.408 became 0.979 / 0.56.",
                   caveat="It helps on what it covers."),
        ),
    )  # fmt: skip


def layer(
    rng: np.random.Generator,
    name: str,
    depth: float,
    names: tuple[str, ...],
    classes: tuple[str, ...],
) -> LayerRecord:
    ood = names[1:]
    changes = ("recolored", "contrast", "gray", "darkened")
    rates = rng.beta(2, 4, (len(names), len(classes))).round(4)

    def falling(scale: float) -> dict[str, float]:
        return {key: scale * depth / (1 + k) + 0.05 for k, key in enumerate(names)}

    def lost(*keys: str) -> dict[str, Interval]:
        return {key: around(0.1 + 0.6 * depth * rng.uniform(0.7, 1)) for key in keys}

    return LayerRecord(
        name=name,
        neurons=64,
        selectivity=falling(0.7) | {"untrained": 0.12},
        asymmetry=falling(0.5) | {"untrained": 0.05},
        rate={key: 0.5 - 0.3 * depth for key in (*names, "untrained")},
        class_rates={
            key: tuple(map(float, row)) for key, row in zip(names, rates, strict=True)
        },
        density={key: 0.9 - 0.5 * depth for key in (*names, "untrained")},
        attenuation=lost(*ood),
        across_domains=around(0.2 + 0.1 * depth),
        counterfactual=lost(*changes),
        untrained_attenuation=lost(*ood, "across domains", *changes),
        probe={key: around(0.2 + value) for key, value in falling(0.7).items()}
        | {"untrained": around(0.3)},
        decided={key: 0.1 for key in names},
        undefined={key: 0.05 for key in names},
        information={key: around(2 * value) for key, value in falling(0.9).items()},
        domain_error=around(0.1 + 0.2 * depth),
        untrained_domain_error=around(0.4),
        domain_chance=0.66,
    )  # fmt: skip


def neurons(
    rng: np.random.Generator, count: int, layers: tuple[str, ...], classes: tuple[str, ...]
) -> NeuronTable:
    at = rng.integers(0, len(layers), count)
    own, rate = rng.beta(2, 3, count).round(6), rng.beta(1.5, 4, count).round(6)
    lost = rng.normal(0.45, 0.3, count)

    def some(values: np.ndarray) -> tuple[float | None, ...]:
        gaps = rng.random(count) < 0.05
        pairs = zip(values.tolist(), gaps, strict=True)
        return tuple(None if gap else value for value, gap in pairs)

    return NeuronTable(
        layer=tuple(layers[k] for k in at),
        index=tuple(rng.integers(0, 4096, count).tolist()),
        favorite=tuple(classes[k] for k in rng.integers(0, len(classes), count)),
        selectivity_id=tuple(own.tolist()),
        selectivity_ood=some(own * rng.uniform(0.3, 1, count)),
        rate_id=tuple(rate.tolist()),
        rate_ood=some(rate * rng.uniform(0.5, 1, count)),
        attenuation=some(np.sort(lost)[::-1]),
    )


def picture(rng: np.random.Generator, side: int = 48) -> str:
    small = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
    held = io.BytesIO()
    image.save(held, "WEBP", quality=80)
    return base64.b64encode(held.getvalue()).decode()


def evidence(names: tuple[str, ...]) -> tuple[CauseEvidence, ...]:
    """Evidence of three causes, with several numbers each."""

    def table(what: str, value: Interval, part: str = "") -> list[Number]:
        return [Number(what=what, on=name, part=part, value=value) for name in names]

    return (
        CauseEvidence(
            cause="background shortcut", title="Does the network rely on the background?",
            method="The object is removed.", effect=around(0.12), measured="accuracy", n=200,
            numbers=(
                Number(what=reliance.WITHOUT, on=names[0], part="masks", value=around(0.12)),
                Number(what=reliance.GUESSING, on=names[0], part="masks", value=around(0.1, 0)),
                Number(what=reliance.BITS, on=names[0], part="border", value=around(0.02, 0.01)),
            ),
        ),
        CauseEvidence(
            cause="information missing", title="Can the object be recognized?",
            method="Linear probes are fitted.", effect=around(0.7), measured="accuracy", n=400,
            numbers=tuple(table(missing.PROBE, around(0.7), missing.OWN)),
        ),
        CauseEvidence(
            cause="head", title="Is the classifier head to blame?",
            method="A fresh head is fitted.", effect=around(0.01), measured="gain", n=400,
            numbers=(
                *table(head.OWN, around(0.9)), *table(head.FRESH, around(0.91)),
                *table(head.GAIN, around(0.01)), *table(head.P_VALUE, Interval(value=0.21)),
            ),
            left_out=("One set has too few examples.",),
        ),
    )  # fmt: skip


def unlabeled() -> UnlabeledScores:
    """What an audit says about a set without labels."""
    methods = ("average thresholded confidence", "difference of confidences")
    return UnlabeledScores(
        name="july",
        count=900,
        estimates=tuple(
            AccuracyEstimate(method=method, on="july", estimate=around(0.8), n=900)
            for method in methods
        ),
        checks=tuple(
            AccuracyEstimate(
                method=method, on=on, estimate=around(value), accuracy=around(true), n=400
            )
            for on, value, true in (("id", 0.96, 0.97), ("textures", 0.9, 0.41))
            for method in methods
        ),
        confidence=around(0.84, 0.01),
        id_confidence=around(0.97, 0.01),
        domain_auc=around(0.93, 0.01),
        pixels=tuple(
            PixelDifference(statistic=what, channel=channel, difference=0.4 * k - 0.6)
            for channel in ("red", "green", "blue")
            for k, what in enumerate(("mean", "spread", "noise", "sharpness"))
        ),
        with_labels=Interval(value=0.8, low=0.66, high=0.9),
        widest=Interval(value=0.5, low=0.355, high=0.645),
        to_label=tuple(
            ExampleToLabel(index=7 * k, path=f"camera {k % 3}/{k}.png", predicted="heart")
            for k in range(50)
        ),
    )


def audit(
    *,
    layers: int = 10,
    count: int = 4000,
    classes: tuple[str, ...] = ("cross", "disc", "heart", "ring", "star", "square"),
    ood: tuple[str, ...] = OOD,
    examples: int = 12,
    cause: str = "new backgrounds",
    **changed: Any,
) -> AuditRecord:
    """An audit with all evidence; fields can be exchanged."""
    rng = np.random.default_rng(0)
    names = ("id", *ood)
    layer_names = tuple(f"stage{k // 4}.block{k % 4}.relu" for k in range(layers))
    points = 150
    fields: dict[str, Any] = dict(
        contam="0.1.0",
        model="small convolutional network, width 32",
        classes=classes,
        verdict=verdict(cause, ood[0]),
        ledgers=tuple(ledger(cause, name, 0.56 - 0.1 * k) for k, name in enumerate(ood[:3])),
        sets=(
            scores(rng, "id", "id", 0.97, classes),
            *(scores(rng, name, "ood", 0.41 + 0.1 * k, classes) for k, name in enumerate(ood)),
        ),
        layers=tuple(
            layer(rng, name, k / max(layers - 1, 1), names, classes)
            for k, name in enumerate(layer_names)
        ),
        neurons=neurons(rng, count, layer_names, classes),
        projection=Projection(
            layer=layer_names[-1],
            shares=(0.31, 0.17),
            x=tuple(rng.normal(size=points).tolist()),
            y=tuple(rng.normal(size=points).tolist()),
            data=tuple(names[k % len(names)] for k in range(points)),
            domain=tuple(f"domain {k % 4}" for k in range(points)),
            label=tuple(classes[k % len(classes)] for k in range(points)),
        ),
        evidence=evidence(names),
        examples=tuple(
            Example(
                data=names[k % len(names)], index=k, label=classes[0],
                predicted=classes[k % 2], picture=picture(rng), heat=picture(rng),
                heat_share=0.4, heat_on_object=1.3, note="Loss 2.10 nats.",
                group=GROUPS[k * 2 // max(examples, 1)],
            )
            for k in range(examples)
        ),
        helps=tuple(
            MeasuredRemedy(
                name=name, on=place, id_before=around(0.95), id_after=around(0.94),
                ood_before=around(0.4), ood_after=around(0.4 + gain), gain=around(gain),
                labels=labels, n=400, code=f"from contam.remedies import Repair{labels}\n",
            )
            for place in ood
            for name, gain, labels in (("batch-norm statistics", 0.2, 0), ("last layer", 0.05, 80),
                                       ("fresh head", -0.01, 0))
        ),
        unlabeled=(unlabeled(),),
        left_out=("No reference encoder was named, so `reference=` is worth giving.",),
        provenance={"seed": "0", "torch": "2.13.0", "seconds": "41"},
    )  # fmt: skip
    return AuditRecord.model_validate(fields | changed)


def narrow() -> AuditRecord:
    """An audit with almost no evidence."""
    return AuditRecord(
        contam="0.1.0",
        model="a network",
        classes=("a", "b"),
        verdict=Verdict(cause="undecided", heading="Undecided", sentence="Too few examples.",
                        reasons=(), steps=(), missing=("An OOD set.",)),
        sets=(
            SetScores(name="id", role="id", by_class={},
                      overall=Score(correct=2, count=3, accuracy=Interval(value=2 / 3))),
        ),
    )  # fmt: skip


def hostile(text: str) -> AuditRecord:
    """An audit of which every name is this text, and numbers are missing or not finite."""
    nan = float("nan")
    plain = json.loads(audit(layers=3, count=150, ood=("textures",), examples=2).model_dump_json())
    fixed = ("cause", "leads_to", "behind", "answer", "role", "picture", "heat", "how",
             "statistic")  # fmt: skip
    replaced: dict[str, str] = {}

    def spoiled(value: Any, key: str = "") -> Any:
        if key in fixed:
            return value
        if isinstance(value, str):
            return replaced.setdefault(value, f"{len(replaced)} {text}")
        if isinstance(value, list | tuple):
            return [spoiled(item, key) for item in value]
        if isinstance(value, dict):
            keyed = ("by_class", "by_domain", "provenance", *MEASURES)
            named = key in keyed and "value" not in value
            return {
                (spoiled(name) if named else name): spoiled(item, name if not named else "")
                for name, item in value.items()
            }
        return value

    spoilt = AuditRecord.model_validate(spoiled(plain))
    layers = list(spoilt.layers)
    first = layers[0]
    layers[0] = first.model_copy(
        update={"attenuation": {name: Interval(value=nan) for name in first.attenuation},
                "rate": dict.fromkeys(first.rate, nan), "probe": {}}
    )  # fmt: skip
    assert spoilt.neurons is not None
    table = spoilt.neurons.model_copy(
        update={"attenuation": (nan, float("inf"), None, *spoilt.neurons.attenuation[3:])}
    )
    return spoilt.model_copy(update={"layers": tuple(layers), "neurons": table})


MEASURES = (
    "selectivity", "asymmetry", "rate", "class_rates", "density", "attenuation",
    "counterfactual", "untrained_attenuation", "probe", "decided", "information",
)  # fmt: skip
