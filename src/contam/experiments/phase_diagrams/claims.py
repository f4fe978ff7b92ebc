"""What each diagram shows, as one sentence and one number, with the condition to be judged."""

from collections.abc import Callable, Sequence
from typing import Any

from contam.experiment import Claim, NotJudged, Statement, judge_all
from contam.experiments.phase_diagrams.cells import LINEAR, OPTIMIZERS
from contam.experiments.phase_diagrams.config import Name
from contam.experiments.phase_diagrams.results import (
    LEARNED,
    Measure,
    PhaseResults,
    crossing,
    require_learned,
)
from contam.experiments.support.two_layer_runs import NAMES
from contam.run import Run
from contam.theory.setting import Activation

ODD: tuple[Activation, ...] = ("tanh", "sigmoid", "identity")
"""Activation functions that are odd around 0, up to a constant."""
RELU, LINEAR_NAME = NAMES["relu"], NAMES[LINEAR]


def _at(name: Name, column: str, pick: Callable[[Any], Any], series: object = None) -> Measure:
    """A column of a diagram, at the value that `pick` selects of the axis; one number per seed."""

    def measure(results: PhaseResults) -> list[float]:
        table = results.curves(name, column, series)
        try:
            return table[pick(table.columns)].tolist()
        except KeyError as missing:
            raise NotJudged(f"the diagram {name!r} does not have {missing}") from None

    return measure


def _minus(over: Measure, under: Measure) -> Measure:
    """Differences, seed by seed."""
    return lambda r: [a - b for a, b in zip(over(r), under(r), strict=True)]


def _spread(name: Name, column: str, series: object = None) -> Measure:
    """Largest minus smallest value along the axis, seed by seed."""

    def measure(results: PhaseResults) -> list[float]:
        table = results.curves(name, column, series)
        return (table.max(axis=1) - table.min(axis=1)).tolist()

    return measure


def _lowest(name: Name, column: str, series: object = None) -> Measure:
    """Smallest value along the axis, seed by seed, also of networks that did not learn."""
    return lambda r: r.curves(name, column, series, learned=False).min(axis=1).tolist()


def _largest_size(name: Name, column: str, series: object = None) -> Measure:
    """Largest absolute value along the axis, seed by seed."""
    return lambda results: results.curves(name, column, series).abs().max(axis=1).tolist()


def _halving_slope(results: PhaseResults, time: float | None = None) -> list[float]:
    """The slope at which the cost of the shift has fallen to half of that of ReLU.

    Args:
        results: the run.
        time: the training time; None for the longest one.
    """
    table = results.curves("slope", "gap", time=time)
    slopes = table.columns.tolist()
    return [crossing(slopes, row.tolist(), row.iloc[0] / 2) for _, row in table.iterrows()]


FITTED = 0.1
"""ID risk, as a share of the risk of an output of 0, below which a network has fitted the data."""


def times(results: PhaseResults, remaining: float) -> list[float]:
    """The training times after which the networks of all slopes have a small ID risk.

    Args:
        results: the run.
        remaining: largest ID risk, as a share of the risk of an output of 0; means over seeds.
    """
    means = results.rows("slope").groupby(["time", "x"])["remaining"].mean()
    largest = means.groupby("time").max()
    early = largest[largest <= remaining].index.tolist()
    if len(early) < 2:
        raise NotJudged(f"ID risks are below {remaining:g} at fewer than two training times")
    return early


def spread_over_time(results: PhaseResults) -> list[float]:
    """Largest minus smallest halving slope over the training times after the fit."""
    slopes = [_halving_slope(results, time) for time in times(results, FITTED)]
    return [max(values) - min(values) for values in zip(*slopes, strict=True)]


def relu_over_time(results: PhaseResults) -> list[float]:
    """OOD - ID risk of ReLU networks, longest minus shortest training time."""
    chosen = times(results, LEARNED)
    first, last = (
        results.curves("slope", "gap", time=time)[0.0] for time in (chosen[0], chosen[-1])
    )
    return (last - first).tolist()


def _asymmetry_of_sign(results: PhaseResults) -> list[float]:
    """Largest |V / U| difference between opposite correlations."""
    table = results.curves("correlation", "contamination", RELU)
    pairs = [x for x in table.columns if x > 0 and -x in table.columns]
    if not pairs:
        raise NotJudged("no two correlations of the config are opposite")
    return [max(abs(row[x] - row[-x]) for x in pairs) for _, row in table.iterrows()]


