"""What the first paper numbers, in its order, and why some of it is not in the code."""

CONTENTS: dict[str, dict[str, str]] = {
    "1-2 Good representations are hard to learn": {
        "Fig. 1": "ID against OOD accuracy of teachers, students and standard models",
    },
    "3 A theoretical model": {
        "Eq. 1": "OOD risk: the worst expected risk over the distributions",
        "Def. 3.1": "how ID and OOD examples are generated",
        "Eq. 2": "output of the two-layer network",
        "Eq. 3": "hinge loss on a batch, with weight decay",
        "Eq. 4": "one SGD update of a neuron",
    },
    "4 Main theoretical results": {
        "Fig. 2": "picture of the argument",
        "Thm. 4.1": "neurons come to fire for one class only",
        "Eq. 5": "activation probabilities for the own and the other class",
        "Eq. 6": "a neuron as projections on features plus a residual",
        "Eq. 7": "gradient projection onto a background feature",
        "Thm. 4.2": "core and background features are learned together",
        "Eq. 8": "size of the learned core and background correlations",
        "Fig. 3": "asymmetry and contamination in numbers",
        "Thm. 4.3": "small ID risk, large OOD risk",
        "Eq. 9": "both risks after training",
        "Thm. 4.4": "linear networks do not learn the background",
    },
    "5 Feature contamination in practice": {
        "Fig. 4": "class activation rates of a ResNet and a ViT",
        "Fig. 5": "neuron selectivity: random, distilled, ID and OOD",
        "Fig. 6": "heat maps under shifts, and features learned with a red frame",
    },
    "6 Conclusion": {
        "Sec. 6": "three takeaways",
        "Sec. 6.1": "conjecture: diverse pre-training linearizes uncorrelated features",
    },
    "A Preliminaries of the proofs": {
        "Eq. 10": "weight decomposition with its orthogonal complement",
        "Eq. 11": "weight decomposition without the part that no input reaches",
        "Lemma A.1": "gradient of a ReLU neuron on one example",
        "Eq. 12": "the gradient's closed form",
        "Lemma A.2": "batch gradients stay close to population gradients",
        "Eq. 13": "the gap between them, along a feature",
        "Lemma A.3": "growth along each feature under population gradients",
        "Eq. 14": "the growth along core and background features",
        "Def. A.4": "the neurons that a class can count on",
        "Eq. 15": "the two conditions of that set",
        "Def. A.5": "positive and negative examples of a neuron",
        "Lemma A.6": "chance of a given correlation at initialization",
        "Eq. 16": "its lower and upper bound",
        "Lemma A.7": "a constant share of neurons starts in the set",
        "Eq. 17": "size of the set at initialization",
        "Lemma A.8": "largest correlation of any neuron at initialization",
        "Lemma A.9": "the output is small at initialization",
        "Eq. 18": "bound on that output",
    },
    "B Proofs for ReLU networks": {
        "Lemma B.1": "activation probability by the normal approximation",
        "Eq. 19": "its distance from the normal distribution function",
        "Def. B.2": "gated expectations over one class",
        "Eq. 20": "the two gated expectations",
        "Lemma B.3": "gradient projection onto core features, chosen neurons",
        "Eq. 21": "that projection",
        "Eq. 22": "its leading factor",
        "Eq. 23": "the projection as gated expectations",
        "Eq. 24": "lower bound on the positive class's part",
        "Eq. 25": "upper bound on the positive class's part",
        "Lemma B.4": "gradient projection onto background features, chosen neurons",
        "Eq. 26": "that projection",
        "Eq. 27": "its leading factor",
        "Eq. 28": "the projection as a difference of gated expectations",
        "Eq. 29": "bound on that difference",
        "Lemma B.5": "gradient projection onto core features, all neurons",
        "Eq. 30": "upper bound on that projection",
        "Lemma B.6": "correlation with positive examples, chosen neurons",
        "Eq. 31": "its growth in a step",
        "Eq. 32": "the core part's recursion",
        "Eq. 33": "the background part's recursion",
        "Lemma B.7": "correlation with positive examples, all neurons",
        "Eq. 34": "upper bound on its growth in a step",
        "Lemma B.8": "a chosen neuron stays chosen",
        "Lemma B.9": "correlation with negative examples, all neurons",
        "Eq. 35": "bound on its growth in a step",
        "Eq. 36": "the core part's recursion",
        "Eq. 37": "the background part's recursion",
        "Eq. 38": "both parts together",
        "Eq. 39": "bound on the first remaining term",
        "Eq. 40": "bound on the second remaining term",
        "Eq. 41": "Eq. 5 restated",
        "Eq. 42": "decrease of the correlation with the other class",
        "Eq. 43": "activation probability for the other class",
        "Eq. 44": "correlation with the other class at initialization",
        "Eq. 45": "Eq. 8 restated",
        "Eq. 46": "Eq. 9 restated",
        "Eq. 47": "ID risk split by class",
        "Eq. 48": "loss of one class while its risk is not yet small",
    },
    "C Proofs for linear networks": {
        "Lemma C.1": "gradient of a linear neuron on one example",
        "Eq. 49": "the gradient's closed form",
        "Lemma C.2": "batch gradients stay close to population gradients",
        "Eq. 50": "the gap between them, along a feature",
        "Lemma C.3": "gradient projection onto background features cancels",
        "Eq. 51": "that projection",
        "Eq. 52": "the linear network's background projections",
    },
    "D Probability": {
        "Lemma D.1": "one-sided Bernstein inequality",
        "Eq. 53": "its tail bound",
        "Lemma D.2": "matrix Bernstein inequality",
        "Eq. 54": "variance statistic of a sum of matrices",
        "Eq. 55": "tail bound on the sum's norm",
        "Lemma D.3": "tails of the unit Gaussian",
        "Eq. 56": "lower and upper bound on the tail",
        "Lemma D.4": "tail of the binomial distribution",
        "Eq. 57": "Hoeffding's bound on it",
        "Lemma D.5": "largest of several absolute Gaussians",
        "Eq. 58": "tail bound on the largest",
        "Lemma D.6": "Berry-Esseen theorem",
        "Eq. 59": "normalized sum",
        "Eq. 60": "its distance from the normal distribution",
    },
    "E Representation distillation": {
        "App. E.1": "natural shifts of ImageNet",
        "Tab. 1": "accuracy on ImageNet and its five shifts",
        "App. E.2": "iWildCam",
        "Tab. 2": "macro F1 on iWildCam",
        "App. E.3": "Camelyon17",
        "Tab. 3": "accuracy on Camelyon17",
        "App. E.4": "DomainNet and fifteen baselines",
        "Tab. 4": "accuracy on DomainNet",
    },
    "F Additional experiments": {
        "App. F.1": "settings of the numerical experiments",
        "Fig. 7": "each neuron's correlations with both classes during training",
        "Fig. 8": "projections and risks in classification, ReLU and linear",
        "Fig. 9": "projections and risks in regression, ReLU and linear",
        "Fig. 10": "background projections under four activations",
        "App. F.2": "class activation rates by block",
        "Fig. 11": "activation rates of every ResNet-50 block",
        "Fig. 12": "activation rates of every ViT-B/16 block",
        "App. F.3": "how neuron selectivity is computed",
        "Eq. 61": "selectivity of a neuron",
        "App. F.4": "CIFAR-10 with a brick-red frame",
        "Fig. 13": "features learned with and without the frame",
    },
    "G Evidence for the conjecture": {
        "App. G.1": "domains become linearly separable by pre-training",
        "Fig. 14": "representations of four domains in two dimensions",
        "Tab. 5": "error of predicting the domain",
        "App. G.2": "pre-training makes activations denser",
        "Fig. 15": "histogram of the neurons' mean activation",
        "App. G.3": "related work on CLIP's robustness and linear representations",
    },
}

