"""The state folder: one daemon at a time; a file that is damaged, foreign or too new."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from scheduler.daemon.identities import Acceptance
from scheduler.daemon.state.folder import APPLICATION_ID, DATABASE, SCHEMA, FolderLock, StateError, open_database
from scheduler.daemon.state.store import Store
from scheduler.domain.memory import Part
from scheduler.domain.plans import Limits


def opened(folder: Path) -> list[str]:
    """Opens and closes the database; returns what was said."""
    said: list[str] = []
    open_database(folder, warn=said.append).close()
    return said


def test_a_new_folder_gets_a_database_that_is_opened_again_without_a_word(tmp_path: Path) -> None:
    assert opened(tmp_path) == []
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute("INSERT INTO leases VALUES ('CNY', 1, 0.5)")
    connection.commit()
    connection.close()
    assert opened(tmp_path) == []
    with sqlite3.connect(tmp_path / DATABASE) as again:
        assert again.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        assert again.execute("PRAGMA user_version").fetchone()[0] == SCHEMA
        assert again.execute("SELECT * FROM leases").fetchall() == [("CNY", 1, 0.5)]


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_file_is_put_aside_with_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / DATABASE).write_bytes(content)
    [sentence] = opened(tmp_path)
    assert "is damaged" in sentence
    [aside] = tmp_path.glob("*.aside")
    assert aside.name in sentence
    assert aside.read_bytes() == content
    assert opened(tmp_path) == []


def test_a_page_overwritten_in_the_middle_is_noticed(tmp_path: Path) -> None:
    connection = open_database(tmp_path, warn=pytest.fail)
    connection.executemany("INSERT INTO limits VALUES (?, ?)", [(f"m{i}", "x" * 500) for i in range(200)])
    connection.close()
    path = tmp_path / DATABASE
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    [sentence] = opened(tmp_path)
    assert "is damaged" in sentence


def test_a_header_of_a_format_that_does_not_exist_is_damage(tmp_path: Path) -> None:
    assert opened(tmp_path) == []
    content = bytearray((tmp_path / DATABASE).read_bytes())
    content[44:48] = (99).to_bytes(4, "big")
    (tmp_path / DATABASE).write_bytes(content)
    [sentence] = opened(tmp_path)
    assert "is damaged" in sentence


def test_a_damaged_file_that_cannot_be_renamed_is_an_error_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / DATABASE).write_bytes(b"no database at all" * 100)
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(sqlite3.OperationalError, match="is damaged .*cannot be renamed: Permission denied"):
        opened(tmp_path)


def test_rows_that_are_damaged_are_left_out_and_the_others_kept(tmp_path: Path) -> None:
    said: list[str] = []
    store = Store(tmp_path, currency="CNY", warn=said.append)
    for model in ("good", "text", "type"):
        store.save_limits(model, Limits(edge_batch_cap=3))
        store.save_identity(model, Acceptance("sha256:3", ""))
    store.save_memory([Part(name, 1, "f", [1.0]) for name in ("good", "text", "time")])
    store.close()
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        for table, key in (("limits", "model"), ("identities", "model"), ("parts", "name")):
            connection.execute(f"UPDATE {table} SET content = CAST(x'22ff22fe' AS TEXT) WHERE {key} = 'text'")
        connection.execute("UPDATE limits SET content = replace(content, '3', '\"x\"') WHERE model = 'type'")
        connection.execute("UPDATE identities SET content = '[3]' WHERE model = 'type'")
        connection.execute("UPDATE parts SET saved_at_s = 'late' WHERE name = 'time'")
    connection.close()
    assert store.limits() == {"good": Limits(edge_batch_cap=3)}
    assert store.identities() == {"good": Acceptance("sha256:3", "")}
    assert list(store.memory().parts) == ["good"]
    assert len(said) == 6


def test_a_foreign_database_is_put_aside_with_its_content(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / DATABASE) as foreign:
        foreign.execute("CREATE TABLE photos (id INTEGER)")
    foreign.close()
    [sentence] = opened(tmp_path)
    assert "belongs to another program" in sentence
    [aside] = tmp_path.glob("*.aside")
    with sqlite3.connect(aside) as kept:
        assert kept.execute("SELECT count(*) FROM photos").fetchone() == (0,)


def test_a_later_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    opened(tmp_path)
    with sqlite3.connect(tmp_path / DATABASE) as later:
        later.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    later.close()
    with pytest.raises(StateError, match=f"has schema {SCHEMA + 1}.*run that one, or name another folder"):
        opened(tmp_path)
    assert list(tmp_path.glob("*.aside")) == []


def test_a_second_lock_is_refused_and_names_the_process(tmp_path: Path) -> None:
    first = FolderLock(tmp_path)
    with pytest.raises(StateError, match=f"in use by the daemon with process id {os.getpid()}; stop that one"):
        FolderLock(tmp_path)
    first.release()
    FolderLock(tmp_path).release()


def test_a_folder_that_cannot_be_made_is_refused_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be used .*create it for the daemon's user or name another folder"):
        FolderLock(tmp_path / "missing" / "folder")
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="create it"):
        FolderLock(tmp_path / "file")


def test_a_file_of_an_earlier_version_takes_identities(tmp_path: Path) -> None:
    assert opened(tmp_path) == []
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        connection.execute("DROP TABLE identities")
    connection.close()
    store = Store(tmp_path, currency="CNY", warn=lambda _: None)
    assert store.identities() == {}
    store.save_identity("m", Acceptance("sha256:1", "sha256:0"))
    store.save_identity("m", Acceptance("sha256:2", "sha256:0"))
    assert store.identities() == {"m": Acceptance("sha256:2", "sha256:0")}
    store.save_identity("m", None)
    assert store.identities() == {}
    store.close()
