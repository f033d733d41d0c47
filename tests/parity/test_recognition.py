"""Every published layout is recognised by one network and no other."""

from __future__ import annotations

import json

import pytest
import torch

from distill.errors import CheckpointError, ConfigError
from distill.networks import registry
from tests.places import GOLDEN

LAYOUTS = {
    "d3dnet_keys.json": "D3DNet",
    "d3dnet_small.pt": "D3DNet",
    "edvr_l_vimeo_7f_keys.json": "EDVR",
    "edvr_m_keys.json": "EDVR",
    "edvr_small_5f.pt": "EDVR",
    "edvr_small_wotsa.pt": "EDVR",
    "mmagic_edvr_m_keys.json": "EDVR",
    "fastdvdnet_keys.json": "FastDVDnetDenoiser",
    "fastdvdnet_small_denoise.pt": "FastDVDnetDenoiser",
    "rbpn_7f_x4_keys.json": "RBPN",
    "rbpn_small_x4_3f.pt": "RBPN",
    "sofvsr_small_align1.pt": "SOFVSR",
    "sofvsr_x4_keys.json": "SOFVSR",
    "starnet_small_v1.pt": "STARnet",
    "starnet_small_v4.pt": "STARnet",
    "starnet_v4_ref_keys.json": "STARnet",
    "stinet_keys.json": "STINet",
    "stinet_small.pt": "STINet",
    "stvun_keys.json": "STVUN",
    "stvun_small_spatial.pt": "STVUN",
    "vdsr_small.pt": "VDSR",
    "vespcn_juheonyi_mf2_y.pt": "VESPCN",
    "vespcn_loseall_x4_keys.json": "VESPCNLoSealL",
    "vsrnet_5f_y.pt": "VSRNet",
    "tmnet_keys.json": None,  # not built here, and not to be taken for STINet or EDVR
    "zsm_keys.json": None,
}


def published(name):
    path = GOLDEN / name
    if not path.is_file():
        pytest.skip(f"the reference {name} is not beside this checkout")
    if path.suffix == ".pt":
        return torch.load(path, weights_only=True)["state_dict"]
    shapes = json.loads(path.read_text())["keys"]
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


@pytest.mark.parametrize(("name", "network"), LAYOUTS.items())
def test_one_network_and_no_other(name, network):
    state = published(name)
    networks = dict.fromkeys(entry.network for entry in registry.entries())
    state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    takers = [each.__name__ for each in networks if each.recognise(state) is not None]
    assert takers == ([network] if network else [])


@pytest.mark.parametrize("name", [name for name, network in LAYOUTS.items() if network])
def test_half_a_file_is_refused_in_a_sentence(name):
    """Any part of a published file is either of no network or of one that says what is missing; never a bare error."""
    keys = list(state := published(name))
    for part in (keys[: len(keys) // 2], keys[len(keys) // 2 :], keys[::2], keys[1:], keys[:-1]):
        told, found = "", None
        try:
            found = registry.recognise({key: state[key] for key in part})
        except CheckpointError as error:
            told = str(error)
        assert "\n" not in told
        if found is None:
            continue
        with torch.device("meta"):
            network = registry.find(found.name).build(**found.keywords)
        assert set(network.state_dict()) != set(found.weights), "a file without some of its tensors was taken for whole"


def shapes_of(found):
    """What a network of these keywords has to be given, or nothing where there can be none."""
    try:
        with torch.device("meta"):
            network = registry.find(found.name).build(**found.keywords)
    except ConfigError:  # as which `checkpoint.read` refuses the file
        return None
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


LARGE = {"edvr_l_vimeo_7f_keys.json", "edvr_m_keys.json", "mmagic_edvr_m_keys.json", "stinet_keys.json"}
"""A network is built for each of their hundreds of tensors; smaller files have the same layouts."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in LARGE else ())
        for name, network in LAYOUTS.items()
        if network
    ],
)
def test_a_tensor_of_another_shape_is_refused(name):
    """Whichever tensor tells a size: of one dimension, empty, or of as many dimensions as it should have and empty."""
    state = {key.removeprefix("module."): tensor for key, tensor in published(name).items()}
    (network,) = {entry.network for entry in registry.entries() if entry.network.__name__ == LAYOUTS[name]}
    whole = network.recognise(state)
    whole_shapes = shapes_of(whole)
    assert whole_shapes == {key: tensor.shape for key, tensor in whole.weights.items()}
    for key, tensor in state.items():
        for shape in {(1,), (0,), (0,) * tensor.ndim} - {tuple(tensor.shape)}:
            wrong = torch.empty(shape, device="meta")
            try:
                # not the registry's, which makes a sentence of any error
                found = network.recognise({**state, key: wrong})
            except CheckpointError:
                continue
            if found is None or not any(each is wrong for each in found.weights.values()):
                continue  # of no network then, or a tensor that this one has no use for
            needed = whole_shapes if found[:2] == whole[:2] else shapes_of(found)
            assert needed != {each: given.shape for each, given in found.weights.items()}, (key, shape)
