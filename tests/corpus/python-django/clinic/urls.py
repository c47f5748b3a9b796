"""Routes."""

from django.conf.urls.i18n import i18n_patterns
from django.contrib import admin
from django.urls import include, path

from rota import machinery

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", include("rota.api")),
    path("health/", machinery.health),
    path("machinery/trust/", machinery.trust),
    path("machinery/postgres/", machinery.postgres),
    path("machinery/user/", machinery.user),
    path("machinery/password/", machinery.password),
]
urlpatterns += i18n_patterns(path("", include("rota.urls")), prefix_default_language=False)
