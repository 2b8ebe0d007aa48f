"""The shop's settings."""

import os
from pathlib import Path

import django

BASE_DIR = Path(__file__).resolve().parent
SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "change me")
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "urls"
USE_TZ = True

INSTALLED_APPS = ["flagsweep.embed.django", "shop"]

# Transactions that read and then write begin as writers: a consumer's commits never come in between.
IMMEDIATE = {"transaction_mode": "IMMEDIATE"} if django.VERSION >= (5, 1) else {}
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "shop.db", "OPTIONS": {"timeout": 10, **IMMEDIATE}}
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

FLAGSWEEP = {"LANES": {"mail": 4, "default": 2}}
TASKS = {"default": {"BACKEND": "flagsweep.embed.django.FlagSweepBackend", "QUEUES": [], "OPTIONS": {"max_attempts": 12}}}

EMAIL_HOST = os.environ.get("SHOP_MAIL_HOST", "127.0.0.1")
EMAIL_PORT = int(os.environ.get("SHOP_MAIL_PORT", "2525"))
DEFAULT_FROM_EMAIL = "shop@shop.example"

WEBHOOK_SECRET = os.environ.get("SHOP_WEBHOOK_SECRET", "change me")
EXPORTS = BASE_DIR / "exports"
