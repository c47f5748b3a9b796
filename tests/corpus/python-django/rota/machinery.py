"""Whether what surrounds the program works."""

from __future__ import annotations

import os
import pwd
import ssl

from django.contrib.auth.hashers import check_password, identify_hasher, make_password
from django.http import HttpRequest, JsonResponse

from rota.models import Shift


def health(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"shifts": Shift.objects.count()})


def trust(request: HttpRequest) -> JsonResponse:
    context = ssl.create_default_context()
    return JsonResponse({"plenty": context.cert_store_stats()["x509_ca"] > 50})


def user(request: HttpRequest) -> JsonResponse:
    entry = pwd.getpwuid(os.getuid())
    return JsonResponse({"name": entry.pw_name, "home": entry.pw_dir, "root": entry.pw_uid == 0})


def password(request: HttpRequest) -> JsonResponse:
    encoded = make_password("correct horse", salt="battery-staple")
    return JsonResponse(
        {
            "algorithm": identify_hasher(encoded).algorithm,
            "right": check_password("correct horse", encoded),
            "wrong": check_password("wrong horse", encoded),
        }
    )


def postgres(request: HttpRequest) -> JsonResponse:
    """libpq's version, a value quoted by it, and a connection that must be refused cleanly."""
    import psycopg2
    import psycopg2.extensions

    try:
        psycopg2.connect(host="127.0.0.1", port=18229, user="clinic", connect_timeout=2)
    except psycopg2.OperationalError as error:
        refused = "refused" in str(error)
    else:
        refused = False
    quoted = psycopg2.extensions.adapt("O'Brien").getquoted().decode()
    return JsonResponse({"libpq": psycopg2.extensions.libpq_version() // 10000, "quoted": quoted, "refused": refused})
