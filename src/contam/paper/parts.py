"""What a figure, table or section promises beyond one number, part by part.

A part exists, at an address that a test resolves, or it is absent for a stated reason. Formulas,
definitions, lemmas and theorems need no parts: their one address is the `Source:` line.
"""

from typing import NamedTuple


class Part(NamedTuple):
    """A part of an item."""

    what: str
    """The part in a few words."""
    address: str = ""
    """Its place: a dotted name ('contam.data.pacs.pacs'), a command with a preset
    ('contam run fig04_activation_rates vit') or a page ('docs/explanation/errata.md')."""
    absent: str = ""
    """Why it is not in the code."""

    @property
    def answer(self) -> str:
        """The part with its address, or with the reason why it is absent."""
        return f"{self.what}: {self.address or f'absent, {self.absent}'}"


_BASELINES = {
    "ERM": "erm.ERM", "IRM": "irm.IRM", "GroupDRO": "group_dro.GroupDRO", "Mixup": "mixup.Mixup",
    "MLDG": "mldg.MLDG", "Deep CORAL": "coral.CORAL", "DANN": "dann.DANN",
    "SagNet": "sagnet.SagNet", "ARM": "arm.ARM",
    "VREx": "vrex.VREx", "RSC": "rsc.RSC", "SelfReg": "selfreg.SelfReg", "IB-ERM": "ib_erm.IBERM",
    "IB-IRM": "ib_irm.IBIRM", "Fish": "fish.Fish",
}  # fmt: skip
"""Class of each baseline in `contam.training.algorithms`."""
_NO_LEADERBOARD = "no table of these models' results is shipped; --standard-models reads one"

