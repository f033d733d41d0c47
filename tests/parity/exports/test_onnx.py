from __future__ import annotations

import hashlib
import json
import math

import pytest
import torch
from torch import Tensor, nn

from distill.errors import CheckFailed, ConfigError, InputError
from distill.files import bytes_of, files_of, replacing_whole, sha256_of
from distill.interfaces import Upsampled, windows
from export.delivery.parity import check_parity
from export.formats import export, format_named, format_of, open_exported
from export.interfaces import Order
from export.to_onnx.program import read_model
from students.fastdvdnet import FastDVDnet
from teachers.edvr import EDVR
from tests.stand_ins.checks import exported
from tests.stand_ins.networks import METADATA, Tiny, Torn, moving_clip, randomised


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    return randomised(FastDVDnet(channels=16, blocks=2))  # in training mode, as a trainer hands it over


@pytest.fixture(scope="module")
def windowed(student, tmp_path_factory):
    return exported(student, tmp_path_factory.mktemp("onnx") / "student.onnx")


@pytest.fixture(scope="module")
def streaming(student, tmp_path_factory):
    return exported(student, tmp_path_factory.mktemp("onnx") / "streaming.onnx", streaming=True)


def restored(network, clip):
    """Every frame from the window around it, without any sharing."""
    with torch.inference_mode():
        return torch.cat([network.eval().reconstruct(w[None]).frames for w in windows(clip[None], network.window)[0]])


def streamed(network, clip):
    with torch.inference_mode():
        return torch.stack(list(network.stream(iter(clip))))


@pytest.mark.parametrize(("height", "width"), [(24, 40), (8, 20), (13, 10), (5, 3)])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_files_restore_a_clip_from_the_first_frame_to_the_last(student, windowed, streaming, height, width, length):
    clip = moving_clip(length, height, width)
    expected = restored(student, clip)
    if height > 5:
        base = student.upsample_base(clip)
        assert (expected - base).abs().max() > 0.05, "the test would compare base images only"
    for file in (windowed, streaming):
        frames = streamed(file, clip)
        assert frames.shape == (length, 3, 4 * height, 4 * width)
        assert (frames - expected).abs().max() <= 1e-4
    whole = streaming(clip[None])
    assert torch.equal(whole.frames[0], frames)
    assert (whole.hr_features, whole.lr_features) == (None, None)


def test_a_streaming_file_starts_each_shot_anew(student, streaming):
    shots = [moving_clip(4, 8, 12), 1 - moving_clip(3, 8, 12)]
    first = [streamed(streaming, shot) for shot in shots]
    again = [streamed(streaming, shot) for shot in reversed(shots)]
    for ours, theirs in zip(first, reversed(again), strict=True):
        assert torch.equal(ours, theirs)


def test_streaming_runs_the_first_stage_once_a_frame(windowed, streaming):
    import onnx

    convs = []
    for file in (windowed, streaming):
        convs.append(sum(node.op_type == "Conv" for node in onnx.load(file.path).graph.node))
    stage = sum(isinstance(module, nn.Conv2d) for module in FastDVDnet(channels=16, blocks=2).temp1.modules())
    assert convs[0] - convs[1] == 2 * stage


@pytest.mark.parametrize("mode", ["windowed", "streaming"])
def test_half_precision(student, tmp_path, mode):
    file = exported(student, tmp_path / "half.onnx", precision="fp16", streaming=mode == "streaming")
    clip = moving_clip(8, 13, 22)
    expected = restored(student, clip)
    difference = streamed(file, clip) - expected
    assert 1e-5 < difference.abs().max() < 0.02 * expected.abs().max(), "half precision shows, and does no harm"
    assert file.path.stat().st_size < 0.6 * 4 * sum(weight.numel() for weight in student.parameters())
    assert file.program.metadata["memory_type"] == "float16"


def test_parity_on_clips(student, windowed, streaming):
    clips = [moving_clip(9, 24, 20), moving_clip(3, 12, 24)]
    proof = check_parity(student.train(), windowed, clips)
    assert student.training
    assert proof.sizes == ((24, 20), (17, 11), (12, 24))
    assert proof.frames == 4
    assert 0 < proof.max_abs <= 1e-4
    assert proof.psnr_db > 90
    assert check_parity(student, streaming, clips).frames == 3 * 9 + 3


def test_parity_refuses_other_weights_and_keeps_to_the_floor(student, windowed):
    other = FastDVDnet(channels=16, blocks=2)
    clips = [moving_clip(7, 12, 12)]
    with pytest.raises(CheckFailed, match=r"differs from the PyTorch network: .* under the floor of 90 dB"):
        check_parity(other, windowed, clips)
    check_parity(other, windowed, clips, floor=-20)
    with pytest.raises(CheckFailed, match="under the floor of 1000 dB"):
        check_parity(student, windowed, clips, floor=1000)
    nn.init.constant_(other.tail.conv_last.bias, math.nan)
    with pytest.raises(CheckFailed, match="nan dB"):
        check_parity(other, windowed, clips, floor=-20)


