"""Fault injection: the served product under load with one fault on purpose, and a check of the books afterwards."""