PARTS: dict[str, tuple[Part, ...]] = {
    "Fig. 1": (
        Part("ImageNet, from the published accuracies",
             "contam.measures.published.imagenet_robustness"),
        Part("lines of standard ImageNet models", "contam.measures.robustness.IMAGENET_LINES"),
        Part("ImageNet, networks trained here", "contam run fig01_distillation paper"),
        Part("iWildCam", "contam run fig01_distillation iwildcam"),
        Part("Camelyon17", "contam run fig01_distillation camelyon17"),
        Part("DomainNet", "contam run fig01_distillation domainnet"),
        Part("points of single standard and robustly trained models",
             "contam.measures.standard_models.shipped_models"),
        Part("all published pairs, runs and standard models in one figure",
             "contam.experiments.fig01_distillation.figures.draw"),
        Part("tables of standard models: testbed, leaderboard, own CSV",
             "contam.measures.standard_models.read_models"),
    ),
    "Sec. 6": (Part("three takeaways", "docs/explanation/takeaways.md"),),
    "Sec. 6.1": (
        Part("diversity of pre-training varied", "contam run conjecture_pretraining laptop"),
        Part("what the interaction mediates",
             "contam.experiments.conjecture_pretraining.mediated"),
        Part("separability of domains", "contam.measures.separability.domain_error"),
        Part("its two measures over a family of networks", "contam run coupling_family laptop"),
    ),
    "Fig. 3": (
        Part("activation asymmetry, core and background", "contam run fig03_two_layer paper"),
        Part("(d) four activations with AdamW", "contam run fig10_activations paper"),
    ),
    "Fig. 4": (
        Part("ResNet", "contam run fig04_activation_rates paper"),
        Part("ViT", "contam run fig04_activation_rates vit"),
    ),
    "Fig. 5": (
        Part("CLIP-RN50", "contam run fig05_selectivity paper"),
        Part("CLIP-ViT-B/16", "contam run fig05_selectivity vit"),
    ),
    "Fig. 6": (
        Part("(a) heat maps on DomainNet", "contam run fig06_heatmaps paper"),
        Part("(b) controlled shift by style transfer, on the embedded benchmark",
             "contam.data.shapes.stylized"),
        Part("(b) style transfer on DomainNet", absent="no preset restyles its photos"),
        Part("(c) features learned with a red frame", "contam run fig13_padded_cifar paper"),
    ),
    "App. E.1": (
        Part("ImageNet", "contam.data.imagenet.imagenet"),
        Part("ImageNetV2", "contam.data.imagenet.imagenet_v2"),
        Part("ImageNet-R", "contam.data.imagenet.imagenet_r"),
        Part("ObjectNet", "contam.data.imagenet.objectnet"),
        Part("ImageNet Sketch", "contam.data.imagenet.imagenet_sketch"),
        Part("ImageNet-A", "contam.data.imagenet.imagenet_a"),
        Part("distillation of five CLIP encoders", "contam.training.distill.PUBLISHED"),
        Part("linear probes", "contam.training.probe.PUBLISHED"),
        Part("testbed of standard and robustly trained models",
             "contam.measures.standard_models.shipped_models"),
    ),
    "Tab. 1": (
        Part("all numbers as printed", "contam.measures.published.published"),
        Part("CLIP-RN50, Distilled RN50", "contam run fig01_distillation paper"),
        Part("CLIP-RN101, Distilled RN101", "contam run fig01_distillation rn101"),
        Part("CLIP-ViT-B/16, Distilled ViT-B/16", "contam run fig01_distillation vit"),
        Part("CLIP-RN50x4, Distilled RN50x4", "contam run fig01_distillation rn50x4"),
        Part("CLIP-RN50x16, Distilled RN50x16", "contam run fig01_distillation rn50x16"),
    ),
    "App. E.2": (
        Part("data", "contam.data.wilds.iwildcam"),
        Part("macro F1", "contam.data.wilds.macro_f1"),
        Part("distillation", "contam.training.distill.PUBLISHED"),
        Part("fine-tuning of the teacher", "contam run fig01_distillation iwildcam"),
        Part("networks of Miller et al. trained from scratch", absent=_NO_LEADERBOARD),
    ),
    "Tab. 2": (
        Part("all numbers as printed", "contam.measures.published.published"),
        Part("ImageNet RN50, Distilled RN50", "contam run fig01_distillation iwildcam"),
    ),
    "App. E.3": (
        Part("data", "contam.data.wilds.camelyon17"),
        Part("distillation", "contam.training.distill.PUBLISHED"),
        Part("algorithms of the WILDS leaderboard", absent=_NO_LEADERBOARD),
    ),
    "Tab. 3": (
        Part("all numbers as printed", "contam.measures.published.published"),
        Part("CLIP-ViT-B/16, Distilled ViT-B/16", "contam run fig01_distillation camelyon17"),
    ),
    "App. E.4": (
        Part("data, 40 classes and 4 domains", "contam.data.domainnet.domainnet"),
        Part("augmentation of DomainBed", "contam.data.images.domainbed_augmentation"),
        Part("distillation", "contam.training.distill.PUBLISHED"),
        Part("their common settings and random search",
             "contam.training.algorithms.algorithm.AlgorithmSettings"),
        *(
            Part(f"baseline {name}", f"contam.training.algorithms.{place}")
            for name, place in _BASELINES.items()
        ),
    ),
    "Tab. 4": (
        Part("all numbers as printed", "contam.measures.published.published"),
        Part("CLIP-RN50, Distilled RN50", "contam run fig01_distillation domainnet"),
        Part("CLIP-RN101", "contam run fig01_distillation domainnet_rn101"),
        Part("CLIP-ViT-B/32", "contam run fig01_distillation domainnet_vit"),
    ),
    "App. F.1": (
        Part("classification and regression", "contam run fig03_two_layer paper"),
        Part("other activations, a non-linear task, AdamW", "contam run fig10_activations paper"),
    ),
    "Fig. 7": (
        Part("correlations with both classes during training", "contam run fig03_two_layer paper"),
    ),
    "Fig. 8": (Part("(a) ReLU, (b) linear", "contam run fig03_two_layer paper"),),
    "Fig. 9": (Part("(a) ReLU, (b) linear", "contam run fig03_two_layer paper"),),
    "Fig. 10": (Part("ReLU, GELU, sigmoid, tanh", "contam run fig10_activations paper"),),
    "App. F.2": (
        Part("rates by class", "contam.measures.activation.class_rates"),
        Part("blocks of ResNets and ViTs", "contam.models.blocks.blocks_of"),
    ),
    "Fig. 11": (Part("16 blocks of ResNet-50", "contam run fig04_activation_rates paper"),),
    "Fig. 12": (Part("12 blocks of ViT-B/16", "contam run fig04_activation_rates vit"),),
    "App. F.3": (Part("selectivity", "contam.measures.selectivity.selectivity"),),
    "App. F.4": (
        Part("padding by resize (the text)", "contam run fig13_padded_cifar paper"),
        Part("padding by crop (the published code)", "contam run fig13_padded_cifar script"),
        Part("adversarial training", "contam.training.adversarial.train_adversarially"),
        Part("feature visualization", "contam.measures.feature_visualization.visualize_channels"),
        Part("in miniature, standard training", "contam run fig13_padded_digits laptop"),
    ),
    "Fig. 13": (
        Part("with and without the frame", "contam run fig13_padded_cifar paper"),
        Part("redness as a number", "contam.measures.feature_visualization.redness"),
    ),
    "App. G.1": (
        Part("PACS", "contam.data.pacs.pacs"),
        Part("principal components", "contam.measures.separability.principal_plane"),
        Part("domain classifiers", "contam.measures.separability.domain_error"),
    ),
    "Fig. 14": (
        Part("CLIP-RN50, ERM-RN50", "contam run fig14_separability paper"),
        Part("CLIP-ViT-B/16", "contam run fig14_separability vit"),
    ),
    "Tab. 5": (
        Part("all numbers as printed", "contam.measures.published.published"),
        Part("CLIP-RN50, ERM-RN50", "contam run fig14_separability paper"),
        Part("CLIP-ViT-B/16", "contam run fig14_separability vit"),
    ),
    "App. G.2": (Part("mean activation of a block's units", "contam.measures.density.Density"),),
    "Fig. 15": (Part("first block of teacher and student", "contam run fig15_density paper"),),
    "App. G.3": (Part("robustness of CLIP, linear representations",
                      "docs/explanation/takeaways.md"),),
}  # fmt: skip
"""Parts of the first paper's figures, tables and sections, in its order."""
