"""Fill an empty rota with a week to look at."""

from datetime import datetime
from zoneinfo import ZoneInfo

from django.core.management.base import BaseCommand

from rota.models import Nurse, Shift

WEEK = [("Amara", "#206a5d", 2, "Children"), ("Jürg", "#8d3b72", 5, "Emergency"), ("Noémie", "#31525b", 6, "Children")]


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: object, **options: object) -> None:
        if Shift.objects.exists():
            return
        for name, colour, day, ward in WEEK:
            nurse, _ = Nurse.objects.get_or_create(name=name, defaults={"colour": colour})
            starts = datetime(2024, 8, day, 7, 30, tzinfo=ZoneInfo("Europe/Zurich"))
            Shift.objects.create(nurse=nurse, starts=starts, ward=ward)
        self.stdout.write(f"rota_sample: {Shift.objects.count()} shifts")
