"""What the engine says of this pod's prompts, kept for whoever listens. It asks nobody, waits for nobody, fails nobody.

The event pump tells it of each prompt and each event, in passing: one dictionary and one append a listener. A listener
that does not keep up loses steps in between, never a node.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from kinora.engine.base import PromptEvent
from kinora.engine.live import Backlog, Caught, Course, Ended, Left, LiveEvent, live_event

log = logging.getLogger(__name__)


class Listener:
    """One who listens to one prompt. It begins with all that has happened so far."""

    def __init__(self, course: Course) -> None:
        self._backlog = Backlog([*course.story(), Caught(), *([Ended()] if course.ended else [])])
        self._wake = asyncio.Event()
        self._wake.set()
        self.dropped = 0

    def put(self, event: LiveEvent) -> None:
        """Add one event; at once."""
        self.dropped += not self._backlog.put(event)
        self._wake.set()

    async def take(self) -> list[LiveEvent]:
        """All events that there are, at least one. After Ended or Left there are no more."""
        await self._wake.wait()
        self._wake.clear()
        return self._backlog.take()


class Live:
    """The prompts that this pod has submitted and not left, each with its course and its listeners."""

    def __init__(self) -> None:
        self._courses: dict[str, Course] = {}
        self._listeners: dict[str, list[Listener]] = {}

    def __len__(self) -> int:
        return sum(len(listeners) for listeners in self._listeners.values())

    def open(self, prompt_id: str) -> None:
        """A prompt is followed from now on."""
        self._courses.setdefault(prompt_id, Course())

    def note(self, event: PromptEvent) -> None:
        """One event of the engine. Whatever is wrong with it, the render goes on."""
        try:
            self._note(event.prompt_id, event)
        except Exception:
            log.exception("an event could not be passed on to listeners")

    def close(self, prompt_id: str) -> None:
        """It is followed no more. Those who listen, and have not heard how it ended, hear no more."""
        self._courses.pop(prompt_id, None)
        for listener in self._listeners.get(prompt_id, ()):
            listener.put(Left())

    @contextmanager
    def listen(self, prompt_id: str) -> Iterator[Listener | None]:
        """A listener of that prompt; None: it is not rendered here, or not any more."""
        course = self._courses.get(prompt_id)
        if course is None:
            yield None
            return
        listener = Listener(course)
        self._listeners.setdefault(prompt_id, []).append(listener)
        try:
            yield listener
        finally:
            left = self._listeners[prompt_id]
            left.remove(listener)
            if not left:
                del self._listeners[prompt_id]

    def _note(self, prompt_id: str, event: PromptEvent) -> None:
        course, told = self._courses.get(prompt_id), live_event(event)
        if course is not None and told is not None and course.note(told):
            for listener in self._listeners.get(prompt_id, ()):
                listener.put(told)
