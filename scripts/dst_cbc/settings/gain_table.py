"""The file of a table of gains, such as workflow/gain.yaml: the studies that it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from .base import Name, Settings, StudyName
from .experiment_files import explain, merge
from .yaml_files import ConfigError, check_values, read_yaml


class GainStudy(Settings):
    """One study of the table: one data set with one choice of test images."""

    dataset: str = Field(min_length=1, description="name of the data set in the table")
    test: str = Field(min_length=1, description="name of this choice of its test images")
    files: tuple[str, ...] = Field(
        min_length=1,
        description="experiment files, merged in this order; relative to the folder of this file",
    )


class GainTable(Settings):
    """All keys of the file."""

    studies: dict[StudyName, GainStudy] = Field(
        min_length=1, description="name of a study, which is its folder in results/ -> its files"
    )
    data: dict[str, str] = Field(
        default={},
        description="name of a data set -> its folder, in place of `data` of the experiment files",
    )
    scenarios: dict[Name, str] = Field(
        default={},
        description="name of a split -> what the table calls it; splits that differ only in the "
        "number of labels have one name. A split that is not named keeps its own",
    )

    def experiment(self, name: StudyName, folder: Path) -> dict[str, Any]:
        """The experiment of a study as one mapping. folder: that of the table's file.

        Raises ConfigError if a file is missing or damaged.
        """
        merged: dict[str, Any] = {}
        for path in self.paths(name, folder):
            merged = merge(merged, read_yaml(path))
        return {**merged, **self.over(name)}

    def paths(self, name: StudyName, folder: Path) -> list[Path]:
        """The experiment files of a study. folder: that of the table's file."""
        return [folder / file for file in self.studies[name].files]

    def over(self, name: StudyName) -> dict[str, str]:
        """The keys that override the files of a study: its name and its data."""
        study = self.studies[name]
        data = {"data": self.data[study.dataset]} if study.dataset in self.data else {}
        return {"name": name, **data}


def read_gain_table(file: Path, overrides: Mapping[str, Any] | None = None) -> GainTable:
    """Read the file of a table. overrides: keys of --config, merged over it. Raises ConfigError."""
    documents = [(str(file), read_yaml(file)), ("--config", dict(overrides or {}))]
    check_values(documents[1][1], "--config")
    try:
        return GainTable.model_validate(merge(documents[0][1], documents[1][1]))
    except ValidationError as error:
        raise ConfigError(explain(error, GainTable, documents)) from None
