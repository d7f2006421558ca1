"""Addresses of the example."""

from django.contrib.auth.views import LoginView
from django.urls import path, re_path

from chat import views
from metered_sync.contrib.django import token_view

urlpatterns = [
    path("", views.index),
    path("login/", LoginView.as_view(), name="login"),
    path("token/", token_view),
    re_path(r"^rooms/(?P<room>[\w-]{1,40})/events/$", views.events),
    re_path(r"^rooms/(?P<room>[\w-]{1,40})/messages/$", views.speak),
    re_path(r"^rooms/(?P<room>[\w-]{1,40})/members/$", views.members),
]