class Reversed(FastDVDnet):
    """The same weights on windows in reverse order."""

    def reconstruct(self, window: Tensor) -> Upsampled:
        return super().reconstruct(window.flip(1))


@pytest.fixture(scope="module", params=[pytest.param("fp32", marks=pytest.mark.slow), "fp16"])
def modest(request):
    """A student that corrects little, and a precision; mistakes are harder to see in half of it."""
    torch.manual_seed(0)
    network = randomised(FastDVDnet(16, 1))
    network.tail.conv_last.weight.data.mul_(3e-3)  # a trained student is 39 dB from its base
    return network, request.param


SMALL_CLIPS = [moving_clip(7, 16, 20)]


def test_parity_passes_a_student_that_corrects_little(tmp_path, modest):
    right, precision = modest
    assert check_parity(right, exported(right, tmp_path / "right.onnx", precision=precision), SMALL_CLIPS).psnr_db > 60


@pytest.mark.parametrize("mistake", ["reversed", "without its correction", "another checkpoint"])
def test_parity_sees_mistakes_in_a_student_that_corrects_little(tmp_path, mistake, modest):
    right, precision = modest
    wrong = (Reversed if mistake == "reversed" else FastDVDnet)(16, 1)
    wrong.load_state_dict(right.state_dict())
    if mistake == "another checkpoint":
        nn.init.normal_(wrong.temp2.outc.convblock[-1].weight, std=0.05)
    if mistake == "without its correction":
        nn.init.zeros_(wrong.tail.conv_last.weight)
    with pytest.raises(CheckFailed, match="adds to the bicubic frame"):
        check_parity(right, exported(wrong, tmp_path / "wrong.onnx", precision=precision), SMALL_CLIPS)


def test_one_file_without_paths_and_the_same_bytes_again(student, windowed):
    folder = windowed.path.parent
    assert [file.name for file in folder.iterdir()] == ["student.onnx"]
    payload = windowed.path.read_bytes()
    for trace in (b"stack_trace", b'File "', b".py", b"/work", b"site-packages", str(folder).encode()):
        assert trace not in payload
    again = exported(student, folder / "again.onnx").path
    assert again.read_bytes() == payload
    assert sha256_of(again) == hashlib.sha256(payload).hexdigest()
    again.unlink()


def ends(path):
    import onnx

    graph = onnx.load(path).graph
    shape = lambda value: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]  # noqa: E731
    return [{value.name: shape(value) for value in values} for values in (graph.input, graph.output)]


def test_the_graph_is_plain(windowed, streaming):
    import onnx

    for file in (windowed, streaming):
        model = onnx.load(file.path)
        operators = {node.op_type for node in model.graph.node}
        assert not operators & {"BatchNormalization", "Resize", "If", "Loop", "Gather", "Reshape"}
        assert {entry.domain for entry in model.opset_import} == {""}
    size, large = ["height", "width"], ["4*height", "4*width"]
    assert ends(windowed.path) == [
        {f"frame_{place}": [1, 3, *size] for place in range(7)},
        {"restored": [1, 3, *large]},
    ]
    memories = {"frames": [1, 9, *size], "estimates": [1, 12, *size]}
    assert ends(streaming.path) == [
        {"frame": [1, 3, *size], **memories},
        {"restored": [1, 3, *large], **{f"next_{name}": shape for name, shape in memories.items()}},
    ]


def test_metadata_comes_back(windowed, streaming):
    metadata = windowed.program.metadata
    assert metadata == {entry.key: entry.value for entry in read_model(windowed.path).metadata_props}
    assert metadata.items() >= METADATA.items()
    facts = {"scale": "4", "window": "7", "colour_range": "RGB 0..1", "layout": "N C H W", "size_multiple": "4"}
    assert metadata.items() >= {**facts, "mode": "windowed", "memories": "[]", "precision": "fp32"}.items()
    assert metadata["torch_version"] == torch.__version__
    assert metadata["distill_vsr_version"]
    assert json.loads(streaming.program.metadata["memories"]) == [["frames", 3, 3, 1, 1], ["estimates", 3, 4, 1, 4]]


@pytest.mark.parametrize("mode", ["windowed", "streaming"])
def test_a_fixed_size(student, tmp_path, mode):
    file = exported(student, tmp_path / "fixed.onnx", sizes=((11, 18),), streaming=mode == "streaming")
    assert file.sizes == [(11, 18)]
    assert "size_multiple" not in file.program.metadata
    clip = moving_clip(8, 11, 18)
    assert (streamed(file, clip) - restored(student, clip)).abs().max() <= 1e-4
    assert all(isinstance(side, int) for shapes in ends(file.path) for shape in shapes.values() for side in shape)
    with pytest.raises(InputError, match="takes frames of 18x11, not 20x11: export it again with --size 20x11"):
        streamed(file, moving_clip(2, 11, 20))


