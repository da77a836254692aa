"""Which frames each window of a long edit renders. Pure arithmetic; the nodes are vace.py's."""

from dataclasses import dataclass

from kinora.catalogue.model import Windows


@dataclass(frozen=True, slots=True)
class Window:
    """Frames `start` to `start + frames` of the result; the first `kept` of them are the end of the window before."""

    start: int
    frames: int
    kept: int

    @property
    def fresh(self) -> int:
        """How many of its frames the result takes from it."""
        return self.frames - self.kept


def spans(frames: int, windows: Windows | None) -> tuple[Window, ...]:
    """The windows that `frames` (4n+1) are rendered in: one where they fit, else as many as it takes.

    Every window has 4n+1 frames, and each frame of the result is fresh in exactly one.
    """
    if windows is None or frames <= windows.frames:
        return (Window(0, frames, 0),)
    found = [Window(0, windows.frames, 0)]
    while (end := found[-1].start + found[-1].frames) < frames:
        start = end - windows.overlap
        found.append(Window(start, min(windows.frames, frames - start), windows.overlap))
    return tuple(found)
