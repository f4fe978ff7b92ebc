"""The networks of a model zoo: they do not depend on who trains them, and need their data."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import trees
from support.sources import tiny_source, tiny_source_with_head, write_weights

from contam.data.backgrounds import OOD
from contam.data.images import FolderDomain
from contam.experiments.support.model_zoo import STORE, ModelZoo
from contam.experiments.support.networks import (
    CALIBRATED,
    CENTERED,
    ERM,
    STUDENT,
    SWEEP,
    TEACHER,
    TINY_NETWORKS,
    UNTRAINED,
    Networks,
    NetworkSpec,
)
from contam.experiments.support.zoo_images import captions
from contam.run import RunError
from contam.training.distill import Distillation
from contam.training.optimize import Recipe
from contam.training.probe import FullBatch, Minibatches


def trained(root: Path, *specs: NetworkSpec, config: Networks = TINY_NETWORKS) -> ModelZoo:
    zoo = ModelZoo(config, 0, root)
    for stage in zoo.train(specs):
        assert 0 <= stage.done <= 1
    return zoo


def weights(root: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(root.rglob("arrays/*.safetensors"))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    trained(root, TEACHER, STUDENT, ERM)
    return root


@pytest.mark.slow
def test_training_a_student_trains_its_teacher(tmp_path):
    zoo = trained(tmp_path, STUDENT)
    assert zoo.network(TEACHER) is not zoo.network(STUDENT)


def test_loaded_networks_equal_the_trained_ones(whole):
    fresh = ModelZoo(TINY_NETWORKS, 0, whole)
    again = trained(whole, TEACHER, STUDENT, ERM)
    for spec in (TEACHER, STUDENT, ERM):
        for name, tensor in fresh.network(spec).state_dict().items():
            assert torch.equal(tensor, again.network(spec).state_dict()[name])
        assert not fresh.network(spec).training
        assert fresh.judge(spec) == again.judge(spec)


def test_a_network_does_not_depend_on_the_other_networks(whole, tmp_path):
    trained(tmp_path, ERM)
    assert weights(tmp_path)["labels.safetensors"] == weights(whole)["labels.safetensors"]


@pytest.mark.parametrize(
    "change", [{"steps": 3, "epochs": None}, {"cosine": False}, {"clip": 1e-3}, {"warmup": 5}]
)
def test_a_standard_network_follows_every_field_of_its_recipe(whole, tmp_path, change):
    assert TINY_NETWORKS.standard_recipe is not None
    recipe = dataclasses.replace(TINY_NETWORKS.standard_recipe, **change)
    trained(tmp_path, ERM, config=TINY_NETWORKS.model_copy(update={"standard_recipe": recipe}))
    assert weights(tmp_path)["labels.safetensors"] != weights(whole)["labels.safetensors"]


@pytest.mark.slow
def test_student_and_standard_network_have_equal_initial_weights(tmp_path):
    still = TINY_NETWORKS.model_copy(
        update={
            "student_recipe": Distillation(1e-12, 0.0, 40, epochs=1),
            "standard_recipe": Recipe(1e-12, 0.0, 40, epochs=1),
        }
    )
    zoo = trained(tmp_path, STUDENT, ERM, config=still)
    student, standard = (zoo.network(name).encoder for name in (STUDENT, ERM))
    for mine, other in zip(student.parameters(), standard.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-9)


def test_the_head_of_the_network_is_its_probe(whole):
    """Folding the standardization into the head changes no prediction."""
    zoo = ModelZoo(TINY_NETWORKS, 0, whole)
    rows = zoo.judge(TEACHER)
    assert [row["role"] for row in rows] == ["id"] + ["ood"] * 5
    shift = zoo.benchmark(TEACHER).shift
    model = zoo.network(TEACHER)
    with torch.no_grad():
        right = model(shift.id_test.data.x).argmax(dim=1) == shift.id_test.y
    assert rows[0]["correct"] == int(right.sum()) and rows[0]["count"] == len(right)
    assert rows[0]["score"] == rows[0]["correct"] / rows[0]["count"]


def test_different_specs_have_different_parts():
    specs = (UNTRAINED, TEACHER, STUDENT, ERM, CENTERED, *SWEEP)
    assert len({spec.part for spec in specs}) == len(specs)
    assert NetworkSpec("another name", "labels").part == ERM.part


PRETRAINED = NetworkSpec("pre-trained", "pretraining", families=3)
TUNED = NetworkSpec("fine-tuned", "labels", families=3, start="pretraining")


def test_the_names_of_parts_keep_settings_without_families():
    """Stored networks are found by these names."""
    assert [spec.part for spec in (TEACHER, ERM, CENTERED)] == [
        "pretraining", "labels", "labels+normalization=centered",
    ]  # fmt: skip
    assert PRETRAINED.part == "pretraining+families=3" and TUNED.before is not None
    assert TUNED.before.part == PRETRAINED.part and TUNED.part != ERM.part


def test_fine_tuning_starts_from_the_pretrained_encoder_and_a_new_head(tmp_path):
    """With a step size of almost zero, the encoder keeps its weights."""
    still = Recipe(1e-12, 0.0, 40, epochs=1)
    zoo = trained(
        tmp_path, TUNED, ERM, config=TINY_NETWORKS.model_copy(update={"standard_recipe": still})
    )
    before, tuned, standard = (zoo.network(spec) for spec in (PRETRAINED, TUNED, ERM))
    for mine, other in zip(
        tuned.encoder.parameters(), before.encoder.parameters(), strict=True
    ):  # fmt: skip
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-9)
    torch.testing.assert_close(tuned.head.weight, standard.head.weight, rtol=0, atol=1e-9)
    assert not torch.equal(tuned.head.weight, before.head.weight)


def test_captions_of_some_families_name_these(tmp_path):
    zoo = ModelZoo(TINY_NETWORKS, 0, tmp_path)
    captioned = captions(TINY_NETWORKS, zoo.benchmark(TEACHER).shift, 3, seed=0)
    assert len(captioned.classes) == 30 and len(captioned.train) == 3
    assert not {*OOD} & {domain.name for domain in captioned.train}


def test_published_data_has_no_families_for_pretraining(tmp_path):
    config = files_of(
        tmp_path, "pacs", teacher_recipe=Recipe(1e-2, 0.0, 2, epochs=1), side=8
    )  # fmt: skip
    with pytest.raises(ValueError, match="pacs has no families of backgrounds"):
        trained(
            tmp_path / "runs", PRETRAINED,
            config=config.model_copy(update={"teacher_start_from": config.teacher}),
        )  # fmt: skip


def test_a_subset_takes_the_first_examples_of_each_family(tmp_path):
    few = NetworkSpec("few", "labels", examples=90, epochs=1)
    trained(tmp_path, few)
    with pytest.raises(ValueError, match=r"5000 training examples.* all domains have 200"):
        trained(tmp_path, NetworkSpec("many", "labels", examples=5000))


def test_a_network_that_is_not_trained_is_reported(tmp_path):
    with pytest.raises(RunError, match="holds no ERM of seed 0; train it first"):
        ModelZoo(TINY_NETWORKS, 0, tmp_path).network(ERM)
    no_standard = TINY_NETWORKS.model_copy(update={"standard": None})
    with pytest.raises(ValueError, match="no ERM: the config has no standard network"):
        trained(tmp_path, ERM, config=no_standard)


@pytest.mark.parametrize("data", ["imagenet", "iwildcam", "camelyon17", "domainnet"])
def test_missing_files_of_a_benchmark_are_reported(data, tmp_path):
    config = Networks(
        data=data, folder=tmp_path / "none", weights=tmp_path, teacher="torchvision:resnet18"
    )
    with pytest.raises(
        ValueError, match=rf"is not a complete {data}: missing .*{tmp_path}/none"
    ) as e:
        trained(tmp_path, TEACHER, ERM, config=config)
    for name in ("resnet18", "resnet50"):
        assert f"at {tmp_path}/torchvision-{name}.safetensors" in str(e.value)


def test_the_same_pipeline_runs_on_folders(tmp_path):
    """A teacher whose weights come from a file, and its student, on DomainNet's true layout."""
    config = Networks(
        data="domainnet",
        folder=trees.whole_domainnet(tmp_path / "data"),
        weights=tmp_path / "weights",
        teacher="support.sources:tiny_source",
        standard=None,
        student_recipe=Distillation(1e-2, 0.0, 16, epochs=1),
        probe=FullBatch(iterations=20),
    )
    with pytest.raises(ValueError, match=r"put .* at .*support\.sources-tiny_source\.safetensors"):
        trained(tmp_path / "runs", TEACHER, config=config)
    write_weights(tmp_path / "weights", tiny_source)
    zoo = trained(tmp_path / "runs", TEACHER, STUDENT, config=config)
    for spec in (TEACHER, STUDENT):
        assert [row["test"] for row in zoo.judge(spec)][1:] == ["sketch"]
    again = ModelZoo(config, 0, tmp_path / "runs")
    assert again.judge(STUDENT) == zoo.judge(STUDENT)


