"""Lets the tests of this folder import the fakes that lie beside them (`fake_engine`.

`fake_session`).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
