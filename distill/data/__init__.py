"""Footage in, training samples out: clips, degradation, crops, and the clips that are shipped."""

from __future__ import annotations

from distill.data.clips import Clip, FrameFolder
from distill.data.crops import Batch, CropSampler
from distill.data.degradation import DEGRADATIONS, bicubic_upsample, degrade
from distill.data.layouts import find_clips
from distill.data.samples import sample_clips
from distill.data.shots import cuts, shots
from distill.data.video import VideoClip

__all__ = [
    "DEGRADATIONS",
    "Batch",
    "Clip",
    "CropSampler",
    "FrameFolder",
    "VideoClip",
    "bicubic_upsample",
    "cuts",
    "degrade",
    "find_clips",
    "sample_clips",
    "shots",
]
