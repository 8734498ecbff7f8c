"""Compatibility of the relay with other software: python -m benchmarks.compat

- The official OpenAI SDK for Node.js as a client, on the demo upstream.
- LiteLLM's proxy as an upstream, with its mock models: its direct responses must equal those through the relay.
- LiteLLM's proxy as a client.

Each check prints a line, with the reason if it failed. The exit code is 1 if any check failed.
"""
