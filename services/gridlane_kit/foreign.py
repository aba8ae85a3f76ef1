"""The rules of methods that are not Gridlane's own.

Health, reflection and OTLP come from other people's contracts, which carry no Gridlane options;
this table names their permission and class. Everything else must say so in its proto.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from gridlane_kit.admission import AdmissionClass


@dataclass(frozen=True, slots=True)
class MethodRule:
    """What a method declares about itself; `permission` None needs no identity at all.

    `resource` is the path of the request field that names what is acted upon.
    """

    permission: str | None
    admission: AdmissionClass
    resource: str = ""


FOREIGN_RULES: Final[Mapping[str, MethodRule]] = MappingProxyType(
    {
        # Probes of a supervisor, on a port of their own; they learn only whether the server serves.
        "grpc.health.v1.Health/Check": MethodRule(None, AdmissionClass.UNARY),
        "grpc.health.v1.Health/List": MethodRule(None, AdmissionClass.UNARY),
        "grpc.health.v1.Health/Watch": MethodRule(None, AdmissionClass.STREAM),
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": MethodRule(
            "server.reflection.view", AdmissionClass.STREAM
        ),
        # A job's payload sends its spans with the job's own token.
        "opentelemetry.proto.collector.trace.v1.TraceService/Export": MethodRule(
            "reporting.spans.write", AdmissionClass.BATCH
        ),
    }
)
