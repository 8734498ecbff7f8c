"""Others' software against the relay, as people run it: python -m benchmarks.compat

- The official OpenAI SDK for Node.js as a client, on the demo upstream.
- LiteLLM's proxy as an upstream of ours, with its mock models; what it answers straight is what must come through us.
- LiteLLM's proxy as a client of ours.

Each check is a line; what failed says why. The exit code is 1 when anything did.
"""
