"""CIFAR-10: both versions of its files, hostile ones, and the frame."""

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contam.data import cifar
from contam.data.cifar import cifar10, padded, padded_cifar10, read_binary, read_pickled
from contam.data.digits import frame_color
from contam.data.missing_files import MissingFilesError

N = 8
"""Images in each file."""
BATCHES = (*cifar.PARTS["train"], *cifar.PARTS["test"])


def content(number: int) -> tuple[np.ndarray, list[int]]:
    random = np.random.default_rng(number)
    return random.integers(0, 256, (N, 3072), dtype=np.uint8), list(range(2, 2 + N))


@pytest.fixture(scope="module")
def versions(tmp_path_factory) -> list[Path]:
    """The same images in the binary version and in the Python version."""
    folders = [tmp_path_factory.mktemp(name) for name in ("bin", "py")]
    for number, name in enumerate(BATCHES):
        data, labels = content(number)
        rows = np.concatenate([np.array(labels, dtype=np.uint8)[:, None], data], axis=1)
        (folders[0] / f"{name}.bin").write_bytes(rows.tobytes())
        (folders[1] / name).write_bytes(written(data, labels))
    return folders


def written(data: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2 wrote it: protocol 2, its texts and the array's bytes as strings."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    kind = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|")
    kind += b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b")
    shape = b"".join(b"J" + struct.pack("<i", n) for n in data.shape) + b"\x86"
    array += b"\x87R(K\x01" + shape + kind + b"\x89" + text(data.tobytes()) + b"tb"
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    items = text(b"data") + array + text(b"labels") + listed
    return b"\x80\x02}(" + items + text(b"batch_label") + text(b"part") + b"u."


def test_the_test_files_are_valid_pickles():
    """The true machinery builds the same from it, so the test's files are of the true form."""
    data, labels = content(0)
    loaded = pickle.loads(written(data, labels), encoding="bytes")
    assert np.array_equal(loaded[b"data"], data)
    assert loaded[b"labels"] == labels


def test_both_versions_give_the_same_images(versions):
    for number, name in enumerate(BATCHES):
        binary, pickled = read_binary(versions[0] / f"{name}.bin"), read_pickled(versions[1] / name)
        data, labels = content(number)
        assert torch.equal(binary[0], pickled[0]) and torch.equal(binary[1], pickled[1])
        assert np.array_equal(binary[0].numpy(), data.reshape(N, 3, 32, 32))
        assert binary[1].tolist() == labels
    one, other = (cifar10(folder, validation=5) for folder in versions)
    assert torch.equal(one.train[0].data.x, other.train[0].data.x)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_batches_that_python_3_wrote_are_read(tmp_path, protocol):
    data, labels = content(0)
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({"data": data, "labels": labels}, protocol=protocol))
    if protocol < 5:
        assert torch.equal(read_pickled(path)[0].flatten(1), torch.from_numpy(data))
    else:
        # Protocol 5 calls another function of NumPy's; nobody has published CIFAR in it.
        with pytest.raises(ValueError, match="not a batch of CIFAR-10"):
            read_pickled(path)


class Runs:
    """What unpickles by calling a function."""

    def __init__(self, call, *given):
        self.reduced = (call, given)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("call", [exec, eval, __import__, getattr, Path.touch])
def test_a_pickle_that_would_run_code_is_rejected(tmp_path, call, protocol):
    path, trace = tmp_path / "batch", tmp_path / "trace"
    given = {exec: f"open({str(trace)!r}, 'w')", Path.touch: trace}.get(call, "os")
    data, labels = content(0)
    hostile = {b"data": data, b"labels": labels, b"more": Runs(call, given)}
    path.write_bytes(pickle.dumps(hostile, protocol=protocol))
    with pytest.raises(ValueError, match="not a batch of CIFAR-10: it uses "):
        read_pickled(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "asked",
    [b"cos\nsystem\n", b"cnumpy\nload\n", b"cnumpy.core.multiarray\nfromfile\n",
     b"\x8c\x05numpy\x8c\x0cndarray.dump\x93", b"cnumpy\nfrompyfunc\n", b"cbuiltins\nbytearray\n"],
)  # fmt: skip
def test_only_names_needed_for_arrays_are_unpickled(tmp_path, asked):
    path = tmp_path / "batch"
    path.write_bytes(b"\x80\x04" + asked + b".")
    with pytest.raises(ValueError, match="it uses"):
        read_pickled(path)


@pytest.mark.parametrize("name", cifar.ALLOWED, ids=".".join)
def test_a_pickle_cannot_modify_the_allowed_names(tmp_path, name):
    module, attribute = name
    target = f"c{module}\n{attribute}\n".encode()
    before = read_both_ways(tmp_path)
    # A state for the object itself, and one for its slots.
    for state in (b"}X\x01\x00\x00\x00xK\x01s", b"N}X\x08\x00\x00\x00__call__K\x01s\x86"):
        path = tmp_path / "batch"
        path.write_bytes(b"\x80\x02" + target + state + b"b.")
        with pytest.raises(ValueError, match="not a batch of CIFAR-10"):
            read_pickled(path)
    assert torch.equal(read_both_ways(tmp_path), before)


def read_both_ways(folder: Path) -> torch.Tensor:
    (folder / "good").write_bytes(written(*content(0)))
    return read_pickled(folder / "good")[0]


