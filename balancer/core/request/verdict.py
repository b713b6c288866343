"""What the beginning of a connection can be other than a request that is known whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from common.core.ledger import Outcome

if TYPE_CHECKING:
    from balancer.core.request.line import Request


class Reason(Outcome):
    """Why the bytes do not start what the service speaks, or nothing that can be sent anywhere."""

    # the request line
    NOT_HTTP = "not_http"
    TLS_HELLO = "tls_hello"
    EMPTY_LINES = "empty_lines"
    BAD_METHOD = "bad_method"
    BAD_TARGET = "bad_target"
    BAD_VERSION = "bad_version"
    REQUEST_LINE_TOO_LONG = "request_line_too_long"
    # header fields: those that are needed, no others
    HEAD_TOO_LONG = "head_too_long"
    SPACE_BEFORE_COLON = "space_before_colon"
    FOLDED_FIELD = "folded_field"
    BAD_FIELD_VALUE = "bad_field_value"  # NUL or a bare CR in it
    SEVERAL_HOSTS = "several_hosts"
    BAD_HOST = "bad_host"
    # TLS: what is no record of a handshake,
    NOT_TLS = "not_tls"
    PLAIN_HTTP = "plain_http"
    SSLV2_HELLO = "sslv2_hello"
    TLS_ALERT = "tls_alert"
    TLS_RECORD_TYPE = "tls_record_type"
    TLS_RECORD_VERSION = "tls_record_version"
    TLS_RECORD_LENGTH = "tls_record_length"  # nothing in it, or too much
    # and what the handshake begins with
    NO_CLIENT_HELLO = "no_client_hello"
    BAD_CLIENT_HELLO = "bad_client_hello"  # lengths that do not add up
    REPEATED_EXTENSION = "repeated_extension"
    BAD_SERVER_NAME = "bad_server_name"
    BAD_ALPN = "bad_alpn"
    # HTTP/2: its framing, its header section
    HTTP2_PREFACE = "http2_preface"  # not as it should go on
    HTTP2_NO_SETTINGS = "http2_no_settings"  # another frame first
    HTTP2_BAD_FRAME = "http2_bad_frame"  # one that cannot come there
    HTTP2_BAD_STREAM = "http2_bad_stream"
    HTTP2_FRAME_TOO_LONG = "http2_frame_too_long"
    HTTP2_TOO_MANY_FRAMES = "http2_too_many_frames"
    HTTP2_BAD_PADDING = "http2_bad_padding"  # or priority: more than the frame has
    HTTP2_BAD_HPACK = "http2_bad_hpack"
    HTTP2_FIELDS_TOO_LARGE = "http2_fields_too_large"
    HTTP2_PSEUDO_MISSING = "http2_pseudo_missing"
    HTTP2_PSEUDO_REPEATED = "http2_pseudo_repeated"
    HTTP2_PSEUDO_UNKNOWN = "http2_pseudo_unknown"
    HTTP2_PSEUDO_LATE = "http2_pseudo_late"  # behind another field
    HTTP2_BAD_FIELD_NAME = "http2_bad_field_name"
    HTTP2_HOST_DIFFERS = "http2_host_differs"
    # routes
    NO_ROUTE = "no_route"  # none is met, and there is no pool for what is left


@dataclass(frozen=True, slots=True)
class NeedMore:
    """What is needed is not complete yet, and right so far. Before there are ``until`` bytes from
    the first one on, it cannot be complete."""

    until: int = 0


@dataclass(frozen=True, slots=True)
class Bad:
    """Nothing to choose a server by, whatever follows. ``request`` is what was asked for, where
    that could be read: nobody serves it."""

    reason: Reason
    request: Request | None = field(default=None, compare=False)


NEED_MORE: Final = NeedMore()
