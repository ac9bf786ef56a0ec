"""Who is let in: the options that must fit the transport, and the authenticator's verdict.

Owns nothing. Invariant: whatever the authenticator does, the connection gets an answer, and it is
no unless the authenticator said yes.
"""

from __future__ import annotations

import logging

from mcast.auth import Allowed, Authenticator, AuthRequest, Denied
from mcast.errors import OptionError
from mcast.options import SocketOptions
from mcast.runtime.settings import security_of
from mcast.unicast import IpcEndpoint, TcpEndpoint, UnicastEndpoint
from mcast.zmtp import AuthNeeded, AuthStatus, ZmtpEngine

__all__ = ["answer", "check_judge", "check_security"]

_log = logging.getLogger("mcast")


def check_security(endpoint: UnicastEndpoint, options: SocketOptions) -> None:
    """Raise OptionError if the options ask for what this transport cannot give."""
    if isinstance(endpoint, TcpEndpoint | IpcEndpoint):
        return
    if security_of(options).mechanism != b"NULL" or options.zap_domain:
        raise OptionError(
            f"{endpoint.scheme}:// has no handshake, so it cannot honour PLAIN, CURVE or"
            " zap_domain; use tcp:// or ipc://, or take the option back"
        )


def check_judge(authenticator: Authenticator | None, options: SocketOptions) -> None:
    """Raise OptionError if somebody is to judge who connects, and nobody does."""
    if authenticator is None and (options.plain_server or options.zap_domain):
        option = "plain_server" if options.plain_server else "zap_domain"
        raise OptionError(
            f"{option} is set and nobody judges who connects: call authenticate() first"
        )


def answer(
    authenticator: Authenticator | None, engine: ZmtpEngine, asked: AuthNeeded, now_ns: int
) -> None:
    """Ask about one connection, and tell its engine. Without an authenticator: yes."""
    verdict: Allowed | Denied | bool = True
    if authenticator is not None:
        try:
            verdict = authenticator(_request(asked))
        except Exception:
            _log.exception("the authenticator failed; the connection is refused")
            engine.answer_auth(AuthStatus.FAILED, now_ns)
            return
    if isinstance(verdict, Allowed):
        engine.answer_auth(
            AuthStatus.ALLOWED, now_ns, user_id=verdict.user_id, metadata=verdict.metadata
        )
    elif isinstance(verdict, Denied) and verdict.temporary:
        engine.answer_auth(AuthStatus.TEMPORARY, now_ns)
    else:
        engine.answer_auth(AuthStatus.ALLOWED if verdict is True else AuthStatus.DENIED, now_ns)


def _request(asked: AuthNeeded) -> AuthRequest:
    name = password = ""
    key = b""
    if asked.mechanism == "PLAIN":
        name, password = (part.decode(errors="replace") for part in asked.credentials)
    elif asked.mechanism == "CURVE":
        key = asked.credentials[0]
    return AuthRequest(
        mechanism=asked.mechanism,
        address=asked.address,
        domain=asked.domain,
        identity=asked.identity,
        username=name,
        password=password,
        public_key=key,
    )
