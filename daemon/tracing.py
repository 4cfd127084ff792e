"""Where spans go: to a collector that speaks OTLP over gRPC, through OpenTelemetry's own packages.

They are an extra (``pip install 'actcd[tracing]'``), imported only if tracing is asked for.  Spans are gathered and
sent by a thread of the library, a few seconds late and without holding anybody up; those that do not fit into its
queue are dropped.  Settings and sampling as in etcd: a span whose parent is sampled always is, others by the rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.version import SERVER_VERSION
from net.rpc import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry import trace

    from config.schema import Tracing
    from services.tracing import Span, StartSpan

MISSING: Final = (
    "enable-distributed-tracing needs OpenTelemetry's packages, which are not installed: pip install 'actcd[tracing]'"
)
MILLION: Final = 1_000_000
SERVER_FAULTS: Final = frozenset(
    (Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS)
)
"""Codes that are errors of the server, by OpenTelemetry's conventions for gRPC."""


class NoTracing(Exception):  # noqa: N818 - named for what there is not
    """The packages are not installed; the text says what to do."""


def start_tracing(settings: Tracing) -> tuple[StartSpan, Callable[[], None]]:
    """Return what begins spans, and what sends the last of them.  Raises NoTracing."""
    try:
        from opentelemetry import trace  # noqa: PLC0415 - only where it is asked for
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415
    except ImportError:
        raise NoTracing(MISSING) from None
    described = {
        "service.name": settings.distributed_tracing_service_name,
        "service.version": SERVER_VERSION,
    }
    if settings.distributed_tracing_instance_id:
        described["service.instance.id"] = settings.distributed_tracing_instance_id
    sampler = ParentBased(TraceIdRatioBased(settings.distributed_tracing_sampling_rate / MILLION))
    provider = TracerProvider(sampler=sampler, resource=Resource.create(described), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=settings.distributed_tracing_address, insecure=True)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer, propagator = provider.get_tracer("actcd", SERVER_VERSION), TraceContextTextMapPropagator()

    def start(method: str, metadata: Mapping[str, Sequence[str]]) -> Span | None:
        carrier = {name: metadata[name][0] for name in ("traceparent", "tracestate") if metadata.get(name)}
        service, _, name = method[1:].partition("/")
        span = tracer.start_span(
            method[1:],
            context=propagator.extract(carrier) if carrier else None,
            kind=trace.SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
        )
        return _Span(span, trace.Status(trace.StatusCode.ERROR)) if span.is_recording() else None

    return start, provider.shutdown


class _Span:
    """A span of OpenTelemetry's, as services see it."""

    def __init__(self, span: trace.Span, fault: trace.Status) -> None:
        self._span = span
        self._fault = fault

    def end(self, code: Code) -> None:
        """See Span."""
        self._span.set_attribute("rpc.grpc.status_code", int(code))
        if code in SERVER_FAULTS:
            self._span.set_status(self._fault)
        self._span.end()