class Ramped(Tiny):
    """linspace freezes the traced size into an exported graph although the graph stays valid."""

    def reconstruct(self, window: Tensor) -> Upsampled:
        ramp = torch.linspace(0, 1, window.shape[-1])
        return super().reconstruct(window * ramp)


def test_a_frozen_size_never_passes(tmp_path):
    with pytest.raises(CheckFailed, match="Ramped cannot be exported to ONNX: Constraints violated"):
        exported(Ramped(), tmp_path / "ramped.onnx")


def test_a_network_that_onnx_cannot_express(tmp_path):
    with pytest.raises(CheckFailed, match="Torn cannot be exported to ONNX: ") as caught:
        exported(Torn(), tmp_path / "torn.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_wrong_orders(student, tmp_path):
    onnx = format_named("onnx")
    target = tmp_path / "student.onnx"
    with pytest.raises(ValueError, match="lacks keywords, degradation, provenance"):
        export(Order(student, {"network": "fastdvdnet"}), onnx, target)
    with pytest.raises(ConfigError, match="size is 0x8"):
        export(Order(student, METADATA, sizes=((0, 8),)), onnx, target)
    with pytest.raises(ConfigError, match="onnx has no precision 'p4'; it has fp32, fp16, int8"):
        export(Order(student, METADATA, precision="p4"), onnx, target)
    with pytest.raises(ConfigError, match="onnx file has one size, not 2"):
        export(Order(student, METADATA, sizes=((8, 8), (8, 12))), onnx, target)
    with pytest.raises(ConfigError, match=r"no format 'onxx'\. Did you mean 'onnx'"):
        format_named("onxx")
    with pytest.raises(InputError, match=r"student\.txt is no exported file: their names end in \.onnx"):
        format_of(tmp_path / "student.txt")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"), replacing_whole(tmp_path / "folder" / "tiny.onnx"):
        pass
    taken = tmp_path / "taken.onnx"
    taken.write_text("precious")

    def fail_halfway():
        with replacing_whole(taken) as place:
            place.write_text("half")
            raise CheckFailed("stop")

    with pytest.raises(CheckFailed):
        fail_halfway()
    assert taken.read_text() == "precious"
    with replacing_whole(taken) as place:
        place.mkdir()
        (place / "part").write_text("new")
    assert [each.name for each in files_of(taken)] == ["part"]
    assert bytes_of(taken) == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "taken.onnx"]


def test_files_that_are_not_ours(windowed, tmp_path):
    import onnx

    whole = windowed.path.read_bytes()
    names = {
        "text.onnx": (b"this is not a model\n", "is not an ONNX model"),
        "short.onnx": (b"hi", "is not an ONNX model"),
        "empty.onnx": (b"", "is not an ONNX model"),
        "cut.onnx": (whole[: len(whole) // 2], "is not an ONNX model"),
    }
    identity = onnx.helper.make_node("Identity", ["x"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    foreign = onnx.helper.make_model(onnx.helper.make_graph([identity], "foreign", [x], [y]))
    names["foreign.onnx"] = (
        foreign.SerializeToString(), "is an ONNX model that this version of distill-vsr did not write",
    )  # fmt: skip
    for name, (payload, sentence) in names.items():
        path = tmp_path / name
        path.write_bytes(payload)
        for use in (read_model, open_exported):
            with pytest.raises(InputError) as caught:
                use(path)
            assert str(caught.value) == f"{path} {sentence}: give the .onnx file that `distill export` wrote."
    with pytest.raises(InputError, match="does not exist"):
        open_exported(tmp_path / "absent.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        open_exported(tmp_path / "folder.onnx")


def test_a_file_that_the_runtime_refuses(windowed, tmp_path):
    import onnx

    model = onnx.load(windowed.path)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "refused.onnx")
    with pytest.raises(InputError, match="ONNX Runtime cannot load") as caught:
        open_exported(tmp_path / "refused.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"attention": False, "base": "bicubic"}])
def test_edvr(tmp_path, options):
    torch.manual_seed(0)
    teacher = randomised(EDVR(channels=16, offset_groups=4, extract_blocks=1, reconstruct_blocks=1, **options))
    teacher.tail.conv_last.weight.data.mul_(20)  # a residual of about 1
    file = exported(teacher, tmp_path / "edvr.onnx")
    assert check_parity(teacher, file, [moving_clip(5, 32, 60), moving_clip(5, 21, 18)]).max_abs <= 1e-4
