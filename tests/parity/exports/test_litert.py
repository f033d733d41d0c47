"""What LiteRT alone does: weights and features in 8 bits."""

from __future__ import annotations

import pytest

from distill.errors import ConfigError
from export.delivery.parity import check_parity
from export.interfaces import Order
from tests.stand_ins.checks import exported
from tests.stand_ins.networks import METADATA, moving_clip, thin_mobile

SIZE = (24, 40)


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True], ids=["windowed", "streaming"])
def test_eight_bits(streaming, tmp_path):
    for package in ("litert_torch", "ai_edge_litert", "ai_edge_quantizer"):
        pytest.importorskip(package, exc_type=ImportError)
    network = thin_mobile()
    clips = [moving_clip(7, 32, 48).flip(3), moving_clip(7, 24, 40)]
    order = {"sizes": (SIZE,), "streaming": streaming, "precision": "int8", "clips": clips}
    file = exported(network, tmp_path / "student.tflite", "litert", **order)
    assert check_parity(network, file, [moving_clip(4, *SIZE)]).psnr_db > 35
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file.path))
    kinds = [each["op_name"] for each in interpreter._get_ops_details()]
    assert kinds.count("QUANTIZE") >= 1
    ends = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    assert {each["dtype"].__name__ for each in ends} == {"float32"}
    assert all(each["shape"][-1] in (3, 6, 16, 32, 48) for each in ends), "tensors are channels-last"


def test_eight_bits_need_footage(tmp_path):
    from export.to_litert.conversion import write

    order = Order(thin_mobile(), METADATA, "int8", sizes=(SIZE,))
    with pytest.raises(ConfigError, match="int8 needs real frames"):
        write(order, tmp_path / "student.tflite")