ITEMS: dict[str, str] = {item: title for part in CONTENTS.values() for item, title in part.items()}

PART_OF: dict[str, str] = {
    f"Eq. {number}": whole
    for whole, numbers in {
        "Thm. 4.1": (5, 41), "Thm. 4.2": (8, 45), "Thm. 4.3": (9, 46),
        "Eq. 6": (10, 11),
        "Lemma A.1": (12,), "Lemma A.2": (13,), "Lemma A.3": (14,), "Def. A.4": (15,),
        "Lemma A.6": (16,), "Lemma A.7": (17,), "Lemma A.9": (18,),
        "Lemma B.1": (19,), "Def. B.2": (20,), "Lemma B.3": (21, 22), "Lemma B.4": (26, 27),
        "Lemma B.5": (30,), "Lemma B.6": (31,), "Lemma B.7": (34,), "Lemma B.9": (35,),
        "Lemma C.1": (49,), "Lemma C.2": (50,), "Lemma C.3": (51,),
        "Lemma D.1": (53,), "Lemma D.2": (54, 55), "Lemma D.3": (56,), "Lemma D.4": (57,),
        "Lemma D.5": (58,), "Lemma D.6": (59, 60),
    }.items()
    for number in numbers
}  # fmt: skip
"""Equations that are the formula of a larger item: they live where it lives, unless named."""

RESTATED = {"Thm. B.1": "Thm. 4.1", "Thm. B.2": "Thm. 4.2", "Thm. B.3": "Thm. 4.3",
            "Thm. C.4": "Thm. 4.4"}  # fmt: skip
"""Theorems that the appendix repeats under another number."""

NAMED = {"Conjecture": "Sec. 6.1", "Takeaway 1": "Sec. 6", "Takeaway 2": "Sec. 6",
         "Takeaway 3": "Sec. 6"}  # fmt: skip
"""What readers call statements that have no number of their own."""

_PROOF_STEPS = {
    "Lemma B.3": (23, 24, 25), "Lemma B.4": (28, 29), "Lemma B.6": (32, 33),
    "Lemma B.9": (36, 37, 38, 39, 40), "Thm. 4.1": (42, 43, 44), "Thm. 4.3": (47, 48),
    "Thm. 4.4": (52,),
}  # fmt: skip
_REASONS: dict[str, str] = {
    "Fig. 2": "an illustration",
    **{
        f"Lemma B.{number}": f"{what}; tests/theory/test_growth_lemmas.py; measured by {by}"
        for number, what, by in (
            (3, "a rate", "Lemma A.3"),
            (4, "a rate", "Eq. 7"),
            (5, "a bound up to a constant", "Lemma A.3"),
            (6, "a rate", "Lemma A.3"),
            (7, "a bound up to a constant", "Lemma A.3"),
            (8, "an inclusion of sets", "Def. A.4"),
            (9, "a rate", "Lemma A.3"),
        )
    },
}

NOT_IN_CODE: dict[str, str] = (
    _REASONS
    | {part: f"see {whole}" for part, whole in PART_OF.items() if whole in _REASONS}
    | {
        f"Eq. {number}": f"a step in the proof of {whole}"
        for whole, numbers in _PROOF_STEPS.items()
        for number in numbers
    }
)
"""Items without an address, and why."""
