"""Opens hostile media with little memory left, and prints what each one came to: name -> (message, kB taken)."""

import io
import json
import resource
import struct
import sys
import wave
import zlib

import numpy as np
import soundfile

from hf_relearn.models.processing_images import ImageInput, load_frames
from hf_relearn.models.processing_media import load_audio, load_image

ROOM = 300_000_000  # bytes above what the imports took
PLAIN = {"image_processor_type": "CLIPImageProcessorPil", "size": {"shortest_edge": 224}, "do_center_crop": False}


def wav(rate: int, size: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(rate)
        sound.writeframes(bytes(size))
    return file.getvalue()


def gif(width: int, height: int) -> bytes:
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return b"GIF89a" + screen + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00;"


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width // 8 + 2) * height) if width * height < 10**7 else b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def long_flac() -> bytes:
    """27 minutes of silence."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", samplerate=44100, channels=1, format="FLAC") as sound:
        for _ in range(1600):
            sound.write(np.zeros(44100, np.int16))
    return file.getvalue()


SDP = b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 5004 RTP/AVP 0\r\n"
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/hostname\n#EXT-X-ENDLIST\n"
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


def first_three(count: int) -> list[int]:
    return [0, 0, count - 1]


FLAC = long_flac()
CASES = {
    "wav at 8 Hz": lambda: load_audio(wav(8, 100_000), 16000),
    "wav at 1 Hz": lambda: load_audio(wav(1, 1_000_000), 16000),
    "wav at 1 Hz, cut": lambda: load_audio(wav(1, 1_000_000), 16000, 10.0),
    "wav at 2 GHz": lambda: load_audio(wav(2_000_000_000, 1000), 16000),
    "array at 10^12 Hz": lambda: load_audio({"array": np.zeros(100, np.float32), "sampling_rate": 10**12}, 16000),
    "array at nan Hz": lambda: load_audio({"array": np.zeros(100, np.float32), "sampling_rate": float("nan")}, 16000),
    "wanted 10^12 Hz": lambda: load_audio(np.zeros(100, np.float32), 10**12),
    "grows when resampled": lambda: load_audio(wav(1000, 1_000_000), 768_000),
    "27 minutes": lambda: load_audio(FLAC, 16000),
    "27 minutes, cut": lambda: load_audio(FLAC, 16000, 10.0),
    "complex array": lambda: load_audio(np.zeros(100, np.complex64), 16000),
    "int64 array": lambda: load_audio(np.zeros(100, np.int64), 16000),
    "bool array": lambda: load_audio(np.zeros(100, bool), 16000),
    "gif as image": lambda: load_image(gif(65535, 65535)),
    "gif as video": lambda: load_frames(gif(65535, 65535), first_three),
    "png of 1.6 gigapixels": lambda: load_image(png(40000, 40000)),
    "long, narrow png": lambda: ImageInput(PLAIN)([png(60000, 1)]),
    "frames in a list": lambda: load_frames([np.zeros((4000, 4000), np.uint8)] * 99, lambda count: list(range(count))),
    "eps": lambda: load_image(EPS),
    "eps as video": lambda: load_frames(EPS, first_three),
    "sdp as sound": lambda: load_audio(SDP, 16000),
    "sdp as video": lambda: load_frames(SDP, first_three),
    "playlist as sound": lambda: load_audio(PLAYLIST, 16000),
    "concat as video": lambda: load_frames(b"ffconcat version 1.0\nfile /etc/hostname\n", first_three),
}


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    for name, case in CASES.items():
        before = peak()
        try:
            value = case()
            message = f"fine: {len(value)}"
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
        print(json.dumps([name, message, peak() - before]), flush=True)


if __name__ == "__main__":
    sys.exit(main())
