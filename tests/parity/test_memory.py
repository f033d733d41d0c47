from __future__ import annotations

import torch

from distill.losses.memory import ConvLSTM


def test_convlstm_is_the_reference_cell(golden):
    reference = golden("convlstm_cell")
    memory = ConvLSTM(reference["config"]["input_dim"], reference["config"]["hidden_dim"])
    memory.load_state_dict({k.removeprefix("cell_list.0."): v for k, v in reference["state_dict"].items()})
    with torch.no_grad():
        hidden, cell = memory(reference["input"])
        halfway, _ = memory(reference["input"][:, :4])
    torch.testing.assert_close(hidden, reference["output"]["h_last"], rtol=0, atol=1e-5)
    torch.testing.assert_close(cell, reference["output"]["c_last"], rtol=0, atol=1e-5)
    torch.testing.assert_close(halfway, reference["output"]["h_all"][:, 3], rtol=0, atol=1e-5)
