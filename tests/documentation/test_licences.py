"""The table of licences says what the metadata of the pinned packages say."""

from email.message import Message

import pytest

from documentation import licences_page
from dst_cbc.runtime.errors import DataError


def package(**fields):
    """Metadata of a package; a list of values gives a field several times."""
    found = Message()
    for name, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            found[name.replace("_", "-")] = value
    return found


BSD = ["Programming Language :: Python", "License :: OSI Approved :: BSD License"]


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"License_Expression": "MIT", "License": "x", "Classifier": BSD}, "MIT"),
        ({"License": "MPL-2.0 AND MIT", "Classifier": BSD}, "MPL-2.0 AND MIT"),
        ({"License": "Copyright\n 2020", "Classifier": BSD}, "BSD License"),
        ({"License": "UNKNOWN"}, "unknown"),
        ({"Classifier": BSD[:1]}, "unknown"),
    ],
)
def test_a_licence_is_an_expression_else_a_name_else_a_classifier(fields, expected):
    assert licences_page.licence(package(**fields)) == expected


def test_the_licences_are_read_from_the_pinned_versions_only(monkeypatch):
    monkeypatch.setattr(licences_page, "pins", lambda: {"pytest": "0.1"})
    with pytest.raises(DataError, match=r"pytest: \S+ is installed, expected the pinned 0\.1"):
        licences_page.licences_page()
    monkeypatch.setattr(licences_page, "pins", lambda: {"no-such-package": "1"})
    with pytest.raises(DataError, match="no-such-package: not installed"):
        licences_page.licences_page()
