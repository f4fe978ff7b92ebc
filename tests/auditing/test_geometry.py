"""Objects that are turned or mirrored, each by itself."""

import torch
from support.generators import returned
from torch import Tensor, nn

from contam.auditing.api import accuracies
from contam.auditing.audit_inputs import AuditInputs
from contam.auditing.causes.geometry import Geometry
from contam.auditing.comparison import Comparison
from contam.auditing.passes import Budget, run_passes
from contam.batch import Batch, Domain
from contam.inputs.input_set import InputSet

CORNERS = torch.zeros(2, 3, 16, 16)
CORNERS[0, :, :6, :6] = CORNERS[1, :, 10:, :6] = 1.0


class Templates(nn.Module):
    """Classes are told by a bright corner on the left; it is unsure where neither is bright."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.2 * torch.einsum("nchw,kchw->nk", x, CORNERS)


def images(*, mirrored: bool) -> Batch:
    """Images with a bright corner; every second pair of them may be mirrored."""
    y = torch.arange(400) % 2
    x = CORNERS[y] + 0.1 * torch.rand(400, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    turned = torch.arange(400) % 4 < 2
    x = torch.where(turned[:, None, None, None] & torch.tensor(mirrored), x.flip(3), x)
    return Batch(x, y, torch.zeros_like(y))


def test_each_image_is_mirrored_by_itself():
    """Half of the images are mirrored, so no change of all images helps."""
    own, other = images(mirrored=False), images(mirrored=True)
    inputs = AuditInputs(
        "templates", Templates(), ("top", "bottom"),
        InputSet("ID", Domain("ID", own)), (InputSet("OOD", Domain("OOD", other)),),
    )  # fmt: skip
    passes = returned(run_passes(inputs, (), Budget(without_object=0, changed=0, control=0)))
    scores = accuracies(passes, {})
    assert scores[0].overall.accuracy.value == 1 and scores[1].overall.accuracy.value < 0.8
    test = Geometry().test(Comparison(passes, (scores[0], scores[1])), [])
    assert test.positive and test.treatment is not None
    assert test.what == "each image mirrored as the network is most confident"
    assert test.treatment.images is not None
    back = test.treatment.images(other.x, torch.arange(400))
    assert torch.equal(back, own.x)
