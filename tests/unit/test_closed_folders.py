"""What another user keeps: folders of recordings and of the state that may not be read are one sentence."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from scheduler.daemon.config.config import load_config
from scheduler.daemon.state.store import Store
from scheduler.domain.errors import EdgeburstError
from scheduler.recordings.layout import RecordingError
from scheduler.recordings.recorded import is_recording, read_recorded
from scheduler.whatif.site import learned_memory

OTHER_USER = 65534


@contextmanager
def closed(folder: Path) -> Iterator[None]:
    """Only root may look into the folder, and this process is not root."""
    folder.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(OTHER_USER)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)


def test_a_recording_that_may_not_be_read_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "arrivals").mkdir()
    (tmp_path / "arrivals" / "a.arrivals").write_bytes(b"")
    for path in (tmp_path / "arrivals", tmp_path / "arrivals" / "a.arrivals"):
        with closed(tmp_path):
            with pytest.raises(RecordingError) as refused:
                read_recorded(path)
            assert not is_recording(path)
        assert str(refused.value) == (
            f"cannot read the recording {path}: Permission denied; read it as the daemon's user, or a copy of it"
        )


def test_a_folder_that_may_not_be_listed_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(RecordingError, match="Permission denied; read it as the daemon's user"):
        read_recorded(tmp_path)


def test_a_state_folder_that_may_not_be_read_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with closed(tmp_path), pytest.raises(EdgeburstError) as refused:
        learned_memory(tmp_path)
    assert str(refused.value) == (
        f"what was learned cannot be read from {tmp_path}/state.sqlite3 (Permission denied); be the daemon's user, or"
        " name a copy of the folder as `state`"
    )


def test_a_state_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "100% what? #1"
    folder.mkdir()
    with closing(Store(folder, currency="CNY", warn=print)) as store:
        store.open()
    assert learned_memory(folder)[1] == str(folder / "state.sqlite3")


def test_a_configuration_can_be_checked_by_one_who_may_not_look_into_its_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "edgeburst.toml"
    tables = (
        '[record]\nfolder = "closed/arrivals"\n[explain]\nfile = "closed/explained"\n[edge]\nurl = "http://edge:1"\n'
    )
    path.write_text(f'{tables}[[model]]\nname = "resnet50"\nedge_profile = "orin-resnet50"\n')
    (tmp_path / "closed").mkdir()
    stat = Path.stat

    def denied(which: Path, **options: Any) -> os.stat_result:
        if which.parent.name == "closed":
            raise PermissionError(13, "Permission denied", str(which))
        return stat(which, **options)

    monkeypatch.setattr(Path, "stat", denied)
    assert load_config(path, {}).record_folder() == tmp_path / "closed" / "arrivals"
