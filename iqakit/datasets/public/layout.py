"""What the public sets share: finding files in a directory as handed out, turning rows into samples, and splitting them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from iqakit.contracts.dataset import Sample, TaskFacts
from iqakit.contracts.entries import DatasetEntry
from iqakit.datasets.image_table import ImageTable, inside
from iqakit.errors import ConfigurationError, DataError

SPLITS = ("train", "val", "test", "all")

VAL_OF_TRAIN = (7.0, 1.0, 0.0)
"""Where a set has an official train and test part and no validation part, one eighth of train becomes val (7 : 1)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a set's score table, as published.

    Attributes:
        name: The image's name in the table; unique.
        file: Its path below the set's directory, as the table and the layout say; case may differ on disk.
        score: The published score, not yet oriented.
        std: Standard deviation of the score, where published.
        content: The reference picture or scene; None: the image is its own content.
        split: The official split, where there is one.
    """

    name: str
    file: str
    score: float
    std: float | None = None
    content: str | None = None
    split: str | None = None


class Tree:
    """A set's directory, searched without regard to case (TID's tables and files differ in it)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listings: dict[str, dict[str, str]] = {}
        self._folders: dict[str, str | None] = {}

    def _listing(self, folder: str) -> dict[str, str]:
        if folder not in self._listings:
            try:
                names = sorted(entry.name for entry in (self.root / folder).iterdir())
            except (FileNotFoundError, NotADirectoryError):
                names = []
            except OSError as error:
                raise DataError(f"cannot read the directory {self.root / folder}: {error.strerror or error}") from None
            # an exact name wins over one that differs in case only
            self._listings[folder] = {name.casefold(): name for name in reversed(names)} | {name: name for name in names}
        return self._listings[folder]

    def find(self, path: str) -> str | None:
        """The path as it is spelt on disk, or None where it is not there; ``*`` in it stands for any characters."""
        folder, _, name = inside(path).rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = self.find(folder) if folder else ""
        above = self._folders[folder]
        if above is None:
            return None
        listing = self._listing(above)
        actual = listing.get(name) or listing.get(name.casefold())
        if actual is None and "*" in name:
            actual = next((found for key, found in listing.items() if fnmatchcase(key, name.casefold())), None)
        return actual if actual is None or not above else f"{above}/{actual}"

    def first(self, *paths: str) -> str | None:
        """The first of several paths that is there, as it is spelt on disk."""
        return next((found for found in map(self.find, paths) if found is not None), None)

    def file(self, *paths: str) -> Path | None:
        """The first of several files that is there."""
        found = self.first(*paths)
        return None if found is None else self.root / found

    def names(self, folder: str = "") -> list[str]:
        """Names in a folder, sorted; empty where there is no such folder."""
        actual = self.find(folder) if folder else ""
        return [] if actual is None else sorted(set(self._listing(actual).values()))


@dataclass(frozen=True, slots=True)
class PublicSet:
    """A public set: what is known of it, how its authors lay it out, and a reader of that layout.

    Attributes:
        facts: Scores, citation and terms.
        layout: What the directory holds, for people.
        markers: The files that give the set away, each with its alternatives; all must be there.
        rule: How the standard splits are made, a sentence.
        read: Reads the rows of a directory that has the markers; says which file they came from.
        telling: Whether the markers are peculiar enough to say "it looks like this set".
    """

    facts: TaskFacts
    layout: str
    markers: tuple[tuple[str, ...], ...]
    rule: str
    read: Callable[[Tree], tuple[Path, list[Row]]] = field(repr=False)
    telling: bool = True

    def entry(self) -> DatasetEntry:
        """The record given to the hook."""
        return DatasetEntry(name=self.facts.name, facts=self.facts, open=self.open)

    def matches(self, tree: Tree) -> bool:
        """Whether a directory has this set's markers."""
        return all(tree.first(*alternatives) is not None for alternatives in self.markers)

    def open(self, root: Path, split: str, seed: int) -> ImageTable:
        """Read the directory as its authors hand it out.

        Args:
            root: The directory.
            split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
            seed: Seed of the splits that are not official.

        Raises:
            DataError: The directory is not this set's, a file in it is damaged, or none of its images are there.
            ConfigurationError: There is no such split.
            MissingExtraError: scipy or openpyxl is needed and not installed.
        """
        if split not in SPLITS:
            raise ConfigurationError(f"no split is named {split!r}; there are: {', '.join(SPLITS)}")
        tree = self._checked(Path(root))
        source, rows = self.read(tree)
        table = _table(self.facts, tree, source, rows)
        if split == "all":
            return table
        parts = assign(rows, seed, self.facts.name)
        chosen = [index for index, part in enumerate(parts) if part == split]
        if not chosen:
            raise DataError(f"split {split!r} of {self.facts.name} has no images: {source} has only {len(rows)} rows")
        return table.subset(chosen)

    def _checked(self, root: Path) -> Tree:
        if not root.is_dir():
            what = "a file" if root.exists() else "nothing"
            raise DataError(f"{self.facts.name} needs the directory that the set was unpacked to; {what} is at {root}")
        tree = Tree(root)
        if not self.matches(tree):
            raise DataError(self._mismatch(tree))
        return tree

    def _mismatch(self, tree: Tree) -> str:
        missing = [" or ".join(names) for names in self.markers if tree.first(*names) is None]
        found = tree.names()
        shown = ", ".join(found[:6]) + (f" and {len(found) - 6} more" if len(found) > 6 else "") if found else "nothing"
        text = f"{tree.root} is not {self.facts.title} as handed out: there is no {', no '.join(missing)}; found {shown}"
        for name in found[:50]:
            if (tree.root / name).is_dir() and self.matches(Tree(tree.root / name)):
                return f"{text}; give {tree.root / name}, which has it"
        others = [other for other in recognise(tree.root) if other != self.facts.name]
        return f"{text}; it looks like {' or '.join(others)}" if others else text


