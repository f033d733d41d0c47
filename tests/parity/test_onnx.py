from __future__ import annotations

import hashlib
import json
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.errors import CheckFailed, ConfigError, InputError
from distill.interfaces import Upsampled, WindowNetwork
from export.artifact import export_line, read_metadata
from export.parity import OnnxNetwork, onnx_parity
from export.to_onnx import export_onnx
from students.fastdvdnet import FastDVDnet
from teachers.deformable import DeformablePack
from teachers.edvr import EDVR

METADATA = {
    "network": "fastdvdnet",
    "keywords": json.dumps({"channels": 16, "blocks": 2}),
    "degradation": "BD",
    "provenance": json.dumps({"recipe": "none", "note": "Größe 中"}),
}


def randomised(network: WindowNetwork) -> WindowNetwork:
    """Weights and statistics as after a training: nothing is zero, one or small by initialisation."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.3, 3, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, std=0.2, generator=generator)
        if isinstance(module, DeformablePack):
            nn.init.normal_(module.conv_offset.weight, std=0.05, generator=generator)
            nn.init.normal_(module.conv_offset.bias, std=2, generator=generator)
    nn.init.normal_(network.tail.conv_last.weight, std=0.05, generator=generator)
    return network


def moving_clip(frames: int, height: int, width: int) -> Tensor:
    """A textured picture that drifts by half a pixel a frame."""
    row, column = torch.arange(height)[:, None], torch.arange(width)
    shift = torch.arange(frames)[:, None, None, None] / 2
    colour = torch.arange(3)[None, :, None, None]
    return 0.5 + 0.25 * torch.sin((column + shift) * 0.9 + colour) + 0.25 * torch.sin(row * 0.7 - shift)


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    return randomised(FastDVDnet(channels=16, blocks=2))  # in training mode, as a trainer hands it over


@pytest.fixture(scope="module")
def artifact(student, tmp_path_factory):
    target = tmp_path_factory.mktemp("onnx") / "new folder" / "student.onnx"
    return export_onnx(student, target, metadata=METADATA)


@pytest.mark.parametrize(("height", "width"), [(24, 40), (44, 28), (8, 100), (37, 50), (5, 3)])
def test_the_file_computes_what_the_network_does(student, artifact, height, width):
    window = moving_clip(7, height, width)[None]
    exported = OnnxNetwork(artifact.path)
    with torch.inference_mode():
        expected = student.eval().reconstruct(window).frames
    base = student.upsample_base(window[:, 3])
    assert (expected - base).abs().max() > 0.05, "the test would compare base images only"
    frame = exported(window)
    assert frame.shape == (1, 3, 4 * height, 4 * width)
    assert (frame - expected).abs().max() <= 1e-4


def test_parity_on_clips(student, artifact):
    parity = onnx_parity(student.train(), artifact.path, [moving_clip(9, 32, 60), moving_clip(3, 24, 24)])
    assert parity.sizes == ((32, 60), (21, 31), (24, 24), (17, 13))
    assert 0 < parity.max_abs <= 1e-4
    assert parity.psnr_db > 90
    assert student.training
    line = export_line(artifact, parity.max_abs)
    assert line.startswith("onnx  ok  ")
    assert "student.onnx (" in line
    assert "max|diff| " in line


def test_parity_refuses_other_weights(student, artifact):
    other = FastDVDnet(channels=16, blocks=2)
    with pytest.raises(CheckFailed, match="differs from the PyTorch network by"):
        onnx_parity(other, artifact.path, [moving_clip(7, 24, 24)])
    nn.init.constant_(other.tail.conv_last.bias, math.nan)
    with pytest.raises(CheckFailed, match="by nan"):
        onnx_parity(other, artifact.path, [moving_clip(7, 24, 24)])


def test_one_file_without_paths_and_the_same_bytes_again(student, artifact):
    folder = artifact.path.parent
    assert [file.name for file in folder.iterdir()] == ["student.onnx"]
    payload = artifact.path.read_bytes()
    for trace in (b"stack_trace", b'File "', b".py", b"/work", b"site-packages", str(folder).encode()):
        assert trace not in payload
    again = export_onnx(student, folder / "student.onnx", metadata=dict(reversed(METADATA.items())))
    assert again.path.read_bytes() == payload
    assert again.sha256 == artifact.sha256 == hashlib.sha256(payload).hexdigest()
    assert again.bytes == artifact.bytes == len(payload)
    assert artifact.seconds > 0


def test_the_graph_is_plain(artifact):
    import onnx

    model = onnx.load(artifact.path)
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"BatchNormalization", "Resize", "If", "Loop"}
    assert {entry.domain for entry in model.opset_import} == {""}
    (window,), (frame,) = model.graph.input, model.graph.output
    shapes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (window, frame)]
    assert shapes == [[1, 7, 3, "height", "width"], [1, 3, "4*height", "4*width"]]
    assert (window.name, frame.name) == ("window", "frame")


def test_metadata_comes_back(artifact):
    metadata = read_metadata(artifact.path)
    assert metadata == artifact.metadata
    assert metadata.items() >= METADATA.items()
    facts = {"scale": "4", "window": "7", "colour_range": "RGB 0..1", "layout": "N T C H W", "size_multiple": "4"}
    assert metadata.items() >= facts.items()
    assert metadata["torch_version"] == torch.__version__
    assert metadata["distill_vsr_version"]


class Tiny(WindowNetwork):
    """Three frames, one convolution."""

    window, lr_channels, hr_channels = 3, 3, 3

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(9, 48, 3, padding=1)

    def reconstruct(self, window: Tensor) -> Upsampled:
        frame = functional.pixel_shuffle(self.conv(window.flatten(1, 2)), 4)
        return Upsampled(frame, frame, window[:, 1])


def test_a_fixed_size(tmp_path):
    network = Tiny()
    path = export_onnx(network, tmp_path / "tiny.onnx", metadata=METADATA, size=(18, 30)).path
    assert read_metadata(path)["size"] == "18x30"
    assert "size_multiple" not in read_metadata(path)
    assert OnnxNetwork(path).size == (18, 30)
    assert onnx_parity(network, path, [moving_clip(3, 20, 40)]).sizes == ((18, 30),)
    with pytest.raises(InputError, match=r"18x30, but the clip's have 17x40"):
        onnx_parity(network, path, [moving_clip(3, 17, 40)])
    with pytest.raises(InputError, match=r"shape \(1, 3, 3, 20, 30\), but the file takes \(1, 3, 3, 18, 30\)"):
        OnnxNetwork(path)(torch.rand(1, 3, 3, 20, 30))


class Ramped(Tiny):
    """linspace freezes the traced size into an exported graph although the graph stays valid."""

    def reconstruct(self, window: Tensor) -> Upsampled:
        ramp = torch.linspace(0, 1, window.shape[-1])
        return super().reconstruct(window * ramp)


class Torn(Tiny):
    """What it does depends on the pixels."""

    def reconstruct(self, window: Tensor) -> Upsampled:
        return super().reconstruct(window if window.sum() > 0 else -window)


def test_a_frozen_size_never_passes(tmp_path):
    path = export_onnx(Ramped(), tmp_path / "ramped.onnx", metadata=METADATA).path
    with pytest.raises(CheckFailed, match="fails on a window of shape"):
        onnx_parity(Ramped(), path, [moving_clip(3, 32, 60)])


def test_a_network_that_onnx_cannot_express(tmp_path):
    with pytest.raises(CheckFailed, match="Torn cannot be exported to ONNX: ") as caught:
        export_onnx(Torn(), tmp_path / "torn.onnx", metadata=METADATA)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_wrong_arguments(student, tmp_path):
    with pytest.raises(ValueError, match="lacks keywords, degradation, provenance"):
        export_onnx(student, tmp_path / "student.onnx", metadata={"network": "fastdvdnet"})
    with pytest.raises(ConfigError, match="size is 0x8"):
        export_onnx(student, tmp_path / "student.onnx", metadata=METADATA, size=(0, 8))


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        export_onnx(Tiny(), tmp_path / "folder" / "tiny.onnx", metadata=METADATA, size=(8, 8))
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        export_onnx(Tiny(), tmp_path / "taken", metadata=METADATA, size=(8, 8))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "taken"]


def test_files_that_are_not_ours(artifact, tmp_path):
    import onnx

    whole = artifact.path.read_bytes()
    names = {
        "text.onnx": (b"this is not a model\n", "is not an ONNX model"),
        "short.onnx": (b"hi", "is not an ONNX model"),
        "empty.onnx": (b"", "is not an ONNX model"),
        "cut.onnx": (whole[: len(whole) // 2], "is not an ONNX model"),
    }
    identity = onnx.helper.make_node("Identity", ["x"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    foreign = onnx.helper.make_model(onnx.helper.make_graph([identity], "foreign", ends[:1], ends[1:]))
    names["foreign.onnx"] = (foreign.SerializeToString(), "is an ONNX model that distill-vsr did not write")
    for name, (payload, sentence) in names.items():
        path = tmp_path / name
        path.write_bytes(payload)
        for use in (read_metadata, OnnxNetwork):
            with pytest.raises(InputError) as caught:
                use(path)
            assert str(caught.value) == f"{path} {sentence}: give the .onnx file that `distill export` wrote."
    for path in (tmp_path / "absent.onnx", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_metadata(path)


def test_a_file_that_the_runtime_refuses(artifact, tmp_path):
    import onnx

    model = onnx.load(artifact.path)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "refused.onnx")
    with pytest.raises(InputError, match="ONNX Runtime cannot load") as caught:
        OnnxNetwork(tmp_path / "refused.onnx")
    assert "\n" not in str(caught.value)


def test_a_window_of_the_wrong_length(artifact):
    with pytest.raises(InputError, match=r"shape \(1, 5, 3, 8, 8\), but the file takes \(1, 7, 3, height, width\)"):
        OnnxNetwork(artifact.path)(torch.rand(1, 5, 3, 8, 8))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"attention": False, "base": "bicubic"}])
def test_edvr(tmp_path, options):
    torch.manual_seed(0)
    teacher = randomised(EDVR(channels=16, offset_groups=4, extract_blocks=1, reconstruct_blocks=1, **options))
    teacher.tail.conv_last.weight.data.mul_(20)  # a residual of about 1
    path = export_onnx(teacher, tmp_path / "edvr.onnx", metadata=METADATA).path
    parity = onnx_parity(teacher, path, [moving_clip(5, 32, 60), moving_clip(5, 21, 18)])
    assert parity.max_abs <= 1e-4
