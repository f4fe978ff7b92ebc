"""What to try for each cause, with the effect that was measured on the embedded benchmark.

Effects over three seeds are what `contam run fig01_distillation laptop` prints; the others were
measured with one seed on an earlier version of the benchmark, as ID / OOD accuracy. All are of
small networks and drawn pictures: they say what is worth a try. No repair proves the cause.
"""

from contam.auditing.records import Cause, Remedy

CENTERING = Remedy(
    what="Center each channel's map in each image before every batch norm, and train again "
    "(`contam.models.normalization.with_centering`).",
    effect="0.20 ± 0.01 more OOD accuracy at equal ID accuracy (3 seeds).",
    caveat="Put in after training, with a new head, it gave 0.11, and took 0.07 from a network "
    "that had been trained on diverse backgrounds.",
)
INSTANCE_NORM = Remedy(
    what="Use instance norm instead of batch norm, and train again "
    "(`contam.models.normalization.with_instance_norm`).",
    effect="0.22 ± 0.01 more OOD accuracy at equal ID accuracy (3 seeds).",
    caveat="It repairs shifts of texture, and harms networks that learned inside constant frames.",
)
DIVERSE_TEACHER = Remedy(
    what="Distill from a teacher that was trained on diverse backgrounds.",
    effect="5 ± 4 points more effective robustness than a standard network (3 seeds).",
    caveat="The student stays far behind its teacher (0.23 ± 0.06 of OOD accuracy): distillation "
    "contaminates, too.",
)
WIDER = Remedy(
    what="Show wider backgrounds in training, such as the negatives of half of them.",
    effect="0.970 / 0.408 became 0.979 / 0.56.",
    caveat="It helps on what it covers; swapping the backgrounds that are there did not help.",
)
INSIDE_ONLY = Remedy(
    what="Stop the gradient outside the object in training; this needs masks.",
    effect="Spurious networks rose from 0.13 to 0.60 and from 0.45 to 0.85 OOD, others from 0.41 "
    "to 0.54.",
    caveat="In networks that are not spurious, wrong masks helped half as much (0.47).",
)
UNLINKED = Remedy(
    what="Collect or make training images in which the background does not go with the class.",
    effect="Without objects, networks that learned from linked backgrounds were right in 0.91, and "
    "those that learned from independent ones in 0.10, which is chance.",
    caveat="It takes away the shortcut; on backgrounds of a new kind accuracy may still fall.",
)
FRESH_HEAD = Remedy(
    what="Keep the encoder, and fit a new linear head on ID data "
    "(`contam.training.probe.fit_probe`).",
    effect="The gain that this audit found: it was measured on this network.",
    caveat="A cause that stands behind the head is not mended by it.",
)
MORE_TRAINING = Remedy(
    what="Train for longer, on more data, or a wider network; then audit again.",
    effect="4000 instead of 500 images: 0.683 / 0.203 became 0.968 / 0.427.",
    caveat="OOD accuracy rose along the line of standard networks, not above it.",
)
OTHER_IMAGES = Remedy(
    what="Look at the OOD images; bring some in which a person can see the object.",
    effect="None: where the object is hidden, no network reads it.",
    caveat="How much blur is too much depends on the encoder that was asked; a stronger reference "
    "may still see the object.",
)
WATCH = Remedy(
    what="Nothing to mend; watch the worst domain and class, which break first.",
    effect="None was needed.",
    caveat="Healthy means healthy on these OOD sets, and says nothing about others.",
)
BRING_MORE = Remedy(
    what="Bring the evidence that is missing, and audit again.",
    effect="None before the cause is known.",
    caveat="The remedy for another cause can do harm.",
)

REMEDIES: dict[Cause, tuple[Remedy, ...]] = {
    "healthy": (WATCH,),
    "undertrained": (MORE_TRAINING,),
    "spurious correlation": (UNLINKED, INSIDE_ONLY),
    "core information missing": (OTHER_IMAGES,),
    "head": (FRESH_HEAD,),
    "contaminated": (CENTERING, INSTANCE_NORM, WIDER, DIVERSE_TEACHER, INSIDE_ONLY),
    "undecided": (BRING_MORE,),
}
"""What to try, the most promising first."""
