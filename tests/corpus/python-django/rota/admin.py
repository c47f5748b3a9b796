from django.contrib import admin

from rota.models import Nurse, Shift


@admin.register(Shift)
class ShiftAdmin(admin.ModelAdmin):
    list_display = ("starts", "hours", "ward", "nurse")
    list_filter = ("ward",)


admin.site.register(Nurse)
