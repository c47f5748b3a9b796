"""What the ward sees."""

from __future__ import annotations

import io

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render

from rota.models import Nurse, Shift


def rota(request: HttpRequest) -> HttpResponse:
    return render(request, "rota/rota.html", {"shifts": Shift.objects.select_related("nurse")})


def badge(request: HttpRequest, number: int) -> HttpResponse:
    """A nurse's badge as PNG; `?size=1` answers with its size in words."""
    # Pillow and its libraries are loaded when the first badge is drawn.
    from PIL import Image, ImageDraw, ImageFont

    nurse = get_object_or_404(Nurse, pk=number)
    image = Image.new("RGB", (240, 80), nurse.colour)
    ImageDraw.Draw(image).text((12, 28), nurse.name, font=ImageFont.load_default(20), fill="white")
    stream = io.BytesIO()
    image.save(stream, "PNG")
    if "size" in request.GET:
        again = Image.open(io.BytesIO(stream.getvalue()))
        return HttpResponse(f"{again.format} {again.width}x{again.height}", content_type="text/plain")
    return HttpResponse(stream.getvalue(), content_type="image/png")