def recognise(root: Path) -> list[str]:
    """Names of the public sets whose markers a directory has.

    Raises:
        DataError: The directory cannot be read.
    """
    from iqakit.datasets.public import SETS

    tree = Tree(root)
    return [candidate.facts.name for candidate in SETS if candidate.telling and candidate.matches(tree)]


def _table(facts: TaskFacts, tree: Tree, source: Path, rows: Sequence[Row]) -> ImageTable:
    seen: set[str] = set()
    samples, files, present = [], [], 0
    for row in rows:
        if row.name in seen:
            raise DataError(f"{source} has the image {row.name!r} twice; each image must have one row")
        seen.add(row.name)
        found = tree.find(row.file)
        present += found is not None
        files.append(row.file if found is None else found)
        samples.append(Sample(row.name, orient(row.score, facts), row.std, row.content))
    if not present:
        first = f"{rows[0].file!r}" if rows else "nothing"
        raise DataError(
            f"none of the {len(rows)} images of {facts.name} that {source} names are below {tree.root}; "
            f"the first would be {first}; unpack the images too"
        )
    return ImageTable(facts=facts, root=tree.root, samples=tuple(samples), files=tuple(files))


def orient(score: float, facts: TaskFacts) -> float:
    """Turn a published score so that higher is better: a DMOS is mirrored within its published scale."""
    if facts.direction != "dmos":
        return score
    if facts.low is None or facts.high is None:
        raise ConfigurationError(f"{facts.name}: a dmos needs its published scale (low and high) to be turned round")
    return facts.low + facts.high - score


def assign(rows: Sequence[Row], seed: int, name: str) -> list[str]:
    """Give each row its split: the official one where there is one, else 70/10/20 by content (or by image).

    Args:
        rows: Rows; either all have an official split or none has.
        seed: Seed of what is not official.
        name: The set's name, for the message.

    Raises:
        DataError: Some rows have an official split and some have none.
    """
    from iqakit.datasets.splits import split_by_content  # numpy loads only when a split is wanted

    contents = [row.content if row.content is not None else row.name for row in rows]
    official = [row.split for row in rows if row.split is not None]
    if not official:
        return [str(part) for part in split_by_content(contents, seed)]
    if len(official) != len(rows):
        raise DataError(f"{name}: {len(rows) - len(official)} of {len(rows)} images have no place in the official split")
    if "val" in official:
        return official
    train = [index for index, part in enumerate(official) if part == "train"]
    held = split_by_content([contents[index] for index in train], seed, VAL_OF_TRAIN)
    for index, part in zip(train, held, strict=True):
        official[index] = str(part)
    return official


def known(value: str, names: dict[str, str], path: Path, row: int, column: str) -> str:
    """Translate a set's own name of a split.

    Raises:
        DataError: The name is not known.
    """
    try:
        return names[value.casefold()]
    except KeyError:
        raise DataError(f"{path}: row {row} has {value!r} under {column!r}; it must be one of {', '.join(names)}") from None


def stem(name: str) -> str:
    """A file name without folder and ending, lower case: how reference pictures are told apart."""
    return name.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0].casefold()


def lengths(path: Path, **counts: int) -> None:
    """Check that several lists belong together.

    Raises:
        DataError: Their lengths differ.
    """
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise DataError(f"the score files of {path} do not belong together: {shown} entries")


def entries(sets: Iterable[PublicSet]) -> tuple[DatasetEntry, ...]:
    """The records of several sets."""
    return tuple(known_set.entry() for known_set in sets)
