from django.urls import path

from rota import views

urlpatterns = [
    path("", views.rota, name="rota"),
    path("badge/<int:number>.png", views.badge, name="badge"),
]