def files_of(tmp_path: Path, data: str, **changes) -> Networks:
    """A config on files of the true layout, with a small teacher whose weights are in a file."""
    make = {"iwildcam": trees.iwildcam, "domainnet": trees.whole_domainnet, "pacs": trees.pacs}
    settings = {
        "data": data,
        "folder": make[data](tmp_path / "data"),
        "weights": tmp_path / "weights",
        "teacher": write_weights(tmp_path / "weights", tiny_source),
        "standard": None,
        "student_recipe": Distillation(1e-2, 0.0, 3, epochs=1),
        "probe": FullBatch(iterations=5),
    }
    return Networks(**(settings | changes))


def test_the_benchmark_decides_the_side_and_the_resizing(tmp_path):
    config = files_of(tmp_path, "iwildcam", probe=FullBatch())
    for side, expected in ((None, 448), (16, 16)):
        config = config.model_copy(update={"side": side})
        test = ModelZoo(config, 0, tmp_path).benchmark(TEACHER).shift.id_test
        assert isinstance(test, FolderDomain)
        transform: Any = test.transform
        assert (transform.resize, transform.crop, transform.squash) == (expected, expected, True)
        assert transform.mean == (0.5, 0.5, 0.5)
        assert transform.interpolation == "bilinear"


def test_a_teacher_is_fine_tuned_from_weights(tmp_path):
    config = files_of(
        tmp_path, "iwildcam", side=16, teacher_recipe=Recipe(1e-2, 0.0, 3, epochs=1, cosine=False)
    )
    with pytest.raises(
        ValueError, match="iwildcam has no pre-training data: set teacher_start_from"
    ):
        trained(tmp_path / "refused", TEACHER, config=config)
    start = {"teacher_start_from": config.teacher}
    tuned = trained(
        tmp_path / "tuned", TEACHER, STUDENT, config=config.model_copy(update=start)
    ).network(TEACHER)
    still = config.model_copy(
        update=start | {"teacher_recipe": Recipe(1e-12, 0.0, 3, epochs=1, cosine=False)}
    )
    kept = trained(tmp_path / "still", TEACHER, config=still).network(TEACHER)
    file = tiny_source().encoder
    file.load_state_dict(load_file(next((tmp_path / "weights").iterdir())))
    weight = file.get_parameter("0.weight")
    torch.testing.assert_close(kept.encoder.get_parameter("0.weight"), weight, rtol=0, atol=1e-9)
    assert not torch.allclose(tuned.encoder.get_parameter("0.weight"), weight, atol=1e-4)


