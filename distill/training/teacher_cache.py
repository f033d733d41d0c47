"""What a teacher restored of the crops of a training, stored on disk for the next run over the same crops."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from distill.errors import CheckFailed, ConfigError
from distill.files import replacing
from distill.interfaces import Upsampled, VideoNetwork

__all__ = ["TeacherCache"]

_CHECKED = 3
_TOLERANCE = 0.02  # of the largest value; half precision alone costs 0.0005, other hardware in bfloat16 about 0.01
_RESERVE = 2 << 30  # bytes of the disk that are left free

_FIELDS = ("frames", "hr_features", "lr_features")

log = logging.getLogger("distill")


class TeacherCache:
    """A teacher that looks up what it restored before.

    Entries are keyed by the teacher's weights and settings, by the precision it computes in (autocast or not), and by
    the pixels of the low-resolution clip, and so by everything that made them: clip, frames, crop, turning and
    flipping, degradation. Runs of one seed and recipe draw the same crops, whatever their method, and find each
    other's entries; another seed draws others.

    What is wanted is stored in half precision, each field of `Upsampled` in a file of its own, so a method that needs
    frames alone finds those of any other. The result is rounded to half precision before it is stored as well, so
    training is the same whether an entry was found or not. The first entries that are found are computed anew and
    compared. Seven frames of a 96-pixel crop take 0.4 MB, 8.3 MB more with F^SR of 64 channels, 0.5 MB with F^LR of
    64: 2,000 steps of a batch of 1 with F^SR are 17 GB. Where the disk is nearly full, or does not take an entry, a
    warning says so and nothing more is written; the run goes on. Nothing is ever removed.

    Args:
        folder: where entries lie, those of other teachers too; several runs may share it.
        teacher: frozen, in evaluation mode.

    Raises:
        ConfigError: the folder is none and cannot be made.
    """

    def __init__(self, folder: Path, teacher: VideoNetwork) -> None:
        _check_folder(folder)
        self.teacher = teacher
        self.folder = folder / _digest(teacher)
        self.hits = self.misses = self.checked = 0
        self.writing = True

    def __call__(self, low: Tensor, fields: frozenset[str]) -> Upsampled:
        """What the teacher makes of clips (B, T, 3, h, w), float32.

        Args:
            low: the clips.
            fields: of `Upsampled`, which are wanted; frames always are. The others come back as None.

        Raises:
            CheckFailed: an entry is not what the teacher makes now.
        """
        wanted = [name for name in _FIELDS if name == "frames" or name in fields]
        keys = [_key(clip) for clip in low]
        stored = self._read(keys, wanted)
        if stored is not None:
            self.hits += len(keys)
            stored = {name: tensor.to(low.device) for name, tensor in stored.items()}
            if self.checked < _CHECKED:
                self._check(stored, self.teacher(low))
            return _upsampled(stored)
        self.misses += len(keys)
        computed = {name: tensor for name, tensor in _present(self.teacher(low)).items() if name in wanted}
        halves = {name: tensor.half() for name, tensor in computed.items()}
        if not all(bool(half.isfinite().all()) for half in halves.values()):  # beyond 65504: not to be stored so
            return _upsampled({name: tensor.float() for name, tensor in computed.items()})
        self._write(keys, halves)
        return _upsampled({name: half.float() for name, half in halves.items()})

    def _check(self, stored: dict[str, Tensor], restored: Upsampled) -> None:
        computed = _present(restored)
        for name, tensor in stored.items():
            expected = computed[name].float()
            difference = (expected - tensor).abs().max() if expected.shape == tensor.shape else torch.tensor(torch.inf)
            if not difference <= _TOLERANCE * expected.abs().max():
                raise CheckFailed(
                    f"The teacher cache {self.folder} holds {name} that differ from the teacher's by "
                    f"{float(difference):.3g}; remove it, since it was made by other code or is damaged."
                )
        self.checked += 1

    def _path(self, key: str, field: str) -> Path:
        return self.folder / key[:2] / f"{key}-{field}.safetensors"

    def _read(self, keys: Sequence[str], wanted: Sequence[str]) -> dict[str, Tensor] | None:
        found: dict[str, list[Tensor]] = {name: [] for name in wanted}
        try:
            for key in keys:
                for name in wanted:
                    with safe_open(self._path(key, name), framework="pt") as file:
                        found[name].append(file.get_tensor(name).float())  # autocast refuses to stack halves
        except (OSError, SafetensorError):  # none yet, or damaged: it is computed anew
            return None
        if any(tensor.shape != tensors[0].shape for tensors in found.values() for tensor in tensors):
            return None
        return {name: torch.stack(tensors) for name, tensors in found.items()}

    def _write(self, keys: Sequence[str], halves: dict[str, Tensor]) -> None:
        if not self.writing:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self.folder).free < _RESERVE:
                raise OSError(errno.ENOSPC, f"less than {_RESERVE / (1 << 30):.3g} GB of the disk are free")
            for name, tensor in halves.items():
                for key, half in zip(keys, tensor.cpu(), strict=True):
                    with replacing(self._path(key, name)) as temporary:
                        temporary.write_bytes(serialise({name: half.contiguous()}))
        except OSError as error:
            self.writing = False
            log.warning(
                "the teacher cache %s takes up no more (%s); the run goes on without it", self.folder, error.strerror
            )


def _key(clip: Tensor) -> str:
    """Of a clip (T, 3, h, w) in the precision that the teacher would see it in now."""
    kind = clip.device.type
    precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    pixels = clip.detach().float().cpu().contiguous().numpy()
    key = hashlib.blake2b(pixels.tobytes(), digest_size=16)
    key.update(f"{pixels.shape} {precision}".encode())
    return key.hexdigest()


def _present(restored: Upsampled) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in zip(_FIELDS, restored, strict=True) if tensor is not None}


def _upsampled(fields: dict[str, Tensor]) -> Upsampled:
    return Upsampled(fields["frames"], fields.get("hr_features"), fields.get("lr_features"))


def _check_folder(folder: Path) -> None:
    """Refuse now, without writing anything, what could never be a folder."""
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not existing.is_dir() or (existing != folder and not os.access(existing, os.W_OK | os.X_OK)):
        raise ConfigError(
            f"The teacher cache {folder} cannot be made, since {existing} is not a folder that can be written to; "
            "set distillation.cache to another."
        )


def _digest(network: VideoNetwork) -> str:
    """Of the weights, and of the plain settings of every module: some (a kind of flow, a window) have no weights."""
    digest = hashlib.sha256(type(network).__name__.encode())
    for place, module in network.named_modules():
        settings = {name: value for name, value in vars(module).items() if _is_setting(name, value)}
        digest.update(f"{place} {type(module).__name__} {sorted(settings.items())}".encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def _is_setting(name: str, value: Any) -> bool:
    if name.startswith("_") or name == "training":
        return False
    if isinstance(value, tuple):
        return all(_is_setting(name, each) for each in value)
    return value is None or isinstance(value, bool | int | float | str)
