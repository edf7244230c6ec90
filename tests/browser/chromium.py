"""Finds the Chromium that the browser tests drive, or installs the distribution's where that is allowed.

Run as a script it prints the path; with `--install` it installs Chromium first where none is found. It fails
with a sentence rather than let the browser tests be skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

VARIABLE = "SAEWIDGETS_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLACES = (
    "/usr/bin/chromium",
    "/usr/lib/chromium/chromium",
    "/opt/google/chrome/chrome",
    "/snap/bin/chromium",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
FLAGS = [
    "--no-sandbox",  # CI runs as root, where Chromium's sandbox refuses to start
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
]


class ChromiumMissing(RuntimeError):
    """No browser to drive; the message says what to install."""


def find_chromium() -> str:
    """The path of an installed Chromium or Chrome.

    Raises:
        ChromiumMissing: none was found, or SAEWIDGETS_CHROMIUM names something that is not a program.
    """
    named = os.environ.get(VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            raise ChromiumMissing(f"{VARIABLE} is {named!r}, which is not a program. Name the executable.")
        return found
    for candidate in (*NAMES, *PLACES):
        found = shutil.which(candidate)
        if found is not None:
            return found
    raise ChromiumMissing(
        "The browser tests drive Chromium and none was found. Install it (on Debian: apt-get install "
        f"chromium; elsewhere Chromium or Google Chrome), or name its executable in {VARIABLE}."
    )


def install_chromium() -> str:
    """Find Chromium, or install the distribution's package as root with apt-get, and give its path.

    Raises:
        ChromiumMissing: it is not there and cannot be installed from here.
    """
    try:
        return find_chromium()
    except ChromiumMissing:
        if os.environ.get(VARIABLE) or not may_install():
            raise
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium", "fonts-dejavu-core"]
    for command in (["apt-get", "update", "-qq"], install):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0:
            raise ChromiumMissing(
                f"The browser tests drive Chromium; none was found and `{' '.join(command)}` failed:\n"
                f"{(done.stdout + done.stderr)[-2000:]}\n"
                f"Install Chromium, or name its executable in {VARIABLE}."
            )
    return find_chromium()


def may_install() -> bool:
    return Path("/usr/bin/apt-get").exists() and hasattr(os, "geteuid") and os.geteuid() == 0


if __name__ == "__main__":
    try:
        print(install_chromium() if "--install" in sys.argv[1:] else find_chromium())
    except ChromiumMissing as missing:
        sys.exit(str(missing))
