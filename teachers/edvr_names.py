"""EDVR's published checkpoints: three layouts of names, rewritten onto ours, and the sizes that the tensors tell."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from distill.errors import CheckpointError
from distill.interfaces import Published
from distill.networks.tensor_names import demand, stack_length, under_tail

__all__ = ["recognise_edvr"]

State = Mapping[str, Tensor]

# xinntao/EDVR, 2019: that code's tAtt_2 embeds the centre frame, so 1 and 2 change places
_NAMES_2019 = [
    (r"^fea_L(\d)_conv(\d)\.", r"conv_l\1_\2."),
    (r"^pcd_align\.L(\d)_offset_conv(\d)\.", r"pcd_align.offset_conv\2.l\1."),
    (r"^pcd_align\.L(\d)_dcnpack\.", r"pcd_align.dcn_pack.l\1."),
    (r"^pcd_align\.L(\d)_fea_conv\.", r"pcd_align.feat_conv.l\1."),
    (r"\.conv_offset_mask\.", ".conv_offset."),
    (r"^tsa_fusion\.(weight|bias)$", r"fusion.\1"),
    (r"^tsa_fusion\.tAtt_2\.", "fusion.temporal_attn1."),
    (r"^tsa_fusion\.tAtt_1\.", "fusion.temporal_attn2."),
    (r"^tsa_fusion\.fea_fusion\.", "fusion.feat_fusion."),
    (r"^tsa_fusion\.sAtt_L(\d)\.", r"fusion.spatial_attn_l\1."),
    (r"^tsa_fusion\.sAtt_add_(\d)\.", r"fusion.spatial_attn_add\1."),
    (r"^tsa_fusion\.sAtt_(\d)\.", r"fusion.spatial_attn\1."),
    (r"^recon_trunk\.", "reconstruction."),
    (r"^HRconv\.", "conv_hr."),
]
# mmediting and mmagic wrap a convolution and its activation in a module whose part is called "conv"
_NAMES_MMAGIC = [
    (r"^pcd_alignment\.", "pcd_align."),
    (r"\.conv\.(weight|bias)$", r".\1"),
    (r"^feat_l(\d)_conv(\d)\.", r"conv_l\1_\2."),
    (r"^upsample(\d)\.upsample_conv\.", r"upconv\1."),
]


def recognise_edvr(state: State) -> Published | None:
    """See `VideoNetwork.recognise`."""
    state = {_in_basicsr_names(name.removeprefix("generator.")): tensor for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if tensor.ndim > 0}  # mmagic adds a step counter
    return _published(state) if "pcd_align.cas_dcnpack.weight" in state else None


def _in_basicsr_names(name: str) -> str:
    for pattern, replacement in _NAMES_MMAGIC + _NAMES_2019:
        name = re.sub(pattern, replacement, name)
    return name


def _published(state: State) -> Published:
    """From BasicSR's names."""
    if any(name.startswith(("predeblur.", "pre_deblur.", "conv_1x1.")) for name in state):
        raise CheckpointError(
            "This EDVR has a pre-deblurring module, which is for blurred input; expected a super-resolution variant."
        )
    attention = any(re.match(r"fusion\.\w+\.", name) for name in state)
    fusion, offset = "fusion.feat_fusion.weight" if attention else "fusion.weight", "pcd_align.dcn_pack.l1.conv_offset"
    demand(state, "EDVR", dict.fromkeys(("conv_first.weight", f"{offset}.weight", fusion, "conv_last.weight"), 4))
    channels = state["conv_first.weight"].shape[0]
    keywords = {
        "window": state[fusion].shape[1] // channels,
        "channels": channels,
        "offset_groups": state[f"{offset}.weight"].shape[0] // 27,
        "extract_blocks": stack_length(state, "feature_extraction"),
        "reconstruct_blocks": stack_length(state, "reconstruction"),
        "attention": attention,
    }
    name = "edvr-l" if channels >= 128 else "edvr-m" if channels >= 64 else "edvr-s"
    return Published(name, {**keywords, "base": "bilinear"}, under_tail(state))
