"""Train the model: `python -m growth.train` writes model.joblib."""

from __future__ import annotations

import joblib
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler

from growth import FEATURES, MODEL
from growth.readings import load


def pipeline():
    columns = ColumnTransformer(
        [("hour", SplineTransformer(n_knots=6, extrapolation="periodic"), ["hour"])], remainder=StandardScaler()
    )
    return make_pipeline(columns, GradientBoostingRegressor(n_estimators=120, max_depth=3, random_state=7))


if __name__ == "__main__":
    readings = load()
    model = pipeline().fit(readings[FEATURES], readings["yield"])
    joblib.dump(model, MODEL, compress=3)
    print(f"trained on {len(readings)} readings, R² {model.score(readings[FEATURES], readings['yield']):.3f}")
