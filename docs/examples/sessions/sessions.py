"""Who is logged in, and the end of it. Needs python3-grpcio, and grpc_tools.protoc's output beside it.

sessions.py list [USER]     sessions.py revoke USER     sessions.py watch
$SOCKET: the databroker's socket.  $TOKEN: from `postern token create --role session-admin`."""

import os
import sys

import grpc
import session_service_pb2 as pb
import session_service_pb2_grpc as rpc

auth = [("authorization", "Bearer " + os.environ["TOKEN"])]
api = rpc.SessionServiceStub(grpc.insecure_channel("unix:" + os.environ["SOCKET"]))


def sessions(user):
    request = pb.ListSessionsRequest(filter=pb.SessionFilter(user=user))
    while True:
        page = api.List(request, metadata=auth, timeout=10)
        yield from page.sessions
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def main(verb, user=""):
    if verb == "list":
        for s in sessions(user):
            print(s.id, s.email, s.address, s.issued_at.ToJsonString())
    elif verb == "revoke":
        done = api.Revoke(pb.RevokeSessionsRequest(filter=pb.SessionFilter(user=user)), metadata=auth, timeout=60)
        print("revoked", done.revoked)
    elif verb == "watch":
        for event in api.Watch(pb.WatchSessionsRequest(), metadata=auth):
            kind = event.WhichOneof("event")
            print(kind, event.session.id or event.ended, flush=True)


main(*sys.argv[1:])
