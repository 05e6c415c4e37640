"""The global registries: data set name -> records, data set name -> metadata."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class _Catalog(UserDict):
    def list(self) -> list[str]:
        """Registered names, oldest first."""
        return list(self)

    def remove(self, name: str) -> None:
        del self[name]


class _DatasetCatalog(_Catalog):
    def register(self, name: str, func: Callable[[], list[dict]]) -> None:
        """Make ``func()`` the source of the records of ``name``; a name can be taken only once."""
        assert callable(func), f"data set {name!r} needs a function that returns its records"
        assert name not in self, f"data set {name!r} is registered already"
        self[name] = func

    def get(self, name: str) -> list[dict]:
        """Load the records of ``name``; KeyError lists the known names if it is not among them."""
        if name not in self:
            raise KeyError(f"data set {name!r} is not registered; known: {', '.join(self)}")
        return self[name]()


class Metadata(SimpleNamespace):
    """What is known about a data set, as attributes that can be set once and then only repeated.

    Setting another value is an AssertionError, reading what was never set an AttributeError.
    """

    name: str = "N/A"

    def __getattr__(self, key: str) -> Any:
        raise AttributeError(
            f"no {key!r} in the metadata of data set {self.name!r}; it has: {', '.join(vars(self))}"
        )

    def __setattr__(self, key: str, value: Any) -> None:
        known = vars(self).get(key, value)
        assert known == value, (
            f"{key!r} in the metadata of {self.name!r} is {known!r} and cannot become {value!r}"
        )
        super().__setattr__(key, value)

    def set(self, **values: Any) -> Metadata:
        """Set several attributes; returns self."""
        for key, value in values.items():
            setattr(self, key, value)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """Attribute ``key``, or ``default`` where it was never set."""
        return getattr(self, key, default)


class _MetadataCatalog(_Catalog):
    def get(self, name: str) -> Metadata:
        """The one ``Metadata`` object of ``name``, made on first use."""
        assert name, "metadata needs the name of a data set"
        return self.setdefault(name, Metadata(name=name))


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()
