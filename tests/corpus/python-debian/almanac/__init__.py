"""An almanac: the sun over some observatories. `FLASK_APP=almanac flask run`."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import click
from flask import Flask, Response, abort, jsonify, render_template, request

from almanac import sun

PLACES = {
    name: sun.Place(name, **values)
    for name, values in json.loads((Path(__file__).parent / "places.json").read_text(encoding="utf-8")).items()
}
MIDSUMMER = date(2024, 6, 21)


def create_app() -> Flask:
    app = Flask(__name__)

    def place_or_404(name: str) -> sun.Place:
        return PLACES.get(name) or abort(404, f"No observatory {name}")

    @app.get("/")
    def index() -> str:
        return render_template("index.html", days=[sun.day(place, MIDSUMMER) for place in PLACES.values()])

    @app.get("/<name>.json")
    def as_json(name: str) -> Response:
        return jsonify(sun.day(place_or_404(name), MIDSUMMER).as_dict(request.args.get("locale", "en")))

    @app.get("/<name>.svg")
    def as_chart(name: str) -> Response:
        from almanac import chart

        return Response(chart.year(place_or_404(name), 2024, "svg"), mimetype="image/svg+xml")

    @app.get("/<name>.png")
    def as_picture(name: str) -> Response:
        from almanac import chart

        return Response(chart.year(place_or_404(name), 2024, "png"), mimetype="image/png")

    @app.get("/places.kml")
    def as_kml() -> Response:
        from almanac import kml

        return Response(kml.document(PLACES.values()), mimetype="application/vnd.google-earth.kml+xml")

    @app.get("/machinery")
    def machinery() -> Response:
        from almanac import machinery

        return jsonify(machinery.describe())

    @app.cli.command("sunrise")
    @click.argument("name")
    def sunrise(name: str) -> None:
        """Print when the sun rises at an observatory on midsummer's day."""
        if name not in PLACES:
            raise click.ClickException(f"no observatory {name}")
        click.echo(sun.day(PLACES[name], MIDSUMMER).rises.strftime("%H:%M %Z"))

    return app
