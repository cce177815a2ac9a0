"""Opening a video file: nothing but a file, nothing but a container of video, nothing that leads elsewhere.

FFmpeg takes playlists, scripts and descriptions of streams (HLS, ffconcat, SDP, …) for videos, whatever their name ends
in, and follows them to other files and hosts. Only containers that carry their pictures themselves are opened here.
"""

import errno
import stat
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from actcli.ingest.failure import ClipFailure

MAX_PIXELS = 8192 * 4608
"""Largest picture that is decoded (8K video has 7680 × 4320): it bounds the memory that one clip can ask for."""
MAX_SIDE = 65500
"""Longest side of a JPEG."""

_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,live_flv,mpegts,mpeg,mpegvideo,m4v,h264,hevc,asf,ogg,rm,nut,mxf,dv,"
    "ivf,wtv"
)
"""FFmpeg's names of what is opened."""
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def open_container(path: Path) -> tuple[InputContainer, VideoStream]:
    """The container and its main video stream, which is not the cover picture.

    Raises:
        ClipFailure: The path is no regular file, or no video.
    """
    check_is_file(path)
    if path.stat().st_size == 0:
        raise ClipFailure("open", "EmptyFile", "the file is empty")
    try:
        container = av.open(
            str(path.absolute()),  # a ':' in a relative name would be read as a protocol
            container_options={"protocol_whitelist": "file", "format_whitelist": _FORMATS},
            options={"max_pixels": str(MAX_PIXELS)},
            metadata_errors="ignore",  # tags in foreign encodings are common and must not stop a clip
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _opening_failure(error) from None
    assert isinstance(container, InputContainer)
    try:
        return container, _video_stream(container)
    except BaseException:
        container.close()
        raise


def check_is_file(path: Path) -> None:
    """Raise ``ClipFailure`` for what is no regular file: opening a pipe would wait for ever."""
    kind = stat.S_IFMT(path.stat().st_mode)
    if kind != stat.S_IFREG:
        raise ClipFailure("open", "NotAFile", f"{path.name} is {_KINDS.get(kind, 'no file')}, not a file")


def decoder_options(max_pixels: int) -> dict[str, str]:
    """What every decoder is told: the largest picture, and nothing of where a container says that chroma lies.

    The scaler goes by the place of chroma, and a decoder that is given packets alone does not know the container's.
    """
    return {"max_pixels": str(max_pixels), "chroma_sample_location": "unspecified"}


def _opening_failure(error: Exception) -> ClipFailure:
    """FFmpeg's reason in words that a user understands."""
    name, reason = type(error).__name__, getattr(error, "strerror", None) or str(error)
    if isinstance(error, av.error.InvalidDataError):
        reason = "this is no video that FFmpeg can read, or its beginning or index is lost (Invalid data found)"
    elif isinstance(error, av.error.ArgumentError):
        reason = "this is no container of video (playlists, scripts, pictures and sounds are not opened)"
    elif getattr(error, "errno", None) == errno.EIO:
        name, reason = "TruncatedVideo", "the file breaks off or cannot be read before its first picture"
    return ClipFailure("open", name, reason)


def _video_stream(container: InputContainer) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        raise ClipFailure("open", "NoVideoStream", "the file holds no video stream")
    context = stream.codec_context
    if context is None:
        raise ClipFailure("open", "UnknownCodec", "FFmpeg has no decoder for this video (it may be encrypted)")
    if context.width * context.height > MAX_PIXELS:
        raise ClipFailure(
            "open",
            "PictureTooLarge",
            f"pictures of {context.width}x{context.height} pixels are refused; the limit is {MAX_PIXELS} pixels",
        )
    context.thread_count = 1
    context.options = decoder_options(MAX_PIXELS)
    return stream
