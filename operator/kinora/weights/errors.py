"""What quantizing cost, from a histogram of 16-bit codes: nothing is computed twice for a number that comes twice."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinora.weights.float8 import MAX, values

_CLAMPED = MAX + 16  # above it, the nearest number would be the next after the largest


@dataclass(frozen=True, slots=True)
class Errors:
    """Relative errors of the numbers that are not 0: |quantized - number| / |number|."""

    elements: int = 0
    nonzero: int = 0
    maximum: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    "Sum of squared errors, and of squared numbers: their ratio's root is what a matrix product sees."
    power: float = 0.0
    vanished: int = 0
    "Numbers that became 0."
    saturated: int = 0
    "Numbers too large for the format, which became its largest."
    not_numbers: int = 0

    @property
    def mean(self) -> float:
        """Mean relative error."""
        return self.total / self.nonzero if self.nonzero else 0.0

    @property
    def rms(self) -> float:
        """Root of the error's power over the numbers' power."""
        return float(np.sqrt(self.squares / self.power)) if self.power else 0.0

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(
            self.elements + other.elements,
            self.nonzero + other.nonzero,
            max(self.maximum, other.maximum),
            self.total + other.total,
            self.squares + other.squares,
            self.power + other.power,
            self.vanished + other.vanished,
            self.saturated + other.saturated,
            self.not_numbers + other.not_numbers,
        )


def errors_of(
    counts: NDArray[np.int64], numbers: NDArray[np.float32], codes: NDArray[np.uint8], scale: float
) -> Errors:
    """`counts[i]` times the number `numbers[i]` became `codes[i]`, to be multiplied by `scale`."""
    used = np.flatnonzero(counts)
    count, number = counts[used], numbers[used].astype(np.float64)
    made = values()[codes[used]].astype(np.float64) * scale
    finite = np.isfinite(number)
    real = finite & (number != 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(real, np.abs(made - number) / np.abs(number), 0.0)
    weight = np.where(real, count, 0)
    return Errors(
        elements=int(count.sum()),
        nonzero=int(weight.sum()),
        maximum=float(relative.max(initial=0.0)),
        total=float((relative * weight).sum()),
        squares=float((np.where(real, made - number, 0.0) ** 2 * weight).sum()),
        power=float((np.where(real, number, 0.0) ** 2 * weight).sum()),
        vanished=int(count[real & (made == 0)].sum()),
        saturated=int(count[np.abs(number) > _CLAMPED * scale].sum()),
        not_numbers=int(count[np.isnan(number)].sum()),
    )
