"""The schema registry (Confluent's REST interface, which Apicurio serves too), over the standard library's HTTP.

Two questions are all that is asked, and both answers are cached for good: an id never changes its schema, and a
subject's schema never changes its id. So no HTTP library is loaded into every task for it.
The registry's compatibility policy is left as it is.
"""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from cdc.errors import CdcError, ConfigError, Failed, Incompatible, Rejected, Unreachable

_JSON = "application/vnd.schemaregistry.v1+json"
_TIMEOUT = 10.0

T = TypeVar("T", int, str)

OPTIONS = frozenset(
    {
        "basic.auth.user.info",
        "bearer.auth.token",
        "ssl.ca.location",
        "ssl.certificate.location",
        "ssl.key.location",
        "ssl.key.password",
    }
)


class Registry:
    """`cdc.protocols.SchemaRegistry`. ``url`` may list several, separated by commas: the first that answers is used.

    ``options`` are those in ``OPTIONS``; credentials may also stand in the URL.
    """

    def __init__(self, url: str, options: Mapping[str, str] | None = None) -> None:
        options = options or {}
        unknown = sorted(set(options) - OPTIONS)
        if unknown:
            raise ConfigError(
                f"no such registry setting: {unknown[0]}",
                f"there are: {', '.join(sorted(OPTIONS))}",
            )
        self._servers = [_server(part.strip(), options) for part in url.split(",")]
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if any(address.startswith("https:") for address, _ in self._servers):
            handlers.append(urllib.request.HTTPSHandler(context=_tls(options)))
        self._opener = urllib.request.build_opener(*handlers)
        self._ids: dict[tuple[str, str], int] = {}
        self._schemas: dict[int, str] = {}
        self._answered = False

    def reach(self) -> None:
        """Ask for something small, unless it has answered before: Unreachable when no registry answers.

        ConfigError when it refuses the credentials.
        """
        if not self._answered:
            doing = "asking which types of schema there are"
            try:
                self._ask(doing, "/schemas/types")
            except _Answered as error:
                if error.status in (401, 403):
                    raise error.translated(doing, "") from error

    def register(self, subject: str, schema: str) -> int:
        """The id of this Avro schema (JSON text) under the subject; registered if it was not.

        Incompatible for one that the subject's compatibility rule forbids, Unreachable when no registry answers.
        """
        known = self._ids.get((subject, schema))
        if known is not None:
            return known
        doing = f"registering a schema under {subject}"
        try:
            answer = self._ask(
                doing, f"/subjects/{quote(subject, safe='')}/versions", {"schema": schema}
            )
        except _Answered as error:
            raise error.translated(doing, subject) from error
        schema_id = _field(answer, "id", int, doing)
        self._ids[subject, schema] = schema_id
        return schema_id

    def compatibility(self) -> str:
        """The rule for subjects that have none of their own; empty where the registry does not tell."""
        try:
            answer = self._ask("asking for the compatibility rule", "/config")
        except _Answered:
            return ""
        rule = answer.get("compatibilityLevel")
        return rule if isinstance(rule, str) else ""

    def schema(self, schema_id: int) -> str:
        """The Avro schema (JSON text) with this id; Rejected when there is none, or it is no Avro."""
        known = self._schemas.get(schema_id)
        if known is not None:
            return known
        doing = f"reading schema {schema_id}"
        try:
            answer = self._ask(doing, f"/schemas/ids/{schema_id}")
        except _Answered as error:
            if error.status == 404:
                raise Rejected(
                    f"the registry knows no schema {schema_id}",
                    "is it the registry that the writer used?",
                ) from error
            raise error.translated(doing, "") from error
        if answer.get("schemaType", "AVRO") != "AVRO" or answer.get("references"):
            raise Rejected(
                f"schema {schema_id} is no self-contained Avro schema",
                "write the topic with Avro, without references",
            )
        text = _field(answer, "schema", str, doing)
        self._schemas[schema_id] = text
        return text

    def _ask(self, doing: str, path: str, body: object = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        failure: Exception | None = None
        for address, headers in self._servers:
            request = urllib.request.Request(address + path, data, headers)  # noqa: S310 - http or https, see _server
            try:
                with self._opener.open(request, timeout=_TIMEOUT) as answer:
                    content = json.loads(answer.read())
            except urllib.error.HTTPError as error:
                with error:
                    answered = _Answered(error.code, _message(error))
                if answered.status < 500 and answered.status not in (408, 429):
                    self._answered = True
                    raise answered from error
                failure = answered
            except (OSError, HTTPException, ValueError) as error:
                failure = error
            else:
                self._answered = True
                return content if isinstance(content, dict) else {}
        where = ", ".join(address for address, _ in self._servers)
        raise Unreachable(
            f"{doing}: no answer from the schema registry at {where}: {failure}",
            "check that it is up and that the address is right",
        ) from failure


class _Answered(Exception):
    """The registry said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status
        self.message = message

    def translated(self, doing: str, subject: str) -> CdcError:
        if self.status in (401, 403):
            return ConfigError(
                f"{doing}: {self}", "check basic.auth.user.info and what that user may do"
            )
        if self.status == 409:
            return Incompatible(
                f"the schema is not compatible with what {subject} holds: {self.message}",
                "undo the change of the table, relax the compatibility of this subject in the registry, or set"
                " schema.incompatible=stale to go on without the table",
            )
        return Failed(f"{doing}: {self}", "check the registry's address and its log")


def _server(url: str, options: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"not the address of a schema registry: {url!r}", "write http://HOST:PORT or https://…"
        )
    credentials = options.get("basic.auth.user.info", "")
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    headers = {"Accept": f"{_JSON}, application/json", "Content-Type": _JSON}
    if credentials:
        headers["Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
    elif token := options.get("bearer.auth.token"):
        headers["Authorization"] = f"Bearer {token}"
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", "")), headers


def _tls(options: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.get("ssl.ca.location"))
        if certificate := options.get("ssl.certificate.location"):
            context.load_cert_chain(
                certificate, options.get("ssl.key.location"), options.get("ssl.key.password")
            )
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"the registry's certificates cannot be read: {error}", "check ssl.*.location"
        ) from error
    return context


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["message"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return error.reason


def _field(answer: Mapping[str, Any], name: str, kind: type[T], doing: str) -> T:
    value = answer.get(name)
    if not isinstance(value, kind):
        raise Failed(
            f"{doing}: the answer has no {name}", "is this the address of a schema registry?"
        )
    return value
