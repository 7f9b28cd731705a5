"""Stands between a hospital and the server, with a certificate of their authority, and keeps what goes over."""

import asyncio
import ssl
import threading
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from gliofed.server.provisioning.certificates import load_authority, write_certificate


class Recorder:
    """Bytes before encryption, of every connection; both ends' TLS is ended here."""

    def __init__(self, study: Path, port: int, folder: Path) -> None:
        """Stand before the server of `study`, which listens on `port` of loopback."""
        authority = load_authority(study)
        folder.mkdir()
        write_certificate(folder / "tap.crt", authority, ("127.0.0.1",), 1, datetime.now(UTC))
        self._as_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._as_server.load_cert_chain(folder / "tap.crt", folder / "tap.key")
        self._as_client = ssl.create_default_context(cafile=str(study / "ca" / "ca.crt"))
        self._server, self._sent, self._came = port, list[bytearray](), list[bytearray]()
        self._ready, self._loop, self.port = threading.Event(), asyncio.new_event_loop(), 0
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self) -> "Recorder":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        self._loop.close()

    def sent(self) -> bytes:
        """All that the hospital sent."""
        return b"\n".join(bytes(each) for each in list(self._sent))

    def came(self) -> bytes:
        """All that it received."""
        return b"\n".join(bytes(each) for each in list(self._came))

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        listening = await asyncio.start_server(self._pass, "127.0.0.1", 0, ssl=self._as_server)
        self.port = int(listening.sockets[0].getsockname()[1])
        self._ready.set()
        await self._over.wait()
        listening.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _pass(self, reader: StreamReader, writer: StreamWriter) -> None:
        sent, came = bytearray(), bytearray()
        self._sent.append(sent)
        self._came.append(came)
        with suppress(OSError):
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server, ssl=self._as_client)
            try:
                await asyncio.gather(_pump(reader, server_writer, sent), _pump(server_reader, writer, came))
            finally:
                server_writer.transport.abort()
        writer.transport.abort()


async def _pump(source: StreamReader, target: StreamWriter, kept: bytearray) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            kept += data
            target.write(data)
            await target.drain()
    target.close()
