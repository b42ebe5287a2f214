"""Deliver alerts to people: by Alertmanager, a webhook and e-mail, each of which gets every alert."""

from platform_assets.automation.receivers.alertmanager import Alertmanager
from platform_assets.automation.receivers.api import Receiver
from platform_assets.automation.receivers.mail import Mail
from platform_assets.automation.receivers.webhook import Webhook
from platform_assets.base.settings import Settings


def configured(settings: Settings) -> list[Receiver]:
    """Return the receivers that the settings name."""
    kinds: dict[str, type[Alertmanager | Mail | Webhook]] = {
        "alertmanager": Alertmanager,
        "mail": Mail,
        "webhook": Webhook,
    }
    return [kinds[name](settings) for name in settings.receivers]
