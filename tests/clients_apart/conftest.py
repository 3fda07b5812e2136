"""Lets these tests import what lies beside them, the daemon's rig and the scripted engine."""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).parent
_TESTS = _HERE.parent
sys.path[:0] = [str(_HERE), str(_TESTS / "daemon"), str(_TESTS / "pipeline")]
