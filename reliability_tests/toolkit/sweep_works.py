"""A store of JSON files and works that misbehave, for tests of engines and the coordinator.

Spawned processes import this module: it holds nothing that is costly to import.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from clipq.sweep.units import Unit


class FolderStore:
    """Parts as JSON files, each committed by a link that fails where it exists."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def commit(self, unit: Unit, content: str) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".{unit.id}.{os.getpid()}"
        part.write_text(json.dumps({"unit": unit.to_plain(), "content": content}))
        try:
            os.link(part, self.folder / f"{unit.id}.json")
        except FileExistsError:
            return False
        finally:
            part.unlink()
        return True

    def has(self, unit_id: str) -> bool:
        return (self.folder / f"{unit_id}.json").exists()

    def ids(self) -> set[str]:
        return {path.stem for path in self.folder.glob("[!.]*.json")}

    def content(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in sorted(self.folder.glob("[!.]*.json"))}


class OddError(Exception):
    """It can neither be pickled nor shown."""

    def __init__(self) -> None:
        self.closure = lambda: None

    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __reduce__(self):
        raise TypeError("no pickling")


@dataclass
class FakeWork:
    """Commits a text that follows from the unit; does what a quantizer's name says before."""

    folder: Path
    seconds: float = 0.0
    log: Path | None = None
    mine: list[str] = field(default_factory=list)

    def __call__(self, unit: Unit) -> None:
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{os.getpid()} {unit.model} {unit.quantizer}\n")
        time.sleep(self.seconds)
        odd = unit.quantizer.partition(":")[0]
        if odd == "hang":
            time.sleep(3600)
        if odd == "memory":
            bytearray(1 << 40)
        if odd == "raise":
            raise ValueError("no such layer")
        if odd == "odd":
            raise OddError
        if odd == "exit":
            raise SystemExit(0)
        if odd == "die":
            os._exit(3)
        if odd == "once" and not (flag := self.folder.parent / f"{unit.id}.flag").exists():
            flag.touch()
            os.kill(os.getpid(), 9)
        store = FolderStore(self.folder)
        if odd == "full":
            raise OSError(28, "No space left on device")
        store.commit(unit, f"{unit.model} by {unit.quantizer}")
        if odd == "late" and not (flag := self.folder.parent / f"{unit.id}.flag").exists():
            flag.touch()
            os.kill(os.getpid(), 9)
