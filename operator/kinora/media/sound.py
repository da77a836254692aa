"""The sound of a source for a delivered video: its AAC as it is where that fits, else mixed to stereo and encoded once.

Times are seconds from the source's first video frame on, so that sound and picture stay together however a file counts.
What a source lacks before, between or after is silence. A few packets are held at a time. Runs in the media child.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO, TypeAlias

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from kinora.media.frames import span
from kinora.media.info import InputError, MediaError
from kinora.media.inspect import VIDEO_FORMATS, decode, open_video

Samples: TypeAlias = npt.NDArray[np.float32]
Packet: TypeAlias = "av.packet.Packet[Any]"

RATE, CHANNELS, BIT_RATE = 48_000, 2, 192_000
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # what every player takes
_GAP = 0.1  # seconds by which a source's times may be off before they are believed
_CHUNK = 4096  # samples of silence at a time
_MAX_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Heard:
    """Seconds of sound in a file; 0: none."""

    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return {"seconds": self.seconds}


def hear(file: BinaryIO) -> Heard:
    """How much sound a video brings with it; all of it is decoded. Raises MediaError for sound that cannot be."""
    with open_video(file) as (container, _):
        if not container.streams.audio:
            return Heard(0.0)
    with _opened(file) as (container, stream):
        count = sum(samples.shape[1] for _, samples in _decoded(container, stream))
    return Heard(round(count / RATE, 6))


class Track:
    """The sound of one result: `copied` says whether a source's own packets are taken."""

    def __init__(self, inputs: Mapping[str, BinaryIO], sounds: Sequence[Mapping[str, Any]], plan: Mapping[str, Any]):
        self._inputs = inputs
        self._sounds = [_Placed.of(sound, inputs[sound["input"]], plan["fps"]) for sound in sounds]
        self._seconds = plan["frames"] / plan["output_fps"]
        self.copied = self._can_be_copied()
        self._waiting: Packet | None = None
        self._packets: Iterator[Packet] = iter(())

    def join(self, output: av.container.OutputContainer) -> None:
        """Add the stream to a container."""
        self._packets = self._copied(output) if self.copied else self._encoded(output)

    def until(self, seconds: float) -> Iterator[Packet]:
        """The packets that begin before this time of the result."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                return
            if packet.pts is not None and packet.time_base and packet.pts * packet.time_base > seconds:
                self._waiting = packet
                return
            yield packet

    def _can_be_copied(self) -> bool:
        if len(self._sounds) != 1 or self._sounds[0].at != 0 or self._sounds[0].start != 0:
            return False
        with _opened(self._inputs[self._sounds[0].input]) as (container, stream):
            context = stream.codec_context
            sound = (
                context.name == "aac"
                and context.profile == "LC"
                and stream.rate in _AAC_RATES
                and 1 <= context.channels <= CHANNELS
                and bool(context.extradata)
            )
            return sound and all(packet.pts is not None for packet in container.demux(stream) if packet.size)

    def _copied(self, output: av.container.OutputContainer) -> Iterator[Packet]:
        placed = self._sounds[0]
        with _opened(self._inputs[placed.input]) as (_, stream):
            target = output.add_stream_from_template(stream)
            target.metadata.clear()
        return self._copies(placed, target)

    def _copies(self, placed: "_Placed", target: Any) -> Iterator[Packet]:
        with _opened(self._inputs[placed.input]) as (container, stream):
            base = stream.time_base or Fraction(1, RATE)
            zero = round(placed.first / base)
            for packet in container.demux(stream):
                if not packet.size or packet.pts is None:
                    continue
                packet.pts = packet.dts = packet.pts - zero
                length = float((packet.duration or 1024 / (stream.rate or RATE) / base) * base)
                at = float(packet.pts * base)
                if at + length / 2 > self._seconds:
                    return
                if at < -1.5 * length:  # one before the first warms the decoder up; the container's edit list hides it
                    continue
                packet.time_base, packet.stream = base, target
                yield packet

    def _encoded(self, output: av.container.OutputContainer) -> Iterator[Packet]:
        stream: Any = output.add_stream("aac", rate=RATE)
        stream.codec_context.layout, stream.codec_context.bit_rate = "stereo", BIT_RATE
        return self._encodings(stream)

    def _encodings(self, stream: Any) -> Iterator[Packet]:
        at = 0
        for samples in _exactly(self._mixed(), round(self._seconds * RATE)):
            frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
            at += samples.shape[1]
            yield from stream.encode(frame)
        yield from stream.encode(None)

    def _mixed(self) -> Iterator[Samples]:
        """The sounds in their places, silence between them."""
        done = 0
        for placed in sorted(self._sounds, key=lambda one: one.at):
            begin = round(placed.at * RATE)
            yield from _silence(begin - done)
            count = round((placed.at + placed.seconds) * RATE) - max(begin, done)
            yield from _exactly(placed.samples(self._inputs[placed.input]), count)
            done = max(begin, done) + count


@dataclass(frozen=True, slots=True)
class _Placed:
    """A sound: `first` is the time of its video's first frame in the file, `start` what is left out from there."""

    input: str
    at: float
    seconds: float
    first: float
    start: float

    @classmethod
    def of(cls, sound: Mapping[str, Any], file: BinaryIO, fps: float) -> "_Placed":
        if sound["anchor"] != "End":
            return cls(sound["input"], sound["at"], sound["seconds"], _first_time(file), 0.0)
        first, last = span(file)
        start = max(last - first - (sound["seconds"] - 1 / fps), 0.0)
        return cls(sound["input"], sound["at"], sound["seconds"], first, start)

    def samples(self, file: BinaryIO) -> Iterator[Samples]:
        """From its start on; what is missing at the beginning or between is silence."""
        position = 0  # samples given so far
        with _opened(file) as (container, stream):
            for time, decoded in _decoded(container, stream):
                begin = position if time is None else round((time - self.first - self.start) * RATE)
                if begin - position > _GAP * RATE or (position == 0 and begin > 0):
                    yield from _silence(min(begin - position, int(_MAX_SECONDS * RATE)))
                    position = begin
                samples = decoded[:, -begin:] if position == 0 and begin < 0 else decoded
                if samples.shape[1]:
                    yield samples
                position += samples.shape[1]


