"""The shop's API, without its pages."""

from django.urls import include, path

urlpatterns = [path("api/", include("oscarapi.urls"))]
