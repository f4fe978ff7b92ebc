"""The paper's table of contents in code: one module for each procedure."""

from difflib import get_close_matches

from contam import paper
from contam.experiment import Experiment
from contam.experiments import (
    background_projection,
    chest_xray,
    conjecture_pretraining,
    contamination_pairs,
    coupling_family,
    depth_optimizers,
    difficulty_axis,
    fig03_two_layer,
    fig04_activation_rates,
    fig05_selectivity,
    fig06_heatmaps,
    fig10_activations,
    fig13_padded_cifar,
    fig13_padded_digits,
    fig14_separability,
    fig15_density,
    joint_law,
    remedy_effects,
    simulation,
    theory_remedies,
    thm4_scaling,
)
from contam.experiments.dominoes.experiment import EXPERIMENT as DOMINOES
from contam.experiments.fig01_distillation.experiment import EXPERIMENT as FIGURE_1
from contam.experiments.phase_diagrams.experiment import EXPERIMENT as PHASE_DIAGRAMS
from contam.experiments.tab04_baselines.experiment import EXPERIMENT as BASELINES

EXPERIMENTS: tuple[Experiment, ...] = (
    FIGURE_1,
    BASELINES,
    fig03_two_layer.EXPERIMENT,
    thm4_scaling.EXPERIMENT,
    PHASE_DIAGRAMS,
    theory_remedies.EXPERIMENT,
    fig04_activation_rates.EXPERIMENT,
    fig05_selectivity.EXPERIMENT,
    fig06_heatmaps.EXPERIMENT,
    fig10_activations.EXPERIMENT,
    fig13_padded_cifar.EXPERIMENT,
    fig13_padded_digits.EXPERIMENT,
    fig14_separability.EXPERIMENT,
    fig15_density.EXPERIMENT,
    coupling_family.EXPERIMENT,
    depth_optimizers.EXPERIMENT,
    conjecture_pretraining.EXPERIMENT,
    contamination_pairs.EXPERIMENT,
    remedy_effects.EXPERIMENT,
    background_projection.EXPERIMENT,
    DOMINOES,
    difficulty_axis.EXPERIMENT,
    joint_law.EXPERIMENT,
    chest_xray.EXPERIMENT,
    simulation.EXPERIMENT,
)

IN_DEMO: dict[str, str] = {
    "fig13_padded_digits": "laptop",
    "fig01_distillation": "demo",
    "fig10_activations": "demo",
    "thm4_scaling": "laptop",
    "fig03_two_layer": "laptop",
}
"""Experiments and presets of `contam demo`, the longest first so that two processes are busy."""


def named(name: str) -> Experiment:
    """Return the experiment of a name.

    Raises:
        ValueError: there is none; the message suggests the nearest name.

    >>> named("fig15_density").reproduces
    ('Fig. 15', 'App. G.2')
    """
    for experiment in EXPERIMENTS:
        if experiment.name == name:
            return experiment
    names = [experiment.name for experiment in EXPERIMENTS]
    close = get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(names)}"
    raise ValueError(f"no experiment {name!r}; {hint}")


def find(text: str) -> Experiment:
    """Return the experiment of a name, or the first that reproduces an item of the paper.

    Args:
        text: a name, or an item in any spelling, such as "Fig. 8" or "theorem 4.3".

    Raises:
        ValueError: there is none; the message suggests the nearest name, or lists the items that
            experiments reproduce.

    >>> find("figure 5").name
    'fig05_selectivity'
    """
    if not any(character in text for character in " .") and not text.isdigit():
        return named(text)
    item = paper.spelled(text)
    for experiment in EXPERIMENTS:
        if item in experiment.reproduces:
            return experiment
    items = sorted({item for experiment in EXPERIMENTS for item in experiment.reproduces})
    raise ValueError(f"no experiment reproduces {item}; choose from: {', '.join(items)}")
