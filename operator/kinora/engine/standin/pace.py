"""How long steps and nodes take, and how they are interrupted. No picture and no message is made here."""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

H100_SECONDS_PER_STEP = 5.2  # Wan2.1-I2V-14B 480p 81 frames on one H100, LightX2V's own figure
H100_TOKENS = 32_760  # 832x480, 81 frames
_LOOK_SECONDS = 0.02  # between two looks whether a prompt that is held may go on


class Interrupted(Exception):  # noqa: N818 - it is no error: somebody asked for it
    """POST /interrupt was heard; raised at the next step or node boundary."""


@dataclass
class Pace:
    """Minimum times in seconds. `speed` 1.0 samples as fast as one H100 would with the 14B model; 0 means no wait.

    `hold`: a file that says how many steps a prompt may do; without it, all.
    """

    speed: float = 0.0
    step_seconds: float = 0.0
    node_seconds: float = 0.0
    hold: Path | None = None
    _steps: int = 0  # of the prompt that runs
    _interrupt: threading.Event = field(default_factory=threading.Event)

    def interrupt(self) -> None:
        """Ends the prompt that is running at its next boundary; a wait for a step's time ends now."""
        self._interrupt.set()

    def forget_interrupt(self) -> None:
        """A new prompt starts: an interrupt meant for an earlier one is void."""
        self._interrupt.clear()
        self._steps = 0

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
        while self._is_held() and not self._interrupt.wait(_LOOK_SECONDS):
            pass
        self.boundary()
        self._steps += 1

    def _is_held(self) -> bool:
        try:
            return self.hold is not None and self._steps >= int(self.hold.read_text("ascii") or 0)
        except OSError:  # it is not there: go on
            return False

    def node(self, started: float) -> None:
        """Waits until a node begun at `started` has taken its time; deaf to interrupts, as a busy node is."""
        left = started + self.node_seconds - time.monotonic()
        if left > 0:
            time.sleep(left)
