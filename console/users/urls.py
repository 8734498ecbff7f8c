from __future__ import annotations

from django.urls import path

from console.users import views

urlpatterns = [
    path("space/users/", views.user_list),
    path("space/users/add/", views.user_add),
    path("space/users/<int:number>/edit/", views.user_edit),
    path("space/users/<int:number>/preview/", views.user_preview),
    path("space/users/<int:number>/status/", views.user_status),
    path("space/users/<int:number>/delete/", views.user_delete),
    path("space/users/<int:number>/two-factor/reset/", views.user_second_factor_reset),
    path("space/users/<int:number>/keys/<int:key_number>/revoke/", views.user_key_revoke),
    path("space/security/", views.security),
]
