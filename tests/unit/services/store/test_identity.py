"""A database and a data folder that do not belong together are told apart before anybody touches a file."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy.orm import Session

from app.db.base import new_id
from app.db.migrations import alembic_config, migrate
from app.db.models import Generation, Image, Store, TrainedModel
from app.db.session import Database
from app.services.store.identity import StoreMismatch, adopt_store, assign_store_id, check_store
from app.storage.layout import DataFolder
from app.storage.store_id import read_store_id


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Database]:
    """Another database, of which nobody has heard."""
    url = f"sqlite:///{tmp_path / 'other.db'}"
    migrate(url)
    db = Database(url)
    yield db
    db.close()


def add_image(db: Database, folder: DataFolder, *, with_file: bool = True) -> None:
    image_id, generation_id = new_id(), new_id()
    path = folder.image_path(image_id, "png")
    if with_file:
        folder.write(path, b"image")
    with db.transaction() as session:
        session.add(Generation(id=generation_id, pack="", pack_revision="", parameters={}, warnings=[], timings={}))
        session.flush()
        session.add(
            Image(
                id=image_id,
                path=path,
                format="png",
                width=1,
                height=1,
                num_bytes=5,
                sha256="0" * 64,
                lineage={},
                generation_id=generation_id,
                position=0,
            )
        )


def add_model_without_file(db: Database, folder: DataFolder) -> None:
    with db.transaction() as session:
        session.add(
            TrainedModel(
                id=new_id(),
                name="model",
                job_id=new_id(),
                dataset_id=new_id(),
                backbone="",
                backbone_sha256="",
                classes=[],
                metrics={},
                lineage={},
                path=folder.model_path(new_id()),
                sha256="",
                num_bytes=1,
            )
        )


def id_of(db: Database) -> str | None:
    with db.snapshot() as session:
        row = session.get(Store, 1)
    return row.id if row is not None else None


def forget_database_id(db: Database) -> None:
    with db.transaction() as session:
        session.delete(session.get_one(Store, 1))


def refuses(db: Database, folder: DataFolder, words: str) -> None:
    """Expect a refusal that names both settings, from the check and from the settling; nothing has changed after it."""
    before = (id_of(db), sorted(folder.root.rglob("*")))
    for attempt in (lambda: check_store(url_of(db), folder), lambda: assign_store_id(db, folder)):
        with pytest.raises(StoreMismatch, match=words) as refusal:
            attempt()
        assert "FOXHOUND_DATA_DIR" in str(refusal.value)
        assert "FOXHOUND_DATABASE_URL" in str(refusal.value)
        assert "\n" not in str(refusal.value)
    assert (id_of(db), sorted(folder.root.rglob("*"))) == before


def url_of(db: Database) -> str:
    return db.engine.url.render_as_string(hide_password=False)


def test_a_new_folder_and_a_new_database_get_one_id_and_keep_it(db: Database, folder: DataFolder) -> None:
    check_store(url_of(db), folder)
    assert not folder.root.exists()
    store_id = assign_store_id(db, folder)
    assert (read_store_id(folder.root), id_of(db)) == (store_id, store_id)
    add_image(db, folder)
    check_store(url_of(db), folder)
    assert assign_store_id(db, folder) == store_id


def test_another_database_is_refused_new_or_not(db: Database, other: Database, folder: DataFolder) -> None:
    assign_store_id(db, folder)
    refuses(other, folder, "belongs to another database")  # new and empty: a mistyped name
    assign_store_id(other, DataFolder(folder.root.parent / "other"))
    refuses(other, folder, "ids differ")
    add_image(other, DataFolder(folder.root.parent / "other"))
    refuses(other, folder, "ids differ")


@pytest.mark.parametrize(
    "kind", ["images/ab/a.png", "datasets/a/train/b/0.png", "rejected/a", "models/a/b", ".taken/a"]
)
def test_an_empty_database_does_not_get_a_folder_with_files(db: Database, folder: DataFolder, kind: str) -> None:
    folder.write(kind, b"a file that somebody made")
    refuses(db, folder, "holds files unknown to")


@pytest.mark.parametrize("kind", ["packs/a/b", "features/a", "run/engine.lock", "foxhound.db", "node.lock", ".tmp/a"])
def test_what_nobody_made_is_no_obstacle(db: Database, folder: DataFolder, kind: str) -> None:
    folder.write(kind, b"no picture")
    assign_store_id(db, folder)


def test_who_comes_from_a_release_without_ids_gets_one_if_the_files_are_there(db: Database, folder: DataFolder) -> None:
    add_image(db, folder)
    for _ in range(3):
        add_image(db, folder, with_file=False)
    assert assign_store_id(db, folder) == read_store_id(folder.root) == id_of(db)


def test_the_check_reads_the_schema_of_a_release_without_ids(empty_database_url: str, folder: DataFolder) -> None:
    check_store(empty_database_url, folder)
    command.upgrade(alembic_config(empty_database_url), "0004")
    folder.write("images/ab/a.png", b"an image")
    with pytest.raises(StoreMismatch):
        check_store(empty_database_url, folder)


def test_records_without_their_files_are_refused(db: Database, folder: DataFolder) -> None:
    add_image(db, folder, with_file=False)
    refuses(db, folder, "is empty, or not mounted")
    folder.write("images/ab/a.png", b"of another database")
    refuses(db, folder, "holds other files")
    add_image(db, folder)
    add_model_without_file(db, folder)
    refuses(db, folder, "holds other files")  # of each kind some have to be there


def test_a_volume_that_is_not_mounted_is_refused_though_the_database_has_an_id(
    db: Database, folder: DataFolder, tmp_path: Path
) -> None:
    store_id = assign_store_id(db, folder)
    nothing = DataFolder(tmp_path / "mount-point")
    assert assign_store_id(db, nothing) == store_id  # without any record of a file, a new folder is as good
    add_image(db, folder)
    refuses(db, DataFolder(tmp_path / "other-mount-point"), "not mounted")
    (folder.root / "store_id").unlink()
    assert assign_store_id(db, folder) == read_store_id(folder.root) == store_id


def test_a_database_restored_from_before_the_ids_takes_the_folders(db: Database, folder: DataFolder) -> None:
    store_id = assign_store_id(db, folder)
    add_image(db, folder)
    forget_database_id(db)
    assert assign_store_id(db, folder) == id_of(db) == store_id


@pytest.mark.parametrize("content", [b"", b"01a2", b"\xff\xfe\x00", b"x" * 1_000_000])
def test_a_damaged_id_is_refused_and_left(db: Database, folder: DataFolder, content: bytes) -> None:
    assign_store_id(db, folder)
    (folder.root / "store_id").write_bytes(content)
    for attempt in (lambda: check_store(url_of(db), folder), lambda: assign_store_id(db, folder)):
        with pytest.raises(StoreMismatch, match=r"is damaged.*foxhound storage adopt"):
            attempt()
    assert (folder.root / "store_id").read_bytes() == content
    adopt_store(db, folder)
    assign_store_id(db, folder)


def test_a_folder_in_the_place_of_the_id_is_refused(db: Database, folder: DataFolder) -> None:
    (folder.root / "store_id").mkdir(parents=True)
    with pytest.raises(StoreMismatch, match="cannot be read"):
        assign_store_id(db, folder)


def test_a_person_may_say_that_they_belong_together(db: Database, other: Database, folder: DataFolder) -> None:
    assign_store_id(db, folder)
    add_image(db, folder)
    store_id = adopt_store(other, folder)
    assert assign_store_id(other, folder) == store_id
    refuses(db, folder, "ids differ")


class Overtaken(Database):
    """A database that another process uses between this one's first look into it and what follows."""

    meanwhile: Callable[[], object] | None = None

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        with super().snapshot() as session:
            yield session
        act, self.meanwhile = self.meanwhile, None
        if act is not None:
            act()


def test_an_id_that_another_process_assigns_meanwhile_is_taken(
    db: Database, database_url: str, folder: DataFolder
) -> None:
    overtaken = Overtaken(database_url)
    overtaken.meanwhile = lambda: assign_store_id(db, folder)
    assert assign_store_id(overtaken, folder) == read_store_id(folder.root) == id_of(db)
    overtaken.close()


def test_nodes_that_start_at_once_agree_on_one_id(db: Database, database_url: str, folder: DataFolder) -> None:
    add_image(db, folder)
    ids, barrier = [], threading.Barrier(6)

    def start() -> None:
        own = Database(database_url, pool_size=1)
        barrier.wait()
        ids.append(assign_store_id(own, folder))
        own.close()

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ids == [id_of(db)] * 6
    assert read_store_id(folder.root) == id_of(db)
    assert not list((folder.root / ".tmp").iterdir())
