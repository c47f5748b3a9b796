"""A staff handbook: Markdown pages with YAML front matter, served as HTML, YAML and Atom."""

from flask import Flask, render_template

from handbook import diagnostics, views
from handbook.library import Library


def create_app() -> Flask:
    app = Flask(__name__)
    app.config["LIBRARY"] = Library(app.root_path + "/../pages")
    app.register_blueprint(views.blueprint)
    app.register_blueprint(diagnostics.blueprint, url_prefix="/status")

    @app.errorhandler(404)
    def missing(error: Exception) -> tuple[str, int]:
        return render_template("missing.html", library=app.config["LIBRARY"]), 404

    return app
