"""Generates the client's Python packages from the contracts, or checks that they are up to date.

    python tools/generate.py            regenerate clients/python/gridlane/<package>
    python tools/generate.py --check    regenerate into scratch, compare, exit 1 on a difference

The steps: buf builds an image of protos/; the IMPORT of the validation proto is dropped from it;
buf runs the plugins of buf.gen.yaml into a scratch directory; the generated packages, and nothing
else, are put in place of the old ones. The hand-written client lives beside them under other names.

Why the import is dropped: with it every stub would import `buf.validate`, and the client's wheel
would have to ship it or depend on it. Without it the rules stay in the descriptors as option bytes
of an unknown extension, which the server's protovalidate reads just as well. Dropping the options
too would make a server that accepts everything in silence.

Called by `make generate`, `make check-generated` and the contract tests.
"""

import argparse
import filecmp
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parent.parent
CLIENT = ROOT / "clients" / "python"
VALIDATION_PROTO = "buf/validate/validate.proto"


def buf(*arguments: str | Path) -> None:
    """Runs buf in the repository; a failure ends this program with buf's own words."""
    result = subprocess.run([Path(sys.executable).with_name("buf"), *arguments], cwd=ROOT)
    if result.returncode != 0:
        sys.exit(result.returncode)


def drop_validation_import(file: descriptor_pb2.FileDescriptorProto) -> None:
    """Removes the file's dependency on the validation proto; its options keep their bytes."""
    if VALIDATION_PROTO not in file.dependency:
        return
    dropped = list(file.dependency).index(VALIDATION_PROTO)
    del file.dependency[dropped]
    # These two list dependencies by their index.
    for indices in (file.public_dependency, file.weak_dependency):
        indices[:] = [i - (i > dropped) for i in indices if i != dropped]


def build_image(path: Path) -> descriptor_pb2.FileDescriptorSet:
    """Writes the contracts with all they import, less the validation proto, to `path`."""
    buf("build", "protos", "--output", path)
    image = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
    kept = [file for file in image.file if file.name != VALIDATION_PROTO]
    for file in kept:
        drop_validation_import(file)
    contracts = descriptor_pb2.FileDescriptorSet(file=kept)
    path.write_bytes(contracts.SerializeToString())
    return contracts


def packages() -> list[str]:
    """The generated packages below `gridlane`: one for every folder of contracts."""
    return sorted(path.name for path in (ROOT / "protos" / "gridlane").iterdir() if path.is_dir())


def generate(scratch: Path) -> Path:
    """Generates everything below `scratch`; returns the folder that stands for `gridlane`."""
    image = scratch / "image.binpb"
    contracts = build_image(image)
    output = scratch / "generated"
    buf("generate", image, "--template", "buf.gen.yaml", "--output", output)
    drop_empty_stubs(output, contracts)
    for package in packages():
        add_package_markers(output / "gridlane" / package, f"gridlane.{package}")
    return output / "gridlane"


def drop_empty_stubs(output: Path, contracts: descriptor_pb2.FileDescriptorSet) -> None:
    """Removes the service modules of files without a service, which the plugins write anyway."""
    for file in contracts.file:
        if not file.service:
            for suffix in ("_pb2_grpc.py", "_pb2_grpc.pyi"):
                (output / file.name.replace(".proto", suffix)).unlink(missing_ok=True)


def add_package_markers(folder: Path, name: str) -> None:
    """Writes an `__init__.py` into every folder: without one, import-linter sees nothing there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").write_text(f'"""Generated from the contracts of {name}."""\n')
    for child in sorted(path for path in folder.iterdir() if path.is_dir()):
        add_package_markers(child, f"{name}.{child.name}")


def sync(generated: Path) -> None:
    """Replaces each generated package of the client, so that no file of an old contract stays."""
    for package in packages():
        target = CLIENT / "gridlane" / package
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(generated / package, target)


def source_files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*.py*") if path.suffix != ".pyc"}


def differences(generated: Path) -> Iterator[str]:
    """Every generated file that is missing, left over or different in the client."""
    for package in packages():
        fresh, present = generated / package, CLIENT / "gridlane" / package
        for name in sorted(source_files(fresh) | source_files(present)):
            if not (present / name).exists():
                yield f"missing: {package}/{name}"
            elif not (fresh / name).exists():
                yield f"left over: {package}/{name}"
            elif not filecmp.cmp(fresh / name, present / name, shallow=False):
                yield f"differs: {package}/{name}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Generate the client's packages.")
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 if they differ")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as directory:
        generated = generate(Path(directory))
        if not check:
            sync(generated)
            print(f"generated: {', '.join(packages())}")
            return
        found = list(differences(generated))
    if found:
        print("\n".join(found), file=sys.stderr)
        sys.exit("The generated code is not what the contracts say. Run: make generate")
    print("generated code is up to date")


if __name__ == "__main__":
    main()
