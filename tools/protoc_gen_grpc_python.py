"""A protoc plugin that makes `_pb2_grpc.py`, out of the generator inside grpcio-tools.

buf speaks the plugin protocol (a CodeGeneratorRequest in, a CodeGeneratorResponse out), which the
generator of grpcio-tools, compiled into its protoc, does not. Called by buf.gen.yaml alone, with
the Python of .tools/oldest.
"""

import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2
from grpc_tools import protoc


def generate(request: plugin_pb2.CodeGeneratorRequest, scratch: Path) -> None:
    """Writes the service code of the request's files below `scratch`."""
    image = scratch / "image.binpb"
    files = descriptor_pb2.FileDescriptorSet(file=request.proto_file)
    image.write_bytes(files.SerializeToString())
    arguments = [f"--descriptor_set_in={image}", f"--grpc_python_out={scratch}"]
    status = protoc.main(["protoc", *arguments, *request.file_to_generate])
    image.unlink()
    if status != 0:
        sys.exit(status)


def main() -> None:
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        generate(request, scratch)
        for path in sorted(scratch.rglob("*.py")):
            name = path.relative_to(scratch).as_posix()
            response.file.add(name=name, content=path.read_text(encoding="utf-8"))
    sys.stdout.buffer.write(response.SerializeToString())


if __name__ == "__main__":
    main()
