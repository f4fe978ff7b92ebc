"""Open questions about the first paper, and checks that would come next.

They are those of a published summary of the paper; what this package does about each stands beside
it. `contam where "Question 1"` and `contam where "Check 2"` print one.
"""

from contam.paper.parts import Part

CONTENTS: dict[str, dict[str, str]] = {
    "Open questions and next checks": {
        "Question 1": "how does contamination behave in networks deeper than two layers?",
        "Question 2": "how does it depend on capacity and on the numbers of features?",
        "Question 3": "which architectures or trainings provably prevent it?",
        "Check 1": "does it persist in deeper ReLU networks?",
        "Check 2": "does it depend on correlated backgrounds?",
        "Check 3": "do other optimizers show it, too?",
    },
}

_DEPTH = (
    Part("networks of any depth on the paper's data", "contam.theory.setting.Setting.depth"),
    Part("every layer of a deep network", "contam.measures.class_profiles"),
    Part(
        "depth varied, perceptrons with and without residual connections",
        "contam run phase_diagrams laptop --only depth",
    ),
    Part("depth varied, ResNets and ViTs on images", "contam run depth_optimizers laptop"),
)

PARTS: dict[str, tuple[Part, ...]] = {
    "Question 1": _DEPTH,
    "Question 2": (
        Part("without training, at any size", "contam.theory.population.predict_contamination"),
        Part("growing sizes", "contam run thm4_scaling laptop"),
        Part("width and number of features varied",
             "contam run phase_diagrams laptop --only width"),
        Part("share of core features varied", "contam run phase_diagrams laptop --only share"),
        Part("features that are not orthogonal",
             "contam.theory.features.FeatureModel.coherence"),
        Part("their inner product varied", "contam run phase_diagrams laptop --only coherence"),
    ),
    "Question 3": (
        Part("centered feature maps", "contam.models.normalization.with_centering"),
        Part("their effect at equal ID accuracy", "contam run fig01_distillation laptop"),
        Part("a proof", absent="none is known"),
    ),
    "Check 1": _DEPTH,
    "Check 2": (
        Part("backgrounds correlated with the label",
             "contam.theory.distribution.DataModel.correlation"),
        Part("weights correlated with each other", "contam.theory.distribution.DataModel.coupling"),
        Part("correlation and ease of the background varied", "contam run joint_law laptop"),
    ),
    "Check 3": (
        Part("AdamW, both geometries", "contam run fig10_activations paper"),
        Part("SGD with momentum, Adam, AdamW", "contam.theory.setting.Setting.optimizer"),
        Part("these and SGD compared, two-layer networks",
             "contam run phase_diagrams laptop --only optimizer"),
        Part("SGD, SGD with momentum, AdamW compared, ResNets and ViTs on images",
             "contam run depth_optimizers laptop"),
    ),
}  # fmt: skip
"""What the package has for each, and what it lacks."""
