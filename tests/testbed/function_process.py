"""Container and endpoint in one process: answers invocations after a service time, all else with an empty object.

`python -m testbed.function_process HOST PORT ALPHA_S BETA_S`.
"""

import asyncio
import sys
from dataclasses import replace

from support.stub_fc import Heard, Say, StubFc, answer_frame

from scheduler import wire


async def main(host: str, port: int, alpha_s: float, beta_s: float) -> None:
    """Serves until it is killed."""

    def script(heard: Heard) -> Say:
        if heard.method == "GET" or "authorization" not in heard.headers:
            return Say(200 if heard.method == "GET" else 403, b"{}", {"Content-Type": "application/json"})
        _, payload = wire.unpack_frame(heard.body)
        items = len(wire.parse_request(payload.body, payload.json_length).inputs[0].elements()) if payload.body else 0
        service_s = alpha_s + beta_s * items if items else 0.001
        said = answer_frame(heard, cold_start=False, service_s=service_s, duration_s=service_s)
        return replace(said, hang_s=service_s)

    stub = StubFc(script)
    server = await asyncio.start_server(stub.serve_connection, host, port, limit=2**26)
    print('{"event": "ready"}', flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
