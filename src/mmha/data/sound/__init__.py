"""Sound files: read whole or in blocks, resampled, and written back as they were.

libsndfile reads and writes WAV, FLAC, OGG and their kin; libav (`av`) does G.722 and reads what comes in containers.
Samples are float32 with full scale 1. All of it needs the extra `speech`.
"""

from __future__ import annotations

from mmha.data.sound.reading import ENDINGS, Info, Reader, info, read
from mmha.data.sound.writing import Writer, output_suffix
from mmha.resampling import Resampler, resample

__all__ = ["ENDINGS", "Info", "Reader", "Resampler", "Writer", "info", "output_suffix", "read", "resample"]
