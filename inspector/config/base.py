"""What every configuration file has in common: strict sections, and all problems of a file in one error."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from inspector.contract.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


class Section(BaseModel):
    """A frozen group of settings; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


SectionType = TypeVar("SectionType", bound=Section)


def parse_section(source: str, values: dict[str, Any], kind: type[SectionType]) -> SectionType:
    """``values`` checked as ``kind``; ``source`` (a file name) stands in every problem.

    Raises:
        ConfigError: with one line per problem, each naming source, key and mend.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = []
        for item in error.errors(include_url=False):
            key = ".".join(str(part) for part in item["loc"]) or "(whole file)"
            message = item["msg"].removeprefix("Value error, ")
            if item["type"] == "extra_forbidden":
                message = "unknown key; remove it or mend its spelling"
            elif item["type"] == "missing":
                message = "is missing; add it"
            else:
                given = repr(item.get("input"))
                if not isinstance(item.get("input"), dict) and len(given) < 80:
                    message = f"{message}, not {given}"
            problems.append(f"{source}: {key}: {message}")
        raise ConfigError(problems) from None


def read_toml(path: Path, kind: type[SectionType]) -> SectionType:
    """The section in a TOML file.

    Raises:
        ConfigError: the file is missing, unreadable or no TOML, or its values do not fit ``kind``.
    """
    return parse_section(str(path), load_toml(path), kind)


def load_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file.

    Raises:
        ConfigError: the file is missing, unreadable or no TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: is not TOML: {error}"]) from None
