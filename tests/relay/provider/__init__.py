"""A simulated provider of models that bills every request by its documentation, at the worst that this allows.

It is the relay's opponent in tests/relay/test_conservation.py and imports nothing of the product: it parses what it
received by itself, counts it by the providers' documented rules, and keeps a ledger of what each request costs.
"""
