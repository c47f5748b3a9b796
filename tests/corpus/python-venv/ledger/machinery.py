"""Whether what surrounds the program works: trust, clocks, users, the event loop, the network."""

from __future__ import annotations

import asyncio
import os
import pwd
import ssl
from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import httpx
from fastapi import APIRouter, HTTPException, Query

from ledger.settings import settings

router = APIRouter()


@router.get("/trust")
async def trust() -> dict[str, object]:
    context = ssl.create_default_context()
    names = {dict(pair for rdn in ca["subject"] for pair in rdn).get("commonName") for ca in context.get_ca_certs()}
    return {"plenty": len(names) > 50, "isrg_root_x1": "ISRG Root X1" in names, "minimum": context.minimum_version.name}


@router.get("/clock")
async def clock(zone: Annotated[str, Query()] = settings.zone) -> dict[str, str]:
    """The clock in a zone at noon UTC on 1 July 2024."""
    try:
        local = datetime(2024, 7, 1, 12, tzinfo=ZoneInfo("UTC")).astimezone(ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise HTTPException(404, f"no zone {zone!r}") from error
    return {"zone": zone, "clock": local.isoformat()}


@router.get("/process")
async def process() -> dict[str, str]:
    loop = asyncio.get_running_loop()
    return {"user": pwd.getpwuid(os.getuid()).pw_name, "loop": type(loop).__module__}


@router.get("/name")
async def name() -> dict[str, bool]:
    """Names are resolved by the C library, through nsswitch.conf and /etc/hosts."""
    found = await asyncio.get_running_loop().getaddrinfo("localhost", settings.port)
    return {"resolved": bool(found)}


@router.get("/bank", status_code=502)
async def bank() -> dict[str, str]:
    """Ask a bank that is not there: the client must fail cleanly."""
    async with httpx.AsyncClient(timeout=2) as client:
        try:
            await client.get("http://127.0.0.1:18219/rates")
        except httpx.ConnectError as error:
            return {"error": type(error).__name__}
    raise HTTPException(500, "somebody answered")
