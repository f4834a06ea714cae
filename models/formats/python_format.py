"""A handler in Python: a class of the user's own, loaded from its file in the model's folder."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from models.card import Card
from models.errors import DeviceLost, ModelError, last_line, of_device
from models.runtime import Array, RuntimeReport
from models.serving import ElementDecoder

_log = logging.getLogger("models")
_T = TypeVar("_T")
# The imported modules are the whole process's.
_IMPORTING = threading.RLock()


class PythonHandler:
    """A handler with its own modules. `decode` may be called by any thread, `run` by one at a time."""

    def __init__(self, card: Card, device: str) -> None:
        """Imports the file, makes an object of the class with the card's arguments, and has it load.

        Raises:
            ModelError: the file has no such class, or its code failed; the log has the traceback.
        """
        self._card = card
        self._folder = card.folder.resolve()
        self._modules: dict[str, ModuleType] = {}
        self._on_gpu = not device.startswith("cpu")
        file, _, name = card.handler.rpartition(":")
        module = self._called(f"importing {file}", lambda: self._import(file), own_path=True)
        made = getattr(module, name, None)
        if not callable(made):
            raise ModelError(f"model {card.name}: {card.path(file)} has no class {name}: correct `class` in the card")
        handler = self._called(f"{name}(...)", lambda: made(**card.arguments), own_path=True)
        if hasattr(handler, "load"):
            self._called(f"{name}.load", lambda: handler.load(device), own_path=True)
        if not callable(getattr(handler, "predict", None)):
            raise ModelError(f"model {card.name}: class {name} has no method predict: write predict(self, arrays)")
        self._name, self._handler = name, handler
        self.report = RuntimeReport("python", device.partition(":")[0])

    @property
    def decode(self) -> ElementDecoder | None:
        """The handler's own way from an encoded element to an array; None if it has none."""
        if not callable(getattr(self._handler, "decode", None)):
            return None

        def decoded(element: bytes) -> Array:
            return np.asarray(self._called(f"{self._name}.decode", lambda: self._handler.decode(element), quiet=True))

        return decoded

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array | Sequence[Array]]:
        """Returns the handler's outputs; `Runtime.run` says more."""
        settings = self._card.preprocess
        arrays = {spec.name: _writable(inputs[spec.name]) for spec in self._card.inputs}
        if settings is not None:
            # Imports OpenCV, which models without pictures do without.
            from models.preprocess import normalise

            arrays |= {spec.name: normalise(arrays[spec.name], settings) for spec in self._card.inputs if spec.picture}
        outputs = self._called(f"{self._name}.predict", lambda: self._handler.predict(arrays))
        if not isinstance(outputs, Mapping):
            raise ModelError(
                f"model {self._card.name}: {self._name}.predict gave a {type(outputs).__name__}:"
                " return a dict of arrays"
            )
        return {str(name): self._as_arrays(name, value) for name, value in outputs.items()}

    def _as_arrays(self, name: object, value: object) -> Any:
        """Returns an output as an array, or one array for each item; texts as bytes."""
        try:
            if isinstance(value, (list, tuple)) and value and all(hasattr(part, "shape") for part in value):
                return [_bytes(np.asarray(part)) for part in value]
            return _bytes(np.asarray(value))
        except Exception as error:  # noqa: BLE001 - nested lists of unlike lengths, tensors on a GPU, whatever else
            raise ModelError(
                f"model {self._card.name}: {self._name}.predict gave output {str(name)[:64]!r} that cannot be made an"
                f" array ({last_line(error)}): return arrays of numpy"
            ) from error

    def _called(self, what: str, call: Callable[[], _T], *, own_path: bool = False, quiet: bool = False) -> _T:
        """Returns what a call into the handler's code gives; every error of it is one sentence."""
        try:
            if own_path:
                with self._own_path():
                    return call()
            try:
                return call()
            except ImportError:
                # It imports a module of its own only now.
                with self._own_path():
                    return call()
        except ModelError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code raises what it likes.
            if self._on_gpu and isinstance(lost := of_device(error, name=self._card.name, items=1), DeviceLost):
                raise lost from error
            if not quiet:
                _log.exception("Model %s: %s failed.", self._card.name, what)
            last = last_line(error)
            where = "" if quiet else "; the log has the traceback"
            raise ModelError(f"model {self._card.name}: {what} failed: {last}{where}") from error

    def _import(self, file: str) -> ModuleType:
        path = self._card.path(file)
        # Two folders may hold a handler.py each.
        name = f"edgeburst_handler_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Dataclasses and pickle look a class's module up there.
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except FileNotFoundError:
            raise ModelError(f"model {self._card.name}: there is no file {path}: correct `class` in the card") from None
        return module

    @contextlib.contextmanager
    def _own_path(self) -> Iterator[None]:
        """Has modules found in the folder first, and those of this folder, of no other, among the imported.

        So two folders may each have their own `postprocess.py`.
        """
        with _IMPORTING:
            finder = _FolderFinder(self._folder)
            hidden = {name: module for name in self._own_names() if (module := sys.modules.pop(name, None)) is not None}
            sys.modules |= self._modules
            sys.meta_path.insert(0, finder)
            try:
                yield
            finally:
                sys.meta_path.remove(finder)
                for name in list(sys.modules):
                    if name.partition(".")[0] in self._own_names() and _is_in(sys.modules[name], self._folder):
                        self._modules[name] = sys.modules.pop(name)
                sys.modules |= hidden

    def _own_names(self) -> set[str]:
        """Names of the modules and packages in the folder."""
        return {
            path.stem
            for path in self._folder.iterdir()
            if (path.suffix == ".py" or path.is_dir()) and path.stem.isidentifier()
        }


class _FolderFinder(importlib.abc.MetaPathFinder):
    """Finds modules in one folder, for one thread: the others import meanwhile as ever."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._thread = threading.get_ident()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if path is not None or threading.get_ident() != self._thread:
            return None
        return importlib.machinery.PathFinder.find_spec(fullname, [self._folder], target)


def _is_in(module: ModuleType, folder: Path) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(place is not None and Path(place).resolve().is_relative_to(folder) for place in places)


def _writable(array: Array) -> Array:
    """Returns an array that a handler may change: those of requests are views of what came over the wire."""
    return array if array.flags.writeable else array.copy()


def _bytes(array: Array) -> Array:
    """Returns texts as the bytes that go over the wire, other arrays as they are.

    Raises:
        TypeError: an array of objects holds something else than texts and bytes.
    """
    if array.dtype.kind not in "OSU":
        return array
    whole = np.empty(array.size, np.object_)
    for index, element in enumerate(array.reshape(-1).tolist()):
        if not isinstance(element, str | bytes | bytearray):
            raise TypeError(f"element {index} is of type {type(element).__name__}")
        whole[index] = element.encode() if isinstance(element, str) else bytes(element)
    return whole.reshape(array.shape)