def test_missing_weights_of_a_fine_tuned_teacher_are_reported(tmp_path):
    config = files_of(tmp_path, "iwildcam", teacher="torchvision:resnet18")
    with pytest.raises(ValueError, match=r"fine-tuned on iwildcam \(or set teacher_recipe"):
        trained(tmp_path, TEACHER, config=config)
    config = config.model_copy(
        update={
            "teacher_recipe": Recipe(1e-2, 0.0, 3, epochs=1),
            "teacher_start_from": "torchvision:resnet18",
        }
    )
    with pytest.raises(ValueError, match="which is fine-tuned on iwildcam here, at"):
        trained(tmp_path, TEACHER, config=config)


def test_a_standard_network_is_fine_tuned_from_weights_with_another_head(tmp_path):
    """As Table 5's, from every training domain."""
    name = write_weights(tmp_path / "weights", tiny_source_with_head)
    config = files_of(
        tmp_path, "pacs", side=8, standard=name, standard_start_from=name,
        standard_recipe=Recipe(1e-2, 0.0, 2, steps=3, cosine=False, per_domain=True),
    )  # fmt: skip
    zoo = trained(tmp_path / "runs", ERM, config=config)
    assert [row["role"] for row in zoo.judge(ERM)] == ["id", "ood"]


def test_the_scripts_have_recipes_of_probes_for_imagenet_alone(tmp_path):
    config = files_of(tmp_path, "iwildcam", side=16, probe=None, published="scripts")
    with pytest.raises(ValueError, match=r"no recipe was published .* on iwildcam; set probe"):
        trained(tmp_path, TEACHER, config=config)


