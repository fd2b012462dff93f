"""Speech-like sound for the sample corpus: the sentence sets sounds, the emotion prosody, the actor the voice."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16000
_FRAME = 512
_HOP = 128
# First three formants in Hz of five vowels, and the band in Hz of the noise of three consonants.
_VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))
_CONSONANTS = ((3500, 7000), (1800, 4500), (500, 2500))


@dataclass(frozen=True)
class Prosody:
    """Describe the way something is said, relative to neutral speech unless a unit is given."""

    pitch: float = 0.0  # level, octaves above the actor's own
    pitch_range: float = 0.12  # octaves between an accented syllable and the others
    slope: float = -0.12  # octaves over the whole sentence
    tempo: float = 1.0
    loudness: float = 0.0  # decibels
    tilt: float = 0.0  # decibels per octave added to the voice's spectrum
    breath: float = 0.05  # share of noise in the voice
    tremor: float = 0.0  # depth of a 7 Hz pitch tremor, octaves
    roughness: float = 0.0  # relative jitter of the pitch periods


PROSODY: Mapping[str, Prosody] = {
    "NEU": Prosody(),
    "HAP": Prosody(0.36, 0.36, 0.25, 1.12, 4.0, 2.0, 0.05, 0.0, 0.0),
    "SAD": Prosody(-0.06, 0.03, -0.2, 0.84, -8.0, -5.0, 0.25, 0.0, 0.0),
    "FEA": Prosody(0.48, 0.10, 0.10, 1.22, 0.0, 0.0, 0.18, 0.08, 0.0),
    "DIS": Prosody(-0.24, 0.40, -0.40, 0.78, 2.0, 0.5, 0.10, 0.0, 0.12),
    "ANG": Prosody(0.12, 0.28, -0.40, 1.05, 8.0, 5.0, 0.03, 0.0, 0.10),
}


@dataclass(frozen=True)
class Voice:
    """Describe an actor's voice and recording: pitch in Hz, formant scale, loudness in dB, noise level in dB."""

    pitch: float
    formant_scale: float
    loudness: float
    noise: float
    tempo: float


def draw_voice(rng: np.random.Generator) -> Voice:
    """Draw an actor's voice."""
    low = rng.random() < 0.5
    return Voice(
        pitch=float(rng.normal(120, 12) if low else rng.normal(205, 18)),
        formant_scale=float(rng.uniform(0.92, 1.02) if low else rng.uniform(1.05, 1.2)),
        loudness=float(rng.normal(0, 1.5)),
        noise=float(rng.uniform(-60, -48)),
        tempo=float(rng.uniform(0.92, 1.1)),
    )


def blend_prosody(first: Prosody, second: Prosody, weight: float) -> Prosody:
    """Return the prosody between two: `weight` 0 gives the first, 1 the second, above 1 goes beyond it."""
    a, b = np.array(list(vars(first).values())), np.array(list(vars(second).values()))
    blended = a + weight * (b - a)
    blended[[6, 7, 8]] = blended[[6, 7, 8]].clip(0)  # shares and depths stay meaningful when going beyond
    return Prosody(*(float(value) for value in blended))


