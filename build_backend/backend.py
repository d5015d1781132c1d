"""Setuptools as a build backend that sees the torch of the environment it installs into.

ce_ext must be compiled against the very torch that loads it. Build isolation hides that one, and
would bring another if torch were a build requirement.
"""

import site
import sys
from importlib import metadata

sys.path += site.getsitepackages()

MINIMUM = (2, 11)
try:
    found = metadata.version("torch")
except metadata.PackageNotFoundError:
    found = "none"
if found == "none" or tuple(map(int, found.split(".")[:2])) < MINIMUM:
    sys.exit(
        f"ce_ext is compiled against the installed torch, >= 2.11; in {sys.prefix} there is {found}.\n"
        "First `pip install torch`, then try again; for tools that build in an environment of their\n"
        "own, such as uv and build, without build isolation."
    )

from setuptools.build_meta import *  # noqa: E402, F403
