"""What is kept of a request when it has ended: its record, its metrics, its log line."""

from collections.abc import Callable

from helexa import logs
from helexa.conversation import Principal
from helexa.errors import HelexaError
from helexa.metrics import Metrics
from helexa.records import Record, Records
from helexa.trace import Trace
from helexa.wire import envelope
from helexa.wire.envelope import Shape

log = logs.get("helexa.request")

CLIENT_LEFT = 499  # the status that nginx made usual for a client that went away


Audit = Callable[[HelexaError, Principal, str], None]


def unaudited(error: HelexaError, principal: Principal, request_id: str) -> None:
    """Of a node: whoever asks it has an audit."""


class Recorder:
    """`audit` hears of every error that a request ended by."""

    def __init__(self, metrics: Metrics, records: Records, audit: Audit = unaudited) -> None:
        self._metrics = metrics
        self._records = records
        self._audit = audit

    def finish(self, trace: Trace) -> None:
        """Called once, when nothing more will happen to the request, however it ended."""
        trace.end("client_left")
        self._records.add(record_of(trace))
        self._count(trace)
        if trace.error is not None:
            self._audit(trace.error, trace.principal, trace.request_id)
        log.info("request ended", **line_of(trace))

    def _count(self, trace: Trace) -> None:
        metrics, where = self._metrics, (self._metrics.label(trace.model), trace.node)
        metrics.requests.labels(*where, trace.outcome).inc()
        metrics.duration.labels(*where).observe(trace.seconds)
        if trace.admitted_at is not None:
            metrics.queue_wait.labels(*where).observe(trace.queue_seconds)
        if trace.first_token_seconds is not None:
            metrics.first_token.labels(*where).observe(trace.first_token_seconds)
        if trace.tokens_per_second is not None:
            metrics.rate.labels(*where).observe(trace.tokens_per_second)
            metrics.between_tokens.labels(*where).observe(1 / trace.tokens_per_second)
            metrics.longest_gap.labels(*where).observe(trace.longest_gap)
        if trace.usage is not None:
            metrics.prompt_tokens.labels(*where).inc(trace.usage.prompt_tokens)
            metrics.completion_tokens.labels(*where).inc(trace.usage.completion_tokens)
            metrics.reasoning_tokens.labels(*where).inc(trace.usage.reasoning_tokens)


def status_of(trace: Trace) -> int:
    """As the client was told it, or would have been had its stream not begun."""
    if trace.error is not None:
        shape: Shape = "responses" if trace.dialect == "responses" else "openai"
        return envelope.status_of(trace.error, shape)
    return CLIENT_LEFT if trace.finish == "client_left" else 200


def record_of(trace: Trace) -> Record:
    usage = trace.usage
    return Record(
        request_id=trace.request_id,
        client_request_id=trace.client_request_id,
        time=trace.wall_time,
        account=trace.principal.account_id,
        key=trace.principal.key_id,
        model=trace.model,
        node=trace.node or None,
        dialect=trace.dialect,
        stream=trace.stream,
        status=status_of(trace),
        code=None if trace.error is None else trace.outcome,
        seconds=round(trace.seconds, 4),
        queue_seconds=rounded(trace.queue_seconds if trace.admitted_at else None),
        load_seconds=rounded(trace.load_seconds),
        prefill_seconds=rounded(trace.prefill_seconds),
        decode_seconds=rounded(trace.decode_seconds),
        prompt_tokens=usage.prompt_tokens if usage else None,
        cached_tokens=usage.cached_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        tokens_per_second=rounded(trace.tokens_per_second),
        finish=trace.finish,
        decisions=tuple(trace.decisions),
    )


def line_of(trace: Trace) -> dict[str, object]:
    fields = {
        "model": trace.model,
        "status": status_of(trace),
        "outcome": trace.outcome,
        "account": trace.principal.account_id,
        "client_request_id": trace.client_request_id,
        "seconds": rounded(trace.seconds),
        "first_token_seconds": rounded(trace.first_token_seconds),
        "prompt_tokens": trace.usage.prompt_tokens if trace.usage else None,
        "completion_tokens": trace.usage.completion_tokens if trace.usage else None,
        "reason": trace.error.message if trace.error else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
