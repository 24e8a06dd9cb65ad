"""Iceberg's metadata through our own objects."""

from typing import NoReturn

import pytest
from pyiceberg.io import FileIO, load_file_io

from lakewarden.aws.objects import StorageUnavailable
from lakewarden.lake.file_io import file_io_properties
from tests.fakes.objects import MemoryObjects

PLACE = "s3://lake/warehouse/raw/t/metadata/1.metadata.json"


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects("lake")


@pytest.fixture
def io(objects: MemoryObjects) -> FileIO:
    here = {"s3.region": "us-east-1"}  # Arrow would ask the network for it
    return load_file_io(dict(file_io_properties(here, lambda: objects)), PLACE)


def test_what_is_written_is_read(io: FileIO, objects: MemoryObjects) -> None:
    output = io.new_output(PLACE)
    assert not output.exists()
    with output.create() as stream:
        stream.write(b"{")
        stream.write(b"}")
        assert not list(objects.list(""))
    assert len(output) == len(io.new_input(PLACE)) == 2
    assert io.new_input(PLACE).exists()
    with io.new_input(PLACE).open() as read:
        assert read.read() == b"{}"


def test_a_create_overwrites_nothing(io: FileIO, objects: MemoryObjects) -> None:
    stream = io.new_output(PLACE).create()
    objects.put("warehouse/raw/t/metadata/1.metadata.json", b"somebody was faster")
    stream.write(b"late")
    with pytest.raises(FileExistsError, match=r"1\.metadata\.json"):
        stream.close()
    with io.new_output(PLACE).create(overwrite=True) as other:
        other.write(b"meant")
    assert io.new_input(PLACE).open().read() == b"meant"


def test_what_was_begun_and_failed_is_not_written(io: FileIO, objects: MemoryObjects) -> None:
    with pytest.raises(KeyError), io.new_output(PLACE).create() as stream:
        stream.write(b"half of")
        raise KeyError
    del stream
    io.new_output(PLACE).create().write(b"never closed")
    assert not list(objects.list(""))


def test_what_is_missing_is_told_as_pyiceberg_expects_it(io: FileIO) -> None:
    file = io.new_input(PLACE)
    with pytest.raises(FileNotFoundError, match=PLACE):
        file.open()
    with pytest.raises(FileNotFoundError, match=PLACE):
        len(file)
    io.delete(PLACE)


def test_a_store_that_is_away_is_told_by_its_name() -> None:
    class Away(MemoryObjects):
        def put(self, key: str, body: bytes) -> NoReturn:
            raise StorageUnavailable("away")

    io = load_file_io(dict(file_io_properties({}, lambda: Away("lake"))), PLACE)
    with (
        pytest.raises(StorageUnavailable),
        io.new_output(PLACE).create(overwrite=True) as stream,
    ):
        stream.write(b"{}")


@pytest.mark.parametrize("place", ["file:///tmp/1.metadata.json", "s3://other/1.metadata.json"])
def test_other_places_are_left_to_arrow(io: FileIO, place: str) -> None:
    assert type(io.new_input(place)).__name__ == "PyArrowFile"
    assert type(io.new_input(PLACE)).__name__ != "PyArrowFile"


def test_data_files_are_left_to_arrow(io: FileIO) -> None:
    assert type(io.new_output("s3://lake/data/1.parquet")).__name__ == "PyArrowFile"
