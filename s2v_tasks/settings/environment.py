"""What the environment says: the vendor's account and service, the ledger, a contact.

It is read when a run starts, never at import. Its reader does not notice a misspelt variable, so the key has
no default, and a run that falls back to OUT's own ledger says so.
"""

import re
from dataclasses import dataclass

from pydantic import HttpUrl, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from s2v_tasks.errors import UsageError

DASHSCOPE_BASE_URL = "https://dashscope.aliyuncs.com/api/v1"
"""China (Beijing) only. Source: vendor's API page, as of 2026-10."""


class Environment(BaseSettings):
    """What the environment says beside the vendor's account."""

    model_config = SettingsConfigDict(env_prefix="S2V_", frozen=True)

    ledger_url: str | None = None
    source_url: SecretStr | None = None
    contact: str | None = None
    report_url_prefix: str | None = None

    @property
    def user_agent_contact(self) -> str | None:
        """Whom the hosts of images may write to: an e-mail address or a page; part of the User-Agent.

        Raises:
            UsageError: It can't stand in a header.
        """
        contact = (self.contact or "").strip()
        if not re.fullmatch(r"[!-'*-\[\]-~ ]{0,200}", contact):
            raise UsageError(
                "S2V_CONTACT is too long or holds brackets, line breaks or letters that no header has;"
                " set it to an e-mail address or a URL, such as https://example.org/about"
            )
        return contact or None


class Service(BaseSettings):
    """Where the vendor's service is, from the variable its own SDK reads."""

    model_config = SettingsConfigDict(env_prefix="DASHSCOPE_", frozen=True)

    http_base_url: HttpUrl = HttpUrl(DASHSCOPE_BASE_URL)


class DashScope(Service):
    """The vendor's account, from the variables its own SDK reads."""

    api_key: SecretStr
    workspace: str | None = None


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the service is and with which key; the key shows in no ``repr``."""

    base_url: str
    api_key: SecretStr
    workspace: str | None = None

    @classmethod
    def of(cls, settings: DashScope) -> "Credentials":
        """The credentials that the environment gives."""
        return cls(str(settings.http_base_url).rstrip("/"), settings.api_key, settings.workspace)
