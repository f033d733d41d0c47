from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distill.errors import CheckFailed, ConfigError, InputError
from distill.files import files_of, sha256_of
from distill.interfaces import Upsampled, WindowNetwork, windows
from distill.networks.registry import find
from export.formats import export
from export.interfaces import Order
from export.to_coreml.evaluator import Evaluator
from export.to_coreml.package import Package, blob, quiet_coremltools, read_package
from export.to_coreml.program import EvaluatedProgram
from students.vdsr import VDSR
from students.vespcn import VESPCN
from tests.stand_ins.mlpackages import COREML, ODD, exported
from tests.stand_ins.networks import METADATA, moving_clip, randomise, randomise_with_statistics

IOS_18 = {"ios": 18}
MIL_FLOAT32 = 11  # of MIL.proto's data types


NETWORKS = {
    "vespcn-mobile": {},
    "fastdvdnet-mobile": {},
    "fastdvdnet": {"channels": 16, "blocks": 2},
    "vespcn": {},
    "vsrnet": {"widths": (16, 8)},
    "vdsr": {"hidden_convs": 3},
    "vsrnet-std": {"hidden_convs": 3},
    "sofvsr": {"channels": 32, "flow_blocks": 2, "blocks": 2},
    "d3dnet": {"channels": 8, "align_blocks": 2, "reconstruct_blocks": 1},
}


def restored(network, clip):
    """Every frame from the window around it."""
    with torch.inference_mode():
        return torch.cat([network.eval().reconstruct(w[None]).frames for w in windows(clip[None], network.window)[0]])


def differences(file, network, clip):
    """The greatest and the mean squared one, over a clip."""
    expected = restored(network, clip)
    difference = torch.stack(list(file.stream(clip))) - expected
    idle = nn.functional.interpolate(clip, size=expected.shape[-2:], mode="bicubic")
    assert (expected - idle).abs().max() > 0.05, "the test would compare base images only"
    return difference.abs().max().item(), difference.square().mean().item()


def psnr(error):
    return -10 * np.log10(error)


def randomised(name):
    """A thin network by name, with weights, and statistics where it has some, as after a training."""
    network = find(name).build(**NETWORKS[name])
    normalised = any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    return (randomise_with_statistics if normalised else randomise)(network)


def operations(path):
    function = read_package(path).model.mlProgram.functions["main"]
    return function.block_specializations[function.opset].operations


def test_float32_computes_what_the_network_does(student, tmp_path):
    file = exported(student, tmp_path / "student.mlpackage", precision="fp32")
    assert student.training
    assert file.program.metadata["frame_type"] == "float32"
    assert differences(file, student, moving_clip(4, *ODD))[0] <= 1e-5
    description = read_package(file.path).model.description
    frame, result = description.input[0], description.output[0]
    assert (frame.name, result.name) == ("frame_0", "restored")
    assert list(frame.type.multiArrayType.shape) == [1, 3, *ODD]
    with pytest.raises(InputError, match="takes frames of 27x18, not 28x18"):
        next(file.stream(torch.rand(1, 3, 18, 28)))


def test_halves(student, halved):
    greatest, error = differences(halved, student, moving_clip(4, *ODD))
    assert 1e-5 < greatest < 0.01
    assert psnr(error) > 60
    assert halved.program.unit_got == "evaluated off-Mac, not run by Core ML" or sys.platform == "darwin"
    model = read_package(halved.path).model
    kinds = {each.type.multiArrayType.dataType for each in (*model.description.input, *model.description.output)}
    assert kinds == {model.description.input[0].type.multiArrayType.FLOAT16}
    assert model.specificationVersion == 7, "of iOS 16"


