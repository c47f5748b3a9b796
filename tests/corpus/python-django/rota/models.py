"""Who works when."""

from django.db import models
from django.utils.translation import gettext_lazy as _


class Nurse(models.Model):
    name = models.CharField(_("name"), max_length=80, unique=True)
    colour = models.CharField(_("colour"), max_length=7, default="#446688")

    class Meta:
        ordering = ("name",)
        verbose_name = _("nurse")
        verbose_name_plural = _("nurses")

    def __str__(self) -> str:
        return self.name


class Shift(models.Model):
    nurse = models.ForeignKey(Nurse, on_delete=models.CASCADE, related_name="shifts")
    starts = models.DateTimeField(_("starts"))
    hours = models.PositiveSmallIntegerField(_("hours"), default=8)
    ward = models.CharField(_("ward"), max_length=40)

    class Meta:
        ordering = ("starts", "ward")
        verbose_name = _("shift")
        verbose_name_plural = _("shifts")

    def __str__(self) -> str:
        return f"{self.nurse}, {self.ward}"
