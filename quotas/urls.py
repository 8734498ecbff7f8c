from __future__ import annotations

from django.urls import path

from quotas import statement_views, views

urlpatterns = [
    path("me/credits/", views.credits_page),
    path("me/credits.csv", views.credits_csv),
    path("me/statement/", statement_views.own_statement),
    path("me/statement.csv", statement_views.own_statement_csv),
    path("space/users/<int:number>/statement/", statement_views.member_statement),
    path("space/users/<int:number>/statement.csv", statement_views.member_statement_csv),
]
