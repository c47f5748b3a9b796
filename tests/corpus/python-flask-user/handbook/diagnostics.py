"""What the operators ask: does the machinery around the program work?"""

from __future__ import annotations

import os
import pwd
import ssl
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import requests
import requests.certs
from flask import Blueprint, abort, jsonify, request

blueprint = Blueprint("status", __name__)


@blueprint.get("/trust")
def trust():
    """Both stores of certificate authorities: the system's, and the one that requests uses."""
    stores = {}
    for name, context in {
        "system": ssl.create_default_context(),
        "requests": ssl.create_default_context(cafile=requests.certs.where()),
    }.items():
        subjects = [dict(pair for rdn in ca["subject"] for pair in rdn) for ca in context.get_ca_certs()]
        stores[name] = {
            "plenty": len(subjects) > 50,
            "lets_encrypt": any(subject.get("commonName") == "ISRG Root X1" for subject in subjects),
        }
    return jsonify(stores)


@blueprint.get("/user")
def user():
    entry = pwd.getpwuid(os.getuid())
    return jsonify(name=entry.pw_name, home=entry.pw_dir, expanded=os.path.expanduser("~"))


@blueprint.get("/noon")
def noon():
    """When it is noon UTC on midsummer's day, what does a clock in the zone show?"""
    try:
        zone = ZoneInfo(request.args.get("zone", "Europe/Lisbon"))
    except (ZoneInfoNotFoundError, ValueError):
        abort(404)
    moment = datetime(2024, 6, 21, 12, tzinfo=ZoneInfo("UTC")).astimezone(zone)
    return jsonify(zone=zone.key, clock=moment.strftime("%H:%M"), name=moment.tzname())


@blueprint.get("/upstream")
def upstream():
    """Ask a port that nobody serves; the answer must be a clean refusal."""
    try:
        requests.get("http://127.0.0.1:18209/", timeout=2)
    except requests.ConnectionError as error:
        return jsonify(reached=False, error=type(error).__name__), 502
    return jsonify(reached=True)
