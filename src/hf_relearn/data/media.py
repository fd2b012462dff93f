"""Read a clip's WAV and FLV bytes so that every defect comes out under its own name."""

import io
from collections.abc import Iterator

import av
import soundfile
from PIL import Image

from hf_relearn.models.processing_sources import open_container, wav_chunks

TRUNCATED_AUDIO = "truncated audio"
TRUNCATED_VIDEO = "truncated video"
EMPTY_AUDIO = "audio of zero length"
UNDECODABLE_AUDIO = "undecodable audio"
UNDECODABLE_VIDEO = "undecodable video"
NO_FRAMES = "no video frames"

JPEG_QUALITY = 90
_UNKNOWN_LENGTH = 0xFFFFFFFF  # what a program that cannot seek back writes as the length of a chunk
_FLV_AUDIO_VIDEO_SCRIPT = (8, 9, 18)


class UnreadableMediaError(ValueError):
    """A file cannot be used; the message is one of this module's reasons."""


def check_wav(data: bytes) -> None:
    """Check that a WAV file is whole and holds at least one sample.

    The length is compared by hand because decoders return the samples that are left of a cut file without a word.

    Args:
        data: The bytes of the file.

    Raises:
        UnreadableMediaError: `TRUNCATED_AUDIO` when the header promises more than there is, `EMPTY_AUDIO` when there
            are no samples, `UNDECODABLE_AUDIO` when it is not a sound file or a kind that libsndfile does not read.
    """
    if not data:
        raise UnreadableMediaError(EMPTY_AUDIO)
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        _check_wav_chunks(data)
    try:
        samples, _ = soundfile.read(io.BytesIO(data), dtype="int16")
    except soundfile.LibsndfileError as error:
        raise UnreadableMediaError(UNDECODABLE_AUDIO) from error
    if len(samples) == 0:
        raise UnreadableMediaError(EMPTY_AUDIO)


def _check_wav_chunks(data: bytes) -> None:
    for name, size, position in wav_chunks(data):
        if name == b"data":
            if size != _UNKNOWN_LENGTH and position + size > len(data):
                raise UnreadableMediaError(TRUNCATED_AUDIO)
            return
    raise UnreadableMediaError(TRUNCATED_AUDIO)  # it ends before its samples begin


def check_flv(data: bytes) -> None:
    """Check that an FLV container does not end inside one of its tags, as a file that was cut does.

    The stated duration is not looked at: recorders fill it in as they like, and a whole file must not be refused.

    Args:
        data: The bytes of the file. A file that is not FLV passes: the decoder is then the judge.

    Raises:
        UnreadableMediaError: `TRUNCATED_VIDEO`.
    """
    if data[:3] != b"FLV":
        return
    if len(data) < 9:
        raise UnreadableMediaError(TRUNCATED_VIDEO)
    position = int.from_bytes(data[5:9], "big") + 4
    while position < len(data):
        if position + 11 > len(data):
            raise UnreadableMediaError(TRUNCATED_VIDEO)
        kind = data[position] & 0x1F
        if kind not in _FLV_AUDIO_VIDEO_SCRIPT:
            return  # not the layout that is known here
        size = int.from_bytes(data[position + 1 : position + 4], "big")
        body = position + 11
        if body + size > len(data):
            raise UnreadableMediaError(TRUNCATED_VIDEO)
        position = body + size + 4


def sample_frames(data: bytes, frames_per_second: float, max_side: int) -> list[bytes]:
    """Decode a video and keep frames at a steady rate as JPEG.

    Of every interval of `1 / frames_per_second` seconds the first frame at or after its middle is kept; of a clip that
    ends before the first middle its last frame, so that every readable clip gives at least one.

    Args:
        data: The bytes of the video file.
        frames_per_second: Rate of the kept frames, above 0. A slower video gives each of its frames once.
        max_side: Longest side of a frame in pixels; larger frames are scaled down, smaller ones stay.

    Returns:
        At least one JPEG file (RGB), in the order of time.

    Raises:
        UnreadableMediaError: `TRUNCATED_VIDEO`, `NO_FRAMES` or `UNDECODABLE_VIDEO`.
    """
    if not data:
        raise UnreadableMediaError(NO_FRAMES)
    check_flv(data)
    kept = []
    last = None
    wanted = 0
    try:
        for seconds, frame in _decode(data):
            last = frame
            if seconds * frames_per_second >= wanted + 0.5:
                kept.append(_to_jpeg(frame, max_side))
                wanted = int(seconds * frames_per_second - 0.5) + 1
        if last is None:
            raise UnreadableMediaError(NO_FRAMES)
        return kept or [_to_jpeg(last, max_side)]
    except av.EOFError as error:  # a header, and nothing after it
        raise UnreadableMediaError(NO_FRAMES) from error
    except av.FFmpegError as error:
        raise UnreadableMediaError(UNDECODABLE_VIDEO) from error


def _decode(data: bytes) -> Iterator[tuple[float, av.VideoFrame]]:
    with open_container(io.BytesIO(data)) as container:
        if not container.streams.video:
            return
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # the clips themselves are spread over processes
        rate = float(stream.average_rate or 25)
        first = None
        for index, frame in enumerate(container.decode(stream)):
            seconds = frame.time if frame.time is not None else index / rate
            first = seconds if first is None else first
            yield seconds - first, frame


def _to_jpeg(frame: av.VideoFrame, max_side: int) -> bytes:
    image = frame.to_image()
    image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
