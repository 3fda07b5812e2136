"""Lets these tests import what lies beside them, and the pipeline's scripted engine."""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE), str(_HERE.parent / "pipeline")]
