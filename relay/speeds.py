"""How fast models usually generate, to estimate what one made of the time before its answer was cut off."""

from __future__ import annotations

from collections import defaultdict, deque
from statistics import median

MAX_ANSWERS = 31
# Of a model that has not answered yet.
DEFAULT_TOKENS_PER_S = 60.0
# The speed of shorter answers says more about the network than about the model.
MIN_TOKENS = 16


class Speeds:
    """Tokens a second of each model's last answers, hidden reasoning included."""

    def __init__(self) -> None:
        self._last: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=MAX_ANSWERS))

    def note(self, model: str, *, output_tokens: int, duration_ms: int) -> None:
        if output_tokens >= MIN_TOKENS and duration_ms > 0:
            self._last[model].append(output_tokens * 1000 / duration_ms)

    def usual_tokens_per_s(self, model: str) -> float:
        speeds = self._last.get(model)
        return median(speeds) if speeds else DEFAULT_TOKENS_PER_S
