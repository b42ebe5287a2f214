"""POST alerts as JSON to any address, with an id by which it recognises one that comes again."""

from __future__ import annotations

from platform_assets.automation.receivers import http
from platform_assets.automation.receivers.api import Delivery, Message
from platform_assets.base.settings import Settings


class Webhook:
    """The address in `DRIFTLINE_ALERT_WEBHOOK`. The body is the alert's record, with owner and end."""

    name = "webhook"

    def __init__(self, settings: Settings) -> None:
        assert settings.alert_webhook is not None
        self._address = settings.alert_webhook.get_secret_value()

    def send(self, message: Message) -> Delivery:
        """POST a message."""
        end = {} if message.ended_at is None else {"ended_at_utc": message.ended_at.isoformat()}
        headers = {"Idempotency-Key": message.id + ("/ended" if end else "")}
        return http.post(self._address, {**message.alert.document(), "owner": message.owner, **end}, headers)
