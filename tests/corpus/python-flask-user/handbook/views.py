"""What readers see."""

from __future__ import annotations

import io

import yaml
from flask import Blueprint, Response, abort, current_app, render_template

blueprint = Blueprint("handbook", __name__)


def page_or_404(slug: str):
    return current_app.config["LIBRARY"].get(slug) or abort(404)


@blueprint.get("/")
def index() -> str:
    return render_template("index.html", library=current_app.config["LIBRARY"])


@blueprint.get("/pages/<slug>")
def page(slug: str) -> str:
    return render_template("page.html", page=page_or_404(slug))


@blueprint.get("/pages/<slug>.yaml")
def metadata(slug: str) -> Response:
    page = page_or_404(slug)
    stream = io.StringIO()
    yaml.dump(
        {"title": page.title, "tags": list(page.tags), "updated": page.updated.date()},
        stream,
        Dumper=yaml.CSafeDumper,
        sort_keys=True,
    )
    return Response(stream.getvalue(), mimetype="application/yaml")


@blueprint.get("/feed.atom")
def feed() -> Response:
    # feedgen brings lxml, which is slow to load: only readers of the feed pay for it.
    from handbook.feed import atom

    return Response(atom(current_app.config["LIBRARY"]), mimetype="application/atom+xml")