def synthesize(
    sentence: int, prosody: Prosody, voice: Voice, rng: np.random.Generator
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Synthesize one clip.

    Args:
        sentence: Index of the sentence; it fixes the sequence of vowels and consonants.
        prosody: How it is said.
        voice: Who says it.
        rng: Source of what differs between two takes of the same clip.

    Returns:
        Samples, shape (n,), 16 kHz; and the loudness of the voice, shape (n / 128,) in [0, 1], which moves the mouth.
    """
    syllables = np.random.default_rng(sentence)  # the sentence itself is the same for every seed
    num_syllables = int(syllables.integers(5, 8))
    vowels = syllables.integers(len(_VOWELS), size=num_syllables)
    consonants = syllables.integers(len(_CONSONANTS), size=num_syllables)
    accents = syllables.random(num_syllables) < 0.4
    lengths = syllables.uniform(0.13, 0.2, num_syllables) * rng.uniform(0.92, 1.08, num_syllables)
    lengths /= prosody.tempo * voice.tempo
    edges = np.concatenate([[0.0], np.cumsum(lengths)]) + rng.uniform(0.05, 0.12)
    num_frames = int((edges[-1] + rng.uniform(0.08, 0.16)) * SAMPLE_RATE / _HOP)
    times = np.arange(num_frames) * _HOP / SAMPLE_RATE
    index = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, num_syllables - 1)
    phase = np.clip((times - edges[index]) / lengths[index], 0, 1)  # 0 to 1 within a syllable
    speaking = (times >= edges[0]) & (times < edges[-1])
    in_consonant = speaking & (phase < 0.25)
    vowel_level = speaking * np.sin(np.pi * np.clip((phase - 0.15) / 0.85, 0, 1)) ** 0.7

    octaves = prosody.pitch + prosody.slope * (times / times[-1] - 0.5)
    octaves += prosody.pitch_range * accents[index] * np.sin(np.pi * phase)
    octaves += prosody.tremor * np.sin(2 * np.pi * 7 * times + rng.uniform(0, 6)) + rng.normal(0, 0.04)
    source = _voice_source(voice.pitch * 2**octaves, prosody, rng)

    frequencies = np.fft.rfftfreq(_FRAME, 1 / SAMPLE_RATE).astype(np.float64)
    formants = voice.formant_scale * np.array(_VOWELS)
    envelopes = np.stack([_vowel_envelope(frequencies, vowel, prosody.tilt) for vowel in formants])
    bands = np.array(_CONSONANTS) * voice.formant_scale
    hisses = np.stack([((frequencies > low) & (frequencies < high)) * 0.25 for low, high in bands])
    voiced = _filter(source, envelopes[vowels[index]] * vowel_level[:, None])
    hiss = rng.standard_normal(source.size)
    unvoiced = _filter(
        hiss, hisses[consonants[index]] * (in_consonant * np.sin(np.pi * phase / 0.25).clip(0))[:, None]
    )
    sound = voiced / (np.sqrt(np.mean(voiced**2)) + 1e-9) + unvoiced
    sound *= 10 ** ((-26 + prosody.loudness + voice.loudness + rng.normal(0, 1.0)) / 20)
    sound += rng.standard_normal(sound.size) * 10 ** (voice.noise / 20)
    samples = (np.tanh(sound) * 32767).round().astype(np.int16)
    return samples, vowel_level


def _voice_source(pitch: NDArray[np.float64], prosody: Prosody, rng: np.random.Generator) -> NDArray[np.float64]:
    """Pulses of the vocal folds at `pitch` Hz (one value per hop) with breath noise."""
    per_sample = np.repeat(pitch, _HOP) * (1 + prosody.roughness * np.repeat(rng.standard_normal(pitch.size), _HOP))
    position = np.cumsum(per_sample / SAMPLE_RATE) % 1.0
    pulse = np.exp(-position * 12) - 1 / 12
    return (1 - prosody.breath) * pulse + prosody.breath * rng.standard_normal(pulse.size)


def _vowel_envelope(frequencies: NDArray[np.float64], formants: Iterable[float], tilt: float) -> NDArray[np.float64]:
    peaks = np.zeros_like(frequencies)
    for formant, width, gain in zip(formants, (90, 110, 170), (1.0, 0.6, 0.35), strict=True):
        peaks += gain / (1 + ((frequencies - formant) / width) ** 2)
    octaves = np.log2(np.maximum(frequencies, 100) / 500)
    return (peaks + 0.01) * 10 ** (tilt * octaves / 20)


def _filter(sound: NDArray[np.float64], gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """Overlap-add filter: frame i, centred on sample i * hop, is multiplied by gains[i] of shape (257,)."""
    padded = np.pad(sound, (_FRAME // 2, _FRAME))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[: len(gains) * _HOP : _HOP]
    window = np.hanning(_FRAME + 1)[:-1]
    filtered = np.fft.irfft(np.fft.rfft(frames * window) * gains, _FRAME) * 0.5
    result = np.zeros((len(gains) + _FRAME // _HOP, _HOP))
    for part in range(_FRAME // _HOP):  # the parts of all frames that fall on the same hops
        result[part : part + len(gains)] += filtered[:, part * _HOP : (part + 1) * _HOP]
    return result.reshape(-1)[_FRAME // 2 : _FRAME // 2 + sound.size]