def _shortcut_over_contamination(results: PhaseResults) -> list[float]:
    """Shortcut use over V at the largest correlation."""
    shortcut, v = (_at("correlation", name, max, RELU)(results) for name in ("shortcut", "V"))
    return [a / b for a, b in zip(shortcut, v, strict=True)]


def _over_width(column: str) -> Measure:
    """Spread of a column over widths at the largest number of features."""

    def measure(results: PhaseResults) -> list[float]:
        return _spread("width", column, results.rows("width")["series"].max())(results)

    return measure


def _rotation_effect(optimizer: str) -> Measure:
    """|V / U| difference between features on the axes and rotated ones."""

    def measure(results: PhaseResults) -> list[float]:
        rotated, axes = (
            _at("optimizer", "contamination", lambda x: OPTIMIZERS[optimizer], dictionary)(results)
            for dictionary in ("rotated", "axes")
        )
        return [abs(a - b) for a, b in zip(rotated, axes, strict=True)]

    return measure


def _symmetric_activations(results: PhaseResults) -> list[float]:
    """Largest |V / U| over the activation functions that are odd, up to a constant."""
    table = results.curves("activation", "contamination")
    odd = [NAMES[name] for name in ODD if NAMES[name] in table]
    if not odd:
        raise NotJudged("the config has no such activation function")
    return table[odd].abs().max(axis=1).tolist()


def _depth_table(
    results: PhaseResults, kind: str, column: str, state: str = "trained", *, learned: bool = True
) -> Any:
    """A column of the deepest networks of a kind: a row for each seed, a column for each layer."""
    rows = results.rows("depth", kind)
    rows = rows[rows["depth"] == rows["depth"].max()]
    if learned:
        require_learned(rows[rows["state"] == "trained"])
    return rows[rows["state"] == state].pivot(index="seed", columns="layer", values=column)


def _first_layer_rise(results: PhaseResults) -> list[float]:
    """Attenuation of the first layer that training adds."""
    before, after = (
        _depth_table(results, "plain", "attenuation", state, learned=False)[1]
        for state in ("untrained", "trained")
    )
    return (after - before).tolist()


def _share_of_first_layer(results: PhaseResults) -> list[float]:
    """Attenuation of the first layer over that of the last one, after training."""
    table = _depth_table(results, "plain", "attenuation")
    return (table[1] / table[table.columns.max()]).tolist()


def _deep_gap(kind: str) -> Measure:
    """OOD minus ID risk of the deepest networks of a kind."""
    return lambda results: _depth_table(results, kind, "gap")[1].tolist()


def critical_slopes(results: PhaseResults, share: float) -> tuple[list[float], float]:
    """The critical slopes of trained networks, one for each seed, and the predicted one.

    Args:
        results: the run.
        share: share of core features.

    Returns:
        The slopes at which the OOD risk at the fit is 1/2; 0 where ReLU networks are below it.
    """
    table = results.curves("critical", "ood_risk", share)
    predicted = results.rows("critical", "predicted")
    predicted = predicted[predicted["series"] == share].set_index("x")["ood_risk"]
    if predicted.reindex(table.columns).isna().any():
        raise NotJudged("a network of the diagram is not predicted to fit")

    def critical(risks: Any) -> float:
        return 0.0 if risks[0] <= HALF else crossing(table.columns.tolist(), risks, HALF)

    risks = predicted.reindex(table.columns).tolist()
    return [critical(row.tolist()) for _, row in table.iterrows()], critical(risks)


def errors_of_critical_slopes(results: PhaseResults) -> list[float]:
    """Largest |predicted - trained| critical slope over the shares, seed by seed."""
    errors = []
    for share in results.rows("critical")["series"].unique():
        trained, predicted = critical_slopes(results, share)
        errors.append([abs(slope - predicted) for slope in trained])
    return [max(values) for values in zip(*errors, strict=True)]


def fall_of_critical_slopes(results: PhaseResults) -> list[float]:
    """Critical slope with the smallest share of core features minus that with the largest one."""
    shares = results.rows("critical")["series"]
    few, many = (critical_slopes(results, share)[0] for share in (shares.min(), shares.max()))
    return [a - b for a, b in zip(few, many, strict=True)]


def _errors_at_fit(results: PhaseResults) -> list[float]:
    """Largest |predicted - trained| OOD risk at the fit, means over seeds."""
    require_learned(results.rows("critical"))
    return [max(differences(results, "critical", "ood_risk", keys=("series", "x")))]


