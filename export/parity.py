"""Proof that an exported file computes what the PyTorch network computes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distill.errors import CheckFailed, InputError
from distill.interfaces import WindowNetwork, windows
from distill.layers import crop_to, pad_to_multiple
from export.artifact import read_metadata
from export.runtime import open_session

__all__ = ["OnnxNetwork", "Parity", "onnx_parity"]


class OnnxNetwork:
    """An exported file as a function of windows, run by ONNX Runtime on this host's CPU.

    Args:
        path: a file that `export_onnx` wrote.
        threads: that compute together; None leaves the choice to the runtime.

    Attributes:
        metadata: what stands in the file.
        scale: spatial factor.
        window: frames seen.
        size: (height, width) of the frames where the file fixes them, else None.
        providers: what the runtime says it runs on.

    Raises:
        InputError: the file is missing, is not ONNX, was not written by this project or does not load.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self.metadata = read_metadata(path)
        try:
            self._session = open_session(path, threads)
        except Exception as error:  # the runtime's exceptions have no other base
            reason = str(error).splitlines()[0]
            raise InputError(f"ONNX Runtime cannot load {path} ({reason}): export it again.") from error
        self.scale, self.window = int(self.metadata["scale"]), int(self.metadata["window"])
        self.providers: list[str] = self._session.get_providers()
        height, width = self._session.get_inputs()[0].shape[-2:]  # names where they are free
        self.size = (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def __call__(self, window: Tensor) -> Tensor:
        """Restore the middle frame: (1, window, 3, h, w) in [0, 1], any size -> (1, 3, scale*h, scale*w).

        Raises:
            InputError: the shape is not what the file takes.
        """
        height, width = window.shape[-2:]
        frame = torch.from_numpy(self.run(self.fitted(window)))
        return crop_to(frame, height * self.scale, width * self.scale)

    def fitted(self, window: Tensor) -> npt.NDArray[np.float32]:
        """The window as the graph takes it: padded to `size_multiple` by repeating the last row and column.

        Raises:
            InputError: the shape is not what the file takes.
        """
        shape, size = tuple(window.shape), self.size or tuple(window.shape[-2:])
        if shape != (1, self.window, 3, *size):
            wanted = (1, self.window, 3, *(self.size or ("height", "width")))
            raise InputError(f"The window has shape {shape}, but the file takes {wanted}.".replace("'", ""))
        multiple = int(self.metadata.get("size_multiple", 1))
        return pad_to_multiple(window.detach().cpu().float(), multiple).contiguous().numpy()

    def run(self, window: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The bare graph, for a window that `fitted` made: this is what latency means.

        Raises:
            CheckFailed: the runtime cannot compute it, as where an export froze another size into the graph.
        """
        try:
            (frame,) = self._session.run(None, {"window": window})
        except Exception as error:  # as above
            reason = str(error).splitlines()[0]
            raise CheckFailed(f"ONNX Runtime fails on a window of shape {window.shape}: {reason}") from error
        return frame  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Parity:
    """How far a file is from its network.

    Attributes:
        max_abs: largest difference of any value, in units of the colour range [0, 1].
        psnr_db: of the file's frames against the network's, RGB, nothing cropped, not clamped; infinite when equal.
        sizes: (height, width) of the low-resolution frames compared.
    """

    max_abs: float
    psnr_db: float
    sizes: tuple[tuple[int, int], ...]


def onnx_parity(network: WindowNetwork, path: Path, clips: Iterable[Tensor], *, tolerance: float = 1e-4) -> Parity:
    """Compare a file with its network on real frames, whole and cropped to another aspect.

    The middle frame of every clip is restored by both. Where the file leaves the size free, the clip's own size
    and a crop of odd sides are compared, so that padding is too; where it does not, the file's size alone.

    Args:
        network: what was exported, on any device, in any mode; it is not changed.
        path: the file.
        clips: low-resolution clips (T, 3, h, w), RGB in [0, 1].
        tolerance: largest difference allowed.

    Raises:
        InputError: the file cannot be used, or a clip is smaller than the size that the file fixes.
        CheckFailed: the difference is larger.
    """
    reference = copy.deepcopy(network).cpu().eval()
    exported = OnnxNetwork(path)
    differences, sizes = [], []
    for clip in clips:
        middle = windows(clip[None], network.window)[:, clip.shape[0] // 2].cpu().float()
        for window in _crops(middle, exported.size):
            with torch.inference_mode():
                expected = reference.reconstruct(window).frames
            differences.append((exported(window) - expected).flatten())
            sizes.append((window.shape[-2], window.shape[-1]))
    if not differences:
        raise ValueError("parity needs at least one clip")
    difference = torch.cat(differences).double()
    max_abs, error = difference.abs().max().item(), difference.square().mean().item()
    parity = Parity(max_abs, math.inf if error == 0 else -10 * math.log10(error), tuple(dict.fromkeys(sizes)))
    if not max_abs <= tolerance:  # also when it is not a number
        raise CheckFailed(
            f"{path} differs from the PyTorch network by {max_abs:.1e}, but {tolerance:.0e} is allowed: "
            "check that both hold the same weights, and do not ship this file."
        )
    return parity


def _crops(window: Tensor, size: tuple[int, int] | None) -> Iterator[Tensor]:
    height, width = window.shape[-2:]
    if size is None:
        yield window
        yield crop_to(window, height * 2 // 3 | 1, width // 2 | 1)  # odd, so it must be padded
        return
    if height < size[0] or width < size[1]:
        raise InputError(
            f"The file takes frames of {size[0]}x{size[1]}, but the clip's have {height}x{width}: "
            "compare on a larger clip."
        )
    yield crop_to(window, *size)
