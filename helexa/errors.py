"""Every error that a person or a client can see, in one tree.

HelexaError                 an expected failure: told to the asker, the actor lives on
  InvalidRequest            400
    MissingModelField       400 missing_model_field
    BodyTooLarge            400 body_too_large
    ContextLengthExceeded   400 context_length_exceeded
    VisionUnsupported       400 vision_unsupported
  MethodNotAllowed          405
  RequestTimeout            408 request_timeout        the client stopped in the middle of a request
  PreconditionFailed        412 precondition_failed    it is not what it was when it was listed
  UnsupportedMedia          415
  RangeNotSatisfiable       416 range_not_satisfiable
  UpgradeRefused            426 upgrade_refused        this server speaks HTTP/1.1 alone
  HeadersTooLarge           431 headers_too_large
  TemplateRenderFailed      422 template_render_failed
  Unauthorized              401 invalid_api_key
  Forbidden                 403
  NotFound                  404
    ModelNotFound           404 model_not_found
      NotLoaded             404 model_not_found        on this node, now
    ResponseNotFound        404 previous_response_not_found
  ModelBusy                 409 model_busy
  PrincipalBusy             429 rate_limit_exceeded
    BudgetHeld              429 rate_limit_exceeded    by the same principal's requests under way
  BudgetExhausted           429 rate_limit_exceeded    until its window makes room
  InsufficientQuota         429 insufficient_quota     a balance, which nothing but a person renews
  TooManyAttempts           429 rate_limit_exceeded    with keys that nobody knows
  Busy                      503 rate_limit_exceeded    the queue is full, or the wait was too long
  ServiceUnavailable        503 service_unavailable
    NotFetched              503 service_unavailable    (`fleet.known`) a request may bring the files in
    ActorDown               503 service_unavailable    crashed with this request in hand
    LedgerUnavailable       503 service_unavailable    what is spent cannot be written down
  InsufficientVram          503 insufficient_vram
  StoreError                a model cannot be had: one sentence for a person
  UpstreamError             502 upstream_error         another server's error, passed on
    UpstreamMalformed       502 upstream_malformed_response
ConfigError                 all mistakes of a configuration at once (exit code 2)
CannotBind                  a listener's address is not to be had (exit code 3)
GaveUp                      a supervisor ran out of restarts (exit code 4)
DevicePoisoned              the device is unusable until the process exits (exit code 5)
StateInUse                  another process holds the state directory (exit code 6)

How an error looks on the wire is the business of `helexa.wire.envelope`.
"""

from typing import Any


class HelexaError(Exception):
    """An expected failure.

    `status`, `type` and `code` are what the HTTP layer shows; `param` names the offending field as a
    path (`messages[2].content`); `retry_after` is in seconds, rounded up to whole ones on the wire,
    and infinite where coming back will not help by itself; `details` are diagnostics that stand
    beside the message (`free_mb`, `prompt_len`, ...).  `said` is the whole body in which another
    server said it in the client's own dialect: then it is told in those words.
    """

    status: int = 500
    type: str = "api_error"
    code: str | None = None
    said: bytes | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.details = details

    def again(self, retry_after: float | None = None) -> "HelexaError":
        """A copy for another asker: an exception gathers the frames that it is raised through."""
        wait = self.retry_after if retry_after is None else retry_after
        return type(self)(self.message, param=self.param, retry_after=wait, **self.details)


class InvalidRequest(HelexaError):
    status, type = 400, "invalid_request_error"


class MissingModelField(InvalidRequest):
    code = "missing_model_field"


class BodyTooLarge(InvalidRequest):
    code = "body_too_large"


class ContextLengthExceeded(InvalidRequest):
    code = "context_length_exceeded"


class VisionUnsupported(InvalidRequest):
    code = "vision_unsupported"


class MethodNotAllowed(InvalidRequest):
    status, code = 405, "method_not_allowed"


class RequestTimeout(InvalidRequest):
    status, code = 408, "request_timeout"


class PreconditionFailed(InvalidRequest):
    status, code = 412, "precondition_failed"


class UnsupportedMedia(InvalidRequest):
    status, code = 415, "unsupported_media_type"


class RangeNotSatisfiable(InvalidRequest):
    status, code = 416, "range_not_satisfiable"


class UpgradeRefused(InvalidRequest):
    """Of a WebSocket.  Codex asks over HTTP at once after this status, and after others later."""

    status, code = 426, "upgrade_refused"


class HeadersTooLarge(InvalidRequest):
    status, code = 431, "headers_too_large"


class TemplateRenderFailed(InvalidRequest):
    status, code = 422, "template_render_failed"


class Unauthorized(HelexaError):
    status, type, code = 401, "invalid_request_error", "invalid_api_key"


class Forbidden(HelexaError):
    status, type, code = 403, "invalid_request_error", "forbidden"


class NotFound(HelexaError):
    status, type, code = 404, "invalid_request_error", "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class NotLoaded(ModelNotFound):
    """Not on this node now: whoever may load it does so, others are told."""


class ResponseNotFound(NotFound):
    """A stored response that is not there, not there any more, or somebody else's."""

    code = "previous_response_not_found"


class ModelBusy(HelexaError):
    status, type, code = 409, "invalid_request_error", "model_busy"


class PrincipalBusy(HelexaError):
    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"


class BudgetHeld(PrincipalBusy):
    """Requests under way hold what is left; some of it comes back when they end."""


class BudgetExhausted(HelexaError):
    """Of a window that renews itself; `retry_after` says when."""

    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"


class InsufficientQuota(HelexaError):
    """Of a balance.  Clients stop at this code."""

    status, type, code = 429, "insufficient_quota", "insufficient_quota"


class TooManyAttempts(HelexaError):
    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"


class Busy(HelexaError):
    status, type, code = 503, "rate_limit_error", "rate_limit_exceeded"


class ServiceUnavailable(HelexaError):
    status, code = 503, "service_unavailable"


class ActorDown(ServiceUnavailable):
    """The actor crashed, or is gone for good, with this request in hand."""


class LedgerUnavailable(ServiceUnavailable):
    """What would be spent cannot be written down, so nothing may be."""


class InsufficientVram(HelexaError):
    status, code = 503, "insufficient_vram"


class StoreError(HelexaError):
    """A model cannot be fetched, read or prepared; the message says why in one sentence."""

    status, code = 503, "service_unavailable"


class UpstreamError(HelexaError):
    """An error that another server answered with; its own type and code may replace ours."""

    status, code = 502, "upstream_error"


class UpstreamMalformed(UpstreamError):
    code = "upstream_malformed_response"


class ConfigError(Exception):
    """Every mistake found in a configuration, each with its path."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class CannotBind(Exception):
    """A listener's address cannot be had."""


class GaveUp(Exception):
    """A supervisor ran out of restarts."""


class DevicePoisoned(Exception):
    """The device's context is unusable until the process exits."""


class StateInUse(Exception):
    """Another process holds the state directory."""