@pytest.mark.parametrize("put", [b"r\xff\xff\xff\x7f", b"p2147483647\n", b"q\xff"])
def test_a_few_bytes_cannot_ask_for_a_large_table(tmp_path, put):
    path = tmp_path / "batch"
    path.write_bytes(b"\x80\x02}" + put + b".")
    with pytest.raises(ValueError, match="byte 3 numbers an object"):
        read_pickled(path)


@given(data=st.data())
def test_damaged_files_give_images_or_one_line(tmp_path_factory, data):
    broken = bytearray(written(*content(0)))
    # The first bytes and the last are the pickle's own; between them is the array.
    places = st.integers(0, 180) | st.integers(len(broken) - 90, len(broken) - 1)
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(places)] = data.draw(st.integers(0, 127))
    path = tmp_path_factory.getbasetemp() / "broken batch"
    path.write_bytes(broken)
    try:
        assert read_pickled(path)[0].shape[1:] == (3, 32, 32)
    except ValueError as error:
        assert "\n" not in str(error)


def test_malformed_files_are_rejected(tmp_path, versions):
    whole = (versions[0] / "test_batch.bin").read_bytes()
    for bad, line in ((whole[:-1], "not rows of 3073"), (b"", "has 0 bytes"),
                      (b"\x0a" + whole[1:], "expected labels 0")):  # fmt: skip
        path = tmp_path / "test_batch.bin"
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=line):
            read_binary(path)
    with pytest.raises(ValueError, match=r"nowhere is not a complete cifar10: missing data_b"):
        cifar10(tmp_path / "nowhere")


@pytest.mark.parametrize("ending", ["", ".bin"])
def test_all_missing_files_are_named_in_the_version_of_the_others(tmp_path, ending):
    for name in ("data_batch_1", "data_batch_3", "data_batch_4", "data_batch_5"):
        (tmp_path / f"{name}{ending}").touch()
    with pytest.raises(MissingFilesError, match=rf"missing data_batch_2{ending}, test_batch$"):
        cifar10(tmp_path)


def test_a_frame_by_hand():
    red = frame_color("red")
    x = padded(torch.ones(1, 3, 32, 32), red)
    # 48 pixels become 32: the frame of 8 becomes 5 and a third.
    torch.testing.assert_close(x[0, :, 0, 0], red)
    torch.testing.assert_close(x[0, :, :4].amax(dim=(1, 2)), red)
    torch.testing.assert_close(x[0, :, 7:-7, 7:-7], torch.ones(3, 18, 18))
    assert (red * 255).round().tolist() == [150, 50, 50]


def test_resizing_agrees_with_pillow():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    whole = Image.new("RGB", (48, 48), (150, 50, 50))
    whole.paste(Image.fromarray(pixels), (8, 8))
    expected = np.array(whole.resize((32, 32), Image.Resampling.BILINEAR)) / 255
    x = padded(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255, frame_color("red"))
    assert np.abs(x[0].permute(1, 2, 0).numpy() - expected).max() < 1.5 / 255


@given(st.integers(0, 99), st.floats(0, 1))
def test_the_padded_image_is_linear_in_image_and_frame(seed, share):
    generator = torch.Generator().manual_seed(seed)
    x, z = torch.rand(2, 2, 3, 32, 32, generator=generator)
    a, b = torch.rand(2, 2, 3, generator=generator)
    mixed = padded(share * x + (1 - share) * z, share * a + (1 - share) * b)
    torch.testing.assert_close(mixed, share * padded(x, a) + (1 - share) * padded(z, b))


def test_training_sets_differ_only_in_the_frame(versions):
    red, gray = (padded_cifar10(versions[0], frame, validation=5) for frame in ("red", "gray"))
    one, other = red.train[0].data, gray.train[0].data
    assert torch.equal(one.y, other.y)
    torch.testing.assert_close(one.x[:, :, 7:-7, 7:-7], other.x[:, :, 7:-7, 7:-7])
    assert not torch.allclose(one.x[:, :, 0], other.x[:, :, 0])
    ood = {domain.name: domain.data.x for domain in red.ood_tests}
    assert torch.equal(ood["test, gray frame"], gray.id_test.data.x)
    assert len({int(d.data.domain[0]) for d in (red.id_test, *red.ood_tests)}) == 5


def test_random_frames_depend_on_the_seed(versions):
    corners = [
        padded_cifar10(versions[0], "random", seed=seed, validation=5).id_test.data.x[:, :, 0, 0]
        for seed in (0, 0, 1)
    ]
    assert torch.equal(corners[0], corners[1]) and not torch.equal(corners[0], corners[2])
    assert len(corners[0].unique(dim=0)) == N


def test_validation_is_held_out_of_training(versions):
    shift = cifar10(versions[0], validation=11)
    assert shift.id_val is not None
    assert (len(shift.train[0]), len(shift.id_val), len(shift.id_test)) == (29, 11, 8)
    together = torch.cat([shift.train[0].data.x, shift.id_val.data.x]).flatten(1)
    assert len(together.unique(dim=0)) == 40
    with pytest.raises(ValueError, match="40 images for validation out of 40"):
        cifar10(versions[0], validation=40)


def test_unknown_frames_are_rejected_before_reading(tmp_path):
    with pytest.raises(ValueError, match="no frame 'purple'"):
        padded_cifar10(tmp_path, "purple")
