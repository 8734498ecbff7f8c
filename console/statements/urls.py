from __future__ import annotations

from django.urls import path

from console.statements import views

urlpatterns = [
    path("me/statement/", views.own_statement),
    path("me/statement.csv", views.own_statement_csv),
    path("space/users/<int:number>/statement/", views.member_statement),
    path("space/users/<int:number>/statement.csv", views.member_statement_csv),
]
