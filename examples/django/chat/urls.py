"""Addresses of the example."""

from django.contrib.auth.views import LoginView
from django.urls import path, re_path

from chat import views

urlpatterns = [
    path("", views.index),
    path("login/", LoginView.as_view(), name="login"),
    path("token/", views.token),
    re_path(r"^rooms/(?P<room>[\w-]{1,40})/messages/$", views.speak),
    re_path(r"^rooms/(?P<room>[\w-]{1,40})/members/$", views.members),
]
