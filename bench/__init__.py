"""Measurements: ``make bench``."""

import sys
from pathlib import Path

# As a program the collection's own code is found here.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "collections"))
