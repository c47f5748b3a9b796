"""Forecast the yield of a greenhouse from what its sensors saw."""

from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
READINGS = HOME / "data" / "readings.csv"
MODEL = HOME / "model.joblib"
FEATURES = ["light", "heat", "water", "hour"]
