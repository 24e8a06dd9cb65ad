"""Iceberg's metadata through our own objects: with their patience, their errors, and a create
that overwrites nothing.

PyIceberg's Arrow file system takes four requests to write a file, asks before it creates (and
overwrites what came in between), cannot be interrupted, and tells a store that is away as an
OSError. It still serves data files, which PyIceberg itself reads and writes only when rows have to
be rewritten, and stores other than the lake's bucket.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING

from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream
from pyiceberg.typedef import EMPTY_DICT, Properties

from lakewarden.aws.objects import ObjectExists, ObjectMissing, Objects
from lakewarden.errors import Failed

if TYPE_CHECKING:
    from pyiceberg.io.pyarrow import PyArrowFileIO

_METADATA = (".json", ".avro")

_OBJECTS = "lakewarden.objects"  # among the properties, which is how PyIceberg makes a FileIO


def file_io_properties(s3: Mapping[str, str], objects: Callable[[], Objects] | None) -> Properties:
    """What PyIceberg makes its FileIO from: `s3` are its own `s3.*` properties; `objects` is asked
    for the bucket when its first file is needed (None: all goes by the Arrow file system)."""
    if objects is None:
        return {"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO", **s3}
    return {"py-io-impl": f"{LakeFileIO.__module__}.{LakeFileIO.__name__}", _OBJECTS: objects, **s3}


class MetadataMissing(Failed, FileNotFoundError):
    """A file of Iceberg's metadata is gone from the bucket."""


class LakeFileIO(FileIO):
    """PyIceberg's FileIO; made by PyIceberg from `file_io_properties`."""

    def __init__(self, properties: Properties = EMPTY_DICT) -> None:
        super().__init__(properties)
        self._objects: Callable[[], Objects] = properties[_OBJECTS]

    @cached_property
    def _arrow(self) -> "PyArrowFileIO":
        from pyiceberg.io.pyarrow import PyArrowFileIO  # most commands read metadata alone

        return PyArrowFileIO({k: v for k, v in self.properties.items() if k != _OBJECTS})

    def new_input(self, location: str) -> InputFile:
        file = self._ours(location)
        return self._arrow.new_input(location) if file is None else file

    def new_output(self, location: str) -> OutputFile:
        file = self._ours(location)
        return self._arrow.new_output(location) if file is None else file

    def delete(self, location: str | InputFile | OutputFile) -> None:
        file = self._ours(location if isinstance(location, str) else location.location)
        if file is None:
            self._arrow.delete(location)
        else:
            file.delete()

    def _ours(self, location: str) -> "_MetadataFile | None":
        if not (location.startswith("s3://") and location.endswith(_METADATA)):
            return None
        objects = self._objects()
        home = f"s3://{objects.bucket}/"
        if not location.startswith(home):
            return None
        return _MetadataFile(location, objects, location.removeprefix(home))


class _MetadataFile(InputFile, OutputFile):
    """One small object, read and written whole."""

    def __init__(self, location: str, objects: Objects, key: str) -> None:
        super().__init__(location)
        self._objects = objects
        self._key = key
        self._size: int | None = None  # as it was written here

    def __len__(self) -> int:
        if self._size is not None:
            return self._size
        found = self._objects.head(self._key)
        if found is None:
            raise self._missing()
        return found.size

    def exists(self) -> bool:
        return self._objects.head(self._key) is not None

    def open(self, seekable: bool = True) -> InputStream:
        try:
            return BytesIO(self._objects.get(self._key).body)
        except ObjectMissing as error:
            raise self._missing() from error

    def create(self, overwrite: bool = False) -> OutputStream:
        return _Upload(lambda body: self._write(body, overwrite=overwrite))

    def to_input_file(self) -> InputFile:
        return self

    def delete(self) -> None:
        self._objects.delete(self._key)

    def _write(self, body: bytes, *, overwrite: bool) -> None:
        try:
            if overwrite:
                self._objects.put(self._key, body)
            else:
                self._objects.create(self._key, body)
        except ObjectExists as error:
            raise FileExistsError(f"cannot create {self.location}: it exists") from error
        self._size = len(body)

    def _missing(self) -> MetadataMissing:
        return MetadataMissing(
            f"there is no {self.location}",
            hint="The catalog refers to it, and nothing of ours deletes such files. If the bucket"
            " has versions, it comes back when its delete marker is deleted.",
        )


class _Upload(BytesIO):
    """Bytes that become an object when they are closed, unless an error closes them."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        super().__init__()
        self._write = write

    def close(self) -> None:
        if self.closed:
            return
        body = self.getvalue()
        super().close()
        self._write(body)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()
        else:
            super().close()

    def __del__(self) -> None:
        """What nobody closed is not written."""
        super().close()
