"""What every part of a catalogue entry is: immutable, and without unknown fields. Nothing else."""

from pydantic import BaseModel, ConfigDict


class Entry(BaseModel):
    """The base of all parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")
