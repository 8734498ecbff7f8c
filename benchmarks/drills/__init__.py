"""Fault drills: the served product under load, with one thing broken on purpose, and the books checked afterwards."""
