"""Resumable uploads: tus 1.0.0 in front, a blob and exactly one event behind.

    ms = Mainstem("data", services=[Uploads(max_size_bytes=2 << 30)])

    @ms.workflow(on="upload.completed")
    async def check_in(upload: UploadCompleted) -> None:
        await scan(upload.blob)                       # the bytes: blobs.path(upload.blob)

A client uploads to ``<prefix>/uploads/files``. What was acknowledged survives ``kill -9`` and power cuts; the last
offset, the end and the event are one commit.

Where to look: ``protocol.py`` decides (records, an upload's state, one request's bytes); ``headers.py`` reads and
writes header fields; ``asgi.py`` is the edge; ``service.py`` answers; ``reception.py`` takes bytes in; ``storage.py``
has the files and ``registry.py`` the log's side; ``spans.py`` makes a trace of the records.
"""

from mainstem.services.uploads.protocol import UPLOAD_COMPLETED, UPLOAD_PREFIX, UploadCompleted
from mainstem.services.uploads.service import Uploads

__all__ = ["UPLOAD_COMPLETED", "UPLOAD_PREFIX", "UploadCompleted", "Uploads"]
