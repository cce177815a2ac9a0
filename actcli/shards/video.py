"""Re-encode extracted frames as short-GOP H.264, the ``--payload video`` of the shards."""

import os
from pathlib import Path

import av
import ffmpeg
import imageio_ffmpeg

from actcli.errors import ActcliError

# "file:" keeps ffmpeg from taking a path for a URL or a list of files

GOP_FRAMES = 16
"""Frames between key frames: reading one frame decodes at most this many."""
QUALITY_CRF = 21
"""x264's constant rate factor."""
FALLBACK_FPS = 25.0
"""Frame rate written where the manifest knows none; it does not touch the frames."""


def encode_video(source: Path, target: Path, *, fps: float, num_frames: int, short_side: int = 0) -> None:
    """Encode a Motion-JPEG stream as H.264 in MP4, frame by frame, and check the number of frames.

    Args:
        source: ``<key>.mjpeg``.
        target: The MP4; the caller removes it after an error, and renames it.
        fps: Frames per second.
        num_frames: Frames that have to come out.
        short_side: Pixels of the shorter side; 0 keeps the size, and smaller frames are never enlarged.

    Raises:
        ActcliError: ffmpeg failed, or the number of frames changed.
    """
    stream = ffmpeg.input(f"file:{os.fspath(source)}", format="mjpeg", framerate=fps or FALLBACK_FPS)
    if short_side:
        size = f"min({short_side},min(iw,ih))"
        stream = stream.filter("scale", f"if(gt(iw,ih),-2,{size})", f"if(gt(iw,ih),{size},-2)", flags="area")
    output = stream.output(
        f"file:{os.fspath(target)}",
        format="mp4",
        vcodec="libx264",
        pix_fmt="yuv420p",
        color_range="tv",
        crf=QUALITY_CRF,
        g=GOP_FRAMES,
        bf=0,
        threads=1,
        fps_mode="passthrough",
        fflags="+bitexact",
        movflags="+faststart",
    ).global_args("-v", "error", "-nostdin")
    try:
        output.run(cmd=imageio_ffmpeg.get_ffmpeg_exe(), overwrite_output=True, capture_stdout=True, capture_stderr=True)
    except ffmpeg.Error as error:
        reason = error.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise ActcliError(f"{source} could not be encoded as H.264: {reason[-1]}") from error
    found = count_packets(target)
    if found != num_frames:
        raise ActcliError(f"{source}: {found} frames came out of the encoder, the manifest has {num_frames}")


def count_packets(path: Path) -> int:
    """Number of video packets, one per frame, in a file."""
    with av.open(os.fspath(path), format="mp4") as container:
        return sum(1 for packet in container.demux(video=0) if packet.size)


def video_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels of a file's video stream."""
    with av.open(os.fspath(path), format="mp4") as container:
        codec = container.streams.video[0].codec_context
        return codec.width, codec.height
