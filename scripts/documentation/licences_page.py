"""The reference page of licences: those of every package that the environment's files pin."""

import re
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata

from dst_cbc.report.tables import markdown_table
from dst_cbc.runtime.errors import DataError

from .pages import page, without_markup
from .pinned import pins

COPYLEFT = re.compile(r"\b[AL]?GPL|\bMPL|GNU|Mozilla|\bEPL|Eclipse|\bEUPL|CDDL|CeCILL|OSL|CC-BY-SA")
UNKNOWN = "unknown"


def licences_page() -> str:
    """A row for each package: version, licence. First the packages that are copyleft or unknown."""
    lines = [
        [name, version, licence(_installed(name, version))] for name, version in pins().items()
    ]
    copyleft = [f"{name} ({found})" for name, _, found in lines if COPYLEFT.search(found)]
    unknown = [name for name, _, found in lines if found == UNKNOWN]
    return page(
        "Licences of the packages",
        "This project is licensed under Apache-2.0. It contains no code of the packages below; "
        "`make venv` installs them. The table says what the metadata of each package say: the "
        "field `License-Expression`, else a `License` of one line, else the classifiers.",
        "A wheel may contain further libraries, whose licences stand in its folder `*.dist-info`, "
        "not in the table. Some are copyleft, for example FFmpeg (LGPL 2.1) in "
        "opencv-python-headless, and GCC's Fortran library (GPL with an exception) in numpy and "
        "scipy.",
        "The build of PyTorch for CUDA also brings packages that no file of this project pins and "
        "that the table leaves out: `nvidia-*`, most of them proprietary, `cuda-*` and `triton`.",
        "Copyleft, wholly or in part: " + without_markup("; ".join(copyleft)) + ".",
        f"The metadata of {len(unknown)} packages name no licence: {', '.join(unknown)}.",
        markdown_table(
            ["package", "version", "licence"],
            [[name, version, without_markup(found)] for name, version, found in lines],
        ),
    )


def _installed(name: str, version: str) -> PackageMetadata:
    """The metadata of an installed package, which must be the pinned one."""
    try:
        found = metadata(name)
    except PackageNotFoundError:
        raise DataError(f"{name}: not installed; run `make venv`, then try again") from None
    # A build may add a suffix to its version, such as torch 2.14.1+cpu.
    if found["Version"].partition("+")[0] != version:
        raise DataError(
            f"{name}: {found['Version']} is installed, expected the pinned {version}; "
            "run `make venv`, then try again"
        )
    return found


def licence(package: PackageMetadata) -> str:
    """What the metadata say of the licence: an expression, a name, classifiers, or `unknown`."""
    expression, name = (
        (package.get_all(field) or [""])[0] for field in ("License-Expression", "License")
    )
    classifiers = (line.split(" :: ") for line in package.get_all("Classifier") or ())
    classes = ", ".join(parts[-1] for parts in classifiers if parts[0] == "License")
    # Some packages put the whole text of their licence into the field of its name.
    short = "" if "\n" in name or name == "UNKNOWN" else name
    return expression or short or classes or UNKNOWN
