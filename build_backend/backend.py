"""Setuptools as a build backend that sees the torch of the environment it installs into.

ce_ext must be compiled against the very torch that loads it. Build isolation hides that one, and
would bring another if torch were a build requirement.
"""

import site
import sys
from importlib import metadata

sys.path += site.getsitepackages()

try:
    found = metadata.version("torch")
except metadata.PackageNotFoundError:
    found = None
if found is None or tuple(map(int, found.split(".")[:2])) < (2, 11):
    sys.exit(
        f"ce_ext is compiled against the torch it will run with, 2.11 or newer; {sys.prefix} has {found or 'none'}.\n"
        "Install that first (pip install torch), then ce_ext again. Tools that build in an environment of their own,\n"
        "like uv and build, have to be told not to (--no-build-isolation, --no-isolation)."
    )

from setuptools.build_meta import *  # noqa: F403
