"""Where things lie that tests read."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FROZEN = ROOT / "tests" / "parity" / "frozen"
SHARED = ROOT.parent / "shared"
GOLDEN = SHARED / "golden"
CLIPS = SHARED / "data" / "clips"
VID4 = SHARED / "data" / "vid4"