HALF = 0.5
"""The OOD hinge risk at the fit that defines the critical slope."""
PREDICTED: tuple[Name, ...] = (
    "slope", "decay", "correlation", "coherence", "width", "share", "weights",
)  # fmt: skip
"""The diagrams whose cells the population model covers, if only for some of their curves."""


def differences(
    results: PhaseResults, name: Name, column: str, keys: Sequence[str] = ("series", "x", "time")
) -> list[float]:
    """|Predicted - trained| of a column in the covered cells that learned, means over seeds.

    Args:
        results: the run.
        name: the diagram.
        column: the column.
        keys: the columns that name a cell.

    Returns:
        One number for each cell; none where the diagram has no predictions.
    """
    predicted = results.rows(name, "predicted")
    if column not in predicted or not len(predicted):
        return []
    predicted = predicted.set_index(list(keys))[column]
    rows = results.rows(name).groupby(list(keys))[["remaining", column]].mean()
    rows = rows[rows["remaining"] <= LEARNED][column]
    return (predicted - rows).abs().dropna().tolist()


def prediction_errors(column: str) -> Measure:
    """Largest |predicted - trained| of a column over the covered cells, means over seeds."""

    def measure(results: PhaseResults) -> list[float]:
        errors = [
            error
            for name in PREDICTED
            if results.has(name)
            for error in differences(results, name, column)
        ]
        if not errors:
            raise NotJudged("the run has no network that learned and that the model covers")
        return [max(errors)]

    return measure


CLAIMS: dict[Name, tuple[Statement, ...]] = {
    "slope": (
        Statement(
            "A leaky activation function ends contamination well before it is linear", "ours",
            "slope of leaky ReLU at which OOD - ID risk is half that of ReLU",
            _halving_slope, low=0.15, high=0.4, every_seed=True),
        Statement(
            "After the fit, the slope that suffices hardly depends on the step budget", "ours",
            "slope at which OOD - ID risk is half that of ReLU, largest minus smallest over the "
            "training times after the fit", spread_over_time, high=0.05),
        Statement(
            "More steps do not end contamination: they raise what the shift costs", "ours",
            "OOD - ID risk of ReLU, longest minus shortest training time after which all networks "
            "have learned", relu_over_time, low=0.05),
    ),
    "batch": (
        Statement(
            "Gradient noise is not the cause: contamination hardly depends on the batch size",
            "ours", "V / U, largest minus smallest over the batch sizes",
            _spread("batch", "contamination"), high=0.1),
    ),
    "decay": (
        Statement(
            "Weight decay does not help: with the strongest one, more background is learned",
            "ours", "V / U of ReLU, strongest weight decay minus none",
            _minus(_at("decay", "contamination", max, RELU),
                  _at("decay", "contamination", min, RELU)), low=0.02),
    ),
    "correlation": (
        Statement(
            "The sign of a correlation with the label does not matter for contamination", "ours",
            "largest |V / U difference| of ReLU between opposite correlations",
            _asymmetry_of_sign, high=0.1),
        Statement(
            "A shortcut is used more as the correlation grows", "ours",
            "shortcut use of ReLU (V in the sign of the output weight), correlation 1 minus 0",
            _minus(_at("correlation", "shortcut", max, RELU),
                  _at("correlation", "shortcut", lambda x: min(x, key=abs), RELU)), low=0.05),
        Statement(
            "Contamination outweighs it, even where every background weight agrees with the label",
            "ours", "shortcut use over V of ReLU, at a correlation of 1",
            _shortcut_over_contamination, high=0.5),
    ),
    "coherence": (
        Statement(
            "Features that are not orthogonal do not protect: ReLU loses more than linear", "ours",
            "OOD - ID risk, ReLU minus linear, smallest over the coherences",
            _minus(_lowest("coherence", "gap", RELU),
                  _lowest("coherence", "gap", LINEAR_NAME)), low=0.3),
    ),
    "width": (
        Statement(
            "Wider networks are contaminated as much", "ours",
            "V / U, largest minus smallest over the widths, at the most features",
            _over_width("contamination"), high=0.1),
    ),
    "share": (
        Statement(
            "The fewer core features, the more contamination", "ours",
            "V / U, smallest minus largest share of core features",
            _minus(_at("share", "contamination", min), _at("share", "contamination", max)),
            low=0.3),
    ),
    "classes": (
        Statement(
            "Contamination is not special to two classes", "ours",
            "OOD - ID logistic risk of ReLU, smallest over the numbers of classes",
            _lowest("classes", "gap", RELU), low=0.05),
        Statement(
            "With any number of classes, the shift costs linear networks nothing", "ours",
            "largest |OOD - ID| logistic risk of linear networks",
            _largest_size("classes", "gap", LINEAR_NAME), high=0.02),
    ),
    "weights": (
        Statement(
            "Contamination does not need uniform weights: it occurs in every distribution", "ours",
            "OOD - ID risk, smallest over the distributions",
            _lowest("weights", "gap"), low=0.3),
    ),
    "depth": (
        Statement(
            "In deep networks, the coupling of class and background arises in the first layer",
            "ours", "attenuation of the first layer over that of the last one, deepest networks",
            _share_of_first_layer, low=0.65, high=1.0),
        Statement(
            "Training adds to the attenuation of the first layer", "ours",
            "attenuation of the first layer, trained minus untrained, deepest networks",
            _first_layer_rise, low=0.1, every_seed=True),
        Statement(
            "Residual connections weaken the effect", "ours",
            "OOD - ID logistic risk of the deepest networks, plain minus residual",
            _minus(_deep_gap("plain"), _deep_gap("residual")), low=0.02),
        Statement(
            "Deep linear networks show none of it", "ours",
            "|attenuation| of the last layer of the deepest linear networks",
            lambda r: [abs(v) for v in _depth_table(r, "linear", "attenuation").iloc[:, -1]],
            high=0.02),
    ),
    "optimizer": (
        Statement(
            "No optimizer avoids contamination", "ours",
            "OOD - ID risk, smallest over the optimizers, features on the axes",
            _lowest("optimizer", "gap", "axes"), low=0.1),
        Statement(
            "The directions of the features do not matter for SGD", "ours",
            "|V / U, rotated minus axes|, SGD", _rotation_effect("sgd"), high=0.01),
        Statement(
            "They matter for AdamW, which scales each coordinate on its own", "ours",
            "|V / U, rotated minus axes|, AdamW", _rotation_effect("adamw"), low=0.02),
    ),
    "activation": (
        Statement(
            "Activation functions that are symmetric around 0 are not contaminated, others are",
            "ours", "largest |V / U| of tanh, sigmoid and linear networks",
            _symmetric_activations, high=0.05),
        Statement(
            "A shift costs GELU less than ReLU, but still a lot", "ours", "OOD - ID risk of GELU",
            _at("activation", "gap", lambda x: NAMES["gelu"]), low=0.3),
    ),
    "critical": (
        Statement(
            "The critical slope follows from the numbers of core and background features", "ours",
            "largest |predicted - trained| slope at which the OOD risk at the fit is 1/2, over the "
            "shares of core features", errors_of_critical_slopes, high=0.05),
        Statement(
            "The fewer core features, the larger the critical slope", "ours",
            "critical slope, smallest minus largest share of core features",
            fall_of_critical_slopes, low=0.2, every_seed=True),
        Statement(
            "The formulas predict the risk at the fit", "ours",
            "largest |predicted - trained| OOD risk at the fit over slopes and shares, means over "
            "seeds", _errors_at_fit, high=0.06),
    ),
}  # fmt: skip
"""The claims of each diagram, its headline first."""

