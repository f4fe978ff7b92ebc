"""What to try for each cause, with the effect that was measured on the embedded benchmark.

Accuracies are ID / OOD. All were measured on small networks and drawn pictures: they say what is
worth a try, and no repair proves the cause.
"""

from contam.audit.records import Cause, Remedy

CENTERING = Remedy(
    what="Center each channel's map in each image before every batch norm, and train again "
    "(`contam.models.normalization.with_centering`).",
    effect="0.970 / 0.408 became 0.981 / 0.762 (3 seeds); on digits 0.891 / 0.366 became "
    "0.901 / 0.655.",
    caveat="At test time alone, with a head fitted again, it gave 0.408 to 0.516, and it harmed a "
    "network that had been trained on diverse backgrounds (0.878 to 0.813).",
)
INSTANCE_NORM = Remedy(
    what="Use instance norm instead of batch norm, and train again "
    "(`contam.models.normalization.with_instance_norm`).",
    effect="0.970 / 0.408 became 0.964 / 0.689; a student of a diverse teacher rose from 0.595 "
    "to 0.727 OOD.",
    caveat="It repairs shifts of texture and harms networks that learned inside constant frames.",
)
WIDER = Remedy(
    what="Show wider backgrounds in training, such as the negative of every other one.",
    effect="0.970 / 0.408 became 0.979 / 0.56 with the negative of half of the backgrounds.",
    caveat="It helps on what it covers; swapped backgrounds alone did not help.",
)
INSIDE_ONLY = Remedy(
    what="Stop the gradient outside the object in training; this needs masks.",
    effect="Spurious networks rose from 0.13 to 0.60 and from 0.45 to 0.85 OOD; contaminated "
    "ones from 0.41 to 0.54.",
    caveat="Wrong masks help contaminated networks almost as much (0.47), so it proves nothing.",
)
UNLINKED = Remedy(
    what="Collect or make images in which the background does not go with the class.",
    effect="Where backgrounds were independent of the class, networks without their objects "
    "answered at chance (0.10 instead of 0.91).",
    caveat="Independence takes away the shortcut; new backgrounds may still lower the accuracy.",
)
FRESH_HEAD = Remedy(
    what="Keep the encoder, and fit a new linear head on ID data (`contam.training.probe`).",
    effect="The audit's own numbers: the gain of a fresh head beside this network's.",
    caveat="If another cause stands behind the head, the new one will not mend it.",
)
MORE_TRAINING = Remedy(
    what="Train for longer, on more data, or a wider network; audit it again.",
    effect="4000 instead of 500 images: 0.683 became 0.968 ID, and 0.203 became 0.427 OOD.",
    caveat="OOD accuracy followed ID accuracy along the line of standard networks, not above it.",
)
OTHER_IMAGES = Remedy(
    what="Bring OOD images in which a person can see the object, at a higher resolution.",
    effect="None can be given: where the object is hidden, no network reads it.",
    caveat="How much blur a network bears depends on the reference, so look at the images first.",
)
DIVERSE_TEACHER = Remedy(
    what="Distill from a teacher that was trained on diverse backgrounds.",
    effect="0.968 / 0.427 became 0.983 / 0.610; the student kept about half of the teacher's "
    "effective robustness.",
    caveat="The student stays far behind its teacher (0.872 OOD): distillation carries "
    "contamination with it.",
)
WATCH = Remedy(
    what="Watch the domains one by one: the worst of them is what breaks first.",
    effect="None was needed.",
    caveat="Healthy means healthy on these OOD sets.",
)
BRING_MORE = Remedy(
    what="Bring what is missing, and audit again.",
    effect="None before the cause is known.",
    caveat="A remedy for the wrong cause can do harm.",
)

REMEDIES: dict[Cause, tuple[Remedy, ...]] = {
    "healthy": (WATCH,),
    "undertrained": (MORE_TRAINING,),
    "spurious correlation": (UNLINKED, INSIDE_ONLY),
    "core information missing": (OTHER_IMAGES,),
    "head": (FRESH_HEAD,),
    "contaminated": (CENTERING, INSTANCE_NORM, DIVERSE_TEACHER, WIDER, INSIDE_ONLY),
    "undecided": (BRING_MORE,),
}
"""What to try, the strongest first."""
