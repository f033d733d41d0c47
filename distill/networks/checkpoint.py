"""Files of weights: one file rebuilds the network. Nothing here ever unpickles code."""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from distill.errors import CheckpointError, ConfigError
from distill.files import replacing
from distill.interfaces import VideoNetwork
from distill.networks import registry

__all__ = ["Checkpoint", "Described", "load", "read", "read_training_state", "save", "save_training_state"]

_FORMAT = "distill-vsr 1"
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    zipfile.BadZipFile,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    struct.error,
)


@dataclass(frozen=True)
class Described:
    """What a file of weights says of itself.

    Attributes:
        name: of the network, as the registry knows it.
        keywords: that the network's class was built with, all that differ from the class's own defaults.
        degradation: that made the low-resolution frames it was trained on; None where a published file does not say.
        provenance: how it came to be: command, versions, data, figures.
    """

    name: str
    keywords: Mapping[str, Any]
    degradation: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def as_text(self) -> dict[str, str]:
        """The same as text by name, for the metadata of exported files; what is not text, as JSON.

        Without what tells of the machine (command line, paths, processor): exported files go to strangers.
        """
        private = ("command", "data", "from", "versions", "teacher")
        told = {name: value for name, value in self.provenance.items() if name not in private}
        return {
            "network": self.name,
            "keywords": json.dumps(self.keywords, sort_keys=True),
            "degradation": self.degradation or "unknown",
            "provenance": json.dumps(told, sort_keys=True),
        }


class Checkpoint(NamedTuple):
    """A network with its weights, in evaluation mode, and what its file says of itself."""

    network: VideoNetwork
    described: Described


def load(path: str | Path) -> VideoNetwork:
    """The network in a file: ours (.safetensors, .pt, a run folder) or a published checkpoint (.pth).

    Raises:
        CheckpointError: the file is missing, truncated, of no network known here, or does not fit its network.
    """
    return read(path).network


def read(path: str | Path) -> Checkpoint:
    """As `load`, with what the file says of itself.

    Raises:
        CheckpointError: see `load`.
    """
    path = _weights_file(Path(path))
    described, tensors = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    try:
        network = registry.find(described.name, typed=False).build(**described.keywords)
    except ConfigError as error:
        raise CheckpointError(f"{path} cannot be opened: {error}") from error
    _fill(network, tensors, path)
    return Checkpoint(network.eval(), described)


def save(path: Path, network: VideoNetwork, described: Described) -> None:
    """Write weights as safetensors, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with replacing(path) as temporary:
        temporary.write_bytes(serialise(tensors, {"distill": json.dumps(_header(described), sort_keys=True)}))


def save_training_state(path: Path, network: VideoNetwork, described: Described, training: Mapping[str, Any]) -> None:
    """Write weights and everything that a resumed run needs, atomically."""
    with replacing(path) as temporary:
        # by way of memory: on a full disk torch.save itself raises what nobody understands
        content = io.BytesIO()
        torch.save({**_header(described), "weights": network.state_dict(), "training": dict(training)}, content)
        temporary.write_bytes(content.getbuffer())


def read_training_state(path: Path) -> tuple[Described, dict[str, Tensor], dict[str, Any]]:
    """What `save_training_state` wrote: description, weights, training state.

    Raises:
        CheckpointError: the file is missing, truncated, or not a training checkpoint of ours.
    """
    content = _unpickle(path)
    if content.get("format") != _FORMAT or "training" not in content:
        raise CheckpointError(f"{path} holds no training state; to resume, give a run's checkpoints/last.pt.")
    return _from_header(content, path), content["weights"], content["training"]


def _header(described: Described) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "network": described.name,
        "keywords": dict(described.keywords),
        "degradation": described.degradation,
        "colour": "RGB 0..1",
        "provenance": dict(described.provenance),
    }


def _from_header(header: Mapping[str, Any], path: Path) -> Described:
    try:
        return Described(header["network"], header["keywords"], header["degradation"], header["provenance"])
    except KeyError as error:
        raise CheckpointError(f"{path} lacks {error} in its description; is it a checkpoint of distill-vsr?") from error


def _weights_file(path: Path) -> Path:
    if path.is_dir():
        inside = path / "student.safetensors"
        if not inside.is_file():
            raise CheckpointError(f"{path} is a folder without student.safetensors; give a finished run or a file.")
        return inside
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}; expected a checkpoint or a run folder.")
    return path


def _read_safetensors(path: Path) -> tuple[Described, dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}); is it complete?") from error
    if "distill" in metadata:
        try:
            return _from_header(json.loads(metadata["distill"]), path), tensors
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"The description in {path} is damaged ({error}); is the file complete?") from error
    return _described_published(tensors, path)


def _read_pickle(path: Path) -> tuple[Described, dict[str, Tensor]]:
    content = _unpickle(path)
    if content.get("format") == _FORMAT:
        return _from_header(content, path), content["weights"]
    wrappers = ("params_ema", "params", "state_dict", "model")
    while inside := next(
        (content[name] for name in wrappers if isinstance(content.get(name), Mapping) and content[name]), None
    ):
        content = inside
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    return _described_published(tensors, path)


def _unpickle(path: Path) -> Mapping[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on foreign pickles, which then fail with a sentence or are read well
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no file {path}.") from error
    except _UNREADABLE as error:
        if pickled := re.search(r"GLOBAL (\S+) was not an allowed", str(error)):
            raise CheckpointError(
                f"{path} holds a pickled {pickled[1]}, and reading that would run code from the file, which is never "
                "done; where you trust the file and have its classes, save its weights alone with "
                "torch.save(model.state_dict(), ...), model being what the file holds, and give that file."
            ) from error
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        if "weights_only" in reason:  # torch's advice to load the code after all
            reason = "it is a pickle that torch.save did not write"
        raise CheckpointError(
            f"{path} cannot be read as a file of weights ({reason}); it may be truncated, or hold code, "
            "which is never loaded."
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a dictionary of tensors.")
    return content


def _described_published(tensors: Mapping[str, Tensor], path: Path) -> tuple[Described, dict[str, Tensor]]:
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors.")
    try:
        name, keywords, weights = registry.recognise(tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return Described(name, keywords, None, {"published file": path.name}), weights


def _fill(network: VideoNetwork, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load strictly, and say in one sentence what does not fit."""
    own = network.state_dict()
    problems = [f"{name} is missing" for name in own if name not in tensors]
    problems += [f"{name} is unexpected" for name in tensors if name not in own]
    problems += [
        f"{name} is {tuple(tensors[name].shape)} where {tuple(tensor.shape)} is needed"
        for name, tensor in own.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{path} does not fit its network: {'; '.join(problems[:3])}{more}.")
    network.load_state_dict(tensors)
