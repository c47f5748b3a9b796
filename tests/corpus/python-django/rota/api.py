"""The rota as JSON, by Django REST framework."""

from django.urls import include, path
from rest_framework import routers, serializers, viewsets

from rota.models import Shift


class ShiftSerializer(serializers.ModelSerializer):
    nurse = serializers.StringRelatedField()

    class Meta:
        model = Shift
        fields = ("id", "starts", "hours", "ward", "nurse")


class ShiftViewSet(viewsets.ReadOnlyModelViewSet):
    queryset = Shift.objects.select_related("nurse")
    serializer_class = ShiftSerializer


router = routers.DefaultRouter()
router.register("shifts", ShiftViewSet)

urlpatterns = [path("", include(router.urls))]
