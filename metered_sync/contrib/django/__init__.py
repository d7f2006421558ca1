"""Give a Django project a connection, tokens for its users, events and the gate to the SFU.

::

    INSTALLED_APPS = [..., "metered_sync.contrib.django"]
    METERED = {"KEY_ID": "sk_id_…", "KEY_SECRET": "sk_secret_…", "TOKEN": "chat.tokens.for_user"}

See ``docs/django.md``.

============ ============================================================================
apps         the application that goes into ``INSTALLED_APPS``
connections  ``client()``, ``control()`` and ``publish_on_commit()``
views        ``token_view``, ``events_view()`` and ``sfu_gate()``
checks       what ``manage.py check`` says of the settings
templatetags the tags of ``{% load metered %}``
management   the command ``manage.py metered``
============ ============================================================================
"""

from __future__ import annotations

try:
    import django
except ImportError as error:
    raise ImportError(
        f"metered_sync.contrib.django needs Django ({error.name} is missing): "
        "run  pip install 'metered_sync[django]'"
    ) from error

from metered_sync.contrib.django.connections import client, control, publish_on_commit
from metered_sync.contrib.django.views import events_view, sfu_gate, token_view

assert django

__all__ = ["client", "control", "events_view", "publish_on_commit", "sfu_gate", "token_view"]