def test_the_package_is_plain_and_the_same_again(student, halved, tmp_path):
    names = [file.relative_to(halved.path).as_posix() for file in files_of(halved.path)]
    data = "Data/com.apple.CoreML"
    assert names == [f"{data}/model.mlmodel", f"{data}/weights/weight.bin", "Manifest.json"]
    for file in (halved.path / names[0], halved.path / names[2]):
        for trace in (b".py", b"/work", b"site-packages", b"conversion_date", str(halved.path.parent).encode()):
            assert trace not in file.read_bytes()
    metadata = dict(reversed(METADATA.items()))
    export(Order(student, metadata, "fp16", sizes=(ODD,)), COREML, tmp_path / "again.mlpackage")
    assert sha256_of(tmp_path / "again.mlpackage") == sha256_of(halved.path)


def test_metadata_comes_back(halved):
    metadata = halved.program.metadata
    facts = {"scale": "4", "window": "3", "mode": "windowed", "sizes": "18x27", "precision": "fp16"}
    facts |= {"frame_type": "float16", "colour_range": "RGB 0..1"}
    assert metadata.items() >= METADATA.items() | facts.items()
    assert metadata["torch_version"] == torch.__version__
    assert read_package(halved.path).model.description.metadata.shortDescription.startswith("Video super-resolution x4")


def test_coremltools_reads_what_we_write(halved):
    with quiet_coremltools():
        import coremltools

        model = coremltools.models.MLModel(str(halved.path), skip_model_load=True)
    assert model.user_defined_metadata["network"] == "fastdvdnet"
    assert model.weights_dir is not None


def test_streaming_keeps_its_memories_in_states(student, tmp_path):
    """State is of halves, so a file that computes in float32 is not equal to 1e-5 either."""
    file = exported(student, tmp_path / "stream.mlpackage", precision="fp16", streaming=True, options=IOS_18)
    model = read_package(file.path).model
    assert [each.name for each in model.description.input] == ["frame"]
    assert [each.name for each in model.description.output] == ["restored"]
    memories = student.step().memories
    shapes = {each.name: list(each.type.stateType.arrayType.shape) for each in model.description.state}
    assert shapes == {memory.name: list(memory.shape(*ODD)) for memory in memories}
    assert file.program.metadata["memories_inside"] == "yes"
    assert file.program.metadata["memory_type"] == "float16"
    clip = moving_clip(5, *ODD)
    _, error = differences(file, student, clip)
    assert psnr(error) > 60
    again = torch.stack(list(file.stream(clip)))  # a new shot starts from nothing
    assert torch.equal(again, torch.stack(list(file.stream(clip))))
    frame = {"frame": clip[:1].numpy()}
    first, second = (file.program.run(frame)["restored"] for _ in range(2))
    file.program.forget()
    third = file.program.run(frame)["restored"]
    assert not np.array_equal(first, second)
    file.program.forget()
    assert np.array_equal(third, file.program.run(frame)["restored"])


@pytest.mark.parametrize(
    ("precision", "order", "least"), [("w8", {}, 50), ("p4", {"streaming": True, "options": IOS_18}, 25)]
)
def test_compressed_weights(student, halved, tmp_path, precision, order, least):
    file = exported(student, tmp_path / "student.mlpackage", precision=precision, **order)
    _, error = differences(file, student, moving_clip(4, *ODD))
    assert least < psnr(error) < 62, "compression must cost something, but not much"
    package = read_package(file.path)
    assert len(package.weights) < 0.65 * len(read_package(halved.path).weights)
    kinds = {"w8": "constexpr_affine_dequantize", "p4": "constexpr_lut_to_dense"}
    found = [each for each in operations(file.path) if each.type == kinds[precision]]
    heavy = [p for p in student.parameters() if p.ndim > 1 and p.numel() > 2048]
    assert len(found) == len(heavy) > 5
    base = student.tail.base.phases.weight
    kept = [blob(package.weights, each.attributes["val"].blobFileValue.offset) for each in operations(file.path)
            if each.type == "const" and list(_sides(each)) == list(base.shape)]  # fmt: skip
    assert len(kept) == 1, "the fixed kernel of the base image must not be compressed"
    np.testing.assert_array_equal(kept[0], base.half().numpy().reshape(-1))


def _sides(operation):
    return [each.constant.size for each in operation.outputs[0].type.tensorType.dimensions]