def _first_time(file: BinaryIO) -> float:
    with open_video(file) as (container, stream):
        for frame in decode(container, stream):
            return float(frame.time or 0.0)
    raise MediaError("it holds no frame that can be decoded")


@contextmanager
def _opened(file: BinaryIO) -> Iterator[tuple[InputContainer, AudioStream]]:
    """The container and its first audio stream. Raises MediaError, for decoding inside it too."""
    file.seek(0)
    options = {"format_whitelist": VIDEO_FORMATS, "protocol_whitelist": "none"}
    try:
        with av.open(file, mode="r", options=options) as container:
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise MediaError("no decoder knows its audio stream")
            stream.codec_context.thread_count = 1
            yield container, stream
    except (av.error.FFmpegError, OSError, ValueError, OverflowError, MemoryError, EOFError) as error:
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise MediaError(f"its audio cannot be decoded: {str(words)[:120]}") from None


def _decoded(container: InputContainer, stream: AudioStream) -> Iterator[tuple[float | None, Samples]]:
    """Time (where it is known) and samples [2, n] of each piece, at 48,000 a second."""
    resampler: av.AudioResampler | None = None
    shape: object = None
    for frame in container.decode(stream):
        if not frame.samples or frame.sample_rate <= 0:
            continue
        known = (frame.format.name, frame.layout.name, frame.sample_rate)
        time = None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
        if resampler is None or known != shape:  # some streams change in the middle
            resampler, shape = av.AudioResampler(format="fltp", layout="stereo", rate=RATE), known
        frame.pts = None
        for piece in resampler.resample(frame):
            yield time, np.asarray(piece.to_ndarray(), np.float32)
            time = None
    if resampler is not None:
        for piece in resampler.resample(None):
            yield None, np.asarray(piece.to_ndarray(), np.float32)


def _silence(count: int) -> Iterator[Samples]:
    while count > 0:
        step = min(count, _CHUNK)
        yield np.zeros((CHANNELS, step), np.float32)
        count -= step


def _exactly(pieces: Iterator[Samples], count: int) -> Iterator[Samples]:
    """`count` samples: cut off, or silence after the end."""
    for piece in pieces:
        if count <= 0:
            return
        yield piece[:, :count]
        count -= min(count, piece.shape[1])
    yield from _silence(count)


def track(inputs: Mapping[str, BinaryIO], plan: Mapping[str, Any]) -> Track | None:
    """The track of a finishing plan; None without sounds. Raises InputError."""
    if not plan["sounds"]:
        return None
    try:
        return Track(inputs, plan["sounds"], plan)
    except MediaError as error:
        raise InputError(plan["sounds"][0]["input"], str(error)) from None
