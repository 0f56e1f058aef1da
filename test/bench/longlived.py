"""Upstreams whose answers do not end: a WebSocket that says nothing, a download, a gRPC stream. Prints "listening on
PORT GRPC_PORT". Ends with its standard input."""

import asyncio
import base64
import hashlib
import sys

import grpc

EVERY_S, CHUNK, SIZE = 0.2, 16384, 1 << 40
UUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 4.2.2
STREAM = "/bench.Live/Follow"


async def websocket(fields, reader, writer):
    accept = base64.b64encode(hashlib.sha1((fields["sec-websocket-key"] + UUID).encode()).digest()).decode()
    writer.write(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode())
    await reader.read(65536)  # an end, or a close frame: nothing else is said here


async def download(writer):
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n".encode())
    while True:
        writer.write(b"d" * CHUNK)
        await writer.drain()
        await asyncio.sleep(EVERY_S)


async def serve(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            fields = dict((k.lower(), v) for k, _, v in (line.partition(": ") for line in head[1:]) if k)
            path = head[0].split(" ")[1]
            if path == "/websocket":
                return await websocket(fields, reader, writer)
            if path == "/download":
                return await download(writer)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    except (OSError, asyncio.IncompleteReadError):
        pass  # it was closed, as it should be
    finally:
        writer.close()


async def follow(_request, _context):
    while True:
        yield b"news"
        await asyncio.sleep(EVERY_S)


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    calls = grpc.aio.server()
    calls.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(
        STREAM.split("/")[1], {STREAM.split("/")[2]: grpc.unary_stream_rpc_method_handler(follow)}),))
    port = calls.add_insecure_port("127.0.0.1:0")
    await calls.start()
    print(f"listening on {server.sockets[0].getsockname()[1]} {port}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await calls.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
