"""Makes the description of the gRPC messages from their .proto files, with the pinned grpcio-tools.

python -m scripts.grpc_messages             # say whether the committed description is that of the .proto files
python -m scripts.grpc_messages --write     # write it
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

FOLDER = Path(__file__).parents[1] / "scheduler" / "daemon" / "grpc"
PROTOS = ("inference.proto", "health.proto")
DESCRIPTION = FOLDER / "messages.binpb"


def description() -> bytes:
    """Returns the serialised FileDescriptorSet of the .proto files.

    Raises:
        ValueError: one of them is not valid; the compiler has printed why.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / DESCRIPTION.name
        if protoc.main(["protoc", f"--proto_path={FOLDER}", f"--descriptor_set_out={made}", *PROTOS]) != 0:
            raise ValueError("a .proto file is not valid")
        return made.read_bytes()


def main() -> int:
    """Writes the description or compares it; returns the exit status."""
    parser = argparse.ArgumentParser(description="Makes the description of the gRPC messages from their .proto files.")
    parser.add_argument("--write", action="store_true", help=f"write {DESCRIPTION.name}")
    if parser.parse_args().write:
        DESCRIPTION.write_bytes(description())
        return 0
    same = DESCRIPTION.read_bytes() == description()
    print(f"{DESCRIPTION.name} is {'that' if same else 'not that'} of {' and '.join(PROTOS)}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
