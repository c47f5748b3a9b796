"""The service: `python -m growth.serve`."""

from __future__ import annotations

import os
import pwd
import ssl

import joblib
import numpy as np
import pandas as pd
from flask import Flask, abort, jsonify, render_template, request
from waitress import serve

from growth import FEATURES, MODEL
from growth.readings import daily, load

app = Flask(__name__)
# Unpickling imports scikit-learn's classes by the names in the file.
model = joblib.load(MODEL)


@app.get("/")
def index() -> str:
    return render_template("days.html", days=daily(), zone="America/Santiago")


@app.get("/days/<path:zone>")
def days(zone: str):
    try:
        table = daily(zone)
    except (KeyError, ValueError):
        abort(404)
    return app.response_class(table.to_json(orient="table"), mimetype="application/json")


@app.get("/forecast")
def forecast():
    row = pd.DataFrame([{name: request.args.get(name, 0, float) for name in FEATURES}])
    return jsonify({"yield": round(float(model.predict(row)[0]), 2)})


@app.get("/quality")
def quality():
    """How well the model does, with what only this route loads."""
    from scipy import stats
    from sklearn.metrics import mean_absolute_error
    from sklearn.model_selection import cross_val_score

    readings = load()
    predicted = model.predict(readings[FEATURES])
    folds = cross_val_score(model, readings[FEATURES], readings["yield"], cv=3)
    return jsonify(
        good=bool(mean_absolute_error(readings["yield"], predicted) < 1),
        folds=len(folds),
        correlated=bool(stats.spearmanr(readings["yield"], predicted).statistic > 0.9),
    )


@app.get("/spectrum")
def spectrum():
    """The strongest period in the light, in hours: LAPACK detrends, FFT counts."""
    light = load()["light"].to_numpy()
    hours = np.arange(light.size)
    slope, *_ = np.linalg.lstsq(np.vstack([hours, np.ones_like(hours)]).T, light, rcond=None)
    power = np.abs(np.fft.rfft(light - np.polyval(slope, hours))) ** 2
    return jsonify(period=round(light.size / int(power.argmax())))


@app.get("/machinery")
def machinery():
    entry = pwd.getpwuid(os.getuid())
    trusted = ssl.create_default_context().cert_store_stats()["x509_ca"]
    return jsonify(user=entry.pw_name, home=os.path.expanduser("~"), trusts_plenty=trusted > 50)


if __name__ == "__main__":
    serve(app, host="0.0.0.0", port=int(os.environ.get("PORT", "18230")), threads=2)
