"""Durable labels, the same for every peer: SQLite, a transaction for every 256 photos at most, synced to the disk."""

import pathlib
import sqlite3

ROWS_PER_COMMIT = 256


class LabelTable:
    """A new table in a new file. Add from one thread; what Close has returned from is durable."""

    def __init__(self, path: pathlib.Path):
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute("CREATE TABLE label (path TEXT, class_index INTEGER, confidence REAL)")
        self._rows = []

    def add(self, paths, class_indices, confidences) -> None:
        """Zips: class indices and confidences of padding, past the last path, are dropped."""
        self._rows.extend(zip(paths, map(int, class_indices), map(float, confidences)))
        while len(self._rows) >= ROWS_PER_COMMIT:
            self._commit(ROWS_PER_COMMIT)

    def close(self) -> None:
        if self._rows:
            self._commit(len(self._rows))
        self._database.close()

    def _commit(self, num_rows: int) -> None:
        self._database.execute("BEGIN")
        self._database.executemany("INSERT INTO label VALUES (?, ?, ?)", self._rows[:num_rows])
        self._database.execute("COMMIT")
        del self._rows[:num_rows]


def read_labels(path: pathlib.Path) -> dict[str, int]:
    """File name of the photo -> class index."""
    database = sqlite3.connect(path)
    rows = database.execute("SELECT path, class_index FROM label").fetchall()
    database.close()
    return {pathlib.Path(photo).name: class_index for photo, class_index in rows}
