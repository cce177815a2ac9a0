"""Processes that are killed with SIGKILL at one moment, from inside: however slow the machine, it is that moment."""

import os
import signal
import subprocess
import sys

DYING = """
import os, signal
from itertools import count
from pkgutil import resolve_name

def kill_after(owner, name, number):
    whole, calls = getattr(owner, name), count(1)

    def dying(*arguments, **named):
        result = whole(*arguments, **named)
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)

kill_after(resolve_name({owner!r}), {name!r}, {number})
"""


def run_until(owner, name, number, code, *arguments):
    """Run a program until a function has returned for the ``number``-th time; then it is killed, and its workers end.

    Args:
        owner: The module or class where the program looks the function up: ``"package.module:Class"``.
        name: Of the function.
        number: The first return is 1.
        code: The program.
        arguments: Its words.
    """
    command = [sys.executable, "-c", DYING.format(owner=owner, name=name, number=number) + code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE)  # the workers have that pipe too
    assert done.returncode == -signal.SIGKILL
