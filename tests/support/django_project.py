"""A Django project in the tests' own process, set up when a test needs it.

Not before: what Django has that is not configured breaks those who look at all objects.
"""

from __future__ import annotations

import types
from typing import Any

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


def set_up() -> None:
    """Configure Django, once for this process; its database is in memory, one for each thread."""
    import django
    from django.conf import settings

    if settings.configured:
        return
    settings.configure(
        DEBUG=False,
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="x" * 50,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "metered_sync.contrib.django",
        ],
        MIDDLEWARE=MIDDLEWARE,
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        ROOT_URLCONF="no.addresses",
        LOGIN_URL="/login/",
        USE_TZ=True,
    )
    django.setup()


def addresses(*patterns: Any) -> Any:
    """Return what may be the setting ``ROOT_URLCONF``."""
    module = types.ModuleType("addresses")
    module.urlpatterns = list(patterns)  # type: ignore[attr-defined]
    return module
