"""Stands between two daemons on unix sockets, and holds what they say to each other: neither hears that the other is gone."""

import asyncio
import os
import threading


class Relay:
    def __init__(self, path, to):
        self.path, self.to, self.held = path, to, False
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(ready,), daemon=True)
        self.thread.start()
        assert ready.wait(20)

    def run(self, ready):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(asyncio.start_unix_server(self.accept, self.path))
        os.chmod(self.path, 0o600)
        ready.set()
        self.loop.run_forever()

    async def accept(self, reader, writer):
        try:
            there, back = await asyncio.open_unix_connection(self.to)
        except OSError:  # it is not there: nor are we
            writer.close()
            return
        await asyncio.gather(self.carry(reader, back), self.carry(there, writer))

    async def carry(self, reader, writer):
        try:
            while data := await reader.read(65536):
                while self.held:
                    await asyncio.sleep(0.01)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(20)
