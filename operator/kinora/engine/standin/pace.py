"""How long steps and nodes take, and how they are interrupted. No picture and no message is made here."""

import threading
import time
from dataclasses import dataclass, field

H100_SECONDS_PER_STEP = 5.2  # Wan2.1-I2V-14B 480p 81 frames on one H100, LightX2V's own figure
H100_TOKENS = 32_760  # 832x480, 81 frames


class Interrupted(Exception):  # noqa: N818 - it is no error: somebody asked for it
    """POST /interrupt was heard; raised at the next step or node boundary."""


@dataclass
class Pace:
    """Minimum times in seconds. `speed` 1.0 samples as fast as one H100 would with the 14B model; 0 means no wait."""

    speed: float = 0.0
    step_seconds: float = 0.0
    node_seconds: float = 0.0
    _interrupt: threading.Event = field(default_factory=threading.Event)

    def interrupt(self) -> None:
        """Ends the prompt that is running at its next boundary; a wait for a step's time ends now."""
        self._interrupt.set()

    def forget_interrupt(self) -> None:
        """A new prompt starts: an interrupt meant for an earlier one is void."""
        self._interrupt.clear()

    def boundary(self) -> None:
        """Raises Interrupted if it was asked for."""
        if self._interrupt.is_set():
            self._interrupt.clear()
            raise Interrupted

    def step(self, started: float, tokens: int) -> None:
        """Waits until a sampling step over `tokens`, begun at `started` (monotonic), has taken its time."""
        wanted = self.step_seconds
        if not wanted and self.speed > 0:
            wanted = H100_SECONDS_PER_STEP * tokens / H100_TOKENS / self.speed
        left = started + wanted - time.monotonic()
        if left > 0:
            self._interrupt.wait(left)
        self.boundary()

    def node(self, started: float) -> None:
        """Waits until a node begun at `started` has taken its time; deaf to interrupts, as a busy node is."""
        left = started + self.node_seconds - time.monotonic()
        if left > 0:
            time.sleep(left)
