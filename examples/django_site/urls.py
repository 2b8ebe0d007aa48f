"""The shop's addresses."""

from django.urls import path
from shop import views

urlpatterns = [
    path("", views.overview),
    path("users", views.sign_up),
    path("orders", views.buy),
    path("payments", views.hear_of_payment),
    path("exports", views.ask_for_export),
    path("exports/<int:export_id>", views.fetch_export),
]
