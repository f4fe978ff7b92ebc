"""The second paper: Murali, Puli, Yu, Ranganath and Batmanghelich, TMLR 10/2023.

"Beyond Distribution Shift: Spurious Features Through the Lens of Training Dynamics". Items are
those that the abstract and the published code name. Claims have the numbers of the abstract, and
steps those of the code's README; definitions have names. A `Source:` line cites them after the
authors: `Murali et al. (2023), Fig. 6, prediction depth.`
"""

from contam.paper.parts import Part

AUTHORS = "Murali et al. (2023)"
"""How `Source:` lines cite the second paper."""

CONTENTS: dict[str, dict[str, str]] = {
    "Second paper: claims of the abstract": {
        "Murali Claim 1": "spurious features easier than the core feature harm, harder ones do not",
        "Murali Claim 2": "instance difficulty, such as prediction depth, measures easiness",
        "Murali Claim 3": "harmful features show in early layers, early in training",
        "Murali Claim 4": "prediction depth is connected to usable information",
        "Murali Claim 5": "accuracy during training does not reveal spurious features",
    },
    "Second paper: definitions and theory": {
        "Murali spurious feature": "correlated with the label in training, irrelevant to the task",
        "Murali harmful feature": "a spurious feature easier than the core feature for the network",
        "Murali prediction depth": "first layer from which all nearest-neighbor probes agree",
        "Murali usable information": "what a family of readers can decode, in bits, by example",
        "Murali theorem": "connection of prediction depth and usable information",
    },
    "Second paper: experiments": {
        "Murali Fig. 1": "not described by the abstract or the published code",
        "Murali Fig. 2": "not described by the abstract or the published code",
        "Murali Fig. 3": "not described by the abstract or the published code",
        "Murali Fig. 4": "not described by the abstract or the published code",
        "Murali reference axis": "mean depths of data sets, from a patch to CIFAR-10",
        "Murali Fig. 5": "prediction depth of dominoes",
        "Murali Tab. 1": "accuracy of dominoes with and without their spurious half",
        "Murali Fig. 6": "toy data: not all spurious features hurt",
        "Murali Tab. 2": "correlation of prediction depth and pointwise usable information",
        "Murali Fig. 7": "chest X-rays of mixed sources",
        "Murali Fig. 8": "pneumothorax on NIH chest X-rays",
    },
    "Second paper: detection of spurious features": {
        "Murali Step 1": "train, and keep early checkpoints",
        "Murali Step 2": "look for a peak at low layers in the histogram of prediction depths",
        "Murali Step 3": "look at Grad-CAM at the layers of the peak",
    },
}

_UNKNOWN = "the abstract and the published code do not say what it shows"
_NO_FILES = "the images were not available, so none were run"

PARTS: dict[str, tuple[Part, ...]] = {
    "Murali Claim 1": (
        Part("as a claim", "contam run dominoes laptop"),
        Part("accuracy without the feature", "contam.measures.accuracy_drop.accuracy_drop"),
    ),
    "Murali Claim 2": (
        Part("prediction depth", "contam.measures.depth.model_depths"),
        Part("other difficulties by example", "contam.measures.example_difficulty"),
    ),
    "Murali Claim 3": (
        Part("as a claim", "contam run dominoes laptop"),
        Part("in your own training", "contam.monitor.training_monitor.watch"),
    ),
    "Murali Claim 4": (
        Part("usable information by layer",
             "contam.measures.usable_information.usable_information"),
        Part("correlation with depth", "contam.experiments.support.prediction_depth.depth_row"),
    ),
    "Murali Claim 5": (Part("as a claim", "contam run dominoes laptop"),),
    "Murali spurious feature": (
        Part("an image with a core and a spurious half", "contam.data.dominoes.dominoes"),
    ),
    "Murali harmful feature": (
        Part("by what it costs", "contam.measures.accuracy_drop.accuracy_drop"),
    ),
    "Murali prediction depth": (
        Part("of Baldock et al., and with this paper's reference and margin",
             "contam.measures.depth.Rule"),
    ),
    "Murali usable information": (
        Part("by example", "contam.measures.usable_information.pointwise_information"),
        Part("by layer", "contam.measures.usable_information.usable_information"),
    ),
    "Murali theorem": (
        Part("statement", absent="the abstract and the published code do not state it"),
    ),
    "Murali Fig. 1": (Part("figure", absent=_UNKNOWN),),
    "Murali Fig. 2": (Part("figure", absent=_UNKNOWN),),
    "Murali Fig. 3": (Part("figure", absent=_UNKNOWN),),
    "Murali Fig. 4": (Part("figure", absent=_UNKNOWN),),
    "Murali reference axis": (
        Part("ten classes of each set with VGG16", "contam run difficulty_axis paper"),
        Part("in miniature, beside untrained networks", "contam run difficulty_axis laptop"),
        Part("results", absent="KMNIST and CIFAR-10 were not available, so none were run"),
    ),
    "Murali Fig. 5": (
        Part("in miniature, with digits and a patch", "contam run dominoes laptop"),
        Part("halves from the published data sets", "contam.data.dominoes.pictures"),
        Part("published pairs over KMNIST", "contam run dominoes murali"),
        Part("published pairs over Fashion-MNIST", "contam run dominoes murali-fashion"),
    ),
    "Murali Tab. 1": (
        Part("in miniature", "contam run dominoes laptop"),
        Part("published numbers", absent="they are in neither the abstract nor the code"),
    ),
    "Murali Fig. 6": (
        Part("two classes with a patch in the corner", "contam.data.dominoes.pictures"),
        Part("ten classes with squares at their own places",
             "contam.data.ten_classes.with_squares"),
        Part("as claims", "contam run difficulty_axis laptop"),
        Part("heat maps of SHAP", absent="Grad-CAM of the neighbors' score is in its place"),
    ),
    "Murali Tab. 2": (
        Part("rank correlation, minus that of an untrained network",
             "contam.experiments.support.prediction_depth.depth_row"),
        Part("published numbers", absent="they are in neither the abstract nor the code"),
    ),
    "Murali Fig. 7": (
        Part("(a) reader of CheXpert and MIMIC-CXR", "contam.data.chest_xray.chest_xrays"),
        Part("(b) COVID-19, and results of both", absent=_NO_FILES),
    ),
    "Murali Fig. 8": (
        Part("reader of NIH's set", "contam.data.chest_xray.chest_xrays"),
        Part("NIH with DenseNet-121", "contam run chest_xray paper"),
        Part("in miniature, as claims", "contam run chest_xray laptop"),
        Part("results", absent=_NO_FILES),
    ),
    "Murali Step 1": (Part("during any training", "contam.monitor.training_monitor.watch"),),
    "Murali Step 2": (
        Part("depths with intervals", "contam.measures.depth.model_depths"),
        Part("early alarm", "contam.monitor.page.alarm"),
    ),
    "Murali Step 3": (
        Part("Grad-CAM of a class score", "contam.measures.gradcam.heat_maps"),
        Part("Grad-CAM of the soft nearest-neighbor score",
             "contam.measures.neighbor_heat.neighbor_heat"),
    ),
}  # fmt: skip
"""Parts of the second paper's items, in its order."""