PREDICTIONS = (
    Statement(
        "The population model predicts every cell that it covers", "ours",
        "largest |predicted - trained| V / U over the covered cells, means over seeds",
        prediction_errors("contamination"), high=0.1),
    Statement(
        "It predicts what the shift costs there", "ours",
        "largest |predicted - trained| OOD - ID risk over the covered cells, means over seeds",
        prediction_errors("gap"), high=0.1),
)  # fmt: skip


def claims(run: Run) -> Sequence[Claim]:
    """Judge the claims of the diagrams that the run has, and the predictions."""
    results = PhaseResults(run)
    judged = [
        claim
        for name, statements in CLAIMS.items()
        if results.has(name)
        for claim in judge_all(statements, results)
    ]
    return [*judged, *judge_all(PREDICTIONS, results)]


def summarize(run: Run) -> str:
    """How many claims hold, and the headline number of each diagram."""
    results = PhaseResults(run)
    judged = [claim for claim in claims(run) if claim.holds is not None]
    held = sum(claim.holds is True for claim in judged)
    headlines = [
        f"{claim.quantity}, {claim.observed:.2f}"
        for name, (headline, *_) in CLAIMS.items()
        if results.has(name) and (claim := headline.judge(results)).observed is not None
    ]
    text = f"{held} of the {len(judged)} claims that could be judged hold."
    return f"{text} Headlines: {'; '.join(headlines)}." if headlines else text
