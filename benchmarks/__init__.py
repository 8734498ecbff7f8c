"""Benchmarks. Each prints medians with their spread, and ratios to a peer or to a limit.

    python -m benchmarks.peers      install the peers in var/peers/
    python -m benchmarks.relay      requests and streams per second, latency
    python -m benchmarks.streams    thousands of slow streams at once: lateness, memory
    python -m benchmarks.hostile    what hostile bodies cost everybody else
    python -m benchmarks.charging   holds and settlements per second against pgbench
    python -m benchmarks.compat     other projects' clients and servers against the relay

Run them from the project's root with the Python of its .venv. docs/performance.md has the results.
"""
