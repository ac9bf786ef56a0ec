"""Who is let in: the options that must fit the transport, and the authenticator's verdict.

Owns nothing. Invariant: whatever the authenticator does, the connection gets an answer, and it is
no unless the authenticator said yes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from mcast.auth import Allowed, Authenticator, AuthRequest, Denied
from mcast.errors import OptionError
from mcast.options import SocketOptions
from mcast.runtime.settings import security_of
from mcast.unicast import IpcEndpoint, TcpEndpoint, UnicastEndpoint
from mcast.zmtp import AuthNeeded, AuthStatus, ZmtpEngine

__all__ = ["check_judge", "check_security", "verdict"]

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


def verdict(
    authenticator: Authenticator | None, asked: AuthNeeded
) -> Callable[[ZmtpEngine, int], None]:
    """Ask about one connection; how to tell its engine. Calls the application's code."""
    if authenticator is None:
        # CURVE has proved the key, and any will do; a name or a domain is for somebody to judge.
        allowed = asked.mechanism == "CURVE" and not asked.domain
        return partial(_tell, AuthStatus.ALLOWED if allowed else AuthStatus.DENIED, Allowed())
    try:
        said = authenticator(_request(asked))
    except Exception:
        _log.exception("the authenticator failed; the connection is refused")
        return partial(_tell, AuthStatus.FAILED, Allowed())
    if isinstance(said, Allowed):
        return partial(_tell, AuthStatus.ALLOWED, said)
    if isinstance(said, Denied) and said.temporary:
        return partial(_tell, AuthStatus.TEMPORARY, Allowed())
    return partial(_tell, AuthStatus.ALLOWED if said is True else AuthStatus.DENIED, Allowed())


def _tell(status: AuthStatus, who: Allowed, engine: ZmtpEngine, now_ns: int) -> None:
    engine.answer_auth(status, now_ns, user_id=who.user_id, metadata=who.metadata)


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
