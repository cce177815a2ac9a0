"""``actcli doctor``: is this machine ready?"""

import typer
from rich.text import Text

from actcli.cli._console import console, table

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "lightning-fabric",
    "nvidia-dali-cuda130",
    "nvidia-nvimgcodec-cu13",
    "av",
    "opencv-contrib-python-headless",
    "simplejpeg",
    "webdataset",
    "pandas",
    "pyarrow",
    "numpy",
    "ffmpeg-python",
    "imageio-ffmpeg",
)
OPTIONAL = {
    "nvidia-dali-cuda130": "the DALI loader (Linux x86-64)",
    "nvidia-nvimgcodec-cu13": "decoding the needed region of a JPEG alone; comes with DALI",
}


def doctor_command() -> None:
    """Show versions, devices and limits, and what to do about what is missing; exit code 1 if anything is."""
    from importlib.metadata import PackageNotFoundError, version

    problems: list[str] = []
    listing = table("what", "found")
    for package in PACKAGES:
        try:
            listing.add_row(package, version(package))
        except PackageNotFoundError:
            listing.add_row(package, f"missing; for {OPTIONAL[package]}" if package in OPTIONAL else "missing")
            if package not in OPTIONAL:
                problems.append(f"{package} is missing: pip install {package}")
    for name, value in [*_machine(problems), *_tools(problems)]:
        listing.add_row(name, value)
    console.print(listing)
    for problem in problems:
        console.print(Text.assemble(("problem:", "bold red"), " ", problem))
    if problems:
        raise typer.Exit(1)
    console.print("all well")


def _machine(problems: list[str]) -> list[tuple[str, str]]:
    import os
    import platform
    import shutil

    rows = [("python", platform.python_version()), ("cores", str(os.cpu_count())), ("GPUs", _gpus())]
    free = shutil.disk_usage(".").free
    rows.append(("free disk here", f"{free / 1e9:.1f} GB"))
    if os.path.isdir("/dev/shm"):
        shared = shutil.disk_usage("/dev/shm").free
        rows.append(("free shared memory", f"{shared / 1e9:.2f} GB; actcli's loaders do not use it"))
    return rows


def _gpus() -> str:
    try:
        import torch
    except ImportError:
        return "unknown without torch"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(names if torch.cuda.is_available() else []) or "none; training runs on the CPU"


def _tools(problems: list[str]) -> list[tuple[str, str]]:
    import subprocess

    import imageio_ffmpeg

    try:
        executable = imageio_ffmpeg.get_ffmpeg_exe()
        done = subprocess.run([executable, "-version"], capture_output=True, text=True, check=True)
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        problems.append(f"ffmpeg does not run ({error}): pip install --force-reinstall imageio-ffmpeg")
        return [("ffmpeg", "missing")]
    return [("ffmpeg", done.stdout.split()[2])]
