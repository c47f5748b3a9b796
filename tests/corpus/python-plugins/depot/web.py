"""The routes."""

from __future__ import annotations

import os
import pwd
import ssl
from datetime import datetime
from zoneinfo import ZoneInfo

from babel.dates import format_datetime
from bottle import Bottle, HTTPResponse, abort, response

from depot import SAMPLES, settings
from depot.registry import Registry


def application() -> Bottle:
    app = Bottle()
    registry = Registry()
    files = {path.name: path for path in sorted(SAMPLES.iterdir())}

    @app.get("/")
    @app.get("/as/<exporter>")
    def listing(exporter: str = "page") -> str:
        if exporter not in settings()["exporters"]:
            abort(404, f"no exporter {exporter!r}")
        module = __import__(f"depot.exporters.{exporter}", fromlist=["write"])
        response.content_type = module.TYPE
        return module.write({name: registry.describe(path) for name, path in files.items()})

    @app.get("/files/<name>")
    def describe(name: str) -> dict[str, str]:
        path = files.get(name) or abort(404, f"no file {name!r}")
        return {"name": name, "about": registry.describe(path)}

    @app.get("/files/<name>/crc")
    def checksum(name: str) -> dict[str, str]:
        from depot.checksum import crc32

        path = files.get(name) or abort(404, f"no file {name!r}")
        return {"crc32": crc32(path)}

    @app.get("/clock")
    def clock() -> dict[str, str]:
        """Midsummer noon in the depot's zone, in its language: Babel's data are a pickle a language."""
        serve = settings()["serve"]
        moment = datetime(2024, 6, 21, 12, tzinfo=ZoneInfo("UTC"))
        return {"clock": format_datetime(moment, "d MMMM HH:mm zzzz", ZoneInfo(serve["zone"]), serve["locale"])}

    @app.get("/machinery")
    def machinery() -> HTTPResponse | dict[str, object]:
        entry = pwd.getpwuid(os.getuid())
        trusted = ssl.create_default_context().cert_store_stats()["x509_ca"]
        return {"user": entry.pw_name, "gecos": entry.pw_gecos, "trusts_plenty": trusted > 50}

    return app
