"""Programs that measure: each prints ratios with their spread, and the peer or the limit beside ours.

    python -m benchmarks.peers      install what is measured beside us, below var/peers/
    python -m benchmarks.relay      requests and streams a second, latency
    python -m benchmarks.charging   holds and settlements a second against pgbench
    python -m benchmarks.compat     others' clients and servers against the relay

Run them from the project's root with the Python of its .venv. docs/performance.md has what they said.
"""