def test_probes_of_domainnet_learn_from_augmented_images(tmp_path):
    """On the published path: minibatches from every domain, and the best of the candidates."""
    probe = Minibatches(
        3e-3, 1e-6, 8, epochs=None, steps=4, optimizer="adam", per_domain=True
    )  # fmt: skip
    config = files_of(tmp_path, "domainnet", probe=probe, side=8)
    zoo = trained(tmp_path / "runs", TEACHER, config=config)
    first = zoo.network(TEACHER).head.weight
    again = trained(tmp_path / "again", TEACHER, config=config).network(TEACHER).head.weight
    assert torch.equal(first, again)
    plain = config.model_copy(update={"probe": FullBatch(iterations=5)})
    other = trained(tmp_path / "other", TEACHER, config=plain).network(TEACHER).head.weight
    assert not torch.equal(first, other)


def test_the_calibrated_control_has_the_untrained_weights_and_statistics_of_the_data(tmp_path):
    zoo = trained(tmp_path, UNTRAINED, CALIBRATED)
    drawn, calibrated = (zoo.network(spec).encoder for spec in (UNTRAINED, CALIBRATED))
    for one, other in zip(drawn.parameters(), calibrated.parameters(), strict=True):
        assert torch.equal(one, other)
    x = torch.cat([domain.data.x for domain in zoo.benchmark(UNTRAINED).shift.train])
    moments: dict[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}
    for network in (drawn, calibrated):
        norm = next(m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))
        kept: list[torch.Tensor] = []

        def keep(_module: Any, _inputs: Any, output: Any, kept: Any = kept) -> None:
            kept.append(output.clone())

        handle = norm.register_forward_hook(keep)
        with torch.no_grad():
            network(x)
        handle.remove()
        moments[network] = kept[0].mean((0, 2, 3)), kept[0].std((0, 2, 3))
    means, spreads = moments[calibrated]
    torch.testing.assert_close(means, torch.zeros_like(means), rtol=0, atol=0.02)
    torch.testing.assert_close(spreads, torch.ones_like(spreads), rtol=0.02, atol=0.02)
    assert (moments[drawn][1] - 1).abs().max() > 0.1


SCRIPT = """
import sys
from pathlib import Path
from contam.experiments.support import model_zoo
from contam.experiments.support.networks import ERM, STUDENT, TEACHER, TINY_NETWORKS
from contam.training import checkpointed
checkpointed.CHECKPOINT_EVERY = 0.0
checkpointed.CHECKPOINT_SHARE = 1e9
model_zoo.REPORT_EVERY = 1
for stage in model_zoo.ModelZoo(TINY_NETWORKS, 0, Path(sys.argv[1])).train(
    [TEACHER, STUDENT, ERM]
):
    print(stage.doing, flush=True)
"""


@pytest.mark.slow
def test_a_killed_training_resumes_with_the_same_bytes(whole, tmp_path):
    """In the teacher's training, in distillation, in the probes and between them."""
    draws = np.random.default_rng(1)
    kills = 0
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)],
                                   stdout=subprocess.PIPE, text=True)  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(float(draws.uniform(0, 0.8)))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() != 0
        process.stdout.close()
    assert kills > 1
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], check=True, capture_output=True)
    assert weights(tmp_path) == weights(whole)


@pytest.mark.slow
def test_two_processes_share_networks(whole, tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        process.communicate(timeout=600)
        assert process.returncode == 0
    assert weights(tmp_path) == weights(whole)
    (folder,) = (tmp_path / STORE).iterdir()
    assert json.loads((folder / "run.json").read_text())["files"]
