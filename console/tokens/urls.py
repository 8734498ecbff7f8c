from __future__ import annotations

from django.urls import path

from console.tokens import views

urlpatterns = [
    path("console/tokens/", views.token_list),
    path("console/tokens/add/", views.token_add),
    path("console/tokens/<int:key_number>/edit/", views.token_edit),
    path("console/tokens/<int:key_number>/status/", views.token_status),
    path("console/tokens/<int:key_number>/rotate/", views.token_rotate),
    path("console/tokens/<int:key_number>/delete/", views.token_delete),
]
