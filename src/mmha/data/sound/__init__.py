"""Sound files: read whole or in blocks, resampled, and written back as they were.

libsndfile reads and writes WAV, FLAC, OGG and their kin; libav (`av`) does G.722 and reads what comes in containers.
Samples are float32 with full scale 1. All of it needs the extra `speech`.
"""

from __future__ import annotations

from mmha.data.sound.rates import Resampler, resample
from mmha.data.sound.reading import Info, Reader, info, read

__all__ = ["Info", "Reader", "Resampler", "info", "read", "resample"]