def test_images_of_several_sizes(student, tmp_path):
    sizes = ((16, 24), (20, 12))
    file = exported(
        student, tmp_path / "student.mlpackage", sizes, precision="fp16", options={"images": True, **IOS_18}
    )
    assert file.program.metadata.items() >= {"frame_type": "image", "colour_range": "RGB 0..255"}.items()
    description = read_package(file.path).model.description
    assert {each.type.WhichOneof("Type") for each in (*description.input, *description.output)} == {"imageType"}
    assert not {"shape", "gather"} & {each.type for each in operations(file.path)}, "sizes must not be computed"
    for size in sizes:
        clip = (moving_clip(3, *size) * 255).round() / 255
        expected = restored(student, clip).clamp(0, 1)
        got = torch.stack(list(file.stream(clip)))
        assert (got * 255 - (got * 255).round()).abs().max() < 1e-3
        assert (got - expected).abs().max() < 0.5 / 255 + 0.005
    with pytest.raises(CheckFailed, match=r"takes frame_0 of shape \(1, 3, 16, 24\) or \(1, 3, 20, 12\)"):
        file.program.run({f"frame_{place}": np.zeros((1, 3, 8, 8), np.float32) for place in range(3)})


def test_sampling_positions_stay_in_float32(tmp_path):
    """In halves the positions of this width would be wrong by a hundredth of a pixel."""
    torch.manual_seed(0)
    network = VESPCN(widths=(8,), motion_width=8)
    for name, parameter in network.named_parameters():
        if name.startswith("motion") and parameter.abs().max() == 0:
            nn.init.normal_(parameter, std=0.3)
    file = exported(network, tmp_path / "student.mlpackage", ((8, 200),), precision="fp16")
    floats = [each for each in operations(file.path) if each.outputs[0].type.tensorType.dataType == MIL_FLOAT32]
    assert sum(each.type == "resample" for each in operations(file.path)) == 4
    assert sum(each.type == "resample" for each in floats) == 4
    assert not any(each.type == "conv" for each in floats)
    assert psnr(differences(file, network, moving_clip(3, 8, 200))[1]) > 60


class Sorted(WindowNetwork):
    """An operator that the converter does not have."""

    window, lr_channels, hr_channels = 1, 3, 3

    def reconstruct(self, window: Tensor) -> Upsampled:
        frame = torch.linalg.matrix_exp(window[:, 0])
        return Upsampled(nn.functional.interpolate(frame, scale_factor=4), frame, frame)


def test_a_network_that_core_ml_cannot_express(tmp_path):
    with pytest.raises(CheckFailed, match=r"^Sorted cannot be converted to Core ML: .*linalg_matrix_exp") as caught:
        exported(Sorted(), tmp_path / "sorted.mlpackage", ((8, 8),))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        ({"options": {"ios": 17}}, "is for iOS 16 or 18, not 17"),
        ({"streaming": True}, "keeps state, which iOS 16 cannot: give --ios 18"),
        (
            {"streaming": True, "options": IOS_18, "sizes": ((8, 8), (8, 12))},
            "streaming Core ML file has one size",
        ),
        ({"sizes": ((8, 8), (8, 12))}, "On iOS 16 a network of several frames has one size"),
        ({"options": IOS_18, "sizes": ((8, 8), (8, 13))}, "each must be a multiple of 4, not 13x8"),
        ({"sizes": ()}, "needs a size"),
        ({"precision": "int8"}, "has no precision 'int8'"),
    ],
)
def test_orders_that_no_file_can_meet(student, tmp_path, order, sentence):
    with pytest.raises(ConfigError, match=sentence):
        exported(student, tmp_path / "student.mlpackage", **order)


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_student(name, streaming, tmp_path):
    network = randomised(name)
    clip = moving_clip(network.window + 1, *ODD)
    limits = {"fp32": (55 if streaming and network.step().memories else 105), "fp16": 50}
    for precision, least in limits.items():
        order = {"precision": precision, "streaming": streaming, "options": {"ios": 18 if streaming else 16}}
        file = exported(network, tmp_path / f"{precision}.mlpackage", **order)
        error = differences(file, network, clip)[1]
        assert psnr(max(error, 1e-15) / restored(network, clip).abs().max().item() ** 2) > least


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vespcn-mobile", "fastdvdnet-mobile", "fastdvdnet", "vsrnet", "vdsr", "d3dnet"])
def test_several_sizes(name, tmp_path):
    network = randomised(name)
    sizes = ((16, 24), (24, 16))
    file = exported(network, tmp_path / "student.mlpackage", sizes, precision="fp32", options=IOS_18)
    for size in sizes:
        clip = moving_clip(3, *size)
        assert differences(file, network, clip)[0] <= 2e-5 * max(1, restored(network, clip).abs().max().item())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vespcn", "sofvsr"])
