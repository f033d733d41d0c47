"""Saved packages, computed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from distill.errors import CheckFailed
from export.to_coreml.evaluator import Evaluator
from export.to_coreml.package import Package, blob, quiet_coremltools
from tests.stand_ins.mlpackages import saved
from tests.unit.to_coreml.test_operators import MIL_FLOAT32, close

with quiet_coremltools():
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb  # noqa: N813 -- its documented name
    from coremltools.converters.mil.mil import get_new_symbol, types
    from coremltools.libmilstoragepython import _BlobStorageWriter as BlobWriter


def test_every_operation_rounds_to_the_type_that_it_declares():
    """In halves 2048 + 1 is 2048, so adding 1 twice is not adding 2; whole numbers lose their fraction."""

    def build(x):
        halves = mb.add(x=mb.add(x=mb.cast(x=x, dtype="fp16"), y=np.float16(1)), y=np.float16(1))
        whole = mb.cast(x=mb.cast(x=x, dtype="int32"), dtype="fp32")
        return mb.cast(x=halves, dtype="fp32", name="halves"), mb.add(x=whole, y=np.float32(1.5), name="singles")

    x = np.array([2048.0, 4.7, -4.7], np.float32)
    result = Evaluator(saved(build, ((3,), types.fp32))).run({"x": torch.from_numpy(x)})
    expected = x.astype(np.float16) + np.float16(1) + np.float16(1)
    assert expected[0] == 2048
    close(result["halves"], expected.astype(np.float32), 0)
    close(result["singles"], [2049.5, 5.5, -2.5], 0)


def test_constants_of_every_form():
    """In the program and in the file of weights, of each type that exports have."""
    draw = np.random.default_rng(0)
    large, small = draw.normal(size=(2, 3, 4)).astype(np.float32), draw.normal(size=(2, 3, 4)).astype(np.float16)
    places = np.array([3, 0, 1], np.uint16)

    def build(x):
        y = mb.add(x=mb.mul(x=x, y=large), y=mb.cast(x=small, dtype="fp32"))
        y = mb.add(x=y, y=mb.cast(x=np.arange(4, dtype=np.int32), dtype="fp32"))
        y = mb.slice_by_index(x=y, begin=[0, 1, 0], end=[0, 3, 0], end_mask=[True, False, True])
        return mb.gather(x=y, indices=places, axis=-1, name="y")

    package = saved(build, ((2, 3, 4), types.fp32))
    assert len(package.weights) > 200
    x = draw.normal(size=(2, 3, 4)).astype(np.float32)
    expected = (x * large + small.astype(np.float32) + np.arange(4))[:, 1:3][..., places]
    close(Evaluator(package).run({"x": torch.from_numpy(x)})["y"], expected, 1e-6)


def test_states_are_read_written_and_forgotten():
    def build(x):
        before = mb.read_state(input=x)
        after = mb.coreml_update_state(state=x, value=mb.add(x=mb.mul(x=before, y=np.float16(0.5)), y=np.float16(1)))
        return mb.mul(x=after, y=np.float16(3), name="y")

    target = ct.target.iOS18

    @mb.program(input_specs=[mb.StateTensorSpec((2,), types.fp16)], opset_version=target)
    def program(x):
        return build(x)

    with quiet_coremltools(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        model = ct.convert(program, minimum_deployment_target=target, skip_model_load=True)
    evaluator = Evaluator(Package(model.get_spec(), b""))
    values = [evaluator.run({})["y"][0].item() for _ in range(3)]
    assert values == [3.0, 4.5, 5.25]
    evaluator.forget()
    assert evaluator.run({})["y"][0].item() == 3.0


def test_a_state_is_of_the_type_and_shape_that_it_declares():
    """Whatever is computed before it is written, and after it is read."""
    target = ct.target.iOS18

    @mb.program(input_specs=[mb.StateTensorSpec((2,), types.fp16)], opset_version=target)
    def program(x):
        after = mb.coreml_update_state(state=x, value=np.array([2049, 1], np.float16))
        return mb.mul(x=after, y=np.float16(1.5), name="y")

    with quiet_coremltools(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        model = ct.convert(program, minimum_deployment_target=target, skip_model_load=True).get_spec()
    function = model.mlProgram.functions["main"]
    for operation in function.block_specializations[function.opset].operations:
        for result in operation.outputs:
            if result.type.tensorType.rank == 1:
                result.type.tensorType.dataType = MIL_FLOAT32
        if operation.type == "const" and operation.outputs[0].type.tensorType.rank == 1:
            tensor = operation.attributes["val"]
            tensor.type.tensorType.dataType = MIL_FLOAT32
            tensor.immediateValue.tensor.floats.values[:] = [2049, 1]
    assert Evaluator(Package(model, b"")).run({})["y"].tolist() == [3072, 1.5], "2049 is 2048 in halves"
    function.inputs[0].type.stateType.wrappedType.tensorType.dimensions[0].constant.size = 3
    with pytest.raises(CheckFailed, match=r"the state x of the ML program has the shape \(2,\), declared as \(3,\)"):
        Evaluator(Package(model, b"")).run({})


def test_shapes_that_are_not_enumerated_are_refused():
    shapes = [(1, 3, 4, 8), (1, 3, 8, 4)]
    sides = (1, 3, get_new_symbol(), get_new_symbol())
    package = saved(
        lambda x: mb.concat(values=[mb.shape(x=x), [7]], axis=0, name="y"),
        (sides, types.fp32),
        inputs=[ct.TensorType("x", ct.EnumeratedShapes(shapes))],
    )
    evaluator = Evaluator(package)
    for shape in shapes:
        assert evaluator.run({"x": torch.ones(shape)})["y"].tolist() == [*shape, 7]
    with pytest.raises(CheckFailed, match=r"\(1, 3, 4, 8\) or \(1, 3, 8, 4\), not \(1, 3, 8, 8\)"):
        evaluator.run({"x": torch.ones(1, 3, 8, 8)})


def test_images_are_of_eight_bits():
    package = saved(
        lambda x: mb.mul(x=x, y=np.float32(1.4), name="y"),
        ((1, 3, 2, 2), types.fp32),
        inputs=[ct.ImageType("x", (1, 3, 2, 2), color_layout=ct.colorlayout.RGB)],
    )
    features = package.model.description
    features.output[0].type.imageType.CopyFrom(features.input[0].type.imageType)
    x = torch.linspace(-0.1, 1.1, 12).reshape(1, 3, 2, 2)
    pixels = np.clip(np.rint(x.numpy() * 255), 0, 255)
    expected = np.clip(np.rint(pixels * np.float32(1.4)), 0, 255) / 255
    close(Evaluator(package).run({"x": x})["y"], expected, 1e-6)


def test_a_result_must_have_the_declared_shape():
    package = saved(lambda x: mb.relu(x=x, name="y"), ((2, 3), types.fp32))
    function = package.model.mlProgram.functions["main"]
    dimensions = function.block_specializations[function.opset].operations[-1].outputs[0].type.tensorType.dimensions
    dimensions[1].constant.size = 4
    with pytest.raises(CheckFailed, match=r"y of the ML program has the shape \(2, 3\), declared as \(2, 4\)"):
        Evaluator(package).run({"x": torch.ones(2, 3)})


def test_what_cannot_be_run_is_told():
    package = saved(lambda x: mb.softmax(x=x, axis=0, name="y"), ((2, 3), types.fp32))
    with pytest.raises(CheckFailed, match="The operator softmax of the ML program is not known"):
        Evaluator(package)
    evaluator = Evaluator(saved(lambda x: mb.relu(x=x, name="y"), ((2, 3), types.fp32)))
    with pytest.raises(CheckFailed, match="needs the input x"):
        evaluator.run({"y": torch.ones(2, 3)})
    with pytest.raises(CheckFailed, match=r"takes x of shape \(2, 3\), not \(3, 2\)"):
        evaluator.run({"x": torch.ones(3, 2)})


# Weights in files


def test_blobs_of_every_type(tmp_path):
    path = tmp_path / "weight.bin"
    writer = BlobWriter(str(path))
    draw = np.random.default_rng(9)
    expected = {
        writer.write_float_data(np.array([1.5, -2], np.float32)): [1.5, -2],
        writer.write_fp16_data(np.array([1.5, -2], np.float16).view(np.uint16)): [1.5, -2],
    }
    for name, kind in (("int8", np.int8), ("uint8", np.uint8), ("int16", np.int16), ("uint16", np.uint16),
                       ("int32", np.int32), ("uint32", np.uint32)):  # fmt: skip
        bounds = np.iinfo(kind)
        values = np.array([bounds.min, 3, bounds.max], kind)
        expected[getattr(writer, f"write_{name}_data")(values)] = values
    for bits in (4, 6):
        values = draw.integers(0, 2**bits, 13).astype(np.uint8)
        expected[getattr(writer, f"write_uint{bits}_data")(values)] = values
    del writer  # closes the file
    weights = path.read_bytes()
    for offset, values in expected.items():
        np.testing.assert_array_equal(blob(weights, offset), values)
    for damaged, offset in ((weights, 0), (weights, 65), (weights[:-100], max(expected)), (b"", 64)):
        with pytest.raises(ValueError, match="byte"):
            blob(damaged, offset)
