"""Videos, frame by frame: decoded, predicted, and written again."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import av
import numpy as np

from roadseg.errors import InputError

ENDINGS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
FRAME_RATE = 25  # of a video that does not say its own
CONTAINERS = {".mkv": "matroska", ".mp4": "mp4"}


def frame_count(file: Path) -> int | None:
    """Return how many frames a video says it has; None if it does not."""
    try:
        with av.open(str(file)) as container:
            return container.streams.video[0].frames or None
    except (av.error.FFmpegError, IndexError):
        return None


def write_video(
    source: Path,
    files: list[Path],
    predict: Callable[[Iterable[np.ndarray]], Iterator[tuple[np.ndarray, ...]]],
) -> int:
    """Write what is predicted of each frame of a video; whole files, or none.

    Labels are the levels of a grey video, compressed without loss (FFV1); what is painted is H.264,
    and loses the last row or column if their number is odd. Sound is left out.

    Parameters
    ----------
    source : the video
    files : that of the labels, and that of what is painted, if it is
    predict : frames uint8 (H, W, 3) -> for each, in order, as many arrays as there are files:
        labels uint8 (H, W), a picture uint8 (H, W, 3)

    Returns
    -------
    The number of frames

    Raises
    ------
    InputError : it cannot be read, or holds no pictures
    """
    partial = [file.with_name(f"{file.name}.{os.getpid()}.partial") for file in files]
    try:
        with _opened(source) as container:
            rate = container.streams.video[0].average_rate or FRAME_RATE
            writers = [
                _Writer(p, file.suffix, rate) for p, file in zip(partial, files, strict=True)
            ]
            try:
                count = 0
                for arrays in predict(_frames(container, source)):
                    for writer, array in zip(writers, arrays, strict=True):
                        writer.add(array)
                    count += 1
            finally:
                for writer in writers:
                    writer.close()
        if not count:
            raise InputError(f"{source}: holds no frame that can be read.")
        for made, file in zip(partial, files, strict=True):
            made.replace(file)
        return count
    finally:
        for file in partial:
            file.unlink(missing_ok=True)


def _opened(source: Path):
    """Open a video.

    Raises
    ------
    InputError : it is none, or has no pictures
    """
    try:
        container = av.open(str(source))
    except av.error.FFmpegError as problem:
        raise InputError(f"{source}: cannot be read as a video ({problem.strerror}).") from None
    if not container.streams.video:
        container.close()
        raise InputError(f"{source}: has no pictures, only sound or data.")
    container.streams.video[0].thread_type = "AUTO"
    return container


def _frames(container, source: Path) -> Iterator[np.ndarray]:
    """Yield the frames, upright, uint8 (H, W, 3)."""
    try:
        for frame in container.decode(video=0):
            yield np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
    except av.error.FFmpegError as problem:
        raise InputError(f"{source}: is broken ({problem.strerror}).") from None


class _Writer:
    """Writes a video, whose size the first frame tells."""

    def __init__(self, file: Path, ending: str, rate):
        file.parent.mkdir(parents=True, exist_ok=True)
        self.container = av.open(str(file), "w", format=CONTAINERS[ending])
        self.rate, self.stream = rate, None

    def add(self, frame: np.ndarray) -> None:
        """Add labels (H, W), kept as they are, or a picture (H, W, 3)."""
        is_picture = frame.ndim == 3
        if is_picture:  # whose colours have half of its rows and columns
            frame = frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]
        if self.stream is None:
            self.stream = self.container.add_stream(
                "libx264" if is_picture else "ffv1", rate=self.rate
            )
            self.stream.height, self.stream.width = frame.shape[:2]
            self.stream.pix_fmt = "yuv420p" if is_picture else "gray"
        picture = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(frame), format="rgb24" if is_picture else "gray"
        )
        self.container.mux(self.stream.encode(picture))

    def close(self) -> None:
        """Write what the encoder still holds."""
        if self.stream is not None:
            self.container.mux(self.stream.encode())
        self.container.close()