def test_several_sizes_that_the_converter_fails_on(name, tmp_path):
    network = find(name).build(**NETWORKS[name])
    with pytest.raises(CheckFailed, match="one --size instead of several may help"):
        exported(network, tmp_path / "student.mlpackage", ((16, 24), (24, 16)), precision="fp32", options=IOS_18)


@pytest.mark.slow
def test_one_frame_streams_and_takes_several_sizes_on_ios_16(tmp_path):
    """A network of one frame has neither memories nor a second input."""
    network = randomise(VDSR(hidden_convs=1, channels=8))
    sizes = ((16, 24), (24, 16))
    file = exported(network, tmp_path / "student.mlpackage", sizes, precision="fp32", streaming=True)
    for size in sizes:
        assert differences(file, network, moving_clip(2, *size))[0] <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("ios", [16, 18])
@pytest.mark.parametrize("precision", ["w8", "p6", "p4"])
def test_compressed_weights_are_what_coremltools_makes_of_them(student, tmp_path, precision, ios):
    """Decompressed by coremltools, the file computes the same."""
    file = exported(student, tmp_path / "student.mlpackage", precision=precision, options={"ios": ios})
    with quiet_coremltools(), warnings.catch_warnings():
        import coremltools

        warnings.simplefilter("ignore", ResourceWarning)
        model = coremltools.models.MLModel(str(file.path), skip_model_load=True)
        plain = coremltools.optimize.coreml.decompress_weights(model)
    weights = (Path(plain.weights_dir) / "weight.bin").read_bytes()
    inputs = {f"frame_{place}": frame[None] for place, frame in enumerate(moving_clip(3, *ODD))}
    expected = Evaluator(Package(plain.get_spec(), weights)).run(inputs)["restored"]
    assert torch.equal(Evaluator(read_package(file.path)).run(inputs)["restored"], expected)


def test_pictures_for_core_ml_and_back():
    """What a Mac is given and gives; the rest of that class runs there alone."""
    from export.to_coreml.program import _array, _picture

    pixels = torch.randint(0, 256, (1, 3, 4, 6)).numpy().astype(np.float32)
    picture = _picture(pixels / 255 + 0.3 / 255)
    assert (picture.size, picture.mode) == ((6, 4), "RGB")
    assert picture.getpixel((5, 2)) == tuple(pixels[0, :, 2, 5])
    np.testing.assert_allclose(_array(picture), pixels / 255, atol=1e-7)
    assert _picture(np.full((1, 3, 1, 1), 1.7)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.device
@pytest.mark.skipif(sys.platform != "darwin", reason="Core ML runs on Apple's systems only")
@pytest.mark.parametrize("streaming", [False, True])
def test_core_ml_agrees_with_the_evaluator(student, tmp_path, streaming):
    order = {"streaming": streaming, "options": {"ios": 18 if streaming else 16}}
    file = exported(student, tmp_path / "student.mlpackage", precision="fp16", **order)
    clip = moving_clip(4, *ODD)
    run = torch.stack(list(file.stream(clip)))
    file.program = EvaluatedProgram(read_package(file.path))
    computed = torch.stack(list(file.stream(clip)))
    assert psnr((run - computed).square().mean().item()) > 55
